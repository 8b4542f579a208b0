"""The card that opens every chapter, made from the paper's card and its results."""

import html

from papernets.cards import FAMILIES, Card
from papernets.chapter._claims import badge, counted


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
