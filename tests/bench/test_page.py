"""The page on the kernels: every number is the file's, and without a file it says how to make one."""

import json
import re

import pytest

from papernets.bench import _page, kernels_file, kernels_part
from papernets.bench import _run as runs

PARTS = ("machine", "targets", "float", "binary", "cases")


def row(group, at, threads, macs, moved, peak, ours, peers, beside=None, missing=None, replaced=()):
    times = {name: {"median": seconds, "low": 0.9 * seconds, "high": 1.2 * seconds, "turns": 5}
             for name, seconds in {**peers, "ours": ours, **(beside or {})}.items()}
    return {"kernel": group.split(",")[0], "group": group, "at": at, "threads": threads, "macs": macs, "dense": macs,
            "moved": moved, "peak": peak, "times": times, "peers": list(peers), "beside": list(beside or {}),
            "missing": missing or {}, "others": 0.0, "replaced": list(replaced)}


ABOUT = {"machine": {"processor": "Model <1>", "cores": 2, "caches": {"L1": 48 * 2**10, "L2": 2**20}, "memory": 24 * 2**30,
                     "vector": 512, "blas": ["openblas 0.3.30 SkylakeX"],
                     "versions": {"python": "3.11.7", "numpy": "2.4.6", "faiss-cpu": None}},
         "peaks": {"fma": 100e9, "popcount": 2e12, "bandwidth": {"L2": 90e9, "memory": 30e9}}}
ROWS = [row("binary.conv2d", "64→64 at 56×56", 1, 1.2e8, 1e6, "popcount", 1.234e-4, {"torch conv2d": 1.357e-3},
            {"torch int8": 4.44e-4}),
        row("binary.conv2d", "64→64 at 56×56", 2, 1.2e8, 1e6, "popcount", 7.1e-5, {"torch <b>": 6.5e-4}),
        row("binary.matmul", "one", 1, 1.2e8, 1e6, "popcount", 1e-4, {"numpy product": 1e-3}),
        row("n_of_m.matmul, 2:4", "96→576", 1, 4e6, 5e5, "fma", 8.05e-5, {"numpy product": 9.2e-5, "torch mm": 2e-4},
            missing={"faiss": "not installed"}, replaced=["torch mm"]),
        row("n_of_m.matmul, 2:4", "24→144", 1, 3e6, 5e5, "fma", 1e-4, {"numpy product": 3.1e-4}),
        row("lonely", "no peer", 1, 3e6, 5e5, "fma", 1e-4, {}), row("lonely", "no peer", 2, 3e6, 5e5, "fma", 1e-4, {})]


