"""The machine of a run: what it is, what it can do at best, and what it runs."""

import os
import platform
import time
from importlib import metadata
from pathlib import Path

_VERSIONS = ("numba", "numpy", "torch", "scipy", "faiss-cpu", "spconv")


def cores(count: int) -> list[int] | None:
    """``count`` cores this process may use, no two of them halves of one; None if it may not use so many."""
    if not hasattr(os, "sched_getaffinity"):  # no pinning on this system
        return list(range(count)) if count <= (os.cpu_count() or 1) else None
    chosen: dict[str, int] = {}
    for core in sorted(os.sched_getaffinity(0)):
        chosen.setdefault(_read(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list") or str(core), core)
    return list(chosen.values())[:count] if len(chosen) >= count else None


def busy(cores: list[int]) -> float | None:
    """Seconds since the start of the machine in which ``cores`` were at work for anyone; None where nobody counts."""
    names, found = {f"cpu{core}" for core in cores}, []
    for name, *ticks in (line.split() for line in _read("/proc/stat").splitlines()):
        if name in names:
            found.append(sum(map(int, ticks[:8])) - int(ticks[3]) - int(ticks[4]))  # all but idle and waiting
    return sum(found) / os.sysconf("SC_CLK_TCK") if found else None


class Watch:
    """How much of the time since it was made other programs kept ``cores`` at work."""

    def __init__(self, cores: list[int]):
        self.cores, self.begun, self.busy, self.mine = cores, time.perf_counter(), busy(cores), time.process_time()

    def others(self) -> float:
        """Their share, from 0 to 1; 0 where nobody counts."""
        if self.busy is None:
            return 0.0
        work = busy(self.cores) - self.busy - (time.process_time() - self.mine)
        return max(0.0, round(work / len(self.cores) / (time.perf_counter() - self.begun), 3))


def describe() -> dict:
    """Processor, caches, memory and versions; a package that is not installed has the version None."""
    from papernets_kernels import simd
    from threadpoolctl import threadpool_info
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for name in _VERSIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    blas = sorted({f"{pool['internal_api']} {pool['version']} {pool.get('architecture', '')}".strip()
                   for pool in threadpool_info() if pool["user_api"] == "blas"})
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    return {"processor": _processor(), "cores": os.cpu_count(), "caches": caches(), "memory": memory,
            "vector": 8 * simd.BYTES, "blas": blas, "versions": versions}


def caches() -> dict[str, int]:
    """Bytes of each cache for data that the first core has, by level; empty where the system does not tell."""
    found = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        size, kind = _read(folder / "size"), _read(folder / "type")
        if kind in ("Data", "Unified") and size[:-1].isdigit() and size[-1] in "KM":
            found[f"L{_read(folder / 'level')}"] = int(size[:-1]) * {"K": 2**10, "M": 2**20}[size[-1]]
    return found


def peaks() -> dict:
    """One thread: multiply-adds a second in float32 (``fma``) and in single bits (``popcount``), bytes a second.

    The bandwidth of a cache is read from a half of it; that of the memory from four times the largest, 128 MiB at least.
    """
    from papernets_kernels import roofline
    sizes = caches()
    bandwidth = {level: roofline.bandwidth(size // 2) for level, size in sizes.items() if level != "L1"}
    bandwidth["memory"] = roofline.bandwidth(max(2**27, 4 * max(sizes.values(), default=0)))
    return {"fma": roofline.fma_peak(), "popcount": roofline.popcount_peak(), "bandwidth": bandwidth}


def _processor() -> str:
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith(("model name", "Model")):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
