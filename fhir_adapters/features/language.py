"""The grammar of features: what may stand in a manifest, checked when the package is read.

A feature is a recipe (a function of `recipes.py` or `derived.py`) of concepts, stays, contacts,
the patient or other features, in a window. Windows are two points in time, each an anchor with an
offset: `["stay.start - 365 d", "stay.start"]`. Anchors are `as_of`, `stay.start` and `stay.end`
(the moment of discharge, or `as_of` while the patient is still in). Units: `h`, `d`, `w`, `y`
(365.25 days). Both ends belong to the window.

docs/feature-language.md is the manual; tests/spec draws each word as a table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import msgspec

from fhir_adapters.clock import DAY_S, HOUR_S
from fhir_adapters.errors import LanguageError

FeatureStatus = Literal[
    "measured", "stale", "missing", "not-obtained", "implausible", "refused-unit"
]
USABLE: frozenset[str] = frozenset({"measured", "stale"})


class Text(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The same text in Danish and English."""

    da: str
    en: str

    def in_language(self, language: str) -> str:
        """The text in a language; Danish unless English is asked for."""
        return self.en if language == "en" else self.da


class AroundEvents(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Days around events of some concepts that do not count."""

    of: list[str]
    before_days: float = 0.0
    after_days: float = 0.0


class FeatureSpec(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"from_": "from"}
):
    """One feature as a manifest says it.

    `of`: concepts, or `stay`, `contact`, `medication`, `procedure`, `episode_of_care`; for the
    recipe `patient` an attribute of the patient, for `index` one of the index stay. `from`: other
    features, for derived ones. `category` None: the feature serves others and is no model input.
    `yes_no`: 1 is yes and 0 is no.
    """

    name: str
    recipe: str
    label: Text
    of: list[str] = []
    from_: list[str] = []
    window: list[str] | None = None
    where: list[str] = []
    when: Literal["start", "end", "overlap"] | None = None
    except_around: AroundEvents | None = None
    baseline: list[str] | None = None
    min_count: int = 1
    floor_sd: float | None = None
    gap_days: float = 0.0
    never: float | None = None
    expected_every: str | None = None
    stale_after: str | None = None
    limit: float | None = None
    factor: float | None = None
    offset: float = 0.0
    low: float | None = None
    high: float | None = None
    formula: str | None = None
    variant: Literal["original", "quan2011"] | None = None
    drop: list[str] = []
    attribute: str | None = None
    category: str | None = None
    monotone: Literal[-1, 0, 1] = 0
    unit: str = ""
    decimals: int = 0
    yes_no: bool = False
    say: Text | None = None
    say_one: Text | None = None
    say_none: Text | None = None
    reference: Text | None = None

    def __post_init__(self) -> None:
        lacking = [word for word in NEEDS.get(self.recipe, ()) if getattr(self, word) is None]
        if self.recipe == "outside" and self.low is None and self.high is None:
            lacking = ["low"]
        if lacking:
            raise ValueError(f"{self.name}: the recipe {self.recipe} needs {lacking[0]}")


NEEDS: Mapping[str, tuple[str, ...]] = {
    "patient": ("attribute",),
    "index": ("attribute",),
    "excess": ("limit",),
    "shortfall": ("limit",),
    "at_least": ("limit",),
    "below": ("limit",),
    "scaled": ("factor",),
    "formula": ("formula",),
    "charlson": ("variant",),
    "missed": ("expected_every",),
    "limit": ("attribute",),
    "delta_to_baseline": ("baseline",),
    "baseline_median": ("baseline",),
}
"""The words a recipe cannot do without: lacking them, it would quietly mean something else."""


@dataclass(frozen=True, slots=True)
class Anchors:
    """The moments windows hang on. `stay_start` and `stay_end` are None without an index stay."""

    as_of: float
    stay_start: float | None = None
    stay_end: float | None = None


class Moment(NamedTuple):
    """A point in time: so many seconds from an anchor, which names a field of `Anchors`."""

    anchor: str
    offset_s: float

    def at(self, anchors: Anchors) -> float | None:
        """When it is (seconds); None without the stay it hangs on."""
        base: float | None = getattr(anchors, self.anchor)
        return None if base is None else base + self.offset_s


Window = tuple[Moment, Moment]
_POINT = re.compile(r"^(as_of|stay\.start|stay\.end)\s*(?:([+-])\s*(\d+(?:\.\d+)?)\s*([hdwy]))?$")
_SPAN = re.compile(r"^(\d+(?:\.\d+)?)\s*([hdwy])$")
_UNIT_S = {"h": HOUR_S, "d": DAY_S, "w": 7 * DAY_S, "y": 365.25 * DAY_S}


def parse_point(text: str, field: str) -> Moment:
    """The moment a point in time means; LanguageError names the field."""
    found = _POINT.match(text.strip())
    if not found:
        raise LanguageError(f"not a point in time: {text!r}", field=field)
    anchor, sign, number, unit = found.groups()
    offset = float(number or 0) * _UNIT_S[unit or "d"] * (-1 if sign == "-" else 1)
    return Moment(anchor.replace(".", "_"), offset)


def parse_span(text: str, field: str) -> float:
    """The length of a span such as `36 h` or `8 d`, in seconds."""
    found = _SPAN.match(text.strip())
    if not found:
        raise LanguageError(f"not a span of time: {text!r}", field=field)
    return float(found.group(1)) * _UNIT_S[found.group(2)]


def parse_window(points: list[str] | None, field: str) -> Window | None:
    """Both ends of a window; None where there is none."""
    if points is None:
        return None
    if len(points) != 2:
        raise LanguageError("a window has two points in time", field=field)
    return parse_point(points[0], field), parse_point(points[1], field)


def in_order(specs: Mapping[str, FeatureSpec]) -> list[FeatureSpec]:
    """The features so that each comes after those it is made from; LanguageError on a circle."""
    ordered: dict[str, FeatureSpec] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in ordered:
            return
        if name in path:
            raise LanguageError("a feature is made from itself", field=f"features.{name}.from")
        if name not in specs:
            raise LanguageError(f"no feature is called {name!r}", field=f"features.{path[-1]}.from")
        for other in specs[name].from_:
            visit(other, (*path, name))
        ordered[name] = specs[name]

    for name in specs:
        visit(name, ())
    return list(ordered.values())
