"""What surgery refuses: wrong lists and names, sums that disagree, groups, and networks that would lose outputs."""

import pytest
import torch
from surgery_checks import (
    FIVE,
    SEVEN,
    Net,
    assert_dead_filters_do_not_matter,
    chain,
    conv,
    cut_in_two,
    depthwise,
    keep,
    prepared,
    residual,
    same,
    snapshot,
)
from torch import nn
from torch.nn import functional as F

from papernets.nn import ResNetCIFAR
from papernets.nn.surgery import keep_filters

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("wrong", [[], [7], [-1, 2], [0, 1, 1]])
def test_a_wrong_list_is_refused(wrong):
    model, x = prepared(chain)
    with pytest.raises(ValueError, match="a: the kept filters must be distinct and from 0 to 6, and at least one"):
        keep_filters(model, {"a": torch.tensor(wrong, dtype=torch.int64)}, x)


@pytest.mark.parametrize("name", ["head", "norm", "absent", ""])
def test_a_name_that_is_no_convolution_is_refused(name):
    model, x = prepared(chain)
    with pytest.raises(ValueError, match=f"'{name}' is no convolution of this network"):
        keep_filters(model, {name: keep(0)}, x)


def test_disagreeing_lists_are_refused():
    model, x = prepared(residual)
    with pytest.raises(ValueError, match=r"stem and [bc] are added together and .* they keep 3 and 2"):
        keep_filters(model, {"stem": SEVEN, "b": FIVE, "c": FIVE}, x)
    with pytest.raises(ValueError, match="must keep the same filters; they keep 3 and 3"):  # as many, but others
        keep_filters(model, {"stem": SEVEN, "b": SEVEN, "c": keep(1, 3, 5)}, x)


def test_an_incomplete_sum_is_refused():
    model, x = prepared(residual)
    with pytest.raises(ValueError, match=r"c and \w+ are added together and .* they keep 3 and 7"):
        keep_filters(model, {"c": SEVEN}, x)


def grouped_after():
    return Net(lambda m, x: m.head(m.grouped(F.relu(m.a(x))).mean((2, 3))),
               a=conv(3, 6), grouped=conv(6, 6, groups=2), head=nn.Linear(6, 5))


def multiplied_depthwise():
    return Net(lambda m, x: m.head(m.deep(F.relu(m.a(x))).mean((2, 3))),
               a=conv(3, 5), deep=conv(5, 10, groups=5), head=nn.Linear(10, 3))


@pytest.mark.parametrize("kept", [{"grouped": keep(0, 1, 3, 4)}, {"a": keep(0, 1, 2, 3)}, {"a": keep(0, 1, 3, 4)},
                                  {"a": keep(0, 3), "grouped": keep(0, 3)}], ids=str)
def test_grouped_convolutions_are_refused(kept):
    model, x = prepared(grouped_after)
    with pytest.raises(ValueError, match="grouped has 2 groups"):
        keep_filters(model, kept, x)


@pytest.mark.parametrize("name", ["a", "deep"])
def test_a_depthwise_convolution_with_several_filters_a_channel_is_refused(name):
    model, x = prepared(multiplied_depthwise)
    with pytest.raises(ValueError, match="deep has 5 groups"):
        keep_filters(model, {name: keep(0, 2, 4)}, x)


def test_a_depthwise_convolution_alone_is_refused():
    model, x = prepared(depthwise)
    with pytest.raises(ValueError, match="deep and a"):
        keep_filters(model, {"deep": SEVEN}, x)


def outputs_channels():
    return Net(lambda m, x: m.b(F.relu(m.a(x))), a=conv(3, 7), b=conv(7, 5))


def outputs_features(kind):
    def forward(m, x):
        features = F.relu(m.a(x))
        result = m.head(features.mean((2, 3)))
        return {"tuple": (result, features), "dict": {"result": result, "features": features},
                "nested": (result, [features])}[kind]
    return Net(forward, a=conv(3, 7), head=nn.Linear(7, 5))


@pytest.mark.parametrize(("build", "name"), [
    (outputs_channels, "b"), (lambda: Net(lambda m, x: m.b(x).mean((2, 3)), b=conv(3, 5)), "b"),
    *((lambda kind=kind: outputs_features(kind), "a") for kind in ("tuple", "dict", "nested")),
], ids=["map", "mean", "tuple", "dict", "nested"])
def test_a_network_that_would_lose_outputs_is_refused(build, name):
    model, x = prepared(build)
    with pytest.raises(ValueError, match="own outputs would lose channels; leave its last convolution out"):
        keep_filters(model, {name: keep(0, 2)}, x)


def test_the_other_layers_of_that_network_may_be_narrowed():
    model, x = prepared(outputs_channels)
    assert_dead_filters_do_not_matter(model, x, {"a": SEVEN})


def added_to_the_input():
    return Net(lambda m, x: m.head((x + m.added(x)).mean((2, 3))), added=conv(3, 3), head=nn.Linear(3, 5))


def resnet_with_padding():
    return ResNetCIFAR(8, stages=(5, 7, 11))


@pytest.mark.parametrize(("build", "kept", "pixels"), [
    (added_to_the_input, {"added": keep(0, 2)}, (11, 13)),
    (cut_in_two, {"halves": keep(0, 2, 3)}, (11, 13)),
    (cut_in_two, {"halves": keep(0, 2, 3, 8)}, (11, 13)),  # an even number, but 3 of one half and 1 of the other
    (resnet_with_padding, {name: keep(1, 2, 4) for name in ("conv1", "blocks.0.conv2", "blocks.1.conv2",
                                                            "blocks.2.conv2")}, (32, 32)),
], ids=["added to the input", "cut in two", "cut unevenly", "padding shortcut"])
def test_what_cannot_be_narrowed_is_refused_in_our_words(build, kept, pixels):
    """Widths that something else fixes: the image, a cut into equal parts, a number of zeros."""
    model, x = prepared(build, pixels)
    before = snapshot(model)
    with pytest.raises(ValueError, match=next(iter(kept))):
        keep_filters(model, kept, x)
    assert same(snapshot(model), before)
