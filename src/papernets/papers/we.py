"""Weight Evolution: Improving Deep Neural Networks Training through Evolving Inferior Weight Values.

Zhenquan Lin, Kailing Guo, Xiaofen Xing, Xiangmin Xu; ACM Multimedia 2021, arXiv 2110.04492.
Code: https://github.com/BZQLin/Weight-evolution

Pruning removes filters that hardly contribute. This method repairs them: after every epoch of ordinary training the filters
that are weak in the whole network and weak in their layer are each paired with a strong filter of the same layer, and take
over a part of its weights. The network keeps its shape, so inference costs what it cost before.

Symbols: w_o (Ci, k, k) is filter o of a convolution, a_o its importance, ρ the share of filters that count as weak in the
whole network, θ the importance at that share, λ the share of the layer's largest importance below which a filter is weak in
its layer, g and l how many are weak by either test, q how many evolve; p and q, in a kernel, the strongest and the weakest
element. The formulas are those of the released code; those of the paper were not available to us.

Differs: k×k kernels are mixed by ``mix="dominant"`` unless told otherwise: the stronger element has the larger weight, as in
    the code's own rule for 1×1 kernels. The code has the weights of p and q exchanged, which is ``mix="official"``.
Differs: where a mixture would be 0/0 the inferior value stays. The code gives NaN. With ``mix="official"`` it also stays where
    |p + q| < 1e-12, near the pole of 2 p q / (p + q).
Differs: a kernel is pointwise if it has one element. The code tests the height only, so 1×k kernels count as pointwise.
Differs: a parameter that two layers share evolves once, and one that does not require a gradient never does.
Differs: ``until`` may end the evolution. The code's last one changes a network that is neither trained nor evaluated again.
"""

import copy
import functools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from papernets.data import digits, image_folders, photograph_patches
from papernets.measure import macs, parameters, take_turns
from papernets.nn import VGG, ConvNet, MobileNetV1, MobileNetV2, ResNetBasic, ResNetCIFAR, chosen
from papernets.training import Recipe, fit, loader, logits, seed_everything, single_thread, steps

# ---------------------------------------------------------------------------------------------------------------------
# 1. Functions on tensors
# ---------------------------------------------------------------------------------------------------------------------

#: How an inferior k×k kernel takes over its element: the rule we use, and that of the released code.
MIXES = ("dominant", "official")
#: Two simpler ways to refill the same filters, to compare with: the whole partner, or new random weights.
REFILLS = ("copy", "renew")
_POLE = 1e-12


def importance(W: torch.Tensor) -> torch.Tensor:
    """a (Co,): the L1 norm of every filter of ``W`` (Co, Ci, kh, kw) divided by Ci, not by the size of the kernel."""
    return W.detach().abs().flatten(1).sum(1) / W.shape[1]


def threshold(population: torch.Tensor, rho: float) -> float:
    """θ: the value at place int(n ρ) of the n importances, sorted. Those strictly below are weak in the whole network."""
    if not 0 <= rho < 1:
        raise ValueError(f"rate {rho} is outside [0, 1); the nearest is {0 if rho < 0 else 0.99}")
    return float(population.sort().values[int(len(population) * rho)])


def select(a: torch.Tensor, theta: float, local: float = 0.1, counter: int = 0, limit: float = math.inf) -> tuple[int, int]:
    """q, the number of filters of a layer that evolve, and the new ``counter``.

    q = min(g, l): both tests must agree. Where g ≥ 1 and l = 0 the counter rises, and at ``limit`` one filter evolves all the
    same. A layer with g = 0 leaves the counter as it is.
    """
    g, l = int((a < theta).sum()), int((a <= local * a.max()).sum())
    if g == 0:
        return 0, counter
    if l > 0:
        return min(g, l), 0
    return (1, 0) if counter + 1 >= limit else (0, counter + 1)


