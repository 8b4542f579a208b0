"""Pages and parts of pages that are made from the cards and the results."""

import html
from collections.abc import Iterable, Mapping

from papernets.cards import FAMILIES
from papernets.cards.present import (
    VERDICTS,
    amount,
    badge,
    derived,
    header_html,
    in_words,
    named,
    signed,
    unit_text,
    venue_text,
    verdict,
)
from papernets.press._results import Status

_STATE_WORDS = {"planned": "planned", "method": "method ready", "chapter": "not complete", "validated": "validated",
                "stale": "evidence is stale"}


def _link(one: Status, built: frozenset[str], up: str) -> str:
    """Where the chapter stands, if this site has it."""
    return f"{up}notebooks/{one.card.chapter}.html" if one.card.chapter in built else ""


def map_html(found: Iterable[Status], built: frozenset[str], pictures: dict[str, str]) -> str:
    """The front page: the papers by family, one tile each, with a picture from the chapter's own figure."""
    found, parts = list(found), []
    for family, title in FAMILIES.items():
        tiles = []
        for one in found:
            if one.card.family != family:
                continue
            link = _link(one, built, "../")
            picture = pictures.get(one.card.chapter, "")
            body = (f'<span class="pn-number">{one.card.number:02d}</span><span class="pn-name">{html.escape(one.card.name)}'
                    f'</span>{picture}<span class="pn-tile-title">{html.escape(one.card.title)}</span>'
                    f'{badge(one.state, _STATE_WORDS[one.state])}')
            tag, attribute = ("a", f' href="{link}"') if link else ("div", "")
            tiles.append(f'<{tag} class="pn-tile pn-is-{one.state}"{attribute}>{body}</{tag}>')
        parts.append(f'<section class="pn-family"><h3><a href="families/{family}.html">{html.escape(title)}</a></h3>'
                     f'<div class="pn-tiles">{"".join(tiles)}</div></section>')
    return f'<div class="pn-map">{"".join(parts)}</div>'


def family_html(found: Iterable[Status], built: frozenset[str], family: str, compared: Iterable[Status] = ()) -> str:
    """The papers of one family: what each does, and where it stands. Before them the comparisons in which they take part."""
    parts, found = [], [one for one in found if one.card.family == family]
    for one in compared:
        link = _link(one, built, "../../")
        if link and {paper.card.slug for paper in found} & set(one.card.methods):
            parts.append(f'<p class="pn-compared"><a href="{link}">{html.escape(one.card.title)}</a> '
                         f'{html.escape(one.card.summary)}</p>')
    for one in found:
        card = one.card
        link = _link(one, built, "../../")
        name = f'<a href="{link}">{html.escape(card.name)}</a>' if link else html.escape(card.name)
        links = [f'<a href="https://arxiv.org/abs/{card.arxiv}">arXiv {card.arxiv}</a>'] if card.arxiv else []
        links += [f'<a href="{html.escape(card.code)}">authors\' code</a>'] if card.code else []
        authors = html.escape(", ".join(card.authors[:3]) + (" et al." if len(card.authors) > 3 else ""))
        counts = [badge(each, f"{number} {each}") for each, number in named(one.counts).items()]
        parts.append(f'<article class="pn-paper"><h3><span class="pn-number">{card.number:02d}</span> {name}'
                     f'</h3><p class="pn-title">{html.escape(card.title)}</p><p>{html.escape(card.summary)}</p>'
                     f'<p><small>{" · ".join([authors, venue_text(card), *links])}</small></p>'
                     f'<p class="pn-badges">{badge(one.state, _STATE_WORDS[one.state])} {" ".join(counts)}</p></article>')
    return "".join(parts)


def results_html(found: Iterable[Status], built: frozenset[str]) -> str:
    """Every claim of every paper, to sort and to filter; a row leads to its place in the chapter."""
    rows = []
    for one in found:
        measured = {row["id"]: row for row in one.claims}
        for claim in one.card.claims:
            row = measured.get(claim.id, {"id": claim.id, "kind": claim.kind, "verdict": "open"})
            judged = verdict(row, one.card)
            paper, ours = amount(claim.paper, claim.unit), amount(row.get("ours"), claim.unit)
            of_paper, of_ours = ("" if isinstance(value, str | None) else value for value in (claim.paper, row.get("ours")))
            if "interval" in row:
                low, high = map(signed, row["interval"])
                ours = html.escape(f"{signed(of_ours)} ({low} to {high}) {unit_text(of_ours, claim.unit)}")
            if derived(row, one.card):
                paper = f"<small>not printed:</small> {paper}"
            link = _link(one, built, "../")
            quantity = html.escape(claim.quantity)
            if link:
                quantity = f'<a href="{link}#claim-{claim.id.replace(".", "-")}">{quantity}</a>'
            rows.append(f'<tr data-kind="{claim.kind}" data-verdict="{judged}" data-family="{one.card.family}">'
                        f'<td data-label="paper">{html.escape(one.card.label)}</td>'
                        f'<td data-label="quantity">{quantity}</td>'
                        f'<td data-label="printed" data-sort="{of_paper}">{paper}</td>'
                        f'<td data-label="ours" data-sort="{of_ours}">{ours}</td>'
                        f'<td data-label="kind">{claim.kind}</td><td data-label="verdict">{badge(judged)}</td></tr>')
    families = "".join(f'<option value="{key}">{html.escape(title)}</option>' for key, title in FAMILIES.items())
    verdicts = "".join(f"<option>{each}</option>" for each in VERDICTS)
    kinds = "".join(f"<option>{k}</option>" for k in ("exact", "miniature", "full"))
    heads = "".join(f'<th scope="col"><button type="button">{name}</button></th>'
                    for name in ("paper", "quantity", "printed", "ours", "kind", "verdict"))
    return ('<div class="pn-results"><div class="pn-filters">'
            '<label>search <input type="search" data-filter="text" placeholder="accuracy, ResNet-50 …"></label>'
            f'<label>family <select data-filter="family"><option value="">all</option>{families}</select></label>'
            f'<label>kind <select data-filter="kind"><option value="">all</option>{kinds}</select></label>'
            f'<label>verdict <select data-filter="verdict"><option value="measured">measured</option>'
            f'<option value="">all</option>{verdicts}</select></label>'
            f'<output aria-live="polite">{len(rows)} claims</output></div>'
            f'<div class="pn-scroll"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div></div>')


def chapter_header(one: Status) -> str:
    return header_html(one.card, list(one.claims), one.state == "stale")


def run_note(made_by: Mapping) -> str:
    """How the times on a page were measured that are of its own run."""
    beside = "and no other chapter ran beside it" if made_by["alone"] else "while other chapters ran on the other cores"
    return (f'<p class="pn-note">The run that made this page used one thread of a machine with {made_by["machine"]}, {beside}. '
            "The times that it measured hold for these conditions.</p>")


def readme_table(found: Iterable[Status]) -> str:
    """The papers as a markdown table, for the README."""
    lines = ["| | paper | family | state | claims |", "|---|---|---|---|---|"]
    for one in found:
        card = one.card
        name = f"[{card.name}](notebooks/{card.chapter}.ipynb)" if one.state not in ("planned", "method") else card.name
        title = card.title.removeprefix(f"{card.name}: ")
        cells = f"{card.number:02d}", f"{name}: {title}", FAMILIES[card.family], one.state, in_words(one.counts)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
