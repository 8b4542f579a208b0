"""The guide for a reader's own network runs as it is printed, and keeps what it promises."""

import importlib
import re
import runpy

import pytest

from papernets.cards import cards
from papernets.tools import paths


@pytest.mark.usefixtures("one_thread")
def test_the_guide_runs(tmp_path, monkeypatch, capsys):
    text = (paths.root() / "book" / "compress-your-own-network.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(blocks) == 1 and sum(bool(line.strip()) and not line.startswith("#") for line in blocks[0].splitlines()) <= 26
    monkeypatch.chdir(tmp_path)
    (tmp_path / "guide.py").write_text(blocks[0])
    found = runpy.run_path("guide.py")
    printed = capsys.readouterr().out
    before, after = re.search(r"accuracy (\S+) %, packed (\S+) %", printed).groups()
    assert float(before) > 40 and abs(float(before) - float(after)) < 0.5  # of ten classes
    assert float(re.search(r"parameters.*?(\S+) %", printed).group(1)) < 10
    assert type(found["loaded"].features[4]).__name__ == "PackedConv2d" and (tmp_path / "small.pt").stat().st_size < 100_000


def test_the_calls_that_the_table_names_exist():
    text = (paths.root() / "book" / "compress-your-own-network.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    by_name = {card.name: card.module for card in cards()}
    assert len(rows) == 8
    for row in rows:
        module = importlib.import_module(f"papernets.papers.{by_name[row.split('|')[1].strip()]}")
        short = module.__name__.rpartition(".")[2]
        code = " ".join(re.findall(r"`([^`]+)`", row))
        called = re.findall(rf"\b{short}\.(\w+)", code) + re.findall(r"(?<![.\w])([A-Z]\w+)\(", code)
        assert called and all(hasattr(module, name) for name in called), (short, called)
    configs = re.findall(r"(?<![.\w])([A-Z]\w+)(\([^()]*\))", "".join(rows))
    assert len(configs) == 7
    for name, arguments in configs:  # each can be made with the options that are shown
        homes = [importlib.import_module(f"papernets.papers.{module}") for module in by_name.values() if module in
                 ("lapp", "dcff", "we", "one_by_n", "lbc", "lr_winograd", "lrpet", "cc")]
        eval(f"kind{arguments}", {"kind": next(getattr(home, name) for home in homes if hasattr(home, name))})
