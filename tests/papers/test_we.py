"""Weight Evolution: selection, matching, crossover by hand and against loops, the verb, resuming, what it brings back."""

import copy
import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_checks import lively
from torch import nn
from torch.nn.utils import parametrize

from papernets.cards import card
from papernets.data import digits
from papernets.measure import macs, parameters, report
from papernets.nn import VGG, ConvNet, MobileNetV1, MobileNetV2, ResNetCIFAR
from papernets.papers.we import (
    ARMS,
    CIFAR,
    CIFAR_NETWORKS,
    IMAGENET,
    IMAGENET_NETWORKS,
    KINDS,
    MIXES,
    RECIPES,
    REFILLS,
    STARTS,
    WE,
    WE_IMAGENET,
    Evolution,
    Falling,
    Stages,
    TinyMobileNet,
    compare,
    cross_kernels,
    cross_pointwise,
    damage_,
    evolve_,
    facts,
    for_small_images,
    importance,
    match,
    mixture,
    populations,
    relative_importance,
    select,
    smoothed,
    threshold,
    training_cost,
    weak,
)
from papernets.training import fit, loader, run_recipe, seed_everything, steps

pytestmark = pytest.mark.usefixtures("one_thread")
ALWAYS = dict(schedule=lambda epoch: 1.0)  # ρ is the base rate at every epoch
STRONG = WE(rate=0.9, gamma=0.9, beta=0.9, local=0.9, **ALWAYS)


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


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# --- functions on tensors --------------------------------------------------------------------------------------------


def test_a_pointwise_crossover_by_hand():
    inferior, superior = torch.tensor([[0.1, -0.05]]), torch.tensor([[1.0, 2.0]])
    torch.testing.assert_close(cross_pointwise(inferior, superior), torch.tensor([[0.957143, 1.902381]]), atol=1e-6, rtol=0)
    assert superior.tolist() == [[1.0, 2.0]]


def test_a_kernel_crossover_by_hand():
    """p = 3 and q = -0.05: 2pq/(p + q) in the released code, and close to p where the strong one prevails."""
    inferior, superior = torch.tensor([0.1, 0.2, -0.05]).view(1, 1, 3, 1), torch.tensor([3.0, -1.0, 2.0]).view(1, 1, 3, 1)
    for mix, value in {"official": -0.101695, "dominant": 2.95}.items():
        found = cross_kernels(inferior, superior, mix).flatten()
        torch.testing.assert_close(found, torch.tensor([0.1, 0.2, value]), atol=1e-6, rtol=0)
    assert superior.flatten().tolist() == [3.0, -1.0, 2.0]


def slow_kernels(inferior, superior, mix):
    """Kernel by kernel in plain Python."""
    made = inferior.clone()
    for n, i in ((n, i) for n in range(len(made)) for i in range(made.shape[1])):
        p = max(superior[n, i].flatten().tolist(), key=abs)
        q = min(inferior[n, i].flatten().tolist(), key=abs)
        if mix == "official":
            if abs(p + q) < 1e-12:
                continue
            alpha = q / (q + p)
            value = p * alpha + q * (1 - alpha)
        else:
            if p == q == 0:
                continue
            alpha = abs(q) / (abs(q) + abs(p))
            value = q * alpha + p * (1 - alpha)
        made[n, i][inferior[n, i] == q] = value
    return made


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.sampled_from([(3, 3), (1, 3), (5, 1), (2, 3)]), st.sampled_from(MIXES),
       st.booleans(), st.integers(0, 99))
def test_kernels_against_loops(n, Ci, k, mix, ties, seed):
    draw = torch.Generator().manual_seed(seed)
    make = (lambda *shape: torch.randint(-2, 3, shape, generator=draw).double()) if ties else (
        lambda *shape: torch.randn(*shape, generator=draw, dtype=torch.float64))
    inferior, superior = make(n, Ci, *k), make(n, Ci, *k)
    before = superior.clone()
    torch.testing.assert_close(cross_kernels(inferior, superior, mix), slow_kernels(inferior, superior, mix))
    assert torch.equal(superior, before)


