"""Rows and targets as one line each, for the command line."""

from papernets.bench._page import percent, short, times
from papernets.bench._race import OURS
from papernets.bench._targets import compare


def row(found: dict) -> str:
    """One case on one number of threads."""
    name = f"{found['group']}, {found['at']}, {found['threads']} thread{'s' * (found['threads'] > 1)}"
    if "error" in found:
        return f"{name}: {found['error']}"
    best = compare(found["times"], found["peers"])
    line = f"{name}: {short(1e3 * found['times'][OURS]['median'])} ms"
    if best:
        line += f"; {best['fastest']} {short(1e3 * found['times'][best['fastest']]['median'])} ms, {times(best['ratio'])}"
    return line + "".join(f"; no {peer}: {why}" for peer, why in found["missing"].items())


def target(found: dict) -> str:
    write = percent if found["measure"] == "share" else times
    against = f" against {found['against']}" if found["against"] else ""
    measured = write(found["measured"]) if found["measured"] is not None else "nothing"
    why = f" ({found['why']})" if "why" in found else ""
    return f"{found['verdict']:<10} {found['group']}{against}: {measured}, target {write(found['least'])}{why}"
