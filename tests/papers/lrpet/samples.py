"""What several tests of LRPET look at."""

from papernets.papers.lrpet import experiment


def run(seed):
    arms = {name: 0.1 * i + 0.01 * seed for i, name in enumerate(experiment.ARMS, 1)}
    return {"seed": seed, "full": 0.9, "arms": {0.8: arms, 0.9: {name: value / 2 for name, value in arms.items()}},
            "curves": {0.8: {"before": [0.5, 0.9], "after": [0.2, 0.88]}}}
