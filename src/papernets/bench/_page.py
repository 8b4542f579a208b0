"""The parts of the book's page on the kernels, all of them from the file of the last full run."""

import html
import json
import math
from itertools import groupby

from papernets.bench._race import OURS
from papernets.bench._run import kernels_file
from papernets.cards.present import badge, number_text

HOW = ("There are no measurements yet; the command <code>papernets bench kernels</code> makes them and writes them to "
       "<code>book/results/kernels.json</code>.")
#: Heads of columns, with a space that does not break.
ONE, TWO = "1\u00a0thread", "2\u00a0threads"
_BADGES = {"met": "shown", "not met": "not-shown", "not judged": "open"}


def read() -> dict | None:
    """The last full run; None if there is none. ``ValueError`` names the file if it is not one."""
    path = kernels_file()
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if (found["schema"], found["benchmark"]) != (1, "kernels"):
            raise ValueError(f"schema {found['schema']}, benchmark {found['benchmark']}")
        found["machine"], found["peaks"], found["targets"], found["cases"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a run of the kernels ({error}); make it again with: papernets bench kernels") from None
    return found


def kernels_part(name: str) -> str:
    """One part of the page: ``machine``, ``targets``, ``float``, ``binary`` or ``cases``."""
    found = read()
    if found is None:
        return f"<p>{HOW}</p>" if name == "machine" else ""
    return {"machine": machine_html, "targets": targets_html, "cases": cases_html,
            "float": lambda run: roofline_html(run, "fma"), "binary": lambda run: roofline_html(run, "popcount")}[name](found)


def machine_html(run: dict) -> str:
    machine, peaks, versions = run["machine"], run["peaks"], run["machine"]["versions"]
    caches = ", ".join(f"{level} {_size(size)}" for level, size in machine["caches"].items())
    memory = f", {machine['memory'] / 2**30:.0f} GiB of memory" if machine["memory"] else ""
    here = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    away = [name for name, version in versions.items() if not version]
    speed = ", ".join(f"{short(rate / 1e9)} GB/s from {level}" for level, rate in peaks["bandwidth"].items())
    lines = [f"The machine of the last run: {machine['processor']}, {machine['cores']} cores, vectors of {machine['vector']} "
             f"bits, caches {caches}{memory}. It ran {here}{', without ' + ' and '.join(away) if away else ''}; numpy "
             f"multiplied with {', '.join(machine['blas'])}. The run took {run['seconds'] / 60:.0f} minutes.",
             f"What one thread of it can do at best was measured in the same run: {short(peaks['fma'] / 1e9)} GMAC/s in "
             f"float32, {short(peaks['popcount'] / 1e9)} GMAC/s in single bits, {speed}."]
    if run["others"]:
        lines.append("A measurement was repeated while other programs used the same cores; in the end they took at most "
                     f"{percent(max(run['others'].values()))} of the time of any.")
    if run["removed"]:
        lines.append(f"Variables that steer libraries, and were taken out before the run: {', '.join(run['removed'])}.")
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)


def targets_html(run: dict) -> str:
    rows = []
    for target in run["targets"]:
        share = target["measure"] == "share"
        write, plain = (percent, lambda least: f"{100 * least:g}\u00a0%") if share else (times, lambda least: f"{least:g}×")
        goal = plain(target["least"]) + (f", aim {plain(target['aim'])}" if target["aim"] else "")
        found = ""
        if target["measured"] is not None:
            found = write(target["measured"])
            if target["cases"] > 1:
                found += f" <small>({write(target['lowest'])} to {write(target['highest'])})</small>"
        against = " of the peak" if share else f" against {target['against']}" if target["against"] else ""
        why = f"<br><small>{html.escape(target['why'])}</small>" if "why" in target else ""
        rows.append([html.escape(target["group"] + ("," + against if against else "")) + why,
                     ("target", goal), ("measured", found), ("at peak", _times(target["ceiling"])),
                     (TWO, _times(target["two"])), ("verdict", badge(_BADGES[target["verdict"]], target["verdict"]))])
    return _table(("kernel", "target", "measured", "at peak", TWO, "verdict"), rows)


def cases_html(run: dict) -> str:
    """Every layer, group by group; a group can be unfolded."""
    parts = []
    for group, cases in groupby(run["cases"], lambda case: case["group"]):
        rows, notes = [], set()
        for case in cases:
            one, two = case["threads"]["1"], case["threads"].get("2")
            beside = "".join(f"<br><small>{html.escape(name)}: {ms(one['times'][name])}</small>" for name in one["beside"])
            fastest = one.get("fastest")  # none where all peers are missing
            peer = f"{ms(one['times'][fastest])}<br><small>{html.escape(fastest)}</small>" if fastest else ""
            rows.append([html.escape(case["at"]), ("ours", f"{ms(one['times'][OURS])}{beside}"), ("peer", peer),
                         (ONE, times(one["ratio"]) if fastest else ""), (TWO, _two(two, fastest)),
                         ("of peak", percent(one["share"]))])
            notes |= {f"{name}: {why}." for entry in case["threads"].values() for name, why in entry["missing"].items()}
            notes |= {"torch and the patches compute the dense layer that this one replaces." for name in one["replaced"]}
        note = f'<p class="pn-note">{html.escape(" ".join(sorted(notes)))}</p>' if notes else ""
        table = _table(("layer", "ours", "fastest peer", ONE, TWO, "of peak"), rows)
        parts.append(f"<details><summary>{html.escape(group)}</summary>{table}{note}</details>")
    return "".join(parts)


