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
from torch.nn import functional

from papernets import check
from papernets.nn import Packed, chosen, replace_, replaced
from papernets.papers.snn.method import (
    ALL,
    codes,
    most_frequent,
    patterns,
    project,
    remember,
    sample,
    scales,
    settle,
    straight_through,
    subset_size,
)


@dataclass(frozen=True)
class SNN:
    """How the 3×3 convolutions of a network are made sub-bit; the defaults are the authors' code at 0.56 bit.

    ``subset`` is ``"random"``, or ``"frequent"`` for the patterns that the weights show most often. With ``refine`` the subset
    is learnt: every ``every``-th pass in training reaches p. Ours: p starts at ``p_init_scale`` times its pattern, and its
    learning rate is ``p_lr`` times that of the other parameters. τ = 9 has nothing to choose: it is the binary network.
    ``filter_fn(name, module)`` and ``ignore`` leave layers out.
    """

    tau: int = 5
    subset: str = "random"
    refine: bool = True
    every: int = 25
    theta: float = 1e-3
    p_init_scale: float = 1.0
    p_lr: float = 1.0
    ignore: tuple[str, ...] = ()
    filter_fn: Callable[[str, nn.Module], bool] | None = None

    def __post_init__(self):
        subset_size(self.tau)  # refuses what is no τ
        check.one_of("subset", self.subset, ("random", "frequent"))
        check.whole("every", self.every)
        check.above("p_lr", self.p_lr, 1)
        if not 0 <= self.theta < math.inf:
            raise ValueError(f"theta is {self.theta}; it is at least 0, and the code's is 0.001")
        if not max(self.theta, 1e-12) <= self.p_init_scale <= 3:
            nearest = 3 if self.p_init_scale > 3 else max(self.theta, 1e-12)
            raise ValueError(f"p_init_scale is {self.p_init_scale}; p starts outside the dead zone and within ±3: "
                             f"take {nearest:g}")

# ---------------------------------------------------------------------------------------------------------------------
# The layer while it is trained
# ---------------------------------------------------------------------------------------------------------------------


def _check_conv(conv: nn.Module) -> None:
    """What a sub-bit layer can be made from; refused with the reason otherwise."""
    if tuple(conv.kernel_size) != (3, 3):
        raise ValueError(f"the kernel is {'×'.join(map(str, conv.kernel_size))}; patterns are of 3×3 kernels")
    if conv.groups != 1:
        raise ValueError(f"there are {conv.groups} groups; results are shared among the outputs of 1 group")
    if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        raise ValueError(f"padding is {conv.padding!r} of mode {conv.padding_mode!r}; give numbers, and mode 'zeros'")
    if conv.dilation not in (1, (1, 1)):
        raise ValueError(f"dilation is {conv.dilation}; the patterns are of windows without gaps, dilation 1")
    if conv.weight.device.type != "meta":
        check.finite("the weight", conv.weight, "a pattern is chosen by finite weights")


class SubBitConv2d(nn.Module):
    """A 3×3 convolution whose kernels are taken from a subset of 2^τ patterns, times one scale a filter.

    ``weight`` (Co, Ci, 3, 3) and ``bias`` are those of the convolution it is made from; ``p`` (2^τ, 9) is the subset in its
    real form, ``memory`` (2^τ, 9) its signs in use, ``calls`` the passes in training so far, ``seed`` what fresh patterns are
    drawn from; all travel in the ``state_dict``. Without refinement there is no ``p``.
    """

    def __init__(self, conv: nn.Module, config: SNN = SNN()):
        super().__init__()
        _check_conv(conv)
        self.config, self.kernel_size, self.groups = config, (3, 3), 1
        self.padding_mode, self.dilation = "zeros", (1, 1)
        self.stride, self.padding = conv.stride, conv.padding
        self.weight = nn.Parameter(conv.weight.detach().clone())
        self.bias = None if conv.bias is None else nn.Parameter(conv.bias.detach().clone())
        self.refines = config.refine and config.tau < 9
        if config.tau == 9:
            subset = torch.arange(ALL)
        elif config.subset == "frequent":
            subset = most_frequent(self.weight, config.tau)
        else:
            subset = sample(config.tau)
        rows = patterns(subset).to(self.weight)
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
        y = functional.conv2d(x, w, None, self.stride, self.padding)  # (B, Co, Ho, Wo), of signs whole numbers
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
        return y.numel() * (9 * self.weight.shape[1] + (convention == "thop" and self.bias is not None))

    def extra_repr(self) -> str:
        return (f"{self.weight.shape[1]}, {len(self.weight)}, tau={self.config.tau}, stride={self.stride}, "
                f"padding={self.padding}")


