"""The report of a validation as files: one HTML page, one JSON document, one CSV per table.

Lives here: what is written, and that small counts are hidden before anything is.
Does not live here: computing (`analysis`), hiding (`disclosure`) and the page (`page`).
Called by the command `varsel validate`.

The JSON holds no NaN: what is hidden or not estimable is null.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypedDict

import pandas as pd

from validation.analysis import Validation
from validation.cohort import FlowStep
from validation.disclosure import HIDDEN, SMALLEST_SHOWN, Shown, hide_small_counts
from validation.page import build_page

SCHEMA_VERSION: Final = 1


class ModelFacts(TypedDict):
    """What the report says of the model."""

    id: str
    version: str
    checksum: str
    synthetic: bool


class HeadFacts(TypedDict):
    """Which outcome of the model was validated, and the risk from which it shows a card."""

    id: str
    threshold: float


def write_report(
    validation: Validation,
    out_dir: Path,
    *,
    title: str,
    model: ModelFacts,
    head: HeadFacts,
    plan: str,
    data: Mapping[str, str],
    synthetic_data: bool,
    software_version: str,
    made_at: datetime,
) -> Path:
    """Writes `report.html`, `report.json` and `tables/*.csv` into `out_dir`; returns the page.

    `plan` is plain text, paragraphs parted by an empty line; `data` names what was analysed and
    its SHA-256; `synthetic_data`: the patients are made up. The same arguments give the same
    bytes. Files of the same name are replaced.
    """
    shown = hide_small_counts(validation)
    about: dict[str, Any] = {
        "title": title,
        "model": dict(model),
        "head": dict(head),
        "plan": plan,
        "data": dict(data),
        "synthetic_data": synthetic_data,
        "software_version": software_version,
        "made_at": made_at.isoformat(),
    }
    document = json.dumps(
        _document(validation, shown, about), ensure_ascii=False, indent=2, allow_nan=False
    )
    tables_dir = out_dir / "tables"
    tables_dir.mkdir(parents=True, exist_ok=True)
    for name, table in _tables(shown).items():
        _spell_hidden(table).to_csv(tables_dir / f"{name}.csv", index=False)
    (out_dir / "report.json").write_text(document + "\n", encoding="utf-8")
    page = out_dir / "report.html"
    page.write_text(build_page(validation, shown, about), encoding="utf-8")
    return page


def _tables(shown: Shown) -> dict[str, pd.DataFrame]:
    return {
        "flow": pd.DataFrame(shown.flow, columns=list(FlowStep._fields)),
        "statistics": pd.DataFrame([asdict(one) for one in shown.all_statistics]).astype(
            {"n": "Int64", "events": "Int64"}
        ),
        "calibration_groups": _whole(shown.calibration_groups, "n", "events"),
        "calibration_curve": shown.calibration_curve,
        "decision_curve": _whole(shown.decision_curve, "flagged"),
        "distribution": _whole(shown.distribution, "events", "others"),
    }


def _whole(table: pd.DataFrame, *counts: str) -> pd.DataFrame:
    """The table with its counts as whole numbers, empty where hidden."""
    return table.astype(dict.fromkeys(counts, "Int64"))


def _spell_hidden(table: pd.DataFrame) -> pd.DataFrame:
    """The table with "<5" where a count is hidden; other hidden figures stay empty."""
    counts = table.select_dtypes("Int64")
    spelt = counts.astype(object).where(counts.notna(), HIDDEN)
    return table.assign(**{str(name): spelt[name] for name in spelt.columns})


def _document(validation: Validation, shown: Shown, about: Mapping[str, Any]) -> dict[str, Any]:
    tables = _tables(shown)
    return {
        "schema_version": SCHEMA_VERSION,
        **about,
        "n": validation.n,
        "patients": validation.patients,
        "events": validation.events,
        "first_index_time": validation.first.isoformat(),
        "last_index_time": validation.last.isoformat(),
        "thresholds": list(validation.at_thresholds),
        "bootstrap": {"draws": validation.draws, "seed": validation.seed},
        "smallest_count_shown": SMALLEST_SHOWN,
        "flow": [step._asdict() for step in shown.flow],
        "statistics": [asdict(one) for one in shown.all_statistics],
        "comparisons": [one.comparator._asdict() for one in shown.comparisons],
        "calibration": {
            "groups": _records(tables["calibration_groups"]),
            "curve": _columns(tables["calibration_curve"]),
        },
        "decision_curve": _columns(tables["decision_curve"]),
        "distribution": _columns(tables["distribution"]),
    }


def _columns(table: pd.DataFrame) -> dict[str, list[Any]]:
    """The table as one list per column, None for what is empty."""
    return {
        str(name): [None if pd.isna(value) else value for value in column.tolist()]
        for name, column in table.items()
    }


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    columns = _columns(table)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
