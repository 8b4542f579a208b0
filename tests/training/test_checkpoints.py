"""Checkpoints and the log: a run that was killed resumes to the same end, and what is damaged is refused."""

import json

import pytest
import torch
from lightning_fabric import Fabric
from loop_checks import Killed, run, same, small, tiny

from papernets.nn import ConvNet
from papernets.training import fit, loader, steps

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_a_run_that_is_killed_between_evaluations_resumes_to_the_same_end(tmp_path):
    _, whole = run(epochs=5, every=3)

    def kill(model, epoch, history):
        if epoch == 1:
            raise Killed

    with pytest.raises(Killed):
        run(epochs=5, every=3, checkpoint=tmp_path / "last", after_epoch=kill)
    _, resumed = run(epochs=5, every=3, checkpoint=tmp_path / "last")
    assert resumed == whole


# --- the log ---------------------------------------------------------------------------------------------------------


def test_log_lines(tmp_path):
    _, history = run(log=tmp_path / "log.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == [{"epoch": epoch, "loss": history.loss[epoch], "lr": history.lr[epoch],
                      "accuracy": history.scores[epoch]} for epoch in range(3)]


def test_log_lines_without_a_test_set(tmp_path):
    fit(small(), loader(tiny(), 11, True), None, epochs=1, lr=steps(0.1, ()), log=tmp_path / "log.jsonl")
    assert set(json.loads((tmp_path / "log.jsonl").read_text())) == {"epoch", "loss", "lr"}
