"""Measuring: parameters, multiply-accumulates and bits, seconds, reports of both, and differences between paired runs."""

from papernets.measure._count import CONVENTIONS, Count, count, macs, parameters, stored_bits
from papernets.measure._paired import Difference, paired_difference
from papernets.measure._report import Cost, Report, cost, report
from papernets.measure._timing import fastest, median_seconds, products, sparse_products, take_turns

__all__ = ["CONVENTIONS", "Cost", "Count", "Difference", "Report", "cost", "count", "fastest", "macs", "median_seconds",
           "paired_difference", "parameters", "products", "report", "sparse_products", "stored_bits", "take_turns"]
