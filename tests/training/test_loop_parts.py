"""What a recipe may put in place of parts of the loop: the optimiser, the loss, the step, the evaluation."""

import json

import pytest
import torch
from loop_checks import run, same, small, tiny
from torch.nn import functional as F

from papernets.data import Split
from papernets.training import fit, loader, steps

pytestmark = pytest.mark.usefixtures("one_thread")


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
    assert history.scores == [0.1, 0.2, 0.3] and seen == [29] * 3
    rows = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [row["mAP"] for row in rows] == [0.1, 0.2, 0.3] and "accuracy" not in rows[0]


@pytest.mark.parametrize(("epochs", "every", "judged"), [(5, 2, [1, 3, 4]), (4, 2, [1, 3]), (3, 7, [2]), (3, 1, [0, 1, 2])])
def test_an_evaluation_every_so_many_epochs_and_at_the_end(epochs, every, judged, tmp_path):
    at = []
    _, history = run(epochs=epochs, every=every, log=tmp_path / "log", before_epoch=lambda model, epoch: at.append(epoch),
                     evaluate=lambda *_: float(at[-1]))
    assert history.scores == judged and len(history.loss) == epochs
    rows = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [row["epoch"] for row in rows if "accuracy" in row] == judged


def test_never_to_evaluate_is_refused():
    with pytest.raises(ValueError, match="every is 0; the smallest number of epochs between two evaluations is 1"):
        run(every=0)
