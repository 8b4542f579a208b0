"""Which layers a method works on, and how wide what it leaves may be: the same for every paper."""

from collections.abc import Callable, Sequence

from torch import nn


def chosen(model: nn.Module, kinds: type | tuple[type, ...], *, ignore: Sequence[str] = (),
           filter_fn: Callable[[str, nn.Module], bool] | None = None) -> dict[str, nn.Module]:
    """The modules of ``kinds`` in ``model``, by name, in the order in which they are registered.

    Left out are those named in ``ignore``, those inside a module named there, and those for which ``filter_fn(name, module)``
    is not true. ``ValueError`` if a name of ``ignore`` is no module of the model, or if nothing is left.
    """
    if isinstance(ignore, str):
        raise ValueError(f"ignore is the text {ignore!r}; give a sequence of names: ({ignore!r},)")
    modules = dict(model.named_modules())
    every = {name: module for name, module in modules.items() if isinstance(module, kinds)}
    for name in ignore:
        if name not in modules or not name:
            raise ValueError(f"ignore names {name!r}, which is no layer of this network; choose from {_some(every)}")
    inside = tuple(f"{name}." for name in ignore)
    found = {name: module for name, module in every.items() if name not in ignore and not name.startswith(inside)
             and (filter_fn is None or filter_fn(name, module))}
    if not found:
        what = " or ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
        raise ValueError(f"no {what} of this network is left to work on; it has {_some(every)}")
    return found


def _some(every: dict[str, nn.Module], most: int = 12) -> str:
    names = list(every)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "") if names else "none"


def rounded(width: int, round_to: int, full: int) -> int:
    """The multiple of ``round_to`` nearest to ``width``, at least one and at most what ``full`` holds; of two the larger.

    A layer with fewer than ``round_to`` channels keeps them all.
    """
    if not isinstance(round_to, int) or round_to < 1:
        raise ValueError(f"round_to is {round_to!r}; it is a whole number of at least 1")
    if full < round_to:
        return full
    return round_to * min(max(1, (2 * width + round_to) // (2 * round_to)), full // round_to)
