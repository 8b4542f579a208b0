"""How the tests over all papers apply this method, and what several tests of sub-bit networks need."""

from paper_checks import Sample
from torch import nn

from papernets.papers.snn import SNN, SubBitConv2d, compact, subbit_


def names(model: nn.Module, kind: type) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, kind)]


def conv(inputs: int = 3, outputs: int = 5, stride: int = 1, padding: int = 1, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding, bias=bias)


def layer(config: SNN | None = None, **options) -> SubBitConv2d:
    return SubBitConv2d(conv(**options), config or SNN(tau=2))


def subbit(model: nn.Module, config: SNN) -> nn.Module:
    subbit_(model, config)
    return model.eval()


SAMPLE = Sample(config=SNN, treat=subbit, compact=compact, saves="bytes")
