"""The training loop: a slow oracle, determinism, the schedule, hooks, what it refuses, and that it learns."""

import math
from itertools import pairwise

import pytest
import torch
from loop_checks import run, same, small, tiny
from torch import nn
from torch.nn import functional as F
from torch.utils.data import BatchSampler, RandomSampler

from papernets.data import Split, digits
from papernets.nn import ConvNet
from papernets.training import History, cosine, fit, loader, logits, seed_everything, steps

pytestmark = pytest.mark.usefixtures("one_thread")


# --- against an obvious one ------------------------------------------------------------------------------------------


def slow_fit(model, data, batch, epochs, lr, momentum, weight_decay, seed):
    """SGD with momentum written out, one parameter at a time."""
    velocity, losses = {}, []
    for epoch in range(epochs):
        seed_everything((seed * 100_003 + epoch) % 2**32)
        torch.empty((), dtype=torch.int64).random_()  # a DataLoader draws a seed for its workers first
        batches = list(BatchSampler(RandomSampler(data), batch, drop_last=False))
        total = 0
        for index, members in enumerate(batches):
            model.train()
            model.zero_grad()
            loss = F.cross_entropy(model(data.images[members]), data.labels[members])
            loss.backward()
            with torch.no_grad():
                for name, p in model.named_parameters():
                    step = p.grad + weight_decay * p
                    velocity[name] = step if name not in velocity else momentum * velocity[name] + step
                    p -= lr(epoch + index / len(batches)) * velocity[name]
            total += float(loss.detach()) * len(members)
        losses.append(total / len(data))
    return losses


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.9, 5e-4), (0.0, 0.0), (0.5, 0.1)])
def test_slow_oracle(momentum, weight_decay):
    model, history = run(momentum=momentum, weight_decay=weight_decay)
    expected = small()
    losses = slow_fit(expected, tiny(), 11, 3, cosine(0.1, 3), momentum, weight_decay, 3)
    assert history.loss == pytest.approx(losses, rel=1e-4)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, expected.state_dict()[name], atol=1e-4, rtol=1e-3)


def test_two_runs_are_identical():
    (first, one), (second, two) = run(), run()
    assert one == two
    assert same(first, second)


def test_seeds_differ():
    (first, one), (second, two) = run(seed=3), run(seed=4)
    assert one.loss != two.loss
    assert not same(first, second)


def test_what_was_drawn_before_does_not_matter():
    first, one = run()
    model = small()
    torch.rand(17)
    second, two = run(model)
    assert one == two
    assert same(first, second)


def test_history_has_one_entry_an_epoch():
    _, history = run(epochs=3)
    assert len(history.loss) == len(history.scores) == len(history.lr) == 3
    assert history.lr == [cosine(0.1, 3)(epoch) for epoch in range(3)]
    assert all(math.isfinite(loss) and loss > 0 for loss in history.loss)
    assert all(0 <= share <= 1 for share in history.scores)


def test_accuracy_of_the_history_is_that_of_the_network():
    model, history = run()
    test = tiny(29, 8)
    right = logits(model, test.images).argmax(1) == test.labels
    assert history.scores[-1] == pytest.approx(float(right.float().mean()))


def test_every_epoch_trains_in_training_mode():
    """Whatever the network or a hook was left in."""
    expected, history = run()
    model, found = run(small().eval(), before_epoch=lambda model, epoch: model.eval())
    assert found == history
    assert same(model, expected)


def test_no_epochs_change_nothing():
    model, history = run(epochs=0)
    assert history == History()
    assert same(model, small())


def test_without_a_test_set_there_is_no_accuracy():
    history = fit(small(), loader(tiny(), 11, True), None, epochs=2, lr=steps(0.1, ()))
    assert len(history.loss) == 2
    assert history.scores == []


def test_frozen_parameters_stay():
    model = small()
    model.features.requires_grad_(False)
    before = [p.clone() for p in model.features.parameters()]
    run(model)
    assert all(torch.equal(p, q) for p, q in zip(model.features.parameters(), before))
    assert not same(model, small())


# --- the schedule ----------------------------------------------------------------------------------------------------


