"""The answers to the card of the comparison."""

import copy
from collections.abc import Sequence

from papernets.comparisons.which_one.experiment import (
    BUDGETS,
    EXAMPLE,
    PAPERS,
    STEM,
    blocks,
    budgets,
    columns,
    narrow_widths,
    network,
    projection,
    size,
    sparse,
)
from papernets.measure import cost, macs
from papernets.papers import lbc, lr_winograd, lrpet, one_by_n
from papernets.training import pair


def claim_of(slug: str) -> str:
    """How the claims of the card begin that are about a method."""
    return slug.removeprefix("lr-")


def records(rows: Sequence[dict]) -> dict[str, tuple[list[float], list[float]]]:
    """(ours, baseline) of every miniature, over the seeds: accuracies in per cent, and milliseconds of an image."""
    accuracies = {f"{claim_of(slug)}.{budget}.accuracy": pair(rows, slug, "narrow", budget, scale=100)
                  for slug in PAPERS for budget in BUDGETS}
    return accuracies | {f"{claim_of(slug)}.time": pair(rows, slug, "dense", "macs", "time", scale=1e3) for slug in PAPERS}


def facts() -> dict[str, float]:
    """Every exact number of the card, by the identity of its claim. Weights do not matter here, only sizes."""
    dense = network().eval()
    numbers = {f"dense.{what}": value for what, value in size(dense).items()}
    numbers |= {f"budget.{what}": value for what, value in budgets().items()}
    numbers |= {f"narrow.{budget}": size(network(narrow_widths(budget)))[budget] for budget in BUDGETS}
    inblocks, in_groups, in_pairs = (copy.deepcopy(dense) for _ in range(3))
    one_by_n.prune_(inblocks, blocks())
    numbers["1xn.macs"] = macs(one_by_n.compact(inblocks, EXAMPLE), EXAMPLE)
    lbc.sparsify_(in_groups, sparse(2))
    for epoch in range(3):
        lbc.refresh_(in_groups, epoch)
    numbers["lbc.macs"] = macs(lbc.compact(in_groups), EXAMPLE)
    lrpet.project_(in_pairs, projection(), EXAMPLE)
    numbers |= {f"lrpet.{what}": value for what, value in size(lrpet.compact(in_pairs)).items()}
    for budget in BUDGETS:
        in_columns = copy.deepcopy(dense)
        lr_winograd.transform_(in_columns, lr_winograd.LowRankWinograd(ignore=STEM))
        lr_winograd.prune_(in_columns, columns(budget))
        small = cost(lr_winograd.compact(in_columns), EXAMPLE, timed=False)
        numbers |= {f"winograd.{budget}.macs": small.macs, f"winograd.{budget}.params": small.parameters}
    return numbers
