"""What several tests of Weight Evolution look at."""

import torch

from papernets.papers.we import WE, experiment

ALWAYS = dict(schedule=lambda epoch: 1.0)  # ρ is the base rate at every epoch
STRONG = WE(rate=0.9, gamma=0.9, beta=0.9, local=0.9, **ALWAYS)


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


def run(weak=10, base=0.5):
    """Made-up results in the form of ``experiment.experiments``."""
    found = {}
    for number, (name, options) in enumerate(experiment.EXPERIMENTS.items()):
        arms = {arm: {"accuracy": base + 0.01 * number + 0.1 * index, "weak": weak - index, "pointwise": 0, "evolved": [1],
                      "relative": [1.0, 0.5 - 0.1 * index, 0.05, 0.01]}
                for index, arm in enumerate(options.get("arms", ("plain", "dominant")))}
        found[name] = {"seed": 0, "start": [1.0, 0.001, 0.9, 0.001], "arms": arms}
    return found
