"""Removing filters: dead ones do not matter, live ones are cut out unchanged, and the original is left alone."""

import pytest
import torch
from surgery_checks import (
    CASES,
    FIVE,
    SEVEN,
    assert_dead_filters_do_not_matter,
    chain,
    concatenation,
    flatten,
    keep,
    prepared,
    residual,
    same,
    silence,
    snapshot,
)

from papernets.nn.surgery import keep_filters

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("case", CASES)
def test_dead_filters_do_not_matter(case):
    build, kept, norms = CASES[case]
    model, x = prepared(build)
    if case.startswith("depthwise"):  # what follows a dead channel must be dead too
        silence(model, {"deep": kept["a"]}, {"deep": "norm1"})
    assert_dead_filters_do_not_matter(model, x, kept, norms)


def test_concatenated_parts_shift_the_norm_behind_them():
    """Positions 1, 3, 6 of the first part, 0, 4 of the second and 2 of the third, of 15."""
    model, x = prepared(concatenation)
    kept = {"a": SEVEN, "b": FIVE, "c": keep(2)}
    places = [1, 3, 6, 7 + 0, 7 + 4, 12 + 2]
    silence(model, {"norm": torch.tensor(places)}, {})
    copy = assert_dead_filters_do_not_matter(model, x, kept)
    assert torch.equal(copy.norm.running_mean, model.norm.running_mean[places])
    assert torch.equal(copy.d.weight, model.d.weight[:, places])


def test_live_filters_are_cut_out_unchanged():
    """Without dead filters the outputs differ, but every weight left is the original's, in the original's order."""
    model, x = prepared(chain)
    copy = keep_filters(model, {"a": SEVEN, "b": FIVE}, x)
    assert torch.equal(copy.a.weight, model.a.weight[SEVEN])
    assert torch.equal(copy.a.bias, model.a.bias[SEVEN])
    assert torch.equal(copy.b.weight, model.b.weight[FIVE][:, SEVEN])
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert torch.equal(getattr(copy.norm, name), getattr(model.norm, name)[FIVE])
    assert torch.equal(copy.head.weight, model.head.weight[:, FIVE])
    assert torch.equal(copy.head.bias, model.head.bias)


def test_flattened_features_go_by_whole_channels():
    model, x = prepared(lambda: flatten("flatten"))
    copy = keep_filters(model, {"b": FIVE}, x)
    expected = model.first.weight.view(13, 5, 30)[:, FIVE].flatten(1)
    assert torch.equal(copy.first.weight, expected)


def test_the_order_of_a_list_does_not_matter():
    model, x = prepared(chain)
    first, second = (keep_filters(model, {"a": indices}, x) for indices in (keep(1, 3, 6), keep(6, 1, 3)))
    assert torch.equal(first.a.weight, second.a.weight)


def test_the_order_of_the_names_does_not_matter():
    model, x = prepared(residual)
    kept = {"stem": SEVEN, "b": SEVEN, "c": SEVEN, "a": FIVE}
    first, second = (keep_filters(model, order, x) for order in (kept, dict(reversed(kept.items()))))
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


# --- what must stay --------------------------------------------------------------------------------------------------


def half_frozen():
    model, x = prepared(chain)
    model.train()
    model.norm.eval()
    model.a.weight.requires_grad_(False)
    model.head.requires_grad_(False)
    return model, x


def test_the_original_is_unchanged():
    model, x = half_frozen()
    before = snapshot(model)
    keep_filters(model, {"a": SEVEN, "b": FIVE}, x)
    assert same(snapshot(model), before)
    assert all(p.grad is None for p in model.parameters())


def test_the_original_is_unchanged_by_a_refusal():
    model, x = half_frozen()
    before = snapshot(model)
    for kept in ({"a": keep(9)}, {"head": SEVEN}):
        with pytest.raises(ValueError, match=r"kept filters|no convolution"):
            keep_filters(model, kept, x)
        assert same(snapshot(model), before)


def test_the_copy_shares_nothing_and_keeps_its_flags():
    model, x = half_frozen()
    before = snapshot(model)
    copy = keep_filters(model, {"a": SEVEN}, x)
    assert snapshot(copy)[1:] == before[1:]
    with torch.no_grad():
        for value in copy.state_dict().values():
            value.zero_()
    assert same(snapshot(model), before)


def test_the_copy_can_be_trained():
    model, x = prepared(residual)
    copy = keep_filters(model, {"stem": SEVEN, "b": SEVEN, "c": SEVEN}, x).train()
    copy(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in copy.parameters())


def test_works_where_gradients_are_off():
    model, x = prepared(chain)
    with torch.no_grad():
        copy = keep_filters(model, {"a": SEVEN}, x)
    assert copy.a.out_channels == 3
