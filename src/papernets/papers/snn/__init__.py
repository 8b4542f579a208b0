"""Sub-bit Neural Networks: Learning to Compress and Accelerate Binary Neural Networks (SNN)."""

from papernets.papers.snn.layers import (
    ENGINES, SNN, IntegerConv2d, PackedConv2d, SubBitConv2d, adam, compact, integer, on_core, reference, settle_, stored_bits,
    subbit_)
from papernets.papers.snn.method import (
    ALL, binarise, codes, most_frequent, patterns, project, reading, remember, sample, scales, settle, shared_conv2d,
    straight_through, subset_size)
