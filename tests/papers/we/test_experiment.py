"""Weight Evolution: the experiments."""

import copy
import math

import pytest
import torch
from model_checks import lively
from papers.we.sample import ALWAYS, STRONG, same, slow_kernels, state
from torch import nn

from papernets.measure import macs, parameters, report
from papernets.nn import VGG, ConvNet, MobileNetV1, MobileNetV2, ResNetCIFAR, SmallMobileNet
from papernets.papers.we import KINDS, MIXES, WE, Evolution, Stages, mixture, relative_importance, threshold, weak
from papernets.papers.we.experiment import ARMS, STARTS, compare, damage_, experiments, training_cost
from papernets.training import pair, scores

pytestmark = pytest.mark.usefixtures("one_thread")


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
    for kind, rate in zip(KINDS, (config.weak, config.gamma, config.beta)):
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


@pytest.mark.parametrize("build", [SmallMobileNet, lambda: ResNetCIFAR(8), lambda: MobileNetV2(0.25, 7),
                                   lambda: ConvNet((5, 7, 11), channels=2)])
@pytest.mark.parametrize("mix", MIXES)
def test_three_epochs_against_plain_python(build, mix):
    model = lively(build()).double()
    damage_(model, 0.3)
    config = WE(weak=0.5, gamma=0.4, beta=0.4, local=0.2, mix=mix)
    evolution, counters, changed = Evolution(config), dict.fromkeys(KINDS, 0), 0
    for epoch in range(3):
        expected = slow_evolve(model, config, epoch, counters)
        changed += sum(not torch.equal(model.get_parameter(name), value) for name, value in expected.items())
        evolution.step(model, epoch)
        for name, value in expected.items():
            torch.testing.assert_close(model.get_parameter(name).detach(), value, msg=lambda m, n=name: f"{n}: {m}")
        assert evolution.counters == counters
    assert changed > 6


@pytest.mark.parametrize("config", [WE(weak=0, gamma=0, beta=0), WE(until=0), WE(**{**STRONG.__dict__, "until": 3})])
def test_nothing_to_evolve_changes_nothing(config):
    model = lively(SmallMobileNet())
    damage_(model)
    before, evolution = state(model), Evolution(config)
    assert evolution.step(model, 3) == [] and same(before, state(model))
    assert evolution.counters == dict.fromkeys(KINDS, 0)


def test_dilated_grouped_and_depthwise_convolutions():
    model = nn.Sequential(nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 8, 3, groups=2, dilation=2, stride=2))
    damage_(model, 0.5)
    changes = Evolution(WE(weak=0.6, **ALWAYS)).step(model, 0)
    assert {change.parameter: len(change.inferior) for change in changes} == {"0.weight": 3, "1.weight": 4}


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


@pytest.mark.parametrize(
    ("call", "message"),
    [(lambda: WE(weak=1), r"weak 1 is outside \[0, 1\); the nearest is 0.99"),
     (lambda: WE(gamma=-0.1), r"gamma -0.1 is outside \[0, 1\); the nearest is 0"),
     (lambda: WE(beta=math.nan), r"beta nan is outside"), (lambda: WE(local=1.5), r"local 1.5 is outside \[0, 1\)"),
     (lambda: WE(mix="half"), "mix is 'half'; choose from dominant, official, copy, renew"),
     (lambda: mixture(torch.ones(1), torch.ones(1), "copy"), "mix is 'copy'; choose from dominant, official"),
     (lambda: WE(until=-1), "until is -1; it is a whole number of at least 0"),
     (lambda: Stages((3,), 2, (1,)), "1 drops make 2 stages, and 1 factors are given"),
     (lambda: Stages((), 0, (1,)), "width is 0; it is a finite number above 0, such as 15"),
     (lambda: threshold(torch.ones(3), 1.0), r"rho 1.0 is outside \[0, 1\); the nearest is 0.99"),
     (lambda: compare(0, start="tired"), "start is 'tired'; choose from healthy, scaled, dead"),
     (lambda: compare(0, data="letters"), "data is 'letters'; choose from digits, patches"),
     (lambda: compare(0, net="wide"), "net is 'wide'; choose from mobile, conv"),
     (lambda: experiments(0, 0.0), r"share 0.0 is outside \(0, 1\]")])
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_share_of_weak_filters_was_once_called_the_rate():
    with pytest.raises(TypeError, match="WE takes weak in place of rate"):
        WE(rate=0.2)


def test_dead_filters_come_back_and_then_learn():
    """Ten short runs from dead starts; without pairing, thresholds or crossover as they are this cannot be had."""
    rows = [row for seed in range(5) for row in compare(
        seed, net="conv", start="dead", epochs=10, train=200, arms=("plain", "dominant", "official"))]
    weak_by = {arm: scores(rows, arm, key="weak") for arm in ("plain", "dominant", "official")}
    assert all(ours < 15 < plain for ours, plain in zip(weak_by["dominant"], weak_by["plain"]))
    gains = [ours - plain for ours, plain in zip(*pair(rows, "dominant", "plain"))]
    assert sum(gains) / len(gains) > 0.02
    weaker = [official - ours for official, ours in zip(weak_by["official"], weak_by["dominant"])]
    assert min(weaker) > 5  # where the weak element merely doubles, filters of 3×3 come back far more slowly


def test_all_arms_start_alike_and_runs_repeat():
    one, two = (compare(3, epochs=2, train=100, start=start, arms=ARMS) for start in ("dead", "scaled"))
    assert one == compare(3, epochs=2, train=100, start="dead", arms=ARMS)
    assert one[0]["start"] == two[0]["start"] and sum(x <= 0.1 for x in one[0]["start"]) == 120
    assert [row["arm"] for row in one] == list(ARMS) and one[0]["evolved"] == []
    assert all(row["evolved"][-1] == 0 and row["seed"] == 3 for row in one[1:])
    patches = compare(0, data="patches", net="conv", epochs=1, train=20)
    assert len(patches[0]["start"]) == 80 and [row["arm"] for row in patches] == ["plain", "dominant"] and len(STARTS) == 3


def test_the_rows_of_several_comparisons_carry_their_names():
    rows = experiments(1, share=0.05, names=("scaled", "dead mobile"))
    assert [(row["at"], row["arm"]) for row in rows] == [(name, arm) for name in ("scaled", "dead mobile")
                                                         for arm in ("plain", "dominant")]
    assert rows[0]["start"] == rows[2]["start"] and rows[1]["relative"] != rows[3]["relative"]


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
    seconds = training_cost(repeats=1)
    assert {name: set(times) for name, times in seconds.items()} == {
        "small": {"evolution", "epoch"}, "mobilenetv2": {"evolution", "step"}}
    assert all(0 < value < 60 for times in seconds.values() for value in times.values())
