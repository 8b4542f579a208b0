"""The card of a paper: who wrote it, what it claims, and by which rule each claim is judged.

A card is the file ``card.toml`` in the folder of its paper, such as ``papers/dcff``; a paper that is planned has nothing
else there. It is the single source of the list of papers, the pages of the book, the table in the README and the table of
results. A rule of acceptance is written before the run it judges, and a run that leaves a claim out has failed.
"""

import difflib
import functools
import itertools
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from papernets.tools import paths

FAMILIES = {
    "pruning": "Pruning and sparsity",
    "low-rank": "Low rank",
    "quantization": "Quantisation and binary networks",
    "dynamic": "Dynamic and adaptive networks",
    "distillation": "Distillation",
    "restoration": "Super-resolution and restoration",
    "representation": "Representation, retrieval and structure",
    "motion": "Motion and language",
    "hardware": "Hardware",
}

#: Where a paper's number was read. ``derived``: it follows from the paper's own formulas; ``secondary``: told by others.
Stated = Literal["abstract", "text", "table", "figure", "readme", "code", "log", "poster", "derived", "secondary"]


def cards_folder() -> Path:
    """Where the papers lie, a folder each: in the checkout named by ``PAPERNETS_ROOT``, or in the installed package."""
    if not os.environ.get("PAPERNETS_ROOT"):
        return Path(__file__).resolve().parents[1] / "papers"
    home = "src/papernets/papers"
    return paths.root(home) / home


def comparisons_folder() -> Path:
    """Where the comparisons of several papers lie."""
    return cards_folder().with_name("comparisons")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


