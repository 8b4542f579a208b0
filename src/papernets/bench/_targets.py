"""The targets of the kernels, stated before they were measured, and the arithmetic of their verdicts."""

from dataclasses import dataclass
from statistics import median

from papernets.bench._race import OURS


@dataclass(frozen=True)
class Target:
    """At least ``least`` on one thread: the median over the cases of ``group``.

    measure: ``ratio``, the time of the fastest peer over ours; or ``share`` of the machine's measured peak.
    against: only peers whose names begin so; all when empty. needs: peers without which nothing is judged.
    """

    group: str
    least: float
    measure: str = "ratio"
    aim: float | None = None
    against: str = ""
    needs: tuple[str, ...] = ()


TARGETS = (
    Target("binary.conv2d", 10, aim=20),
    Target("binary.matmul", 0.6, "share"),
    Target("subbit.conv2d, 32 patterns", 1.4),
    *(Target(f"one_by_n.matmul, N = {n}, {zeros} % zeros", least)
      for n in (4, 8, 16) for zeros, least in ((50, 3), (75, 6), (90, 12))),
    Target("n_of_m.matmul, 2:4", 2.2),
    Target("n_of_m.matmul, 1:4", 4),
    Target("winograd3d.conv3d, dense", 2),
    Target("winograd3d.conv3d, low rank, 50 % of the columns", 3.5),
    Target("hamming.top_k, 1\u202f000\u202f000 codes of 64 bits", 4, needs=("faiss",)),
    Target("sparse_conv3d.submanifold, with the rulebook", 4, against="spconv", needs=("spconv",)),
    Target("sparse_conv3d.submanifold, with the rulebook", 40, against="torch conv3d", needs=("torch conv3d",)),
)


def compare(times: dict[str, dict], peers: list[str]) -> dict:
    """The fastest of ``peers``, and how many times as long as ours it takes: ratio of the medians. Empty without peers."""
    if not peers:
        return {}
    fastest = min(peers, key=lambda name: times[name]["median"])
    return {"fastest": fastest, "ratio": times[fastest]["median"] / times[OURS]["median"]}


def judge(target: Target, cases: list[dict], judged: bool = True) -> dict:
    """The row of a target: what was measured over ``cases``, and ``met``, ``not met`` or ``not judged`` with the reason.

    ``two`` is the ratio on two threads, which no target asks for. ``ceiling`` is the ratio that a kernel would have which did
    its multiply-adds at the peak of the machine, and nothing else.
    """
    mine = [case["threads"] for case in cases if case["group"] == target.group]
    rows = [threads["1"] for threads in mine if "1" in threads]
    found = {"group": target.group, "measure": target.measure, "least": target.least, "aim": target.aim,
             "against": target.against, "cases": len(rows), "measured": None, "two": None, "ceiling": None,
             "verdict": "not judged"}
    lacking = sorted({f"{name}: {why}" for row in rows for name, why in row["missing"].items() if name in target.needs})
    if not rows or lacking:
        return {**found, "why": "; ".join(lacking) or "no case was measured"}
    values = [row["share"] for row in rows] if target.measure == "share" else _ratios(target, rows)
    found |= {"measured": median(values), "lowest": min(values), "highest": max(values)}
    if target.measure == "ratio":
        found["ceiling"] = median(ratio / row["share"] for row in rows for ratio in _ratios(target, [row]))
    two = _ratios(target, [threads["2"] for threads in mine if "2" in threads])
    if two and target.measure == "ratio":
        found["two"] = median(two)
    if not judged:
        return {**found, "why": "a quick run on small layers"}
    return {**found, "verdict": "met" if found["measured"] >= target.least else "not met"}


def _ratios(target: Target, rows: list[dict]) -> list[float]:
    found = [compare(row["times"], [name for name in row["peers"] if name.startswith(target.against)]) for row in rows]
    return [one["ratio"] for one in found if one]
