"""$title ($name).

$authors; $venue.$code

What the method does, in a few sentences, and the symbols of the paper. Under it a line that starts with ``Differs`` and a colon
for every point where this file leaves the paper or the authors' code, with the reason.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from papernets import check
from papernets.nn import chosen

# 1. Functions on tensors: the formulas, from the smallest on; shapes in the docstrings and behind the operations.
# 2. Layers made of them, with their state in the state_dict.
# 3. The verb that applies them to a network, and ``compact``, which makes permanent what is masked, fused or packed.


@dataclass(frozen=True)
class $config:
    """How a network is treated; the defaults are the paper's.

    ``removed`` is the share that goes. ``filter_fn(name, module)`` and ``ignore`` leave layers out.
    """

    removed: float = 0.5
    ignore: tuple[str, ...] = ()
    filter_fn: Callable[[str, nn.Module], bool] | None = None

    def __post_init__(self):
        check.share("removed", self.removed)


def treat_(model: nn.Module, config: $config = $config()) -> None:
    """Apply $name to the convolutions of ``model``, in place. ``ValueError``, before anything is changed, if there is none."""
    layers = chosen(model, nn.Conv2d, ignore=config.ignore, filter_fn=config.filter_fn)
    raise ValueError(f"the method of $name is not written; {len(layers)} layers wait for it in papers/$module/method.py")