# ---------------------------------------------------------------------------------------------------------------------
# The layer when it is trained: as it is stored, and with whole numbers on a core
# ---------------------------------------------------------------------------------------------------------------------

ENGINES = ("dense", "subbit", "binary")


class PackedConv2d(Packed):
    """What is stored of a sub-bit layer: ids in τ bits each, the codebook, a scale a filter (and a bias, if there is one).

    ``engine`` says how it runs. ``"dense"``: the kernels spelt out, for any input. ``"subbit"``: the compiled kernel that
    shares results, and ``"binary"``: the one that counts bits, both for inputs of +1 and -1. All give the same numbers.
    """

    def __init__(self, layer: SubBitConv2d, engine: str = "dense"):
        super().__init__()
        self.engine = check.one_of("engine", engine, ENGINES)
        self.tau, self.shape = layer.config.tau, tuple(layer.weight.shape)
        self.stride, self.padding = layer.stride, layer.padding
        packed = subbit_kernel.pack_ids(layer.ids.cpu().numpy(), self.tau)
        self.register_buffer("packed", torch.from_numpy(packed))
        self.register_buffer("codebook", codes(layer.P).to(torch.int16))
        self.register_buffer("scale", scales(layer.weight))
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())

    @property
    def ids(self) -> torch.Tensor:
        """(Co, Ci), unpacked."""
        ids = subbit_kernel.unpack_ids(self.packed.cpu().numpy(), self.tau, self.shape[:2])
        return torch.from_numpy(ids.astype(np.int64))

    @property
    def P(self) -> torch.Tensor:
        """The subset, (2^τ, 9) of +1 and -1."""
        return patterns(self.codebook.long())

    @property
    def bits(self) -> dict[str, int]:
        """Stored bits: of the ids, of the codebook (none with all 512), and of the scales."""
        book = 0 if self.tau == 9 else 9 * 2**self.tau
        return {"ids": self.tau * self.shape[0] * self.shape[1], "codebook": book, "scales": 32 * self.shape[0]}

    @property
    def stored(self) -> tuple[int, int]:
        """Numbers kept, which are ids, patterns, scales and biases, and their bits."""
        bias = 0 if self.bias is None else len(self.bias)
        book = 0 if self.tau == 9 else 2**self.tau
        return self.shape[0] * self.shape[1] + book + self.shape[0] + bias, sum(self.bits.values()) + 32 * bias

    def _pack(self):
        ids, P = self.ids, self.P.cpu()
        if self.engine == "subbit":
            return subbit_kernel.SharedWeight(ids.numpy(), P.view(-1, 3, 3).numpy())
        kernels = P[ids].view(self.shape)
        return binary_kernel.pack_weight(kernels.numpy()) if self.engine == "binary" else kernels.to(self.scale)

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.engine == "dense":
            y = functional.conv2d(x, self.form.to(x), None, self.stride, self.padding)
        else:
            if not (x.abs() == 1).all():
                raise ValueError(f"engine {self.engine!r} takes inputs of +1 and -1, and this one holds others; "
                                 "real activations run with engine 'dense'")
            kernel = subbit_kernel if self.engine == "subbit" else binary_kernel
            y = kernel.conv2d(x.cpu().numpy(), self.form, stride=self.stride, padding=self.padding)
            y = torch.from_numpy(y).to(x)
        y = y * self.scale.view(-1, 1, 1)
        return y if self.bias is None else y + self.bias.view(-1, 1, 1)

    def macs_of(self, x: torch.Tensor, y: torch.Tensor, convention: str) -> int:
        """As those of the layer that it was."""
        return y.numel() * (9 * self.shape[1] + (convention == "thop" and self.bias is not None))


