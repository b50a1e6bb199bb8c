"""The published numbers that the synthetic surgery cohort is drawn from, with their sources.

The numbers themselves live in `anchors.toml` beside this file. Nothing is drawn here. Called by
`people`, `risks` and the tests that hold the cohort and its documentation to the table.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

import msgspec

from models.synthetic.anchors import Anchor

FILE: Final = "anchors.toml"


@dataclass(frozen=True, slots=True)
class Anchors:
    """All anchors by group and name; `prevalence` alone uses the two loadings.

    The odds ratios of the five chances that are drawn: of death, of a leak where there is an
    anastomosis, of a reoperation for something else, of a complication without reoperation, and of
    an acute readmission.
    """

    marginal: Mapping[str, Anchor]
    prevalence: Mapping[str, Anchor]
    mortality: Mapping[str, Anchor]
    leak: Mapping[str, Anchor]
    reoperation: Mapping[str, Anchor]
    complication: Mapping[str, Anchor]
    readmission: Mapping[str, Anchor]
    noise: Mapping[str, Anchor]
    missing: Mapping[str, Anchor]

    def odds_ratios(self, chance: str) -> Mapping[str, Anchor]:
        """The odds ratios of one of the five chances, by the name of their term."""
        found: Mapping[str, Anchor] = getattr(self, chance)
        return found


@cache
def load_anchors() -> Anchors:
    """The anchor table; raises `msgspec.ValidationError` when a row lacks its value or source."""
    text = resources.files(__package__).joinpath(FILE).read_text(encoding="utf-8")
    groups = tomllib.loads(text)
    groups.pop("schema_version")
    return Anchors(**msgspec.convert(groups, dict[str, dict[str, Anchor]]))