@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_the_dominant_mixture_is_bounded_by_its_parents(q, p):
    q, p = torch.tensor(q, dtype=torch.float64), torch.tensor(p, dtype=torch.float64)
    found = float(mixture(q, p))
    assert math.isfinite(found) and abs(found) <= max(abs(q), abs(p)) * (1 + 1e-12)
    assert min(q, p) - 1e-9 <= found <= max(q, p) + 1e-9


def test_what_the_text_says_about_the_official_mixture():
    """A weak element doubles, a clash of signs has a pole, and at the pole nothing happens."""
    value = mixture(torch.tensor(0.001), torch.tensor(1.0), "official")
    assert float(value) == pytest.approx(0.002, rel=2e-3)
    assert float(mixture(torch.tensor(-0.999), torch.tensor(1.0), "official")) == pytest.approx(-1998, rel=1e-3)
    assert float(mixture(torch.tensor(-1.0), torch.tensor(1.0), "official")) == -1.0
    assert abs(float(mixture(torch.tensor(-0.999), torch.tensor(1.0)))) < 1


@pytest.mark.parametrize("mix", MIXES)
def test_two_parents_of_nothing_stay_nothing(mix):
    assert mixture(torch.tensor(0.0), torch.tensor(0.0), mix) == 0
    assert torch.equal(cross_kernels(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3), mix), torch.zeros(1, 2, 3, 3))
    assert torch.equal(cross_pointwise(torch.zeros(2, 3), torch.zeros(2, 3)), torch.zeros(2, 3))


def test_a_dead_pointwise_filter_becomes_its_partner():
    superior = torch.randn(2, 5)
    assert torch.equal(cross_pointwise(torch.zeros(2, 5), superior), superior)


def test_importance_counts_inputs_and_not_the_size_of_the_kernel():
    W = torch.full((2, 4, 3, 3), 0.5)
    W[1] = -1
    assert importance(W).tolist() == [4.5, 9.0]
    assert importance(W[:, :1]).tolist() == [4.5, 9.0]  # depthwise: one input
    assert importance(W[:, :, :1, :1]).tolist() == [0.5, 1.0]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=23), st.floats(0, 0.999))
def test_the_threshold_is_an_order_statistic(values, rho):
    theta = threshold(torch.tensor(values).double(), rho)
    assert theta == sorted(values)[int(len(values) * rho)]
    assert sum(value < theta for value in values) <= int(len(values) * rho)


def test_ties_select_nothing():
    assert select(torch.zeros(5), threshold(torch.zeros(5), 0.9)) == (0, 0)
    assert select(torch.full((5,), 0.3), threshold(torch.full((5,), 0.3), 0.5), 0.9) == (0, 0)


def test_both_tests_must_agree():
    a = torch.tensor([10.0, 9.0, 0.5, 0.4, 0.3])  # 3 filters are at most a tenth of 10
    assert [select(a, theta, 0.1)[0] for theta in (0.2, 0.35, 0.45, 9.5, 99)] == [0, 1, 2, 3, 3]
    assert select(torch.tensor([8.0, 0.5, 0.25, 0.75]), 99, 0.0625)[0] == 2  # the filter equal to the limit is weak, too
    assert select(a, 99, 0.95)[0] == 4


def test_the_counter():
    strong = torch.tensor([1.0, 0.9])
    assert select(strong, 0.95, 0.1, counter=0, limit=2) == (0, 1)
    assert select(strong, 0.95, 0.1, counter=1, limit=2) == (1, 0)
    assert select(strong, 0.95, 0.1, counter=1, limit=3) == (0, 2)
    assert select(strong, 0.5, 0.1, counter=1, limit=2) == (0, 1)  # no weak filter in the network's eyes: untouched
    assert select(torch.tensor([1.0, 0.05]), 0.95, 0.1, counter=1, limit=2) == (1, 0)  # a local one resets it


