"""``compiled``: numba's ``njit``, whose machine code is kept for the next process.

Numba can keep machine code itself (``cache=True``), but not that of our kernels: it does not see that a function of another
file has changed, it takes two functions made by one factory for new ones each time, and two processes that write at once can
exchange their code. Here a file belongs to one function, with all the values it closes over, compiled for one processor from
these sources; it appears by one rename. Where numba keeps its own files (``NUMBA_CACHE_DIR``, else ``__pycache__``), these
lie in a folder named by the sources, and folders of other sources are removed.
"""

import contextlib
import hashlib
import os
import pickle
import shutil
import tempfile
from functools import cache, partial
from pathlib import Path
from types import FunctionType

import llvmlite
import numba
from numba.core import config
from numba.core.caching import CompileResultCacheImpl, NullCache
from numba.core.dispatcher import Dispatcher
from numba.core.serialize import dumps
from numba.core.types import Type
from numba.extending import _Intrinsic

from papernets_kernels import compiling


def compiled(function=None, *, fastmath: bool = False):
    """``function`` as a kernel: without the interpreter's lock, and compiled once for all processes of this machine."""
    if function is None:
        return partial(compiled, fastmath=fastmath)
    kernel = numba.njit(nogil=True, fastmath=fastmath)(function)
    with contextlib.suppress(RuntimeError):  # numba found no folder that it may write to
        kernel._cache = _Kept(function)
    return kernel


class _Kept(NullCache):
    """The machine code of one function, as numba asks for it and hands it over: a file for every signature."""

    busy = False  # a function is being compiled, with those that it calls

    def __init__(self, function: FunctionType):
        self._function, self._impl = function, CompileResultCacheImpl(function)
        self._begun: float | None = None
        self._folder = Path(self._impl.locator.get_cache_path()) / f"compiled-{_sources()}"

    def _file(self, signature, codegen) -> Path:
        made_from = _variant(self._function), str(signature), codegen.magic_tuple()
        return self._folder / f"{self._function.__name__}-{hashlib.sha256(repr(made_from).encode()).hexdigest()[:24]}.nbc"

    def load_overload(self, sig, target_context):
        target_context.refresh()
        try:
            return self._impl.rebuild(target_context, pickle.loads(self._file(sig, target_context.codegen()).read_bytes()))
        except (OSError, EOFError, pickle.UnpicklingError):  # not there, or cut off by a full disk
            self._begun = None if _Kept.busy else compiling.now()
            _Kept.busy = True
            return None

    def save_overload(self, sig, data):
        if self._begun is not None:  # it was not compiled for another one
            compiling.add(compiling.now() - self._begun)
            self._begun, _Kept.busy = None, False
        if not self._impl.check_cachable(data):
            return
        with contextlib.suppress(OSError):  # a kernel that cannot be kept is compiled again
            _begin(self._folder)
            file = self._file(sig, data.codegen)
            handle, part = tempfile.mkstemp(dir=self._folder, prefix="part-")
            try:
                with open(handle, "wb") as out:
                    out.write(dumps(self._impl.reduce(data)))
                os.replace(part, file)
            except BaseException:
                os.unlink(part)
                raise


@cache
def _sources() -> str:
    """A hash of every Python file of this package, of the compilers, and of how they were told to compile."""
    told = numba.__version__, llvmlite.__version__, config.OPT, config.BOUNDSCHECK, config.LOOP_VECTORIZE, config.SLP_VECTORIZE
    found = hashlib.sha256(repr(told).encode())
    package = Path(__file__).parent
    for file in sorted(package.rglob("*.py")):
        found.update(f"\n{file.relative_to(package)}\n".encode() + file.read_bytes())
    return found.hexdigest()[:16]


@cache
def _begin(folder: Path) -> None:
    """Make ``folder`` and remove those of other sources."""
    folder.mkdir(parents=True, exist_ok=True)
    for other in folder.parent.glob("compiled-*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)


def _variant(value):
    """What tells two functions of one place in the sources apart: the values they close over, and those of their kernels."""
    if isinstance(value, Dispatcher):
        return _variant(value.py_func)
    if isinstance(value, _Intrinsic):
        return _variant(value._defn)
    if isinstance(value, FunctionType):
        cells = [_variant(cell.cell_contents) for cell in value.__closure__ or ()]
        return value.__module__, value.__qualname__, value.__code__.co_firstlineno, cells, _variant(value.__defaults__)
    if isinstance(value, tuple):
        return [_variant(each) for each in value]
    if value is None or isinstance(value, str | bool | int | float | Type):
        return repr(value)
    raise TypeError(f"a compiled function closes over {value!r}; only numbers, texts, types and functions can be told apart")
