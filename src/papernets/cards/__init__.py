"""Cards: who wrote a paper, what it claims and by which rule (``schema``), how that is shown, what a result was made from."""

from papernets.cards.schema import (
    FAMILIES,
    Card,
    Claim,
    Comparison,
    ExactClaim,
    FullClaim,
    Interval,
    MiniatureClaim,
    Tolerance,
    card,
    cards,
    cards_folder,
    comparisons,
    comparisons_folder,
    read_card,
)

__all__ = ["FAMILIES", "Card", "Claim", "Comparison", "ExactClaim", "FullClaim", "Interval", "MiniatureClaim", "Tolerance",
           "card", "cards", "cards_folder", "comparisons", "comparisons_folder", "read_card"]