def test_the_best_of_all_meets_the_best_of_the_weak():
    superior, inferior = match(torch.tensor([3.0, 0.1, 7.0, 0.3, 5.0, 0.2]), 3)
    assert superior.tolist() == [2, 4, 0] and inferior.tolist() == [3, 5, 1]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=11), st.integers(0, 11))
def test_pairs_against_a_loop(values, q):
    q = min(q, len(values))
    order = sorted(range(len(values)), key=lambda o: -values[o])
    pairs = [(order[j], order[len(values) - q + j]) for j in range(min(q, len(values) - q))]
    superior, inferior = match(torch.tensor(values).double(), q)
    assert list(zip(superior.tolist(), inferior.tolist())) == pairs
    assert not set(superior.tolist()) & set(inferior.tolist())


def test_the_weakest_stay_alone_where_partners_are_few():
    superior, inferior = match(torch.tensor([4.0, 3.0, 2.0, 1.0, 0.0]), 3)
    assert superior.tolist() == [0, 1] and inferior.tolist() == [2, 3]
    assert [len(part) for part in match(torch.ones(1), 1)] == [0, 0]


# --- when ------------------------------------------------------------------------------------------------------------

VALUES = {0: 0.1, 1: 0.10333, 5: 0.11651, 15: 0.14621, 30: 0.17616, 59: 0.19616, 60: 0.04, 75: 0.05848, 119: 0.07846, 120: 0.02,
          150: 0.03523, 199: 0.03979}


@pytest.mark.parametrize(("epoch", "rho"), VALUES.items())
def test_the_schedule_of_200_epochs(epoch, rho):
    assert 0.2 * CIFAR(epoch) == pytest.approx(rho, abs=5e-6)
    assert CIFAR.scaled(0.1)(epoch / 10) == pytest.approx(CIFAR(epoch))


def test_the_schedule_of_90_epochs():
    assert [IMAGENET(epoch) for epoch in (0, 30, 60)] == [0.5, 0.25, 0.125]
    assert IMAGENET(29) == pytest.approx(1 / (1 + math.exp(-29 / 8)))
    assert IMAGENET(38) == pytest.approx(0.5 / (1 + math.exp(-1)))


def test_a_straight_line():
    assert [Falling(10)(epoch) for epoch in (0, 5, 10, 12)] == [1, 0.5, 0, 0] and Falling(10).scaled(0.5)(1) == 0.8


# --- the verb --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def slow_evolve(model, config, epoch, counters):
    """The whole step in plain Python on nested lists of numbers: the names and new values of what changes."""
    kinds = {"conv": [], "gamma": [], "beta": []}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            W = module.weight.detach()
            kinds["conv"].append((f"{name}.weight", W, [float(w.double().abs().sum()) / W.shape[1] for w in W]))
        elif isinstance(module, nn.BatchNorm2d):
            for kind, part in (("gamma", "weight"), ("beta", "bias")):
                value = getattr(module, part)
                kinds[kind].append((f"{name}.{part}", value, [abs(float(one)) for one in value]))
    made = {}
    for kind, rate in zip(KINDS, (config.rate, config.gamma, config.beta)):
        every = sorted(x for *_, a in kinds[kind] for x in a)
        theta = every[int(len(every) * rate * config.schedule(epoch))]
        for name, value, a in kinds[kind]:
            g, local = sum(x < theta for x in a), sum(x <= config.local * max(a) for x in a)
            if g and not local:
                counters[kind] += 1
                if counters[kind] >= len(kinds["conv"]) / 2:
                    counters[kind], local = 0, 1
            elif g:
                counters[kind] = 0
            q = min(g, local) if g else 0
            order = sorted(range(len(a)), key=lambda o: -a[o])
            new = value.detach().clone()
            for j in range(min(q, len(a) - q)):
                i, o = order[j], order[len(a) - q + j]
                if kind == "conv" and new[0, 0].numel() > 1:
                    new[o] = slow_kernels(value[o : o + 1].detach(), value[i : i + 1].detach(), config.mix)[0]
                else:
                    own, other = float(value[o].abs().sum()), float(value[i].abs().sum())
                    new[o] = (value[o] * own + value[i] * other) / (own + other)
            made[name] = new
    return made


