"""Refusals name the value, the rule and the nearest legal choice."""

from dataclasses import dataclass, replace

import pytest
import torch

from papernets import check


def test_one_of_gives_the_value_back_or_lists_the_options():
    assert check.one_of("rule", "b", ("a", "b")) == "b"
    with pytest.raises(ValueError, match=r"^rule is 'c'; choose from a, b$"):
        check.one_of("rule", "c", {"a": 1, "b": 2})


@pytest.mark.parametrize(("value", "ends", "said"), [
    (1.0, "[)", r"rate 1\.0 is outside \[0, 1\); the nearest is 0\.99"),
    (-0.1, "[)", r"outside \[0, 1\); the nearest is 0$"),
    (0, "(]", r"rate 0 is outside \(0, 1\]; the nearest is 0\.01"), (1.5, "(]", r"the nearest is 1$"),
    (1.5, "[]", r"outside \[0, 1\]; the nearest is 1$"), (float("nan"), "[]", "rate nan is outside"),
    (1, "()", "nearest is 0.99")])
def test_a_share_outside_names_the_nearest(value, ends, said):
    with pytest.raises(ValueError, match=said):
        check.share("rate", value, ends)


@pytest.mark.parametrize(("value", "ends"), [(0, "[)"), (0.5, "()"), (1, "(]"), (1, "[]"), (0, "[]")])
def test_a_share_inside_comes_back(value, ends):
    assert check.share("rate", value, ends) == value


@pytest.mark.parametrize("value", [0, 2.0, True, "3", None])
def test_what_is_no_whole_number_of_at_least_one_is_refused(value):
    with pytest.raises(ValueError, match=f"N is {value!r}; it is a whole number of at least 1"):
        check.whole("N", value)


def test_whole_numbers_have_bounds():
    assert check.whole("N", 4, 2, 4) == 4 and check.whole("N", 0, 0) == 0
    with pytest.raises(ValueError, match="N is 5; it is a whole number from 2 to 4"):
        check.whole("N", 5, 2, 4)


@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
def test_above_is_finite_and_positive(value):
    assert check.above("lr", 0.1, 0.1) == 0.1
    with pytest.raises(ValueError, match=rf"lr is {value}; it is a finite number above 0, such as 0\.1"):
        check.above("lr", value, 0.1)


def test_finite_says_why():
    assert check.finite("w", torch.ones(2), "it is ranked") is not None
    with pytest.raises(ValueError, match=r"^w holds a value that is not finite; it is ranked$"):
        check.finite("w", torch.tensor([1.0, float("nan")]), "it is ranked")


def test_of_names_the_layer_and_adds_advice():
    with pytest.raises(ValueError, match=r"^layer\.3: N is 0; .*; leave it out$"), check.of("layer.3", "leave it out"):
        check.whole("N", 0)
    with pytest.raises(ValueError, match=r"^layer\.3: N is 0; it is a whole number of at least 1$"), check.of("layer.3"):
        check.whole("N", 0)
    with pytest.raises(KeyError), check.of("layer"):  # another error stays what it is
        raise KeyError("x")


@check.renamed(target="removed: the share that goes, 1 - target")
@dataclass(frozen=True)
class Config:
    removed: float = 0.5


@check.renamed(rate="lr")
def learn(lr=0.1):
    """Doc."""
    return lr


def test_an_old_keyword_tells_the_new_one():
    assert Config(removed=0.4).removed == Config(0.4).removed == 0.4 and learn(lr=1) == learn(1) == 1
    assert learn.__doc__ == "Doc." and replace(Config(), removed=0.3).removed == 0.3
    with pytest.raises(TypeError, match=r"^Config takes removed in place of target \(the share that goes, 1 - target\)$"):
        Config(target=0.4)
    with pytest.raises(TypeError, match=r"^Config takes removed in place of target"):
        replace(Config(), target=0.4)
    with pytest.raises(TypeError, match=r"^learn takes lr in place of rate$"):
        learn(rate=1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'other'"):
        Config(other=1)
