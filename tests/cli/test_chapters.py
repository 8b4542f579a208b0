"""The commands on chapters: what they list, what they say of a run, the table in the README."""

import json
import re
from pathlib import Path

import pytest
from cli_checks import wrong_input

from papernets.cards import card, cards
from papernets.cards.present import counted
from papernets.press import Run, RunError
from papernets.tools import paths

ROOT = Path(__file__).parents[2]


@wrong_input(
    (("validate", "--chapter", "99"), "no chapter '99'; the nearest is"),
    (("validate", "--chapter", "dcf"), "the nearest is 'dcff'"),
    (("validate", "--chapter", "38"), "chapter 38-corrtalk is planned and has no notebook yet"),
    (("validate", "--profile", "fast"), "choose from quick, book, evidence"),
    (("validate", "--family", "pruned"), "no family 'pruned'; choose from pruning"),
    (("validate", "--seed", "-1"), "greater than or equal to 0"),
    (("validate", "--jobs", "0"), "greater than or equal to 1"),
    (("site", "dcfg"), "the nearest is 'dcff'"),
    (("notebook", "38"), "planned and has no notebook yet"),
    (("list", "--jason"), "No such option: --jason"),
)
def test_wrong_input_is_one_line_and_status_2(refused, words, says):
    refused(*words, says=says)


def test_list_as_json(run):
    status, out, _ = run("list", "--json")
    rows = json.loads(out)
    assert status == 0 and [row["number"] for row in rows] == list(range(1, 42))
    for row, one in zip(rows, cards()):
        assert set(row) == {"number", "slug", "title", "family", "state", "claims"}
        assert set(row["claims"]) == {"reproduced", "derived", "differs", "shown", "not_shown", "open"}
        assert sum(row["claims"].values()) == len(one.claims)
        assert row["state"] in ("planned", "method", "chapter", "validated", "stale")
    chapters = list((paths.root() / "notebooks").glob("[0-9][0-9]-*.ipynb"))
    assert sum(row["state"] == "planned" for row in rows) == 41 - len(chapters)


def test_list_for_people(run):
    status, out, _ = run("list")
    lines = out.strip().splitlines()
    assert status == 0 and len(lines) == 42 and re.match(r"02\s+DCFF\s+pruning", lines[2])


def test_a_validated_chapter_is_a_line_that_calls_derived_what_is_printed_nowhere(run, monkeypatch):
    results = paths.results() / "02-dcff.json"

    def runs(chosen, profile, seed, *, report, **options):
        done = [Run(chapter, profile, results, results, True) for chapter in chosen]
        for one in done:
            report(one)
        return done

    monkeypatch.setattr("papernets.press.run_chapters", runs)
    status, out, _ = run("validate", "--chapter", "dcff", "--profile", "book")
    counts = counted(json.loads(results.read_text(encoding="utf-8"))["claims"], card("dcff"))
    assert status == 0 and out.startswith("ok      02-dcff (book, unchanged): ")
    assert counts["derived"] and f"{counts['reproduced']} reproduced, {counts['derived']} derived" in out.replace("\n", " ")


def test_the_table_in_the_readme_is_current(run):
    status, _, err = run("readme", "--check")
    assert status == 0, err


def test_an_outdated_table_is_seen(run, tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "README.md").write_text("# Mine\n<!-- papers:begin -->\nold\n<!-- papers:end -->\nEnd\n")
    monkeypatch.delenv("PAPERNETS_ROOT", raising=False)  # the papers are those of the package
    monkeypatch.setattr(paths, "root", lambda: tmp_path)
    assert run("readme", "--check")[0] == 1
    assert "old" in (tmp_path / "README.md").read_text()
    assert run("readme")[0] == 0
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("# Mine\n") and text.endswith("\nEnd\n") and text.count("\n| ") == 1 + 41
    assert run("readme", "--check")[0] == 0


# --- what may be wrong with the papers of a checkout -----------------------------------------------------------------

