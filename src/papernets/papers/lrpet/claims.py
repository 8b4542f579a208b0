"""The answers to the card of LRPET."""

from collections.abc import Sequence

from papernets.papers.lrpet.method import LRPET, break_even
from papernets.papers.lrpet.networks import CONFIGS, VIT_CONFIG, backbone_cut, counts, vit_counts
from papernets.training import pair

_SHORT = {"resnet56": "r56", "resnet110": "r110", "googlenet": "googlenet", "resnet34": "r34", "resnet50": "r50"}
#: What the card asks of a network besides the per cent of its multiply-accumulates that go, ``flops``.
_MORE = {"r56.q80": ("macs", "params", "params_cut"), "r50.q62": ("macs", "params_cut"),
         **dict.fromkeys(("r56.q54", "r56s", "r110.q62", "r110.q70", "r34.q58", "r50.q80", "r50s"), ("macs",))}


def facts() -> dict[str, float]:
    """Every exact number of the card, by the identity of its claim."""
    numbers = {}
    for name, configs in CONFIGS.items():
        for which, config in configs.items():
            every, prefix = counts(name, config), f"{_SHORT[name]}s" if which == "s" else f"{_SHORT[name]}.{which}"
            numbers[f"{_SHORT[name]}.base.macs"] = every["base.macs"]
            numbers |= {f"{prefix}.{key}": every[key] for key in ("flops", *_MORE.get(prefix, ()))}
    numbers["r56.base.params"] = counts("resnet56", LRPET())["base.params"]
    full, pairs, wide = vit_counts(10), vit_counts(10, VIT_CONFIG), vit_counts(100, VIT_CONFIG)
    numbers |= {"vit.base.flops": full["macs"], "vit.base.params": full["params"], "vit.flops": wide["macs"],
                "vit.params": wide["params"], "vit.flops_cut": 100 * (1 - pairs["macs"] / full["macs"]),
                "vit.params_cut": 100 * (1 - pairs["params"] / full["params"])}
    numbers |= {f"{name}.flops": backbone_cut(name) for name in ("frcnn", "psp")}
    return numbers | {"breakeven": break_even(64, 9 * 64) / 64}


#: What each comparison of the card sets against what, by the second part of the claim's identity.
PAIRS = {"truncate": ("lrpet", "truncate"), "retrain": ("lrpet", "retrain"), "factor": ("lrpet", "factor"),
         "energy": ("energy", "projection"), "rectify": ("lrpet", "energy")}


def records(rows: Sequence[dict], gradients: Sequence[dict]) -> dict[str, tuple[list[float], list[float]]]:
    """(ours, baseline) of every miniature, over the seeds: points, and distances of the log ratio from 0."""
    shares = dict.fromkeys(one["at"] for one in rows if one["at"] is not None)
    pairs = {f"mini.{what}.q{100 * q:.0f}": pair(rows, *arms, q, scale=100) for q in shares for what, arms in PAIRS.items()}
    return pairs | {"mini.gradient": pair(gradients, "with", "without")}
