"""The layers of CC, and the verbs that apply it to a network."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from papernets.measure import count, parameters
from papernets.nn import chosen, rounded
from papernets.papers.cc.method import (
    RULES,
    Layer,
    Search,
    _check_units,
    allocate,
    curve,
    fit_curve,
    reachable,
    rebuild,
    search,
)

# ---------------------------------------------------------------------------------------------------------------------
# The layers and the verbs
# ---------------------------------------------------------------------------------------------------------------------


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


@dataclass(frozen=True)
class CC:
    """How a network is compressed; the defaults are those of the released code.

    ``target`` is the share of the whole network's work that goes, in multiply-accumulates or, with ``budget`` "params", in
    parameters. ``gamma`` weighs the forward term, ``step`` is the share of a layer's units that go between two computations
    of the metric, ``cap`` the largest share of a layer. ``rule`` and ``units``: see ``RULES`` and ``UNITS``. ``rates``, shares
    by layer name, take the place of ``target``. The first convolution takes part with ``stem``, linear layers with ``linear``.
    ``round_to`` rounds the numbers of channels and ranks that are left; the target is then met about.
    """

    target: float = 0.5
    gamma: float = 0.9
    budget: str = "macs"
    rule: str = "equal_marginal"
    units: str = "joint"
    cap: float = 0.95
    step: float = 0.01
    rates: Mapping[str, float] | None = None
    stem: bool = False
    linear: bool = False
    round_to: int = 1
    ignore: tuple[str, ...] = ()
    filter_fn: Callable[[str, nn.Module], bool] | None = None

    def __post_init__(self):
        for what, share in (("target", self.target), *((f"rate of {name}", rate) for name, rate in (self.rates or {}).items())):
            if not 0 <= share < 1:
                raise ValueError(f"{what} {share} is outside [0, 1); the nearest is {0 if share < 0 else 0.95}")
        if not 0 < self.cap < 1:
            raise ValueError(f"cap {self.cap} is outside (0, 1); the code's is 0.95")
        if not self.gamma >= 0:
            raise ValueError(f"gamma is {self.gamma}; the nearest is 0")
        if not 0 <= self.step <= 1:
            raise ValueError(f"step is {self.step}; it is a share from 0 to 1")
        if self.budget not in ("macs", "params"):
            raise ValueError(f"budget is {self.budget!r}; choose from macs, params")
        if self.rule not in RULES:
            raise ValueError(f"rule is {self.rule!r}; choose from {', '.join(RULES)}")
        _check_units(self.units)
        rounded(1, self.round_to, 1)


def compressible(model: nn.Module, example: torch.Tensor, config: CC = CC()) -> dict[str, nn.Module]:
    """The layers that take part, by name: convolutions of one group but the first to run, and linear layers if asked."""
    first = next((name for name in count(model, example) if isinstance(model.get_submodule(name), nn.Conv2d)), None)

    def fits(name: str, module: nn.Module) -> bool:
        if getattr(module, "groups", 1) != 1 or (name == first and not config.stem):
            return False
        return config.filter_fn is None or config.filter_fn(name, module)

    return chosen(model, (nn.Conv2d, nn.Linear) if config.linear else nn.Conv2d, ignore=config.ignore, filter_fn=fits)


def _weight(module: nn.Module) -> torch.Tensor:
    W = module.weight.detach()
    return W if W.dim() == 4 else W[:, :, None, None]


def gradients(model: nn.Module, batches: Iterable, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """G of the weights of the layers ``names``: the mean over ``batches`` (images, labels) of that of the cross-entropy.

    The network is in evaluation mode, so the batch norms use their running statistics. It is left as it was.
    """
    weights = [model.get_submodule(name).weight for name in names]
    wanted, modes = [W.requires_grad for W in weights], {module: module.training for module in model.modules()}
    total, number = [torch.zeros_like(W) for W in weights], 0
    try:
        model.eval()
        for W in weights:
            W.requires_grad_(True)
        for images, labels in batches:
            with torch.enable_grad():
                loss = functional.cross_entropy(model(images.to(weights[0].device)), labels.to(weights[0].device))
                for part, G in zip(total, torch.autograd.grad(loss, weights)):
                    part += G
            number += 1
    finally:
        for W, value in zip(weights, wanted):
            W.requires_grad_(value)
        for module, mode in modes.items():
            module.training = mode
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


def _caps(layers: Mapping[str, nn.Module], config: CC) -> dict[str, float]:
    shapes = {name: _weight(module).shape for name, module in layers.items()}
    return {name: min(config.cap, reachable(Co, Ci, k1 * k2, config.units)) for name, (Co, Ci, k1, k2) in shapes.items()}


def share_out(model: nn.Module, G: Mapping[str, torch.Tensor], example: torch.Tensor, config: CC = CC()) -> Shares:
    """Stage one: the share of its work that each layer gives, so that the network as a whole gives ``config.target``."""
    layers = compressible(model, example, config)
    costs = count(model, example)
    if config.budget == "macs":
        work, whole = {name: costs[name].macs for name in layers}, sum(cost.macs for cost in costs.values())
    else:
        work, whole = {name: module.weight.numel() for name, module in layers.items()}, parameters(model)
    caps = _caps(layers, config)
    if config.rates is not None:
        for name, rate in config.rates.items():
            if name not in layers:
                raise ValueError(f"{name!r} is no layer to compress; choose from {', '.join(layers)}")
            if rate > caps[name]:
                raise ValueError(f"{name}: share {rate:g} is unreachable; the largest is {caps[name]:g}")
        return Shares(work, {name: config.rates.get(name, 0.0) for name in layers}, {}, {}, 0.0)
    most = sum(caps[name] * work[name] for name in layers) / whole
    if config.target > most:
        raise ValueError(f"target {config.target} is unreachable: the layers that take part can give {most:.3g} of the whole")
    curves = {name: curve(_weight(module), G[name].reshape(_weight(module).shape), config.units)
              for name, module in layers.items()} if config.rule != "uniform" else {}
    fits = {name: fit_curve(*curves[name]) if name in curves else None for name in layers}
    shares, x = allocate(list(fits.values()), list(work.values()), config.target * whole, caps=list(caps.values()),
                         rule=config.rule)
    return Shares(work, dict(zip(layers, shares)), curves, fits, x)


def search_all(model: nn.Module, G: Mapping[str, torch.Tensor], shares: Mapping[str, float],
               config: CC = CC()) -> dict[str, Search]:
    """Stage two for every layer that gives something, by name."""
    found = {}
    for name, share in shares.items():
        if share > 0:
            W = _weight(model.get_submodule(name))
            try:
                found[name] = search(W, G[name].reshape(W.shape), share, gamma=config.gamma, units=config.units,
                                     step=config.step, round_to=config.round_to)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
    return found


def plan(model: nn.Module, batches: Iterable, config: CC = CC()) -> dict[str, Layer]:
    """What is left of each layer. ``batches`` of (images, labels) are all of the training data, without augmentation: a list
    or a loader, not a generator, as they are gone through twice.

    A plan is small and plain: ``{name: asdict(layer)}`` is JSON, and ``compact`` takes it back in that form.
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
    W = _weight(module)
    parts = rebuild(W, layer)
    how = dict(device=W.device, dtype=W.dtype)
    bias, linear = module.bias is not None, isinstance(module, nn.Linear)
    made: list[nn.Module] = []
    if len(layer.kept) < W.shape[1]:
        made.append(Select(layer.kept, -1 if linear else 1).to(W.device))
    for at, part in enumerate(parts):
        last = at == len(parts) - 1
        if linear:
            made.append(nn.Linear(part.shape[1], len(part), bias=bias and last, **how))
        elif at == 0:
            made.append(nn.Conv2d(part.shape[1], len(part), module.kernel_size, module.stride, module.padding, module.dilation,
                                  bias=bias and last, padding_mode=module.padding_mode, **how))
        else:
            made.append(nn.Conv2d(part.shape[1], len(part), 1, bias=bias, **how))
        with torch.no_grad():
            made[-1].weight.copy_(part.reshape(made[-1].weight.shape))
    if bias:
        with torch.no_grad():
            made[-1].bias.copy_(module.bias)
    return (made[0] if len(made) == 1 else nn.Sequential(*made)).train(module.training)