@pytest.mark.parametrize("build", [TinyMobileNet, lambda: ResNetCIFAR(8), lambda: MobileNetV2(0.25, 7),
                                   lambda: ConvNet((5, 7, 11), channels=2)])
@pytest.mark.parametrize("mix", MIXES)
def test_three_epochs_against_plain_python(build, mix):
    model = lively(build()).double()
    damage_(model, 0.3)
    config = WE(rate=0.5, gamma=0.4, beta=0.4, local=0.2, mix=mix)
    evolution, counters, changed = Evolution(config), dict.fromkeys(KINDS, 0), 0
    for epoch in range(3):
        expected = slow_evolve(model, config, epoch, counters)
        changed += sum(not torch.equal(model.get_parameter(name), value) for name, value in expected.items())
        evolution.step(model, epoch)
        for name, value in expected.items():
            torch.testing.assert_close(model.get_parameter(name).detach(), value, msg=lambda m, n=name: f"{n}: {m}")
        assert evolution.counters == counters
    assert changed > 6


@pytest.mark.parametrize("mix", MIXES + REFILLS)
def test_only_the_inferior_changes(mix):
    """Superior filters stay to the last bit, a 3×3 kernel changes in one element, and nothing else of the network changes."""
    model = lively(TinyMobileNet())
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
    changes = Evolution(WE(rate=0.4, **ALWAYS)).step(model, 0)
    assert [change.parameter for change in changes] == ["1.weight"]
    assert (changes[0].superior, changes[0].inferior) == ((4, 5), (2, 1))  # four are weak, and two have partners


@pytest.mark.parametrize(("layers", "first"), [(7, 4), (8, 4), (1, 1), (2, 1), (3, 2)])
def test_the_first_forced_evolution(layers, first):
    model = stack(*[(1.0, 0.9, 0.8, 0.5)] * layers)
    changes = Evolution(WE(rate=0.45, **ALWAYS)).step(model, 0)
    assert changes[0].parameter == f"{first - 1}.weight" and changes[0].inferior == (3,) and changes[0].superior == (0,)


def test_counters_carry_over_epochs_and_survive_saving(tmp_path):
    rows = [(1.0, 0.9, 0.8, 0.5)] * 7
    evolution = Evolution(WE(rate=0.45, **ALWAYS))
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
    changes = Evolution(WE(rate=0, gamma=0.4, beta=0, **ALWAYS)).step(model, 0)
    assert [(change.parameter, change.kind) for change in changes] == [("3.weight", "gamma"), ("7.weight", "gamma")]
    assert model[3].weight[2].item() == pytest.approx((0.25 + 1) / 1.5)


def test_opposite_signs_of_scales_are_mixed_by_size():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([-0.1, 1.0]))
    Evolution(WE(rate=0, gamma=0.5, beta=0, **ALWAYS)).step(model, 0)
    assert model[1].weight[0].item() == pytest.approx((0.1 * -0.1 + 1.0) / 1.1)


@pytest.mark.parametrize("config", [WE(rate=0, gamma=0, beta=0), WE(until=0), WE(**{**STRONG.__dict__, "until": 3})])
def test_nothing_to_evolve_changes_nothing(config):
    model = lively(TinyMobileNet())
    damage_(model)
    before, evolution = state(model), Evolution(config)
    assert evolution.step(model, 3) == [] and same(before, state(model))
    assert evolution.counters == dict.fromkeys(KINDS, 0)


def test_a_rate_just_under_one():
    model = lively(TinyMobileNet())
    changes = Evolution(WE(rate=0.999, gamma=0.999, beta=0.999, local=0.999, **ALWAYS)).step(model, 0)
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


