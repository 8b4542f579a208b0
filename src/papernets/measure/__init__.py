"""Measuring: parameters, multiply-accumulates and bits, seconds, reports of both, detections, labellings, and
differences between paired runs.
"""

from papernets.measure._count import (
    CONVENTIONS,
    Count,
    count,
    count_of,
    evaluating,
    macs,
    outline,
    parameters,
    size_of,
    stored_bits,
)
from papernets.measure._detection import average_precision, mean_average_precision, overlaps
from papernets.measure._paired import Difference, paired_difference
from papernets.measure._report import Cost, Report, cost, report
from papernets.measure._segmentation import mean_iou
from papernets.measure._timing import fastest, median_seconds, products, sparse_products, take_turns

__all__ = ["CONVENTIONS", "Cost", "Count", "Difference", "Report", "average_precision", "cost", "count", "count_of",
           "evaluating", "fastest", "macs", "mean_average_precision", "mean_iou", "median_seconds", "outline", "overlaps",
           "paired_difference", "parameters", "products", "report", "size_of", "sparse_products", "stored_bits", "take_turns"]