class Rates(nn.Module):
    """One weight w with loss log(1 + e^-w) of a single class pair: each step shows the rate it was made with."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.path = []

    def forward(self, x):
        if self.training:
            self.path.append(float(self.weight.detach()))
        return torch.stack([self.weight.expand(len(x)), torch.zeros(len(x))], 1)


def test_the_schedule_is_followed_batch_by_batch():
    asked = []

    def lr(epoch):
        asked.append(epoch)
        return 0.1 + epoch

    model = Rates()
    data = Split(torch.zeros(13, 1), torch.zeros(13, dtype=torch.int64), ("a", "b"))
    fit(model, loader(data, 5, True), None, epochs=2, lr=lr, momentum=0, weight_decay=0)
    path = [*model.path, float(model.weight.detach())]
    rates = [(after - before) * (1 + math.exp(before)) for before, after in pairwise(path)]  # gradient -1 / (1 + e^w)
    assert rates == pytest.approx([0.1 + batch / 3 for batch in range(6)], rel=1e-4)
    assert sorted({round(3 * epoch, 6) for epoch in asked}) == list(range(6))


def test_a_schedule_that_starts_at_zero():
    model = Rates()
    data = Split(torch.zeros(10, 1), torch.zeros(10, dtype=torch.int64), ("a", "b"))
    history = fit(model, loader(data, 5, True), None, epochs=1, lr=lambda epoch: epoch, momentum=0, weight_decay=0)
    assert model.path == [0, 0]  # the first batch moved nothing
    assert float(model.weight.detach()) == pytest.approx(0.5 * 0.5)
    assert history.lr == [0]


# --- hooks -----------------------------------------------------------------------------------------------------------


def test_hooks_are_called_in_order():
    calls = []
    model = small()

    def before(given, epoch):
        assert given is model
        calls.append(("before", epoch))

    def augment(images):
        assert model.training
        calls.append(("augment", len(images)))
        return images

    def after(given, epoch, history):
        assert given is model
        assert len(history.loss) == len(history.scores) == epoch + 1
        calls.append(("after", epoch))

    run(model, epochs=2, before_epoch=before, after_epoch=after, augment=augment)
    batches = [("augment", size) for size in (11, 11, 11, 11, 9)]
    assert calls == [("before", 0), *batches, ("after", 0), ("before", 1), *batches, ("after", 1)]


def test_what_augment_gives_is_what_is_trained_on():
    changed, _ = run(augment=lambda images: images.flip(3) * 2)
    assert not same(changed, run()[0])
    copied, _ = run(augment=torch.clone)
    assert same(copied, run()[0])


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run(value, tmp_path):
    epochs = []

    def poison(model, epoch):
        epochs.append(epoch)
        if epoch == 1:
            with torch.no_grad():
                model.classifier.bias[0] = value

    with pytest.raises(ValueError, match=r"loss of epoch 1 is (nan|inf); a smaller learning rate than 0\.075 may help"):
        run(before_epoch=poison, checkpoint=tmp_path / "last.ckpt", log=tmp_path / "log.jsonl")
    assert epochs == [0, 1]
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 1
    model, history = run(checkpoint=tmp_path / "last.ckpt")  # the checkpoint is the last sound one
    assert history == run()[1]
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


def test_too_high_a_learning_rate_is_noticed():
    with pytest.raises(ValueError, match="may help"):
        run(epochs=50, lr=lambda epoch: 1e20)


def test_negative_epochs_are_refused():
    with pytest.raises(ValueError, match="epochs is -1; the smallest is 0"):
        run(epochs=-1)


def test_quiet(capfd):
    run()
    assert capfd.readouterr() == ("", "")


# --- learning --------------------------------------------------------------------------------------------------------


def test_it_learns():
    train, test = digits()
    seed_everything(0)
    model = ConvNet((16, 32), channels=1, pool=(0,))
    history = fit(model, loader(train, 50, True), loader(test, 500, False), epochs=5, lr=cosine(0.1, 5))
    assert history.scores[-1] > 0.9
    assert history.loss[-1] < history.loss[0] / 2


def test_it_does_not_learn_what_is_not_there():
    """Labels that say nothing about the images give no better than chance: none leaks into the network."""
    train, test = digits()
    draw = torch.Generator().manual_seed(0)
    train, test = (Split(part.images, part.labels[torch.randperm(len(part), generator=draw)], part.classes)
                   for part in (train, test))
    seed_everything(0)
    model = ConvNet((7, 11), channels=1, pool=(0,))
    history = fit(model, loader(train, 50, True), loader(test, 500, False), epochs=2, lr=cosine(0.05, 2))
    assert history.scores[-1] < 0.2
