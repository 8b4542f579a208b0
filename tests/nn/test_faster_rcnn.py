"""Faster R-CNN: anchors, pooling against a slow loop, what each stage shall learn, and learning."""

import math

import pytest
import torch

from papernets.measure import mean_average_precision, overlaps, parameters
from papernets.nn import FasterRCNN
from papernets.nn._boxes import decode
from papernets.nn._faster_rcnn import anchor_targets, anchors, pool, proposal_targets
from papernets.training import seed_everything

pytestmark = pytest.mark.usefixtures("one_thread")

NARROW = (4, 4, 5, 5, 6, 6, 6, 7, 7, 7, 8, 8, 8)


def small(classes=3, **options):
    return FasterRCNN(classes, NARROW, 11, scales=(1, 2, 4), proposals=((200, 20), (100, 10)), **options)


def test_nine_anchors_at_every_position():
    found = anchors(3, 5)
    assert found.shape == (3 * 5 * 9, 4)
    sizes = found[:9, 2:] - found[:9, :2]  # (width, height)
    torch.testing.assert_close(sizes.prod(1), torch.tensor([128.0, 256, 512]).square().repeat(3))
    torch.testing.assert_close(sizes[:, 1] / sizes[:, 0], torch.tensor([0.5, 1, 2]).repeat_interleave(3))
    middles = (found[:, :2] + found[:, 2:]) / 2
    assert middles.view(3, 5, 9, 2)[2, 4].tolist() == [[64, 32]] * 9  # x by the columns, y by the rows
    assert middles.view(3, 5, 9, 2)[0, 1].tolist() == [[16, 0]] * 9


def slow_pool(features, box, side):
    """Bin by bin, by the borders of the paper."""
    channels, rows, columns = features.shape
    x1, y1, x2, y2 = (int(torch.tensor(v).round()) for v in box)
    y2, x2 = min(y2, rows - 1), min(x2, columns - 1)
    height, width = y2 - y1 + 1, x2 - x1 + 1
    made = torch.zeros(channels, side, side)
    for i in range(side):
        for j in range(side):
            top, bottom = y1 + math.floor(i * height / side), y1 + math.ceil((i + 1) * height / side)
            left, right = x1 + math.floor(j * width / side), x1 + math.ceil((j + 1) * width / side)
            made[:, i, j] = features[:, top:bottom, left:right].amax((1, 2))
    return made


@pytest.mark.parametrize("side", [1, 3, 7])
def test_pooling_against_a_slow_loop(side):
    features = torch.randn(5, 11, 13, generator=torch.Generator().manual_seed(0))
    where = torch.tensor([[0, 0, 13, 11], [2.4, 3.6, 9.9, 5.2], [4, 7, 4, 7], [11.6, 9.7, 13, 11], [0, 2, 12, 2.4]])
    found = pool(features, where, side)
    assert found.shape == (5, 5, side, side)
    for box, ours in zip(where.tolist(), found):
        assert torch.equal(ours, slow_pool(features, box, side))


def test_pooling_passes_gradients_to_the_largest_value_only():
    features = torch.arange(36.0).view(1, 6, 6).requires_grad_()
    pool(features, torch.tensor([[1.0, 1, 3, 3]]), 1).sum().backward()
    assert features.grad.nonzero().tolist() == [[0, 3, 3]]


def test_no_box_pools_to_nothing():
    assert pool(torch.zeros(5, 4, 4), torch.zeros(0, 4), 7).shape == (0, 5, 7, 7)


def test_which_anchors_count():
    truth = torch.tensor([[0.0, 0, 10, 10], [50, 50, 53, 53]])
    where = torch.tensor([[0.0, 0, 10, 8], [0, 0, 10, 5], [20, 20, 30, 30], [49, 49, 55, 55], [0, 0, 10, 9]])
    labels, steps = anchor_targets(where, truth)
    # 0.8 and 0.9: an object; 0.5: neither; none: background; 0.25, but no other anchor is nearer to the second object
    assert labels.tolist() == [1, -1, 0, 1, 1]
    torch.testing.assert_close(decode(where, steps)[[0, 3, 4]], truth[[0, 1, 0]])


def test_at_most_half_of_the_anchors_that_count_hold_an_object():
    torch.manual_seed(0)
    truth = torch.tensor([[0.0, 0, 10, 10]])
    where = torch.cat([truth.repeat(40, 1), truth.repeat(60, 1) + 100])
    labels, _ = anchor_targets(where, truth, samples=32)
    assert [(labels == value).sum() for value in (1, 0)] == [16, 16]
    labels, _ = anchor_targets(where[35:], truth, samples=32)  # only five hold the object: the rest is background
    assert [(labels == value).sum() for value in (1, 0)] == [5, 27]


def test_an_image_without_objects_is_all_background():
    torch.manual_seed(0)
    labels, steps = anchor_targets(torch.rand(50, 4) + torch.tensor([0, 0, 1, 1]), torch.zeros(0, 4), samples=8)
    assert sorted(set(labels.tolist())) == [-1, 0] and (labels == 0).sum() == 8 and not steps.any()
    found, classes, moves = proposal_targets(torch.rand(50, 4), torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), samples=8)
    assert len(found) == len(classes) == len(moves) == 8 and not classes.any() and not moves.any()


