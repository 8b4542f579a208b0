"""Sub-bit networks: the network as it is stored, its engines, and whole numbers on a core."""

import math

import numpy as np
import pytest
import torch
from hdl_checks import COMPILED
from papernets_kernels.hdl import subbit
from papers.snn.sample import conv, layer, names
from torch import nn
from torch.nn import functional

from papernets.data import digits
from papernets.measure import cost, macs
from papernets.papers import snn
from papernets.papers.snn import (
    SNN,
    PackedConv2d,
    SubBitConv2d,
    adam,
    binarise,
    compact,
    integer,
    on_core,
    reference,
    subbit_,
)
from papernets.papers.snn.networks import BinaryResNet, SmallNet
from papernets.training import Task, seed_everything

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("engine", snn.ENGINES)
@pytest.mark.parametrize(("tau", "inputs", "outputs", "stride"), [(1, 3, 5, 1), (5, 7, 9, 2), (6, 65, 3, 1), (9, 5, 7, 1)])
def test_every_engine_gives_the_outputs_of_the_trained_layer(engine, tau, inputs, outputs, stride):
    made = layer(SNN(tau=tau), inputs=inputs, outputs=outputs, stride=stride, bias=True).eval()
    x = binarise(torch.randn(2, inputs, 9, 7))
    packed = PackedConv2d(made, engine)
    assert torch.equal(packed(x), made(x))  # bit for bit, borders included
    assert torch.equal(packed.ids, made.ids) and torch.equal(packed.P, made.P)
    kernels = packed.P[packed.ids]
    assert {tuple(row) for row in kernels.view(-1, 9).tolist()} <= {tuple(row) for row in made.P.tolist()}
    assert packed.ids.max() < 2**tau and len(packed.ids.unique()) <= 2**tau


def test_what_is_stored():
    made = layer(SNN(tau=5), inputs=7, outputs=11)
    packed = PackedConv2d(made)
    assert packed.bits == {"ids": 5 * 77, "codebook": 9 * 32, "scales": 32 * 11}
    assert packed.packed.dtype == torch.uint8 and len(packed.packed) == math.ceil(5 * 77 / 8)
    assert set(packed.state_dict()) == {"packed", "codebook", "scale"}
    bits = np.unpackbits(packed.packed.numpy(), bitorder="little")[:5 * 77].reshape(-1, 5)
    assert (bits @ [1, 2, 4, 8, 16]).tolist() == made.ids.flatten().tolist()
    plain = PackedConv2d(layer(SNN(tau=9), inputs=7, outputs=11))
    assert plain.bits["codebook"] == 0 and plain.bits["ids"] == 9 * 77


@pytest.mark.parametrize("engine", snn.ENGINES)
def test_a_state_can_be_loaded_into_another(engine):
    first, second = (PackedConv2d(layer(SNN(tau=3)), engine) for _ in range(2))
    x = binarise(torch.randn(1, 3, 6, 5))
    expected, other = first(x), second(x)
    assert not torch.equal(expected, other)
    second.load_state_dict(first.state_dict())
    assert torch.equal(second(x), expected)


@pytest.mark.parametrize("engine", ["subbit", "binary"])
def test_counting_engines_refuse_real_activations(engine):
    packed = PackedConv2d(layer(), engine)
    with pytest.raises(ValueError, match=r"takes inputs of \+1 and -1.*engine 'dense'"):
        packed(torch.full((1, 3, 4, 4), 0.5))
    with pytest.raises(ValueError, match="engine is 'fast'; choose from dense, subbit, binary"):
        PackedConv2d(layer(), "fast")


@pytest.mark.parametrize("engine", snn.ENGINES)
def test_a_whole_network_is_packed(engine):
    seed_everything(1)
    model = BinaryResNet((2, 1), (8, 12), 5, small=True)
    subbit_(model, SNN(tau=3, every=1, p_init_scale=0.02, ignore=("stem",)))
    with pytest.raises(ValueError, match="no PackedConv2d; call compact first"):
        integer(model)
    data = torch.randn(60, 3, 16, 16), torch.randint(0, 5, (60,))
    optimizer = adam(model)
    for group in optimizer.param_groups:
        group["lr"] = 0.02
    for _ in range(6):
        optimizer.zero_grad()
        functional.cross_entropy(model(data[0]), data[1]).backward()
        optimizer.step()
    packed = compact(model, engine=engine)
    assert names(packed, PackedConv2d) == ["blocks.0.conv", "blocks.1.conv", "blocks.2.conv"]
    assert not names(packed, SubBitConv2d) and not packed.training and model.training
    assert torch.equal(packed(data[0]), model.eval()(data[0]))
    assert snn.stored_bits(packed) == {"ids": 3 * (64 + 64 + 96), "codebook": 27 * 8, "scales": 32 * 28}
    # the state of one export fits the export of an untrained network
    other = BinaryResNet((2, 1), (8, 12), 5, small=True)
    subbit_(other, SNN(tau=3, ignore=("stem",)))
    other = compact(other, engine=engine)
    other.load_state_dict(packed.state_dict())
    assert torch.equal(other(data[0]), packed(data[0]))


