"""LAPP: the networks and their counts."""

import pytest
import torch
from papers.lapp.samples import DIGIT

from papernets.nn import MobileNetV2, ResNetCIFAR
from papernets.papers.lapp import LAPP, attach_, compact, export, networks, prunable, train
from papernets.papers.lapp.networks import narrow_widths, small_net

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
    [(lambda: LAPP(target=0.0), r"target 0.0 is outside \(0, 1\]; the nearest is 0.01"),
     (lambda: LAPP(target=1.5), r"target 1.5 is outside \(0, 1\]; the nearest is 1"),
     (lambda: LAPP(bypass="wide"), "bypass is 'wide'; choose from grouped, depthwise, None"),
     (lambda: LAPP(score="l2"), "score is 'l2'; choose from l1, bn"),
     (lambda: LAPP(push="cube"), "push is 'cube'; choose from hinge, square"),
     (lambda: LAPP(groups=0), "groups is 0; it is a whole number"),
     (lambda: LAPP(delta=0), "delta is 0; it must be above 0, such as 1.0"),
     (lambda: LAPP(rate=-1.0), "rate is -1.0; it must be above 0"),
     (lambda: LAPP(strength=-1), "strength is -1; it must be at least 0"),
     (lambda: LAPP(progressive=0), "progressive is 0; the phase has a whole number of epochs"),
     (lambda: attach_(small_net()), "example is missing"),
     (lambda: compact(small_net()), "this network has no thresholds; call attach_ first"),
     (lambda: export(small_net(), DIGIT), "this network has no compact layer; call compact first"),
     (lambda: networks.network("vgg"), "no network 'vgg'; choose from resnet20, "),
     (lambda: train(small_net(), ((), None), LAPP(progressive=5), epochs=4, example=DIGIT),
      "4 epochs are fewer than the 5 of the progressive phase; the nearest is 5"),
     (lambda: train(small_net(), ((), None), epochs=20, rule="best"), "rule is 'best'; choose from learned, uniform, one-shot"),
     (lambda: narrow_widths(0.001), "share 0.001 is below that of one filter a layer")])
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
