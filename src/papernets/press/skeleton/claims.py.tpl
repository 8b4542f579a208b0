"""The answers to the card of $name."""

from collections.abc import Sequence


def facts() -> dict[str, float]:
    """Every exact number of the card, by the id of its claim."""
    return {}


def records(rows: Sequence[dict]) -> dict[str, tuple[list[float], list[float]]]:
    """(ours, baseline) of every miniature over the seeds, by the id of its claim.

    >>> {"mini.plain": training.pair(rows, "ours", "plain", scale=100)}
    """
    return {}
