"""Closing a chapter: what must have been recorded, and the file of results, which is written whole or not at all."""

import json
import os

import pytest
from claim_checks import BETTER, WORSE, exact, full, miniature

from papernets.chapter import ClaimError
from papernets.tools import files


def test_close_raises_for_a_claim_that_was_left_out(chapter):
    one = chapter(exact("a"), exact("b"), full("c"))
    one.claims.record("a", 100)
    with pytest.raises(ClaimError, match=r"^07-odd: b is in the card and was not recorded$"):
        one.close()
    one.claims.record("b", 100)
    assert one.close() is one.claims


def test_close_raises_for_an_exact_claim_that_does_not_hold(chapter):
    one = chapter(exact("a"))
    one.claims.record("a", 103)
    with pytest.raises(ClaimError, match="a is 103, expected 100"):
        one.close()
    assert issubclass(ClaimError, AssertionError)


def test_close_writes_where_it_is_told(chapter, tmp_path, monkeypatch):
    target = tmp_path / "deep" / "er" / "result.json"
    monkeypatch.setenv("PAPERNETS_RESULT", str(target))
    one = chapter(exact("a", ours=107, differs="größer"), miniature("c"), full("d"), profile="evidence", seed=11)
    one.claims.record("a", 107)
    one.claims.record("c", ours=BETTER, baseline=WORSE)
    one.close()
    found = json.loads(target.read_text(encoding="utf-8"))
    assert {key: found[key] for key in ("schema", "chapter", "profile", "seed")} == {
        "schema": 1, "chapter": "07-odd", "profile": "evidence", "seed": 11}
    assert [(row["id"], row["kind"], row["verdict"]) for row in found["claims"]] == [
        ("a", "exact", "differs"), ("c", "miniature", "shown"), ("d", "full", "open")]
    assert found["claims"][0]["why"] == "größer"
    assert found["claims"][1]["scores"] == {"ours": BETTER, "baseline": WORSE}
    assert [file.name for file in target.parent.iterdir()] == ["result.json"]


def test_close_writes_even_if_it_then_raises(chapter, tmp_path, monkeypatch):
    monkeypatch.setenv("PAPERNETS_RESULT", str(tmp_path / "result.json"))
    one = chapter(exact("a"), exact("b"))
    one.claims.record("a", 103)
    with pytest.raises(ClaimError):
        one.close()
    found = json.loads((tmp_path / "result.json").read_text())["claims"]
    assert [(row["id"], row["verdict"], row["expected"]) for row in found] == [("a", "failed", 100)]


def test_nothing_is_written_unless_asked(chapter, tmp_path, monkeypatch):
    monkeypatch.delenv("PAPERNETS_RESULT", raising=False)
    monkeypatch.chdir(tmp_path)
    one = chapter(exact("a"))
    one.claims.record("a", 100)
    one.close()
    assert list(tmp_path.iterdir()) == []


def test_a_reader_never_meets_half_a_file(chapter, tmp_path, monkeypatch):
    """What is renamed into place is whole; a writer that dies before leaves the old file as it was."""
    target = tmp_path / "result.json"
    target.write_text("old")
    monkeypatch.setenv("PAPERNETS_RESULT", str(target))
    one = chapter(exact("a"))
    one.claims.record("a", 100)
    rename, seen = os.replace, []

    def watch(part, to):
        seen.append((json.loads(open(part).read())["claims"][0]["id"], target.read_text()))
        rename(part, to)

    monkeypatch.setattr(files.os, "replace", watch)
    one.close()
    assert seen == [("a", "old")]
    assert json.loads(target.read_text())["claims"][0]["ours"] == 100

    def die(part, to):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", die)
    before = target.read_text()
    with pytest.raises(KeyboardInterrupt):
        one.close()
    assert target.read_text() == before
