"""The answers to the card of LR-Winograd."""

import math
from collections.abc import Sequence

import torch

from papernets.papers.lr_winograd.experiment import _random_kernels, truncation
from papernets.papers.lr_winograd.layers import LowRankWinograd, Plan, additions
from papernets.papers.lr_winograd.method import expand, matrices, removed
from papernets.papers.lr_winograd.networks import counts, trained_numbers


def facts(seed: int = 0) -> dict[str, float]:
    """Every exact number of the card, by the identity of its claim."""
    found, W = {}, _random_kernels(seed)
    found["mults.direct"] = Plan(2, (1, 1, 1)).direct
    for m in (2, 4):
        plan, of = Plan(m, (2 * m,) * 3), counts("c3d", m)
        outputs = math.prod(plan.outputs)
        M = expand(W, m)
        found |= {f"params.expand.f{m}": M.shape[1] / 27, f"mults.f{m}": plan.products() / outputs,
                  f"ratio.f{m}": plan.direct / plan.products(), f"c3d.f{m}.products": of["products"],
                  f"c3d.f{m}.ratio": of["direct"] / of["products"], f"c3d.f{m}.params": of["expanded"],
                  f"rank.f{m}": int(torch.linalg.matrix_rank(M)), f"adds.f{m}.in": additions(m)[0],
                  f"adds.f{m}.out": additions(m)[1]}
        five = counts("c3d", m, size=(2, 7, 7))
        found[f"c3d.conv5.f{m}.ratio"] = five["direct"] / five["products"]
    four = counts("c3d", 4, size=(4, 14, 14))
    found["c3d.conv4.f4.ratio"] = four["direct"] / four["products"]
    found["params.expand.2d"] = torch.kron(matrices(2)[1], matrices(2)[1]).shape[0] / 9
    found |= {"c3d.macs": counts("c3d")["macs"], "c3d.params": counts("c3d")["parameters"]}
    r3d = counts("r3d")
    found |= {"r3d.macs": r3d["macs"], "r3d.stride1.macs": r3d["direct"], "r3d.f2.products": r3d["products"],
              "r3d.f2.ratio": r3d["direct"] / r3d["products"]}
    half, plan = 64 - removed(64, 0.5), Plan(2, (4, 4, 4))
    found |= {"columns.half.mults": plan.products(half) / math.prod(plan.outputs),
              "columns.half.ratio": plan.direct / plan.products(half)}
    errors, tails = truncation(W)
    found |= {"svd.tail": float((errors - tails).abs().max()), "svd.zero": float(errors[26])}
    vanilla = trained_numbers(256, 256, LowRankWinograd(mode="vanilla"))
    found["layer.vanilla.params"] = vanilla
    for s in (8, 16, 27, 32):
        number = trained_numbers(256, 256, LowRankWinograd(rank=s))
        found |= {f"layer.s{s}.params": number, f"layer.s{s}.ratio": vanilla / number}
    return found


#: Pairs that the claims compare: (arm, what, rate) of ours and of the baseline.
PAIRS = {"mini.dense": (("low rank", "dense", 0.0), ("vanilla", "dense", 0.0)),
         "mini.prune25": (("low rank", "kept", 0.25), ("vanilla", "kept", 0.25)),
         "mini.prune50": (("low rank", "kept", 0.5), ("vanilla", "kept", 0.5)),
         "mini.importance25": (("low rank", "kept", 0.25), ("low rank", "random", 0.25)),
         "mini.importance50": (("low rank", "kept", 0.5), ("low rank", "random", 0.5))}


def _values(runs: Sequence[dict], arm: str, what: str, rho: float) -> list[float]:
    each = [run["arms"][arm][what] for run in runs]
    return each if what == "dense" else [one[rho] for one in each]


def records(runs: Sequence[dict], times: tuple[Sequence[float], Sequence[float]]) -> dict[str, tuple[list[float], list[float]]]:
    """(ours, baseline) of every miniature: points over the seeds, milliseconds over the repetitions."""
    found = {claim: tuple([100 * value for value in _values(runs, *side)] for side in pair) for claim, pair in PAIRS.items()}
    return found | {"mini.time": (list(times[0]), list(times[1]))}