@pytest.fixture
def run(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setenv("PAPERNETS_ROOT", str(tmp_path))
    result = {"schema": 1, "benchmark": "kernels", "quick": False, "only": "", "removed": ["OPENBLAS_CORETYPE"], "skipped": {},
              "others": {"1": 0.004, "2": 0.0123},
              "seconds": 660.0, **runs.together(ROWS, ABOUT)}
    runs.save(result)
    return result


def text(part):
    """Cells and words, without tags."""
    return re.sub(r"<[^>]+>", "|", kernels_part(part)).replace("\u00a0", " ")


def figure(part):
    return json.loads(kernels_part(part).split('<script type="application/json">')[1].split("</script>")[0])["figure"]


def test_every_layer_shows_its_times_ratios_and_share(run):
    found = text("cases")
    first = run["cases"][0]["threads"]["1"]
    assert first["ratio"] == 1.357e-3 / 1.234e-4 and first["share"] == 1.2e8 / 1.234e-4 / 2e12
    for words in ("0.123 ms |(0.111–0.148)", "1.36 ms |(1.22–1.63)", "11.0×", "9.15×", "48.6 %", "torch int8: 0.444 ms",
                  "0.0805 ms |(0.0725–0.0966)", "1.14×", "3.10×"):
        assert words in found, words
    assert "torch &lt;b&gt;" in kernels_part("cases") and "<b>" not in kernels_part("cases")
    assert "faiss: not installed." in found and "dense layer that this one replaces" in found
    assert kernels_part("cases").count("<details>") == 4 and kernels_part("cases").count("<tr>") == 4 + 5


def test_every_target_shows_what_was_measured_and_its_verdict(run):
    found = text("targets")
    assert re.search(r"binary\.conv2d\|.*?\|10×, aim 20×\|.*?\|11\.0×\|.*?\|9\.15×\|.*?\|met\|", found)
    assert re.search(r"binary\.matmul, of the peak\|.*?\|60 %\|.*?\|60\.0 %\|.*?\|met\|", found)
    assert re.search(r"n_of_m\.matmul, 2:4\|.*?\|2\.2×\|.*?\|2\.12× \|\(1\.14× to 3\.10×\)\|.*?\|not met\|", found)
    assert re.search(r"subbit.*?no case was measured\|.*?\|not judged\|", found)
    assert kernels_part("targets").count("<tr>") == 1 + len(run["targets"])


def test_the_machine_and_its_peaks_are_told(run):
    found = text("machine")
    for words in ("Model &lt;1&gt;, 2 cores, vectors of 512 bits", "L1 48 KiB, L2 1 MiB, 24 GiB of memory", "numpy 2.4.6",
                  "without faiss-cpu", "openblas 0.3.30 SkylakeX", "100 GMAC/s in float32", "2 000 GMAC/s in single bits",
                  "90.0 GB/s from L2", "OPENBLAS_CORETYPE", "11 minutes",
                  "at most 1.23 % of the time"):
        assert words in found.replace("\u202f", " "), words


def test_the_roofline_has_each_layer_below_roofs_that_were_measured(run):
    for part, peak, kernels in (("float", 100, ["n_of_m.matmul", "lonely"]),
                                ("binary", 2000, ["binary.conv2d", "binary.matmul"])):
        traces = figure(part)["data"]
        roofs, points = [t for t in traces if t["mode"] == "lines"], [t for t in traces if t["mode"] == "markers"]
        assert [roof["name"] for roof in roofs] == ["roof, data from L2", "roof, data from memory"]
        assert all(max(roof["y"]) <= peak for roof in roofs)
        assert roofs[1]["y"][0] == pytest.approx(min(peak, 30 * roofs[1]["x"][0]), rel=1e-3)
        assert [trace["name"] for trace in points] == kernels
    xs, ys = figure("float")["data"][2]["x"], figure("float")["data"][2]["y"]
    assert xs == [8, 6] and ys == pytest.approx([4e6 / 8.05e-5 / 1e9, 30], rel=1e-3)
    assert figure("binary")["layout"]["title"]["text"] == "binary.matmul reaches 60.0\u00a0% of what one thread can do"
    assert figure("float")["layout"]["xaxis"]["type"] == figure("float")["layout"]["yaxis"]["type"] == "log"


def test_without_a_run_the_page_says_in_one_sentence_how_to_make_one(run):
    kernels_file().unlink()
    assert [text(part) == "" for part in PARTS] == [False, True, True, True, True]
    assert text("machine").count(". ") == 0 and "papernets bench kernels" in text("machine")


@pytest.mark.parametrize("damage", ["", "[]", '{"schema": 2, "benchmark": "kernels"}', '{"schema": 1, "benchmark": "kernels"}'])
def test_a_damaged_file_is_named(run, damage):
    kernels_file().write_text(damage)
    for part in PARTS:
        with pytest.raises(ValueError, match=r"kernels\.json: not a run of the kernels .* papernets bench kernels"):
            kernels_part(part)


def test_the_committed_run_is_whole_and_the_page_shows_it():
    found = _page.read()
    if found is None:
        pytest.skip("no run is committed")
    assert not found["quick"] and not found["only"] and runs.errors(found) == []
    page = text("cases")
    for case in found["cases"]:
        one = case["threads"]["1"]
        assert f"{_page.short(1e3 * one['times']['ours']['median'])} ms" in page
        assert one["ratio"] == one["times"][one["fastest"]]["median"] / one["times"]["ours"]["median"]
    for target in found["targets"]:
        assert target["verdict"] in text("targets")


@pytest.mark.parametrize(("value", "words"), [(0.00123, "0.00123"), (0.123, "0.123"), (1.234, "1.23"), (12.345, "12.3"),
                                              (123.4, "123"), (999.7, "1 000"), (1234.5, "1 230"), (0, "0")])
def test_three_digits(value, words):
    assert _page.short(value).replace("\u202f", " ") == words
