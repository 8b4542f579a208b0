"""LRPET: which layers are projected, with which batch norm, and what that leaves alone."""

import copy

import pytest
import torch
from model_checks import lively
from torch import nn

from papernets.nn import ConvNet, ResNetBasic, ResNetCIFAR
from papernets.papers.lrpet import LRPET, norms, project, project_, ranks, scale

pytestmark = pytest.mark.usefixtures("one_thread")


def test_which_layers_and_which_ranks():
    model = ConvNet((16, 24, 32))
    names = ["features.0", "features.4", "features.8"]
    assert ranks(model) == dict(zip(names, (3, 4, 6)))
    assert list(ranks(model, LRPET(ignore=("features.4",)))) == [names[0], names[2]]
    assert list(ranks(model, LRPET(filter_fn=lambda name, module: module.in_channels > 3))) == names[1:]
    assert list(ranks(model, LRPET(linear=True))) == [*names, "classifier"]
    assert ranks(model, LRPET(removed={"features.8": 0.5})) == {"features.8": 16}
    assert ranks(model, LRPET(ranks=(5, 6, 7))) == dict(zip(names, (5, 6, 7)))
    assert ranks(model, LRPET(ranks={"features.8": 9})) == {"features.8": 9}
    assert ranks(model, LRPET(removed=0.99, least=4)) == dict.fromkeys(names, 4)
    grouped = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 8, 1))
    assert list(ranks(grouped)) == ["1"]


@pytest.mark.parametrize(
    ("config", "message"),
    [(LRPET(removed={"stem": 0.5}), "a layer to project is 'stem'; choose from features.0, features.3"),
     (LRPET(ranks=(1, 2)), "2 ranks are given, and 3 layers are projected"),
     (LRPET(ranks=(1, 2, 99)), "features.6: the rank is 99; it is a whole number from 1 to 8"),
     (LRPET(ignore=("stem",)), "ignore names 'stem'"),
     (LRPET(), "bn_rectify needs an example input")])
def test_a_refused_network_is_unchanged(config, message):
    model = ConvNet((8, 8, 8), pool=())
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        project_(model, config)
    model.features[6].weight.data[0, 0, 0, 0] = torch.nan  # the last layer fails; the first ones stay
    with pytest.raises(ValueError, match=r"features.6: the weight holds a value that is not finite"):
        project_(model, LRPET(bn_rectify=False))
    assert torch.equal(before["features.0.weight"], model.features[0].weight)


class PreActivation(nn.Module):
    """Two convolutions without, and one with a batch norm that reads its output."""

    def __init__(self):
        super().__init__()
        self.bn0, self.conv0 = nn.BatchNorm2d(3), nn.Conv2d(3, 5, 3)
        self.conv1, self.bn1 = nn.Conv2d(5, 7, 3), nn.BatchNorm2d(7)

    def forward(self, x):
        return self.bn1(self.conv1(self.conv0(self.bn0(x))))


@pytest.mark.parametrize("affine", [True, False])
def test_the_scale_is_what_the_batch_norm_multiplies_by(affine):
    norm = lively(nn.Sequential(nn.BatchNorm2d(5, eps=0.3))) if affine else nn.BatchNorm2d(5, eps=0.3, affine=False).eval()
    norm = norm[0] if affine else norm
    norm.running_var.copy_(torch.tensor([0.1, 4, 1, 0.5, 9]))
    with torch.no_grad():
        step = norm(torch.ones(1, 5, 1, 1)) - norm(torch.zeros(1, 5, 1, 1))
    torch.testing.assert_close(scale(norm), step.flatten())
    with pytest.raises(ValueError, match="without running statistics has no fixed scale; set bn_rectify to False"):
        scale(nn.BatchNorm2d(5, track_running_stats=False))


def test_a_batch_norm_belongs_to_what_it_reads():
    """In the order of the network, the first batch norm would go with the first convolution."""
    model = lively(PreActivation())
    x = torch.randn(2, 3, 9, 9)
    assert norms(model, x) == {"conv1": "bn1"}
    before = copy.deepcopy(model)
    project_(model, LRPET(removed=0.5), x)
    torch.testing.assert_close(model.conv0.weight, project(before.conv0.weight, 2))
    torch.testing.assert_close(model.conv1.weight, project(before.conv1.weight, 3, scale(before.bn1)))
    assert not torch.allclose(model.conv1.weight, project(before.conv1.weight, 3))


def test_every_convolution_of_a_residual_network_has_its_batch_norm():
    found = norms(ResNetCIFAR(8), torch.zeros(1, 3, 32, 32))
    assert found["conv1"] == "bn1" and len(found) == 7
    assert all(one.replace("conv", "bn") == other for one, other in found.items())
    basic = norms(ResNetBasic(18), torch.zeros(1, 3, 64, 64))
    assert len(basic) == 20 and all(basic[name] == f"{name[:-1]}1" for name in basic if ".shortcut." in name)


def test_projection_leaves_batch_norms_and_the_mode_alone():
    model = lively(ConvNet((8, 12))).train()
    before = copy.deepcopy(model.state_dict())
    project_(model, LRPET(), torch.randn(2, 3, 8, 8))
    assert model.training
    changed = [key for key, value in model.state_dict().items() if not torch.equal(value, before[key])]
    assert changed == ["features.0.weight", "features.4.weight"]


def test_what_is_projected_is_what_inference_uses():
    """The merged matrix of every layer keeps its energy and has the rank; that of the plain weight need not keep it."""
    model = lively(ResNetCIFAR(8))
    merged = {name: scale(model.get_submodule(bn))[:, None] * model.get_submodule(name).weight.flatten(1)
              for name, bn in norms(model, torch.zeros(1, 3, 32, 32)).items()}
    project_(model, LRPET(removed=0.7), torch.zeros(1, 3, 32, 32))
    for name, bn in norms(model, torch.zeros(1, 3, 32, 32)).items():
        after = scale(model.get_submodule(bn))[:, None] * model.get_submodule(name).weight.flatten(1)
        torch.testing.assert_close(after.norm(), merged[name].norm(), rtol=2e-3, atol=0)
        s = torch.linalg.svdvals(after.detach().double())
        r = ranks(model, LRPET(removed=0.7))[name]
        assert s[r - 1] > 1e-3 and (len(s) == r or s[r] < 1e-4 * s[0])


@pytest.mark.parametrize(("call", "message"), [
    (lambda: LRPET(removed=2), r"removed 2 is outside \[0, 1\]; the nearest is 1"),
    (lambda: LRPET(removed={"a": -1}), r"removed -1 is outside \[0, 1\]; the nearest is 0"),
    (lambda: LRPET(least=0), "least is 0; it is a whole number of at least 1"),
    (lambda: LRPET(rho=1.5), r"rho 1.5 is outside \[0, 1\]; the nearest is 1")])
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_keyword_of_old_names_the_new_one():
    with pytest.raises(TypeError, match="LRPET takes removed in place of share"):
        LRPET(share=0.8)