def match(a: torch.Tensor, q: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Superior and inferior filters, a pair a place: the best of all with the best of the q weakest, and so on down.

    Only filters that are not among the q weakest are superior; if there are too few, the weakest stay without a partner.
    """
    order = torch.argsort(a, descending=True, stable=True)
    pairs = min(q, len(a) - q)
    return order[:pairs], order[len(a) - q : len(a) - q + pairs]


def cross_pointwise(inferior: torch.Tensor, superior: torch.Tensor) -> torch.Tensor:
    """α w_j + (1 − α) w_i for rows of weights (n, m), with α the share of w_j in the sum of both L1 norms.

    The inferior one has the small share, so the result is close to the superior one. Rows that are both 0 stay.
    """
    own, other = inferior.abs().sum(1, keepdim=True), superior.abs().sum(1, keepdim=True)
    alpha = own / (own + other).where(own + other > 0, torch.ones_like(own))
    return torch.where(own + other > 0, alpha * inferior + (1 - alpha) * superior, inferior)


def mixture(q: torch.Tensor, p: torch.Tensor, mix: str = "dominant") -> torch.Tensor:
    """What replaces the weak element q, given the strong element p: elementwise, and q itself where there is no answer.

    "dominant": α q + (1 − α) p with α = |q| / (|q| + |p|), so the strong one prevails. "official": α p + (1 − α) q with the
    signed α = q / (q + p), which is 2 p q / (p + q): for |q| ≪ |p| twice q.
    """
    if mix not in MIXES:
        raise ValueError(f"mix is {mix!r}; choose from {', '.join(MIXES)}")
    if mix == "official":
        safe = (p + q).abs() >= _POLE
        return torch.where(safe, 2 * p * q / (p + q).where(safe, torch.ones_like(p)), q)
    total = q.abs() + p.abs()
    alpha = q.abs() / total.where(total > 0, torch.ones_like(total))
    return torch.where(total > 0, alpha * q + (1 - alpha) * p, q)


def cross_kernels(inferior: torch.Tensor, superior: torch.Tensor, mix: str = "dominant") -> torch.Tensor:
    """Kernel by kernel for filters (n, Ci, kh, kw): the weakest element of the inferior kernel becomes its mixture with the
    strongest element of the superior kernel. Elements equal to the weakest one change with it."""
    own, other = inferior.flatten(2), superior.flatten(2)  # (n, Ci, k²)
    p = other.gather(2, other.abs().argmax(2, keepdim=True))  # (n, Ci, 1)
    q = own.gather(2, own.abs().argmin(2, keepdim=True))
    return torch.where(own == q, mixture(q, p, mix), own).view_as(inferior)


# ---------------------------------------------------------------------------------------------------------------------
# 2. When, and how much
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stages:
    """Factors of ρ over the epochs: in every stage a logistic function rises from ½ to 1, times the stage's factor.

    A stage begins at each epoch of ``drops``, where the learning rate falls; ``width`` is the logistic function's, in epochs.
    """

    drops: tuple[float, ...]
    width: float
    factors: tuple[float, ...]

    def __post_init__(self):
        if len(self.factors) != len(self.drops) + 1:
            raise ValueError(f"{len(self.drops)} drops make {len(self.drops) + 1} stages, and {len(self.factors)} factors are "
                             "given; give one a stage")
        if not self.width > 0:
            raise ValueError(f"width is {self.width}; it is a number of epochs above 0")

    def __call__(self, epoch: float) -> float:
        stage = sum(epoch >= drop for drop in self.drops)
        begin = self.drops[stage - 1] if stage else 0
        return self.factors[stage] / (1 + math.exp(-(epoch - begin) / self.width))

    def scaled(self, share: float) -> "Stages":
        """The same curve over ``share`` of the epochs."""
        return Stages(tuple(drop * share for drop in self.drops), self.width * share, self.factors)


@dataclass(frozen=True)
class Falling:
    """A factor that falls in a straight line from 1 to 0 over ``epochs``: a schedule of ours, to compare with."""

    epochs: float = 200

    def __call__(self, epoch: float) -> float:
        return max(0.0, 1 - epoch / self.epochs)

    def scaled(self, share: float) -> "Falling":
        return Falling(self.epochs * share)


#: 200 epochs, learning rate cut at 60, 120 and 180; the last cut begins no stage of its own.
CIFAR = Stages((60, 120), 15, (1, 1 / 2.5, 1 / 5))
#: 90 epochs, learning rate cut at 30 and 60.
IMAGENET = Stages((30, 60), 8, (1, 1 / 2, 1 / 4))


@dataclass(frozen=True)
class WE:
    """How a network evolves; the defaults are those of the released code for CIFAR, but for ``mix``.

    ``rate``, ``gamma`` and ``beta`` are the base rates of the global selection among filters, scales and offsets of batch
    norms; ``schedule(epoch)`` multiplies them. ``local`` is λ. ``mix`` is one of ``MIXES``, or of ``REFILLS`` to compare with.
    From the epoch ``until`` on nothing evolves. ``ignore`` and ``filter_fn(name, module)`` leave layers out.
    """

    rate: float = 0.2
    gamma: float = 0.05
    beta: float = 0.05
    local: float = 0.1
    mix: str = "dominant"
    schedule: Callable[[int], float] = CIFAR
    until: int | None = None
    ignore: tuple[str, ...] = ()
    filter_fn: Callable[[str, nn.Module], bool] | None = None

    def __post_init__(self):
        for name in ("rate", "gamma", "beta", "local"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ValueError(f"{name} {value} is outside [0, 1); the nearest is {0 if value < 0 else 0.99}")
        if self.mix not in MIXES + REFILLS:
            raise ValueError(f"mix is {self.mix!r}; choose from {', '.join(MIXES + REFILLS)}")
        if self.until is not None and self.until < 0:
            raise ValueError(f"until is {self.until}; the smallest epoch is 0")


#: The base rates of the released ImageNet script. Its rate for offsets is that of the scales.
WE_IMAGENET = WE(rate=0.02, gamma=0.02, beta=0.02, schedule=IMAGENET)


# ---------------------------------------------------------------------------------------------------------------------
# 3. The verb
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """What one evolution did to one parameter: filter, or number, ``inferior[i]`` took over from ``superior[i]``."""

    parameter: str
    kind: str
    superior: tuple[int, ...]
    inferior: tuple[int, ...]


#: The three populations, each with thresholds and a counter of its own.
KINDS = ("conv", "gamma", "beta")


class Evolution:
    """A configuration and the three counters that carry over from epoch to epoch.

    >>> evolution = Evolution(WE(until=epochs - 1))
    >>> evolution.step(model, epoch)  # after every epoch of training

    ``state_dict`` and ``load_state_dict`` keep the counters, so that a resumed run ends as if it had never stopped.
    """

    def __init__(self, config: WE = WE()):
        self.config = config
        self.counters = dict.fromkeys(KINDS, 0)

    def step(self, model: nn.Module, epoch: int) -> list[Change]:
        """``evolve_`` with this object."""
        return evolve_(model, self, epoch)

    def state_dict(self) -> dict[str, dict[str, int]]:
        return {"counters": dict(self.counters)}

    def load_state_dict(self, state: Mapping[str, Mapping[str, int]]) -> None:
        found = dict(state.get("counters", {}))
        if sorted(found) != sorted(KINDS):
            raise ValueError(f"the state has counters of {', '.join(found) or 'nothing'}; it must have {', '.join(KINDS)}")
        self.counters = {kind: int(found[kind]) for kind in KINDS}


def populations(model: nn.Module, config: WE = WE()) -> dict[str, dict[str, nn.Parameter]]:
    """What evolves, by kind and name: weights of convolutions, and the scales and offsets of batch norms.

    ``ValueError`` if there is none, or if a weight is computed (parametrised) or not finite.
    """
    found: dict[str, dict[str, nn.Parameter]] = {kind: {} for kind in KINDS}
    seen: set[int] = set()
    layers = chosen(model, (nn.Conv2d, nn.BatchNorm2d), ignore=config.ignore, filter_fn=config.filter_fn)
    for name, module in layers.items():
        parts = {"conv": "weight"} if isinstance(module, nn.Conv2d) else {"gamma": "weight", "beta": "bias"}
        for kind, part in parts.items():
            full = f"{name}.{part}" if name else part
            if parametrize.is_parametrized(module, part):
                raise ValueError(f"{full} is parametrised; evolution changes stored weights: remove the parametrisation, or "
                                 f"ignore {name!r}")
            value = getattr(module, part)
            if value is None or not value.requires_grad or id(value) in seen:
                continue
            if not torch.isfinite(value).all():
                raise ValueError(f"{full} holds a value that is not finite; importances are finite norms")
            seen.add(id(value))
            found[kind][full] = value
    return found


def _importance(kind: str, value: torch.Tensor) -> torch.Tensor:
    return importance(value) if kind == "conv" else value.detach().abs()


def _crossed(kind: str, inferior: torch.Tensor, superior: torch.Tensor, mix: str, draw: torch.Generator) -> torch.Tensor:
    """New values for ``inferior``; rows of both belong together."""
    if mix == "copy":
        return superior.clone()
    if mix == "renew":
        if kind != "conv":
            return torch.full_like(inferior, float(kind == "gamma"))
        fresh = torch.randn(inferior.shape, generator=draw).to(inferior)
        return fresh * superior.flatten(1).square().mean(1).sqrt().view(-1, 1, 1, 1)
    if kind == "conv" and inferior[0, 0].numel() > 1:
        return cross_kernels(inferior, superior, mix)
    return cross_pointwise(inferior.flatten(1) if kind == "conv" else inferior[:, None],
                           superior.flatten(1) if kind == "conv" else superior[:, None]).view_as(inferior)


@torch.no_grad()
def evolve_(model: nn.Module, evolution: Evolution, epoch: int) -> list[Change]:
    """Evolve ``model`` once, in place, after the training of ``epoch`` (counted from 0); what was changed, in layer order.

    Everything is computed before anything is changed. Only parameters change: the running statistics of batch norms, the
    momentum of an optimiser and averaged copies of the weights keep what they had. Do not call it between a forward and its
    backward pass.

    >>> evolve_(model, Evolution(), epoch=0)
    """
    if epoch < 0:
        raise ValueError(f"epoch is {epoch}; the first is 0")
    config = evolution.config
    found = populations(model, config)
    if config.until is not None and epoch >= config.until:
        return []
    factor, counters = config.schedule(epoch), dict(evolution.counters)
    limit = len(found["conv"]) / 2
    draw = torch.Generator().manual_seed(epoch)
    planned: list[tuple[Change, nn.Parameter, torch.Tensor, torch.Tensor]] = []
    for kind, rate in zip(KINDS, (config.rate, config.gamma, config.beta)):
        every = {name: _importance(kind, value) for name, value in found[kind].items()}
        if not every:
            continue
        theta = threshold(torch.cat([a.double().cpu() for a in every.values()]), rate * factor)
        for name, a in every.items():
            value = found[kind][name]
            q, counters[kind] = select(a, theta, config.local, counters[kind], limit)
            superior, inferior = match(a, q)
            if len(inferior):
                new = _crossed(kind, value[inferior], value[superior], config.mix, draw)
                change = Change(name, kind, tuple(superior.tolist()), tuple(inferior.tolist()))
                planned.append((change, value, inferior, new))
    for _, value, inferior, new in planned:
        value[inferior] = new
    evolution.counters = counters
    return [change for change, *_ in planned]


def relative_importance(model: nn.Module, config: WE = WE()) -> torch.Tensor:
    """a_o / max a of every filter of every convolution, in one row."""
    every = [importance(W) for W in populations(model, config)["conv"].values()]
    return torch.cat([a / a.max().clamp_min(torch.finfo(a.dtype).tiny) for a in every])


def weak(model: nn.Module, config: WE = WE()) -> int:
    """How many filters have at most λ of the largest importance of their layer."""
    return int((relative_importance(model, config) <= config.local).sum())


# ---------------------------------------------------------------------------------------------------------------------
# 4. The exact numbers of the card
# ---------------------------------------------------------------------------------------------------------------------


class TinyMobileNet(nn.Module):
    """A 3×3 stem and two pairs of a depthwise 3×3 and a 1×1 convolution: 160 filters in all at the default widths."""

    def __init__(self, widths: Sequence[int] = (16, 32, 64), classes: int = 10, channels: int = 1, stride: int = 1):
        super().__init__()
        layers = [nn.Conv2d(channels, widths[0], 3, stride, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()]
        for index, (before, after) in enumerate(pairwise(widths)):
            layers += [nn.Conv2d(before, before, 3, 2 if index else stride, 1, groups=before, bias=False),
                       nn.BatchNorm2d(before), nn.ReLU(), nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after),
                       nn.ReLU()]
        self.features, self.classifier = nn.Sequential(*layers), nn.Linear(widths[-1], classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


def _with_norms(*rows: Sequence[float]) -> nn.Sequential:
    """1×1 convolutions whose filters have these importances."""
    model, before = nn.Sequential(), 2
    for row in rows:
        conv = nn.Conv2d(before, len(row), 1, bias=False)
        with torch.no_grad():
            conv.weight.copy_(torch.tensor(row).view(-1, 1, 1, 1).expand_as(conv.weight))
        model.append(conv)
        before = len(row)
    return model


def _added(seed: int) -> tuple[int, int]:
    """Parameters and MACs after an epoch of training with evolution, minus those before."""
    data, example = digits(200, seed), torch.zeros(1, 1, 8, 8)
    with single_thread():
        seed_everything(seed)
        model = TinyMobileNet()
        before = parameters(model), macs(model, example)
        evolution = Evolution(WE(rate=0.6, local=0.5))
        changed = []
        fit(model, loader(data[0], 64, True), None, epochs=2, lr=steps(0.05, ()), seed=seed,
            after_epoch=lambda model, epoch, history: changed.extend(evolution.step(model, epoch)))
    if not changed:
        raise AssertionError("nothing evolved, so nothing was counted")
    return parameters(model) - before[0], macs(model, example) - before[1]


def _touched(seed: int) -> tuple[int, int]:
    """Over all layers of a network: elements of superior filters that changed; most changed elements of one 3×3 kernel."""
    seed_everything(seed)
    model = TinyMobileNet()
    for value in model.parameters():
        if value.dim() == 1:
            nn.init.normal_(value)
    before = copy.deepcopy(model)
    strong, most = 0, 0
    for change in Evolution(WE(rate=0.9, gamma=0.9, beta=0.9, local=0.9, schedule=lambda epoch: 1.0)).step(model, 0):
        moved = model.get_parameter(change.parameter) != before.get_parameter(change.parameter)
        strong += int(moved[list(change.superior)].sum())
        if moved.dim() == 4 and moved[0, 0].numel() > 1:
            per = moved[list(change.inferior)].flatten(2).sum(2)
            if per.min() != per.max():
                raise AssertionError("kernels of one filter have unequal numbers of changed elements")
            most = max(most, int(per.max()))
    return strong, most


def facts(seed: int = 0) -> dict[str, float]:
    """Every exact number of the card, by the identity of its claim."""
    found: dict[str, float] = dict(zip(("plugin.params", "plugin.macs"), _added(seed)))
    found |= {"rates.conv": WE().rate, "rates.gamma": WE().gamma, "rates.beta": WE().beta, "rates.local": WE().local,
              "rates.imagenet.local": WE_IMAGENET.local}
    same = {WE_IMAGENET.rate, WE_IMAGENET.gamma, WE_IMAGENET.beta}
    found["rates.imagenet"] = same.pop() if len(same) == 1 else math.nan
    found |= {f"schedule.e{epoch}": WE().rate * CIFAR(epoch) for epoch in (0, 1, 5, 15, 30, 59, 60, 75, 119, 120, 150, 199)}
    weak_row, strong_row = torch.tensor([[0.1, -0.05]], dtype=torch.float64), torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    first, second = cross_pointwise(weak_row, strong_row)[0].tolist()
    found |= {"cross.point.alpha": (first - 1.0) / (0.1 - 1.0), "cross.point.first": first, "cross.point.second": second}
    kernels = (torch.tensor(row, dtype=torch.float64).view(1, 1, 3, 1) for row in ((0.1, 0.2, -0.05), (3.0, -1.0, 2.0)))
    inferior, superior = kernels
    found |= {f"cross.kernel.{mix}": float(cross_kernels(inferior, superior, mix)[0, 0, 2]) for mix in MIXES}
    found |= dict(zip(("cross.superior", "cross.touched"), _touched(seed)))
    pair = _with_norms((10.0, 9.0, 0.5, 0.4), (0.01, 0.02, 0.03, 0.001, 0.9, 0.8))
    changes = Evolution(WE(rate=0.8)).step(pair, 0)
    if not changes:
        raise AssertionError("the layer of tiny filters did not evolve either")
    found["select.none"] = sum(len(change.inferior) for change in changes if change.parameter == "0.weight")
    seven = _with_norms(*[(1.0, 0.9, 0.8, 0.5)] * 7)
    found["select.forced"] = 1 + int(Evolution(WE(rate=0.9)).step(seven, 0)[0].parameter.split(".")[0])
    seed_everything(seed)
    every = torch.cat([importance(W) for W in populations(TinyMobileNet())["conv"].values()])
    for name, epoch in {"first": 0, "last": 59}.items():
        found[f"select.{name}"] = int((every < threshold(every, WE().rate * CIFAR(epoch))).sum())
    return found


# ---------------------------------------------------------------------------------------------------------------------
# 5. The experiments of the chapter, and the recipes of the paper
# ---------------------------------------------------------------------------------------------------------------------

#: The arms of the comparison, by name: plain training, the method with both mixes, two simpler ways to refill the same
#: filters, and two settings with which more filters evolve.
ARMS = {"plain": None, **{mix: WE(mix=mix) for mix in MIXES + REFILLS}, "wide": WE(local=0.5),
        "falling": WE(rate=0.6, schedule=Falling())}
#: Readers of the small tasks, by name.
TASKS = {"digits": lambda train, seed: digits(train, seed),
         "patches": lambda train, seed: photograph_patches(train, 1000, seed)}
#: Networks for them, by name: 160 filters of which 96 are pointwise, and 80 filters that are all 3×3.
SMALL = {"mobile": TinyMobileNet, "conv": lambda channels=1, stride=1: ConvNet((16, 32, 32), channels=channels)}
#: How a run may start: as usual; with three quarters of all filters scaled down; or with their batch norm's scales, too.
STARTS = ("healthy", "scaled", "dead")


@torch.no_grad()
def damage_(model: nn.Module, share: float = 0.75, factor: float = 1e-3, seed: int = 0, scales: bool = False) -> None:
    """Multiply ``share`` of the filters of every convolution by ``factor``, in place; which ones is drawn by ``seed``.

    With ``scales`` the batch norm registered next after the convolution gets the same factor in the same places.
    """
    draw, last = torch.Generator().manual_seed(seed), None
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            last = torch.randperm(len(module.weight), generator=draw)[: int(len(module.weight) * share)]
            module.weight[last] *= factor
        elif isinstance(module, nn.BatchNorm2d) and scales and last is not None:
            module.weight[last] *= factor
            last = None


def compare(seed: int, *, task: str = "digits", net: str = "mobile", start: str = "healthy", train: int = 300,
            epochs: int = 30, arms: Sequence[str] = ("plain", "dominant"), lr: float = 0.05,
            drops: Sequence[float] = (0.3, 0.6, 0.9)) -> dict:
    """Several arms for one seed: same first weights, same order of the data, same number of epochs.

    The recipe in small: the learning rate falls to a tenth after 30, 60 and 90 % of the epochs, and the schedule of ρ is
    shortened alike. Nothing evolves after the last epoch, so what is evaluated has been trained. ``start``: one of ``STARTS``.

    By arm: test ``accuracy`` (a share), the number of ``weak`` filters at the end, the ``relative`` importances, and how many
    filters ``evolved`` after every epoch, and how many of all were ``pointwise``. ``start`` are the importances at first.
    """
    if start not in STARTS:
        raise ValueError(f"start is {start!r}; choose from {', '.join(STARTS)}")
    data = TASKS[task](train, seed)
    batches = loader(data[0], 32, True)
    options = dict(channels=3, stride=2) if task == "patches" else {}
    with single_thread():
        seed_everything(seed)
        first = SMALL[net](**options)
        if start != "healthy":
            damage_(first, seed=seed, scales=start == "dead")
        found: dict = {"seed": seed, "start": relative_importance(first).tolist(), "arms": {}}
        for name in arms:
            model, steps_done, config = copy.deepcopy(first), [], ARMS[name]
            after = None
            if config is not None:
                evolution = Evolution(replace(config, schedule=config.schedule.scaled(epochs / 200), until=epochs - 1))

                def after(model: nn.Module, epoch: int, history, evolution=evolution, done=steps_done) -> None:
                    done.append([change for change in evolution.step(model, epoch) if change.kind == "conv"])

            fit(model, batches, None, epochs=epochs, lr=steps(lr, [drop * epochs for drop in drops]), seed=seed,
                after_epoch=after)
            right = logits(model, data[1].images).argmax(1) == data[1].labels
            pointwise = sum(len(change.inferior) for changes in steps_done for change in changes
                            if model.get_parameter(change.parameter)[0, 0].numel() == 1)
            found["arms"][name] = {"accuracy": float(right.float().mean()), "weak": weak(model), "pointwise": pointwise,
                                   "evolved": [sum(len(change.inferior) for change in changes) for changes in steps_done],
                                   "relative": relative_importance(model).tolist()}
    return found


#: The comparisons of the chapter, by name: settings of ``compare``.
EXPERIMENTS: dict[str, dict] = {
    "healthy": dict(epochs=30, arms=("plain", "dominant", "wide", "falling")),
    "long": dict(epochs=90),
    "patches": dict(task="patches", net="conv", train=500, epochs=12, arms=("plain", "dominant", "official")),
    "scaled": dict(start="scaled", epochs=15),
    "dead": dict(start="dead", net="conv", epochs=15, arms=("plain", "dominant", "official", "copy", "renew")),
    "dead mobile": dict(start="dead", epochs=15)}


def experiments(seed: int, share: float = 1.0, names: Sequence[str] = tuple(EXPERIMENTS)) -> dict[str, dict]:
    """Those of ``EXPERIMENTS`` called ``names``, for one seed; a ``share`` below 1 takes fewer epochs and training images."""
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; it is above 0 and at most 1")
    found = {}
    for name in names:
        options = EXPERIMENTS[name]
        shorter = {"epochs": max(2, round(share * options["epochs"])),
                   "train": max(50, 10 * round(share * options.get("train", 300) / 10))}
        found[name] = compare(seed, **options | shorter)
    return found


def training_cost(seed: int = 0, repeats: int = 5) -> dict[str, dict[str, float]]:
    """Milliseconds of one evolution beside training, on one thread, medians over turns; by network.

    "tiny": an ``epoch`` of the small MobileNet on 300 digits. "mobilenetv2": a ``step`` of the one for CIFAR-100, on two images
    only. Every call starts from the same weights, and the time to put them there is in it.
    """
    def fresh(model: nn.Module) -> Callable[[], None]:
        first = [value.detach().clone() for value in model.state_dict().values()]

        def restore() -> None:
            for value, old in zip(model.state_dict().values(), first):
                value.copy_(old)
        return restore

    def evolve(model: nn.Module, restore: Callable[[], None]) -> None:
        restore()
        evolve_(model, Evolution(), 0)

    with single_thread():
        seed_everything(seed)
        tiny, large = TinyMobileNet(), CIFAR_NETWORKS["mobilenetv2"](100)
        for model in (tiny, large):
            damage_(model, seed=seed, scales=True)
        train, image = loader(digits(300, seed)[0], 32, True), torch.randn(2, 3, 32, 32)
        optimizer = torch.optim.SGD(large.parameters(), 1e-6, momentum=0.9)
        back = {"tiny": fresh(tiny), "mobilenetv2": fresh(large)}

    def epoch() -> None:
        back["tiny"]()
        with torch.enable_grad():
            fit(tiny, train, None, epochs=1, lr=steps(0.01, ()), seed=seed)

    def step() -> None:
        back["mobilenetv2"]()
        with torch.enable_grad():
            optimizer.zero_grad()
            F.cross_entropy(large.train()(image), torch.zeros(len(image), dtype=torch.long)).backward()
            optimizer.step()

    calls = {("tiny", "evolution"): lambda: evolve(tiny, back["tiny"]), ("tiny", "epoch"): epoch,
             ("mobilenetv2", "evolution"): lambda: evolve(large, back["mobilenetv2"]), ("mobilenetv2", "step"): step}
    found: dict[str, dict[str, float]] = {"tiny": {}, "mobilenetv2": {}}
    for (network, what), times in take_turns(calls, repeats=repeats, inner=1).items():
        found[network][what] = statistics.median(times)
    return found


def smoothed(outputs: torch.Tensor, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy with labels smoothed by 0.1: another training method that plugs in."""
    return F.cross_entropy(outputs, labels, label_smoothing=0.1)


def for_small_images(model: nn.Module) -> nn.Module:
    """A network for 224×224 images whose first two halvings are taken out, in place: 32×32 images then end as 4×4."""
    for conv in [module for module in model.modules() if isinstance(module, nn.Conv2d) and module.stride == (2, 2)][:2]:
        conv.stride = (1, 1)
    return model


#: Networks of the released CIFAR script that this library has, by name; each takes the number of classes.
CIFAR_NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "mobilenet": lambda classes: for_small_images(MobileNetV1(classes=classes)),
    "mobilenetv2": lambda classes: for_small_images(MobileNetV2(classes=classes)),
    **{f"resnet{depth}": functools.partial(ResNetCIFAR, depth, None, (16, 32, 64)) for depth in (20, 32, 56, 110)},
    "vgg16": lambda classes: VGG(classes=classes)}
