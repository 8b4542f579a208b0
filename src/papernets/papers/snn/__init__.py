"""Sub-bit Neural Networks: Learning to Compress and Accelerate Binary Neural Networks (SNN)."""

from papernets.papers.snn.layers import (
    ENGINES, SNN, ExportedConv2d, IntegerConv2d, SubBitConv2d, adam, export, integer, on_core, reference, settle_, stored_bits,
    subbit_)
from papernets.papers.snn.method import (
    ALL, binarise, codes, count_of, most_frequent, patterns, project, reading, remember, sample, scales, settle, shared_conv2d,
    straight_through)