def test_what_the_second_stage_learns():
    torch.manual_seed(0)
    truth, kinds = torch.tensor([[0.0, 0, 10, 10], [40, 40, 60, 50]]), torch.tensor([2, 0])
    where = torch.tensor([[0.0, 0, 10, 6], [0, 0, 10, 4], [38, 40, 60, 50], [80, 80, 90, 90]])
    found, classes, moves = proposal_targets(where, truth, kinds, samples=20)
    pairs = {tuple(box): kind for box, kind in zip(found.tolist(), classes.tolist())}
    assert pairs == {(0, 0, 10, 6): 3, (0, 0, 10, 4): 0, (38, 40, 60, 50): 1, (80, 80, 90, 90): 0,
                     (0, 0, 10, 10): 3, (40, 40, 60, 50): 1}  # the objects themselves take part
    moved = decode(found, moves * torch.tensor([0.1, 0.1, 0.2, 0.2]))
    for box, kind in zip(moved, classes.tolist()):
        if kind:
            assert overlaps(box[None], truth[kinds == kind - 1]).item() == pytest.approx(1, abs=1e-5)


def test_the_full_network_has_the_size_of_vgg_16():
    with torch.device("meta"):
        model = FasterRCNN()
    convolutions = 14_714_688
    wide = (512 * 49 + 1) * 4096 + 4097 * 4096
    proposals = (9 * 512 + 1) * 512 + 513 * 9 * 2 + 513 * 9 * 4
    assert parameters(model) == convolutions + wide + proposals + 4097 * 21 + 4097 * 84
    indices = [name for name in model.features.state_dict() if name.endswith("weight")]
    assert indices == [f"{i}.weight" for i in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)]


def test_detections_are_many_boxes_or_none():
    seed_everything(0)
    model = small(least=0.0).eval()
    with torch.no_grad():
        first, second = model(torch.rand(2, 3, 64, 96))
        assert model(torch.rand(1, 3, 33, 47))[0]["boxes"].shape[1] == 4
    for found in (first, second):
        assert found["boxes"].shape == (len(found["scores"]), 4) and len(found["labels"]) == len(found["scores"]) > 0
        for kind in range(3):
            mine = found["boxes"][found["labels"] == kind]
            assert (overlaps(mine, mine).fill_diagonal_(0) <= 0.5 + 1e-6).all()
    model.least = 1.0
    with torch.no_grad():
        assert model(torch.rand(1, 3, 64, 64))[0]["boxes"].shape == (0, 4)


def test_an_image_is_detected_in_the_same_way_alone_and_in_a_batch():
    seed_everything(1)
    model, images = small(least=0.1).eval(), torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        for image, found in zip(images, model(images)):
            alone = model(image[None])[0]
            for key in ("boxes", "scores"):
                torch.testing.assert_close(found[key], alone[key], atol=1e-4, rtol=1e-4)


def test_refusals():
    with pytest.raises(ValueError, match="training needs the boxes and labels of every image; call eval"):
        small()(torch.rand(1, 3, 64, 64))
    with pytest.raises(ValueError, match="classes is 0; the smallest is 1"):
        FasterRCNN(0, NARROW)
    with pytest.raises(ValueError, match="takes 13 widths, got 2"):
        FasterRCNN(2, (3, 4))


def scene(draw):
    """One or two rectangles, red or green, on a dark ground."""
    image, rows, kinds = torch.rand(3, 64, 80, generator=draw) * 0.3, [], []
    for _ in range(int(torch.randint(1, 3, (), generator=draw))):
        w, h = (int(torch.randint(low, high, (), generator=draw)) for low, high in ((28, 44), (18, 28)))
        x, y = int(torch.randint(80 - w, (), generator=draw)), int(torch.randint(64 - h, (), generator=draw))
        kind = int(torch.randint(2, (), generator=draw))
        image[:, y:y + h, x:x + w] *= 0.3
        image[kind, y:y + h, x:x + w] += 0.7
        rows.append([x, y, x + w, y + h])
        kinds.append(kind)
    return image, {"boxes": torch.tensor(rows).float(), "labels": torch.tensor(kinds)}


def test_it_learns_where_things_are_and_what_they_are():
    """Eight pictures by heart, judged by an overlap of 0.7.

    With other seeds it is 0.48 to 0.63; with classes exchanged, proposals that do not move, or last steps without their
    spread it stays below 0.1.
    """
    draw = torch.Generator().manual_seed(3)
    pictures = [scene(draw) for _ in range(8)]
    seed_everything(0)
    model = FasterRCNN(2, (8, 8, 16, 16, 24, 24, 24, 32, 32, 32, 32, 32, 32), 64, scales=(1.5, 2.5, 4),
                       proposals=((600, 60), (300, 30)))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for step in range(240):
        batch = [pictures[(step * 4 + at) % 8] for at in range(4)]
        loss = model(torch.stack([image for image, _ in batch]), [truth for _, truth in batch])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5)
        optimizer.step()
    model.eval()
    with torch.no_grad():
        found = [model(image[None])[0] for image, _ in pictures]
    assert mean_average_precision(found, [truth for _, truth in pictures], 2, least=0.7) > 0.35