#: Those of the released ImageNet script, with the side of their images.
IMAGENET_NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet34": (lambda: ResNetBasic(34), 224), "mobilenetv2-0.25": (lambda: MobileNetV2(0.25), 128)}
#: What is compared at full size: the method, the released code's mix, and what each claim sets it against.
VARIANTS = {"": "dominant", "-official": "official", "-plain": None, "-grafting": "copy", "-renewal": "renew",
            "-smoothing": None}


def _recipe(data: str, build: Callable[[], nn.Module], config: WE, variant: str, side: int = 32) -> Recipe:
    mix = VARIANTS[variant]
    plugin = None if mix is None else functools.partial(Evolution, replace(config, mix=mix))
    loss = (lambda: smoothed) if variant == "-smoothing" else None
    if side == 32:
        return Recipe(data=data, build=build, epochs=200, batch=128, lr=steps(0.1, (60, 120, 180)), weight_decay=5e-4,
                      plugin=plugin, loss=loss)
    return Recipe(data=data, build=build, epochs=90, batch=256, lr=steps(0.1, (30, 60)), weight_decay=1e-4, plugin=plugin,
                  loss=loss, read=lambda path: image_folders(path, data, side))


def _recipes() -> dict[str, Callable[[], Recipe]]:
    found = {}
    for variant in VARIANTS:
        for name, build in CIFAR_NETWORKS.items():
            for data, classes in (("cifar10", 10), ("cifar100", 100)):
                made = functools.partial(build, classes=classes)
                found[f"{name}-{data}{variant}"] = functools.partial(_recipe, data, made, WE(), variant)
        for name, (build, side) in IMAGENET_NETWORKS.items():
            found[f"{name}-imagenet{variant}"] = functools.partial(_recipe, "imagenet", build, WE_IMAGENET, variant, side)
    return found


RECIPES: dict[str, Callable[[], Recipe]] = _recipes()

__all__ = ["ARMS", "CIFAR", "CIFAR_NETWORKS", "EXPERIMENTS", "IMAGENET", "IMAGENET_NETWORKS", "KINDS", "MIXES", "RECIPES",
           "REFILLS", "SMALL", "STARTS", "TASKS", "VARIANTS", "WE", "WE_IMAGENET", "Change", "Evolution", "Falling", "Stages",
           "TinyMobileNet", "compare", "cross_kernels", "cross_pointwise", "damage_", "evolve_", "experiments", "facts",
           "for_small_images", "importance", "match", "mixture", "populations", "relative_importance", "select", "smoothed",
           "threshold", "training_cost", "weak"]
