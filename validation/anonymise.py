"""A table of predictions made coarser until nobody stands out in it, or the word that it cannot be.

Lives here: limits, what is made coarser, which rows are left out, the report. The measures are in
`validation/anonymity.py`. Called by `varsel export --anonymise`, which writes the report either way
and the table only where it passed. Pure: no clock, no chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import msgspec
import numpy as np
import pandas as pd

from models.mosaic import shared_values
from validation.anonymity import (
    DIRECT_COLUMNS,
    Finding,
    class_diversity,
    class_sizes,
    identifiers_in,
    is_flag,
    k_of,
    l_of,
    rare_flags,
    unique_share,
)
from validation.disclosure import SMALLEST_SHOWN, is_small

USUAL_INDIRECT: Final = (
    "age", "age_years", "male", "sex_male", "organisation", "unit", "index_time", "as_of",
)  # fmt: skip
"""Columns a neighbour, an employer or a newspaper may know of somebody."""
AGES: Final = frozenset({"age", "age_years"})
OLDEST = 90
"""From here on ages are one band: few are older, and everybody knows them."""
_PERIODS: Final = {"month": "M", "quarter": "Q", "year": "Y"}
CAVEAT = (
    "Passing is no proof of anonymity. Opinion 05/2014 of the Article 29 Working Party (WP 216) "
    "asks whether somebody can be singled out, linked, or inferred about. k-anonymity stands "
    "against being singled out by the indirect identifiers named here, and by no others: see the "
    "share of rows that are unique in all columns. No code of a patient leaves, so rows of one "
    "patient are not linked here; whoever holds other data may link them all the same. l-diversity "
    "stands against inference of the sensitive columns alone, and not where the values of a class "
    "mean the same. The controller decides, with these figures."
)

Positive = Annotated[int, msgspec.Meta(ge=1)]
Digits = Annotated[int, msgspec.Meta(ge=0, le=6)]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What must hold before rows may leave, and how coarse they are made.

    `k`: patients in each class; 11 for the 0.09 that the European Medicines Agency's guidance on
    policy 0070 names as threshold of the risk of being recognised. `l`: different values of each
    sensitive column in each class. `most_suppressed`: the share of rows that may be left out.
    `indirect`: columns besides the usual. `sensitive`: columns; empty, the bands of the risks.
    `drop`: columns that do not leave. `digits`: significant digits of values, unless `decimals`
    names the column.
    """

    k: Annotated[int, msgspec.Meta(ge=SMALLEST_SHOWN)] = 11
    l: Positive = 2  # noqa: E741 - what everybody calls it
    most_suppressed: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.2
    indirect: tuple[str, ...] = ()
    sensitive: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    keep_unit: bool = False
    age_years: Literal[5, 10] = 10
    period: Literal["month", "quarter", "year"] = "quarter"
    risk_decimals: Digits = 2
    digits: Annotated[int, msgspec.Meta(ge=1, le=6)] = 2
    decimals: dict[str, Digits] = {}


@dataclass(frozen=True, slots=True)
class Anonymised:
    """What came of it: the table where it passed, else None, and what was found either way.

    `refused`: why it did not pass, empty where it did.
    """

    table: pd.DataFrame | None
    refused: tuple[str, ...]
    report: dict[str, Any]


