"""One grammar for the eight methods that make networks smaller: how layers are left out, and what a refusal leaves behind."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from papernets.measure import report
from papernets.nn import ConvNet
from papernets.papers import cc, dcff, lapp, lbc, lr_winograd, lrpet, one_by_n, we

EXAMPLE = torch.zeros(1, 4, 8, 8)
BATCHES = [(torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(at)), torch.tensor([0, 1, 2, 3])) for at in (0, 1)]


def network() -> ConvNet:
    return ConvNet((8, 16, 24), classes=4, channels=4, pool=(1,))


#: Of each method its configuration and the verb that works on a network.
METHODS = {
    "lapp": (lapp.LAPP, lambda model, config: lapp.attach_(model, config, EXAMPLE)),
    "dcff": (dcff.DCFF, lambda model, config: dcff.fuse_(model, config, EXAMPLE)),
    "we": (we.WE, lambda model, config: we.Evolution(config).step(model, 0)),
    "1xn": (one_by_n.OneByN, one_by_n.prune_),
    "lbc": (lbc.LBC, lbc.sparsify_),
    "lr-winograd": (lr_winograd.LowRankWinograd, lr_winograd.transform_),
    "lrpet": (lrpet.LRPET, lambda model, config: lrpet.project_(model, config, EXAMPLE)),
    "cc": (cc.CC, lambda model, config: cc.compress(model, BATCHES, config)),
}


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("name", METHODS)
def test_the_configuration_is_frozen_and_says_what_is_left_out(name):
    kind, _ = METHODS[name]
    config = kind()
    assert {"ignore", "filter_fn"} <= {field.name for field in dataclasses.fields(kind)}
    assert config.ignore == () and config.filter_fn is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.ignore = ("features.0",)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("options", "message"), [
    (dict(ignore=("nothing",)), "ignore names 'nothing', which is no layer of this network"),
    (dict(ignore="features.0"), "give a sequence of names"),
    (dict(filter_fn=lambda name, module: False), "of this network is left to work on")])
def test_a_refusal_says_the_same_everywhere_and_changes_nothing(name, options, message):
    kind, verb = METHODS[name]
    model = network().eval()
    before, layers = state(model), [type(module) for module in model.modules()]
    with pytest.raises(ValueError, match=message):
        verb(model, kind(**options))
    assert [type(module) for module in model.modules()] == layers
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", METHODS)
def test_layers_that_are_left_out_stay_as_they_were(name):
    """By name, by the name of what they are in, and by a rule: of three convolutions only the last is worked on."""
    kind, verb = METHODS[name]
    reachable = {"lapp": {"removed": 0.1}, "cc": {"target": 0.1}}.get(name, {})  # by one layer of three
    for options in (dict(ignore=("features.0", "features.3", "features.1", "features.4", "classifier")),
                    dict(filter_fn=lambda name, module: name.startswith(("features.7", "features.8")))):
        model = network().eval()
        before = state(model)
        with torch.no_grad():
            model.features[7].weight[3:] *= 1e-4  # something to evolve, too
        made = verb(model, kind(**options, **reachable))
        found = made if isinstance(made, nn.Module) else model
        for layer in ("features.0", "features.3"):
            assert type(found.get_submodule(layer)) is nn.Conv2d, layer
            assert torch.equal(found.get_submodule(layer).weight, before[f"{layer}.weight"])
        last = found.get_submodule("features.7")
        assert type(last) is not nn.Conv2d or not torch.equal(last.weight, before["features.7.weight"])


def smaller(name: str) -> tuple[nn.Module, nn.Module]:
    """A network as it is trained, and the compact form of it."""
    model = network().eval()
    if name == "lapp":
        flops = lapp.attach_(model, lapp.LAPP(removed=0.4), EXAMPLE)
        lapp.settle_(model, flops, 0.4)
        return model, lapp.compact(model, EXAMPLE)
    if name == "dcff":
        dcff.fuse_(model, dcff.DCFF(removed=0.5, filter_fn=lambda name, module: name != "features.7"), EXAMPLE)
        return model.eval(), dcff.compact(model)
    if name == "we":
        we.Evolution().step(model, 0)
        return model, model
    if name == "1xn":
        one_by_n.prune_(model, one_by_n.OneByN(removed=0.5, N=4))
        return model, one_by_n.compact(model, EXAMPLE)
    if name == "lbc":
        lbc.sparsify_(model, lbc.LBC(t_f=1))
        for epoch in range(2):
            lbc.refresh_(model, epoch)
        return model, lbc.compact(model)
    if name == "lr-winograd":
        lr_winograd.transform_(model)
        lr_winograd.prune_(model, 0.5)
        return model, lr_winograd.compact(model)
    if name == "lrpet":
        lrpet.project_(model, lrpet.LRPET(removed=0.8), EXAMPLE)
        return model, lrpet.compact(model)
    small = cc.compress(model, BATCHES, cc.CC(target=0.5))
    return small, copy.deepcopy(small)


@pytest.mark.parametrize("name", METHODS)
def test_the_report_and_the_outputs_of_the_compact_network(name):
    trained, small = smaller(name)
    x = torch.randn(3, 4, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(small.eval()(x), trained.eval()(x), atol=1e-5, rtol=1e-4)
    found = report(network(), small, EXAMPLE, timed=False)
    if name == "we":
        assert found.before.macs == found.after.macs and found.before.parameters == found.after.parameters
    else:
        assert found.after.macs < 0.8 * found.before.macs and found.after.bytes > 0
