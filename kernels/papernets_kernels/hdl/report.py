"""The cores by name, test vectors for each, and what a core needs and takes: the numbers of ``papernets rtl``.

    found = row("xnor", {"lanes": 16})  # cycles, held to the law; results, held to the golden model; what an FPGA needs
    found["faults"]                     # what did not hold; empty if all did
    export("xnor", make("xnor", lanes=16), "folder")  # Verilog, and vectors for any Verilog simulator
"""

import inspect
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from papernets_kernels import _check
from papernets_kernels.hdl import golden, rtl, sspnna, subbit, xnor
from papernets_kernels.hdl import place as placing
from papernets_kernels.hdl.simulate import Port, Stimulus, ports, simulate

# ---- the cores -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Work:
    """What a core is given to do, and what must come out.

    runs: names of the runs. run(engine): their results and cycles. expected: the results of the golden model. laws: the
    cycles of the law. macs: multiply-adds of the layers. slots: the operations that they need of the units in ``per_cycle``,
    which is how many of them the core can do in a cycle.
    """

    runs: list[str]
    stimulus: Stimulus
    run: Callable[[str], tuple[list[np.ndarray], list[int]]]
    expected: list[np.ndarray]
    laws: list[int]
    macs: int
    slots: int
    per_cycle: int


@dataclass(frozen=True)
class Kind:
    """One of the cores. ``busy`` are the units whose share of work is the utilisation; ``sweep`` are the rows of its table."""

    about: str
    make: type
    work: Callable[[object, int], Work]
    busy: str
    sweep: Callable[[dict[str, int]], list[tuple[str, dict[str, int]]]]

    @property
    def options(self) -> dict[str, int]:
        """The parameters of the core and their defaults."""
        return {name: parameter.default for name, parameter in inspect.signature(self.make).parameters.items()}


def kind(name: str) -> Kind:
    if name not in KINDS:
        raise ValueError(f"no core is called {name!r}; the nearest is {_check.nearest(name, KINDS)!r} of {', '.join(KINDS)}")
    return KINDS[name]


def make(name: str, **options: int):
    """The core with these parameters; those that are not given have their defaults."""
    known = kind(name).options
    for option in options:
        if option not in known:
            near = _check.nearest(option, known)
            raise ValueError(f"{name} has no option {option}; the nearest is {near} of {', '.join(known)}")
    return kind(name).make(**options)


# ---- what they are run on --------------------------------------------------------------------------------------------


def _sspnna(core: sspnna.SSpNNA, seed: int) -> Work:
    """A hollow ball, or a smaller scene that fits, in as many tiles as it takes; and a single voxel of the least numbers."""
    from papernets_kernels.sparse_conv3d import rulebook  # here, for it needs numba

    rng = np.random.default_rng(seed)
    places = np.argwhere(np.ones((7, 7, 7)))
    distance = np.sqrt(((places - 3) ** 2).sum(1))
    scenes = [places[abs(distance - 3) < 0.5], np.argwhere(np.ones((3, 3, 3))), np.argwhere(np.ones((1, 1, 2))), places[:1]]
    books = [rulebook(scene) for scene in scenes]

    def cut(book, make):
        return sspnna.tiles(core, make((book.inputs, core.channels)), book)

    for book in books:
        most = int(np.diff(book.lines()[1]).max())  # inputs of an output
        if most <= min(core.inputs, core.pairs):
            tiles = cut(book, lambda size: rng.integers(-128, 128, size, np.int8))
            break
    runs = [tiles[i : i + core.pages] for i in range(0, len(tiles), core.pages)]
    runs.append(cut(books[-1], lambda size: np.full(size, -128, np.int8)))
    weight = rng.integers(-128, 128, (27, core.channels, core.lanes), np.int8)
    weight[13] = -128
    pairs = sum(len(tile.indices) for tiles in runs for tile in tiles)

    def run(engine):
        sums, cycles = sspnna.run(core, weight, runs, engine)
        return [tile for tiles in sums for tile in tiles], cycles

    return Work(
        runs=[f"{len(tiles)} tile{'s' * (len(tiles) > 1)}, {sum(len(tile.masks) for tile in tiles)} voxels" for tiles in runs],
        stimulus=sspnna.stimulus(core, weight, runs),
        run=run,
        expected=[golden.sspnna(t.features, t.masks, t.indices, weight, core.accumulator) for tiles in runs for t in tiles],
        laws=[core.law([tile.masks for tile in tiles]) for tiles in runs],
        macs=pairs * core.channels * core.lanes,
        slots=pairs * core.channels,
        per_cycle=max(core.rows, core.planes),
    )