def test_dilated_grouped_and_depthwise_convolutions():
    model = nn.Sequential(nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 8, 3, groups=2, dilation=2, stride=2))
    damage_(model, 0.5)
    changes = Evolution(WE(rate=0.6, **ALWAYS)).step(model, 0)
    assert {change.parameter: len(change.inferior) for change in changes} == {"0.weight": 3, "1.weight": 4}


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
    found = populations(model)
    assert {kind: list(every) for kind, every in found.items()} == {
        "conv": ["0.weight"], "gamma": ["1.weight", "3.weight"], "beta": ["1.bias", "3.bias"]}
    alone = copy.deepcopy(model[0])
    Evolution(STRONG).step(model, 0)
    single = nn.Sequential(alone)
    Evolution(STRONG).step(single, 0)
    assert torch.equal(single[0].weight, model[0].weight) and torch.equal(model[2].weight, model[0].weight)


def test_ignore_and_filter_fn():
    model = TinyMobileNet()
    ignored = Evolution(WE(**{**STRONG.__dict__, "ignore": ("features.6", "features.7")})).step(copy.deepcopy(model), 0)
    assert ignored and not any(change.parameter.startswith(("features.6.", "features.7.")) for change in ignored)
    only = WE(**{**STRONG.__dict__, "filter_fn": lambda name, module: getattr(module, "kernel_size", None) == (1, 1)})
    assert {change.parameter for change in Evolution(only).step(model, 0)} == {"features.6.weight", "features.12.weight"}


def test_one_step_is_the_verb_with_its_state():
    first, second = TinyMobileNet(), None
    second = copy.deepcopy(first)
    one, other = Evolution(), Evolution()
    assert one.step(first, 2) == evolve_(second, other, 2)
    assert same(state(first), state(second)) and one.state_dict() == other.state_dict()


def test_it_does_not_draw_from_the_global_generator():
    model = TinyMobileNet()
    before = torch.get_rng_state(), random.getstate()
    for mix in MIXES + REFILLS:
        Evolution(WE(**{**STRONG.__dict__, "mix": mix})).step(model, 0)
    assert torch.equal(before[0], torch.get_rng_state()) and before[1] == random.getstate()


def test_between_forward_and_backward_torch_refuses():
    model, x = TinyMobileNet(), torch.randn(3, 1, 8, 8)
    loss = model(x).sum()
    Evolution(STRONG).step(model, 0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("build", [lambda: ResNetCIFAR(8), VGG, lambda: MobileNetV1(0.25, 7), lambda: MobileNetV2(0.25, 7)])
def test_backbones_evolve_and_cost_what_they_cost(build):
    model = lively(build())
    damage_(model, scales=True)
    before, example = copy.deepcopy(model), torch.randn(1, 3, 32, 32)
    assert Evolution().step(model, 0)
    assert parameters(model) == parameters(before) and macs(model, example) == macs(before, example)
    rows = {row[0]: row[1:] for row in report(before, model, example, timed=False).rows()}
    assert rows["parameters"][0] == rows["parameters"][1] and rows["MACs"][0] == rows["MACs"][1]
    assert list(model.state_dict()) == list(before.state_dict()) and torch.isfinite(model(example)).all()
    loaded = build()
    loaded.load_state_dict(model.state_dict())
    assert torch.equal(loaded.eval()(example), model(example))


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [(lambda: WE(rate=1), r"rate 1 is outside \[0, 1\); the nearest is 0.99"),
     (lambda: WE(gamma=-0.1), r"gamma -0.1 is outside \[0, 1\); the nearest is 0"),
     (lambda: WE(beta=math.nan), r"beta nan is outside"), (lambda: WE(local=1.5), r"local 1.5 is outside \[0, 1\)"),
     (lambda: WE(mix="half"), "mix is 'half'; choose from dominant, official, copy, renew"),
     (lambda: mixture(torch.ones(1), torch.ones(1), "copy"), "mix is 'copy'; choose from dominant, official"),
     (lambda: WE(until=-1), "until is -1; the smallest epoch is 0"),
     (lambda: Stages((3,), 2, (1,)), "1 drops make 2 stages, and 1 factors are given"),
     (lambda: Stages((), 0, (1,)), "width is 0; it is a number of epochs above 0"),
     (lambda: threshold(torch.ones(3), 1.0), r"rate 1.0 is outside \[0, 1\); the nearest is 0.99"),
     (lambda: compare(0, start="tired"), "start is 'tired'; choose from healthy, scaled, dead")])
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def with_nan():
    model = TinyMobileNet()
    with torch.no_grad():
        model.features[9].weight[0, 0, 0, 0] = math.nan
    return model


