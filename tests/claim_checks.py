"""What the tests of claims share: claims of each kind, the card and the ledger that hold them, and scores in pairs."""

from papernets.cards import Card
from papernets.chapter import Claims


def exact(id="net.macs", **options):
    return {"id": id, "quantity": f"quantity of {id}", "unit": "MAC", "stated": "table", "how": "counted",
            "kind": "exact", "paper": 100.0, "accept": {"absolute": 2.0}, **options}


def miniature(id="net.gain", accept=None, **options):
    return {"id": id, "quantity": f"quantity of {id}", "unit": "points", "stated": "abstract", "how": "paired",
            "kind": "miniature", "paper": "better", "baseline": "the other method",
            "accept": accept or {"above": 0.0}, **options}


def full(id="net.top1"):
    return {"id": id, "quantity": f"quantity of {id}", "unit": "%", "stated": "abstract", "how": "on the test images",
            "kind": "full", "paper": 93.5, "accept": {"absolute": 0.3}, "recipe": "papernets train odd",
            "cost": "two hours"}


def made(*claims):
    return Card(number=7, slug="odd", name="Odd", title="Odd Sizes", authors=["A. Writer"], year=2021, venue="arXiv",
                family="pruning", summary="A card that no paper has, of just the length a card needs.", claims=claims)


def ledger(*claims, profile="evidence"):
    return Claims(made(*claims), profile)


BETTER = [90 + 0.1 * i for i in range(10)]
WORSE = [score - 3 + 0.05 * (i % 3) for i, score in enumerate(BETTER)]
