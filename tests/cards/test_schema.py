"""The cards of the 41 papers, and every way in which a card is refused."""

import importlib
import re

import pytest

from papernets.cards import (
    FAMILIES,
    ExactClaim,
    FullClaim,
    Interval,
    MiniatureClaim,
    Tolerance,
    card,
    cards,
    cards_folder,
    read_card,
)
from papernets.cards import schema as room

CARDS = cards_folder()

CARD = """
number = 7
slug = "odd-sizes"
name = "Odd"
title = "Odd Sizes"
authors = ["A. Writer", "B. Reader"]
year = 2021
venue = "arXiv"
family = "pruning"
summary = "A card that no paper has, of just the length a card needs."
"""
EXACT = """
[[claims]]
id = "net.macs"
quantity = "multiply-accumulates"
paper = 100.0
unit = "MAC"
stated = "table"
kind = "exact"
accept = { absolute = 2.0 }
how = "counted"
"""
MINIATURE = """
[[claims]]
id = "net.gain"
quantity = "accuracy, ours minus the baseline"
paper = "better than the baseline"
unit = "points"
stated = "abstract"
kind = "miniature"
baseline = "the other method"
accept = { above = 0.0 }
how = "paired over seeds"
"""
FULL = """
[[claims]]
id = "net.top1"
quantity = "top-1 accuracy"
paper = 93.5
unit = "%"
stated = "abstract"
kind = "full"
accept = { absolute = 0.3 }
recipe = "papernets train odd-sizes"
cost = "two hours"
how = "on the test images"
"""
WHOLE = CARD + EXACT + MINIATURE + FULL


@pytest.fixture
def write(tmp_path):
    def put(text, name="odd_sizes"):
        path = tmp_path / name / "card.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path
    return put


# --- the cards that are there ----------------------------------------------------------------------------------------


def test_there_are_41_and_no_number_is_missing():
    assert [one.number for one in cards()] == list(range(1, 42))
    assert len(list(CARDS.glob("*/card.toml"))) == 41


@pytest.mark.parametrize("one", cards(), ids=lambda one: one.slug)
def test_card(one):
    assert (one.folder / "card.toml").is_file() and one.folder == CARDS / one.module
    assert one.module == {"1xn": "one_by_n"}.get(one.slug, one.slug.replace("-", "_"))
    assert one.module.isidentifier()
    assert one.chapter == f"{one.number:02d}-{one.slug}"
    assert one.family in FAMILIES
    assert one == read_card(CARDS / one.module / "card.toml")
    assert all(author == author.strip() and author for author in one.authors)
    if one.arxiv:
        assert re.fullmatch(r"\d{4}\.\d{4,5}", one.arxiv)
    if one.code:
        assert one.code.startswith("https://")
    ids = [claim.id for claim in one.claims]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(("one", "claim"), [(one, claim) for one in cards() for claim in one.claims],
                         ids=lambda value: getattr(value, "slug", None) or value.id)
def test_claim(one, claim):
    assert claim.id
    assert claim.quantity
    assert claim.how
    assert claim.stated
    assert one.claim(claim.id) is claim
    assert str(claim.accept)
    if isinstance(claim, ExactClaim):
        assert isinstance(claim.accept, Tolerance)
        limit = claim.accept.absolute if claim.accept.absolute is not None else claim.accept.relative * abs(claim.paper)
        assert 0 <= limit < float("inf")
        if claim.ours is None:
            assert claim.differs is None
        else:
            outside = abs(claim.ours - claim.paper) > limit * (1 + 1e-9)
            assert outside == bool(claim.differs)
    elif isinstance(claim, MiniatureClaim):
        assert isinstance(claim.accept, Interval)
        assert claim.baseline
        if claim.accept.within is not None:
            assert claim.accept.within[0] < claim.accept.within[1]
    else:
        assert isinstance(claim, FullClaim)
        assert claim.cost
        assert not claim.recipe or claim.recipe.startswith(f"papernets train {one.slug}")
        if one.written and claim.recipe:  # a recipe that is named can be started
            recipes = importlib.import_module(f"papernets.papers.{one.module}.recipes").RECIPES
            assert claim.recipe.split("--config ")[1] in recipes


def test_families_are_all_used():
    assert {one.family for one in cards()} == set(FAMILIES)


# --- reading ---------------------------------------------------------------------------------------------------------


