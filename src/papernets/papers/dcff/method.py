"""Training Compact CNNs for Image Classification using Dynamic-coded Filter Fusion (DCFF).

Mingbao Lin, Bohong Chen, Fei Chao, Rongrong Ji; arXiv 2107.06916, 2021. Code: https://github.com/lmbxmu/DCFF

The narrow network is trained from scratch. A layer of m filters keeps the weights of the wide layer's C filters, and at
the start of every epoch each of its m filters becomes a fixed blend of all C. A temperature that grows over the epochs
sharpens the blend until it is a selection. What is exported at the end is an ordinary narrow network.

Symbols: W the C wide filters, D their distances, P the filter proxies, I the importance, m = C(1 - r) the kept width,
S the kept filters, Φ = P[S] the fusion matrix, T the temperature (it multiplies the distances; the authors' code divides
by t = 1/T).

Differs: the importance is computed from log-probabilities, which stay finite at every T. The authors' code divides
    float32 probabilities; at T of some hundred they underflow to 0 and 0·log 0 is NaN, so the importance of epoch 0 is
    kept for ever. ``DCFF(stable=False)`` does as the code does.
Differs: a filter that stays in S keeps its place in the narrow layer, and one that comes in takes the place of one that
    left; ties go to the lower index. The code takes S in whatever order ``topk`` returns. If the order changes between
    epochs, the channels are shuffled under the batch norm and under the next layer, and training starts over.
Differs: distances are computed in float64 by explicit differences, so equal filters have distance exactly 0.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from papernets import check
from papernets.nn import chosen, conv_like, replace_, replaced, rounded, surgery

# ---------------------------------------------------------------------------------------------------------------------
# Functions on tensors
# ---------------------------------------------------------------------------------------------------------------------


def distances(weight: torch.Tensor, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """D (C, C): Euclidean distances between the C filters of ``weight`` (C, …), D_jk = ‖w_j - w_k‖.

    ``ValueError`` if a weight is not finite.
    """
    rows = check.finite("weight", weight, "distances need finite weights").detach().flatten(1).to(dtype)  # (C, c·k·k)
    return torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")


def log_proxy(D: torch.Tensor, T: float) -> torch.Tensor:
    """log P (C, C), where P_jk = exp(-T·D_jk) / Σ_g exp(-T·D_jg). Finite for every T in [0, ∞); others are a ``ValueError``."""
    if not 0 <= T < math.inf:
        raise ValueError(f"temperature {T} is outside [0, ∞); the nearest is 0")
    return torch.log_softmax(-T * D, dim=1)


def proxy(D: torch.Tensor, T: float) -> torch.Tensor:
    """P (C, C): row j says how alike filter j is to every other. Rows sum to 1; the diagonal is each row's maximum."""
    return log_proxy(D, T).exp()


def importance(D: torch.Tensor, T: float) -> torch.Tensor:
    """I (C,): how unlike all others each filter's proxy is, I_j = Σ_k (1/C) Σ_g P_jg (log P_jg - log P_kg).

    The sum over k goes inside: I_j = Σ_g P_jg (log P_jg - mean_k log P_kg), which needs C² memory and not C³.
    As T → ∞ it tends to (T/C)·Σ_k D_jk: the filters farthest from all others are kept.
    """
    log_p = log_proxy(D, T)
    return (log_p.exp() * (log_p - log_p.mean(0, keepdim=True))).sum(1)


def importance_of_code(D: torch.Tensor, T: float, eps: float = 1e-7) -> torch.Tensor:
    """I (C,) as the authors' code computes it, in the precision of ``D``: NaN as soon as a probability underflows."""
    P = torch.softmax(-D * T, dim=1)
    C = len(P)
    return torch.stack([(P[j] * torch.log(P[j] / (P + eps))).sum(1).div(C).sum() for j in range(C)])


def select(I: torch.Tensor, m: int) -> torch.Tensor:
    """S (m,): the indices of the m largest of the C importances ``I`` (C,), ascending; ties go to the lower index.

    ``ValueError`` if m is not a whole number from 1 to C.
    """
    check.whole("number of kept filters", m, 1, len(I))
    return torch.sort(torch.sort(I, descending=True, stable=True).indices[:m]).values


def places(before: torch.Tensor, S: torch.Tensor) -> torch.Tensor:
    """The filters of ``S`` (m,) in an order in which those that were in ``before`` (m,) keep their places."""
    stays = torch.isin(before, S)
    ordered = before.clone()
    ordered[~stays] = S[~torch.isin(S, before)]
    return ordered


