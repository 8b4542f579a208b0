"""The training loop: a slow oracle, determinism, resuming after a kill, what it writes, and that it learns."""

import json
import math
from itertools import pairwise

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn import functional as F
from torch.utils.data import BatchSampler, RandomSampler

from papernets.data import Split, digits
from papernets.nn import ConvNet
from papernets.training import History, accuracy, cosine, fit, loader, logits, seed_everything, steps

pytestmark = pytest.mark.usefixtures("one_thread")


class Killed(BaseException):
    """What nothing in the loop may catch."""


def small(seed=5):
    seed_everything(seed)
    return ConvNet((3, 5), classes=3, channels=1, pool=(0,))


def tiny(count=53, seed=7):
    """Noise of three classes, the brighter the higher."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (count,), generator=draw)
    images = torch.randn(count, 1, 7, 5, generator=draw) + labels.view(-1, 1, 1, 1).float()
    return Split(images, labels, ("a", "b", "c"))


def run(model=None, epochs=3, **options):
    """A short run on ``tiny``: five batches an epoch, the last of 9."""
    model = small() if model is None else model
    options = {"lr": cosine(0.1, 3), "seed": 3, **options}
    history = fit(model, loader(tiny(), 11, True), loader(tiny(29, 8), 13, False), epochs=epochs, **options)
    return model, history


def same(first, second):
    return all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


# the loop against an obvious one
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
    assert len(history.loss) == len(history.accuracy) == len(history.lr) == 3
    assert history.lr == [cosine(0.1, 3)(epoch) for epoch in range(3)]
    assert all(math.isfinite(loss) and loss > 0 for loss in history.loss)
    assert all(0 <= share <= 1 for share in history.accuracy)


def test_accuracy_of_the_history_is_that_of_the_network():
    model, history = run()
    test = tiny(29, 8)
    right = logits(model, test.images).argmax(1) == test.labels
    assert history.accuracy[-1] == pytest.approx(float(right.float().mean()))


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
    assert history.accuracy == []


def test_frozen_parameters_stay():
    model = small()
    model.features.requires_grad_(False)
    before = [p.clone() for p in model.features.parameters()]
    run(model)
    assert all(torch.equal(p, q) for p, q in zip(model.features.parameters(), before))
    assert not same(model, small())


# the schedule
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


# hooks
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
        assert len(history.loss) == len(history.accuracy) == epoch + 1
        calls.append(("after", epoch))

    run(model, epochs=2, before_epoch=before, after_epoch=after, augment=augment)
    batches = [("augment", size) for size in (11, 11, 11, 11, 9)]
    assert calls == [("before", 0), *batches, ("after", 0), ("before", 1), *batches, ("after", 1)]


def test_what_augment_gives_is_what_is_trained_on():
    changed, _ = run(augment=lambda images: images.flip(3) * 2)
    assert not same(changed, run()[0])
    copied, _ = run(augment=torch.clone)
    assert same(copied, run()[0])


# checkpoints
@pytest.mark.parametrize("where", ["before_epoch", "in the middle", "after_epoch"])
@pytest.mark.parametrize("last", [0, 1, 2])
def test_a_killed_run_resumes_to_the_same_end(where, last, tmp_path):
    """Killed in the third epoch or earlier, built anew and resumed: every parameter and number as if never killed."""
    def augment(images):  # draws, so the generator's state matters too
        return images + 0.1 * torch.randn_like(images)

    expected, history = run(augment=augment)
    batches = 0

    def kill(_, epoch, *rest):
        if epoch == last:
            raise Killed

    def kill_in_the_middle(images):
        nonlocal batches
        batches += 1
        if batches == 5 * last + 3:
            raise Killed
        return augment(images)

    options = {"augment": augment, "checkpoint": tmp_path / "last.ckpt", "log": tmp_path / "log.jsonl"}
    deadly = {"augment": kill_in_the_middle} if where == "in the middle" else {where: kill}
    with pytest.raises(Killed):
        run(**options | deadly)
    assert (tmp_path / "last.ckpt").exists() == (last > 0)
    model, resumed = run(small(seed=99), **options) if last else run(**options)
    assert resumed == history
    assert same(model, expected)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert [line["loss"] for line in lines] == history.loss


def test_a_longer_run_goes_on_from_a_shorter(tmp_path):
    expected, history = run(epochs=3)
    run(epochs=1, checkpoint=tmp_path / "last.ckpt")
    model, longer = run(epochs=3, checkpoint=tmp_path / "last.ckpt")
    assert longer == history
    assert same(model, expected)


def test_a_finished_run_is_not_repeated(tmp_path):
    expected, history = run(checkpoint=tmp_path / "last.ckpt")
    model, again = run(small(seed=99), checkpoint=tmp_path / "last.ckpt",
                       before_epoch=lambda *_: pytest.fail("trained"))
    assert again == history
    assert same(model, expected)


def test_a_checkpoint_past_the_end_is_refused(tmp_path):
    run(epochs=3, checkpoint=tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"last\.ckpt is from epoch 3, past the 2 asked for; ask for at least 3"):
        run(epochs=2, checkpoint=tmp_path / "last.ckpt")


def test_a_half_written_checkpoint_is_ignored(tmp_path):
    expected, history = run(epochs=2)
    (tmp_path / "last.ckpt.part").write_bytes(b"half a checkp")
    model, found = run(epochs=2, checkpoint=tmp_path / "last.ckpt")
    assert found == history
    assert same(model, expected)
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_kill_while_saving_leaves_the_last_whole_checkpoint(tmp_path, monkeypatch):
    expected, history = run()
    save, saved = Fabric.save, []

    def broken(self, path, state, **options):
        saved.append(path)
        if len(saved) == 2:
            path.write_bytes(b"half a checkp")
            raise Killed
        return save(self, path, state, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Fabric, "save", broken)
        with pytest.raises(Killed):
            run(checkpoint=tmp_path / "last.ckpt")
    model, found = run(checkpoint=tmp_path / "last.ckpt")
    assert found == history
    assert same(model, expected)


@pytest.mark.parametrize("content", [b"", b"no checkpoint"])
def test_a_damaged_checkpoint_is_refused_by_name(content, tmp_path):
    path = tmp_path / "last.ckpt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"last\.ckpt"):
        run(checkpoint=path)
    assert path.read_bytes() == content


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    run(epochs=1, checkpoint=tmp_path / "last.ckpt")
    with pytest.raises((ValueError, RuntimeError), match="size mismatch"):
        run(ConvNet((3, 7), classes=3, channels=1, pool=(0,)), checkpoint=tmp_path / "last.ckpt")


# the log
def test_log_lines(tmp_path):
    _, history = run(log=tmp_path / "log.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == [{"epoch": epoch, "loss": history.loss[epoch], "lr": history.lr[epoch],
                      "accuracy": history.accuracy[epoch]} for epoch in range(3)]


def test_log_lines_without_a_test_set(tmp_path):
    fit(small(), loader(tiny(), 11, True), None, epochs=1, lr=steps(0.1, ()), log=tmp_path / "log.jsonl")
    assert set(json.loads((tmp_path / "log.jsonl").read_text())) == {"epoch", "loss", "lr"}


def test_quiet(capfd):
    run()
    assert capfd.readouterr() == ("", "")


# refusals
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


@pytest.mark.parametrize("batch", [0, -3])
def test_a_batch_without_images_is_refused(batch):
    with pytest.raises(ValueError, match=f"batch is {batch}; the smallest is 1"):
        loader(tiny(), batch, True)


# loaders and evaluation
class Files(torch.utils.data.Dataset):
    """A set that is read one by one."""

    def __len__(self):
        return 53

    def __getitem__(self, index):
        return torch.full((1, 2, 3), float(index)), index


@pytest.mark.parametrize("data", [
    Split(torch.arange(53.).view(-1, 1, 1, 1).expand(53, 1, 2, 3), torch.arange(53), ("a",)), Files(),
], ids=["memory", "files"])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_image_comes_once_an_epoch_with_its_label(data, shuffle):
    seed_everything(0)
    batches, again = list(loader(data, 11, shuffle)), list(loader(data, 11, shuffle))
    assert [len(labels) for _, labels in batches] == [11, 11, 11, 11, 9]
    labels = torch.cat([labels for _, labels in batches])
    assert all(torch.equal(images[:, 0, 0, 0], labels.float()) for images, labels in batches)
    assert sorted(labels.tolist()) == list(range(53))
    assert torch.equal(labels, torch.arange(53)) != shuffle
    assert torch.equal(labels, torch.cat([labels for _, labels in again])) != shuffle


@pytest.mark.parametrize("training", [True, False])
def test_logits_and_accuracy_are_of_evaluation_mode_and_put_it_back(training):
    model, data = small(), tiny()
    model.features[1].running_mean += 1
    model.eval()
    with torch.no_grad():
        expected = model(data.images)
    model.train(training)
    found = logits(model, data.images, batch=7)
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad
    right = (expected.argmax(1) == data.labels).float().mean()
    assert accuracy(model, loader(data, 7, False)) == pytest.approx(float(right))
    assert model.training is training


def test_accuracy_counts_images_not_batches():
    """Two batches, 3 of 3 right and 0 of 1: three quarters, not a half."""
    class Zero(nn.Module):
        def forward(self, x):
            return torch.tensor([[1.0, 0.0]]).expand(len(x), 2)

    batches = [(torch.zeros(3, 1), torch.zeros(3)), (torch.zeros(1, 1), torch.ones(1))]
    assert accuracy(Zero(), batches) == 0.75


def test_it_learns():
    train, test = digits()
    seed_everything(0)
    model = ConvNet((16, 32), channels=1, pool=(0,))
    history = fit(model, loader(train, 50, True), loader(test, 500, False), epochs=5, lr=cosine(0.1, 5))
    assert history.accuracy[-1] > 0.9
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
    assert history.accuracy[-1] < 0.2


# another optimiser, another loss
def test_another_optimiser_with_two_learning_rates():
    """Signs of gradients as steps: every parameter moves by exactly its own rate in the first step."""
    class Signs(torch.optim.Optimizer):
        def step(self):
            for group in self.param_groups:
                for p in group["params"]:
                    p.data.sub_(group["lr"] * p.grad.sign())

    def two(model):
        return Signs([{"params": list(model.features.parameters())},
                      {"params": list(model.classifier.parameters()), "scale": 3.0}], {"lr": 99.0})

    before = small().state_dict()
    model, history = run(epochs=1, lr=lambda epoch: 0.125 if epoch == 0 else 0.0, optimizer=two)
    for name, p in model.named_parameters():
        moved = (p.detach() - before[name]).abs()
        step = 0.375 if name.startswith("classifier") else 0.125
        assert moved.max() == pytest.approx(step, rel=1e-5), name
    assert history.lr == [0.125]


def test_another_loss_takes_the_place_of_the_cross_entropy():
    seen = []

    def loss(outputs, images, labels):
        assert images.shape[1:] == (1, 7, 5) and outputs.shape == (len(labels), 3)
        seen.append(len(images))
        return 7 + 0 * outputs.sum()

    model, history = run(epochs=2, weight_decay=0.0, momentum=0.0, loss=loss)
    assert history.loss == [7.0, 7.0]
    assert seen == [11, 11, 11, 11, 9] * 2
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), small().parameters()))  # its gradient is 0


# what a recipe may put in place of parts of the loop
def test_a_step_takes_the_place_of_forward_pass_and_loss():
    """Training on the labels plus one, through the step, against the usual loop on such labels."""
    def step(model, images, labels):
        assert model.training
        return F.cross_entropy(model(images), (labels + 1) % 3)

    data = tiny()
    shifted = Split(data.images, (data.labels + 1) % 3, data.classes)
    one, other = small(), small()
    first = fit(one, loader(data, 11, True), None, epochs=2, lr=steps(0.1, ()), seed=3, step=step)
    second = fit(other, loader(shifted, 11, True), None, epochs=2, lr=steps(0.1, ()), seed=3)
    assert first == second and same(one, other)


def test_an_evaluation_takes_the_place_of_the_accuracy(tmp_path):
    seen = []

    def evaluate(model, batches, fabric):
        seen.append(sum(len(labels) for _, labels in batches))
        return len(seen) / 10

    _, history = run(evaluate=evaluate, score="mAP", log=tmp_path / "log")
    assert history.accuracy == [0.1, 0.2, 0.3] and seen == [29] * 3
    rows = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [row["mAP"] for row in rows] == [0.1, 0.2, 0.3] and "accuracy" not in rows[0]


@pytest.mark.parametrize(("epochs", "every", "judged"), [(5, 2, [1, 3, 4]), (4, 2, [1, 3]), (3, 7, [2]), (3, 1, [0, 1, 2])])
def test_an_evaluation_every_so_many_epochs_and_at_the_end(epochs, every, judged, tmp_path):
    at = []
    _, history = run(epochs=epochs, every=every, log=tmp_path / "log", before_epoch=lambda model, epoch: at.append(epoch),
                     evaluate=lambda *_: float(at[-1]))
    assert history.accuracy == judged and len(history.loss) == epochs
    rows = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [row["epoch"] for row in rows if "accuracy" in row] == judged


def test_a_run_that_is_killed_between_evaluations_resumes_to_the_same_end(tmp_path):
    _, whole = run(epochs=5, every=3)

    def kill(model, epoch, history):
        if epoch == 1:
            raise Killed

    with pytest.raises(Killed):
        run(epochs=5, every=3, checkpoint=tmp_path / "last", after_epoch=kill)
    _, resumed = run(epochs=5, every=3, checkpoint=tmp_path / "last")
    assert resumed == whole


def test_never_to_evaluate_is_refused():
    with pytest.raises(ValueError, match="every is 0; the smallest number of epochs between two evaluations is 1"):
        run(every=0)


class Rows(torch.utils.data.Dataset):
    """Not in memory; with a way of its own to make a batch."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return torch.zeros(index + 1), index

    @staticmethod
    def collate(batch):
        return [len(values) for values, _ in batch], [index for _, index in batch]


def test_a_set_may_make_its_own_batches():
    assert list(loader(Rows(), 2, False)) == [([1, 2], [0, 1]), ([3, 4], [2, 3]), ([5], [4])]


@pytest.mark.parametrize("data", [tiny(53), Files()], ids=["memory", "files"])
def test_images_that_are_repeated(data):
    torch.manual_seed(0)
    batches = list(loader(data, 12, True, repeats=3))
    assert [len(labels) for _, labels in batches] == [12, 12, 12, 12, 5]
    rows = torch.cat([images for images, _ in batches]).flatten(1)
    assert all(torch.equal(rows[at], rows[at + 1]) and torch.equal(rows[at], rows[at + 2]) for at in range(0, 51, 3))
    assert len(rows.unique(dim=0)) == 18
