"""The answers to the card of LBC."""

from collections.abc import Sequence

from papernets.papers.lbc.experiment import PATTERNS, observed
from papernets.papers.lbc.layers import EPOCHS, LBC
from papernets.papers.lbc.method import bits, code_bits, left, supports
from papernets.papers.lbc.networks import counts
from papernets.training import pair


def facts(seed: int = 0) -> dict[str, float]:
    """Every exact number of the card, by the identity of its claim."""
    return _patterns() | _schedule() | _networks() | observed(seed)


def _patterns() -> dict[str, float]:
    numbers = {}
    for N, M in ((2, 4), (1, 4), (2, 8), (4, 8), (1, 8), (1, 16)):
        numbers |= {f"count.{N}_{M}": len(supports(N, M)), f"scores.{N}_{M}": len(supports(N, M)) / M}
    for N, M in ((2, 4), (1, 4), (2, 8), (4, 8)):
        numbers |= {f"store.{N}_{M}.bits": bits(N, M), f"store.{N}_{M}.share": 100 * bits(N, M) / (16 * M)}
        if N > 1:  # of one place the code is the place
            numbers[f"store.{N}_{M}.code"] = code_bits(N, M)
    return numbers


def _schedule() -> dict[str, float]:
    config = LBC()
    alive = [left(epoch, config.N, config.M, config.t_i, config.t_f) for epoch in range(config.t_f + 1)]
    removals = {f"schedule.removal{gone}": next(epoch for epoch, c in enumerate(alive) if c <= alive[0] - gone)
                for gone in range(1, alive[0])}
    return removals | {"schedule.start": config.t_i, "schedule.end": config.t_f, "schedule.epochs": EPOCHS,
                       "nodense.pretraining": config.t_i}


def _networks() -> dict[str, float]:
    numbers = {}
    for short, name in (("r18", "resnet18"), ("r50", "resnet50")):
        dense = counts(name)
        numbers |= {f"{short}.{key}": dense[key] for key in ("weights", "params", "layers")}
        numbers[f"{short}.macs"] = dense["dense.macs"]
        for N, M in ((2, 4), (1, 4), (1, 16)):
            sparse = counts(name, N, M)
            numbers |= {f"{short}.{N}_{M}.{key}": sparse[key] for key in ("nonzero", "macs")}
    for N, M in ((2, 4), (1, 4), (1, 16)):
        numbers[f"r50.{N}_{M}.macs_left"] = 100 * numbers[f"r50.{N}_{M}.macs"] / numbers["r50.macs"]
    numbers |= {f"r50.{N}_{M}.scores": counts("resnet50", N, M)["scores"] for N, M in ((2, 4), (4, 8))}
    return numbers | {"r50.nm.macs": counts("resnet50")["nm.macs"]}


def records(rows: Sequence[dict]) -> dict[str, tuple[list[float], list[float]]]:
    """(ours, baseline) of every miniature, in points, over the seeds."""
    return {f"better.{N}_{M}.{peer}": pair(rows, "lbc", peer, (N, M), scale=100)
            for N, M in PATTERNS for peer in ("random", "magnitude", "ste")}
