"""The claims of a chapter: each is recorded once by the run, judged by the rule of the card, and written as JSON."""

import math
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from papernets import check
from papernets.cards import Card, ExactClaim, FullClaim, MiniatureClaim
from papernets.cards.present import line, number_text, table
from papernets.cards.provenance import machine
from papernets.measure import paired_difference
from papernets.tools.files import write_json

#: Fewer pairs than this do not judge a miniature.
PAIRS = 10


class ClaimError(AssertionError):
    """A claim of the card was left out, or one that must hold does not."""


class Row(dict):
    """The result of one claim, as it is written; shows itself as one line."""

    def __repr__(self):
        return line(self)

    def _repr_html_(self):
        return table([self])


class Claims:
    """Collects what a run measured. ``Chapter.close`` writes it."""

    def __init__(self, card: Card, profile: str, evidence: Sequence[dict] = ()):
        self.card, self.profile, self.evidence = card, profile, evidence
        self._rows: dict[str, Row] = {}

    def record(self, id: str, value=None, *, ours=None, baseline=None) -> Row:
        """Record an exact claim by its ``value``, or a miniature by the paired scores of ``ours`` and ``baseline``."""
        claim = self.card.claim(id)
        if id in self._rows:
            raise ValueError(f"claim {id!r} is already recorded; a claim is recorded once")
        if isinstance(claim, FullClaim):
            raise ValueError(f"claim {id!r} is of kind full and stays open here; it is run with: "
                             f"{claim.recipe or 'a command that is not written yet'}")
        if isinstance(claim, ExactClaim):
            if value is None or ours is not None or baseline is not None:
                raise ValueError(f"claim {id!r} is exact: record it by one value")
            row = self._exact(claim, value)
        else:
            if value is not None or ours is None or baseline is None:
                raise ValueError(f"claim {id!r} is a miniature: record it by the scores of ours and of the baseline")
            row = self._miniature(claim, list(map(float, ours)), list(map(float, baseline)))
        self._rows[id] = row
        return row

    def record_exact(self, facts: Mapping[str, float]) -> None:
        """Record every exact claim of the card that is not recorded yet, by its id in ``facts``.

        ``ValueError``, before any is recorded, if one is missing, or if ``facts`` has an id that is no such claim.
        """
        wanted = self._left(ExactClaim)
        missing = [id for id in wanted if id not in facts]
        if missing:
            raise ValueError(f"facts have no {missing[0]!r}, an exact claim of this card"
                             + (f" ({len(missing)} such claims)" if len(missing) > 1 else ""))
        for id in facts:
            check.one_of("an id of facts", id, wanted)
        for id in wanted:
            self.record(id, facts[id])

    def record_pairs(self, records: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> None:
        """Record the miniatures of ``records``: (ours, baseline) by id. Those that are left out are recorded by a later call.

        ``ValueError``, before any is recorded, if ``records`` has an id that is no miniature of the card still to be recorded.
        """
        wanted = self._left(MiniatureClaim)
        for id in records:
            check.one_of("an id of records", id, wanted)
        for id, (ours, baseline) in records.items():
            self.record(id, ours=ours, baseline=baseline)

    def _left(self, kind: type) -> list[str]:
        """Ids of the claims of ``kind`` that are not recorded yet."""
        return [claim.id for claim in self.card.claims if isinstance(claim, kind) and claim.id not in self._rows]

    def __contains__(self, id: str) -> bool:
        """Whether the card has this claim."""
        return any(claim.id == id for claim in self.card.claims)

    def _exact(self, claim: ExactClaim, value) -> Row:
        value = value.item() if hasattr(value, "item") else value
        if not math.isfinite(value):
            raise ValueError(f"claim {claim.id!r}: {value} is not a finite number")
        if claim.differs:
            verdict = "differs" if _equal(value, claim.ours) else "failed"
        else:
            verdict = "reproduced" if claim.accept.allows(value, claim.paper) else "failed"
            if claim.ours is not None and not _equal(value, claim.ours):
                verdict = "failed"
        row = Row(id=claim.id, kind="exact", unit=claim.unit, stated=claim.stated, paper=claim.paper, ours=value,
                  rule=str(claim.accept), verdict=verdict)
        if claim.differs:
            row["why"] = claim.differs
        if verdict == "failed":
            row["expected"] = claim.ours if claim.ours is not None else claim.paper
        return row

    def _miniature(self, claim: MiniatureClaim, ours: list[float], baseline: list[float]) -> Row:
        if not all(map(math.isfinite, [*ours, *baseline])):
            raise ValueError(f"claim {claim.id!r}: a score is not finite; a run that failed must not be averaged away")
        row = Row(id=claim.id, kind="miniature", unit=claim.unit, paper=claim.paper, baseline=claim.baseline,
                  rule=str(claim.accept), seeds=len(ours), scores={"ours": ours, "baseline": baseline})
        if not len(ours) == len(baseline) > 0:
            raise ValueError(f"claim {claim.id!r}: paired scores come in equal number, at least one; "
                             f"got {len(ours)} and {len(baseline)}")
        if len(ours) > 1 and self.profile != "quick":  # a quick run shows that it runs, and resampling takes a second to import
            found = paired_difference(ours, baseline)
            row |= {"ours": found.mean, "interval": [found.low, found.high]}
        else:
            row |= {"ours": statistics.fmean(ours) - statistics.fmean(baseline)}
        judged = self.profile == "evidence" and len(ours) >= PAIRS
        allowed = judged and claim.accept.allows(*row["interval"])
        row["verdict"] = ("shown" if allowed else "not shown") if judged else "open"
        return Row(row)

    def rows(self) -> list[Row]:
        """All claims in the order of the card; those of kind full are open."""
        found = []
        for claim in self.card.claims:
            if isinstance(claim, FullClaim):
                found.append(Row(id=claim.id, kind="full", unit=claim.unit, paper=claim.paper, rule=str(claim.accept),
                                 recipe=claim.recipe, cost=claim.cost, verdict="open"))
            elif claim.id in self._rows:
                found.append(self._rows[claim.id])
        return found

    def problems(self) -> list[str]:
        """What must not be: claims of the card that were not recorded, and exact claims that do not hold."""
        missing = [f"{claim.id} is in the card and was not recorded" for claim in self.card.claims
                   if not isinstance(claim, FullClaim) and claim.id not in self._rows]
        failed = [f"{row['id']} is {number_text(row['ours'])}, expected {number_text(row['expected'])} ({row['rule']} of the "
                  f"paper's {number_text(row['paper'])})" for row in self._rows.values() if row["verdict"] == "failed"]
        return missing + failed

    def text(self, kind: str | None = None) -> str:
        """The recorded claims as plain text, one line each."""
        return "\n".join(line(row) for row in self.rows() if kind in (None, row["kind"]))

    def _repr_html_(self):
        return table(self.rows(), self.card, self.evidence)

    def __repr__(self):
        return self.text()

    def write(self, seed: int, data: dict | None = None) -> None:
        """Write the results where the runner asked for them (``PAPERNETS_RESULT``); in JupyterLab nothing is written."""
        target = os.environ.get("PAPERNETS_RESULT")
        if target:
            write_json(Path(target), {"schema": 1, "chapter": self.card.chapter, "profile": self.profile, "seed": seed,
                                      "machine": machine(), **_cpu_seconds(),
                                      "claims": self.rows(), **({"data": data} if data else {})})


def _cpu_seconds() -> dict[str, float]:
    """Those of this process and its children, and how many of them compiled what is kept for the next run."""
    kernels = sys.modules.get("papernets_kernels.compiling")  # a chapter without kernels compiles nothing
    compiled = kernels.cpu_seconds() if kernels else 0.0
    return {"cpu_seconds": round(sum(os.times()[:4]), 1), "compile_seconds": round(compiled, 1)}


def _equal(value: float, pinned: float) -> bool:
    """Integers to the last digit; other numbers up to the rounding of a different order of operations."""
    if float(pinned).is_integer() and abs(pinned) >= 1:
        return value == pinned
    return math.isclose(value, pinned, rel_tol=1e-9, abs_tol=1e-12)
