"""The answers to the card of CC."""

import math
from collections.abc import Sequence

import torch

from papernets.papers.cc.experiment import REMOVED, cost_difference, forward_difference, outside
from papernets.papers.cc.layers import CC
from papernets.papers.cc.method import allocate, break_even, score
from papernets.papers.cc.networks import counts
from papernets.training import pair

#: Three layers whose global problem was solved by the authors' code: a, b and millions of multiply-accumulates.
THREE = {"a": (0.05381017, 0.01935493, 0.04952079), "b": (2.8821138, 4.0135887, 3.2393183),
         "F": (117.0505728, 234.1011456, 43.352064)}


def facts() -> dict[str, float]:
    """Every exact number of the card, by the identity of its claim."""
    numbers: dict[str, float] = {"target.ratio": CC().removed, "target.gamma": CC().gamma}
    for name, short in (("resnet56", "r56"), ("densenet40", "d40"), ("googlenet", "googlenet")):
        numbers |= {f"{short}.{key}": counts(name)[key] for key in ("macs", "params")}
    numbers |= {f"r50.dense.{key}": value for key, value in counts("resnet50").items()}
    numbers |= {f"r50.left.{key}": round((1 - share) * counts("resnet50")[key]) for key, share in REMOVED.items()}
    numbers |= {"breakeven.c64": break_even(64, 64, 9), "breakeven.c256": break_even(64, 256, 1),
                "breakeven.c512": break_even(512, 512, 9), "cost.difference": cost_difference(),
                "unit.forward.difference": forward_difference(), "pipeline.outside": outside()[0]}
    first = score(torch.tensor([[2.0, 0], [0, 1]])[:, :, None, None], torch.tensor([[0.5, 0.1], [0.2, 1]])[:, :, None, None])
    for key, values in (("backward", (first.channels, first.ranks)), ("metric", first.metric(0.9)),
                        ("forward", (first.channels_forward, first.ranks_forward))):
        every = torch.cat(values)
        numbers[f"unit.{key}"] = float(max(every, key=lambda value: abs(value - every.mean())))  # all four are alike
    second = score(torch.tensor([[2.0, 1], [1, 2]])[:, :, None, None], torch.ones(2, 2, 1, 1)).metric(0.9)
    numbers |= {"unit.channel": float(second[0].max()), "unit.rank_large": float(second[1][0]),
                "unit.rank_small": float(second[1][1])}
    fits, work = list(zip(THREE["a"], THREE["b"])), THREE["F"]

    def total(shares: Sequence[float]) -> float:
        return sum(a * math.exp(b * c) for (a, b), c in zip(fits, shares))

    half, x = allocate(fits, work, 0.5 * sum(work))
    numbers |= {f"root.half.layer{i}": c * F for i, (c, F) in enumerate(zip(half, work), 1)} | {"root.half.x": x}
    for rule, key in (("equal_marginal", "marginal"), ("lagrange", "lagrange")):
        shares, _ = allocate(fits, work, 0.3 * sum(work), rule=rule)
        numbers |= {f"root.{key}.layer{i}": c for i, c in enumerate(shares, 1)} | {f"root.{key}.loss": total(shares)}
    return numbers | {"root.uniform.loss": total(allocate(fits, work, 0.3 * sum(work), rule="uniform")[0])}


#: What each comparison of the card sets joint compression against.
PEERS = {"prune": "pruning", "svd": "decomposition"}


def records(rows: Sequence[dict]) -> dict[str, tuple[list[float], list[float]]]:
    """(ours, baseline) of every miniature, over the seeds: points, and per cent of the loss of the layer."""
    pairs = {}
    for cut in dict.fromkeys(one["at"] for one in rows if one["arm"] == "joint"):
        for what, peer in PEERS.items():
            for part, key in (("", "score"), (".tuned", "tuned")):
                pairs[f"mini.{what}{part}.cut{100 * cut:.0f}"] = pair(rows, "joint", peer, cut, key, scale=100)
    return pairs | {f"mini.{end}": pair(rows, "metric", other, "order")
                    for end, other in (("onestep", "one step"), ("random", "random"))}
