"""The answers to the card of LR-Winograd."""

import math
from collections.abc import Sequence

import torch

from papernets.papers.lr_winograd.experiment import random_kernels, truncation
from papernets.papers.lr_winograd.layers import LowRankWinograd, Plan, additions
from papernets.papers.lr_winograd.method import columns_gone, expand, matrices
from papernets.papers.lr_winograd.networks import counts, trained_numbers
from papernets.training import pair


def facts(seed: int = 0) -> dict[str, float]:
    """Every exact number of the card, by the identity of its claim."""
    numbers, W = {"mults.direct": Plan(2, (1, 1, 1)).direct}, random_kernels(seed)
    for m in (2, 4):
        plan, of = Plan(m, (2 * m,) * 3), counts("c3d", m)
        M = expand(W, m)
        numbers |= {f"params.expand.f{m}": M.shape[1] / 27, f"mults.f{m}": plan.products() / math.prod(plan.outputs),
                    f"ratio.f{m}": plan.direct / plan.products(), f"c3d.f{m}.products": of["products"],
                    f"c3d.f{m}.ratio": of["direct"] / of["products"], f"c3d.f{m}.params": of["expanded"],
                    f"rank.f{m}": int(torch.linalg.matrix_rank(M)), f"adds.f{m}.in": additions(m)[0],
                    f"adds.f{m}.out": additions(m)[1]}
        five = counts("c3d", m, size=(2, 7, 7))
        numbers[f"c3d.conv5.f{m}.ratio"] = five["direct"] / five["products"]
    four = counts("c3d", 4, size=(4, 14, 14))
    numbers["c3d.conv4.f4.ratio"] = four["direct"] / four["products"]
    numbers["params.expand.2d"] = torch.kron(matrices(2)[1], matrices(2)[1]).shape[0] / 9
    numbers |= {"c3d.macs": counts("c3d")["macs"], "c3d.params": counts("c3d")["parameters"]}
    r3d = counts("r3d")
    numbers |= {"r3d.macs": r3d["macs"], "r3d.stride1.macs": r3d["direct"], "r3d.f2.products": r3d["products"],
                "r3d.f2.ratio": r3d["direct"] / r3d["products"]}
    half, plan = 64 - columns_gone(64, 0.5), Plan(2, (4, 4, 4))
    numbers |= {"columns.half.mults": plan.products(half) / math.prod(plan.outputs),
                "columns.half.ratio": plan.direct / plan.products(half)}
    errors, tails = truncation(W)
    numbers |= {"svd.tail": float((errors - tails).abs().max()), "svd.zero": float(errors[26])}
    vanilla = trained_numbers(256, 256, LowRankWinograd(mode="vanilla"))
    low = {s: trained_numbers(256, 256, LowRankWinograd(rank=s)) for s in (8, 16, 27, 32)}
    numbers |= {"layer.vanilla.params": vanilla, "layer.s16.params": low[16], "layer.s27.params": low[27]}
    numbers |= {f"layer.s{s}.ratio": vanilla / low[s] for s in low}
    return numbers


#: The arms that the miniatures compare, ours first, and the share of columns that is removed.
PAIRS = {"mini.dense": ("low rank", "vanilla", 0.0),
         "mini.prune25": ("low rank", "vanilla", 0.25), "mini.prune50": ("low rank", "vanilla", 0.5),
         "mini.importance25": ("low rank", "low rank, random", 0.25),
         "mini.importance50": ("low rank", "low rank, random", 0.5)}


def records(rows: Sequence[dict], times: tuple[Sequence[float], Sequence[float]]) -> dict[str, tuple[list[float], list[float]]]:
    """(ours, baseline) of every miniature: points over the seeds, and milliseconds of ``times`` in seconds over the turns."""
    fewer, whole = ([1e3 * value for value in side] for side in times)
    return {claim: pair(rows, *arms, scale=100) for claim, arms in PAIRS.items()} | {"mini.time": (fewer, whole)}
