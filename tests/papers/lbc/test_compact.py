"""LBC: the dense and the packed network that a trained one becomes."""

import copy

import pytest
import torch
from papers.lbc.sample import HEAD, finished
from torch import nn

from papernets.measure import report
from papernets.nn import ConvNet, DeiT, ResNetCIFAR, SmallMLP
from papernets.papers.lbc import (
    LBC,
    PackedConv2d,
    PackedLinear,
    SparseConv2d,
    SparseLinear,
    compact,
    dense,
    refresh_,
    sparsify_,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("pattern", [(2, 4), (1, 4), (1, 12), (3, 6)])
@pytest.mark.parametrize("layer", [
    nn.Linear(12, 5), nn.Linear(12, 7, bias=False), nn.Conv2d(12, 5, 1), nn.Conv2d(12, 5, 1, 2, 1),
    nn.Conv2d(12, 5, (3, 2), (2, 1), (1, 2), bias=False), nn.Conv2d(12, 5, 3, dilation=2, padding=1)])
def test_the_packed_layer_computes_the_same(layer, pattern):
    model = nn.Sequential(copy.deepcopy(layer))
    finished(model, LBC(*pattern))
    packed = compact(model)
    assert isinstance(packed[0], PackedLinear if isinstance(layer, nn.Linear) else PackedConv2d)
    for batch in (3, 1, 0):
        x = torch.randn(batch, 12) if isinstance(layer, nn.Linear) else torch.randn(batch, 12, 7, 9)
        torch.testing.assert_close(packed(x), model(x).detach(), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(dense(model)(x), model(x))


def test_a_packed_linear_layer_takes_any_leading_sizes():
    model = nn.Sequential(nn.Linear(8, 5))
    finished(model, LBC())
    x = torch.randn(2, 3, 8)
    torch.testing.assert_close(compact(model)(x), model(x).detach())


def test_values_and_places():
    model = nn.Sequential(nn.Linear(8, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 2, 3, 4, 5, 6, 7, 8]]))
    sparsify_(model, LBC(t_f=1))
    with torch.no_grad():
        model[0].scores.copy_(torch.tensor([[0.0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1]]))
    refresh_(model, 1)
    packed = compact(model)[0]
    assert packed.V.tolist() == [[[1, 3], [7, 8]]] and packed.places.tolist() == [[[0, 2], [2, 3]]]
    assert packed.stored == (4, 4 * 32 + 4 * 2)


NETS = {"mlp": (lambda: SmallMLP(16, 24), (16,), HEAD),
        "convnet": (lambda: ConvNet((16, 24, 32)), (3, 16, 16), ("features.0",)),
        "resnet": (lambda: ResNetCIFAR(8, stages=(8, 16, 24)), (3, 16, 16), ("conv1",)),
        "deit": (lambda: DeiT(16, 2, 2, 32, 8, 7), (3, 32, 32), ("patches", "classifier"))}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("pattern", [(2, 4), (1, 8)])
def test_masked_dense_and_packed_networks_agree(name, pattern):
    build, shape, ignore = NETS[name]
    model = finished(build(), LBC(*pattern, ignore=ignore))
    x = torch.randn(2, *shape)
    with torch.no_grad():
        expected = model(x)
        for other in (dense(model), compact(model)):
            torch.testing.assert_close(other(x), expected, atol=1e-4, rtol=1e-4)
    assert not any(isinstance(m, SparseLinear | SparseConv2d) for m in (*dense(model).modules(), *compact(model).modules()))


def test_a_packed_network_is_saved_and_loaded(tmp_path):
    models = [compact(finished(SmallMLP(8, 12), LBC(ignore=HEAD))) for _ in range(2)]
    x = torch.randn(3, 8)
    models[1](x)
    torch.save(models[0].state_dict(), tmp_path / "packed.pt")
    models[1].load_state_dict(torch.load(tmp_path / "packed.pt", weights_only=True))
    assert torch.equal(models[1](x), models[0](x))


def test_the_original_is_left_alone():
    model = finished(SmallMLP(8, 12), LBC(ignore=HEAD)).train()
    before = copy.deepcopy(model.state_dict())
    compact(model), dense(model)
    assert model.training and all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))


def test_the_report_shows_what_is_saved():
    model = SmallMLP(16, 24)
    packed = compact(finished(copy.deepcopy(model), LBC(ignore=HEAD)))
    found = report(model, packed, torch.zeros(1, 16), timed=False)
    weights = 24 * 16 + 24 * 24
    assert found.before.parameters - found.after.parameters == weights // 2
    assert found.before.macs - found.after.macs == weights // 2
    assert found.before.bytes - found.after.bytes == 4 * weights // 2 - (weights // 2 * 2) // 8


def test_packing_too_early_is_refused():
    model = SmallMLP()
    sparsify_(model, LBC(ignore=HEAD))
    refresh_(model, 30)
    with pytest.raises(ValueError, match="fc1 has 2 of 6 supports left in each group; it is packed when one is, at epoch 60"):
        compact(model)


def test_other_padding_cannot_be_packed():
    model = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"))
    finished(model, LBC())
    assert dense(model)(torch.zeros(1, 4, 5, 5)).shape == (1, 4, 5, 5)
    with pytest.raises(ValueError, match=r"0 has padding .* of mode 'reflect'; the packed form takes numbers of zeros"):
        compact(model)


def test_what_is_not_sparse_has_no_other_form():
    for verb in (dense, compact):
        with pytest.raises(ValueError, match="this network has no SparseLinear or SparseConv2d; call sparsify_ first"):
            verb(SmallMLP())


def test_the_kernel_takes_as_many_threads_as_it_is_told():
    model = finished(SmallMLP(8, 12), LBC(ignore=HEAD))
    x = torch.randn(3, 8)
    packed = compact(model, x, threads=2)
    assert packed.fc1.threads == 2 and torch.equal(packed(x), compact(model)(x))
    with pytest.raises(ValueError, match="threads is 0; it is a whole number of at least 1"):
        compact(model, threads=0)
