"""Weight Evolution: the layers and the verbs."""

import copy
import math
import random

import pytest
import torch
from model_checks import lively
from papers.we.sample import ALWAYS, STRONG, same, state
from torch import nn
from torch.nn.utils import parametrize

from papernets.data import digits
from papernets.nn import SmallMobileNet
from papernets.papers.we import KINDS, MIXES, REFILLS, WE, Evolution, evolve_, populations
from papernets.papers.we.experiment import damage_
from papernets.training import fit, loader, seed_everything, steps

pytestmark = pytest.mark.usefixtures("one_thread")


def stack(*rows, k=(1, 1)):
    """Convolutions whose filters have the importances of the rows: all elements alike, and positive."""
    model, before = nn.Sequential(), 3
    for row in rows:
        conv = nn.Conv2d(before, len(row), k, bias=True)
        with torch.no_grad():
            conv.weight.copy_((torch.tensor(row) / (k[0] * k[1])).view(-1, 1, 1, 1).expand_as(conv.weight))
        model.append(conv)
        before = len(row)
    return model


@pytest.mark.parametrize("mix", MIXES + REFILLS)
def test_only_the_inferior_changes(mix):
    """Superior filters stay to the last bit, a 3×3 kernel changes in one element, and nothing else of the network changes."""
    model = lively(SmallMobileNet())
    before = state(model)
    changes = Evolution(WE(**{**STRONG.__dict__, "mix": mix})).step(model, 0)
    after, named = state(model), {change.parameter: change for change in changes}
    assert {change.kind for change in changes} == set(KINDS) and len(named) == len(changes)
    for name, value in after.items():
        moved = value != before[name]
        if name not in named:
            assert not moved.any(), name
            continue
        rest = [o for o in range(len(value)) if o not in named[name].inferior]
        assert not moved[rest].any() and set(named[name].superior) <= set(rest)
        inner = moved[list(named[name].inferior)]
        if value.dim() == 4 and value[0, 0].numel() == 9 and mix in MIXES:
            assert (moved[list(named[name].inferior)].flatten(2).sum(2) == 1).all()
        elif value.dim() == 4:
            assert inner.all()


def test_a_layer_without_globally_weak_filters_stays():
    model = stack((10.0, 9.0, 0.5, 0.4), (0.01, 0.02, 0.03, 0.001, 0.9, 0.8))
    changes = Evolution(WE(weak=0.4, **ALWAYS)).step(model, 0)
    assert [change.parameter for change in changes] == ["1.weight"]
    assert (changes[0].superior, changes[0].inferior) == ((4, 5), (2, 1))  # four are weak, and two have partners


@pytest.mark.parametrize(("layers", "first"), [(7, 4), (8, 4), (1, 1), (2, 1), (3, 2)])
def test_the_first_forced_evolution(layers, first):
    model = stack(*[(1.0, 0.9, 0.8, 0.5)] * layers)
    changes = Evolution(WE(weak=0.45, **ALWAYS)).step(model, 0)
    assert changes[0].parameter == f"{first - 1}.weight" and changes[0].inferior == (3,) and changes[0].superior == (0,)


def test_counters_carry_over_epochs_and_survive_saving(tmp_path):
    rows = [(1.0, 0.9, 0.8, 0.5)] * 7
    evolution = Evolution(WE(weak=0.45, **ALWAYS))
    model = stack(*rows)
    assert [change.parameter for change in evolution.step(model, 0)] == ["3.weight"]
    assert evolution.counters == {"conv": 3, "gamma": 0, "beta": 0}
    torch.save(evolution.state_dict(), tmp_path / "state.pt")
    resumed, fresh = Evolution(evolution.config), Evolution(evolution.config)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    with pytest.raises(ValueError, match="the state has counters of conv; it must have conv, gamma, beta"):
        fresh.load_state_dict({"counters": {"conv": 1}})
    firsts = [one.step(stack(*rows), 1)[0].parameter for one in (evolution, resumed, fresh)]
    assert firsts == ["0.weight", "0.weight", "3.weight"]


def test_there_are_three_counters_with_one_limit():
    """Scales without weak ones are forced after half the number of convolutions, whatever the filters do."""
    model = nn.Sequential(*[layer for _ in range(4) for layer in (nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))])
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            with torch.no_grad():
                module.weight[2] = 0.5
    changes = Evolution(WE(weak=0, gamma=0.4, beta=0, **ALWAYS)).step(model, 0)
    assert [(change.parameter, change.kind) for change in changes] == [("3.weight", "gamma"), ("7.weight", "gamma")]
    assert model[3].weight[2].item() == pytest.approx((0.25 + 1) / 1.5)


