"""How the tests over all papers apply this method, and what several tests of it look at."""

import torch
from paper_checks import EXAMPLE, Sample
from torch import nn

from papernets.papers.lapp import LAPP, attach_, compact, settle_
from papernets.papers.lapp.layers import units_of


def treat(model: nn.Module, config: LAPP) -> nn.Module:
    model.flops = attach_(model, config, EXAMPLE)
    return model


SAMPLE = Sample(config=LAPP, treat=treat, finish=lambda model, config: settle_(model, model.flops, config.removed),
                compact=lambda model: compact(model, EXAMPLE), options=dict(removed=0.4), alone=dict(removed=0.1))


def settle_randomly(model, seed=0):
    """Final masks with random filters, at least one a layer, and never all."""
    draw = torch.Generator().manual_seed(seed)
    for unit in units_of(model).values():
        C = len(unit.mask)
        number = int(torch.randint(1, max(2, C), (), generator=draw))
        unit.settle(torch.randperm(C, generator=draw) < number)


def same_state(before, model):
    after = model.state_dict()
    return before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
