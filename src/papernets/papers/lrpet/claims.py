"""The answers to the card of LRPET."""

from collections.abc import Sequence

from papernets.papers.lrpet.method import break_even
from papernets.papers.lrpet.networks import NETWORKS, VIT_CONFIG, backbone_cut, counts, vit_counts

_SHORT = {"resnet56": "r56", "resnet110": "r110", "googlenet": "googlenet", "resnet34": "r34", "resnet50": "r50"}


def facts() -> dict[str, float]:
    """Every exact number of the card, by the identity of its claim."""
    found = {}
    for name, made in NETWORKS.items():
        for which, config in made.configs.items():
            every, short = counts(name, config), _SHORT[name]
            found |= {f"{short}.{key}": every[key] for key in ("base.macs", "base.params")}
            prefix = f"{short}s" if which == "s" else f"{short}.{which}"
            found |= {f"{prefix}.{key}": every[key] for key in ("macs", "params", "flops", "params_cut")}
    full, pairs, wide = vit_counts(10), vit_counts(10, VIT_CONFIG), vit_counts(100, VIT_CONFIG)
    found |= {"vit.base.flops": full["macs"], "vit.base.params": full["params"], "vit.flops": wide["macs"],
              "vit.params": wide["params"], "vit.flops_cut": 100 * (1 - pairs["macs"] / full["macs"]),
              "vit.params_cut": 100 * (1 - pairs["params"] / full["params"])}
    found |= {f"{name}.flops": backbone_cut(name) for name in ("frcnn", "psp")}
    return found | {"breakeven": break_even(64, 9 * 64) / 64}


#: What each comparison of the card sets against what, by the second part of the claim's identity.
PAIRS = {"truncate": ("lrpet", "truncate"), "retrain": ("lrpet", "retrain"), "factor": ("lrpet", "factor"),
         "energy": ("energy", "projection"), "rectify": ("lrpet", "energy")}


def records(runs: Sequence[dict], gradient_runs: Sequence[dict]) -> dict[str, tuple[list[float], list[float]]]:
    """(ours, baseline) of every miniature, over the seeds: points, and distances of the log ratio from 0."""
    found = {}
    for q in runs[0]["arms"]:
        for what, (one, other) in PAIRS.items():
            found[f"mini.{what}.q{100 * q:.0f}"] = tuple([100 * run["arms"][q][name] for run in runs] for name in (one, other))
    return found | {"mini.gradient": tuple([abs(run[name][-1]) for run in gradient_runs] for name in ("with", "without"))}