def test_opposite_signs_of_scales_are_mixed_by_size():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([-0.1, 1.0]))
    Evolution(WE(weak=0, gamma=0.5, beta=0, **ALWAYS)).step(model, 0)
    assert model[1].weight[0].item() == pytest.approx((0.1 * -0.1 + 1.0) / 1.1)


def test_a_rate_just_under_one():
    model = lively(SmallMobileNet())
    changes = Evolution(WE(weak=0.999, gamma=0.999, beta=0.999, local=0.999, **ALWAYS)).step(model, 0)
    for change in changes:
        count = len(model.get_parameter(change.parameter))
        assert 1 <= len(change.inferior) <= count // 2 or count == 1
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


def test_a_layer_of_one_filter_never_evolves():
    model = nn.Sequential(nn.Conv2d(2, 1, 3), nn.BatchNorm2d(1), nn.Conv2d(1, 6, 1))
    nn.init.constant_(model[0].weight, 1e-6)
    nn.init.constant_(model[1].weight, 1e-6)
    assert {change.parameter for change in Evolution(STRONG).step(model, 0)} == {"2.weight"}


@pytest.mark.parametrize(("k", "whole"), [((1, 1), True), ((1, 3), False), ((3, 1), False), ((3, 3), False)])
def test_kernels_of_one_element_are_pointwise(k, whole):
    model = nn.Sequential(nn.Conv2d(2, 2, k))
    with torch.no_grad():
        model[0].weight[0] *= 1e-3
    before = model[0].weight.detach().clone()
    Evolution(STRONG).step(model, 0)
    moved = (model[0].weight != before)[0]
    assert moved.all() if whole else (moved.flatten(1).sum(1) == 1).all()


def test_what_is_never_touched():
    """Linear layers, biases of convolutions, running statistics, batch norms without scales; frozen parameters are left out."""
    model = nn.Sequential(nn.Conv2d(3, 9, 3), nn.BatchNorm2d(9, affine=False), nn.Conv2d(9, 5, 1), nn.Flatten(),
                          nn.Linear(5, 4))
    model[2].weight.requires_grad_(False)
    before = state(model)
    assert [change.parameter for change in Evolution(STRONG).step(model, 0)] == ["0.weight"]
    after = state(model)
    assert [name for name in before if not torch.equal(before[name], after[name])] == ["0.weight"]


def test_shared_parameters_evolve_once():
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    model[2].weight = model[0].weight
    model.append(model[1])
    assert {kind: list(every) for kind, every in populations(model).items()} == {
        "conv": ["0.weight"], "gamma": ["1.weight", "3.weight"], "beta": ["1.bias", "3.bias"]}
    alone = copy.deepcopy(model[0])
    Evolution(STRONG).step(model, 0)
    single = nn.Sequential(alone)
    Evolution(STRONG).step(single, 0)
    assert torch.equal(single[0].weight, model[0].weight) and torch.equal(model[2].weight, model[0].weight)


def test_ignore_and_filter_fn():
    model = SmallMobileNet()
    ignored = Evolution(WE(**{**STRONG.__dict__, "ignore": ("features.6", "features.7")})).step(copy.deepcopy(model), 0)
    assert ignored and not any(change.parameter.startswith(("features.6.", "features.7.")) for change in ignored)
    only = WE(**{**STRONG.__dict__, "filter_fn": lambda name, module: getattr(module, "kernel_size", None) == (1, 1)})
    assert {change.parameter for change in Evolution(only).step(model, 0)} == {"features.6.weight", "features.12.weight"}


def test_one_step_is_the_verb_with_its_state():
    first, second = SmallMobileNet(), None
    second = copy.deepcopy(first)
    one, other = Evolution(), Evolution()
    assert one.step(first, 2) == evolve_(second, other, 2)
    assert same(state(first), state(second)) and one.state_dict() == other.state_dict()


def test_it_does_not_draw_from_the_global_generator():
    model = SmallMobileNet()
    before = torch.get_rng_state(), random.getstate()
    for mix in MIXES + REFILLS:
        Evolution(WE(**{**STRONG.__dict__, "mix": mix})).step(model, 0)
    assert torch.equal(before[0], torch.get_rng_state()) and before[1] == random.getstate()


