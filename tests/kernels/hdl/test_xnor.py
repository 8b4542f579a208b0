"""The core that counts bits: random products on both engines, and the kernel of the same product."""

import re

import numpy as np
import pytest
from hdl_checks import ENGINES, SEARCH
from hypothesis import given
from hypothesis import strategies as st
from papernets_kernels import binary
from papernets_kernels.hdl import golden, simulate, xnor
from papernets_kernels.hdl.xnor import Product, Xnor

pytestmark = pytest.mark.xdist_group("hdl-products")

CORES = {lanes: Xnor(lanes, rows=30, columns=24) for lanes in (1, 3, 8)}
EVERY = pytest.mark.parametrize("core", CORES.values(), ids=CORES.keys())
ENGINE = pytest.mark.parametrize("engine", ENGINES)


def signs(rng, rows, k):
    kind = rng.integers(3)
    return rng.choice([-1, 1], (rows, k)) if kind else np.full((rows, k), rng.choice([-1, 1]))


def make(rng, core):
    k = int(rng.choice([1, 5, 63, 64, 65, 127, 128, 130, 192]))
    words = -(-k // 64)
    m, n = rng.integers(1, core.rows // words + 1), rng.integers(1, core.columns // words * core.lanes + 1)
    return signs(rng, m, k), signs(rng, n, k)


def assert_runs(core, engine, factors):
    products = [Product(binary.pack(a), binary.pack(b), a.shape[1]) for a, b in factors]
    found, cycles = xnor.run(core, products, engine)
    for (a, b), y, taken, product in zip(factors, found, cycles, products, strict=True):
        np.testing.assert_array_equal(y, golden.binary_matmul(a, b), strict=True)
        np.testing.assert_array_equal(y, binary.matmul(product.a, product.b, product.k))
        assert taken == len(a) * -(-len(b) // core.lanes) * -(-a.shape[1] // 64) + 3 == core.law(len(a), len(b), a.shape[1])


@ENGINE
@EVERY
@SEARCH
@given(seed=st.integers(0, 2**32), length=st.integers(1, 3))
def test_products_one_after_the_other(core, engine, seed, length):
    rng = np.random.default_rng(seed)
    assert_runs(core, engine, [make(rng, core) for _ in range(length)])


@ENGINE
def test_the_longest_vectors(engine):
    core = Xnor(1, rows=1024, columns=1024)
    one = np.ones((1, 2**16 - 1), np.int8)
    assert_runs(core, engine, [(one, one), (one, -one)])


@ENGINE
@EVERY
@SEARCH
@given(seed=st.integers(0, 2**32), early=st.integers(0, 60))
def test_a_reset_in_the_middle_of_a_run(core, engine, seed, early):
    a, b = make(np.random.default_rng(seed), core)
    todo = xnor.stimulus(core, [Product(binary.pack(a), binary.pack(b), a.shape[1])])
    at = next(i for i, step in enumerate(todo.steps) if step.until)
    broken = simulate.Stimulus(core).drive(early).drive(rst=1).drive(2, sample=("busy", "done", "y_valid"))
    todo.steps[at:at] = [*broken.steps, todo.steps[at - 1]]
    idle, seen, cycles = simulate.simulate(core, todo, engine).samples
    assert not idle["busy"].any() and not idle["done"].any() and not idle["y_valid"].any()
    y = seen["y"][seen["y_valid"] == 1].reshape(len(a), -1)[:, : len(b)]
    np.testing.assert_array_equal(y, golden.binary_matmul(a, b))
    assert cycles["cycles"] == [core.law(len(a), len(b), a.shape[1])]


@ENGINE
@pytest.mark.parametrize("port", ["n_rows", "n_groups", "n_words"])
def test_an_empty_product_is_not_started(engine, port):
    numbers = {"n_rows": 1, "n_groups": 1, "n_words": 1} | {port: 0}
    todo = simulate.Stimulus(CORES[3]).drive(start=1, **numbers).drive(5, sample=("busy", "done", "ready"))
    (seen,) = simulate.simulate(CORES[3], todo, engine).samples
    assert not seen["busy"].any() and not seen["done"].any() and seen["ready"].all()


A = np.ones((2, 1), np.uint64)


@pytest.mark.parametrize(
    ("product", "message"),
    [
        (Product(A, A, 65), "the number of words of a is 1, but ceil(k / 64) of k = 65 is 2"),
        (Product(A, 2 * A, 1), "b has a bit set behind k = 1; the unused high bits are 0"),
        (Product(A.astype(np.int64), A, 64), "a is int64; uint64 is expected"),
        (Product(A[:0], A, 64), "the number of words of a is 0; this core holds 1 to 30"),
        (Product(A, np.ones((73, 1), np.uint64), 64), "in whole groups of the lanes, is 75; this core holds 1 to 72"),
        (Product(A, A, 0), "k is 0; it is a whole number of at least 1"),
        (
            Product(np.ones((1, 1024), np.uint64), np.ones((1, 1024), np.uint64), 2**16),
            "k is 65536; this core holds 1 to 65535",
        ),
    ],
)
def test_refusals(product, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        xnor.stimulus(CORES[3], [product])
