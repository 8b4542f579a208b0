"""How the tests over all papers apply this method, and what several tests of it look at."""

import torch
from paper_checks import Sample
from torch import nn

from papernets.papers.we import WE, Evolution, experiment
from papernets.training import row


def treat(model: nn.Module, config: WE) -> nn.Module:
    Evolution(config).step(model, 0)
    return model


SAMPLE = Sample(config=WE, treat=treat)

ALWAYS = dict(schedule=lambda epoch: 1.0)  # ρ is the base rate at every epoch
STRONG = WE(weak=0.9, gamma=0.9, beta=0.9, local=0.9, **ALWAYS)


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def slow_kernels(inferior, superior, mix):
    """Kernel by kernel in plain Python."""
    made = inferior.clone()
    for n, i in ((n, i) for n in range(len(made)) for i in range(made.shape[1])):
        p = max(superior[n, i].flatten().tolist(), key=abs)
        q = min(inferior[n, i].flatten().tolist(), key=abs)
        if mix == "official":
            if abs(p + q) < 1e-12:
                continue
            alpha = q / (q + p)
            value = p * alpha + q * (1 - alpha)
        else:
            if p == q == 0:
                continue
            alpha = abs(q) / (abs(q) + abs(p))
            value = q * alpha + p * (1 - alpha)
        made[n, i][inferior[n, i] == q] = value
    return made


def rows(weak=10, base=0.5, seed=0):
    """Made-up results in the form of ``experiment.experiments``."""
    return [row(seed, arm, base + 0.01 * number + 0.1 * index, name, weak=weak - index, pointwise=0, evolved=[1],
                relative=[1.0, 0.5 - 0.1 * index, 0.05, 0.01], start=[1.0, 0.001, 0.9, 0.001])
            for number, (name, options) in enumerate(experiment.EXPERIMENTS.items())
            for index, arm in enumerate(options.get("arms", ("plain", "dominant")))]
