"""The guide for a reader's own network runs as it is printed, and keeps what it promises."""

import re
import runpy

import pytest

from papernets import paths


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
