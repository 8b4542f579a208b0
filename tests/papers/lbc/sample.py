"""How the tests over all papers apply this method, and what several tests of LBC need."""

from paper_checks import Sample
from torch import nn

from papernets.papers.lbc import LBC, compact, refresh_, sparsify_

HEAD = ("classifier",)


def sparse(model: nn.Module, config: LBC) -> nn.Module:
    sparsify_(model, config)
    return model


def removed(model: nn.Module, config: LBC) -> None:
    refresh_(model, config.t_f)


def finished(model: nn.Module, config: LBC) -> nn.Module:
    """Every score at random, and every removal done."""
    sparsify_(model, config)
    for module in model.modules():
        if hasattr(module, "scores"):
            nn.init.normal_(module.scores)
    removed(model, config)
    return model.eval()


SAMPLE = Sample(config=LBC, treat=sparse, compact=compact, finish=removed)