def anonymise(
    rows: pd.DataFrame, patients: pd.Series, *, limits: Limits, staff: Sequence[str] = ()
) -> Anonymised:
    """The rows as they may leave, or why they may not; limits that name a column which is not there
    are such a reason, because a misspelt one would not hold.

    `rows`: one a prediction, columns as `varsel export` writes them. `patients`: whose each is, by
    any code; it does not leave. `staff`: names looked for in texts. An empty table never passes.
    """
    candidate = rows.drop(columns=_not_leaving(rows, limits)).reset_index(drop=True)
    whose = patients.reset_index(drop=True)
    findings = identifiers_in(candidate, staff)
    sensitive = _sensitive(candidate, limits)
    coarse = generalised(candidate, limits, sensitive)
    kept, indirect = _without_the_few(coarse, whose, limits, sensitive)
    table = _without_small_cells(coarse[kept], whose[kept], indirect)
    measured = _Measured(
        k=k_of(table, indirect, whose[kept]),
        l=l_of(table, indirect, sensitive),
        suppressed=1.0 - len(table) / len(rows) if len(rows) else 0.0,
    )
    refused = (*_nowhere(rows, candidate, limits), *_found(findings), *_unmet(measured, limits))
    report = {
        "passed": not refused,
        "refused": list(refused),
        "limits": msgspec.to_builtins(limits),
        "k": measured.k,
        "l": measured.l,
        "rows": {"given": len(rows), "left": len(table)},
        "patients": {"given": _shown(whose.nunique()), "left": _shown(whose[kept].nunique())},
        "share_left_out": measured.suppressed,
        "share_unique_in_all_columns": unique_share(table),
        "direct_identifiers": [one._asdict() for one in findings],
        "indirect_identifiers": list(indirect),
        "sensitive": list(sensitive),
        "columns": list(table),
        "columns_left_out": [name for name in rows if name not in table],
        "small_cells_changed": int(_differing(coarse[kept], table)),
        "caveat": CAVEAT,
    }
    return Anonymised(None if refused else table, refused, report)


# ---- coarser --------------------------------------------------------------------------------


def generalised(rows: pd.DataFrame, limits: Limits, keep: Sequence[str] = ()) -> pd.DataFrame:
    """The rows made coarser: times to periods, ages to bands, values to few digits.

    `keep`: columns that stay as they are, besides texts and yes/no columns.
    """
    return pd.DataFrame(
        {
            name: rows[name] if name in keep else _coarser(str(name), rows[name], limits)
            for name in rows
        },
        index=rows.index,
    )


def _coarser(name: str, column: pd.Series, limits: Limits) -> pd.Series:
    if pd.api.types.is_datetime64_any_dtype(column):
        return _periods(column, limits.period)
    if name in AGES:
        return column.map(lambda age: _band(age, limits.age_years), na_action="ignore")
    if not pd.api.types.is_numeric_dtype(column) or is_flag(column):
        return column
    values = column.astype(np.float64)
    if name.startswith(("risk:", "probability:")):
        return values.round(limits.risk_decimals)
    decimals = limits.decimals.get(name)
    return _significant(values, limits.digits) if decimals is None else values.round(decimals)


def _periods(column: pd.Series, period: str) -> pd.Series:
    """Times as `2026-11`, `2026Q4` or `2026`, in UTC."""
    plain = pd.to_datetime(column, utc=True).dt.tz_localize(None)
    periods: pd.Series = plain.dt.to_period(_PERIODS[period]).astype(str)
    return periods.mask(column.isna())


