"""The answers to the card of 1×N."""

from collections.abc import Sequence

from papernets.papers.one_by_n.experiment import above_unstructured, rising_pairs
from papernets.papers.one_by_n.method import stored_bytes
from papernets.papers.one_by_n.networks import counts
from papernets.training import pair

#: Top-1 accuracies of MobileNet-V2 at rate 0.5 as printed by the README and in the data of the figure: 1×4 three times.
PRINTED = {"table1": 69.706, "table2": 69.579, "figure": 69.426, "filter": 66.730}
#: Milliseconds of MobileNet-V2 on a Cortex-A7, read off the figure.
CORTEX = {"weight": 279.2, 0.5: 223.0, 0.6: 184.1, 0.7: 167.0, 0.8: 138.1, 0.9: 112.9}


#: The networks of the card, by the beginning of a claim's identity.
SHORT = {"mbv1": "mobilenetv1", "mbv2": "mobilenetv2", "mbv3s": "mobilenetv3s", "mbv3l": "mobilenetv3l", "r50": "resnet50"}


def facts(seed: int = 0) -> dict[str, float]:
    """Every exact number of the card, by the identity of its claim."""
    numbers = {"norm.order": rising_pairs(seed), "norm.unstructured": above_unstructured(seed)}
    for short, name in SHORT.items():
        cost = counts(name)
        numbers |= {f"{short}.{key}": cost[key] for key in ("layers", "dense.macs", "macs", "macs_left")}
        if cost["se"]:
            numbers |= {f"{short}.se": cost["se"], f"{short}.nose.macs": counts(name, excite=False)["macs"]}
        else:
            numbers[f"{short}.removed"] = cost["removed"]
    whole = 4 * 256 * 256
    block, csr = stored_bytes(256 * 128, 64 * 128, 64), stored_bytes(256 * 128, 256 * 128, 256)
    numbers |= {"store.dense": whole, "store.block": block, "store.block.share": 100 * block / whole, "store.csr": csr,
                "store.csr.share": 100 * csr / whole}
    numbers |= {f"mbv2.gain.{key}": PRINTED[key] - PRINTED["filter"] for key in ("table1", "table2", "figure")}
    numbers |= {"a7.saving.figure": CORTEX["weight"] - CORTEX[0.5], "a7.speedup.p50": CORTEX["weight"] / CORTEX[0.5],
                "a7.speedup.p90": CORTEX["weight"] / CORTEX[0.9]}
    return numbers


#: Pairs of arms that the claims compare, by the end of the claim's identity.
ORDER = {"weight_1x2": ("weight", "1x2"), "1x2_1x4": ("1x2", "1x4"), "1x4_1x16": ("1x4", "1x16"),
         "1x16_filter": ("1x16", "filter")}
REARRANGED = {"n4": ("1x4 rearranged", "1x4"), "n16": ("1x16 rearranged", "1x16")}


def records(rows: Sequence[dict], races: Sequence[dict]) -> dict[str, tuple[list[float], list[float]]]:
    """(ours, baseline) of every miniature, over the seeds: points, per cent and milliseconds.

    ``rows`` are of ``compare``, and ``races`` what ``race`` gave for each seed, in seconds.
    """
    pairs = {"mini.filter": pair(rows, "1x4 rearranged", "filter", 0.5, scale=100)}
    for removed in (0.8, 0.9):
        for end, arms in ORDER.items():
            pairs[f"mini.order.p{100 * removed:.0f}.{end}"] = pair(rows, *arms, removed, scale=100)
        for end, arms in REARRANGED.items():
            pairs[f"mini.rearr.p{100 * removed:.0f}.{end}"] = pair(rows, *arms, removed, scale=100)
    for end, arms in REARRANGED.items():
        pairs[f"mini.norm.{end}"] = pair(rows, *arms, 0.5, "norm", scale=100)
    for peer in ("csr", "dense"):
        pairs[f"mini.speed.{peer}"] = tuple([1e3 * race[name] for race in races] for name in ("ours", peer))
    return pairs
