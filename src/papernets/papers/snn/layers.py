"""The layers of SNN, and the verbs that apply it to a network."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from papernets_kernels import binary as binary_kernel
from papernets_kernels import subbit as subbit_kernel
from torch import nn
from torch.nn import functional as F

from papernets.papers.snn.method import (
    ALL,
    codes,
    count_of,
    most_frequent,
    patterns,
    project,
    remember,
    sample,
    scales,
    settle,
    straight_through,
)

# ---------------------------------------------------------------------------------------------------------------------
# The layers
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SNN:
    """How the 3×3 convolutions of a network are made sub-bit; the defaults are the authors' code at 0.56 bit.

    ``subset`` is ``"random"``, or ``"frequent"`` for the patterns that the weights show most often. With ``refine`` the subset
    is learnt: every ``every``-th pass in training reaches p. Ours: p starts at ``p_init_scale`` times its pattern, and its
    learning rate is ``p_lr`` times that of the other parameters. τ = 9 has nothing to choose: it is the binary network.
    """

    tau: int = 5
    subset: str = "random"
    refine: bool = True
    every: int = 25
    theta: float = 1e-3
    p_init_scale: float = 1.0
    p_lr: float = 1.0
    ignore: tuple[str, ...] = ()

    def __post_init__(self):
        count_of(self.tau)
        if self.subset not in ("random", "frequent"):
            raise ValueError(f"subset is {self.subset!r}; it is 'random' or 'frequent'")
        if not isinstance(self.every, int) or self.every < 1:
            raise ValueError(f"every is {self.every!r}; a refinement step comes every so many passes, 1 at least")
        if not 0 <= self.theta < math.inf:
            raise ValueError(f"theta is {self.theta}; it is at least 0, and the code's is 0.001")
        if not max(self.theta, 1e-12) <= self.p_init_scale <= 3:
            nearest = 3 if self.p_init_scale > 3 else max(self.theta, 1e-12)
            raise ValueError(f"p_init_scale is {self.p_init_scale}; p starts outside the dead zone and within ±3: "
                             f"take {nearest:g}")
        if not 0 < self.p_lr < math.inf:
            raise ValueError(f"p_lr is {self.p_lr}; it multiplies the learning rate and must be above 0")


def _check_conv(conv: nn.Module, name: str = "this convolution") -> None:
    """What a sub-bit layer can be made from; refused with the reason otherwise."""
    if tuple(conv.kernel_size) != (3, 3):
        raise ValueError(f"{name} has a kernel of {'×'.join(map(str, conv.kernel_size))}; patterns are of 3×3 kernels: "
                         "add it to ignore")
    if conv.groups != 1:
        raise ValueError(f"{name} has {conv.groups} groups; results are shared among the outputs of 1 group: add it to ignore")
    if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        raise ValueError(f"{name} has padding {conv.padding!r} of mode {conv.padding_mode!r}; give numbers, and mode 'zeros'")
    if conv.dilation not in (1, (1, 1)):
        raise ValueError(f"{name} has dilation {conv.dilation}; the patterns are of windows without gaps, dilation 1")
    if not torch.isfinite(conv.weight).all():
        raise ValueError(f"{name} holds a weight that is not finite; a pattern is chosen by finite weights")


class SubBitConv2d(nn.Module):
    """A 3×3 convolution whose kernels are taken from a subset of 2^τ patterns, times one scale a filter.

    ``weight`` (Co, Ci, 3, 3) and ``bias`` are those of the convolution it is made from; ``p`` (2^τ, 9) is the subset in its
    real form, ``memory`` (2^τ, 9) its signs in use, ``calls`` the passes in training so far, ``seed`` what fresh patterns are
    drawn from; all travel in the ``state_dict``. Without refinement there is no ``p``.
    """

    def __init__(self, conv: nn.Module, config: SNN = SNN()):
        super().__init__()
        if conv.weight.device.type != "meta":
            _check_conv(conv)
        self.config, self.kernel_size, self.groups = config, (3, 3), 1
        self.padding_mode, self.dilation = "zeros", (1, 1)
        self.stride, self.padding = conv.stride, conv.padding
        self.weight = nn.Parameter(conv.weight.detach().clone())
        self.bias = None if conv.bias is None else nn.Parameter(conv.bias.detach().clone())
        self.refines = config.refine and config.tau < 9
        if config.tau == 9:
            chosen = torch.arange(ALL)
        elif config.subset == "frequent":
            chosen = most_frequent(self.weight, config.tau)
        else:
            chosen = sample(config.tau)
        rows = patterns(chosen).to(self.weight)
        self.register_parameter("p", nn.Parameter(config.p_init_scale * rows) if self.refines else None)
        self.register_buffer("memory", rows)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64, device=rows.device))
        self.register_buffer("seed", torch.randint(2**31, (), device="cpu").to(rows.device))

    @property
    def P(self) -> torch.Tensor:
        """The subset in use, (2^τ, 9) of +1 and -1."""
        return remember(self.p.detach(), self.memory, self.config.theta) if self.refines else self.memory

    @property
    def ids(self) -> torch.Tensor:
        """The pattern of every kernel (Co, Ci)."""
        return project(self.weight, self.P)

    @property
    def refining(self) -> bool:
        """Whether the last pass in training was a refinement step."""
        return self.refines and int(self.calls) > 0 and int(self.calls) % self.config.every == 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        P = self.P
        if self.training:
            self.calls += 1
            self.memory.copy_(P)
        w = straight_through(self.weight, P, project(self.weight, P), self.p if self.training and self.refining else None)
        y = F.conv2d(x, w, None, self.stride, self.padding)  # (B, Co, Ho, Wo), of signs whole numbers
        y = y * scales(self.weight).view(-1, 1, 1)
        return y if self.bias is None else y + self.bias.view(-1, 1, 1)

    @torch.no_grad()
    def settle(self, optimizer: torch.optim.Optimizer | None = None) -> int:
        """After the optimiser's step: if it was a refinement step, replace repeated patterns. Returns how many."""
        if not self.refining:
            return 0
        draw = torch.Generator().manual_seed(int(self.seed) + int(self.calls))
        p, m, fresh = settle(self.p, self.P, draw, self.config.p_init_scale)
        self.p.copy_(p)
        self.memory.copy_(m)
        for value in optimizer.state.get(self.p, {}).values() if optimizer is not None else ():
            if isinstance(value, torch.Tensor) and value.shape == self.p.shape:
                value[fresh] = 0  # moments of the pattern that left
        return int(fresh.sum())

    def macs_of(self, x: torch.Tensor, y: torch.Tensor, convention: str) -> int:
        """Counted as the convolution it is; ``bit_ops`` counts what sharing leaves."""
        return y.numel() * (self.weight[0].numel() + (convention == "thop" and self.bias is not None))

    def extra_repr(self) -> str:
        return (f"{self.weight.shape[1]}, {len(self.weight)}, tau={self.config.tau}, stride={self.stride}, "
                f"padding={self.padding}")


