"""CC: what is refused, before anything is changed."""

import math

import pytest
from papers.cc.sample import some_batches
from torch import nn

from papernets.nn import ConvNet
from papernets.papers.cc import CC, Layer, compress, gradients, narrowed
from papernets.papers.cc.networks import counts

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("call", "message"),
    [(lambda: CC(removed=1.0), r"removed 1.0 is outside \[0, 1\); the nearest is 0.95"),
     (lambda: CC(removed=-0.1), r"removed -0.1 is outside \[0, 1\); the nearest is 0"),
     (lambda: CC(removed={"a": 1.5}), r"removed of a 1.5 is outside \[0, 1\)"),
     (lambda: CC(gamma=-1), "gamma is -1; the nearest is 0"),
     (lambda: CC(gamma=math.nan), "gamma is nan"),
     (lambda: CC(cap=1.0), r"cap 1.0 is outside \(0, 1\); the nearest is 0.95"),
     (lambda: CC(step=2), r"step 2 is outside \[0, 1\]; the nearest is 1"),
     (lambda: CC(budget="bytes"), "budget is 'bytes'; choose from macs, params"),
     (lambda: CC(rule="best"), "rule is 'best'; choose from equal_marginal, lagrange, uniform"),
     (lambda: CC(units="filters"), "units is 'filters'; choose from joint, channels, ranks"),
     (lambda: CC(round_to=0), "round_to is 0"),
     (lambda: narrowed(ConvNet((4, 4)), {"features.1": Layer((0,))}), "'features.1' is no convolution or linear layer"),
     (lambda: narrowed(ConvNet((4, 4)), {"features.4": Layer((7,))}), "features.4: channel 7 is kept, and the layer has 4"),
     (lambda: narrowed(nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)), {"0": Layer((0,))}), "0: it has 2 groups; the method"),
     (lambda: narrowed(nn.Conv2d(4, 4, 3), {"": Layer((0,))}), "put it into an nn.Sequential"),
     (lambda: compress(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, groups=4)), some_batches()),
      "no Conv2d of this network is left to work on"),
     (lambda: compress(ConvNet((4, 4)), []), "there is no batch"),
     (lambda: compress(ConvNet((4, 4)), iter(some_batches())), "batches is an iterator, of which the first would be lost"),
     (lambda: gradients(ConvNet((4, 4)), [], ["features.4"]), "there is no batch"),
     (lambda: compress(ConvNet((4, 4)), some_batches(), CC(ignore=("x",))), "ignore names 'x', which is no layer"),
     (lambda: compress(ConvNet((4, 4)), some_batches(), CC(removed={"features.0": 0.5})),
      "a layer to compress is 'features.0'; choose from features.4"),
     (lambda: compress(ConvNet((4, 4)), some_batches(), CC(removed={"features.4": 0.94})), "features.4: share 0.94 is unreach"),
     (lambda: counts("alexnet"), "network is 'alexnet'; choose from resnet56, ")])
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(("old", "message"), [
    ({"target": 0.5}, "CC takes removed in place of target"),
    ({"rates": {"features.4": 0.5}}, r"CC takes removed in place of rates \(a share for each layer, by name\)")])
def test_keywords_of_old_name_the_new_one(old, message):
    with pytest.raises(TypeError, match=message):
        CC(**old)
