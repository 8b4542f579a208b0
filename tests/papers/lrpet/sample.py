"""How the tests over all papers apply this method, and what several tests of it look at."""

from paper_checks import EXAMPLE, Sample

from papernets.papers.lrpet import LRPET, compact, experiment, project_
from papernets.training import row


def projected(model, config):
    project_(model, config, EXAMPLE)
    return model


SAMPLE = Sample(config=LRPET, treat=projected, compact=compact)


def compared(seed):
    """Rows as of a comparison at two shares: every arm has another score, at the higher share half of it."""
    rows = [row(seed, "full", 0.9)]
    for q, part in ((0.8, 1), (0.9, 2)):
        for i, name in enumerate(experiment.ARMS, 1):
            curves = {"before": [0.5, 0.9], "after": [0.2, 0.88]} if name == "lrpet" else {}
            rows.append(row(seed, name, (0.1 * i + 0.01 * seed) / part, q, **curves))
    return rows


#: Rows of the gradients through two layers, of two seeds.
GRADIENTS = [row(seed, name, abs(logs[-1]), logs=logs) for seed, both in enumerate((
    {"with": [0.1, -0.3], "without": [-0.2, -2.0]}, {"with": [0.1, 0.5], "without": [-0.2, -3.0]}))
    for name, logs in both.items()]
