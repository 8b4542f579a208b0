"""What every paper must hold: its exact claims, its recipes, and one grammar for its configuration, verb and compact form."""

import copy
import dataclasses
import importlib

import pytest
import torch
from paper_checks import EXAMPLE, network
from torch import nn

from papernets.cards import ExactClaim, FullClaim, cards, comparisons
from papernets.measure import report

WRITTEN = [one for one in cards() if one.written]
#: Of each paper with a verb for networks of any kind how it is applied; see ``paper_checks.Sample``.
SAMPLES = {one.module: importlib.import_module(f"papers.{one.module}.sample").SAMPLE for one in WRITTEN
           if importlib.util.find_spec(f"papers.{one.module}.sample")}
each_paper = pytest.mark.parametrize("paper", WRITTEN, ids=lambda one: one.module)
each_method = pytest.mark.parametrize("name", SAMPLES)
each_compact = pytest.mark.parametrize("name", [name for name, sample in SAMPLES.items() if sample.compact])


def part(paper, name: str):
    return importlib.import_module(f"papernets.papers.{paper.module}.{name}")


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def unchanged(model: nn.Module, before: dict[str, torch.Tensor], kinds: list[type]) -> bool:
    now = model.state_dict()
    return ([type(module) for module in model.modules()] == kinds and now.keys() == before.keys()
            and all(torch.equal(tensor, before[key]) for key, tensor in now.items()))


# --- the card --------------------------------------------------------------------------------------------------------


@each_paper
def test_the_obligatory_files_are_there(paper):
    names = {file.name for file in paper.folder.iterdir()}
    assert {"card.toml", "__init__.py", "method.py", "experiment.py", "claims.py", "figures.py"} <= names


@pytest.mark.parametrize("paper", [*WRITTEN, *comparisons()], ids=lambda one: one.module)
def test_every_full_claim_names_a_recipe_that_there_is(paper):
    full = [claim for claim in paper.claims if isinstance(claim, FullClaim)]
    recipes = part(paper, "recipes").RECIPES if full else {}
    for claim in full:
        assert claim.recipe.split("--config ")[1] in recipes, claim.id


@each_paper
def test_every_miniature_has_a_short_name(paper):
    short = [claim.short for claim in paper.claims if claim.kind == "miniature"]
    assert all(short) and len(set(short)) == len(short)
    assert max(map(len, short)) <= 60


@each_paper
def test_an_exact_claim_is_pinned(paper):
    """The value that the run must give stands in the card; the run of the notebook holds it to that."""
    for claim in paper.claims:
        if isinstance(claim, ExactClaim) and claim.ours is not None:
            assert claim.accept.allows(claim.ours, claim.paper) != bool(claim.differs), claim.id


# --- the verb --------------------------------------------------------------------------------------------------------


def test_every_pruning_and_low_rank_method_takes_part():
    assert {"lapp", "dcff", "we", "one_by_n", "lbc", "lr_winograd", "lrpet", "cc", "snn"} <= SAMPLES.keys()


@each_method
def test_the_configuration_is_frozen_and_says_what_is_left_out(name):
    kind = SAMPLES[name].config
    config = kind()
    assert {"ignore", "filter_fn"} <= {field.name for field in dataclasses.fields(kind)}
    assert config.ignore == () and config.filter_fn is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.ignore = ("features.0",)


@each_method
@pytest.mark.parametrize(("options", "message"), [
    (dict(ignore=("nothing",)), "ignore names 'nothing', which is no layer of this network"),
    (dict(ignore="features.0"), "give a sequence of names"),
    (dict(filter_fn=lambda name, module: False), "of this network is left to work on")])
def test_a_refusal_says_the_same_everywhere_and_changes_nothing(name, options, message):
    sample, model = SAMPLES[name], network()
    before, kinds = state(model), [type(module) for module in model.modules()]
    with pytest.raises(ValueError, match=message):
        sample.treat(model, sample.config(**options))
    assert unchanged(model, before, kinds)


@each_method
def test_layers_that_are_left_out_stay_as_they_were(name):
    """By name, by the name of what they are in, and by a rule: of three convolutions only the last is worked on."""
    sample = SAMPLES[name]
    for options in (dict(ignore=("features.0", "features.3", "features.1", "features.4", "classifier")),
                    dict(filter_fn=lambda name, module: name.startswith(("features.7", "features.8")))):
        model = network()
        before = state(model)
        with torch.no_grad():
            model.features[7].weight[3:] *= 1e-4  # something to evolve, too
        treated = sample.treat(model, sample.config(**options, **sample.alone))
        for layer in ("features.0", "features.3"):
            assert type(treated.get_submodule(layer)) is nn.Conv2d, layer
            assert torch.equal(treated.get_submodule(layer).weight, before[f"{layer}.weight"])
        last = treated.get_submodule("features.7")
        assert type(last) is not nn.Conv2d or not torch.equal(last.weight, before["features.7.weight"])


def finished(name: str) -> nn.Module:
    """A network that the method has treated, as it is at the end of training."""
    sample = SAMPLES[name]
    config = sample.config(**sample.options)
    treated = sample.treat(network(), config)
    sample.finish(treated, config)
    return treated.eval()


# --- the compact form ------------------------------------------------------------------------------------------------


@each_compact
def test_the_compact_network_gives_the_same_outputs_and_leaves_the_other_as_it_was(name):
    trained = finished(name)
    before, kinds = state(trained), [type(module) for module in trained.modules()]
    small = SAMPLES[name].compact(trained)
    assert small is not trained and unchanged(trained, before, kinds)
    x = torch.randn(3, *EXAMPLE.shape[1:])
    with torch.no_grad():
        torch.testing.assert_close(small.eval()(x), trained(x), atol=1e-5, rtol=1e-4)
    assert unchanged(trained, before, kinds)


@each_compact
def test_the_state_of_a_compact_network_travels(name):
    small = SAMPLES[name].compact(finished(name)).eval()
    other = copy.deepcopy(small)
    with torch.no_grad():
        for tensor in other.state_dict().values():
            if tensor.is_floating_point():
                tensor.zero_()
    other.load_state_dict(small.state_dict())
    x = torch.randn(2, *EXAMPLE.shape[1:])
    with torch.no_grad():
        assert torch.equal(other(x), small(x))


@each_compact
def test_the_report_of_the_compact_network_is_smaller(name):
    rows, saves = report(network(), SAMPLES[name].compact(finished(name)), EXAMPLE, timed=False), SAMPLES[name].saves
    assert getattr(rows.after, saves) < 0.8 * getattr(rows.before, saves) and 0 < rows.after.bytes


# --- the checks themselves -------------------------------------------------------------------------------------------


def test_a_changed_weight_a_changed_kind_and_a_new_buffer_are_seen():
    model = network()
    before, kinds = state(model), [type(module) for module in model.modules()]
    assert unchanged(model, before, kinds)
    with torch.no_grad():
        model.features[0].weight[0, 0, 0, 0] += 1
    assert not unchanged(model, before, kinds)
    model = network()
    before = state(model)
    model.features[2] = nn.Identity()
    assert not unchanged(model, before, kinds)
    model = network()
    before = state(model)
    model.register_buffer("seen", torch.zeros(1))
    assert not unchanged(model, before, kinds)