def compact(model: nn.Module, plan: Mapping[str, Layer | Mapping]) -> nn.Module:
    """A new, ordinary, smaller network: each layer named in ``plan`` is rebuilt from its original weights.

    The structure depends on the plan alone. So a saved network is loaded into ``compact`` of an untrained one:

    >>> small = compact(ResNetCIFAR(56), json.loads(text))
    >>> small.load_state_dict(state)
    """
    modules, found = dict(model.named_modules()), copy.deepcopy(model)
    made = {}
    for name, layer in plan.items():
        module = modules.get(name)
        if not name or not isinstance(module, nn.Conv2d | nn.Linear):
            raise ValueError(f"{name!r} is no convolution or linear layer inside this network")
        if getattr(module, "groups", 1) != 1:
            raise ValueError(f"{name} has {module.groups} groups; the method is defined for 1")
        try:
            made[name] = _new_layer(module, layer if isinstance(layer, Layer) else Layer(**layer))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    for name, module in made.items():
        found.set_submodule(name, module)
    return found


def compress(model: nn.Module, batches: Iterable, config: CC = CC()) -> nn.Module:
    """The whole method but the fine-tuning: gradients, shares, search and the compact network. ``model`` is left as it was.

    >>> small = compress(model, loader(train, 128, False), CC(target=0.5))
    >>> reestimate_(small, batches)
    """
    return compact(model, plan(model, batches, config))


@torch.no_grad()
def reestimate_(model: nn.Module, batches: Iterable) -> None:
    """Measure the statistics of all batch norms anew, in one pass over ``batches`` (images, labels); no weight moves."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
             and module.track_running_stats]
    modes, momenta = {module: module.training for module in model.modules()}, [module.momentum for module in norms]
    device = next(model.parameters()).device
    try:
        model.eval()
        for module in norms:
            module.reset_running_stats()
            module.momentum = None  # the plain mean over all batches
            module.train()
        for images, _ in batches:
            model(images.to(device))
    finally:
        for module, momentum in zip(norms, momenta):
            module.momentum = momentum
        for module, mode in modes.items():
            module.training = mode


def clipped(model: nn.Module, lr: float = 0.1, momentum: float = 0.9, weight_decay: float = 1e-4,
            norm: float = 1.0) -> torch.optim.SGD:
    """SGD before whose every step the gradient of all parameters is cut to length ``norm``, for the fine-tuning."""
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=momentum, weight_decay=weight_decay)

    def clip(optimizer, args, kwargs) -> None:
        nn.utils.clip_grad_norm_(model.parameters(), norm)

    optimizer.register_step_pre_hook(clip)
    return optimizer
