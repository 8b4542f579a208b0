"""Arrays that end, or start, at a page which nobody may touch: a kernel that reads or writes outside is stopped on the spot.

While ``guarded`` is open, every array that numpy allocates lies in pages of its own, flush against a page without access,
through numpy's own hook for allocators (NEP 49). Linux.
"""

import ctypes
import mmap
from contextlib import contextmanager

import numpy as np

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
PAGE = mmap.PAGESIZE

_P, _N = ctypes.c_void_p, ctypes.c_size_t
_MALLOC, _CALLOC = ctypes.CFUNCTYPE(_P, _P, _N), ctypes.CFUNCTYPE(_P, _P, _N, _N)
_REALLOC, _FREE = ctypes.CFUNCTYPE(_P, _P, _P, _N), ctypes.CFUNCTYPE(None, _P, _P, _N)


class _Handler(ctypes.Structure):
    """``PyDataMem_Handler`` of numpy's C interface."""

    _fields_ = [
        ("name", ctypes.c_char * 127),
        ("version", ctypes.c_uint8),
        ("context", _P),
        ("malloc", _MALLOC),
        ("calloc", _CALLOC),
        ("realloc", _REALLOC),
        ("free", _FREE),
    ]


_SET_HANDLER = 304  # place of PyDataMem_SetHandler in numpy's table of C functions, part of its stable interface
_kept = []  # numpy frees arrays through their handler, maybe after the block has ended
_blocks = {}  # address of the data -> (address, bytes) of its pages, and its size


def _allocate(size: int, side: str) -> int:
    inner = -(-max(size, 1) // PAGE) * PAGE
    start = _LIBC.mmap(None, inner + 2 * PAGE, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    assert start not in (None, _P(-1).value), "no memory"
    for page in (start, start + PAGE + inner):
        assert _LIBC.mprotect(page, PAGE, 0) == 0
    address = start + PAGE + (inner - size if side == "end" else 0)
    _blocks[address] = (start, inner + 2 * PAGE), size
    return address


def _free(address: int) -> None:
    _LIBC.munmap(*_blocks.pop(address)[0])


def _handler(side: str):
    def malloc(context, size):
        address = _allocate(size, side)
        ctypes.memset(address, 0xFF, size)  # NaN, or -1: what is read before it is written shows
        return address

    def realloc(context, old, size):
        address = malloc(context, size)
        if old:
            ctypes.memmove(address, old, min(size, _blocks[old][1]))
            _free(old)
        return address

    return _Handler(
        b"papernets guard",
        1,
        None,
        _MALLOC(malloc),
        _CALLOC(lambda _, count, each: _allocate(count * each, side)),
        _REALLOC(realloc),
        _FREE(lambda _, address, size: address and _free(address)),
    )


@contextmanager
def guarded(side: str):
    """Arrays of numpy that are made inside the block end ("end") or start ("start") at a page without access."""
    capsule = ctypes.pythonapi.PyCapsule_GetPointer
    capsule.restype, capsule.argtypes = ctypes.POINTER(_P), [ctypes.py_object, ctypes.c_char_p]
    table = capsule(np._core._multiarray_umath._ARRAY_API, None)
    set_handler = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(table[_SET_HANDLER])
    make = ctypes.pythonapi.PyCapsule_New
    make.restype, make.argtypes = ctypes.py_object, [_P, ctypes.c_char_p, _P]
    _kept.append(handler := _handler(side))
    before = set_handler(make(ctypes.addressof(handler), b"mem_handler", None))
    try:
        yield
    finally:
        set_handler(before)