def _band(age: float, years: int) -> str:
    """An age as `80-89`, from 90 on as `90+`."""
    start = int(age // years) * years
    return f"{OLDEST}+" if age >= OLDEST else f"{start}-{start + years - 1}"


def _significant(values: pd.Series, digits: int) -> pd.Series:
    with np.errstate(divide="ignore"):
        size = np.floor(np.log10(values.abs()))
    scale = 10.0 ** (digits - 1 - size.where(np.isfinite(size), 0.0))
    rounded: pd.Series = (values * scale).round() / scale
    return rounded


# ---- fewer ----------------------------------------------------------------------------------


def _without_the_few(
    coarse: pd.DataFrame, patients: pd.Series, limits: Limits, sensitive: Sequence[str]
) -> tuple[pd.Series, tuple[str, ...]]:
    """Which rows stay, and the indirect identifiers: classes too small or too alike are left out.

    What is left out can make a diagnosis rare that was not, so it is asked again until nothing is.
    """
    kept = pd.Series(True, index=coarse.index)
    while True:
        table, whose = coarse[kept], patients[kept]
        indirect = _indirect(table, whose, limits)
        told = _without_small_cells(table, whose, indirect)
        bad = class_sizes(told, indirect, whose) < limits.k
        for one in sensitive:
            bad |= class_diversity(told, indirect, one) < limits.l
        if not bad.any():
            return kept, indirect
        kept = kept & ~bad.reindex(kept.index, fill_value=False)


def _indirect(table: pd.DataFrame, patients: pd.Series, limits: Limits) -> tuple[str, ...]:
    usual = [name for name in (*USUAL_INDIRECT, *limits.indirect) if name in table]
    return tuple(dict.fromkeys([*usual, *rare_flags(table, patients, limits.k)]))


def _without_small_cells(
    table: pd.DataFrame, patients: pd.Series, indirect: Sequence[str]
) -> pd.DataFrame:
    """No value that one to four patients have: a text is left empty, a number becomes the middle
    one of five neighbours. Indirect identifiers have none: k is more than four."""
    return pd.DataFrame(
        {
            name: column if name in indirect or is_flag(column) else _shared(column, patients)
            for name, column in table.items()
        },
        index=table.index,
    )


def _shared(column: pd.Series, patients: pd.Series) -> pd.Series:
    if pd.api.types.is_numeric_dtype(column):
        names = patients.to_numpy().astype(np.str_)
        told = shared_values(column.to_numpy(dtype=np.float64), names)
        return pd.Series(told, index=column.index)
    having = patients.groupby(column, dropna=False).transform("nunique")
    return column.mask(having < SMALLEST_SHOWN)


# ---- the verdict ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Measured:
    k: int
    l: int | None  # noqa: E741 - what everybody calls it
    suppressed: float


def _not_leaving(rows: pd.DataFrame, limits: Limits) -> list[str]:
    units = () if limits.keep_unit else ("unit",)
    ours = DIRECT_COLUMNS & {"patient", "encounter_pseudonym", "prediction_id", "hook_instance"}
    return [str(name) for name in rows if name in {*ours, *units, *limits.drop}]


def _sensitive(rows: pd.DataFrame, limits: Limits) -> tuple[str, ...]:
    bands = [str(name) for name in rows if str(name).startswith("band:")]
    return tuple(name for name in (limits.sensitive or bands) if name in rows)


def _nowhere(rows: pd.DataFrame, candidate: pd.DataFrame, limits: Limits) -> list[str]:
    """Columns that limits name and that are not there; sensitive ones must be there and leave."""
    named = [
        *(("drop", name, rows) for name in limits.drop),
        *(("indirect", name, rows) for name in limits.indirect),
        *(("decimals", name, rows) for name in limits.decimals),
        *(("sensitive", name, candidate) for name in limits.sensitive),
    ]
    return [f"{limit}: there is no column {name!r}" for limit, name, at in named if name not in at]


def _found(findings: Sequence[Finding]) -> list[str]:
    return [f"column {one.column!r} holds {one.kind} in {one.cells} cells" for one in findings]


def _unmet(measured: _Measured, limits: Limits) -> list[str]:
    unmet = []
    if measured.k < limits.k:
        unmet.append(f"k is {measured.k}, at least {limits.k} is asked for")
    if measured.l is not None and measured.l < limits.l:
        unmet.append(f"l is {measured.l}, at least {limits.l} is asked for")
    if measured.suppressed > limits.most_suppressed:
        unmet.append(
            f"{measured.suppressed:.1%} of the rows would be left out, at most "
            f"{limits.most_suppressed:.1%} may be"
        )
    return unmet


def _shown(patients: int) -> int | None:
    """A count of patients; None for one to four."""
    return None if is_small(patients) else int(patients)


def _differing(before: pd.DataFrame, after: pd.DataFrame) -> int:
    same = (before == after) | (before.isna() & after.isna())
    return int((~same).to_numpy().sum())
