"""The state of every paper, from its card, its notebook and its committed evidence."""

import json
from dataclasses import dataclass
from pathlib import Path

from papernets.cards import Card, Comparison, cards
from papernets.cards.present import counted
from papernets.cards.provenance import own_hash
from papernets.tools import paths

STATES = ("planned", "method", "chapter", "validated", "stale")


@dataclass(frozen=True)
class Status:
    """A card, its state, its committed claims (empty without evidence) and their count by verdict."""

    card: Card | Comparison
    state: str
    claims: tuple[dict, ...]
    made_by: dict

    @property
    def counts(self) -> dict[str, int]:
        return counted(self.claims or self.card.claims, self.card)

    def row(self) -> dict:
        """As ``papernets list --json`` gives it."""
        return {"number": self.card.number, "slug": self.card.slug, "title": self.card.title,
                "family": self.card.family, "state": self.state, "claims": self.counts}


def read_results(path: Path) -> dict:
    """A results file; ``ValueError`` names the file if it is not one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["schema"] != 1:
            raise ValueError(f"schema {found['schema']}")
        found["claims"], found["made_by"]["hash"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a results file ({error}); make it again with: papernets validate") from None
    return found


def status(card: Card | Comparison) -> Status:
    if not card.written:
        return Status(card, "planned", (), {})
    if paths.installed() or not paths.notebook(card.chapter).exists():  # notebooks are in checkouts alone
        return Status(card, "method", (), {})
    file = paths.results() / f"{card.chapter}.json"
    if not file.exists():
        return Status(card, "chapter", (), {})
    found = read_results(file)
    fresh = found["made_by"]["hash"] == own_hash(card) and found["profile"] == "evidence"
    started = all(claim.recipe for claim in card.claims if claim.kind == "full")
    state = "stale" if not fresh else "validated" if started else "chapter"
    return Status(card, state, tuple(found["claims"]), found["made_by"])


def statuses() -> list[Status]:
    """Of all papers."""
    return [status(card) for card in cards()]
