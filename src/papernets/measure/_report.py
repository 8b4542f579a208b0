"""What a method changed: parameters, multiply-accumulates, bytes and seconds, before and after."""

import html
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from papernets.measure._count import evaluating, macs, parameters, stored_bits
from papernets.measure._timing import median_seconds


@dataclass(frozen=True)
class Cost:
    """A network and one input: ``parameters``, how many of them are not 0, ``macs``, ``bytes`` of storage, ``seconds``.

    ``seconds`` is the median time of a pass in evaluation mode, or None where it was not measured.
    """

    parameters: int
    nonzero: int
    macs: int
    bytes: int
    seconds: float | None = None


@dataclass(frozen=True)
class Report:
    """The cost before and after; as text or, in a notebook, as a table."""

    before: Cost
    after: Cost

    def rows(self) -> list[tuple[str, str, str, str]]:
        """(quantity, before, after, share that is left) of each line."""
        quantities: list[tuple[str, Callable[[Cost], float | None], str, float]] = [
            ("parameters", lambda cost: cost.parameters, "", 1), ("not zero", lambda cost: cost.nonzero, "", 1),
            ("MACs", lambda cost: cost.macs, " M", 1e6), ("stored", lambda cost: cost.bytes, " kB", 1e3),
            ("time", lambda cost: cost.seconds, " ms", 1e-3)]
        found = []
        for name, of, unit, scale in quantities:
            one, other = of(self.before), of(self.after)
            if one is not None and other is not None:
                texts = [f"{x:,}".replace(",", "\u202f") if scale == 1 else f"{x / scale:.3g}{unit}" if x < 1e3 * scale
                         else f"{x / scale:,.0f}{unit}".replace(",", "\u202f") for x in (one, other)]
                found.append((name, *texts, f"{100 * other / one:.1f} %" if one else ""))
        return found

    def __str__(self) -> str:
        rows = [("", "before", "after", "left"), *self.rows()]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        return "\n".join("  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))])
                         for row in rows)

    def _repr_html_(self) -> str:
        names = ("quantity", "before", "after", "left")
        head = "".join(f"<th>{name}</th>" for name in names)
        cells = [[f'<td data-label="{name}">{html.escape(cell)}</td>' for name, cell in zip(names, row)] for row in self.rows()]
        body = "".join(f"<tr>{''.join(row)}</tr>" for row in cells)
        return f'<div class="pn-scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def cost(model: nn.Module, example: torch.Tensor, *, timed: bool = True, threads: int = 1) -> Cost:
    """What ``model`` costs for the input ``example``; time is measured unless ``timed`` is false.

    A layer that keeps its weights in a form of its own says what they are by a property ``stored``: (numbers, bits).
    """
    if threads < 1:
        raise ValueError(f"threads is {threads}; the smallest is 1")
    own = [module.stored for module in model.modules() if hasattr(type(module), "stored")]
    numbers, bits = (sum(part[i] for part in own) for i in range(2))
    nonzero = sum(int(torch.count_nonzero(p)) for p in model.parameters())
    seconds = None
    if timed:
        with evaluating(model), torch.inference_mode():
            seconds = median_seconds(lambda: model(example), threads)
    return Cost(parameters(model) + numbers, nonzero + numbers, macs(model, example), -(-(stored_bits(model) + bits) // 8),
                seconds)


def report(before: nn.Module, after: nn.Module, example: torch.Tensor, *, timed: bool = True, threads: int = 1) -> Report:
    """The costs of two networks for the same input, such as a network and what a method made of it.

    >>> print(report(model, compact(model), torch.zeros(1, 3, 32, 32)))
    """
    return Report(*(cost(model, example, timed=timed, threads=threads) for model in (before, after)))
