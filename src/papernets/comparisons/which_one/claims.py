"""The answers to the card of the comparison."""

import copy

from papernets.comparisons.which_one.experiment import (
    BUDGETS,
    EXAMPLE,
    METHODS,
    PAPERS,
    STEM,
    _blocks,
    _columns,
    _projection,
    _sparse,
    budgets,
    narrow_widths,
    network,
    size,
)
from papernets.measure import cost, macs
from papernets.papers import lbc, lr_winograd, lrpet, one_by_n


def claim_of(slug: str) -> str:
    """How the claims of the card begin that are about a method."""
    return slug.removeprefix("lr-")


def records(runs: list[list[dict]]) -> dict[str, tuple[list[float], list[float]]]:
    """(ours, baseline) of every miniature, over the seeds: accuracies in per cent, and milliseconds."""
    def values(slug: str, budget: str, what: str, scale: float = 1) -> list[float]:
        budget = "macs" if METHODS[slug].both else budget
        return [scale * next(row[what] for row in run if (row["method"], row["budget"]) == (slug, budget)) for run in runs]

    found = {}
    for slug in PAPERS:
        for budget in BUDGETS:
            ours, narrow = (values(which, budget, "accuracy", 100) for which in (slug, "narrow"))
            found[f"{claim_of(slug)}.{budget}.accuracy"] = ours, narrow
    return found | {f"{claim_of(slug)}.time": (values(slug, "macs", "ms"), values("dense", "macs", "ms")) for slug in PAPERS}


def facts() -> dict[str, float]:
    """Every exact number of the card, by the identity of its claim. Weights do not matter here, only sizes."""
    dense = network().eval()
    found = {f"dense.{what}": value for what, value in size(dense).items()}
    found |= {f"budget.{what}": value for what, value in budgets().items()}
    found |= {f"narrow.{budget}": size(network(narrow_widths(budget)))[budget] for budget in BUDGETS}
    blocks, groups, pairs = (copy.deepcopy(dense) for _ in range(3))
    one_by_n.prune_(blocks, _blocks())
    found["1xn.macs"] = macs(one_by_n.compact(blocks, EXAMPLE), EXAMPLE)
    lbc.sparsify_(groups, _sparse(2))
    for epoch in range(3):
        lbc.refresh_(groups, epoch)
    found["lbc.macs"] = macs(lbc.compact(groups), EXAMPLE)
    lrpet.project_(pairs, _projection(), EXAMPLE)
    found |= {f"lrpet.{what}": value for what, value in size(lrpet.compact(pairs, _projection())).items()}
    for budget in BUDGETS:
        columns = copy.deepcopy(dense)
        lr_winograd.transform_(columns, lr_winograd.LowRankWinograd(ignore=STEM))
        lr_winograd.prune_(columns, _columns(budget))
        small = cost(lr_winograd.compact(columns), EXAMPLE, timed=False)
        found |= {f"winograd.{budget}.macs": small.macs, f"winograd.{budget}.params": small.parameters}
    return found
