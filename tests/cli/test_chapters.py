"""The commands on chapters: what they list, what they say of a run, the table in the README."""

import json
import re

from cli_checks import wrong_input

from papernets.cards import card, cards
from papernets.cards.present import counted
from papernets.press import Run
from papernets.tools import paths


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
    monkeypatch.setattr(paths, "root", lambda: tmp_path)
    assert run("readme", "--check")[0] == 1
    assert "old" in (tmp_path / "README.md").read_text()
    assert run("readme")[0] == 0
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("# Mine\n") and text.endswith("\nEnd\n") and text.count("\n| ") == 1 + 41
    assert run("readme", "--check")[0] == 0
