"""Layers that take the place of others, in a network or in a copy of it, and layers that are like others."""

import pytest
import torch
from torch import nn

from papernets.nn import conv_like, linear_like, plain_like, replace_, replaced


def network():
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Sequential(nn.Conv2d(5, 7, 1), nn.Dropout()), nn.Flatten())


def test_replaced_is_a_copy_and_keeps_modes_and_names():
    model = network()
    model[2].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    seen = []
    made = replaced(model, nn.Conv2d, lambda name, conv: seen.append(name) or nn.Identity())
    assert seen == ["0", "2.0"] and isinstance(made[0], nn.Identity) and isinstance(made[2][0], nn.Identity)
    assert made[0].training and not made[2][0].training and made is not model
    assert isinstance(model[0], nn.Conv2d) and all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert made[1] is not model[1]


def test_a_network_that_is_itself_the_layer_is_replaced():
    made = replaced(nn.Conv2d(3, 5, 3).eval(), nn.Conv2d, lambda name, conv: nn.Identity())
    assert isinstance(made, nn.Identity) and not made.training


def test_what_is_inside_of_a_replaced_module_is_not_looked_at():
    seen = []
    replaced(network(), (nn.Sequential,), lambda name, module: seen.append(name) or nn.Identity())
    assert seen == [""]


def test_no_such_module_is_refused_with_advice():
    with pytest.raises(ValueError, match=r"^this network has no Linear or Bilinear; call sparsify_ first$"):
        replaced(network(), (nn.Linear, nn.Bilinear), lambda name, module: module, missing="call sparsify_ first")


def test_replace_in_place_keeps_the_mode_and_refuses_the_root_before_anything():
    model = network()
    model[0].eval()
    replace_(model, {"0": nn.Identity(), "2.0": nn.Identity()})
    assert not model[0].training and model[2][0].training
    first = model[0]
    with pytest.raises(ValueError, match=r"the network is itself a layer; put it into an nn\.Sequential"):
        replace_(model, {"0": nn.ReLU(), "": nn.ReLU()})
    assert model[0] is first


@pytest.mark.parametrize("conv", [
    nn.Conv2d(6, 9, (3, 2), (2, 1), (1, 0), (1, 2), bias=False, padding_mode="reflect"), nn.Conv1d(4, 6, 3, padding=1),
    nn.Conv3d(2, 4, 3, 2, 1, groups=2, dtype=torch.float64)])
def test_a_convolution_like_another(conv):
    like = conv_like(conv, outputs=5, bias=True)
    assert type(like) is type(conv) and like.weight.shape == (5, conv.in_channels, *conv.kernel_size)
    for name in ("kernel_size", "stride", "padding", "dilation", "padding_mode"):
        assert getattr(like, name) == getattr(conv, name)
    assert like.bias is not None and like.groups == 1 and like.weight.dtype == conv.weight.dtype
    assert (conv_like(conv, inputs=2 * conv.groups, groups=conv.groups).bias is None) == (conv.bias is None)


def test_first_weights_are_drawn_as_torch_draws_them():
    torch.manual_seed(0)
    expected = nn.Conv2d(3, 5, 3).weight
    torch.manual_seed(0)
    assert torch.equal(conv_like(nn.Conv2d(3, 5, 3, device="meta").to_empty(device="cpu")).weight, expected)


def test_a_linear_layer_like_another():
    like = linear_like(nn.Linear(6, 9, bias=False, dtype=torch.float64), outputs=4)
    assert like.weight.shape == (4, 6) and like.bias is None and like.weight.dtype == torch.float64


@pytest.mark.parametrize("layer", [nn.Linear(6, 9), nn.Conv2d(6, 9, 3, 2, 1, groups=3), nn.Conv2d(6, 9, 1, bias=False)])
def test_a_plain_layer_has_the_weight_it_is_given_and_the_bias_of_the_other(layer):
    weight = torch.randn_like(layer.weight)
    plain = plain_like(layer.eval(), weight)
    assert torch.equal(plain.weight, weight) and not plain.training and type(plain) is type(layer)
    assert layer.bias is None or torch.equal(plain.bias, layer.bias)