def reference(x: np.ndarray, ids: np.ndarray, codebook: np.ndarray, stride, padding) -> np.ndarray:
    """The integer convolution of ``x`` (Ci, H, W) int8 with ``codebook[ids]``: (Co, Ho, Wo) int64. Float64 holds it exactly."""
    kernels = torch.from_numpy(codebook[ids].astype(np.float64))
    y = functional.conv2d(torch.from_numpy(x.astype(np.float64))[None], kernels, None, stride, padding)
    return y[0].to(torch.int64).numpy()


class IntegerConv2d(nn.Module):
    """A packed layer on int8: activations in [-1, 1] are rounded to 127ths, and ``convolve`` sums whole numbers.

    ``convolve(x, ids, codebook, stride, padding)`` is ``reference``, or what ``on_core`` gives.
    """

    def __init__(self, layer: PackedConv2d, convolve: Callable = reference):
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
        run = subbit_layer.convolve(core, subbit.Layer(x, ids, codebook, stride, padding), engine)
        if seen is not None:
            seen.append(run)
        return run.y

    return convolve

# ---------------------------------------------------------------------------------------------------------------------
# The verbs
# ---------------------------------------------------------------------------------------------------------------------


def subbit_(model: nn.Module, config: SNN = SNN()) -> None:
    """Make every 3×3 convolution of ``model`` sub-bit, in place, but for those that ``config`` leaves out. Weights are kept.

    Sub-bit layers are made anew with ``config``, so a trained binary network (τ = 9) can be cut to its most frequent patterns.
    Other kernel sizes stay as they are. Build the optimiser afterwards. ``ValueError``, before anything is changed, if a 3×3
    convolution has groups, gaps or another padding than numbers of zeros, or weights that are not finite.

    >>> model = SmallNet()
    >>> subbit_(model, SNN(tau=5, ignore=("stem",)))
    """
    def fits(name: str, module: nn.Module) -> bool:
        return tuple(module.kernel_size) == (3, 3) and (config.filter_fn is None or config.filter_fn(name, module))

    made = {}
    for name, module in chosen(model, (nn.Conv2d, SubBitConv2d), ignore=config.ignore, filter_fn=fits).items():
        with check.of(name, f"leave the layer as it is with ignore=({name!r},)"):
            made[name] = SubBitConv2d(module, config)
    replace_(model, made)


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


def compact(model: nn.Module, example: torch.Tensor | None = None, *, engine: str = "dense") -> nn.Module:
    """A new network in which every sub-bit layer is ids, codebook and scales; its outputs are the same.

    The layers know all that is needed, so ``example`` is not looked at. ``engine`` is one of ``ENGINES``. ``ValueError`` if
    there is no sub-bit layer.
    """
    return replaced(model, SubBitConv2d, lambda name, layer: PackedConv2d(layer, engine), missing="call subbit_ first").eval()


def integer(model: nn.Module, convolve: Callable = reference) -> nn.Module:
    """A new network, of a compact one, whose sub-bit layers take int8 and sum whole numbers by ``convolve``."""
    return replaced(model, PackedConv2d, lambda name, layer: IntegerConv2d(copy.deepcopy(layer), convolve),
                    missing="call compact first").eval()


def stored_bits(model: nn.Module) -> dict[str, int]:
    """Bits of the packed layers of ``model``: ids, codebook, scales."""
    layers = [module.bits for module in model.modules() if isinstance(module, PackedConv2d)]
    return {key: sum(bits[key] for bits in layers) for key in ("ids", "codebook", "scales")}
