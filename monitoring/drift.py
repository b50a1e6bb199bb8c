"""The drift report as files: `report.html` for people, `metrics.json` for machines.

Lives here: what is written. Does not live here: what counts as drift (`comparison`) and the drawing
of distributions (`drift_page`, imported only when there is something to draw).
Called by the command `varsel drift`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any, Final

import pandas as pd

from monitoring.comparison import (
    FALSE_ALARM,
    MIN_KS_DISTANCE,
    MIN_SHARE_DISTANCE,
    Alarm,
    Column,
    ColumnComparison,
    Kind,
    Values,
    compare,
    find_alarms,
    one_row_per_patient,
    share_missing,
)

SCHEMA_VERSION: Final = 1

STATISTICS: Final[Mapping[Kind, str]] = {"numeric": "ks_distance", "binary": "cohens_h"}
METHODS: Final[Mapping[Kind, str]] = {
    "numeric": (
        f"Kolmogorov-Smirnov distance; limit the larger of {MIN_KS_DISTANCE:g} and its value by "
        f"chance, at {FALSE_ALARM:.0%} over all comparisons of the run"
    ),
    "binary": (
        f"Cohen's h; limit the larger of {MIN_SHARE_DISTANCE:g} and its value by "
        f"chance, at {FALSE_ALARM:.0%} over all comparisons of the run"
    ),
}

STYLE: Final = """
.varsel { max-width: 72rem; margin: 1.5rem auto; padding: 0 1.5rem; color: #1b1f23;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
.varsel h1 { font-size: 1.6rem; margin: 0 0 .4rem; }
.varsel h2 { font-size: 1.15rem; margin: 1.6rem 0 .5rem; }
.varsel table { width: 100%; border-collapse: collapse; font-size: .9rem; }
.varsel th, .varsel td { padding: .3rem .6rem; text-align: left; border-bottom: 1px solid #e4e7ea; }
.varsel .number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.varsel .alarm td, .varsel li.alarm { font-weight: 600; background: #fff1e6; }
.varsel .banner { padding: .7rem 1rem; border: 2px solid #b35c00; border-left-width: .6rem;
  background: #fff6e8; font-weight: 600; }
"""


@dataclass(frozen=True, slots=True)
class DriftResult:
    """What was found: one comparison per column, and the alarms (empty when all is quiet)."""

    rows_reference: int
    rows_current: int
    comparisons: tuple[ColumnComparison, ...]
    alarms: tuple[Alarm, ...]

    @property
    def compared(self) -> list[ColumnComparison]:
        """The columns whose distributions could be compared."""
        return [one for one in self.comparisons if one.distribution is not None]


def drift_report(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    *,
    columns: Sequence[Column],
    out_dir: Path,
    model: Mapping[str, object],
    made_at: datetime,
    patient: str | None = None,
) -> DriftResult:
    """Compares, and writes `report.html` and `metrics.json` into `out_dir`.

    `reference` and `current` hold one row per prediction with the columns named in `columns` (the
    risk may be one of them); missing is missing, never 0. `patient` names the column with the
    patient, of whom only the last row is used; without it rows are taken to be of different
    patients. `model` (`id`, `version`, `checksum`, `synthetic`) is passed on as it is. A column
    that cannot be compared is named with its reason. Raises `InvalidComparison` where nothing is
    named, a name comes twice, or the reference is empty.
    """
    result = find_drift(reference, current, columns=columns, patient=patient)
    metrics = {"schema_version": SCHEMA_VERSION, "model": dict(model)}
    metrics |= {"made_at": made_at.isoformat(), **describe(result)}
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / "metrics.json").write_text(
        json.dumps(metrics, ensure_ascii=False, indent=2, allow_nan=False) + "\n", encoding="utf-8"
    )
    page = _page(result, _header(result, model, made_at=made_at))
    (out_dir / "report.html").write_text(page, encoding="utf-8")
    return result


def find_drift(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    *,
    columns: Sequence[Column],
    patient: str | None = None,
) -> DriftResult:
    """The comparison alone, without files and without Evidently; arguments as `drift_report`."""
    if patient is not None:
        reference = one_row_per_patient(reference, patient)
        current = one_row_per_patient(current, patient)
    comparisons = compare(reference, current, columns=columns)
    return DriftResult(
        rows_reference=len(reference),
        rows_current=len(current),
        comparisons=tuple(comparisons),
        alarms=tuple(find_alarms(comparisons)),
    )


def describe(result: DriftResult) -> dict[str, Any]:
    """The result as it stands in `metrics.json`; None where there is no figure."""
    return {
        "n_reference": result.rows_reference,
        "n_current": result.rows_current,
        "n_columns_compared": len(result.compared),
        "columns": [_describe_column(one) for one in result.comparisons],
        "alarms": [alarm._asdict() for alarm in result.alarms],
    }


def _describe_column(one: ColumnComparison) -> dict[str, Any]:
    found, missing = one.distribution, one.missingness
    return {
        "name": one.column.name,
        "label": one.column.label,
        "statistic": STATISTICS[one.column.kind],
        "method": METHODS[one.column.kind],
        "value": found.value if found else None,
        "limit": found.limit if found else None,
        "drifted": one.drifted if found else None,
        "missing_reference": _missing(one.reference),
        "missing_current": _missing(one.current),
        "missingness_value": missing.value if missing else None,
        "missingness_limit": missing.limit if missing else None,
        "note": one.note,
    }


def _missing(values: Values) -> float | None:
    return share_missing(values) if values.rows else None


# The page


def _page(result: DriftResult, header: str) -> str:
    """The page with Evidently's distributions, or the header alone where nothing was compared."""
    if not result.compared:
        return f'<!DOCTYPE html>\n<html lang="en"><body>{header}</body></html>\n'
    from monitoring.drift_page import draw_page  # Evidently: seconds and hundreds of MB

    return draw_page(result.compared, header=header).html


def _header(result: DriftResult, model: Mapping[str, object], *, made_at: datetime) -> str:
    rows = "".join(_row(one, result.alarms) for one in result.comparisons)
    heads = ("Column", "Change", "Limit", "Missing now", "Missing before", "Remark")
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    return (
        f'<style>{STYLE}</style><main class="varsel">'
        f"<h1>Drift of {escape(str(model['id']))} {escape(str(model['version']))}</h1>"
        f"<p>{result.rows_current:,} rows now, {result.rows_reference:,} in the reference; "
        f"{len(result.compared)} of {len(result.comparisons)} columns could be compared; "
        f"made {escape(made_at.isoformat())}.</p>"
        f"{_banner(model)}<h2>Alarms</h2>{_alarm_list(result)}"
        f"<h2>Columns</h2><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        "<h2>Distributions</h2></main>"
    )


def _banner(model: Mapping[str, object]) -> str:
    if not model.get("synthetic"):
        return ""
    return '<p class="banner">Synthetic: the model was trained on made-up patients.</p>'


def _alarm_list(result: DriftResult) -> str:
    if not result.compared and not result.alarms:
        return "<p>None, but nothing could be compared either.</p>"
    if not result.alarms:
        return "<p>None.</p>"
    items = "".join(f'<li class="alarm">{escape(alarm.text)}</li>' for alarm in result.alarms)
    return f"<ul>{items}</ul>"


def _row(one: ColumnComparison, alarms: Sequence[Alarm]) -> str:
    alarmed = any(alarm.column == one.column.name for alarm in alarms)
    found = one.distribution
    numbers = (
        f"{found.value:.3f}" if found else "–",
        f"{found.limit:.3f}" if found else "–",
        _percent(_missing(one.current)),
        _percent(_missing(one.reference)),
    )
    cells = "".join(f'<td class="number">{text}</td>' for text in numbers)
    return (
        f'<tr class="{"alarm" if alarmed else ""}"><td>{escape(one.column.label)}</td>{cells}'
        f"<td>{escape(one.note)}</td></tr>"
    )


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share * 100:.1f} %"
