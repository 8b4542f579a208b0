"""The answers to the card of AccSS3D."""

import functools
from collections.abc import Mapping, Sequence

import numpy as np
from papernets_kernels.sparse_conv3d import Rulebook, rulebook

from papernets.data import corner_room
from papernets.papers.accss3d.accelerator import Accelerator
from papernets.papers.accss3d.experiment import memory_bits
from papernets.papers.accss3d.method import least_traffic, metadata, optimise, reading, touches
from papernets.training import pair

#: (ours, baseline) of a miniature over the seeds, by its id.
Records = dict[str, tuple[list[float], list[float]]]


@functools.cache
def corner_book() -> Rulebook:
    return rulebook(corner_room().coordinates)


def facts(cycles: Mapping[str, int]) -> dict[str, float]:
    """Every exact number of the card, by the id of its claim; ``cycles`` are those of the simulated core."""
    book, one = corner_book(), corner_room()
    size = metadata(book.outputs, book.pairs)
    found: dict[str, float] = {
        "scene.voxels": len(one), "scene.pairs": book.pairs, "scene.density": 100 * one.density, "scene.arf": book.arf,
        "macs.sparse": book.pairs * 32 * 32, "macs.dense": one.grid**3 * 27 * 32 * 32,
        "macs.ratio": 27 * one.grid**3 / book.pairs,
        "macs.ratio_full": 27 * 64**3 / rulebook(np.argwhere(np.ones((64, 64, 64)))).pairs,
        "metadata.lines": size["lines"], "metadata.pairs": size["pairs"], "metadata.ratio": size["pairs"] / size["lines"],
        "metadata.lines_bytes": size["lines_bytes"], "metadata.pairs_bytes": size["pairs_bytes"],
        "metadata.ratio_bytes": size["pairs_bytes"] / size["lines_bytes"],
    }
    names = {"random": "random", "raster": "raster", "Morton": "morton", "chunks": "bfs", "filled": "filled"}
    reads = {name: touches(book, name) for name in names}
    for name, short in names.items():
        found |= {f"reuse.t{T}.{short}": reads[name][T] / book.outputs for T in (64, 128, 256, 1024)}
        if name != "random":
            found[f"reuse.t128.{short}_total"] = reads[name][128]
        best = optimise(book.outputs, reads[name], 32, 32)
        found[f"traffic.ws.{short}"] = best.bytes if best.flow == "WS" else float("nan")
    best = optimise(book.outputs, reads["chunks"], 32, 32)
    for flow in ("OS", "IS"):
        found[f"traffic.{flow.lower()}.bfs"] = optimise(book.outputs, reads["chunks"], 32, 32, flows=(flow,)).bytes
    core = Accelerator(inputs=64, outputs=64, pairs=1024).core()
    return reading() | found | {
        "traffic.bound": least_traffic(book.outputs, 32, 32), "traffic.tile": best.T,
        "traffic.gain_random": found["traffic.ws.random"] / best.bytes,
        "traffic.gain_raster": found["traffic.ws.raster"] / best.bytes,
        **{f"rtl.{name}": count for name, count in cycles.items()},
        "rtl.memory": sum(memory_bits(core).values()), "rtl.scene": book.pairs * 32 * 32 // core.lanes,
    }


def order_records(rows: Sequence[Mapping]) -> Records:
    """Of rows of ``compare_orders``: inputs per output, bytes and misses, over the seeds."""
    reuse = {f"order.reuse_{other.lower()}": pair(rows, "chunks", other) for other in ("random", "raster", "Morton")}
    return reuse | {f"order.{key}": pair(rows, "chunks", "raster", key=key) for key in ("bytes", "misses")}


def network_records(rows: Sequence[Mapping]) -> Records:
    """Of rows of ``compare_networks``: points of mean IoU, and multiply-accumulates, over the seeds."""
    return {"unet.majority": pair(rows, "sparse", "majority", scale=100),
            "unet.dense": pair(rows, "sparse", "dense", scale=100), "unet.macs": pair(rows, "sparse", "dense", key="macs")}


def time_records(races: Sequence[Mapping[str, float]]) -> Records:
    """Of ``race`` for each seed: milliseconds."""
    return {"sparse.time": tuple([1e3 * race[name] for race in races] for name in ("sparse", "dense"))}