def fuse(weight: torch.Tensor, phi: torch.Tensor) -> torch.Tensor:
    """W̃ (m, …) = Φ (m, C) applied to the C filters (or biases) of ``weight`` (C, …)."""
    return (phi @ weight.flatten(1)).view(len(phi), *weight.shape[1:])


def temperature(epoch: float, epochs: float, T_s: float = 1.0, T_e: float = 1e4, growth: float = 1.0) -> float:
    """T at ``epoch`` of ``epochs``: from T_s at 0 to T_e at the end along half a sigmoid of slope ``growth`` (κ).

    With κ = 1, the value of the authors' code, T is 4622 at epoch 1: the blend is a selection almost at once. ``ValueError``
    if there are no epochs, if ``epoch`` is none of them, or if κ is so small that the schedule is a flat line.
    """
    check.above("epochs", epochs, 20)
    if not 0 <= epoch <= epochs:
        raise ValueError(f"epoch {epoch} is outside 0 to {epochs}")
    whole = math.tanh(growth * epochs / 2)
    if not whole > 0:
        raise ValueError(f"growth {growth} over {epochs} epochs is too small to tell from 0; the paper's is 1")
    # A/(1 + exp(-κe)) - A/2 = (A/2)·tanh(κe/2), and A/2 = (T_e - T_s)/tanh(κE/2): no exponential can overflow
    return T_s + (T_e - T_s) * math.tanh(growth * epoch / 2) / whole


@check.renamed(rate="removed")
def kept_width(C: int, removed: float, guarded: bool = False) -> int:
    """m = ⌊C(1 - r)⌋ of the share r = ``removed``, the float product taken as it is, as the authors' code does.

    So 160 filters without a share of 0.8 are 31, because 160·(1 - 0.8) is a little below 32 in floating point; the published
    networks have those widths. ``guarded`` adds 1e-9 before the floor and gives 32. ``ValueError`` if r is outside [0, 1), or
    if no filter is left.
    """
    highest = next(r / 1000 for r in range(999, -1, -1) if C * (1 - r / 1000) >= 1)  # of three digits
    check.share("removed", removed, step=1 - highest)
    m = math.floor(C * (1 - removed) + (1e-9 if guarded else 0))
    if m < 1:
        raise ValueError(f"removed leaves no filter: {C} filters without a share of {removed} are {m}; "
                         f"the highest share of three digits that keeps one is {highest:g}")
    return m

# ---------------------------------------------------------------------------------------------------------------------
# The layer
# ---------------------------------------------------------------------------------------------------------------------


@check.renamed(rate="removed")
@dataclass(frozen=True)
class DCFF:
    """How a network is narrowed and fused; the defaults are the paper's.

    ``removed`` is the share of filters that goes, the paper's pruning rate r: one, or one per layer name. ``growth`` is κ of
    the schedule, or ``"slow"`` for κ = 10/E, which spreads the sharpening over all E epochs (not the paper's). ``random``
    keeps random filters instead of the most important: a baseline. ``round_to`` makes widths multiples of a number, such as
    those of a vector register; ``filter_fn(name, module)`` and ``ignore`` leave layers out. ``stable=False`` computes the
    importance as the authors' code does, with ``score_eps`` in its logarithm; ``guarded`` is that of ``kept_width``.
    ``ValueError`` for a share outside [0, 1), and for temperatures, a growth or a multiple that cannot be.
    """

    removed: float | Mapping[str, float] = 0.5
    T_s: float = 1.0
    T_e: float = 1e4
    growth: float | str = 1.0
    stable: bool = True
    score_eps: float = 1e-7
    guarded: bool = False
    ignore: tuple[str, ...] = ()
    random: bool = False
    round_to: int = 1
    filter_fn: Callable[[str, nn.Module], bool] | None = None

    def __post_init__(self):
        rounded(1, self.round_to, 1)
        if not 0 < self.T_s <= self.T_e < math.inf:
            raise ValueError(f"temperatures T_s = {self.T_s}, T_e = {self.T_e} must satisfy 0 < T_s ≤ T_e")
        if self.growth != "slow" and not (isinstance(self.growth, int | float) and 0 < self.growth < math.inf):
            raise ValueError(f"growth is {self.growth!r}; it is a number above 0 or 'slow'")
        each = self.removed if isinstance(self.removed, Mapping) else {"": self.removed}
        for name, share in each.items():
            check.share(f"removed[{name!r}]" if name else "removed", share)

    def temperature(self, epoch: float, epochs: float) -> float:
        """T at ``epoch`` of ``epochs``."""
        growth = 10 / epochs if self.growth == "slow" else self.growth
        return temperature(epoch, epochs, self.T_s, self.T_e, growth)