def test_a_whole_card_is_read(write):
    found = read_card(write(WHOLE))
    assert (found.number, found.module, found.chapter, found.minutes) == (7, "odd_sizes", "07-odd-sizes", 25)
    assert [claim.kind for claim in found.claims] == ["exact", "miniature", "full"]
    assert found.claim("net.macs").accept == Tolerance(absolute=2.0)
    assert found.claim("net.gain").accept.above == 0
    with pytest.raises(ValueError, match=r"odd-sizes has no claim 'net.mac'; the nearest is 'net.macs'"):
        found.claim("net.mac")


def swap(before, after):
    assert WHOLE.count(before) >= 1
    return WHOLE.replace(before, after, 1)


REFUSALS = {
    "unknown key": (swap('venue = "arXiv"', 'venue = "arXiv"\nvenu = "x"'), "venu:"),
    "unknown key of a claim": (swap('how = "counted"', 'how = "counted"\nhows = "x"'), r"claims\.0\.hows:"),
    "unknown key of a rule": (swap("absolute = 2.0", "absolut = 2.0"), r"claims\.0\.accept"),
    "both tolerances": (swap("absolute = 2.0", "absolute = 2.0, relative = 0.1"),
                        r"claims\.0\.accept: .*exactly one of relative and absolute"),
    "no tolerance": (swap("{ absolute = 2.0 }", "{ }"), r"claims\.0\.accept: .*exactly one"),
    "negative tolerance": (swap("absolute = 2.0", "absolute = -2.0"),
                           r"claims\.0\.accept\.absolute: .*given -2\.0"),
    "tolerance without a limit": (swap("absolute = 2.0", "absolute = inf"), r"claims\.0\.accept\.absolute"),
    "two intervals": (swap("above = 0.0", "above = 0.0, below = 1.0"),
                      r"claims\.1\.accept: .*exactly one of above"),
    "no interval": (swap("{ above = 0.0 }", "{ }"), r"claims\.1\.accept: .*exactly one of above"),
    "interval upside down": (swap("above = 0.0", "within = [5.0, 1.0]"), r"claims\.1\.accept"),
    "differs without ours": (swap('how = "counted"', 'how = "counted"\ndiffers = "misprint"'),
                             r"claims\.0: .*says what ours is"),
    "differs though inside": (swap('how = "counted"', 'how = "counted"\nours = 102.0\ndiffers = "misprint"'),
                              r"claims\.0: .*inside the tolerance.*left out"),
    "outside without differs": (swap('how = "counted"', 'how = "counted"\nours = 102.5'),
                                r"claims\.0: .*outside the tolerance.*say why"),
    "duplicate id": (swap('id = "net.gain"', 'id = "net.macs"'), r"'net\.macs' stands twice"),
    "id with capitals": (swap('id = "net.macs"', 'id = "Net.MACs"'), r"claims\.0\.id: .*given 'Net\.MACs'"),
    "unknown family": (swap('family = "pruning"', 'family = "pruned"'), r"family: .*given 'pruned'"),
    "unknown kind": (swap('kind = "exact"', 'kind = "exactly"'),
                     r"claim 'net\.macs': kind is 'exactly'; choose from exact, miniature, full$"),
    "unknown source": (swap('stated = "table"', 'stated = "rumour"'), r"claims\.0\.stated: .*given 'rumour'"),
    "missing how": (swap('how = "counted"\n', ""), r"claims\.0\.how: .*required"),
    "missing baseline": (swap('baseline = "the other method"\n', ""), r"claims\.1\.baseline: .*required"),
    "missing recipe": (swap('recipe = "papernets train odd-sizes"\n', ""), r"claims\.2\.recipe: .*required"),
    "exact without a number": (swap("paper = 100.0", 'paper = "many"'), r"claims\.0\.paper: .*given 'many'"),
    "no claims": (CARD + "claims = []\n", "claims:"),
    "no authors": (swap('["A. Writer", "B. Reader"]', "[]"), "authors:"),
    "empty quantity": (swap('quantity = "multiply-accumulates"', 'quantity = "  "'), r"claims\.0\.quantity:"),
    "slug with capitals": (swap('slug = "odd-sizes"', 'slug = "Odd Sizes"'), "slug: .*given 'Odd Sizes'"),
    "number nought": (swap("number = 7", "number = 0"), "number: .*given 0"),
    "year of long ago": (swap("year = 2021", "year = 221"), "year: .*given 221"),
    "short summary": (swap("A card that no paper has, of just the length a card needs.", "Too short."), "summary:"),
    "bad TOML": (swap("number = 7", "number = = 7"), "not TOML: .*line"),
    "module": (swap("number = 7", 'number = 7\nmodule = "other"'), "module"),
}


