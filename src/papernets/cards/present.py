"""Claims and cards as text and as HTML."""

import html
import re
from collections.abc import Sequence

from papernets.cards import FAMILIES, Card, Claim, Comparison


def number_text(value) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if abs(value) < 1e-12:  # what rounding leaves of 0, different on every machine
        return "0"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}".replace(",", "\u202f")
    if abs(value) >= 1e5:
        return f"{value:,.0f}".replace(",", "\u202f")
    return f"{value:.4g}" if abs(value) < 1e-3 else f"{value:.4f}".rstrip("0").rstrip(".")


#: A number and its per cent stay on one line; a minus is no hyphen, and a times no letter.
_TYPESET = ((re.compile(r"(?<=\d) (?=%)"), "\u00a0"), (re.compile(r"(?<=[\s(])-(?=\d)"), "\u2212"),
            (re.compile(r"(?<=\d) x (?=\d)"), "\u00a0\u00d7\u00a0"))
_UNTOUCHED = re.compile(r"(<(?:script|style|pre|code|svg|textarea)\b.*?</(?:script|style|pre|code|svg|textarea)>|<[^>]*>"
                        r"|\\\(.*?\\\)|\\\[.*?\\\])", re.S)


def typeset(text: str) -> str:
    """A text with the signs and the spaces of print."""
    for pattern, sign in _TYPESET:
        text = pattern.sub(sign, text)
    return text


def typeset_html(page: str) -> str:
    """HTML with its text typeset; code and formulas stay as they are."""
    parts = _UNTOUCHED.split(page)
    parts[::2] = map(typeset, parts[::2])
    return "".join(parts)


def signed(value: float) -> str:
    """A difference with its sign: two digits after the point, none and groups of three from a thousand on."""
    text = f"{value:+,.0f}".replace(",", "\u202f") if abs(value) >= 1000 else f"{value:+.2f}"
    return text.replace("-", "\u2212")


#: Units of which there can be several.
_COUNTED = frozenset("""MAC FLOP parameter weight bit byte cycle sample pixel layer image epoch filter channel score product
support rank token bin pair term patch addition input run relation triple iteration eigenvalue value call subnet window pass
frame scene voxel choice logit group view point network class caption picture miss entry""".split())


def unit_text(value, unit: str) -> str:
    """The unit as it follows a number: ``1 layer``, ``2 layers``."""
    words = unit.split(" ")  # million MAC
    if words[-1] not in _COUNTED or isinstance(value, str) or value == 1:
        return unit
    last = words[-1]
    plural = last[:-1] + "ies" if last.endswith("y") else last + ("es" if last.endswith(("s", "ch")) else "s")
    return " ".join([*words[:-1], plural])


def amount(value, unit: str) -> str:
    """A number and its unit as HTML. A text stays a text, and nothing is nothing."""
    if isinstance(value, str) or value is None:
        return html.escape(value or "")
    number = number_text(value).replace("-", "\u2212")
    return html.escape(f"{number} {unit_text(value, unit)}".rstrip())


#: What a claim can come to, in the order of the counts.
VERDICTS = ("reproduced", "derived", "differs", "shown", "not shown", "open")


def derived(row: dict, card: Card | Comparison | None = None) -> bool:
    """Whether the number of an exact claim is printed nowhere, but follows from what the paper says."""
    return row["kind"] == "exact" and (card.claim(row["id"]).stated if card else row.get("stated")) == "derived"


def verdict(row: dict, card: Card | Comparison | None = None) -> str:
    """The verdict as readers see it: nothing counts as reproduced that is not printed."""
    return "derived" if row["verdict"] == "reproduced" and derived(row, card) else row["verdict"]


def line(row: dict) -> str:
    paper = row["paper"] if not isinstance(row["paper"], str) else "(no number)"
    parts = [f"{row['id']:<22} {'' if derived(row) else 'paper':<5} {number_text(paper):>15}"]
    if "ours" in row:
        parts.append(f"ours {number_text(row['ours']):>15}")
    if "interval" in row:
        parts.append(f"interval {row['interval'][0]:+.2f} to {row['interval'][1]:+.2f}, {row['seeds']} pairs")
    return "  ".join([*parts, f"{row['unit']:<9}", verdict(row)]).rstrip()


def _quantity(row: dict, card: Card | None) -> str:
    return card.claim(row["id"]).quantity if card else row["id"]


