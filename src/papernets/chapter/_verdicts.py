"""The paired differences of a chapter as a figure and as lines: drawn from the committed evidence where there is any."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from papernets import check
from papernets.cards import Card, Comparison, MiniatureClaim
from papernets.cards.present import signed, unit_text, verdict
from papernets.chapter import plots


def selected(card: Card | Comparison, claims: Sequence[Mapping],
             select: str | Sequence[str]) -> list[tuple[MiniatureClaim, dict]]:
    """(claim, result) of the miniatures whose ids begin with ``select``, or are listed in it, in the order of the card."""
    results = {row["id"]: dict(row) for row in claims if row["kind"] == "miniature"}
    every = {claim.id: claim for claim in card.claims if isinstance(claim, MiniatureClaim)}
    if isinstance(select, str):
        ids = [id for id in every if id.startswith(select)]
        if not ids:
            raise ValueError(f"no miniature of this card begins with {select!r}; there are {', '.join(every)}")
    else:
        ids = [check.one_of("claim", id, every) for id in select]
    for id in ids:
        if id not in results:
            raise ValueError(f"claim {id!r} has no result yet; record it before it is drawn")
    return [(every[id], results[id]) for id in ids]


def figure_of(pairs: Sequence[tuple[MiniatureClaim, dict]], title: str, x: str, y: str) -> go.Figure:
    """A line for each difference with its 95 % interval, against 0; one of a single seed is a point."""
    units = {claim.unit for claim, _ in pairs}
    if len(units) > 1:
        raise ValueError(f"these differences have the units {', '.join(sorted(units))}; a figure has one: select fewer")
    rows = [(claim.label, row["ours"], *row.get("interval", (row["ours"], row["ours"]))) for claim, row in pairs]
    shown = sum(verdict(row) == "shown" for _, row in pairs)
    words = {"shown": shown, "total": len(rows), "seeds": min(row["seeds"] for _, row in pairs)}
    unit = unit_text(2, units.pop())
    return plots.intervals(rows, title.format(**words), x or f"{unit or 'difference'} (95 %)", y)


def lines_of(pairs: Sequence[tuple[MiniatureClaim, dict]]) -> str:
    """A line of markdown for each difference: its mean, its interval, and what that comes to."""
    said = []
    for claim, row in pairs:
        amount = f"{signed(row['ours'])} {unit_text(2, claim.unit)}".rstrip()
        between = " ({} to {})".format(*map(signed, row["interval"])) if "interval" in row else ""
        said.append(f"- {claim.label}: {amount}{between}: **{verdict(row)}**.")
    return "\n".join(said)
