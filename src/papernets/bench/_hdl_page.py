"""The parts of the book's page on the cores, all of them from the file of the last full run."""

import html
import json

from papernets.bench._hdl import hdl_file
from papernets.bench._page import _table, percent, short

HOW = ("There are no measurements yet; the command <code>papernets bench hdl</code> makes them and writes them to "
       "<code>book/results/hdl.json</code>.")


def read_hdl() -> dict | None:
    """The last full run; None if there is none. ``ValueError`` names the file if it is not one."""
    path = hdl_file()
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if (found["schema"], found["benchmark"]) != (1, "hdl"):
            raise ValueError(f"schema {found['schema']}, benchmark {found['benchmark']}")
        found["machine"], found["versions"], found["engines"]["ratio"], found["cores"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a run of the cores ({error}); make it again with: papernets bench hdl") from None
    return found


def hardware_part(name: str) -> str:
    """One part of the page: ``machine``, ``engines``, or the table of a core by its name."""
    found = read_hdl()
    if found is None:
        return f"<p>{HOW}</p>" if name == "machine" else ""
    return {"machine": _machine, "engines": _engines}.get(name, lambda run: _cores(run, name))(found)


def _machine(run: dict) -> str:
    machine, engines = run["machine"], run["engines"]
    here = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    others = max(engines[name]["others"] for name in ("amaranth", "compiled", "compile"))
    words = (f"The machine of the last run: {machine['processor']}, of which one core was used. It ran {here}, and the "
             f"compiler {engines['compiler']}. Other programs took at most {percent(others)} of the core's time.")
    return f"<p>{html.escape(words)}</p>"


def _engines(run: dict) -> str:
    engines = run["engines"]

    def spread(one: dict, unit: str) -> str:
        return f"{short(one['median'])}{unit} <small>({short(one['low'])}–{short(one['high'])})</small>"

    rows = [["amaranth", ("cycles a second", spread(engines["amaranth"], "")), ("compiling", "nothing")],
            ["compiled", ("cycles a second", spread(engines["compiled"], "")), ("compiling", spread(engines["compile"], " s"))]]
    words = (f"On {engines['core']} the compiled engine is {short(engines['ratio'])} times as fast. What it takes to compile, "
             f"once for a core, is repaid after {short(_even(engines))} cycles.")
    return _table(("engine", "cycles a second", "compiling"), rows) + f'<p class="pn-note">{html.escape(words)}</p>'


def _even(engines: dict) -> float:
    """Cycles after which both engines have taken the same time."""
    slow, fast = engines["amaranth"]["median"], engines["compiled"]["median"]
    return engines["compile"]["median"] / (1 / slow - 1 / fast)


def _cores(run: dict, name: str) -> str:
    """The table that ``papernets rtl name --table`` prints."""
    shown = {"subbit": ("plain-binary", "subbit")}.get(name, (name,))
    rows, clocks = [], []
    for row in run["cores"]:
        if row["core"] not in shown:
            continue
        counts = row["resources"]
        cells = [("cycles", f"{row['cycles']:,}".replace(",", "\u202f")), ("busy", percent(row["utilisation"])),
                 ("MACs a cycle", short(row["macs_per_cycle"])), ("LUTs", counts["luts"]), ("flip-flops", counts["flip_flops"]),
                 ("LUT RAM", counts["lut_ram_bits"]), ("block RAMs", counts["block_rams"]),
                 ("multipliers", counts["multipliers"])]
        if row["clock"]:
            clocks.append((row["label"], row["clock"]))
        size = row["label"].removeprefix(f"{row['core']} ")
        size = size.replace(" ", "\u00a0").replace(",\u00a0", ", ")  # a line may break at a comma
        rows.append([html.escape(size), *((head, str(cell)) for head, cell in cells)])
    heads = ("core", "cycles", "busy", "MACs a cycle", "LUTs", "flip-flops", "LUT RAM", "block RAMs", "multipliers")
    return _table(heads, rows) + _clocks(clocks)


def _clocks(found: list[tuple[str, dict]]) -> str:
    """One sentence; all cores of a run are placed alike."""
    if not found:
        return ""
    how = found[0][1]
    words = "; ".join(f"{label} reaches {short(clock['mhz'])} MHz" for label, clock in found)
    return (f'<p class="pn-note">Placed and routed for {how["device"]}, speed grade {how["speed"]}, package {how["package"]} '
            f"(aimed at {how['target']} MHz, seed {how['seed']}): {html.escape(words)}.</p>")
