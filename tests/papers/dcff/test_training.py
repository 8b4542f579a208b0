"""Dynamic-coded filter fusion: what training does."""


import numpy as np
import pytest
import torch
from torch.nn import functional

from papernets.data import digits
from papernets.nn import ConvNet
from papernets.papers.dcff import DCFF, FusedConv2d, compact, fuse_narrow_, refresh_
from papernets.training import cosine, fit, loader, seed_everything

pytestmark = pytest.mark.usefixtures("one_thread")


ONE_HOT = DCFF(T_s=1e7, T_e=1e7)  # a temperature at which every blend is a selection, from the first epoch on


def batches(n, size=17):
    rng = np.random.default_rng(5)
    for _ in range(n):
        yield (torch.from_numpy(rng.normal(size=(size, 3, 9, 7)).astype(np.float32)),
               torch.from_numpy(rng.integers(0, 5, size)))


def train(model, steps=8, lr=0.1, momentum=0.9, weight_decay=0.01):
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=momentum, weight_decay=weight_decay)
    model.train()
    for x, y in batches(steps):
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def test_one_hot_fusion_is_training_of_the_kept_filters():
    """At a temperature where blends are selections, the wide network's kept filters go the narrow network's way."""
    model = ConvNet((3, 5, 4), 5)
    names = ["features.0", "features.4", "features.8"]
    fuse_narrow_(model, dict(zip(names, (7, 11, 13))), ONE_HOT)
    narrow = ConvNet((3, 5, 4), 5)
    state = narrow.state_dict()
    start = {name: model.get_submodule(name).weight.detach().clone() for name in names}
    kept = {name: model.get_submodule(name).kept.clone() for name in names}
    for name in names:
        layer = model.get_submodule(name)
        assert torch.equal(layer.phi, torch.eye(layer.phi.shape[1])[layer.kept])
        state[f"{name}.weight"] = start[name][kept[name]]
    for key, value in model.state_dict().items():
        if key in state and value.shape == state[key].shape and key.rpartition(".")[0] not in names:
            state[key] = value.clone()
    narrow.load_state_dict(state)
    train(model)
    train(narrow)
    for name in names:
        layer = model.get_submodule(name)
        theirs = narrow.get_submodule(name).weight
        assert (layer.weight[layer.kept] - theirs).abs().max() < 1e-6
        assert (layer.fused()[0] - theirs).abs().max() < 1e-6
        assert (theirs - start[name][kept[name]]).abs().max() > 1e-2  # it did move
        # the dropped filters feel nothing but the weight decay
        rest = sorted(set(range(len(layer.weight))) - set(kept[name].tolist()))
        value, velocity = start[name][rest].double(), 0.0
        for _ in range(8):
            velocity = 0.9 * velocity + 0.01 * value
            value = value - 0.1 * velocity
        torch.testing.assert_close(layer.weight[rest].double(), value, rtol=0, atol=1e-6)
    for one, other in zip(model.classifier.parameters(), narrow.classifier.parameters()):
        assert (one - other).abs().max() < 1e-6
    for one, other in zip(model.buffers(), compact(model).buffers()):
        assert one is not other
    ours, theirs = model.features[1], narrow.features[1]
    assert (ours.running_mean - theirs.running_mean).abs().max() < 1e-6
    # and the export goes on being the narrow network
    x = next(batches(1))[0]
    assert (compact(model).eval()(x) - narrow.eval()(x)).abs().max() < 1e-5


def test_at_temperature_one_training_is_not_that_of_the_kept_filters():
    """The same comparison where blends are blends: the equality above does not come for free."""
    model = ConvNet((3, 5), 5)
    fuse_narrow_(model, {"features.0": 7, "features.4": 11})
    narrow = compact(model)
    train(model)
    train(narrow)
    assert (model.features[4].fused()[0] - narrow.features[4].weight).abs().max() > 1e-3


def learn(seed, frozen, epochs=15):
    """Fused training on the digits; ``frozen`` lets no gradient reach the wide filters."""
    seed_everything(seed)
    first, second = digits(600, seed)
    model = ConvNet((6, 8, 8), 10, channels=1)
    fuse_narrow_(model, {"features.0": 16, "features.4": 24, "features.8": 24})
    if frozen:
        for layer in model.modules():
            if isinstance(layer, FusedConv2d):
                layer.weight.requires_grad_(False)
    shares = fit(model, loader(first, 32, True), loader(second, 500, False), epochs=epochs, lr=cosine(0.05, epochs),
                seed=seed, before_epoch=lambda model, epoch: refresh_(model, epoch, epochs)).scores
    return shares[-1], model


@pytest.mark.parametrize("seed", [0, 1])
def test_fused_training_learns_the_digits(seed):
    """95 % of the test digits; with the gradient to the wide filters blocked it is about 50 %."""
    share, model = learn(seed, frozen=False)
    assert share > 0.85
    _, test = digits(600, seed)
    exported = compact(model).eval()
    right = (exported(test.images).argmax(1) == test.labels).float().mean().item()
    assert right == pytest.approx(share, abs=2e-3)
    blocked, _ = learn(seed, frozen=True)
    assert blocked < 0.68
