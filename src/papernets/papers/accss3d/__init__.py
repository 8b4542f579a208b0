"""AccSS3D: Accelerator for Spatially Sparse 3D DNNs."""

from papernets.papers.accss3d.accelerator import (
    Accelerator, CoreProduct, IntegerConv3d, PlannedLayer, integer_product, on_core, plan, quantised)
from papernets.papers.accss3d.layers import (
    KINDS, Cells, DenseConv3d, NormReLU, Scene, SparseConv3d, Voxels, sparse_convolution, step)
from papernets.papers.accss3d.method import (
    CENTRE, CONV_ENERGY, CONV_SPEEDUP, E2E_ENERGY, E2E_SPEEDUP, FLOWS, L1, ORDERS, PLANES, TILES, Dataflow, FlowTable, Lines,
    blocks, dataflow, implied_share, index_bits, least_traffic, metadata, mirrored, misses, normal, optimise, order,
    output_lines, pairs_of, reading, renumbered, reuse, statistics_key, tangent_order, touches, turned)
