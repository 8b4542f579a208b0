"""The experiments of the chapter on CC."""

import functools
import statistics
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from papernets.data import digits
from papernets.measure import count, macs, parameters, take_turns
from papernets.nn import ConvNet, ResNetCIFAR
from papernets.papers.cc.layers import CC, compressible, gradients, narrowed, search_all, share_out, weight_of
from papernets.papers.cc.method import UNITS, Layer, cost, directions, information_loss, ranks, restored, score
from papernets.papers.cc.unit_search import Search, search
from papernets.training import Task, clipped_sgd, cosine, reestimate_, row, seed_everything, single_thread

#: What the abstract says was removed of ResNet-50: of the multiply-accumulates and of the parameters.
REMOVED = {"macs": 0.529, "params": 0.484}


def cost_difference(sizes: Sequence[tuple[int, int, int]] = ((7, 5, 3), (5, 11, 1), (4, 2, 3))) -> int:
    """The largest difference between ``cost`` and the count of the rebuilt layer, over all numbers of units removed."""
    worst = 0
    for Co, Ci, k in sizes:
        model, example = nn.Sequential(nn.Conv2d(Ci, Co, k, padding=k // 2, bias=False)), torch.zeros(1, Ci, 4, 5)
        R = ranks(Co, Ci, k * k)
        for p in range(Ci):
            for z in range(R):
                if z and R - z > ranks(Co, Ci - p, k * k):
                    continue  # fewer channels have fewer singular values than are left
                small = narrowed(model, {"0": Layer(range(p, Ci), R - z if z else None)})
                for counted in (macs(small, example) // 20, parameters(small)):
                    worst = max(worst, abs(counted - cost(Co, Ci, k * k, p, z)))
    return worst


def forward_difference(draws: int = 5) -> float:
    """The largest relative difference between the closed forward term and removing every unit that is left in turn."""
    worst = 0.0
    for seed in range(draws):
        draw = torch.Generator().manual_seed(seed)
        W, G = (torch.randn(6, 4, 3, 3, generator=draw, dtype=torch.float64) for _ in range(2))
        scores = score(W, G)
        for closed, slow in zip((scores.channels_forward, scores.ranks_forward), slow_forward(W, G)):
            worst = max(worst, float(((closed - slow) / slow).abs().max()))
    return worst


def slow_forward(W: torch.Tensor, G: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Fwd of every unit as it is defined, (Ci,) and (R,): the mean loss after each of the other units went as well."""
    Co, Ci = W.shape[:2]

    def without(K: torch.Tensor, kind: str, index: int) -> torch.Tensor:
        K = K.clone()
        if kind == "channel":
            K[:, index] = 0
            return K
        P, Q = directions(K.reshape(Co, -1))
        return K - (P[:, index:index + 1] * Q[index:index + 1]).view_as(K)

    R, means = ranks(Co, Ci, W[0, 0].numel()), []
    for kind, number in (("channel", Ci), ("rank", R)):
        values = []
        for index in range(number):
            K = without(W, kind, index)
            losses = [information_loss(W, G, without(K, "channel", c)) for c in range(Ci) if (kind, index) != ("channel", c)]
            losses += [information_loss(W, G, without(K, "rank", r)) for r in range(R - (kind == "rank"))]
            values.append(sum(losses) / len(losses))
        means.append(torch.tensor(values, dtype=W.dtype))
    return means[0], means[1]


def outside(seed: int = 0, removed: float = 0.5) -> tuple[int, list[dict]]:
    """Layers of a ResNet-14 with its first weights that give less than their share, or more by a unit or more.

    The whole pipeline runs for both kinds of units and for each alone; a row a layer says what it should give and gives.
    """
    seed_everything(seed)
    draw = torch.Generator().manual_seed(seed)
    model, example = ResNetCIFAR(14, stages=(8, 12, 16)).eval(), torch.zeros(1, 3, 16, 16)
    batches = [(torch.randn(16, 3, 16, 16, generator=draw), torch.randint(0, 10, (16,), generator=draw)) for _ in range(2)]
    dense, rows = count(model, example), []
    for units in UNITS:
        config = CC(removed=removed, units=units)
        G = gradients(model, batches, list(compressible(model, example, config)))
        shares = share_out(model, G, example, config)
        paths = search_all(model, G, shares.share, config)
        left = count(narrowed(model, {name: path.layer for name, path in paths.items()}), example)
        for name, path in paths.items():
            now = sum(cost.macs for layer, cost in left.items() if f"{layer}.".startswith(f"{name}."))
            rows.append({"units": units, "layer": name, "goal": shares.share[name], "gives": 1 - now / dense[name].macs,
                         "unit": path.unit, "F": dense[name].macs,
                         "whole": 1 - sum(cost.macs for cost in left.values()) / sum(cost.macs for cost in dense.values())})
    wrong = [one for one in rows if not one["goal"] - 1e-9 <= one["gives"] < one["goal"] + one["unit"]]
    return len(wrong), rows


#: The arms of the comparison: what may be removed.
ARMS = {"pruning": "channels", "decomposition": "ranks", "joint": "joint"}


def small_network() -> nn.Module:
    """Three 3×3 convolutions of 32, 32 and 48 filters, for 8×8 digits; the second and third are compressed."""
    return ConvNet((32, 32, 48), channels=1, pool=(1,))


def trained(seed: int, *, train: int = 1000, epochs: int = 12) -> tuple[Task, nn.Module, dict[str, torch.Tensor]]:
    """The digits, the small network trained on them, and the gradients of its inner convolutions."""
    task = Task(*digits(train, seed), epochs, seed, weight_decay=1e-4)
    model = task.start(small_network)
    task.learn(model)
    return task, model, gradients(model, task.batches(False, 100), list(compressible(model, task.train.images[:1])))


def _lost(W: torch.Tensor, G: torch.Tensor, layer: Layer, flat: bool = False) -> float:
    """The loss of a rebuilt layer in per cent of that of removing it; with ``flat`` the squared distance instead."""
    G = torch.ones_like(W) if flat else G
    return 100 * information_loss(W, G, restored(W, layer)) / information_loss(W, G, torch.zeros_like(W))


def compare(seed: int, *, train: int = 1000, epochs: int = 12, tuning: int = 3,
            cuts: Sequence[float] = (0.5, 0.7)) -> list[dict]:
    """All arms on the digits for one seed: one trained network, its two inner convolutions cut by the same share.

    A score is a test accuracy, as a share, before the fine-tuning, and ``tuned`` that after it; ``at`` is the cut, or None for
    the dense network, ``dense``. ``macs`` is what is left of the two layers, as a share, and ``estimate`` and ``distance`` are
    how much the weights changed, by the estimate of the loss and squared, in per cent of what removing a layer does. Batch
    norms are measured anew before either accuracy. At ``order`` the score is the estimate for the second convolution at the
    first cut, by the ``metric``, in ``one step``, without its forward term, and in ``random`` order.
    """
    with single_thread():
        task, model, G = trained(seed, train=train, epochs=epochs)
        rows = [row(seed, "dense", task.accuracy(model))]
        for cut in cuts:
            for name, units in ARMS.items():
                paths = search_all(model, G, dict.fromkeys(G, cut), CC(units=units))
                rows.append(_tuned(task, name, model, G, paths, cut, tuning))
        name = next(iter(G))
        W = weight_of(model.get_submodule(name))
        for order, how in (("metric", {}), ("one step", {"gamma": 0.0}),
                           ("random", {"generator": torch.Generator().manual_seed(seed)})):
            rows.append(row(seed, order, _lost(W, G[name], search(W, G[name], cuts[0], **how).layer), "order"))
        return rows


def _tuned(task: Task, name: str, model: nn.Module, G: Mapping[str, torch.Tensor], paths: Mapping[str, Search], cut: float,
           tuning: int) -> dict:
    """The row of an arm whose layers were searched."""
    small, example = narrowed(model, {layer: path.layer for layer, path in paths.items()}), task.test.images[:1]
    reestimate_(small, task.batches(False, 100))
    dense = count(model, example)
    left = 1 - (macs(model, example) - macs(small, example)) / sum(dense[layer].macs for layer in G)
    changed = {}
    for key, flat in (("estimate", False), ("distance", True)):
        changed[key] = statistics.fmean(_lost(weight_of(model.get_submodule(layer)), G[layer], path.layer, flat)
                                        for layer, path in paths.items())
    before = task.accuracy(small)
    task.learn(small, tuning, again=1, lr=cosine(0.01, tuning), optimizer=clipped_sgd)
    return row(task.seed, name, before, cut, tuned=task.accuracy(small), macs=left, **changed)


def forms(channels: int, share: float, units: str, k: int = 3) -> Layer:
    """A layer of ``channels`` to as many with about ``share`` of its work left, evenly cut: for time, not for accuracy."""
    if units == "channels":
        return Layer(range(round(channels * share)))
    kept = channels if units == "ranks" else round(channels * (1 + share) / 2)
    return Layer(range(kept), max(1, round(share * channels**2 * k * k / (kept * k * k + channels))))


def layer_times(channels: int = 64, side: int = 28, share: float = 0.5, *, seed: int = 0, repeats: int = 15,
                inner: int = 9) -> dict[str, dict[str, float]]:
    """Of a 3×3 convolution on one image and one thread, dense and in three forms of about ``share`` of its work, by name:

    ``seconds`` and ``macs``; of the pairs also the time of the ``first`` layer alone, with the selection, of the ``second``,
    1×1, and of a plain ``copy`` that reads and writes as many numbers as the second does.
    """
    seed_everything(seed)
    with single_thread(), torch.inference_mode():
        model = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False)).eval()
        x = torch.randn(1, channels, side, side)
        built = {"dense": model} | {name: narrowed(model, {"0": forms(channels, share, units)}).eval()
                                    for name, units in ARMS.items()}
        calls, times = {}, {}
        for name, module in built.items():
            times[name] = {"macs": macs(module, x)}
            calls[name, "seconds"] = functools.partial(module, x)
            pair = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
            if len(pair) == 2:
                seen = module[0][:-1](x)
                calls[name, "first"], calls[name, "second"] = (functools.partial(module[0][:-1], x),
                                                               functools.partial(pair[1], seen))
                source = torch.randn((pair[1].in_channels + channels) // 2 * side * side)
                calls[name, "copy"] = functools.partial(torch.empty_like(source).copy_, source)
                times[name] |= {"second.macs": macs(pair[1], seen), "rank": pair[1].in_channels}
        for (name, what), taken in take_turns(calls, repeats=repeats, inner=inner).items():
            times[name][what] = statistics.median(taken)
    return times
