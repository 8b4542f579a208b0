"""The layers of CC, and the verbs that apply it to a network."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from papernets import check
from papernets.measure import count, evaluating, parameters
from papernets.nn import chosen, conv_like, linear_like, replace_, rounded
from papernets.papers.cc.method import RULES, UNITS, Layer, allocate, curve, fit_curve, reachable, rebuild
from papernets.papers.cc.unit_search import Search, search


class Select(nn.Module):
    """The input channels that a layer still reads, in dimension ``dim``."""

    def __init__(self, kept: Sequence[int], dim: int = 1):
        super().__init__()
        self.dim = dim
        self.register_buffer("kept", torch.as_tensor(kept, dtype=torch.long))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.index_select(self.dim, self.kept)

    def extra_repr(self) -> str:
        return f"{len(self.kept)}"


@check.renamed(target="removed", rates="removed: a share for each layer, by name")
@dataclass(frozen=True)
class CC:
    """How a network is compressed; the defaults are those of the released code.

    ``removed`` is the share of the whole network's work that goes, in multiply-accumulates or, with ``budget`` "params", in
    parameters; or the shares of layers, by name. ``gamma`` weighs the forward term, ``step`` is the share of a layer's units
    that go between two computations of the metric, ``cap`` the largest share of a layer. ``rule`` and ``units``: see ``RULES``
    and ``UNITS``. The first convolution takes part with ``stem``, linear layers with ``linear``. ``round_to`` rounds the
    numbers of channels and ranks that are left; the share is then met about.
    """

    removed: float | Mapping[str, float] = 0.5
    gamma: float = 0.9
    budget: str = "macs"
    rule: str = "equal_marginal"
    units: str = "joint"
    cap: float = 0.95
    step: float = 0.01
    stem: bool = False
    linear: bool = False
    round_to: int = 1
    ignore: tuple[str, ...] = ()
    filter_fn: Callable[[str, nn.Module], bool] | None = None

    def __post_init__(self):
        if isinstance(self.removed, Mapping):
            for name, share in self.removed.items():
                check.share(f"removed of {name}", share, step=0.05)
        else:
            check.share("removed", self.removed, step=0.05)
        check.share("cap", self.cap, "()", step=0.05)
        if not self.gamma >= 0:
            raise ValueError(f"gamma is {self.gamma}; the nearest is 0")
        check.share("step", self.step, "[]")
        for name, options in (("budget", ("macs", "params")), ("rule", RULES), ("units", UNITS)):
            check.one_of(name, getattr(self, name), options)
        rounded(1, self.round_to, 1)


def compressible(model: nn.Module, example: torch.Tensor, config: CC = CC()) -> dict[str, nn.Module]:
    """The layers that take part, by name: convolutions of one group but the first to run, and linear layers if asked."""
    first = next((name for name in count(model, example) if isinstance(model.get_submodule(name), nn.Conv2d)), None)

    def fits(name: str, module: nn.Module) -> bool:
        if getattr(module, "groups", 1) != 1 or (name == first and not config.stem):
            return False
        return config.filter_fn is None or config.filter_fn(name, module)

    return chosen(model, (nn.Conv2d, nn.Linear) if config.linear else nn.Conv2d, ignore=config.ignore, filter_fn=fits)


def weight_of(module: nn.Module) -> torch.Tensor:
    """W (Co, Ci, k, k) of a convolution, (Co, Ci, 1, 1) of a linear layer, without gradient."""
    W = module.weight.detach()
    return W if W.dim() == 4 else W[:, :, None, None]


def gradients(model: nn.Module, batches: Iterable, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """G of the weights of the layers ``names``: the mean over ``batches`` (images, labels) of that of the cross-entropy.

    The network is in evaluation mode, so the batch norms use their running statistics. It is left as it was. ``ValueError`` if
    there is no batch.
    """
    weights = [model.get_submodule(name).weight for name in names]
    wanted, total, number = [W.requires_grad for W in weights], [torch.zeros_like(W) for W in weights], 0
    try:
        for W in weights:
            W.requires_grad_(True)
        with evaluating(model), torch.enable_grad():
            for images, labels in batches:
                loss = functional.cross_entropy(model(images.to(weights[0].device)), labels.to(weights[0].device))
                total = [part + G for part, G in zip(total, torch.autograd.grad(loss, weights))]
                number += 1
    finally:
        for W, value in zip(weights, wanted):
            W.requires_grad_(value)
    if not number:
        raise ValueError("there is no batch; gradients need at least one of (images, labels)")
    return {name: part / number for name, part in zip(names, total)}


@dataclass(frozen=True)
class Shares:
    """Stage one for a network: by layer the work F, the share c, the curve (c_t, I_t) and its fit; and the level x."""

    work: dict[str, float]
    share: dict[str, float]
    curves: dict[str, tuple[list[float], list[float]]]
    fits: dict[str, tuple[float, float] | None]
    x: float


def caps(layers: Mapping[str, nn.Module], config: CC) -> dict[str, float]:
    """The largest share that each of ``layers`` can give, by name."""
    shapes = {name: weight_of(module).shape for name, module in layers.items()}
    return {name: min(config.cap, reachable(Co, Ci, k1 * k2, config.units)) for name, (Co, Ci, k1, k2) in shapes.items()}


def share_out(model: nn.Module, G: Mapping[str, torch.Tensor], example: torch.Tensor, config: CC = CC()) -> Shares:
    """Stage one: the share of its work that each layer gives, so that the network as a whole gives ``config.removed``.

    ``G`` are the gradients of the layers by name. ``ValueError`` if a layer, or all together, cannot give so much.
    """
    layers, costs = compressible(model, example, config), count(model, example)
    if config.budget == "macs":
        work, whole = {name: costs[name].macs for name in layers}, sum(cost.macs for cost in costs.values())
    else:
        work, whole = {name: module.weight.numel() for name, module in layers.items()}, parameters(model)
    most = caps(layers, config)
    if isinstance(config.removed, Mapping):
        for name, share in config.removed.items():
            check.one_of("a layer to compress", name, layers)
            if share > most[name]:
                raise ValueError(f"{name}: share {share:g} is unreachable; the largest is {most[name]:g}")
        return Shares(work, {name: config.removed.get(name, 0.0) for name in layers}, {}, {}, 0.0)
    all_most = sum(most[name] * work[name] for name in layers) / whole
    if config.removed > all_most:
        raise ValueError(f"removed {config.removed} is unreachable: the layers that take part can give {all_most:.3g} of the "
                         "whole")
    curves = {name: curve(weight_of(module), G[name].reshape(weight_of(module).shape), config.units)
              for name, module in layers.items()} if config.rule != "uniform" else {}
    fits = {name: fit_curve(*curves[name]) if name in curves else None for name in layers}
    shares, x = allocate(list(fits.values()), list(work.values()), config.removed * whole, caps=list(most.values()),
                         rule=config.rule)
    return Shares(work, dict(zip(layers, shares)), curves, fits, x)


def search_all(model: nn.Module, G: Mapping[str, torch.Tensor], shares: Mapping[str, float],
               config: CC = CC()) -> dict[str, Search]:
    """Stage two for every layer that gives something, by name. ``ValueError`` names a layer that cannot give so much."""
    paths = {}
    for name, share in shares.items():
        if share > 0:
            W = weight_of(model.get_submodule(name))
            with check.of(name):
                paths[name] = search(W, G[name].reshape(W.shape), share, gamma=config.gamma, units=config.units,
                                     step=config.step, round_to=config.round_to)
    return paths


def plan(model: nn.Module, batches: Iterable, config: CC = CC()) -> dict[str, Layer]:
    """What is left of each layer. ``batches`` of (images, labels) are all of the training data, without augmentation: a list
    or a loader, not a generator, as they are gone through twice.

    A plan is small and plain: ``{name: asdict(layer)}`` is JSON, and ``narrowed`` takes it back in that form. ``ValueError`` if
    there is no batch, or the layers cannot give so much.
    """
    if iter(batches) is batches:
        raise ValueError("batches is an iterator, of which the first would be lost; give a list or a loader")
    images, _ = next(iter(batches), (None, None))
    if images is None:
        raise ValueError("there is no batch; gradients need at least one of (images, labels)")
    example = images[:1].to(next(model.parameters()).device)
    G = gradients(model, batches, list(compressible(model, example, config)))
    paths = search_all(model, G, share_out(model, G, example, config).share, config)
    return {name: path.layer for name, path in paths.items()}


def _new_layer(module: nn.Conv2d | nn.Linear, layer: Layer) -> nn.Module:
    """A layer, or two, behind the selection of channels where some are gone; the bias goes with the last."""
    W, bias = weight_of(module), module.bias is not None
    parts, linear = rebuild(W, layer), isinstance(module, nn.Linear)
    like, pair = linear_like if linear else conv_like, len(parts) == 2
    made = [like(module, inputs=len(layer.kept), outputs=len(parts[0]), bias=bias and not pair)]
    if pair and linear:
        made.append(linear_like(module, inputs=parts[1].shape[1]))
    elif pair:
        made.append(nn.Conv2d(parts[1].shape[1], len(W), 1, bias=bias, device=W.device, dtype=W.dtype))
    for one, part in zip(made, parts):
        own = {"bias": module.bias.detach()} if bias and one is made[-1] else {}
        one.load_state_dict({"weight": part.reshape(one.weight.shape), **own})
    if len(layer.kept) < W.shape[1]:
        made.insert(0, Select(layer.kept, -1 if linear else 1).to(W.device))
    return (made[0] if len(made) == 1 else nn.Sequential(*made)).train(module.training)


def narrowed(model: nn.Module, plan: Mapping[str, Layer | Mapping]) -> nn.Module:
    """A new, ordinary, smaller network: each layer named in ``plan`` is rebuilt from its original weights.

    The structure depends on the plan alone. So a saved network is loaded into ``narrowed`` of an untrained one. ``ValueError``
    names a layer of the plan that is none of the network, or does not fit.

    >>> small = narrowed(ResNetCIFAR(56), json.loads(text))
    >>> small.load_state_dict(state)
    """
    modules, made = dict(model.named_modules()), {}
    for name, layer in plan.items():
        module = modules.get(name)
        if not isinstance(module, nn.Conv2d | nn.Linear):
            raise ValueError(f"{name!r} is no convolution or linear layer of this network")
        with check.of(name):
            if getattr(module, "groups", 1) != 1:
                raise ValueError(f"it has {module.groups} groups; the method is defined for 1")
            made[name] = _new_layer(module, layer if isinstance(layer, Layer) else Layer(**layer))
    small = copy.deepcopy(model)
    replace_(small, made)
    return small


def compress(model: nn.Module, batches: Iterable, config: CC = CC()) -> nn.Module:
    """The whole method but the fine-tuning: gradients, shares, search and the compact network. ``model`` is left as it was.

    Afterwards the batch norms are measured anew, and the network is fine-tuned. ``ValueError`` as in ``plan``.

    >>> small = compress(model, loader(train, 128, False), CC(removed=0.5))
    >>> reestimate_(small, batches)
    """
    return narrowed(model, plan(model, batches, config))
