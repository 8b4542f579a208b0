"""The answers to the card of 1×N."""

from collections.abc import Sequence

from papernets.papers.one_by_n.experiment import above_unstructured, rising_pairs
from papernets.papers.one_by_n.method import stored_bytes
from papernets.papers.one_by_n.networks import counts

#: Top-1 accuracies of MobileNet-V2 at rate 0.5 as printed by the README and in the data of the figure: 1×4 three times.
PRINTED = {"table1": 69.706, "table2": 69.579, "figure": 69.426, "filter": 66.730}
#: Milliseconds of MobileNet-V2 on a Cortex-A7, read off the figure.
CORTEX = {"weight": 279.2, 0.5: 223.0, 0.6: 184.1, 0.7: 167.0, 0.8: 138.1, 0.9: 112.9}


def facts(seed: int = 0) -> dict[str, float]:
    """Every exact number of the card, by the identity of its claim."""
    found = {}
    for short, name in {"mbv1": "mobilenetv1", "mbv2": "mobilenetv2", "mbv3s": "mobilenetv3s", "mbv3l": "mobilenetv3l",
                        "r50": "resnet50"}.items():
        every = counts(name)
        found |= {f"{short}.{key}": every[key] for key in ("layers", "dense.macs", "macs", "macs_left", "removed", "se")}
        found[f"{short}.nose.macs"] = counts(name, excite=False)["macs"]
    whole = 4 * 256 * 256
    block, csr = stored_bytes(256 * 128, 64 * 128, 64), stored_bytes(256 * 128, 256 * 128, 256)
    found |= {"store.dense": whole, "store.block": block, "store.block.share": 100 * block / whole, "store.csr": csr,
              "store.csr.share": 100 * csr / whole}
    found |= {"norm.order": rising_pairs(seed), "norm.unstructured": above_unstructured(seed)}
    found |= {f"mbv2.gain.{key}": PRINTED[key] - PRINTED["filter"] for key in ("table1", "table2", "figure")}
    found |= {"a7.saving.figure": CORTEX["weight"] - CORTEX[0.5], "a7.speedup.p50": CORTEX["weight"] / CORTEX[0.5],
              "a7.speedup.p90": CORTEX["weight"] / CORTEX[0.9]}
    return found


#: Pairs of arms that the claims compare, by the end of the claim's identity.
ORDER = {"weight_1x2": ("weight", "1x2"), "1x2_1x4": ("1x2", "1x4"), "1x4_1x16": ("1x4", "1x16"),
         "1x16_filter": ("1x16", "filter")}
REARRANGED = {"n4": ("1x4 rearranged", "1x4"), "n16": ("1x16 rearranged", "1x16")}


def records(runs: Sequence[dict], races: Sequence[dict]) -> dict[str, tuple[list[float], list[float]]]:
    """(ours, baseline) of every miniature, over the seeds: points, per cent and milliseconds."""
    def of(p, name, key="after"):
        return [100 * run["arms"][p][name][key] for run in runs]

    found = {"mini.filter": (of(0.5, "1x4 rearranged"), of(0.5, "filter"))}
    for p in (0.8, 0.9):
        for end, (one, other) in ORDER.items():
            found[f"mini.order.p{100 * p:.0f}.{end}"] = of(p, one), of(p, other)
        for end, (one, other) in REARRANGED.items():
            found[f"mini.rearr.p{100 * p:.0f}.{end}"] = of(p, one), of(p, other)
    for end, (one, other) in REARRANGED.items():
        found[f"mini.norm.{end}"] = of(0.5, one, "norm"), of(0.5, other, "norm")
    for peer in ("csr", "dense"):
        found[f"mini.speed.{peer}"] = [race["ours"] for race in races], [race[peer] for race in races]
    return found