def test_between_forward_and_backward_torch_refuses():
    model, x = SmallMobileNet(), torch.randn(3, 1, 8, 8)
    loss = model(x).sum()
    Evolution(STRONG).step(model, 0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def with_nan():
    model = SmallMobileNet()
    with torch.no_grad():
        model.features[9].weight[0, 0, 0, 0] = math.nan
    return model


def parametrised():
    model = SmallMobileNet()
    parametrize.register_parametrization(model.features[9], "weight", nn.Identity())
    return model


@pytest.mark.parametrize(
    ("build", "config", "epoch", "message"),
    [(with_nan, WE(), 0, "features.9.weight holds a value that is not finite"),
     (parametrised, WE(), 0, "features.9.weight is parametrised; .* ignore 'features.9'"),
     (SmallMobileNet, WE(), -1, "epoch is -1; it is a whole number of at least 0"),
     (SmallMobileNet, WE(schedule=lambda epoch: 5.0), 0, r"rho 1.0 is outside \[0, 1\)"),
     (SmallMobileNet, WE(gamma=0.5, schedule=lambda epoch: 2.0), 0, r"rho 1.0 is outside \[0, 1\)"),
     (SmallMobileNet, WE(ignore=("stem",)), 0, "ignore names 'stem', which is no layer"),
     (lambda: nn.Sequential(nn.Linear(3, 4), nn.Conv1d(4, 4, 1)), WE(), 0, "no Conv2d or BatchNorm2d of this network is left")])
def test_a_refused_network_is_unchanged(build, config, epoch, message):
    model = build()
    before, evolution = state(model), Evolution(config)
    with pytest.raises(ValueError, match=message):
        evolution.step(model, epoch)
    assert all(torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)) for a, b in zip(before.values(), state(model).values()))
    assert evolution.counters == dict.fromkeys(KINDS, 0)


def trained(config, epochs=3, seed=0, **options):
    data = digits(200, seed)
    seed_everything(seed)
    model = SmallMobileNet()
    damage_(model, seed=seed, scales=True)
    evolution = None if config is None else Evolution(config)
    after = None if evolution is None else lambda model, epoch, history: evolution.step(model, epoch)
    history = fit(model, loader(data[0], 32, True), loader(data[1], 1000, False), epochs=epochs, lr=steps(0.05, ()), seed=seed,
                  after_epoch=after, **options)
    return model, history


def test_rates_of_zero_train_like_plain_training():
    (first, one), (second, other), (third, _) = trained(None), trained(WE(weak=0, gamma=0, beta=0)), trained(WE())
    assert one == other and same(state(first), state(second)) and not same(state(first), state(third))


def test_a_resumed_run_ends_as_if_it_had_never_stopped(tmp_path):
    """The counters are in the checkpoint: without them the forced evolutions would come elsewhere."""
    config = WE(weak=0.5, gamma=0.3, beta=0.3, local=1e-4)  # nothing is locally weak: all evolutions are forced

    def run(epochs, forget=False, folder=None):
        data = digits(100, 0)
        seed_everything(1)
        model, evolution = SmallMobileNet(), Evolution(config)
        fit(model, loader(data[0], 32, True), None, epochs=epochs, lr=steps(0.05, ()), seed=1,
            after_epoch=lambda model, epoch, history: evolution.step(model, epoch),
            carried=None if forget else {"evolution": evolution}, checkpoint=folder)
        return state(model), dict(evolution.counters)

    whole, counters = run(4)
    for forget in (False, True):
        path = tmp_path / f"{forget}.ckpt"
        _, half = run(3, forget, path)
        assert any(half.values())
        weights, ended = run(4, forget, path)
        assert (same(weights, whole) and ended == counters) != forget


def test_only_pointwise_filters_are_weak_in_a_network_that_has_both():
    """The norm is not divided by the size of the kernel, so a 3×3 filter looks nine times as important."""
    model = SmallMobileNet()
    changes = Evolution(WE(weak=0.4, local=0.9, **ALWAYS)).step(model, 0)
    filters = [change.parameter for change in changes if change.kind == "conv"]
    assert filters and set(filters) <= {"features.6.weight", "features.12.weight"}
