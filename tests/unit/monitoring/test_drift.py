"""Drift: quiet when nothing has changed, loud when something has, and never stopped by one column.

Evidently is imported by two tests only (seconds, hundreds of MB); the rule is tested without it.
"""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp, norm

from monitoring.comparison import (
    MIN_ROWS,
    Column,
    Share,
    ks_distance,
    ks_limit,
    share_distance,
    share_limit,
)
from monitoring.drift import DriftResult, describe, drift_report, find_drift
from monitoring.errors import InvalidComparison

COLUMNS = (
    *(Column(f"lab_{number}", f"Lab {number}", "numeric") for number in range(20)),
    *(Column(f"flag_{number}", f"Diagnosis {number}", "binary") for number in range(20)),
)
MODEL = {"id": "example", "version": "1.0.0", "checksum": "ab12", "synthetic": True}
MADE_AT = datetime(2026, 11, 21, tzinfo=UTC)


def patients(n: int, *, seed: int) -> pd.DataFrame:
    """20 skewed laboratory values, 5 % of each missing, and 20 diagnoses in 2 to 40 %."""
    random = np.random.default_rng(seed)
    labs = {f"lab_{number}": random.lognormal(1, 0.4, n) for number in range(20)}
    flags = {
        f"flag_{number}": (random.random(n) < 0.02 * (number + 1)).astype(int)
        for number in range(20)
    }
    frame = pd.DataFrame(labs).mask(random.random((n, 20)) < 0.05)
    return frame.assign(**flags)


REFERENCE = patients(10_000, seed=0)


def alarms(result: DriftResult) -> list[tuple[str, str]]:
    return [(alarm.column, alarm.kind) for alarm in result.alarms]


@pytest.mark.parametrize("n", [60, 500, 3000])
def test_unchanged_world_is_quiet(n: int) -> None:
    """40 columns, 10 samples of the same world: not one alarm."""
    for seed in range(1, 11):
        assert alarms(find_drift(REFERENCE, patients(n, seed=seed), columns=COLUMNS)) == []


def test_shifted_laboratory_value_alarms() -> None:
    """A new method that reads 25 % higher is found, that column and no other."""
    current = patients(1000, seed=3).assign(lab_4=lambda frame: frame["lab_4"] * 1.25)
    result = find_drift(REFERENCE, current, columns=COLUMNS)
    assert alarms(result) == [("lab_4", "distribution")]
    assert result.alarms[0].value > result.alarms[0].limit
    assert result.alarms[0].text.startswith("Lab 4: the distribution has changed; median ")


def test_diagnosis_that_is_no_longer_coded_alarms() -> None:
    """A code that vanishes from the record is a constant column, and found."""
    current = patients(1000, seed=4).assign(flag_9=0)
    result = find_drift(REFERENCE, current, columns=COLUMNS)
    assert alarms(result) == [("flag_9", "distribution")]
    assert re.fullmatch(
        r"Diagnosis 9: present in 0\.0 %, (19|20|21)\.\d % in the reference", result.alarms[0].text
    )


def test_doubled_missingness_alarms() -> None:
    """Missing in 10 % instead of 5 %: an alarm of its own kind, though the values are as before."""
    current = patients(2000, seed=5)
    gone = np.random.default_rng(6).random(2000) < 0.055
    current["lab_7"] = current["lab_7"].mask(gone)
    result = find_drift(REFERENCE, current, columns=COLUMNS)
    assert alarms(result) == [("lab_7", "missingness")]


def test_small_change_in_a_large_sample_is_no_alarm() -> None:
    """A shift far from chance and too small to matter stays quiet, though p is below 1e-6."""
    current = patients(50_000, seed=7).assign(lab_1=lambda frame: frame["lab_1"] * 1.03)
    assert (
        ks_2samp(REFERENCE["lab_1"].dropna(), current["lab_1"].dropna(), method="asymp").pvalue
        < 1e-6
    )
    assert alarms(find_drift(REFERENCE, current, columns=COLUMNS)) == []


def test_several_predictions_of_a_patient_count_once() -> None:
    """20 equal rows of each of 100 patients: as 2,000 patients they alarm, as 100 they do not."""
    current = pd.concat([patients(100, seed=8).assign(patient=range(100))] * 20)
    assert alarms(find_drift(REFERENCE, current, columns=COLUMNS)) != []
    once = find_drift(REFERENCE, current, columns=COLUMNS, patient="patient")
    assert alarms(once) == []
    assert once.rows_current == 100


