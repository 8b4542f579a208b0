"""The answers to the card of DCFF."""

from collections.abc import Mapping, Sequence

from papernets.papers.dcff.networks import counts
from papernets.training import pair, scores

#: The networks of the card, by how the identities of their claims begin.
NAMES = {"vgg16": "vgg16", "r56": "resnet56", "r110": "resnet110", "googlenet": "googlenet",
         **{f"r50.{key}": f"resnet50-{key}" for key in "abcdef"}}
#: Shares of removed parameters that are printed nowhere.
UNPRINTED = ("r50.e.params_cut", "r50.f.params_cut")


def facts(rows: Sequence[Mapping]) -> dict[str, float]:
    """Every exact number of the card, by the identity of its claim; the last is of the fused networks in ``rows``."""
    every = {f"{prefix}.{quantity}": value for prefix, name in NAMES.items() for quantity, value in counts(name).items()}
    for claim in UNPRINTED:
        del every[claim]
    b, d = counts("resnet50-b"), counts("resnet50-d")  # the abstract's ResNet-50 is B, but its accuracy is that of D
    return every | {"r50.macs_cut": b["macs_cut"], "r50.params_cut": b["params_cut"], "r50.pairing": d["macs_cut"],
                    "export.difference": max(scores(rows, "fused", key="difference"))}


def records(rows: Sequence[Mapping]) -> dict[str, tuple[list[float], list[float]]]:
    """(ours, baseline) of every miniature, over the seeds: test accuracy in per cent."""
    return {f"fusion.{arm}": pair(rows, "fused", arm, scale=100) for arm in ("narrow", "l1", "random")}
