"""Measuring: the kernels against the fastest peers, the engines that simulate a core, and the pages with the last runs."""

from papernets.bench import text
from papernets.bench._hdl import bench_hdl, faults, hdl_file, save_hdl
from papernets.bench._hdl_page import hardware_part
from papernets.bench._imports import bench_imports, import_row
from papernets.bench._page import kernels_part
from papernets.bench._run import BenchError, bench_kernels, errors, kernels_file, save

#: What can be measured, and in a few words what that is.
BENCHMARKS = {"kernels": "the CPU kernels against torch, numpy, scipy, faiss and spconv",
              "hdl": "the two engines that simulate a core, and what each core takes",
              "imports": "what importing a method costs beside torch alone"}

__all__ = ["BENCHMARKS", "BenchError", "bench_hdl", "bench_imports", "bench_kernels", "errors", "faults", "hardware_part",
           "hdl_file", "import_row", "kernels_file", "kernels_part", "save", "save_hdl", "text"]