BROKEN = pytest.mark.parametrize(
    ("values", "note", "kind"),
    [
        (None, "current data: every value is missing", "missingness"),
        ("high", "current data: 500 of 500 rows hold text", "unusable"),
        ("12.5", "current data: 500 of 500 rows hold text", "unusable"),
        (np.inf, "current data: 500 of 500 rows hold text, infinity", "unusable"),
        (4.0, "current data: every value is the same", "distribution"),
    ],
)


@BROKEN
def test_broken_column_is_named_and_the_rest_works(
    values: float | str | None, note: str, kind: str
) -> None:
    """One broken column is an alarm with its reason; the other 39 are compared as ever."""
    current = patients(500, seed=9).astype(object)
    current["lab_2"] = pd.Series([values] * 500, dtype=object)
    result = find_drift(REFERENCE, current, columns=COLUMNS)
    assert ("lab_2", kind) in alarms(result)
    assert {alarm.column for alarm in result.alarms} == {"lab_2"}
    found = {one["name"]: one for one in describe(result)["columns"]}
    assert found["lab_2"]["note"].startswith(note)
    assert sum(one["drifted"] is False for one in found.values()) == 39


def test_some_bad_values_leave_the_good_ones_compared() -> None:
    """Four infinite values are an alarm; the other 496 are compared."""
    current = patients(500, seed=10)
    current.loc[:3, "lab_2"] = np.inf
    result = find_drift(REFERENCE, current, columns=COLUMNS)
    assert alarms(result) == [("lab_2", "unusable")]
    assert result.alarms[0].value == pytest.approx(0.008)
    assert result.comparisons[2].distribution is not None


def test_absent_column_is_an_alarm() -> None:
    """A feature that is no longer delivered at all is said to be absent."""
    current = patients(500, seed=11).drop(columns="flag_3")
    result = find_drift(REFERENCE, current, columns=COLUMNS)
    assert alarms(result) == [("flag_3", "unusable")]
    assert result.alarms[0].text == "Diagnosis 3: the column is absent"


@pytest.mark.parametrize("dtype", ["Float64", "object"])
def test_how_the_numbers_are_stored_makes_no_difference(
    dtype: Literal["Float64", "object"],
) -> None:
    """Nullable and object columns are read like plain ones."""
    current = patients(500, seed=12)
    plain = describe(find_drift(REFERENCE, current[["lab_0"]], columns=COLUMNS[:1]))
    stored = current[["lab_0"]].astype(dtype)
    assert describe(find_drift(REFERENCE, stored, columns=COLUMNS[:1])) == plain


def test_too_few_rows_are_said_and_not_tested() -> None:
    """Under 50 rows nothing is compared, and the metrics say so; so also without any row."""
    for n in (0, MIN_ROWS - 1):
        metrics = describe(find_drift(REFERENCE, patients(n, seed=13), columns=COLUMNS))
        assert metrics["alarms"] == []
        assert metrics["n_columns_compared"] == 0
        assert all("50 are needed" in one["note"] for one in metrics["columns"])


@pytest.mark.parametrize(
    ("reference", "columns"),
    [(REFERENCE, ()), (REFERENCE, COLUMNS[:1] * 2), (REFERENCE.head(0), COLUMNS)],
)
def test_nothing_to_compare_is_refused(reference: pd.DataFrame, columns: Sequence[Column]) -> None:
    """No column, a column named twice, an empty reference: wrong input, not a quiet report."""
    with pytest.raises(InvalidComparison):
        find_drift(reference, patients(100, seed=14), columns=columns)


values = st.lists(st.sampled_from([0.0, 1.0, 2.5, 7.0, -3.0]), min_size=2, max_size=30)


@given(one=values, other=values)
def test_distance_is_that_of_kolmogorov_and_smirnov(one: list[float], other: list[float]) -> None:
    """The distance equals scipy's, ties and all, and does not depend on which comes first."""
    mine = ks_distance(np.array(one), np.array(other))
    assert mine == pytest.approx(ks_2samp(one, other, method="asymp").statistic)
    assert mine == pytest.approx(ks_distance(np.array(other), np.array(one)))


