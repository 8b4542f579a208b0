"""The answers to the card of LAPP."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from papernets.measure import macs
from papernets.nn import ResNetCIFAR
from papernets.papers.lapp.compaction import _narrow
from papernets.papers.lapp.experiment import model_against_count
from papernets.papers.lapp.layers import LAPP, attach_, bypass_of
from papernets.papers.lapp.networks import NETWORKS, counts


def facts() -> dict[str, float]:
    """Every exact number of the card that needs no training, by the identity of its claim."""
    r20, projected, r18 = (counts(name) for name in NETWORKS)
    found = {"r20.macs": r20["macs"], "r20.params": r20["params"], "r20.proj.macs": projected["macs"],
             "r20.proj.params": projected["params"], "r18.macs": r18["macs"], "r18.params": r18["params"],
             "r20.left.macs": 0.403 * r20["macs"], "r20.left.params": 0.403 * r20["params"],
             "r18.left.macs": (1 - 0.556) * r18["macs"]}
    conv, x = nn.Conv2d(16, 16, 3, padding=1, bias=False), torch.zeros(1, 16, 32, 32)
    found |= {"layer.dense.macs": macs(conv, x), "layer.kept5.macs": macs(_narrow(conv, torch.arange(5)), x)}
    found |= {f"layer.{bypass}.macs": macs(bypass_of(conv, LAPP(bypass=bypass)), x) for bypass in ("grouped", "depthwise")}
    model = ResNetCIFAR(20)
    units = attach_(model, LAPP(), torch.zeros(1, 3, 32, 32)).widths
    plain = sum(p.numel() for name, p in model.named_parameters() if not name.endswith("threshold") and "bypass" not in name)
    if plain != r20["params"]:
        raise AssertionError(f"{plain} parameters are no threshold and no bypass; the plain network has {r20['params']}")
    thresholds = sum(p.numel() for name, p in model.named_parameters() if name.endswith("threshold"))
    return found | {"overhead.thresholds": thresholds, "overhead.gates": sum(units.values()),
                    "book.difference": model_against_count()}


#: What each comparison of accuracies sets against what, and at which target.
PAIRS = {"mini.bypass": ("plain", 0.2), "mini.bypass.p10": ("plain", 0.1), "mini.uniform": ("uniform", 0.2),
         "mini.oneshot": ("one-shot", 0.2), "mini.narrow": ("narrow", 0.2), "mini.drop": ("full", 0.4)}


def _steepest(run: dict, rho: float, name: str) -> float:
    r = run["arms"][rho][name]["remaining"]
    return max(before - after for before, after in pairwise(r))


def _spread(run: dict, rho: float, name: str) -> float:
    kept = run["arms"][rho][name]["kept"]
    return float(np.std(np.divide(kept[-1], kept[0])))


def records(runs: Sequence[dict]) -> dict[str, tuple[list[float], list[float]]]:
    """(ours, baseline) of every miniature, over the seeds: points, falls and spreads."""
    found = {}
    for identity, (other, rho) in PAIRS.items():
        found[identity] = ([100 * run["arms"][rho]["lapp"]["accuracy"] for run in runs],
                           [100 * (run["full"] if other == "full" else run["arms"][rho][other]["accuracy"]) for run in runs])
    found["mini.progressive"] = tuple([_steepest(run, 0.4, name) for run in runs] for name in ("lapp", "one-shot"))
    found["mini.rates"] = tuple([_spread(run, 0.4, name) for run in runs] for name in ("lapp", "uniform"))
    return found


def control(runs: Sequence[dict]) -> dict[str, int]:
    """How many trainings with learned thresholds end above the target, and how many more than a filter below it."""
    every = [check for run in runs for checks in run["control"].values() for check in checks]
    return {f"control.{side}": sum(check[side] for check in every) for side in ("above", "below")}