class FusedConv2d(nn.Module):
    """A convolution of m filters, each a blend Φ of C wide ones. Only W and b are trained; Φ is fixed within an epoch.

    ``weight`` (C, c, k, k) and ``bias`` (C,) are the wide layer's; ``phi`` (m, C), ``score`` (C,) and ``kept`` (m,) are
    buffers and travel in the ``state_dict``. The gradient reaches every wide filter: dL/dW = Φᵀ dL/dW̃.

    It is made from the ``narrow`` convolution in whose place it stands and from C = ``full``. ``ValueError`` if that has
    groups, another padding than zeros, or more than ``full`` filters.
    """

    def __init__(self, narrow: nn.Conv2d, full: int, config: DCFF = DCFF()):
        super().__init__()
        if narrow.groups != 1:
            raise ValueError(f"a convolution of {narrow.groups} groups cannot be fused; fusion is defined for 1 group")
        if narrow.padding_mode != "zeros":
            raise ValueError(f"padding_mode {narrow.padding_mode!r} is not supported; use 'zeros'")
        m = narrow.out_channels
        if not 1 <= m <= full:
            raise ValueError(f"{m} filters cannot be blended from {full}; full must be at least {m}")
        self.config = config
        self.in_channels, self.out_channels, self.kernel_size = narrow.in_channels, m, narrow.kernel_size
        self.stride, self.padding, self.dilation = narrow.stride, narrow.padding, narrow.dilation
        self.padding_mode = narrow.padding_mode
        like = {"device": narrow.weight.device, "dtype": narrow.weight.dtype}
        self.weight = nn.Parameter(torch.empty(full, *narrow.weight.shape[1:], **like))
        self.bias = nn.Parameter(torch.empty(full, **like)) if narrow.bias is not None else None
        self.register_buffer("phi", torch.zeros(m, full, **like))
        self.register_buffer("score", torch.zeros(full, device=like["device"], dtype=torch.float64))
        self.register_buffer("kept", torch.full((m,), -1, device=like["device"]))
        order = torch.randperm(full, device=like["device"]) if config.random else None
        self.register_buffer("random_order", order)  # of the baseline that keeps filters by chance
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The framework's own initialisation of a convolution, and the blend that belongs to it at T_s."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight[0].numel())
            nn.init.uniform_(self.bias, -bound, bound)
        self.restart()

    def restart(self) -> None:
        """Forget which filters were kept, and choose and blend anew at T_s. For weights that were just set."""
        if self.weight.device.type != "meta":
            self.kept.fill_(-1)
            self.refresh(self.config.T_s)

    @torch.no_grad()
    def refresh(self, T: float) -> bool:
        """New importance, selection and blend at temperature T; false if the importance was not finite and was kept."""
        config, m = self.config, len(self.phi)
        if config.stable:
            D = distances(self.weight)
            score = importance(D, T)
        else:
            D = distances(self.weight, torch.float32)
            score = importance_of_code(D, T, config.score_eps)
        finite = bool(torch.isfinite(score).all())
        if finite:
            self.score.copy_(score)
        S = select(self.score, m) if self.random_order is None else torch.sort(self.random_order[:m]).values
        self.kept.copy_(places(self.kept, S))
        self.phi.copy_(proxy(D, T)[self.kept])  # (m, C)
        return finite

    def fused(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """W̃ (m, c, k, k) and b̃ (m,)."""
        return fuse(self.weight, self.phi), None if self.bias is None else self.phi @ self.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self.fused()
        return functional.conv2d(x, weight, bias, self.stride, self.padding, self.dilation)  # (B, m, h, w)

    def macs_of(self, x: torch.Tensor, y: torch.Tensor, convention: str) -> int:
        """At inference it costs what the narrow convolution costs."""
        return y.numel() * (self.weight[0].numel() + (convention == "thop" and self.bias is not None))

    def to_conv(self) -> nn.Conv2d:
        """The ordinary convolution of m filters with the same outputs."""
        conv, (weight, bias) = conv_like(self), self.fused()
        conv.load_state_dict({"weight": weight.detach()} | ({} if bias is None else {"bias": bias.detach()}))
        return conv

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels} of {len(self.weight)}, kernel_size={self.kernel_size}"