COMMANDS = [("list",), ("list", "--json"), ("validate",), ("validate", "--chapter", "lapp"), ("site",), ("site", "lapp"),
            ("readme",), ("readme", "--check"), ("notebook", "lapp"), ("train", "2", "--config", "vgg16-cifar10")]


def replace(card, old, new):
    text = card.read_text(encoding="utf-8")
    assert old in text
    card.write_text(text.replace(old, new, 1), encoding="utf-8")


FAULTS = {
    "a kind that is unknown": (lambda papers: replace(papers / "dcff" / "card.toml", 'kind = "exact"', 'kind = "exakt"'),
                               "kind is 'exakt'; choose from exact, miniature, full"),
    "a folder without a card": (lambda papers: (papers / "new").mkdir(),
                                "new/card.toml is missing: every folder among the papers holds a card; write one, or remove"),
    "two papers of one number": (lambda papers: replace(papers / "dcff" / "card.toml", "number = 2", "number = 1"),
                                 "dcff/card.toml and lapp/card.toml both have number 1; give one of them a number of its own"),
}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_paper_is_one_line_and_nothing_is_changed(checkout, refused, fault, words):
    plant, says = FAULTS[fault]
    plant(checkout / "src/papernets/papers")
    before = files(checkout)
    refused(*words, says=says)
    assert files(checkout) == before


@pytest.mark.parametrize("words", [("validate", "--chapter", "dcfg"), ("site", "lapp dcfg"), ("notebook", "lapp", "dcfg"),
                                   ("train", "dcfg", "--config", "vgg16-cifar10")], ids=" ".join)
def test_a_chapter_that_is_unknown_is_one_line_and_nothing_is_changed(checkout, refused, words):
    before = files(checkout)
    refused(*words, says="no chapter 'dcfg'; the nearest is 'dcff' (see: papernets list)")
    assert files(checkout) == before


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} | {"all": sorted(folder.rglob("*"))}


def test_the_small_checkout_is_whole_before_it_is_broken(checkout, run):
    status, out, err = run("list")
    assert status == 0 and err == "" and len(out.strip().splitlines()) == 3


def test_a_site_with_a_chapter_that_failed_ends_with_status_1(checkout, run, monkeypatch):
    def runs(chosen, profile, *, report, **options):
        failed = [RunError(f"{chapter}: cell 3 raised [one] error") for chapter in chosen]
        for one in failed:
            report(one)
        return failed

    monkeypatch.setattr("papernets.press.run_chapters", runs)
    status, out, err = run("site", "lapp")
    assert status == 1 and "Open" not in out and err.splitlines() == [
        "[1/1] failed  01-lapp: cell 3 raised [one] error", "papernets: 1 of 1 chapters failed; the site was not built"]


def test_a_chapter_is_begun_and_what_is_next_is_told(run, checkout):
    from papernets.cards import card
    for name in ("book/_toc.yml",):
        (checkout / name).parent.mkdir(exist_ok=True)
        (checkout / name).write_text("parts:\n  - chapters:\n      - file: book/families/quantization\n")
    folder = checkout / "src/papernets/papers/lts"
    folder.mkdir()
    (folder / "card.toml").write_text((ROOT / "src/papernets/papers/lts/card.toml").read_text())
    status, out, _ = run("new", "09")
    assert status == 0 and "src/papernets/papers/lts/method.py" in out and "notebooks/09-lts.ipynb" in out
    assert out.splitlines()[-1].endswith("pytest tests/papers/lts") and card("lts").written
    status, _, err = run("new", "lts")
    assert status == 2 and "exists; a chapter is begun once" in err


@pytest.mark.parametrize(("name", "says"), [("nonsense", "no chapter 'nonsense'"), ("which-one", "which-one is a comparison")])
def test_only_a_paper_can_be_begun(run, name, says):
    status, _, err = run("new", name)
    assert status == 2 and says in err
