"""What tests of several methods do to a network before they compare it with another form of itself."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def lively(model: nn.Module) -> nn.Module:
    """Batch norms as after training, a negative scale among them now and then, so that a wrong order of channels is seen."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            if module.affine:
                nn.init.normal_(module.weight, 0.75, 0.5)
                nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()
