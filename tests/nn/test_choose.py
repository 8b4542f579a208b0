"""Which layers are chosen, how widths are rounded, and the refusals."""

import pytest
from torch import nn

from papernets.nn import chosen, rounded


def network():
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.Sequential(nn.Conv2d(5, 7, 1), nn.ReLU(), nn.Conv2d(7, 7, 3, groups=7)),
                         nn.Flatten(), nn.Linear(28, 11))


def test_by_kind_in_order():
    assert list(chosen(network(), nn.Conv2d)) == ["0", "1.0", "1.2"]
    assert list(chosen(network(), (nn.Conv2d, nn.Linear))) == ["0", "1.0", "1.2", "3"]


def test_the_modules_are_those_of_the_network():
    model = network()
    assert chosen(model, nn.Linear)["3"] is model[3]


@pytest.mark.parametrize(("ignore", "left"), [(("0",), ["1.0", "1.2"]), (("1",), ["0"]), (("1.0", "1.2"), ["0"]),
                                              (("2",), ["0", "1.0", "1.2"])])
def test_ignored_are_names_and_what_is_inside(ignore, left):
    assert list(chosen(network(), nn.Conv2d, ignore=ignore)) == left


def test_a_name_is_no_prefix_of_another():
    model = nn.ModuleDict({"conv": nn.Conv2d(1, 1, 1), "conv2": nn.Conv2d(1, 1, 1)})
    assert list(chosen(model, nn.Conv2d, ignore=("conv",))) == ["conv2"]


def test_filter_fn_sees_name_and_module():
    assert list(chosen(network(), nn.Conv2d, filter_fn=lambda name, module: module.groups == 1 and name != "0")) == ["1.0"]


@pytest.mark.parametrize(
    ("options", "message"),
    [(dict(ignore=("3", "stem")), "ignore names 'stem', which is no layer of this network; choose from 0, 1.0, 1.2"),
     (dict(ignore=("",)), "ignore names ''"),
     (dict(ignore="0"), r"ignore is the text '0'; give a sequence of names: \('0',\)"),
     (dict(ignore=("0", "1")), "no Conv2d of this network is left to work on; it has 0, 1.0, 1.2"),
     (dict(filter_fn=lambda name, module: False), "no Conv2d of this network is left")])
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        chosen(network(), nn.Conv2d, **options)


def test_a_long_list_is_cut():
    model = nn.Sequential(*[nn.Conv2d(1, 1, 1) for _ in range(15)])
    with pytest.raises(ValueError, match=r"choose from 0, .*, 11 and 3 more$"):
        chosen(model, nn.Conv2d, ignore=("x",))


@pytest.mark.parametrize(
    ("width", "round_to", "full", "expected"),
    [(13, 1, 20, 13), (13, 8, 20, 16), (11, 8, 20, 8), (12, 8, 20, 16), (1, 8, 20, 8), (0, 8, 20, 8), (20, 8, 20, 16),
     (23, 8, 24, 24), (3, 8, 5, 5), (5, 4, 7, 4), (6, 4, 7, 4)])
def test_rounding(width, round_to, full, expected):
    assert rounded(width, round_to, full) == expected


@pytest.mark.parametrize("round_to", [0, -1, 1.5])
def test_rounding_to_nothing_is_refused(round_to):
    with pytest.raises(ValueError, match="it is a whole number of at least 1"):
        rounded(3, round_to, 8)