ENGINES = ("dense", "subbit", "binary")


class ExportedConv2d(nn.Module):
    """What is stored of a sub-bit layer: ids in τ bits each, the codebook, a scale a filter (and a bias, if there is one).

    ``engine`` says how it runs. ``"dense"``: the kernels spelt out, for any input. ``"subbit"``: the compiled kernel that
    shares results, and ``"binary"``: the one that counts bits, both for inputs of +1 and -1. All give the same numbers.
    """

    def __init__(self, layer: SubBitConv2d, engine: str = "dense"):
        super().__init__()
        if engine not in ENGINES:
            raise ValueError(f"engine is {engine!r}; choose from {', '.join(ENGINES)}")
        self.engine, self.tau, self.shape = engine, layer.config.tau, tuple(layer.weight.shape)
        self.stride, self.padding = layer.stride, layer.padding
        packed = subbit_kernel.pack_ids(layer.ids.cpu().numpy(), self.tau)
        self.register_buffer("packed", torch.from_numpy(packed))
        self.register_buffer("codebook", codes(layer.P).to(torch.int16))
        self.register_buffer("scale", scales(layer.weight))
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())
        self._ready = None

    @property
    def ids(self) -> torch.Tensor:
        """(Co, Ci), unpacked."""
        found = subbit_kernel.unpack_ids(self.packed.cpu().numpy(), self.tau, self.shape[:2])
        return torch.from_numpy(found.astype(np.int64))

    @property
    def P(self) -> torch.Tensor:
        return patterns(self.codebook.long())

    @property
    def bits(self) -> dict[str, int]:
        """Stored bits: of the ids, of the codebook (none with all 512), and of the scales."""
        book = 0 if self.tau == 9 else 9 * 2**self.tau
        return {"ids": self.tau * self.shape[0] * self.shape[1], "codebook": book, "scales": 32 * self.shape[0]}

    def _load_from_state_dict(self, *args, **kwargs):
        self._ready = None
        super()._load_from_state_dict(*args, **kwargs)

    def _weight(self):
        if self._ready is None or self._ready[0] != self.engine:
            ids, P = self.ids, self.P
            if self.engine == "subbit":
                made = subbit_kernel.SharedWeight(ids.numpy(), P.view(-1, 3, 3).cpu().numpy())
            else:
                made = P.cpu()[ids].view(self.shape)
                made = binary_kernel.pack_weight(made.numpy()) if self.engine == "binary" else made.to(self.scale)
            self._ready = self.engine, made
        return self._ready[1]

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.engine == "dense":
            y = F.conv2d(x, self._weight().to(x), None, self.stride, self.padding)
        else:
            if not (x.abs() == 1).all():
                raise ValueError(f"engine {self.engine!r} takes inputs of +1 and -1, and this one holds others; "
                                 "real activations run with engine 'dense'")
            kernel = subbit_kernel if self.engine == "subbit" else binary_kernel
            y = kernel.conv2d(x.cpu().numpy(), self._weight(), stride=self.stride, padding=self.padding)
            y = torch.from_numpy(y).to(x)
        y = y * self.scale.view(-1, 1, 1)
        return y if self.bias is None else y + self.bias.view(-1, 1, 1)


