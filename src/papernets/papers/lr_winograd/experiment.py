"""The experiments of the chapter on LR-Winograd."""

import copy
import statistics
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from papernets.data import Split, digits
from papernets.measure import take_turns
from papernets.papers.lr_winograd.layers import (
    LowRankWinograd,
    PackedWinograd,
    WinogradConv,
    _layers,
    compact,
    prune_,
    transform_,
)
from papernets.papers.lr_winograd.method import expand, factors, removed
from papernets.papers.lr_winograd.networks import ClipNet
from papernets.training import fit, loader, logits, seed_everything, single_thread, steps


def truncation(W: torch.Tensor, m: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Relative Frobenius errors of P Q at every rank, and the tails of the singular values of M₀ that they should be."""
    M = expand(W, m)
    S = torch.linalg.svdvals(M)
    ranks = range(1, len(S) + 1)
    errors = torch.stack([(M - torch.matmul(*factors(M, s))).norm() for s in ranks])
    tails = torch.stack([S[s:].norm() for s in ranks])
    return errors / M.norm(), tails / M.norm()


def _random_kernels(seed: int, Co: int = 16, Ci: int = 16) -> torch.Tensor:
    return torch.randn(Co, Ci, 3, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


#: One voxel a frame, down, up, right and left; the label of a clip.
MOVES = ((1, 0), (-1, 0), (0, 1), (0, -1))


def clips(train: int = 480, test: int = 400, seed: int = 0, frames: int = 8, side: int = 16,
          noise: float = 0.3) -> tuple[Split, Split]:
    """Clips (1, ``frames``, ``side``, ``side``) of one digit that moves over a torus in one of four directions, with noise.

    No digit is both in a clip for training and in one for the test.
    """
    draw = np.random.default_rng([seed, 20230126])
    names, found = ("down", "up", "right", "left"), []
    for split, number in zip(digits(1000, seed), (train, test)):
        which, labels = draw.integers(0, len(split), number), draw.integers(0, 4, number)
        corner = draw.integers(0, side, (number, 2))
        videos = draw.normal(0, noise, (number, 1, frames, side, side)).astype(np.float32)
        for video, one, label, at in zip(videos, which, labels, corner):
            for frame in range(frames):
                y, x = at + frame * np.array(MOVES[label])
                video[0, frame][np.ix_((y + np.arange(8)) % side, (x + np.arange(8)) % side)] += split.images[one, 0].numpy()
        found.append(Split(torch.from_numpy(videos), torch.from_numpy(labels.astype(np.int64)), names))
    return found[0], found[1]


#: The arms of the comparison, by name.
ARMS = {name: LowRankWinograd(mode=mode, rank=rank, ignore=("stem",)) for name, mode, rank in (
    ("spatial", "spatial", 27), ("vanilla", "vanilla", 27), ("low rank", "factor", 27), ("low rank 16", "factor", 16))}


def _train(model: nn.Module, data: Split, epochs: int, seed: int, lr: float = 3e-3) -> None:
    fit(model, loader(data, 24, True), None, epochs=epochs, lr=steps(lr, ()), seed=seed,
        optimizer=lambda net: torch.optim.Adam((p for p in net.parameters() if p.requires_grad), lr))


def _accuracy(model: nn.Module, data: Split) -> float:
    return float((logits(model, data.images, 100).argmax(1) == data.labels).float().mean())


def _without(model: nn.Module, rho: float, test: Split, draw: torch.Generator | None = None) -> float:
    """Test accuracy after columns went, by importance or, with ``draw``, at random."""
    pruned = copy.deepcopy(model)
    if draw is None:
        prune_(pruned, rho)
    else:
        for layer in _layers(pruned).values():
            layer.keep(torch.randperm(64, generator=draw)[removed(64, rho):])
    return _accuracy(pruned, test)


def compare(seed: int, *, train: int = 480, test: int = 400, epochs: int = 5, arms: Sequence[str] = ("vanilla", "low rank"),
            rates: Sequence[float] = (0.25, 0.5), draws: int = 3) -> dict:
    """All ``arms`` on moving digits for one seed: the same start, clips and order, then columns removed without fine-tuning.

    ``arms[name]``: accuracy (a share) with all columns, ``dense``; ``kept[ρ]`` and ``random[ρ]``, the mean of ``draws`` random
    choices, after the removal. ``packed``: the largest difference of the packed network's outputs.
    """
    first, second = clips(train, test, seed)
    found = {"seed": seed, "arms": {}, "packed": 0.0}
    with single_thread():
        seed_everything(seed)
        start = ClipNet()
        for name in arms:
            model = copy.deepcopy(start)
            transform_(model, ARMS[name])
            _train(model, first, epochs, seed)
            draw = torch.Generator().manual_seed(seed)
            found["arms"][name] = {
                "dense": _accuracy(model, second), "kept": {rho: _without(model, rho, second) for rho in rates},
                "random": {rho: statistics.fmean(_without(model, rho, second, draw) for _ in range(draws)) for rho in rates}}
            x = second.images[:20]
            found["packed"] = max(found["packed"], float((logits(model, x) - logits(compact(model), x)).abs().max()))
    return found


def tuned_layers(seed: int = 0, *, width: int = 32, train: int = 480, epochs: int = 2, tuning: int = 2,
                 rho: float = 0.5) -> tuple[PackedWinograd, PackedWinograd]:
    """A packed layer with all columns, from a trained network, and the same layer after its columns went and fine-tuning."""
    first, _ = clips(train, 1, seed)
    with single_thread():
        seed_everything(seed)
        model = ClipNet(width)
        transform_(model, ARMS["low rank"])
        _train(model, first, epochs, seed)
        whole = compact(model).body[0]
        prune_(model, rho)
        _train(model, first, tuning, seed + 1)
        return whole, compact(model).body[0]


def pair_of_times(layers: tuple[PackedWinograd, PackedWinograd], repeats: int = 15,
                  size: tuple[int, int, int] = (16, 32, 32)) -> tuple[list[float], list[float]]:
    """Milliseconds of the layer with fewer columns and of that with all, turn by turn, on one thread."""
    whole, fewer = layers
    x = torch.randn(1, whole.U.shape[2], *size, generator=torch.Generator().manual_seed(0))
    found = take_turns({"fewer": lambda: fewer(x), "whole": lambda: whole(x)}, repeats=repeats, inner=5)
    return found["fewer"], found["whole"]


def _patches(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The direct sum as one matrix product a slice of the output: the patches of the input, copied side by side."""
    B, Ci, D, H, W = x.shape
    padded, flat = F.pad(x, (1,) * 6), weight.flatten(1)
    y = x.new_empty(B, len(weight), D, H * W)
    for z in range(D):
        windows = padded[:, :, z:z + 3].unfold(3, 3, 1).unfold(4, 3, 1)  # (B, Ci, 3, H, W, 3, 3)
        y[:, :, z] = flat @ windows.permute(0, 1, 2, 5, 6, 3, 4).reshape(B, 27 * Ci, H * W)
    return y.view(B, -1, D, H, W)


def race(seed: int = 0, *, channels: int = 32, size: tuple[int, int, int] = (8, 28, 28), rates: Sequence[float] = (0, 0.5),
         repeats: int = 5) -> dict:
    """Milliseconds of one layer on one thread: ``ours`` at each rate, and the ``peers``, which compute the direct sum: torch's
    convolution as it chooses, the one of oneDNN, and patches with a product. ``peer`` is the fastest. Results are compared.

    The weights are transformed beforehand; the transforms of inputs and outputs are in the time.
    """
    draw = torch.Generator().manual_seed(seed)
    conv = nn.Conv3d(channels, channels, 3, padding=1, bias=False)
    nn.init.normal_(conv.weight, 0, (27 * channels) ** -0.5, generator=draw)
    x, W = torch.randn(1, channels, *size, generator=draw), conv.weight.detach()
    calls = {"torch conv3d": lambda: F.conv3d(x, W, padding=1), "patches and product": lambda: _patches(x, W)}
    if torch.backends.mkldnn.is_available():
        calls["torch conv3d, oneDNN"] = lambda: torch.mkldnn_convolution(x, W, None, (1, 1, 1), (1, 1, 1), (1, 1, 1), 1)
    peers = list(calls)
    with single_thread(), torch.no_grad():
        direct = conv(x)
        expected = dict.fromkeys(peers, direct)
        for rho in rates:
            layer = WinogradConv(conv, LowRankWinograd(mode="vanilla"))
            layer.prune(rho)
            packed, expected[rho] = PackedWinograd(layer), direct if rho == 0 else layer(x)
            calls[rho] = lambda packed=packed: packed(x)
    taken = take_turns(calls, expected, repeats=repeats, inner=5)
    medians = {name: statistics.median(times) for name, times in taken.items()}
    return {"channels": channels, "ours": {rho: medians[rho] for rho in rates},
            "peers": {name: medians[name] for name in peers},
            "peer": min(medians[name] for name in peers)}
