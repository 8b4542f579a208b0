"""A network on the accelerator of AccSS3D: cycles by the law, sums by the core."""

import copy
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from papernets_kernels.hdl import sspnna_host
from papernets_kernels.hdl.sspnna import SSpNNA
from papernets_kernels.sparse_conv3d import Rulebook
from torch import nn

from papernets.papers.accss3d.layers import SparseConv3d, Voxels, step
from papernets.papers.accss3d.method import L1, ORDERS, Dataflow, optimise, order, touches
from papernets.papers.accss3d.networks import UNet


@dataclass(frozen=True)
class Accelerator:
    """Sizes of the accelerator that a network is planned for. All are ours; the abstract gives 64 KB, 1 GHz and 0.92 mm².

    A tile of the core has at most ``outputs`` outputs, ``inputs`` distinct inputs and ``pairs`` pairs; ``pages``, ``planes``
    and ``rows`` are the options of the core; ``order`` is that of the voxels.
    """

    buffer: int = L1
    lanes: int = 8
    channels: int = 8
    inputs: int = 256
    outputs: int = 128
    pairs: int = 2048
    pages: int = 1
    planes: int = 1
    rows: int = 1
    order: str = "chunks"

    def __post_init__(self):
        if self.order not in ORDERS:
            raise ValueError(f"no order {self.order!r}; choose from {', '.join(ORDERS)}")
        self.core()

    def cut(self, book: Rulebook) -> sspnna_host.Schedule:
        """A rulebook in tiles for the core; the voxels of a submanifold one in ``order``."""
        by = order(self.order, book, self.outputs) if book.submanifold else None
        return sspnna_host.schedule(self.core(), book, by)

    def core(self) -> SSpNNA:
        return _core(self.lanes, self.channels, self.inputs, self.outputs, self.pairs, self.pages, self.planes, self.rows)


@functools.lru_cache(maxsize=16)
def _core(lanes, channels, inputs, outputs, pairs, pages, planes, rows) -> SSpNNA:
    return SSpNNA(lanes, channels, inputs, outputs, pairs, pages=pages, planes=planes, rows=rows)


@dataclass(frozen=True, eq=False)
class PlannedLayer:
    """One layer on the accelerator: its sizes, what it costs, and how it is cut for the core.

    ``flow`` is the optimiser's choice; only submanifold layers, whose tiles it knows, have one.
    """

    name: str
    kind: str
    C: int
    K: int
    schedule: sspnna_host.Schedule
    flow: Dataflow | None

    @property
    def macs(self) -> int:
        return self.schedule.book.pairs * self.C * self.K

    @property
    def cycles(self) -> int:
        return self.schedule.cycles(self.C, self.K)

    @property
    def utilisation(self) -> float:
        return self.schedule.utilisation(self.C, self.K)


def plan(model: UNet, rows: torch.Tensor, accelerator: Accelerator = Accelerator()) -> list[PlannedLayer]:
    """Every sparse convolution of ``model`` for the input ``rows``, on the accelerator: dataflow, tiles and cycles."""
    found, cuts, reads = [], {}, {}
    for name, module, x, _ in _sparse_layers(model, rows):
        book, _ = step(x.scene, module.kind)
        C, K = module.weight.shape[1:]
        if book not in cuts:  # layers may share a rulebook
            cuts[book] = accelerator.cut(book)
            reads[book] = touches(book, accelerator.order) if book.submanifold else None
        flow = reads[book] and optimise(book.outputs, reads[book], C, K, accelerator.buffer)
        found.append(PlannedLayer(name, module.kind, C, K, cuts[book], flow))
    return found


@torch.no_grad()
def _sparse_layers(model: nn.Module, rows: torch.Tensor) -> list[tuple[str, SparseConv3d, Voxels, Voxels]]:
    """(name, layer, its input, its output) of every sparse convolution, in the order in which they run."""
    found, handles = [], []
    for name, module in model.named_modules():
        if isinstance(module, SparseConv3d):
            handles.append(module.register_forward_hook(
                lambda module, inputs, output, name=name: found.append((name, module, inputs[0], output))))
    was = model.training
    try:
        model.eval()
        model(rows)
    finally:
        model.train(was)
        for handle in handles:
            handle.remove()
    if not found:
        raise ValueError("this network has no sparse convolution; a dense one has nothing to plan")
    return found


