"""How the tests over all papers apply $name."""

from paper_checks import Sample
from torch import nn

from papernets.papers.$module import $config, treat_


def treated(model: nn.Module, config: $config) -> nn.Module:
    treat_(model, config)
    return model


SAMPLE = Sample(config=$config, treat=treated)
