"""Measuring the kernels against the fastest peers: ``papernets bench kernels``, and the page that shows its last run."""

from papernets.bench import text
from papernets.bench._page import kernels_part
from papernets.bench._run import BenchError, bench_kernels, cleaned, errors, kernels_file, save

#: What can be measured, and in a few words what that is.
BENCHMARKS = {"kernels": "the CPU kernels against torch, numpy, scipy, faiss and spconv"}

__all__ = ["BENCHMARKS", "BenchError", "bench_kernels", "cleaned", "errors", "kernels_file", "kernels_part", "save", "text"]