def test_limits_by_hand() -> None:
    """500 and 500: 1.3581 * sqrt(1000 / 250000) at 5 % (Smirnov, Ann Math Stat 1948;19:279-281)."""
    assert ks_limit(500, 500, chance=0.05) == pytest.approx(0.1)
    assert ks_limit(200, 200, chance=0.05) == pytest.approx(1.3581 * 0.1, abs=1e-4)
    assert share_limit(200, 200, chance=0.05) == pytest.approx(norm.ppf(0.975) * 0.1)
    assert share_limit(10**6, 10**6, chance=0.05) == 0.1


def test_cohens_h_by_hand() -> None:
    """Of many rows 50 and 75 %: h is 0.524 (Cohen 1988, table 6.2.2: phi 1.571 and 2.094)."""
    rows = 10**9
    distance = share_distance(Share(rows // 2, rows), Share(3 * rows // 4, rows))
    assert distance == pytest.approx(2.094 - 1.571, abs=1e-3)


# Evidently warns when it is imported (deprecated names in numpy and litestar, an escape in one of
# its strings). None of it is ours to mend, and elsewhere warnings stay errors.
QUIET_IMPORT = (
    "ignore:numpy.core is deprecated:DeprecationWarning",
    "ignore:invalid escape sequence:DeprecationWarning",
    "ignore:invalid escape sequence:SyntaxWarning",
    "ignore:Call to deprecated function 'Dependency':DeprecationWarning",
    "ignore:Use of deprecated class 'DependencyKwarg':DeprecationWarning",
)


def test_room_and_rule_do_without_evidently() -> None:
    """Who imports the room, or only compares, does not pay for Evidently."""
    probe = "import sys, monitoring.drift; print(*(m for m in sys.modules if 'evidently' in m))"
    found = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == ""


@pytest.mark.filterwarnings(*QUIET_IMPORT)
def test_report_is_written_for_people_and_machines(tmp_path: Path) -> None:
    """One report with a shift, a constant, a text and an absent column beside sound ones.

    Evidently marks what we alarm on, with the same figures; the page escapes labels, shows the
    synthetic banner, and its policy forbids every request; the metrics hold no NaN.
    """
    from monitoring.drift_page import draw_page

    columns = (*COLUMNS[:4], COLUMNS[39], COLUMNS[21], Column("lab_9", "Lab <9>", "numeric"))
    current = (
        patients(400, seed=15)
        .assign(lab_0=lambda frame: frame["lab_0"] * 1.5, flag_19=0, lab_9="high")
        .drop(columns="flag_1")
    )
    result = drift_report(
        REFERENCE, current, columns=columns, out_dir=tmp_path, model=MODEL, made_at=MADE_AT
    )
    metrics = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert [(one["column"], one["kind"]) for one in metrics["alarms"]] == [
        ("lab_0", "distribution"),
        ("flag_19", "distribution"),
        ("flag_1", "unusable"),
        ("lab_9", "unusable"),
        ("lab_9", "missingness"),
    ]
    assert metrics["model"] == MODEL
    assert (metrics["n_reference"], metrics["n_current"]) == (10_000, 400)
    ours = {one["name"]: one["value"] for one in metrics["columns"] if one["value"] is not None}
    assert draw_page(result.compared, header="").scores == pytest.approx(ours)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in page
    assert "made-up patients" in page
    assert "Lab &lt;9&gt;" in page
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=[^>]*>", page[:20_000])


@pytest.mark.filterwarnings(*QUIET_IMPORT)
def test_page_holds_no_row_of_a_patient() -> None:
    """Each column is put in an order of its own: no two values of a patient stay in one place."""
    from monitoring.drift_page import _shuffled

    both = pd.DataFrame({"lab_0": np.arange(200.0), "lab_1": np.arange(200.0)})
    found = find_drift(both, both, columns=COLUMNS[:2]).comparisons
    random = np.random.default_rng(1)
    shuffled = [_shuffled(one, "current", random=random).to_numpy() for one in found]
    assert sorted(shuffled[0]) == sorted(shuffled[1]) == list(range(200))
    assert (shuffled[0] == shuffled[1]).mean() < 0.05


def test_nothing_to_draw_still_makes_a_page(tmp_path: Path) -> None:
    """With too few rows for any comparison the page says so, and needs no Evidently."""
    drift_report(
        REFERENCE,
        patients(3, seed=16),
        columns=COLUMNS,
        out_dir=tmp_path,
        model=MODEL,
        made_at=MADE_AT,
    )
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "None, but nothing could be compared either." in page