@pytest.mark.parametrize("rule", REFUSALS)
def test_refusal_names_file_and_field(rule, write):
    text, says = REFUSALS[rule]
    with pytest.raises(ValueError, match=rf"(?s)^odd_sizes/card\.toml: {says}" if not says.startswith("'")
                       else rf"(?s)^odd_sizes/card\.toml: .*{says}"):
        read_card(write(text))


def test_a_file_that_is_not_utf8_is_named(tmp_path):
    path = tmp_path / "odd_sizes" / "card.toml"
    path.parent.mkdir()
    path.write_bytes(WHOLE.replace("Writer", "Wríter").encode("latin-1"))
    with pytest.raises(ValueError, match=r"odd_sizes/card\.toml: not TOML"):
        read_card(path)


def test_a_card_cannot_be_changed(write):
    with pytest.raises(ValueError, match="frozen"):
        read_card(write(WHOLE)).number = 8


@pytest.fixture
def home(write, tmp_path, monkeypatch):
    """Two papers in a folder of their own."""
    write(WHOLE, "one")
    write(WHOLE.replace("odd-sizes", "other").replace("number = 7", "number = 9"), "two")
    monkeypatch.setattr(room, "cards_folder", lambda: tmp_path)
    return tmp_path


def test_numbers_are_unique(home, write):
    write(WHOLE.replace("odd-sizes", "third"), "three")
    with pytest.raises(ValueError, match=r"^(one|three)/card\.toml and (one|three)/card\.toml both have number 7; "
                                         "give one of them a number of its own$"):
        cards()


def test_a_folder_without_a_card_is_named(home):
    (home / "__pycache__").mkdir()  # what Python leaves behind is no paper
    (home / "three").mkdir()
    with pytest.raises(ValueError, match=r"^three/card\.toml is missing: every folder among the papers holds a card; "
                                         "write one, or remove the folder$"):
        cards()


# --- rules -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rule", "ours", "paper", "allowed"), [
    ({"absolute": 2}, 102, 100, True), ({"absolute": 2}, 98, 100, True), ({"absolute": 2}, 102.001, 100, False),
    ({"absolute": 0}, 100, 100, True), ({"absolute": 0}, 101, 100, False),
    ({"absolute": 0.005}, 0.105, 0.1, True),  # not exactly so in floating point
    ({"relative": 0.01}, -101, -100, True), ({"relative": 0.01}, -101.1, -100, False),
    ({"relative": 0.5}, 0.1, 0, False)])
def test_tolerance(rule, ours, paper, allowed):
    assert Tolerance(**rule).allows(ours, paper) is allowed


@pytest.mark.parametrize(("rule", "low", "high", "allowed"), [
    ({"above": 0}, 0.1, 3, True), ({"above": 0}, 0, 3, False), ({"above": 0}, -0.1, 3, False),
    ({"below": 1}, -7, 0.9, True), ({"below": 1}, -7, 1, False),
    ({"within": (-1, 1)}, -1, 1, True), ({"within": (-1, 1)}, -1.1, 1, False), ({"within": (-1, 1)}, -1, 1.1, False)])
def test_interval_must_lie_whole_inside(rule, low, high, allowed):
    assert Interval(**rule).allows(low, high) is allowed


# --- looking up ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [2, "2", "02", "dcff", "02-dcff", "DCFF", " dcff "])
def test_card_by_any_of_its_names(name):
    assert card(name).slug == "dcff"


@pytest.mark.parametrize("one", cards(), ids=lambda one: one.slug)
def test_every_card_is_found_by_every_name(one):
    for name in (one.number, str(one.number), f"{one.number:02d}", one.slug, one.chapter, one.module):
        assert card(name) == one


@pytest.mark.parametrize(("name", "nearest"), [
    ("dcf", "dcff"), ("lr_winogrod", "lr-winograd"), ("super-vit", "supervit"), (42, "02|04|12|24|32|40|41")])
def test_unknown_name_gives_the_nearest(name, nearest):
    with pytest.raises(ValueError, match=rf"no chapter '{name}'; the nearest is '({nearest})' \(see: papernets list\)"):
        card(name)


@pytest.mark.parametrize("name", ["", "0", -1, "zzzzzz"])
def test_nonsense_is_refused(name):
    with pytest.raises(ValueError, match="no chapter"):
        card(name)