# ---------------------------------------------------------------------------------------------------------------------
# The verbs
# ---------------------------------------------------------------------------------------------------------------------


def fuse_(model: nn.Module, config: DCFF = DCFF(), example: torch.Tensor | None = None) -> None:
    """Turn a wide ``model`` in place into a narrow one whose convolutions are blends of the wide filters.

    ``example`` is an input; it is used to follow the channels through residual, concatenated and depthwise paths. Every
    convolution of one group is narrowed and fused, but for those in ``config.ignore``; convolutions whose outputs are
    added need the same share; depthwise ones follow their input. Weights start anew, as in the paper: build the optimiser
    afterwards. ``ValueError``, with the network unchanged, if there is no example, if the shares do not fit together, or if
    the network's own outputs would change shape.

    >>> model = ConvNet()
    >>> fuse_(model, DCFF(removed=0.5), torch.zeros(1, 3, 32, 32))
    """
    if example is None:
        raise ValueError("example is missing; give one input of the network, such as torch.zeros(1, 3, 224, 224)")
    layers = chosen(model, nn.Conv2d, ignore=config.ignore, filter_fn=lambda name, module: module.groups == 1 and (
        config.filter_fn is None or config.filter_fn(name, module)))
    full = {name: module.out_channels for name, module in layers.items()}
    shares = _shares(model, config, full)
    widths = {name: rounded(kept_width(full[name], share, config.guarded), config.round_to, full[name])
              for name, share in shares.items()}
    kept = {name: torch.arange(width) for name, width in widths.items()}
    narrow = surgery.keep_filters(model, kept, example)
    fuse_narrow_(narrow, {name: full[name] for name in shares}, config)
    model.__dict__.update(narrow.__dict__)  # the copy is whole: only now is the model itself changed


def _shares(model: nn.Module, config: DCFF, full: Mapping[str, int]) -> dict[str, float]:
    """The share that goes from each layer to be fused, by name."""
    if not isinstance(config.removed, Mapping):
        return dict.fromkeys(full, config.removed)
    modules = dict(model.named_modules())
    for name in config.removed:
        module = modules.get(name)
        if isinstance(module, nn.Conv2d) and module.groups != 1:
            raise ValueError(f"{name} has {module.groups} groups and cannot be fused; fusion is defined for 1 group")
        if name not in full:
            raise ValueError(f"{name!r} is no convolution to fuse; choose from {', '.join(full)}")
    return dict(config.removed)


def fuse_narrow_(model: nn.Module, full: Mapping[str, int], config: DCFF = DCFF()) -> None:
    """Replace convolutions of an already narrow ``model``, by name, with blends of ``full[name]`` wide filters each.

    ``ValueError``, with the network unchanged, if a name is none of a convolution, or one cannot be a blend.
    """
    modules = dict(model.named_modules())
    fused = {}
    for name, C in full.items():
        if not isinstance(modules.get(name), nn.Conv2d):
            raise ValueError(f"{name!r} is no convolution of this network")
        fused[name] = FusedConv2d(modules[name], C, config)
    replace_(model, fused)


def refresh_(model: nn.Module, epoch: float, epochs: float) -> float:
    """Do this at the start of every epoch: new proxies, importances, selections and blends. Returns the temperature.

    ``ValueError`` if no layer is fused, or if ``epoch`` is outside 0 to ``epochs``.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, FusedConv2d)}
    if not layers:
        raise ValueError("this network has no fused convolution; call fuse_ first")
    T, stale = 0.0, []
    for name, layer in layers.items():
        T = layer.config.temperature(epoch, epochs)
        if not layer.refresh(T):
            stale.append(name)
    if stale:
        warnings.warn(f"importance is not finite at T = {T:.4g} in {len(stale)} of {len(layers)} layers; "
                      "the last finite one is kept", RuntimeWarning, stacklevel=2)
    return T


def compact(model: nn.Module, example: torch.Tensor | None = None) -> nn.Module:
    """A new, ordinary, narrow network with the same outputs: every blend becomes a convolution of its own.

    ``example`` is not needed: layers know what they are. ``ValueError`` if no layer is fused.
    """
    return replaced(model, FusedConv2d, lambda name, layer: layer.to_conv(), missing="call fuse_ first")