def _two(two: dict | None, fastest: str | None) -> str:
    """The ratio on two threads, and the peer if it is another than on one."""
    if not two or "fastest" not in two:
        return ""
    other = f"<br><small>{html.escape(two['fastest'])}</small>" if two["fastest"] != fastest else ""
    return times(two["ratio"]) + other


def _table(heads: tuple[str, ...], rows: list) -> str:
    body = ""
    for first, *rest in rows:
        cells = "".join(f'<td data-label="{label}"><span>{text or "–"}</span></td>' for label, text in rest)
        body += f"<tr><td>{first}</td>{cells}</tr>"
    head = "".join(f"<th>{name}</th>" for name in heads)
    return f'<div class="pn-table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


# ---- the roofline ----------------------------------------------------------------------------------------------------


def roofline_html(run: dict, peak: str) -> str:
    from papernets.chapter._figure import page_html, plain
    alt = ("Rate of each kernel on one thread over its multiply-adds per byte, below the measured peak and the measured "
           "bandwidths of the machine; the tables below have the same shares as numbers")
    return page_html(f"pn-roofline-{peak}", alt, 480, {"figure": plain(roofline(run, peak))})


def roofline(run: dict, peak: str):
    """Each case as a point, intensity against rate, on one thread; the roofs in grey."""
    import plotly.graph_objects as go

    from papernets.chapter import ACCENTS, BASELINE
    from papernets.chapter import OURS as COLOR
    cases = [case for case in run["cases"] if case["peak"] == peak]
    figure, top = go.Figure(), run["peaks"][peak] / 1e9
    at = [case["macs"] / case["moved"] for case in cases]
    rates = [case["threads"]["1"]["rate"] / 1e9 for case in cases]
    left, right, low = min(at) / 1.5, max(at) * 1.5, min(rates) / 1.5
    for (level, bandwidth), dash in zip(run["peaks"]["bandwidth"].items(), ("solid", "dash", "dot", "dashdot")):
        ridge, start = top / (bandwidth / 1e9), max(left, low / (bandwidth / 1e9))
        xs = [start, min(max(ridge, start), right), right]
        figure.add_scatter(x=xs, y=[min(top, x * bandwidth / 1e9) for x in xs], name=f"roof, data from {level}", mode="lines",
                           line=dict(color=BASELINE, dash=dash, width=1.8), hoverinfo="name")
    looks = zip((COLOR, *ACCENTS), ("circle", "diamond", "square", "triangle-up", "x", "star"))
    for kernel, (color, symbol) in zip(dict.fromkeys(case["kernel"] for case in cases), looks):
        mine = [(x, y, case) for x, y, case in zip(at, rates, cases) if case["kernel"] == kernel]
        text = [f"{case['group']}<br>{case['at']}<br>{short(y)} GMAC/s, {percent(case['threads']['1']['share'])} of the peak"
                for _, y, case in mine]
        figure.add_scatter(x=[x for x, _, _ in mine], y=[y for _, y, _ in mine], name=kernel, mode="markers", text=text,
                           marker=dict(color=color, symbol=symbol, size=9), hovertemplate="%{text}<extra></extra>")
    best = max(cases, key=lambda case: case["threads"]["1"]["share"])
    figure.update_layout(
        title=f"{best['kernel']} reaches {percent(best['threads']['1']['share'])} of what one thread can do",
        xaxis=dict(title="multiply-adds per byte (MAC/B)", type="log", dtick="D2", range=[math.log10(left), math.log10(right)]),
        yaxis=dict(title="binary multiply-adds (GMAC/s)" if peak == "popcount" else "multiply-adds (GMAC/s)", type="log",
                   dtick="D2", range=[math.log10(low), math.log10(top * 1.5)]))
    return figure


# ---- numbers ---------------------------------------------------------------------------------------------------------


def short(value: float) -> str:
    """Three digits: 0.123, 1.23, 12.3, 123, 1 230."""
    if not value:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}" if value < 999.5 else number_text(float(f"{value:.3g}"))


def ms(time: dict) -> str:
    """The median in milliseconds and the quartiles."""
    return f"{short(1e3 * time['median'])} ms <small>({short(1e3 * time['low'])}–{short(1e3 * time['high'])})</small>"


def times(ratio: float) -> str:
    return f"{short(ratio)}×"


def _times(ratio: float | None) -> str:
    return times(ratio) if ratio else ""


def percent(share: float) -> str:
    return f"{short(100 * share)}\u00a0%"


def _size(count: int) -> str:
    return f"{count / 2**20:g} MiB" if count >= 2**20 else f"{count / 2**10:g} KiB"