def table(rows, card: Card | None = None, evidence: Sequence[dict] = ()) -> str:
    """The claims as a table that a phone can show; those that stay open for want of data can be unfolded below it.

    A miniature that this run did not judge shows the numbers and the verdict of ``evidence``, and its own below them.
    """
    judged = {row["id"]: row for row in evidence if row["kind"] == "miniature"}
    rows = [{**judged[row["id"]], "live": row} if row["verdict"] == "open" and row["id"] in judged else row for row in rows]
    full = [row for row in rows if row["kind"] == "full"] if len(rows) > 1 else []
    found = _rows([row for row in rows if row not in full], card)
    if full:
        missing = sum(not row["recipe"] for row in full)
        commands = f"{missing} of them have no command yet" if missing else "each has a command"
        found += (f"<details><summary>{len(full)} claims need the real data set or an accelerator; {commands}"
                  f"</summary>{_rows(full, card)}</details>")
    return found


def _rows(rows: list[dict], card: Card | None) -> str:
    body, printed = [], "expected" if isinstance(card, Comparison) else "paper"  # a comparison quotes no paper
    for row in rows:
        ours = amount(row.get("ours"), row["unit"])
        if row["kind"] == "miniature":
            ours = html.escape(f"{signed(row['ours'])} {unit_text(row['ours'], row['unit'])}")
        if "interval" in row:
            low, high = map(signed, row["interval"])
            ours += f"<br><small>{low} to {high}, {row['seeds']} seeds</small>"
        if "live" in row:
            live = row["live"]
            ours += f"<br><small>(this run: {signed(live['ours'])}, {live['seeds']} seed{'s' * (live['seeds'] > 1)})</small>"
        below = row.get("why") or (row.get("baseline") and f"against: {row['baseline']}") or ""
        small = f"<br><small>{html.escape(below)}</small>" if below else ""
        if row["kind"] == "full":
            command = f"<code>{html.escape(row['recipe'])}</code>" if row["recipe"] else "no command yet"
            small = f"<br><small>{command}, {html.escape(row['cost'])}</small>"
        paper = amount(row["paper"], row["unit"])
        if printed == "paper" and derived(row, card):
            paper = f"<small>not printed:</small> {paper}"
        cells = "".join(f'<td data-label="{label}"><span>{text}</span></td>' for label, text in
                        ((printed, paper), ("ours", ours), ("verdict", badge(verdict(row, card)))))
        body.append(f"<tr id=\"claim-{row['id'].replace('.', '-')}\"><td>{html.escape(_quantity(row, card))}{small}</td>"
                    f"{cells}</tr>")
    return ('<div class="pn-table"><table><thead><tr><th>quantity</th>'
            f"<th>{printed}</th><th>ours</th><th>verdict</th></tr></thead><tbody>{''.join(body)}</tbody></table></div>")


def badge(kind: str, text: str | None = None) -> str:
    return f'<span class="pn-badge pn-{kind.replace(" ", "-")}">{html.escape(text or kind)}</span>'


def counted(claims: list[Claim] | list[dict], card: Card | Comparison | None = None) -> dict[str, int]:
    """How many claims have each verdict, keys as in ``papernets list --json``."""
    counts = {each.replace(" ", "_"): 0 for each in VERDICTS}
    for row in claims:
        key = verdict(row, card).replace(" ", "_") if isinstance(row, dict) else "open"
        counts[key] = counts.get(key, 0) + 1
    return counts


def named(counts: dict[str, int]) -> dict[str, int]:
    """The counts that are not 0, by their verdicts as words."""
    return {key.replace("_", " "): number for key, number in counts.items() if number}


def in_words(counts: dict[str, int]) -> str:
    """As in ``3 shown, 5 not shown``."""
    return ", ".join(f"{number} {each}" for each, number in named(counts).items())


def venue_text(card: Card) -> str:
    """Venue and year, the year once."""
    return html.escape(card.venue if str(card.year) in card.venue else f"{card.venue} {card.year}".strip())


def header_html(card: Card | Comparison, results: list[dict], stale: bool = False) -> str:
    """Title, authors, venue, links, family, reading time, and a badge a verdict that leads to the claims table."""
    if isinstance(card, Comparison):
        facts = html.escape(card.summary)
    else:
        links = []
        if card.arxiv:
            links.append(f'<a href="https://arxiv.org/abs/{html.escape(card.arxiv)}">arXiv {html.escape(card.arxiv)}</a>')
        if card.code:
            links.append(f'<a href="{html.escape(card.code)}">authors\' code</a>')
        facts = " · ".join([html.escape(", ".join(card.authors)), venue_text(card), *links])
    about = (f"{FAMILIES[card.family]} · {card.minutes} minutes to read · under a minute to run · "
             f"{len(card.claims)} claims")
    counts = counted(results, card) if results else {"open": len(card.claims)}
    badges = " ".join(f'<a href="#the-claims">{badge(each, f"{number} {each}")}</a>' for each, number in named(counts).items())
    if stale:
        badges += " " + badge("stale", "evidence is stale")
    return (f'<div class="pn-card"><p class="pn-title">{html.escape(card.title)}</p><p>{facts}</p><p>{about}</p>'
            f'<p class="pn-badges">{badges}</p></div>')
