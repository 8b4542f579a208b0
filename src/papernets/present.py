"""Claims and cards as text and as HTML."""

import html

from papernets.cards import FAMILIES, Card, Claim


def number_text(value) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}".replace(",", "\u202f")
    return f"{value:.4g}" if abs(value) < 1e-3 else f"{value:.4f}".rstrip("0").rstrip(".")


def line(row: dict) -> str:
    paper = row["paper"] if not isinstance(row["paper"], str) else "(no number)"
    parts = [f"{row['id']:<22} paper {number_text(paper):>15}"]
    if "ours" in row:
        parts.append(f"ours {number_text(row['ours']):>15}")
    if "interval" in row:
        parts.append(f"interval {row['interval'][0]:+.2f} to {row['interval'][1]:+.2f}, {row['seeds']} pairs")
    return "  ".join([*parts, f"{row['unit']:<9}", row["verdict"]]).rstrip()


def _quantity(row: dict, card: Card | None) -> str:
    return card.claim(row["id"]).quantity if card else row["id"]


def table(rows, card: Card | None = None) -> str:
    """The claims as a table that a phone can show: four columns, the rest below the quantity."""
    body = []
    for row in rows:
        ours = number_text(row.get("ours"))
        if "interval" in row:
            ours = f"{row['ours']:+.2f}<br><small>{row['interval'][0]:+.2f} to {row['interval'][1]:+.2f}, " \
                   f"{row['seeds']} seeds</small>"
        elif row["kind"] == "miniature":
            ours = f"{row['ours']:+.2f}<br><small>1 seed</small>"
        below = row.get("why") or row.get("baseline") and f"against: {row['baseline']}" or row.get("recipe") or ""
        small = f"<br><small>{html.escape(below)}</small>" if below else ""
        paper = html.escape(number_text(row["paper"]))
        unit = html.escape(row["unit"])
        body.append(f"<tr id=\"claim-{row['id'].replace('.', '-')}\"><td>{html.escape(_quantity(row, card))}{small}</td>"
                    f"<td>{paper} {'' if isinstance(row['paper'], str) else unit}</td><td>{ours} {unit if ours else ''}</td>"
                    f"<td>{badge(row['verdict'])}</td></tr>")
    return ('<div class="pn-table"><table><thead><tr><th>quantity</th><th>paper</th><th>ours</th><th>verdict</th></tr>'
            f"</thead><tbody>{''.join(body)}</tbody></table></div>")


def badge(verdict: str, text: str | None = None) -> str:
    return f'<span class="pn-badge pn-{verdict.replace(" ", "-")}">{html.escape(text or verdict)}</span>'


def counted(claims: list[Claim] | list[dict]) -> dict[str, int]:
    """How many claims have each verdict, keys as in ``papernets list --json``."""
    counts = dict.fromkeys(("reproduced", "differs", "shown", "not_shown", "open"), 0)
    for row in claims:
        verdict = row["verdict"] if isinstance(row, dict) else "open"
        key = verdict.replace(" ", "_")
        counts[key] = counts.get(key, 0) + 1
    return counts


def header_html(card: Card, results: list[dict], stale: bool = False) -> str:
    """Title, authors, venue, links, family, reading time, and a badge a verdict that leads to the claims table."""
    links = []
    if card.arxiv:
        links.append(f'<a href="https://arxiv.org/abs/{html.escape(card.arxiv)}">arXiv {html.escape(card.arxiv)}</a>')
    if card.code:
        links.append(f'<a href="{html.escape(card.code)}">authors\' code</a>')
    venue = f"{html.escape(card.venue)} {card.year}" if str(card.year) not in card.venue else html.escape(card.venue)
    facts = " · ".join([html.escape(", ".join(card.authors)), venue, *links])
    about = (f"{FAMILIES[card.family]} · {card.minutes} minutes to read · under a minute to run · "
             f"{len(card.claims)} claims")
    counts = counted(results) if results else {"open": len(card.claims)}
    named = {verdict.replace("_", " "): number for verdict, number in counts.items() if number}
    badges = " ".join(f'<a href="#the-claims">{badge(verdict, f"{number} {verdict}")}</a>'
                      for verdict, number in named.items())
    if stale:
        badges += " " + badge("stale", "evidence is stale")
    return (f'<div class="pn-card"><p class="pn-title">{html.escape(card.title)}</p><p>{facts}</p><p>{about}</p>'
            f'<p class="pn-badges">{badges}</p></div>')
