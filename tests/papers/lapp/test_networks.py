"""LAPP: the networks and their counts."""

import pytest
import torch

from papernets.nn import MobileNetV2, ResNetCIFAR
from papernets.papers.lapp import LAPP, attach_, compact, export, networks, prunable, settle_, train, uniform_
from papernets.papers.lapp.networks import DIGIT, narrow_widths, small_net

pytestmark = pytest.mark.usefixtures("one_thread")


def test_what_is_pruned_and_what_is_left_out():
    example = torch.zeros(1, 3, 32, 32)
    found = prunable(ResNetCIFAR(20), LAPP(), example)
    assert len(found) == 18 and "conv1" not in found and found["blocks.0.conv1"] == "blocks.0.bn1"
    assert len(prunable(networks.projected_resnet(), LAPP(), example)) == 18
    net = small_net((4, 8, 8, 8))
    assert list(prunable(net, LAPP(ignore=("features.7",)), DIGIT)) == ["features.4", "features.10"]
    assert list(prunable(net, LAPP(filter_fn=lambda name, module: module.in_channels == 4), DIGIT)) == ["features.4"]
    wide = MobileNetV2(0.25)
    assert {wide.get_submodule(name).groups for name in prunable(wide, LAPP(pointwise=True), example)} == {1}
    with pytest.raises(ValueError, match="no Conv2d of this network is left to work on"):
        prunable(wide, LAPP(), example)


@pytest.mark.parametrize(
    ("call", "message"),
    [(lambda: LAPP(removed=1), r"removed 1 is outside \[0, 1\); the nearest is 0.99"),
     (lambda: LAPP(removed=-0.5), r"removed -0.5 is outside \[0, 1\); the nearest is 0"),
     (lambda: LAPP(bypass="wide"), "bypass is 'wide'; choose from grouped, depthwise, None"),
     (lambda: LAPP(score="l2"), "score is 'l2'; choose from l1, bn"),
     (lambda: LAPP(push="cube"), "push is 'cube'; choose from hinge, square"),
     (lambda: LAPP(groups=0), "groups is 0; it is a whole number"),
     (lambda: LAPP(delta=0), "delta is 0; it is a finite number above 0, such as 1"),
     (lambda: LAPP(lr=-1.0), "lr is -1.0; it is a finite number above 0, such as 0.1"),
     (lambda: LAPP(strength=-1), "strength is -1; it must be at least 0"),
     (lambda: LAPP(progressive=0), "progressive is 0; it is a whole number of at least 1"),
     (lambda: attach_(small_net()), "example is missing"),
     (lambda: compact(small_net()), "this network has no thresholds; call attach_ first"),
     (lambda: export(small_net(), DIGIT), "this network has no compact layer; call compact first"),
     (lambda: networks.counts("vgg"), "network is 'vgg'; choose from resnet20, "),
     (lambda: train(small_net(), ((), None), LAPP(progressive=5), epochs=4, example=DIGIT),
      "4 epochs are fewer than the 5 of the progressive phase; the nearest is 5"),
     (lambda: train(small_net(), ((), None), epochs=20, rule="best"), "rule is 'best'; choose from learned, uniform, one-shot"),
     (lambda: narrow_widths(0.999), "removed 0.999 leaves less than one filter a layer; choose a smaller share")])
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [(lambda: LAPP(target=0.4), r"LAPP takes removed in place of target \(the share that goes, 1 - target\)"),
     (lambda: LAPP(rate=0.1), "LAPP takes lr in place of rate"),
     (lambda: settle_(small_net(), None, target=0.4), "settle_ takes removed in place of target"),
     (lambda: uniform_(small_net(), None, target=0.4), "uniform_ takes removed in place of target"),
     (lambda: narrow_widths(share=0.4), "narrow_widths takes removed in place of share")])
def test_a_keyword_of_old_tells_the_new_one(call, message):
    with pytest.raises(TypeError, match=message):
        call()


@pytest.mark.parametrize("rho", [1, 0.999, 0.444, 0.403, 0.4, 0.3, 0.2, 0.1])
def test_what_is_left_is_what_was_asked_for_to_the_last_bit(rho):
    assert LAPP(removed=round(1 - rho, 12)).rho == rho