def integer_product(features: np.ndarray, book: Rulebook, weight: np.ndarray) -> np.ndarray:
    """The sums (outputs, K) int64 of int8 ``features`` (inputs, C) and ``weight`` (planes, C, K): the reference."""
    sums = np.zeros((book.outputs, weight.shape[2]), np.int64)
    for k in range(len(weight)):
        part = slice(book.plane_pointers[k], book.plane_pointers[k + 1])
        products = features[book.pair_inputs[part]].astype(np.float64) @ weight[k].astype(np.float64)  # exact: below 2^53
        np.add.at(sums, book.pair_outputs[part], products.astype(np.int64))
    return sums


@dataclass(eq=False)
class CoreProduct:
    """The product on the simulated core, whole layers at a time. ``log`` takes (pairs, C, K, cycles, cycles by the law)."""

    accelerator: Accelerator = field(default_factory=Accelerator)
    engine: str = "fastest"
    log: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    cuts: dict[Rulebook, sspnna_host.Schedule] = field(default_factory=dict, repr=False)

    def __call__(self, features: np.ndarray, book: Rulebook, weight: np.ndarray) -> np.ndarray:
        if book not in self.cuts:
            self.cuts[book] = self.accelerator.cut(book)
        cut = self.cuts[book]
        outputs, found, cycles = sspnna_host.run_tiles(cut, features, weight, engine=self.engine)
        sums = np.zeros_like(found)
        sums[outputs] = found
        self.log.append((book.pairs, *weight.shape[1:], sum(cycles), cut.cycles(*weight.shape[1:])))
        return sums


class IntegerConv3d(nn.Module):
    """A sparse convolution in 8 bits: features and weights are rounded to int8, the sums are exact, and then scaled back.

    Features have one scale for the layer, weights one for each output channel. ``product`` computes the sums.
    """

    def __init__(self, layer: SparseConv3d, largest: float):
        super().__init__()
        if not 0 < largest < math.inf:
            raise ValueError(f"the largest feature is {largest}; a scale needs a finite number above 0")
        self.kind = layer.kind
        weight = layer.weight.detach()
        scale = weight.abs().amax((0, 1)).clamp(min=1e-12) / 127  # (K,)
        self.register_buffer("scale", torch.tensor(largest / 127))
        self.register_buffer("weight_scale", scale)
        self.register_buffer("weight", torch.round(weight / scale).to(torch.int8))
        self.product: Callable = integer_product
        self.sums: np.ndarray | None = None

    def forward(self, x: Voxels) -> Voxels:
        book, scene = step(x.scene, self.kind)
        whole = torch.round(x.features / self.scale).clamp(-127, 127).to(torch.int8)
        self.sums = self.product(whole.numpy(), book, self.weight.numpy())
        return Voxels(torch.from_numpy(self.sums).float() * (self.scale * self.weight_scale), scene)


def quantised(model: UNet, rows: torch.Tensor) -> UNet:
    """A copy of a sparse U-Net whose convolutions compute in 8 bits, with scales from the features that ``rows`` make.

    Batch norm, ReLU and the last linear layer stay in floats.
    """
    layers = [(name, module, float(x.features.abs().max())) for name, module, x, _ in _sparse_layers(model, rows)]
    found = copy.deepcopy(model).eval()
    for name, module, largest in layers:
        found.set_submodule(name, IntegerConv3d(module, largest))
    return found


def on_core(model: UNet, product: Callable) -> UNet:
    """A copy of a quantised network whose convolutions use ``product``, such as a ``CoreProduct``."""
    found = copy.deepcopy(model)
    layers = [module for module in found.modules() if isinstance(module, IntegerConv3d)]
    if not layers:
        raise ValueError("this network has no integer convolution; call quantised() first")
    for module in layers:
        module.product = product
    return found