def trained(tau=3, epochs=2):
    seed_everything(0)
    model = SmallNet(6)
    subbit_(model, SNN(tau=tau, every=3, p_init_scale=0.05, ignore=("stem",)))
    task = Task(*digits(300, 0), epochs, lr=0.01, batch=32)
    task.learn(model, optimizer=adam)
    return model, task.test


@COMPILED
def test_a_trained_network_on_the_core_gives_the_bits_of_the_reference():
    model, test = trained()
    whole = integer(compact(model))
    seen, plain = [], []
    core = subbit.SubBit(3, 2, windows=96, kernels=36, outputs=6)
    on = integer(compact(model), on_core(core, "compiled", seen))
    usual = integer(compact(model), on_core(subbit.PlainBinary(windows=96, kernels=36, outputs=6), "compiled", plain))
    images = test.images[:3]
    assert torch.equal(on(images), whole(images)) and torch.equal(usual(images), whole(images))
    assert len(seen) == len(plain) == 6
    assert [run.cycles for run in seen] == [run.plan.cycles for run in seen]
    assert plain[0].plan.cycles == sum(16 * 6 * 6 + 2 for _ in range(4))
    # int8 activations move the logits little
    assert (whole(test.images[:50]) - model(test.images[:50])).abs().max() < 0.1 * model(test.images[:50]).abs().max()


def test_the_reference_is_the_convolution_and_int8_is_rounded():
    rng = np.random.default_rng(0)
    x, ids = rng.integers(-128, 128, (3, 5, 4), np.int8), rng.integers(0, 4, (5, 3))
    book = rng.choice([-1, 1], (4, 3, 3))
    from papernets_kernels.hdl import golden
    found = reference(x, ids, book, 1, 1)
    np.testing.assert_array_equal(found.reshape(5, -1), golden.conv3x3(x, book[ids], 1, 1))
    seen = []

    def convolve(x, *rest):
        seen.append(x)
        return reference(x, *rest)

    made = snn.IntegerConv2d(PackedConv2d(layer(bias=True)), convolve)
    made(torch.tensor([1.0, -1.0, 0.0, 0.5, 0.0039, 0.004, 0, 0, 0]).view(1, 1, 3, 3).repeat(1, 3, 1, 1))
    assert seen[0].dtype == np.int8 and seen[0][0].flatten().tolist() == [127, -127, 0, 64, 0, 1, 0, 0, 0]
    with pytest.raises(ValueError, match=r"an activation is 1.5 in size; int8 stands for"):
        made(torch.full((1, 3, 4, 4), 1.5))


def test_what_is_not_sub_bit_has_no_compact_form():
    with pytest.raises(ValueError, match="this network has no SubBitConv2d; call subbit_ first"):
        compact(SmallNet(4))


@pytest.mark.parametrize(("tau", "bias"), [(5, False), (9, True)])
def test_the_report_counts_bits_and_the_same_products(tau, bias):
    model = nn.Sequential(conv(7, 11, bias=bias))
    subbit_(model, SNN(tau=tau))
    packed, x = compact(model), torch.zeros(2, 7, 6, 5)
    before, after = cost(nn.Sequential(conv(7, 11, bias=bias)), x, timed=False), cost(packed, x, timed=False)
    book = 0 if tau == 9 else 32
    assert after.parameters == 77 + book + 11 + 11 * bias
    assert after.bytes == math.ceil((77 * tau + 9 * book + 32 * 11 * (1 + bias)) / 8)
    assert after.macs == before.macs == cost(model, x, timed=False).macs == 2 * 30 * 11 * 9 * 7
    assert macs(packed, x, "thop") == macs(model, x, "thop") == after.macs + bias * 2 * 30 * 11


def test_the_integer_network_shares_nothing_with_the_compact_one():
    model = SmallNet(4)
    subbit_(model, SNN(tau=2, ignore=("stem",)))
    packed = compact(model)
    made = integer(packed)
    made.conv1.layer.scale.zero_()
    assert packed.conv1.scale.all()