def parametrised():
    model = TinyMobileNet()
    parametrize.register_parametrization(model.features[9], "weight", nn.Identity())
    return model


@pytest.mark.parametrize(
    ("build", "config", "epoch", "message"),
    [(with_nan, WE(), 0, "features.9.weight holds a value that is not finite"),
     (parametrised, WE(), 0, "features.9.weight is parametrised; .* ignore 'features.9'"),
     (TinyMobileNet, WE(), -1, "epoch is -1; the first is 0"),
     (TinyMobileNet, WE(schedule=lambda epoch: 5.0), 0, r"rate 1.0 is outside \[0, 1\)"),
     (TinyMobileNet, WE(gamma=0.5, schedule=lambda epoch: 2.0), 0, r"rate 1.0 is outside \[0, 1\)"),
     (TinyMobileNet, WE(ignore=("stem",)), 0, "ignore names 'stem', which is no layer"),
     (lambda: nn.Sequential(nn.Linear(3, 4), nn.Conv1d(4, 4, 1)), WE(), 0, "no Conv2d or BatchNorm2d of this network is left")])
def test_a_refused_network_is_unchanged(build, config, epoch, message):
    model = build()
    before, evolution = state(model), Evolution(config)
    with pytest.raises(ValueError, match=message):
        evolution.step(model, epoch)
    assert all(torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)) for a, b in zip(before.values(), state(model).values()))
    assert evolution.counters == dict.fromkeys(KINDS, 0)


# --- training --------------------------------------------------------------------------------------------------------


def trained(config, epochs=3, seed=0, **options):
    data = digits(200, seed)
    seed_everything(seed)
    model = TinyMobileNet()
    damage_(model, seed=seed, scales=True)
    evolution = None if config is None else Evolution(config)
    after = None if evolution is None else lambda model, epoch, history: evolution.step(model, epoch)
    history = fit(model, loader(data[0], 32, True), loader(data[1], 1000, False), epochs=epochs, lr=steps(0.05, ()), seed=seed,
                  after_epoch=after, **options)
    return model, history


def test_rates_of_zero_train_like_plain_training():
    (first, one), (second, other), (third, _) = trained(None), trained(WE(rate=0, gamma=0, beta=0)), trained(WE())
    assert one == other and same(state(first), state(second)) and not same(state(first), state(third))


def test_a_resumed_run_ends_as_if_it_had_never_stopped(tmp_path):
    """The counters are in the checkpoint: without them the forced evolutions would come elsewhere."""
    config = WE(rate=0.5, gamma=0.3, beta=0.3, local=1e-4)  # nothing is locally weak: all evolutions are forced

    def run(epochs, forget=False, folder=None):
        data = digits(100, 0)
        seed_everything(1)
        model, evolution = TinyMobileNet(), Evolution(config)
        fit(model, loader(data[0], 32, True), None, epochs=epochs, lr=steps(0.05, ()), seed=1,
            after_epoch=lambda model, epoch, history: evolution.step(model, epoch),
            carried=None if forget else {"evolution": evolution}, checkpoint=folder)
        return state(model), dict(evolution.counters)

    whole, counters = run(4)
    for forget in (False, True):
        path = tmp_path / f"{forget}.ckpt"
        _, half = run(3, forget, path)
        assert any(half.values())
        found, ended = run(4, forget, path)
        assert (same(found, whole) and ended == counters) != forget