class Tolerance(_Strict):
    """Ours may be this far from the paper's number: ``relative`` (a share) or ``absolute`` (in the claim's unit)."""

    relative: float | None = Field(None, ge=0, allow_inf_nan=False)
    absolute: float | None = Field(None, ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _one(self):
        if (self.relative is None) == (self.absolute is None):
            raise ValueError("accept takes exactly one of relative and absolute")
        return self

    def allows(self, ours: float, paper: float) -> bool:
        limit = self.absolute if self.absolute is not None else self.relative * abs(paper)
        return abs(ours - paper) <= limit * (1 + 1e-12)

    def __str__(self):
        return f"within {self.absolute:g}" if self.absolute is not None else f"within {100 * self.relative:g} %"


class Interval(_Strict):
    """Where the whole 95 % interval of the paired differences (ours minus baseline) must lie."""

    above: float | None = None
    below: float | None = None
    within: tuple[float, float] | None = None

    @model_validator(mode="after")
    def _one(self):
        if sum(v is not None for v in (self.above, self.below, self.within)) != 1:
            raise ValueError("accept takes exactly one of above, below and within")
        if self.within is not None and not self.within[0] < self.within[1]:
            raise ValueError(f"within goes from low to high, got {self.within[0]:g} to {self.within[1]:g}")
        return self

    def allows(self, low: float, high: float) -> bool:
        if self.above is not None:
            return low > self.above
        if self.below is not None:
            return high < self.below
        return self.within[0] <= low and high <= self.within[1]

    def __str__(self):
        if self.above is not None:
            return f"interval above {self.above:g}"
        if self.below is not None:
            return f"interval below {self.below:g}"
        return f"interval within {self.within[0]:g} to {self.within[1]:g}"


class _Claim(_Strict):
    id: str = Field(pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)*$")
    quantity: str = Field(min_length=1)
    unit: str
    stated: Stated
    how: str = Field(min_length=1)
    conditions: str = ""


class ExactClaim(_Claim):
    """Follows from architecture, arithmetic, combinatorics or a cycle count.

    ``ours`` pins the value the library must give, to the last digit; with ``differs`` it is held to that value
    although the paper prints another.
    """

    kind: Literal["exact"]
    paper: float
    accept: Tolerance
    ours: float | None = None
    differs: str | None = None

    @model_validator(mode="after")
    def _differs_needs_ours(self):
        if self.differs and self.ours is None:
            raise ValueError("a claim that differs says what ours is")
        if self.ours is not None and self.accept.allows(self.ours, self.paper) == bool(self.differs):
            raise ValueError(
                f"ours = {self.ours:g} is {'inside' if self.differs else 'outside'} the tolerance of paper = "
                f"{self.paper:g}, so differs must {'be left out' if self.differs else 'say why'}")
        return self


class MiniatureClaim(_Claim):
    """The paper's effect at small size on small real data: paired scores of ours and of a named baseline.

    ``short`` names the difference in a few words, for figures and sentences.
    """

    kind: Literal["miniature"]
    paper: float | str
    accept: Interval
    baseline: str = Field(min_length=1)
    short: str = ""

    @property
    def label(self) -> str:
        """What the difference is called in a figure and in a sentence: a few words, ``1:4: LBC − random``."""
        return self.short or self.quantity


class FullClaim(_Claim):
    """Needs the real data set or an accelerator: the command that starts it, and what it would cost.

    An empty ``recipe`` says that nobody has written one yet, and a chapter with such a claim does not count as complete.
    """

    kind: Literal["full"]
    paper: float | str
    accept: Tolerance | Interval
    recipe: str
    cost: str = Field(min_length=1)


Claim = Annotated[ExactClaim | MiniatureClaim | FullClaim, Field(discriminator="kind")]


class _Page(_Strict):
    """What papers and comparisons have in common: a notebook, a folder, and claims."""

    slug: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    name: str = Field(min_length=1)
    title: str = Field(min_length=1)
    family: Literal[tuple(FAMILIES)]
    summary: str = Field(min_length=20)
    minutes: int = Field(25, ge=5, le=90)
    claims: tuple[Claim, ...] = Field(min_length=1)
    module: str = ""

    @model_validator(mode="after")
    def _unique(self):
        seen = set()
        for claim in self.claims:
            if claim.id in seen:
                raise ValueError(f"claim id {claim.id!r} stands twice; ids are unique within a card")
            seen.add(claim.id)
        return self

    @property
    def folder(self) -> Path:
        """All that is the paper's own; its name is the module's."""
        return _folder_of(type(self)) / self.module

    @property
    def written(self) -> bool:
        """Whether there is code and not the card alone."""
        return (self.folder / "__init__.py").is_file()

    def claim(self, id: str) -> Claim:
        for claim in self.claims:
            if claim.id == id:
                return claim
        raise ValueError(f"{self.slug} has no claim {id!r}; {_nearest(id, [c.id for c in self.claims])}")


class Card(_Page):
    """A paper."""

    number: int = Field(ge=1)
    authors: tuple[str, ...] = Field(min_length=1)
    year: int = Field(ge=1990, le=2100)
    venue: str
    arxiv: str = ""
    code: str = ""

    @property
    def chapter(self) -> str:
        """``02-dcff``: the stem of the chapter's notebook and of its results."""
        return f"{self.number:02d}-{self.slug}"

    @property
    def label(self) -> str:
        return f"{self.number:02d} {self.name}"


class Comparison(_Page):
    """A page that sets methods of several papers side by side, by a run of its own; its claims are ours."""

    methods: tuple[str, ...] = Field(min_length=2)

    @property
    def chapter(self) -> str:
        return self.slug

    @property
    def label(self) -> str:
        return self.name


def _folder_of(kind: type[_Page]) -> Path:
    return comparisons_folder() if issubclass(kind, Comparison) else cards_folder()


def _nearest(given: str, names: list[str]) -> str:
    near = difflib.get_close_matches(given, names, n=1, cutoff=0)
    return f"the nearest is {near[0]!r}" if near else "there is none"


def read_card(path: Path, kind: type[Card] | type[Comparison] = Card) -> Card | Comparison:
    """One card from its file. ``ValueError`` names the folder and the file, the field and the rule it breaks."""
    name = f"{path.parent.name}/{path.name}"
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
        if "module" in fields:
            raise ValueError(f"{name}: module: the name of the folder says it; leave it out")
        return kind(module=path.parent.name, **fields)
    except FileNotFoundError:
        raise ValueError(f"{name} is missing: every folder among the papers holds a card; write one, "
                         "or remove the folder") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{name}: not TOML: {error}") from None
    except ValidationError as error:
        raise ValueError(f"{name}: {_said(error.errors()[0], fields)}") from None


def _said(first: dict, fields: dict) -> str:
    """The first thing that is wrong with a card, in one line."""
    where = [part for part in first["loc"] if part not in ("exact", "miniature", "full")]
    if first["type"].startswith("union_tag"):
        claim = fields["claims"][where[1]]
        given = f"kind is {claim['kind']!r}" if "kind" in claim else "kind is missing"
        return f"claim {claim.get('id', where[1])!r}: {given}; choose from exact, miniature, full"
    given = first.get("input")
    shown = "" if isinstance(given, dict) else f" (given {given!r})"
    return f"{'.'.join(map(str, where)) or 'card'}: {first['msg']}{shown}"


def _read(path: Path, kind: type[Card] | type[Comparison] = Card) -> Card | Comparison:
    """``read_card``, once for as long as the file stays as it is."""
    if not path.is_file():
        return read_card(path, kind)
    return _read_once(path, kind, path.stat().st_mtime_ns, path.stat().st_size)


@functools.cache
def _read_once(path: Path, kind: type[Card] | type[Comparison], changed: int, size: int) -> Card | Comparison:
    return read_card(path, kind)


def _folders(home: Path) -> list[Path]:
    """The folders of papers; those that Python or a tool leaves behind begin with an underscore or a dot."""
    return sorted(path for path in home.iterdir() if path.is_dir() and path.name[0] not in "_.") if home.is_dir() else []


def cards() -> tuple[Card, ...]:
    """All cards, by number."""
    return _cards(cards_folder())


@functools.cache
def _cards(home: Path) -> tuple[Card, ...]:
    found = sorted((_read(folder / "card.toml") for folder in _folders(home)), key=lambda card: card.number)
    for one, other in itertools.pairwise(found):
        if one.number == other.number:
            raise ValueError(f"{one.module}/card.toml and {other.module}/card.toml both have number {one.number}; "
                             "give one of them a number of its own")
    return tuple(found)


def comparisons() -> tuple[Comparison, ...]:
    """All comparisons, by name."""
    return _comparisons(comparisons_folder())


@functools.cache
def _comparisons(home: Path) -> tuple[Comparison, ...]:
    return tuple(_read(folder / "card.toml", Comparison) for folder in _folders(home))


def card(name: str | int) -> Card | Comparison:
    """A card by number (``2``, ``"02"``), slug (``"dcff"``) or chapter (``"02-dcff"``)."""
    text = str(name).strip().lower()
    by_name = cards_folder() / text.replace("-", "_") / "card.toml"
    if re.fullmatch(r"[a-z][a-z0-9_-]*", text) and by_name.is_file():  # a kernel of a chapter needs no other card
        return _read(by_name)
    for one in comparisons():
        if text in (one.slug, one.module):
            return one
    for one in cards():
        if text in (str(one.number), f"{one.number:02d}", one.slug, one.chapter, one.module):
            return one
    names = [one.slug for one in (*cards(), *comparisons())] + [f"{one.number:02d}" for one in cards()]
    raise ValueError(f"no chapter {text!r}; {_nearest(text, names)} (see: papernets list)")
