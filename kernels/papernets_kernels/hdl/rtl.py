"""A core as Verilog, and what it takes on an FPGA.

The counts are those of Yosys' flow for Lattice ECP5 (``synth_ecp5``), before placement and routing: a size to compare cores by,
not a promise that a clock is met.
"""

import json
from pathlib import Path

from papernets_kernels.hdl import _tools

_VERILOG = "proc; opt_clean; write_verilog -noattr core.v"
# Names are hidden before the mapping: ABC9 of Yosys 0.70 takes some of them for its own, and stops.
_RESOURCES = "hierarchy -top top; proc; flatten; rename -hide; synth_ecp5 -top top; tee -q -o core.json stat -json -top top"


def missing() -> str:
    """What Verilog and counts need and this machine lacks, and how to get it; empty where it lacks nothing."""
    return _tools.missing_yosys()


def verilog(core) -> str:
    """The core as a Verilog module ``top``, with the inputs ``clk`` and ``rst`` beside the core's own ports."""
    return _made(core, _VERILOG, "core.v").read_text()


def resources(core) -> dict[str, int]:
    """What the core takes on an ECP5.

    luts: look-up tables of four inputs, with the two of every carry cell. flip_flops. lut_ram_bits: of memories made of look-up
    tables. block_rams: of 18 kbit. multipliers: of 18 by 18 bits.
    """
    design = json.loads(_made(core, _RESOURCES, "core.json").read_text())["design"]
    cells = design["num_cells_by_type"]

    def count(*names):
        return sum(cells.get(name, 0) for name in names)

    return {
        "luts": count("LUT4") + 2 * count("CCU2C"),
        "flip_flops": count("TRELLIS_FF"),
        "lut_ram_bits": 64 * count("TRELLIS_DPR16X4"),
        "block_rams": count("DP16KD", "PDPW16KD"),
        "multipliers": count("MULT18X18D"),
    }


def _made(core, script: str, name: str) -> Path:
    if lacks := missing():
        raise RuntimeError(f"Verilog and resource counts need {lacks}")
    text = _tools.rtlil(core)

    def make(folder: Path) -> Path:
        _tools.yosys(folder, text, script)
        return folder / name

    return _tools.cached([text, script], Path(name).suffix, make)