def test_dead_filters_come_back_and_then_learn():
    """Ten short runs from dead starts; without pairing, thresholds or crossover as they are this cannot be had."""
    runs = [compare(seed, net="conv", start="dead", epochs=10, train=200, arms=("plain", "dominant", "official"))
            for seed in range(5)]
    assert all(run["arms"]["dominant"]["weak"] < 15 < run["arms"]["plain"]["weak"] for run in runs)
    gains = [run["arms"]["dominant"]["accuracy"] - run["arms"]["plain"]["accuracy"] for run in runs]
    assert sum(gains) / len(gains) > 0.02
    weaker = [run["arms"]["official"]["weak"] - run["arms"]["dominant"]["weak"] for run in runs]
    assert min(weaker) > 5  # where the weak element merely doubles, filters of 3×3 come back far more slowly


def test_all_arms_start_alike_and_runs_repeat():
    one, two = (compare(3, epochs=2, train=100, start=start, arms=ARMS) for start in ("dead", "scaled"))
    assert one == compare(3, epochs=2, train=100, start="dead", arms=ARMS)
    assert one["start"] == two["start"] and sum(x <= 0.1 for x in one["start"]) == 120
    assert set(one["arms"]) == set(ARMS) and one["arms"]["plain"]["evolved"] == []
    assert all(arm["evolved"][-1] == 0 for name, arm in one["arms"].items() if name != "plain")
    patches = compare(0, task="patches", net="conv", epochs=1, train=20)
    assert len(patches["start"]) == 80 and patches["arms"]["plain"] != {} and len(STARTS) == 3


def test_only_pointwise_filters_are_weak_in_a_network_that_has_both():
    """The norm is not divided by the size of the kernel, so a 3×3 filter looks nine times as important."""
    model = TinyMobileNet()
    changes = Evolution(WE(rate=0.4, local=0.9, **ALWAYS)).step(model, 0)
    filters = [change.parameter for change in changes if change.kind == "conv"]
    assert filters and set(filters) <= {"features.6.weight", "features.12.weight"}


def test_damage():
    model = ConvNet((8, 12))
    before = state(model)
    damage_(model, 0.5, 0.01, seed=4, scales=True)
    for conv, bn, count in (("features.0", "features.1", 8), ("features.4", "features.5", 12)):
        small = (model.get_submodule(conv).weight == before[f"{conv}.weight"] * 0.01).flatten(1).all(1)
        assert int(small.sum()) == count // 2
        assert torch.equal(small, model.get_submodule(bn).weight < 0.5)
    assert weak(model) == 10 and float(relative_importance(model).max()) == 1


def test_what_training_costs_is_measured():
    found = training_cost(repeats=1)
    assert {name: set(times) for name, times in found.items()} == {
        "tiny": {"evolution", "epoch"}, "mobilenetv2": {"evolution", "step"}}
    assert all(0 < value < 60_000 for times in found.values() for value in times.values())


# --- the card and the recipes ----------------------------------------------------------------------------------------


def test_every_exact_claim_of_the_card_holds():
    paper, found = card("we"), facts()
    exact = {claim.id: claim for claim in paper.claims if claim.kind == "exact"}
    assert exact.keys() == found.keys()
    for name, claim in exact.items():
        assert abs(found[name] - claim.paper) <= claim.accept.absolute, name


def test_every_full_claim_names_a_recipe_and_each_recipe_builds():
    named = [claim.recipe.split("--config ")[1] for claim in card("we").claims if claim.kind == "full"]
    assert set(named) <= RECIPES.keys() and len(named) == 4
    for claim in card("we").claims:
        for arm in ("mobilenetv2-cifar100-plain", "resnet56-cifar100-plain"):
            assert arm in RECIPES
        assert claim.kind != "full" or claim.recipe.startswith("papernets train we --config ")
    for name in named:
        recipe = RECIPES[name]()
        assert (recipe.data, recipe.epochs, recipe.batch, recipe.weight_decay) == ("cifar100", 200, 128, 5e-4)
        assert [recipe.lr(epoch) for epoch in (0, 60, 120, 180)] == pytest.approx([0.1, 0.01, 0.001, 0.0001])
        assert recipe.build()(torch.zeros(2, 3, 32, 32)).shape == (2, 100)


