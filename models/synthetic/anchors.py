"""The published numbers that the synthetic readmission cohort is drawn from, with their sources.

The numbers themselves live in `anchors.toml` beside this file. Nothing is drawn here. Called by
`readmission` and by the tests that hold the cohort and its documentation to the table.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

import msgspec

FILE: Final = "anchors.toml"


class Anchor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One number with its unit, source and evidence mark (S, C, M or D, see the file's head)."""

    value: float
    unit: str
    source: str
    evidence: str
    per_10_years: float = 0.0
    per_frailty_sd: float = 0.0


@dataclass(frozen=True, slots=True)
class Anchors:
    """All anchors by group and name; `prevalence` alone uses the two loadings."""

    marginal: Mapping[str, Anchor]
    prevalence: Mapping[str, Anchor]
    odds_ratio: Mapping[str, Anchor]
    death_odds_ratio: Mapping[str, Anchor]
    noise: Mapping[str, Anchor]
    missing: Mapping[str, Anchor]


@cache
def load_anchors() -> Anchors:
    """The anchor table; raises `msgspec.ValidationError` when a row lacks its value or source."""
    text = resources.files(__package__).joinpath(FILE).read_text(encoding="utf-8")
    groups = tomllib.loads(text)
    groups.pop("schema_version")
    return Anchors(**msgspec.convert(groups, dict[str, dict[str, Anchor]]))
