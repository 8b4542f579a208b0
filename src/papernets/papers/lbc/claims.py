"""The answers to the card of LBC."""

from collections.abc import Sequence

from papernets.papers.lbc.experiment import PATTERNS, _observed
from papernets.papers.lbc.layers import EPOCHS, LBC
from papernets.papers.lbc.method import bits, code_bits, left, supports
from papernets.papers.lbc.networks import counts


def facts(seed: int = 0) -> dict[str, float]:
    """Every exact number of the card, by the identity of its claim."""
    found = {}
    for N, M in ((2, 4), (1, 4), (2, 8), (4, 8), (1, 8), (1, 16)):
        found |= {f"count.{N}_{M}": len(supports(N, M)), f"scores.{N}_{M}": supports(N, M).shape[0] / M}
        found |= {f"store.{N}_{M}.bits": bits(N, M), f"store.{N}_{M}.share": 100 * bits(N, M) / (16 * M),
                  f"store.{N}_{M}.code": code_bits(N, M)}
    config = LBC()
    found |= {"schedule.start": config.t_i, "schedule.end": config.t_f, "nodense.pretraining": config.t_i,
              "schedule.epochs": EPOCHS}
    alive = [left(epoch, config.N, config.M, config.t_i, config.t_f) for epoch in range(config.t_f + 1)]
    found |= {f"schedule.removal{k}": next(e for e, c in enumerate(alive) if 6 - c >= k) for k in range(1, 6)}
    for short, name in (("r18", "resnet18"), ("r50", "resnet50")):
        every = counts(name)
        found |= {f"{short}.{key}": every[key] for key in ("weights", "params", "layers", "nm.macs")}
        found[f"{short}.macs"] = every["dense.macs"]
        for N, M in ((2, 4), (4, 8), (1, 4), (1, 16)):
            every = counts(name, N, M)
            found |= {f"{short}.{N}_{M}.{key}": every[key] for key in ("scores", "nonzero", "macs")}
            found[f"{short}.{N}_{M}.macs_left"] = 100 * every["macs"] / every["dense.macs"]
    return found | _observed(seed)


def records(runs: Sequence[dict]) -> dict[str, tuple[list[float], list[float]]]:
    """(ours, baseline) of every miniature, in points, over the seeds."""
    return {f"better.{N}_{M}.{peer}": tuple([100 * run["arms"][N, M][arm] for run in runs] for arm in ("lbc", peer))
            for N, M in PATTERNS for peer in ("random", "magnitude", "ste")}
