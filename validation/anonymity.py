"""How well patients are hidden in a table: k-anonymity, l-diversity, identifiers. Pure.

Lives here: the measures and what looks for identifiers. Does not live here: what makes a table
coarser until it passes (`validation/anonymise.py`). A class is the rows that agree in every
indirect identifier. Its size counts patients, not rows: the libraries there are count rows, and one
patient with eleven predictions would pass for eleven people (docs/dependencies.md).

Passing is no proof of anonymity: docs/export.md says what these measures do not see.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from typing import NamedTuple

import numpy as np
import pandas as pd

_CPR = re.compile(r"(?<![0-9A-Za-z])([0-9]{6})[- ]?([0-9A-Za-z]{4})(?![0-9A-Za-z])")
_REPLACEMENT = re.compile(r"[0156XDxd][A-Za-z]{2}[0-9]")
"""The last four of a replacement number (eCPR): a marking of the century, two letters, a digit."""
_UUID = re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", re.IGNORECASE)
_REFERENCE = re.compile(
    r"\b(?:Patient|Encounter|Practitioner|PractitionerRole|RelatedPerson|Person|Observation"
    r"|Condition|EpisodeOfCare)/[A-Za-z0-9.-]{1,64}"
)
_LEAP = 2000
"""A year with a 29 February: which century a number means is not asked."""
DIRECT_COLUMNS = frozenset({
    "patient", "patient_id", "patient_pseudonym", "encounter_pseudonym", "prediction_id",
    "hook_instance", "cpr", "name", "address", "phone", "email", "identifier", "caller", "user",
})  # fmt: skip
"""Columns whose name says that they say who somebody is."""
_CPR_FROM, _CPR_BELOW = 1e8, 1e10
"""Numbers of nine or ten digits."""
_SHORTEST_NAME = 4
"""A shorter name of staff is a word that means something else."""


class Finding(NamedTuple):
    """Cells of a column that say who somebody is: what kind, and how many. Never what they say."""

    column: str
    kind: str
    cells: int


# ---- classes --------------------------------------------------------------------------------


def class_sizes(table: pd.DataFrame, indirect: Sequence[str], patients: pd.Series) -> pd.Series:
    """For each row, how many patients agree with it in every indirect identifier, itself included.

    A missing value agrees with a missing value. Without indirect identifiers all rows agree.
    """
    return patients.groupby(_classes(table, indirect)).transform("nunique")


def k_of(table: pd.DataFrame, indirect: Sequence[str], patients: pd.Series) -> int:
    """The k of k-anonymity: patients in the smallest class; 0 of no rows (Sweeney 2002)."""
    return 0 if table.empty else int(class_sizes(table, indirect, patients).min())


def class_diversity(table: pd.DataFrame, indirect: Sequence[str], sensitive: str) -> pd.Series:
    """For each row, how many different values its class has of what must not be learnt; a missing
    value is none."""
    return table[sensitive].groupby(_classes(table, indirect)).transform("nunique")


def l_of(table: pd.DataFrame, indirect: Sequence[str], sensitive: Sequence[str]) -> int | None:
    """The l of distinct l-diversity, of the least diverse class and column (Machanavajjhala 2007).

    None where nothing is sensitive, 0 of no rows.
    """
    if not sensitive:
        return None
    if table.empty:
        return 0
    return min(int(class_diversity(table, indirect, one).min()) for one in sensitive)


def unique_share(table: pd.DataFrame) -> float:
    """The share of rows that no other row equals in all columns: who knows all of it of somebody,
    finds them. 0 of no rows."""
    return 0.0 if table.empty else float((~table.duplicated(keep=False)).mean())


def is_flag(column: pd.Series) -> bool:
    """Whether a column says yes or no: 0, 1 or missing."""
    if not pd.api.types.is_numeric_dtype(column):
        return False
    return bool(column.dropna().isin([0, 1]).all()) and bool(column.notna().any())


def rare_flags(table: pd.DataFrame, patients: pd.Series, fewest: int) -> list[str]:
    """The yes/no columns that fewer than so many patients have, or have not, or lack: a diagnosis
    that few have points at them."""
    flags = [str(name) for name in table if is_flag(table[name])]
    return [name for name in flags if _is_rare(name, table, patients, fewest)]


def _is_rare(name: str, table: pd.DataFrame, patients: pd.Series, fewest: int) -> bool:
    counted = patients.groupby(table[name], dropna=False).nunique()
    return bool(len(counted) > 1 and (counted < fewest).any())


def _classes(table: pd.DataFrame, indirect: Sequence[str]) -> pd.Series:
    """For each row the number of its class."""
    if not len(indirect):
        return pd.Series(0, index=table.index)
    return table.groupby(list(indirect), dropna=False, sort=False, observed=True).ngroup()


# ---- identifiers ----------------------------------------------------------------------------


def identifiers_in(table: pd.DataFrame, staff: Sequence[str] = ()) -> list[Finding]:
    """What says directly who somebody is: columns by their name, cells by what they hold.

    `staff`: names of people, looked for in texts. Cells: CPR numbers, UUIDs, FHIR references.
    """
    direct = [str(name) for name in table if str(name).lower() in DIRECT_COLUMNS]
    named = [Finding(name, "column", len(table)) for name in direct]
    names = [one.strip().casefold() for one in staff if len(one.strip()) >= _SHORTEST_NAME]
    return named + [one for name in table for one in _in_column(table[name], names)]


def _in_column(column: pd.Series, staff: Sequence[str]) -> list[Finding]:
    texts = _texts(column)
    kinds = {
        "CPR number": sum(holds_cpr(text) for text in texts),
        "UUID": sum(bool(_UUID.search(text)) for text in texts),
        "FHIR reference": sum(bool(_REFERENCE.search(text)) for text in texts),
        "name of staff": sum(any(one in text.casefold() for one in staff) for text in texts),
    }
    return [Finding(str(column.name), kind, cells) for kind, cells in kinds.items() if cells]


def _texts(column: pd.Series) -> list[str]:
    """The cells as texts; of numbers only those that can be a CPR number, with the zero that a
    number loses at the front."""
    known = column.dropna()
    if pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_bool_dtype(column):
        return []
    if not pd.api.types.is_numeric_dtype(column):
        return [str(value) for value in known]
    whole = known[(known >= _CPR_FROM) & (known < _CPR_BELOW) & (known == np.floor(known))]
    return [f"{int(value):010d}" for value in whole]


def holds_cpr(text: str) -> bool:
    """Whether a text holds what can be a CPR number: a date of day, month and year, and four more.

    The check digit is not asked for: numbers without it are issued since 2007. Also a replacement
    number (eCPR), whose last four hold letters.
    """
    return any(_is_cpr(day, rest) for day, rest in _CPR.findall(text))


def _is_cpr(day: str, rest: str) -> bool:
    if not (rest.isdigit() or _REPLACEMENT.fullmatch(rest)):
        return False
    year = _LEAP if day[4:] == "00" else 1900 + int(day[4:])
    try:
        date(year, int(day[2:4]), int(day[:2]))
    except ValueError:
        return False
    return True