def reference(x: np.ndarray, ids: np.ndarray, codebook: np.ndarray, stride, padding) -> np.ndarray:
    """The integer convolution of ``x`` (Ci, H, W) int8 with ``codebook[ids]``: (Co, Ho, Wo) int64. Float64 holds it exactly."""
    kernels = torch.from_numpy(codebook[ids].astype(np.float64))
    y = F.conv2d(torch.from_numpy(x.astype(np.float64))[None], kernels, None, stride, padding)
    return y[0].to(torch.int64).numpy()


class IntegerConv2d(nn.Module):
    """An exported layer on int8: activations in [-1, 1] are rounded to 127ths, and ``convolve`` sums whole numbers.

    ``convolve(x, ids, codebook, stride, padding)`` is ``reference``, or what ``on_core`` gives.
    """

    def __init__(self, layer: ExportedConv2d, convolve: Callable = reference):
        super().__init__()
        self.layer, self.convolve = layer, convolve

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.abs().max() > 1:
            raise ValueError(f"an activation is {float(x.abs().max()):.3g} in size; int8 stands for [-1, 1] here: "
                             "let a hardtanh come before")
        layer = self.layer
        q = (127 * x).round().to(torch.int8).numpy()  # (B, Ci, H, W)
        ids, codebook = layer.ids.numpy(), layer.P.view(-1, 3, 3).to(torch.int64).numpy()
        y = np.stack([self.convolve(image, ids, codebook, layer.stride, layer.padding) for image in q])
        y = torch.from_numpy(y).to(x) * (layer.scale / 127).view(-1, 1, 1)
        return y if layer.bias is None else y + layer.bias.view(-1, 1, 1)


def on_core(core, engine: str = "fastest", seen: list | None = None) -> Callable:
    """A ``convolve`` that runs on a simulated core; what each run took is appended to ``seen``."""
    from papernets_kernels.hdl import subbit, subbit_layer

    def convolve(x, ids, codebook, stride, padding):
        found = subbit_layer.convolve(core, subbit.Layer(x, ids, codebook, stride, padding), engine)
        if seen is not None:
            seen.append(found)
        return found.y

    return convolve

# ---------------------------------------------------------------------------------------------------------------------
# The verbs
# ---------------------------------------------------------------------------------------------------------------------


