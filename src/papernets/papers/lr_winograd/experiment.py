"""The experiments of the chapter on LR-Winograd."""

import copy
import functools
import statistics
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from papernets.data import Split, moving_digits
from papernets.measure import fastest, take_turns
from papernets.papers.lr_winograd.layers import (
    LowRankWinograd,
    PackedWinograd,
    WinogradConv,
    compact,
    prune_,
    transform_,
    winograd_layers,
)
from papernets.papers.lr_winograd.method import columns_gone, expand, factors
from papernets.papers.lr_winograd.networks import ClipNet
from papernets.training import Task, logits, row, single_thread, steps


def truncation(W: torch.Tensor, m: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Relative Frobenius errors of P Q at every rank, and the tails of the singular values of M₀ that they should be."""
    M = expand(W, m)
    S = torch.linalg.svdvals(M)
    ranks = range(1, len(S) + 1)
    errors = torch.stack([(M - torch.matmul(*factors(M, s))).norm() for s in ranks])
    tails = torch.stack([S[s:].norm() for s in ranks])
    return errors / M.norm(), tails / M.norm()


def random_kernels(seed: int, Co: int = 16, Ci: int = 16) -> torch.Tensor:
    """Kernels (Co, Ci, 3, 3, 3) from a normal distribution, in double precision."""
    return torch.randn(Co, Ci, 3, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


#: The arms of the comparison, by name.
ARMS = {name: LowRankWinograd(mode=mode, rank=rank, ignore=("stem",)) for name, mode, rank in (
    ("spatial", "spatial", 27), ("vanilla", "vanilla", 27), ("low rank", "factor", 27), ("low rank 16", "factor", 16))}


def _adam(model: nn.Module) -> torch.optim.Adam:
    return torch.optim.Adam((p for p in model.parameters() if p.requires_grad), 3e-3)


def _task(train: Split, test: Split, epochs: int, seed: int) -> Task:
    return Task(train, test, epochs, seed, lr=3e-3, batch=24, schedule=lambda lr, epochs: steps(lr, ()))


def _pruned(model: nn.Module, removed: float, draw: torch.Generator | None = None) -> nn.Module:
    """A copy of ``model`` after columns went, by importance or, with ``draw``, at random."""
    pruned = copy.deepcopy(model)
    if draw is None:
        prune_(pruned, removed)
    else:
        for layer in winograd_layers(pruned).values():
            layer.keep(torch.randperm(64, generator=draw)[columns_gone(64, removed):])
    return pruned


def compare(seed: int, *, train: int = 480, test: int = 400, epochs: int = 5, arms: Sequence[str] = ("vanilla", "low rank"),
            shares: Sequence[float] = (0.25, 0.5), draws: int = 3) -> list[dict]:
    """All ``arms`` on moving digits for one seed: the same start, clips and order, then columns removed without fine-tuning.

    A score is a test accuracy, as a share, ``at`` the share of columns that is gone: 0 or one of ``shares``. The arm
    ``"NAME, random"`` is the mean of ``draws`` random choices of columns. ``packed`` is the largest difference of the packed
    network's outputs.
    """
    task, rows = _task(*moving_digits(train, test, seed), epochs, seed), []
    x = task.test.images[:20]
    with single_thread():
        start = task.start(ClipNet)
        for name in arms:
            model = copy.deepcopy(start)
            transform_(model, ARMS[name])
            task.learn(model, optimizer=_adam)
            gap = float((logits(model, x) - logits(compact(model), x)).abs().max())
            rows.append(row(seed, name, task.accuracy(model, 100), 0.0, packed=gap))
            rows += [row(seed, name, task.accuracy(_pruned(model, share), 100), share) for share in shares]
            draw = torch.Generator().manual_seed(seed)
            for share in shares:
                each = [task.accuracy(_pruned(model, share, draw), 100) for _ in range(draws)]
                rows.append(row(seed, f"{name}, random", statistics.fmean(each), share))
    return rows


def tuned_layers(seed: int = 0, *, width: int = 32, train: int = 480, epochs: int = 2, tuning: int = 2,
                 removed: float = 0.5) -> tuple[PackedWinograd, PackedWinograd]:
    """A packed layer with all columns, from a trained network, and the same layer after its columns went and fine-tuning."""
    task = _task(*moving_digits(train, 1, seed), epochs, seed)
    with single_thread():
        model = task.start(ClipNet, width)
        transform_(model, ARMS["low rank"])
        task.learn(model, optimizer=_adam)
        whole = compact(model).body[0]
        prune_(model, removed)
        task.learn(model, tuning, again=1, optimizer=_adam)
        return whole, compact(model).body[0]


def pair_of_times(layers: tuple[PackedWinograd, PackedWinograd], repeats: int = 15,
                  size: tuple[int, int, int] = (16, 32, 32)) -> tuple[list[float], list[float]]:
    """Seconds of the layer with fewer columns and of that with all, turn by turn, on one thread."""
    whole, fewer = layers
    x = torch.randn(1, whole.U.shape[2], *size, generator=torch.Generator().manual_seed(0))
    taken = take_turns({"fewer": lambda: fewer(x), "whole": lambda: whole(x)}, repeats=repeats, inner=5)
    return taken["fewer"], taken["whole"]


def _patches(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The direct sum as one matrix product a slice of the output: the patches of the input, copied side by side."""
    B, Ci, D, H, W = x.shape
    padded, flat = functional.pad(x, (1,) * 6), weight.flatten(1)
    y = x.new_empty(B, len(weight), D, H * W)
    for z in range(D):
        windows = padded[:, :, z:z + 3].unfold(3, 3, 1).unfold(4, 3, 1)  # (B, Ci, 3, H, W, 3, 3)
        y[:, :, z] = flat @ windows.permute(0, 1, 2, 5, 6, 3, 4).reshape(B, 27 * Ci, H * W)
    return y.view(B, -1, D, H, W)


def race(seed: int = 0, *, channels: int = 32, size: tuple[int, int, int] = (8, 28, 28), shares: Sequence[float] = (0, 0.5),
         repeats: int = 5) -> dict:
    """Seconds of one layer on one thread: ``ours`` by the share of columns that is gone, and the ``peers``, which compute the
    direct sum: torch's convolution as it chooses, the one of oneDNN, and patches with a product. ``peer`` is the fastest.

    The weights are transformed beforehand; the transforms of inputs and outputs are in the time. Results are compared.
    """
    draw = torch.Generator().manual_seed(seed)
    conv = nn.Conv3d(channels, channels, 3, padding=1, bias=False)
    nn.init.normal_(conv.weight, 0, (27 * channels) ** -0.5, generator=draw)
    x, W = torch.randn(1, channels, *size, generator=draw), conv.weight.detach()
    calls = {"torch conv3d": lambda: functional.conv3d(x, W, padding=1), "patches and product": lambda: _patches(x, W)}
    if torch.backends.mkldnn.is_available():
        calls["torch conv3d, oneDNN"] = lambda: torch.mkldnn_convolution(x, W, None, (1, 1, 1), (1, 1, 1), (1, 1, 1), 1)
    peers = list(calls)
    with single_thread(), torch.no_grad():
        direct = conv(x)
        expected = dict.fromkeys(peers, direct)
        for share in shares:
            layer = WinogradConv(conv, LowRankWinograd(mode="vanilla"))
            layer.prune(share)
            expected[share] = direct if share == 0 else layer(x)
            calls[share] = functools.partial(PackedWinograd(layer), x)
    taken = take_turns(calls, expected, repeats=repeats, inner=5)
    medians = {name: statistics.median(times) for name, times in taken.items()}
    return {"channels": channels, "ours": {share: medians[share] for share in shares},
            "peers": {name: medians[name] for name in peers}, "peer": fastest(taken, peers)}
