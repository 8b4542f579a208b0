"""The answers to the card of SNN."""

from collections.abc import Sequence

from papernets.papers.snn.networks import binary_cycles, bit_ops, cycles, item_cycles, layers, weight_bits
from papernets.training import pair, scores


def facts() -> dict[str, float]:
    """Every exact number of the card, by the identity of its claim."""
    r18, r34 = layers("resnet18"), layers("resnet34")
    numbers = {"compress": weight_bits(r18, 9) / weight_bits(r18, 5), "bits": 5 / 9, "bits.tau6": 6 / 9, "bits.tau4": 4 / 9,
             "r34.ops": bit_ops(r34, 9), "r34.bits": weight_bits(r34, 9), "r34.tau5.bits": weight_bits(r34, 5)}
    for key, tau in {"1bit": 9, "067": 6, "056": 5, "044": 4}.items():
        numbers |= {f"readme.{key}.params": weight_bits(r18, tau), f"readme.{key}.ops": bit_ops(r18, tau)}
    for tau in (6, 5, 4):
        numbers[f"r18.tau{tau}.bits.codebook"] = weight_bits(r18, tau, codebook=True)
    for key, net in {"r18": r18, "r34": r34}.items():
        plain = binary_cycles(net)
        numbers |= {f"{key}.compress.codebook": weight_bits(net, 9) / weight_bits(net, 5, codebook=True),
                  f"{key}.cycles.binary": plain, f"{key}.cycles.tau5": cycles(net, 5), f"{key}.speedup": plain / cycles(net, 5)}
        for tau in (6, 5, 4):
            numbers[f"{key}.tau{tau}.ops_ratio"] = bit_ops(net, 9) / bit_ops(net, tau)
        for adders, tau in ((2, 5), (8, 5), (16, 5), (4, 6), (4, 4)):
            numbers[f"{key}.speedup.adders{adders}.tau{tau}"] = plain / cycles(net, tau, adders)
    for width in (64, 128, 256, 512):
        numbers[f"stage{width}.speedup"] = width / item_cycles(width, 5)
    return numbers


def records(rows: Sequence[dict]) -> dict[str, tuple[list[float], list[float]]]:
    """(ours, baseline) of every miniature, over the seeds: points, and bits of entropy."""
    pairs = {f"mini.tau{high}_{low}": tuple([100 * score for score in scores(rows, "kept", tau)] for tau in (high, low))
             for high, low in ((9, 5), (5, 3), (3, 2), (2, 1))}
    pairs |= {f"mini.refine.tau{tau}": pair(rows, "refined", "kept", tau, scale=100) for tau in (5, 3, 2)}
    pairs |= {f"mini.frequent.tau{tau}": pair(rows, "frequent", "random", tau, scale=100) for tau in (5, 3, 2)}
    return pairs | {f"mini.entropy.{layer}": pair(rows, "entropy", "chance", layer) for layer in ("layer1", "layer2")}