def _signs(core, seed: int) -> Work:
    """Two layers of 3x3 kernels of signs; the first is as large as 6x6 pixels, 4 channels and 128 outputs, if it fits."""
    rng = np.random.default_rng(seed)

    def fits(outputs, channels, size):
        groups = -(-outputs // core.adders)
        return outputs <= core.outputs and size * size * channels <= core.windows and groups * channels <= core.words

    sizes = [(o, c, s) for o in (128, 64, 32, 16, 8, 4, 2, 1) for c in (4, 2, 1) for s in (6, 5, 4, 3, 2, 1)]
    outputs, channels, size = next(found for found in sizes if fits(*found))
    codebook = rng.choice([-1, 1], (2 ** min(getattr(core, "tau", 5), 5), 3, 3))

    def ids(*shape):
        return rng.integers(0, len(codebook), shape)

    first = rng.integers(-128, 128, (channels, size, size), np.int8)
    second = np.full((1, 4, 3), -128, np.int8)  # the least numbers, with a step, and one output
    layers = [
        subbit.Layer(first, ids(outputs, channels), codebook, padding=1),
        subbit.Layer(second, ids(1, 1), codebook, stride=(2, 1)),
    ]
    sizes = [(len(subbit.windows(layer.x, layer.stride, layer.padding)), *layer.ids.shape[::-1]) for layer in layers]
    sums = sum(positions * channels * outputs for positions, channels, outputs in sizes)
    return Work(
        runs=[f"{p} position{'s' * (p > 1)}, {c} channel{'s' * (c > 1)}, {o} output{'s' * (o > 1)}" for p, c, o in sizes],
        stimulus=subbit.stimulus(core, layers),
        run=lambda engine: subbit.run(core, layers, engine),
        expected=[
            golden.conv3x3(layer.x, codebook[layer.ids], layer.stride, layer.padding, core.sums.elem_shape.width)
            for layer in layers
        ],
        laws=[core.law(*size) for size in sizes],
        macs=9 * sums,
        slots=sums,
        per_cycle=core.adders,
    )


def _xnor(core: xnor.Xnor, seed: int) -> Work:
    """A product of 48 by 64 vectors of 576 signs, or as large as fits, and a small one whose last word is not full."""
    from papernets_kernels import binary  # here, for it needs numba

    rng = np.random.default_rng(seed)
    words = min(9, core.rows, core.columns)
    few = min(2, words)
    shapes = [
        (min(48, core.rows // words), min(64, core.columns // words * core.lanes), 64 * words),
        (min(2, core.rows // few), min(3, core.columns // few * core.lanes), 64 * few - 27),
    ]
    signs = [(rng.choice([-1, 1], (m, k)), rng.choice([-1, 1], (n, k))) for m, n, k in shapes]
    products = [xnor.Product(binary.pack(a), binary.pack(b), a.shape[1]) for a, b in signs]
    return Work(
        runs=[f"{m} by {n} vectors of {k} signs" for m, n, k in shapes],
        stimulus=xnor.stimulus(core, products),
        run=lambda engine: xnor.run(core, products, engine),
        expected=[golden.binary_matmul(a, b) for a, b in signs],
        laws=[core.law(*shape) for shape in shapes],
        macs=sum(m * n * k for m, n, k in shapes),
        slots=sum(m * n * -(-k // xnor.WORD) for m, n, k in shapes),
        per_cycle=core.lanes,
    )


# ---- the rows of their tables ----------------------------------------------------------------------------------------


def _variants(name: str, options: dict[str, int], changes: Sequence[dict[str, int]]) -> list[tuple[str, dict[str, int]]]:
    found = []
    for change in changes:
        variant = (name, {**options, **change})
        if variant not in found:
            found.append(variant)
    return found


def _sweep_sspnna(options: dict[str, int]):
    plain = {"pages": 1, "planes": 1, "rows": 1}
    rows = [g for g in (2, 4, 8) if g <= options["channels"]]
    changes = [{"lanes": lanes} for lanes in (4, 8, 16, 32)]
    changes += [{**plain, "pages": 2}, {**plain, "planes": 2}, *({**plain, "rows": g} for g in rows)]
    return _variants("sspnna", options, [*changes, {**plain, "pages": 2, "rows": rows[-1]}])


def _sweep_subbit(options: dict[str, int]):
    shared = {name: value for name, value in options.items() if name in KINDS["plain-binary"].options}
    changes = [{"adders": adders} for adders in (1, 2, 4, 8)] + [{"tau": tau} for tau in (3, 4, 5, 6)]
    return [("plain-binary", shared), *_variants("subbit", options, changes)]


KINDS = {
    "sspnna": Kind("sparse convolution in three dimensions, plane by plane", sspnna.SSpNNA, _sspnna, "multipliers",
                   _sweep_sspnna),
    "subbit": Kind("3x3 kernels of signs from a small codebook, results shared", subbit.SubBit, _signs, "adders",
                   _sweep_subbit),
    "plain-binary": Kind("3x3 kernels of signs, one after the other, to compare with", subbit.PlainBinary, _signs, "adders",
                         lambda options: _variants("plain-binary", options, [{}])),
    "xnor": Kind("products of signs by counting bits", xnor.Xnor, _xnor, "lanes",
                 lambda options: _variants("xnor", options, [{"lanes": lanes} for lanes in (4, 8, 16, 32)])),
}  # fmt: skip


def sweep(name: str, **options: int) -> list[tuple[str, dict[str, int]]]:
    """(name, options) of the cores of a table around the core with ``options``. Each can be made; that is checked here."""
    make(name, **options)
    found = kind(name).sweep({**kind(name).options, **options})
    for other, its in found:
        make(other, **its)
    return found


def label(name: str, options: dict[str, int]) -> str:
    """The core in a few words: the first parameter, and those that are not as they are by default."""
    defaults = kind(name).options
    options = {**defaults, **options}
    head = {"sspnna": ("lanes",), "subbit": ("tau", "adders"), "xnor": ("lanes",)}.get(name, ())
    said = [f"{option} {value}" for option, value in options.items() if option in head or value != defaults[option]]
    return " ".join([name, ", ".join(said)]).strip()


# ---- measuring -------------------------------------------------------------------------------------------------------


def measure(name: str, core, engine: str = "amaranth", seed: int = 0) -> dict:
    """One row: the core run on its vectors. ``faults`` says where results or cycles are not those of golden model or law."""
    work = kind(name).work(core, seed)
    row = {"core": name, "options": {option: getattr(core, option) for option in kind(name).options}}
    row |= {"engine": engine, "seed": seed}
    faults, cycles = [], []
    try:
        results, cycles = work.run(engine)
    except TimeoutError as error:
        faults.append(f"the core did not end: {error}")
    else:
        for i, (found, expected) in enumerate(zip(results, work.expected, strict=True)):
            if found.shape != expected.shape:
                faults.append(f"result {i} has shape {found.shape}, that of the golden model {expected.shape}")
            elif (found != expected).any():
                at = tuple(int(n) for n in np.argwhere(found != expected)[0])
                faults.append(f"result {i} at {at} is {found[at]}, that of the golden model {expected[at]}")
        for run, found, law in zip(work.runs, cycles, work.laws, strict=True):
            if found != law:
                faults.append(f"the run of {run} took {found} cycles, its law says {law}")
    total = sum(cycles)
    row["runs"] = [{"name": run, "cycles": n, "law": law} for run, n, law in zip(work.runs, cycles or [None] * 9, work.laws)]
    row |= {"cycles": total, "law": sum(work.laws), "macs": work.macs, "macs_per_cycle": work.macs / total if total else None}
    row |= {"busy": kind(name).busy, "utilisation": work.slots / (total * work.per_cycle) if total else None}
    return {**row, "faults": faults}


def row(name: str, options: dict[str, int], engine: str = "amaranth", seed: int = 0, *, clock: dict | None = None,
        say: Callable[[str], None] = lambda what: None) -> dict:
    """What ``measure`` says, and under ``resources`` the counts of ``rtl.resources``, None where Yosys is missing.

    clock: the arguments of ``place.place``, whose answer is then under ``clock``. say: is told what begins.
    """
    core, its = make(name, **options), label(name, options)
    say(f"{its}: simulating")
    found = {"label": its, **measure(name, core, engine, seed), "resources": None, "clock": None}
    if not rtl.missing():
        say(f"{its}: Yosys counts what it takes")
        found["resources"] = rtl.resources(core)
    if clock is not None:
        say(f"{its}: nextpnr places and routes it")
        found["clock"] = placing.place(core, **clock)
    return found


HEADS = ("core", "cycles", "law", "busy", "MACs/cycle", "LUTs", "flip-flops", "LUT RAM bits", "block RAMs", "multipliers")


def cells(found: dict) -> list[str]:
    """A row of ``HEADS`` in words, with the clock behind them if it was asked for; what is not known is a dash."""
    def number(value, form="{}"):
        return "–" if value is None else form.format(value)

    counts = found["resources"] or dict.fromkeys(("luts", "flip_flops", "lut_ram_bits", "block_rams", "multipliers"))
    share = found["utilisation"]
    words = [found["label"], str(found["cycles"]), str(found["law"]), number(share and 100 * share, "{:.1f} %"),
             number(found["macs_per_cycle"], "{:.1f}"), *(number(count) for count in counts.values())]  # fmt: skip
    return [*words, *([f"{found['clock']['mhz']:.1f}"] if found["clock"] else [])]


# ---- Verilog and vectors ---------------------------------------------------------------------------------------------

FILES = ("core.v", "check.v", "inputs.hex", "outputs.hex", "ports.json")
_CHECK = """\
// Gives `top` of core.v the rows of inputs.hex, one a clock cycle, and compares its outputs with those of outputs.hex.
// After {cycles} cycles `done` is 1; `failed` is 1 if an output differed, in the cycle `first` for the first time.
module check(input clk, output reg done, output reg failed, output reg [31:0] first);
  reg [{i}:0] inputs [0:{last}];
  reg [{o}:0] outputs [0:{last}];
  reg [31:0] cycle;
  initial begin
    $readmemh("inputs.hex", inputs);
    $readmemh("outputs.hex", outputs);
    done = 0;
    failed = 0;
    first = 0;
    cycle = 0;
  end
  wire [{i}:0] given = inputs[cycle];
  wire [{o}:0] expected = outputs[cycle];
  wire [{o}:0] found;
  top core(
    .clk(clk),
{ports}
  );
  always @(posedge clk) if (!done) begin
    if (found !== expected && !failed) begin
      failed <= 1;
      first <= cycle;
    end
    if (cycle == {last}) done <= 1;
    else cycle <= cycle + 1;
  end
endmodule
"""


def check_folder(folder) -> Path:
    """A ``ValueError`` if ``export`` would have to remove files that it did not write."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or {one.name for one in folder.iterdir()} - set(FILES)):
        free = next(path for n in range(2, 1000) if not (path := folder.with_name(f"{folder.name}-{n}")).exists())
        raise ValueError(f"{folder} is there and holds other things; give a new folder, such as {free}")
    return folder


def export(name: str, core, folder, engine: str = "amaranth", seed: int = 0) -> Path:
    """Writes the core as Verilog and its test vectors into a new folder, which appears whole or not at all.

    core.v: module ``top``. inputs.hex and outputs.hex: a row for each clock cycle, all ports side by side in hexadecimal;
    outputs are those before the clock edge. ports.json: which bits are which port. check.v: a module that does the
    comparing, for any Verilog simulator. A folder that this function wrote may be written again.
    """
    folder = check_folder(folder)
    verilog = rtl.verilog(core)  # before anything is written: this can fail
    work = kind(name).work(core, seed)
    trace = simulate(core, work.stimulus, engine, trace=True).trace
    inputs, outputs = ports(core)
    sides = {"inputs": _rows(inputs, trace), "outputs": _rows(outputs, trace)}
    cycles = len(sides["inputs"][0])
    wires, described = [], {"module": "top", "clock": "clk", "cycles": cycles, "runs": work.runs}
    for side, wire in (("inputs", "given"), ("outputs", "found")):
        low, described[side] = 0, {}
        for port in (inputs if side == "inputs" else outputs).values():
            wires.append(f"    .{port.name}({wire}[{low + port.bits - 1}:{low}])")
            described[side][port.name] = {"low": low, "bits": port.bits, "signed": port.signed, "count": port.count}
            low += port.bits
        described[f"{side}_bits"] = low
    check = _CHECK.format(cycles=cycles, last=cycles - 1, i=described["inputs_bits"] - 1, o=described["outputs_bits"] - 1,
                          ports=",\n".join(wires))  # fmt: skip
    texts = [verilog, check, *("\n".join(rows) + "\n" for rows, _ in sides.values()), json.dumps(described, indent=1) + "\n"]
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        new, old = part / "new", part / "old"
        new.mkdir()
        for file, text in zip(FILES, texts, strict=True):
            (new / file).write_text(text, encoding="utf-8", newline="\n")
        if folder.exists():
            os.rename(folder, old)
        try:
            os.rename(new, folder)
        except OSError:
            if old.exists():
                os.rename(old, folder)
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _rows(ports: dict[str, Port], trace: dict[str, np.ndarray]) -> tuple[list[str], int]:
    """All ports of each cycle side by side, the first one lowest, in hexadecimal; and how many bits that is."""
    bits = sum(port.bits for port in ports.values())
    columns, digits = [], -(-bits // 4)
    for port in ports.values():
        words = np.ascontiguousarray(port.encode(trace[port.name]).reshape(-1, port.words)).astype("<u4", copy=False)
        columns.append(np.unpackbits(words.view(np.uint8), axis=1, bitorder="little", count=port.bits))
    row = np.concatenate(columns, axis=1)
    row = np.pad(row, [(0, 0), (0, 8 * -(-bits // 8) - bits)])
    packed = np.packbits(row, axis=1, bitorder="little")[:, ::-1]
    return [line.tobytes().hex()[-digits:] for line in packed], bits
