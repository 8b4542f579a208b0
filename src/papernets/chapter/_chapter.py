"""A chapter as its notebook sees it."""

import contextlib
import functools
import json
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import plotly.graph_objects as go
from IPython.display import Markdown

from papernets.cards import card
from papernets.cards.present import header_html
from papernets.cards.provenance import own_hash
from papernets.chapter._claims import ClaimError, Claims
from papernets.chapter._explorer import Control, Explorer
from papernets.chapter._figure import Figure
from papernets.chapter._verdicts import figure_of, lines_of, selected
from papernets.tools import paths

Profile = Literal["quick", "book", "evidence"]
PROFILES = ("quick", "book", "evidence")


class Chapter:
    """Open a chapter with ``Chapter("dcff", profile, seed)``; end it with ``close()``.

    ``profile`` is quick (tests), book (the published page) or evidence (enough seeds for a verdict).
    """

    def __init__(self, name: str, profile: str = "quick", seed: int = 0):
        if profile not in PROFILES:
            raise ValueError(f"profile {profile!r} is not known; choose from {', '.join(PROFILES)}")
        if not isinstance(seed, int) or seed < 0:
            raise ValueError(f"seed is {seed!r}; it must be a whole number from 0")
        self.card, self.profile, self.seed = card(name), profile, seed
        self.claims = Claims(self.card, profile, self.evidence())
        self.explorers: list[Explorer] = []
        self._figures = 0
        self._data: dict = {}

    def pick(self, *, quick, book, evidence):
        """The setting that belongs to this run's profile."""
        return {"quick": quick, "book": book, "evidence": evidence}[self.profile]

    def map(self, call: Callable, items: Iterable, **options) -> list:
        """``[call(item, **options) for item in items]``; an evidence run uses all cores, or a Dask cluster if it has one.

        The order of the results is that of the items, and each call runs on one thread.
        """
        items = list(items)
        scheduler = os.environ.get("PAPERNETS_SCHEDULER")
        if scheduler:
            from distributed import Client
            with Client(scheduler) as client:
                return client.gather(client.map(functools.partial(call, **options), items, pure=False))
        jobs = int(os.environ.get("PAPERNETS_JOBS") or -1) if self.profile == "evidence" else 1
        if jobs == 1:
            return [call(item, **options) for item in items]
        import joblib
        with joblib.parallel_config("loky", inner_max_num_threads=1):
            return joblib.Parallel(n_jobs=jobs)(joblib.delayed(call)(item, **options) for item in items)

    def rows(self, compare: Callable[..., list[dict]], seeds: Iterable[int], **options) -> list[dict]:
        """The rows of ``compare(seed, **options)`` of all ``seeds``, one list for all; ``map`` says how they are run."""
        return [row for rows in self.map(compare, seeds, **options) for row in rows]

    def figure(self, figure: go.Figure, alt: str, height: int = 420) -> Figure:
        """Show a plotly figure; ``alt`` says in a sentence what it shows, for those who cannot see it."""
        return Figure(figure, alt, self._name(), height)

    def explore(self, draw: Callable[..., go.Figure], alt: str, height: int = 460, **controls: Control) -> Explorer:
        """A figure with controls: live in JupyterLab, precomputed on the published page. ``draw(**values)`` draws it."""
        self.explorers.append(Explorer(draw, controls, alt, self._name(), height, few=self.profile == "quick"))
        return self.explorers[-1]

    def judged(self) -> list[dict]:
        """The claims of the last evidence run; without one that is fresh, those that this run has recorded."""
        return self.evidence() or self.claims.rows()

    def differences(self, select: str | Sequence[str] = "", *, alt: str, x: str = "", y: str = "pair",
                    title: str = "{shown} of {total} differences are shown, {seeds} paired seeds") -> Figure:
        """The paired differences of the miniatures whose ids begin with ``select``, or are listed in it, with their intervals.

        They are drawn from the committed evidence. ``title`` may name the numbers ``shown``, ``total`` and ``seeds``.
        """
        pairs = selected(self.card, self.judged(), select)
        return self.figure(figure_of(pairs, title, x, y), alt, height=150 + 36 * len(pairs))

    def verdicts(self, select: str | Sequence[str] = "") -> Markdown:
        """The same differences in words, a line each."""
        return self.say(lines_of(selected(self.card, self.judged(), select)))

    def say(self, text: str) -> Markdown:
        """A sentence with numbers of this run in it, as markdown."""
        return Markdown(text)

    def evidence(self) -> list[dict]:
        """The committed claims of the last evidence run; empty if there is none, or if it is of another method."""
        return self._committed.get("claims", [])

    def keep(self, name: str, value):
        """Keep ``value`` (as JSON) with the results, for figures of the page; gives back that of the last evidence run.

        Without a fresh evidence run, and in one, it is ``value`` itself that comes back.
        """
        self._data[name] = json.loads(json.dumps(value))
        committed = {} if self.profile == "evidence" else self._committed.get("data", {})
        return committed.get(name, self._data[name])

    @functools.cached_property
    def _committed(self) -> dict:
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
            found = json.loads((paths.results() / f"{self.card.chapter}.json").read_text(encoding="utf-8"))
            if found["profile"] == "evidence" and found["made_by"]["hash"] == own_hash(self.card):
                return found
        return {}

    def close(self) -> Claims:
        """Write the results and show all claims; ``ClaimError`` if one was left out or an exact one does not hold."""
        self.claims.write(self.seed, self._data)
        problems = self.claims.problems()
        if problems:
            raise ClaimError(f"{self.card.chapter}: " + "; ".join(problems))
        return self.claims

    def _name(self) -> str:
        self._figures += 1
        return f"pn-{self.card.slug}-{self._figures}"

    def _repr_html_(self):
        return header_html(self.card, self.evidence())

    def __repr__(self):
        return f"{self.card.chapter}: {self.card.title} ({self.profile})"