def test_arms_of_the_recipes():
    found = {name: RECIPES[name]() for name in RECIPES if name.startswith("mobilenetv2-cifar10")}
    mixes = {name: made.plugin().config.mix if made.plugin else None for name, made in found.items()}
    assert {name.removeprefix("mobilenetv2-cifar100"): mix for name, mix in mixes.items() if "cifar100" in name} == {
        "": "dominant", "-official": "official", "-plain": None, "-grafting": "copy", "-renewal": "renew", "-smoothing": None}
    assert [name for name, made in found.items() if made.loss] == ["mobilenetv2-cifar10-smoothing",
                                                                   "mobilenetv2-cifar100-smoothing"]
    whole = RECIPES["resnet34-imagenet"]()
    assert whole.plugin().config == WE_IMAGENET and (whole.epochs, whole.batch, whole.weight_decay) == (90, 256, 1e-4)
    assert len(RECIPES) == 6 * (2 * len(CIFAR_NETWORKS) + len(IMAGENET_NETWORKS))


def test_smoothed_labels_by_hand():
    outputs, labels = torch.tensor([[2.0, 0.0, 1.0]]), torch.tensor([0])
    logp = outputs.log_softmax(1)[0]
    expected = -(0.9 * logp[0] + 0.1 * logp.mean())
    torch.testing.assert_close(smoothed(outputs, torch.zeros(1), labels), expected)


@pytest.mark.parametrize(("name", "parameters_"), [("mobilenet", 3_309_476), ("mobilenetv2", 2_351_972), ("resnet56", 858_868)])
def test_networks_for_small_images(name, parameters_):
    model = CIFAR_NETWORKS[name](100).eval()
    assert parameters(model) == parameters_
    sides = []
    if hasattr(model, "features"):
        model.features.register_forward_hook(lambda module, inputs, output: sides.append(output.shape[2:]))
        model(torch.zeros(1, 3, 32, 32))
        assert sides == [(4, 4)]
    assert for_small_images(nn.Sequential(nn.Conv2d(1, 1, 1)))[0].stride == (1, 1)


@pytest.mark.parametrize("name", ["resnet34-imagenet", "mobilenetv2-0.25-imagenet-plain"])
def test_imagenet_recipes_ask_for_their_data(name, tmp_path):
    with pytest.raises(ValueError, match=r"imagenet cannot be fetched; give its folder with --data \(it holds train and val\)"):
        run_recipe(RECIPES[name](), tmp_path / "run")
    with pytest.raises(ValueError, match="train is not a folder"):
        run_recipe(RECIPES[name](), tmp_path / "run", data=tmp_path)
    assert not (tmp_path / "run").exists()


def test_a_recipe_runs_on_an_archive_in_the_published_format(write_archive, tmp_path):
    """Two epochs with evolution end elsewhere than without, in a network that loads anywhere, and the counters are saved."""
    def batch(count):
        pixels = torch.randint(0, 256, (count, 3073), dtype=torch.uint8)
        pixels[:, 0] %= 10
        return pixels.numpy().tobytes()

    members = {f"data_batch_{index}.bin": batch(4) for index in range(1, 6)}
    members |= {"test_batch.bin": batch(6), "batches.meta.txt": "\n".join("abcdefghij").encode()}
    archive = write_archive((f"cifar-10-batches-bin/{name}", content) for name, content in members.items())
    weights = []
    for name in ("resnet20-cifar10", "resnet20-cifar10-plain"):
        run_recipe(RECIPES[name](), tmp_path / name, data=archive, epochs=1, workers=0)
        ResNetCIFAR(20).load_state_dict(torch.load(tmp_path / name / "best.pt", weights_only=True))
        weights.append(torch.load(tmp_path / name / "last.ckpt", weights_only=True))
    assert set(weights[0]["carried.plugin"]["counters"]) == set(KINDS) and "carried.plugin" not in weights[1]
    before, after = (one["model"] for one in weights)
    assert before.keys() == after.keys() and any(not torch.equal(before[name], after[name]) for name in before)
    best = (torch.load(tmp_path / name / "best.pt", weights_only=True) for name in
            ("resnet20-cifar10", "resnet20-cifar10-plain"))
    assert same(*best)  # of the epoch before the first evolution