def subbit_(model: nn.Module, config: SNN = SNN()) -> None:
    """Make every 3×3 convolution of ``model`` sub-bit, in place, but for those in ``config.ignore``, or inside a module
    named there. Weights are kept.

    Sub-bit layers are made anew with ``config``, so a trained binary network (τ = 9) can be cut to its most frequent patterns.
    Grouped 3×3 convolutions are refused unless ignored; other kernel sizes stay as they are. Build the optimiser afterwards.

    >>> model = SmallNet()
    >>> subbit_(model, SNN(tau=5, ignore=("stem",)))
    """
    modules = dict(model.named_modules())
    found = {name: module for name, module in modules.items() if isinstance(module, nn.Conv2d | SubBitConv2d)
             and tuple(module.kernel_size) == (3, 3)}
    for name in config.ignore:
        if name not in modules:
            raise ValueError(f"ignore names {name!r}, which is no layer; 3×3 convolutions are {', '.join(found) or 'none'}")
    inside = tuple(f"{name}." for name in config.ignore)
    found = {name: module for name, module in found.items() if name not in config.ignore and not name.startswith(inside)}
    if not found:
        raise ValueError("this network has no 3×3 convolution to make sub-bit; the patterns are of 3×3 kernels")
    for name, module in found.items():
        if module.weight.device.type != "meta":
            _check_conv(module, name or "this convolution")
    if "" in found:
        raise ValueError("the network is itself a convolution; put it into an nn.Sequential, or make a SubBitConv2d of it")
    made = {name: SubBitConv2d(module, config) for name, module in found.items()}
    for name, module in made.items():
        model.set_submodule(name, module)


def settle_(model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> int:
    """After every step of the optimiser: replace repeated patterns where p was just refined. Returns how many."""
    return sum(module.settle(optimizer) for module in model.modules() if isinstance(module, SubBitConv2d))


def adam(model: nn.Module, weight_decay: float = 0.0) -> torch.optim.Adam:
    """Adam for a sub-bit network: p has its own learning rate, and ``settle_`` follows every step.

    Between refinement steps p has no gradient (None), and Adam leaves it alone; with zeros it would drift on its momentum. So
    keep ``zero_grad(set_to_none=True)``, torch's default. Replicas on several devices must be told so: ``papernets train``
    takes ``--strategy ddp_find_unused_parameters_true``.
    """
    groups: dict[float, list] = {}
    layers = [module for module in model.modules() if isinstance(module, SubBitConv2d) and module.refines]
    own = {id(layer.p): layer.config.p_lr for layer in layers}
    for p in model.parameters():
        groups.setdefault(own.get(id(p), 1.0), []).append(p)
    made = torch.optim.Adam([{"params": params, "scale": scale} for scale, params in groups.items()], 1e-3,
                            weight_decay=weight_decay)
    made.register_step_post_hook(lambda optimizer, *_: settle_(model, optimizer))
    return made


def export(model: nn.Module, engine: str = "dense") -> nn.Module:
    """A new network in which every sub-bit layer is ids, codebook and scales; its outputs are the same."""
    return _replaced(model, SubBitConv2d, lambda layer: ExportedConv2d(layer, engine))


def integer(model: nn.Module, convolve: Callable = reference) -> nn.Module:
    """A new network, of an exported one, whose sub-bit layers take int8 and sum whole numbers by ``convolve``."""
    return _replaced(model, ExportedConv2d, lambda layer: IntegerConv2d(layer, convolve))


def _replaced(model: nn.Module, kind: type, make: Callable) -> nn.Module:
    model = copy.deepcopy(model).eval()
    found = {name: module for name, module in model.named_modules() if isinstance(module, kind)}
    if not found:
        raise ValueError(f"this network has no {kind.__name__}; "
                         f"call {'subbit_' if kind is SubBitConv2d else 'export'} first")
    for name, module in found.items():
        if name == "":
            return make(module).eval()
        model.set_submodule(name, make(module).eval())
    return model


def stored_bits(model: nn.Module) -> dict[str, int]:
    """Bits of the exported layers of ``model``: ids, codebook, scales."""
    found = [module.bits for module in model.modules() if isinstance(module, ExportedConv2d)]
    return {key: sum(bits[key] for bits in found) for key in ("ids", "codebook", "scales")}
