"""Published weights under our names: all of them or none, each of the right shape, and nothing half loaded."""

import pytest
import torch
from torch import nn

from papernets.nn import load_published


def build():
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Linear(5, 2))


def rename(name):
    layer, what = name.split(".")
    return {"conv": f"0.{what}", "bn": f"1.{what}"}.get(layer)


@pytest.fixture
def state():
    torch.manual_seed(7)
    return {"conv.weight": torch.randn(5, 3, 3, 3), "conv.bias": torch.randn(5), "bn.weight": torch.randn(5),
            "bn.bias": torch.randn(5), "bn.running_mean": torch.randn(5), "bn.running_var": torch.rand(5),
            "fc.weight": torch.randn(1000, 5)}


def load(state, tmp_path, parts=("0.", "1.")):
    torch.save(state, tmp_path / "file.pth")
    model = build()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    try:
        return load_published(model, tmp_path / "file.pth", rename, parts)
    except ValueError:
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        raise


def test_tensors_land_under_our_names_and_the_rest_stays(state, tmp_path):
    torch.manual_seed(0)
    expected = build()
    torch.manual_seed(0)
    model = load(state, tmp_path)
    for name, tensor in state.items():
        if rename(name):
            assert torch.equal(model.state_dict()[rename(name)], tensor)
    assert torch.equal(model[2].weight, expected[2].weight)


@pytest.mark.parametrize(("change", "message"), [
    (lambda state: state.pop("bn.bias"), "has no tensor for 1.bias; it is a file of another network"),
    (lambda state: state.update({"conv.scale": torch.ones(5)}), "holds 0.scale, which this network does not have"),
    (lambda state: state.update({"conv.weight": torch.ones(5, 3, 1, 1)}),
     r"0.weight has shape \(5, 3, 1, 1\), in this network \(5, 3, 3, 3\)")])
def test_a_file_of_another_network_is_refused(change, message, state, tmp_path):
    change(state)
    with pytest.raises(ValueError, match=message):
        load(state, tmp_path)


def test_a_damaged_file_is_named(state, tmp_path):
    torch.save(state, tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:500])
    for name in ("cut.pth", "none.pth"):
        with pytest.raises(ValueError, match=rf"{name} is not a readable file of weights .*fetch it again"):
            load_published(build(), tmp_path / name, rename, ("0.",))


def test_a_file_that_could_run_code_is_refused(tmp_path):
    torch.save({"conv.weight": print}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="not a readable file of weights"):
        load_published(build(), tmp_path / "evil.pth", rename, ("0.",))
