"""The answers to the card of LAPP."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from papernets.measure import macs
from papernets.nn import ResNetCIFAR
from papernets.papers.lapp.compaction import with_filters
from papernets.papers.lapp.experiment import model_against_count
from papernets.papers.lapp.layers import LAPP, attach_, bypass_of
from papernets.papers.lapp.networks import NETWORKS, counts
from papernets.training import pair


def facts(rows: Sequence[Mapping]) -> dict[str, float]:
    """Every exact number of the card, by the identity of its claim; those that begin with ``control`` are of ``rows``."""
    r20, projected, r18 = (counts(name) for name in NETWORKS)
    known = {"r20.macs": r20["macs"], "r20.params": r20["params"], "r20.proj.macs": projected["macs"],
             "r20.proj.params": projected["params"], "r18.macs": r18["macs"], "r18.params": r18["params"],
             "r20.left.macs": 0.403 * r20["macs"], "r20.left.params": 0.403 * r20["params"],
             "r18.left.macs": (1 - 0.556) * r18["macs"]}
    conv, x = nn.Conv2d(16, 16, 3, padding=1, bias=False), torch.zeros(1, 16, 32, 32)
    known |= {"layer.dense.macs": macs(conv, x), "layer.kept5.macs": macs(with_filters(conv, torch.arange(5)), x)}
    known |= {f"layer.{bypass}.macs": macs(bypass_of(conv, LAPP(bypass=bypass)), x) for bypass in ("grouped", "depthwise")}
    model = ResNetCIFAR(20)
    units = attach_(model, LAPP(), torch.zeros(1, 3, 32, 32)).widths
    plain = sum(p.numel() for name, p in model.named_parameters() if not name.endswith("threshold") and "bypass" not in name)
    if plain != r20["params"]:
        raise AssertionError(f"{plain} parameters are no threshold and no bypass; the plain network has {r20['params']}")
    thresholds = sum(p.numel() for name, p in model.named_parameters() if name.endswith("threshold"))
    learned = [row for row in rows if "above" in row]  # how many end above the target, or more than a filter below it
    control = {f"control.{side}": sum(row[side] for row in learned) for side in ("above", "below")}
    return known | control | {"overhead.thresholds": thresholds, "overhead.gates": sum(units.values()),
                              "book.difference": model_against_count()}


#: What each comparison of accuracies sets against what, and at which target.
PAIRS = {"mini.bypass": ("plain", 0.2), "mini.bypass.p10": ("plain", 0.1), "mini.uniform": ("uniform", 0.2),
         "mini.oneshot": ("one-shot", 0.2), "mini.narrow": ("narrow", 0.2), "mini.drop": ("full", 0.4)}


def records(rows: Sequence[Mapping]) -> dict[str, tuple[list[float], list[float]]]:
    """(ours, baseline) of every miniature, over the seeds: accuracies in per cent, falls and spreads as shares."""
    points = {claim: pair(rows, "lapp", other, rho, scale=100) for claim, (other, rho) in PAIRS.items()}
    return points | {"mini.progressive": pair(rows, "lapp", "one-shot", 0.4, "steepest"),
                     "mini.rates": pair(rows, "lapp", "uniform", 0.4, "spread")}
