"""The published numbers that the telemonitoring cohorts are drawn from, with their sources.

The numbers themselves live in `anchors.toml` beside this file. Nothing is drawn here. Called by
`people`, `course`, `home` and `chart`, and by the tests that hold the cohorts to the table.
"""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Final, Literal

import msgspec

from models.synthetic.anchors import Anchor

FILE: Final = "anchors.toml"
Disease = Literal["copd", "heart_failure"]
DISEASES: Final[tuple[Disease, ...]] = ("copd", "heart_failure")


@cache
def load_tables() -> Mapping[str, Mapping[str, Anchor]]:
    """The anchors by table and name; `msgspec.ValidationError` where a row lacks a field."""
    text = resources.files(__package__).joinpath(FILE).read_text(encoding="utf-8")
    tables = tomllib.loads(text)
    tables.pop("schema_version")
    return msgspec.convert(tables, dict[str, dict[str, Anchor]])


@cache
def numbers_of(disease: Disease) -> Mapping[str, float]:
    """All numbers of one cohort: those of home measurements in general, and the disease's own."""
    tables = load_tables()
    return {name: a.value for name, a in {**tables["home"], **tables[disease]}.items()}


@cache
def rate_ratios(disease: Disease) -> Mapping[str, float]:
    """How the rate of deteriorations changes with what is known of a person, as rate ratios."""
    return {name: a.value for name, a in load_tables()[f"{disease}_ratio"].items()}
