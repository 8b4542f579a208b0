"""PSPNet and its backbone: the published sizes, where strides and dilations sit, and pooling by regions."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from papernets.measure import parameters
from papernets.nn import PSPNet, ResNetImageNet
from papernets.training import seed_everything

pytestmark = pytest.mark.usefixtures("one_thread")

NARROW = dict(stem=3, widths=(5, 6, 7, 8), first=(3,) * 16, second=(3,) * 16)


def on_meta(build):
    with torch.device("meta"):
        return build()


def windows(model):
    """Stride and dilation of the 3×3 convolution of every block."""
    return [(block.conv2.stride[0], block.conv2.dilation[0]) for block in model.blocks]


def test_strides_and_dilations_of_the_backbone():
    """A dropped stride doubles the distance, but only behind the block where it was."""
    first = [(1, 1)] * 3 + [(2, 1)] + [(1, 1)] * 3
    assert windows(on_meta(ResNetImageNet)) == [*first, (2, 1), *[(1, 1)] * 5, (2, 1), (1, 1), (1, 1)]
    assert windows(on_meta(lambda: ResNetImageNet(stride=16))) == [*first, (2, 1), *[(1, 1)] * 5, (1, 1), (1, 2), (1, 2)]
    assert windows(on_meta(lambda: ResNetImageNet(stride=8))) == [*first, (1, 1), *[(1, 2)] * 5, (1, 2), (1, 4), (1, 4)]


@pytest.mark.parametrize(("stride", "side"), [(32, 2), (16, 4), (8, 8)])
def test_features_have_the_stride(stride, side):
    seed_everything(0)
    model = ResNetImageNet(NARROW["first"], NARROW["second"], NARROW["widths"], 3, None, deep=True, stride=stride).eval()
    assert model(torch.rand(2, 3, 64, 64)).shape == (2, 8, side, side)


def test_the_deep_stem_is_three_convolutions():
    plain, deep = (on_meta(lambda deep=deep: ResNetImageNet(deep=deep)) for deep in (False, True))
    stem = 3 * 9 * 64 + 2 * 64 + 64 * 9 * 64 + 2 * 64 + 64 * 9 * 128 + 2 * 128
    wider = 64 * 64 + 64 * 256  # the first block reads 128 channels, twice
    assert parameters(deep) - parameters(plain) == stem + wider - (3 * 49 * 64 + 2 * 64)
    assert parameters(plain) == 25_557_032  # as published


def test_a_stride_that_is_not_offered_is_refused():
    with pytest.raises(ValueError, match="stride is 4; choose 8, 16 or 32"):
        ResNetImageNet(stride=4)


def test_without_classes_there_is_no_classifier():
    model = on_meta(lambda: ResNetImageNet(classes=None))
    assert not [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    assert parameters(model) == 25_557_032 - 2049 * 1000


def test_the_head_averages_regions():
    """Each scale, computed by hand from the means of its regions."""
    seed_everything(0)
    model = PSPNet(4, **NARROW).eval()
    x = torch.rand(2, 8, 6, 6)
    for level, side in zip(model.levels, (1, 2, 3, 6)):
        means = x.view(2, 8, side, 6 // side, side, 6 // side).mean((3, 5))
        by_hand = F.relu(level[2](level[1](means)))
        wanted = F.interpolate(by_hand, (6, 6), mode="bilinear", align_corners=True)
        torch.testing.assert_close(level(x), wanted)
        assert level[1].out_channels == 2


def test_every_pixel_gets_a_score_for_every_class():
    seed_everything(0)
    model = PSPNet(5, **NARROW).eval()
    assert model(torch.rand(2, 3, 65, 97)).shape == (2, 5, 65, 97)
    full = on_meta(PSPNet)
    head = sum(2048 * 512 + 1024 for _ in range(4)) + 4096 * 9 * 512 + 1024 + 513 * 21
    assert parameters(full) - parameters(full.backbone) == head


def test_it_learns_to_label_pixels():
    """Squares, red or green, on a dark ground, at places that a map of another orientation would miss."""
    draw = torch.Generator().manual_seed(0)
    images, masks = torch.rand(12, 3, 48, 40, generator=draw) * 0.3, torch.zeros(12, 48, 40, dtype=torch.long)
    for index, (image, mask) in enumerate(zip(images, masks)):
        x, y = torch.randint(0, 40 - 24, (), generator=draw), torch.randint(0, 48 - 24, (), generator=draw)
        image[index % 2, y:y + 24, x:x + 24] += 0.6
        mask[y:y + 24, x:x + 24] = index % 2 + 1
    seed_everything(0)
    model = PSPNet(3, stem=8, widths=(16, 16, 16, 16), first=(8,) * 16, second=(8,) * 16, stride=8, dropout=0.0)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(80):
        loss = F.cross_entropy(model(images), masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = model(images).argmax(1)
    for kind in range(3):
        ours, theirs = found == kind, masks == kind
        assert (ours & theirs).sum() / (ours | theirs).sum() > 0.7
