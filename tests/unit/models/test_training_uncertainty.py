"""Model uncertainty: a table of where refits put a risk, refused if it is none, read in between."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fhir_adapters.clock import parse_time
from models.errors import PackageRefused
from models.examples import read_example, row_of_bundle
from models.package import Package, load_package, write_checksums
from models.predict import head_predictions
from models.prediction import HeadPrediction
from models.registry import BUNDLED
from models.uncertainty import COLUMNS, METHOD, uncertainty_of, uncertainty_table

TABLE = """risk,low,high
0.05,0.04,0.07
0.2,0.15,0.24
0.4,0.3,0.48
"""
FILE = "heads/readmission/uncertainty.csv"


def table(text: str = TABLE) -> NDArray[np.float64]:
    return np.array([[float(n) for n in line.split(",")] for line in text.splitlines()[1:]])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the bundled package."""
    return Path(shutil.copytree(BUNDLED / "readmission-30d", tmp_path / "readmission-30d"))


def with_table(folder: Path, text: str) -> Package:
    (folder / FILE).write_text(text, encoding="utf-8")
    write_checksums(folder)
    return load_package(folder)


# ---- from refits to a table -----------------------------------------------------------------


def test_the_table_holds_the_middle_eighty_per_cent_of_what_refits_give() -> None:
    """Ten refits 1 to 10 points above the risk: 80 % of them from 1.9 to 9.1 points above, and the
    range is widened to the risk itself."""
    risks = np.linspace(0.1, 0.5, 2_000)
    refits = risks[:, None] + np.arange(1, 11) / 100
    rows = uncertainty_table(risks, refits)
    assert len(rows) == 11
    assert rows[:, 1] == pytest.approx(rows[:, 0])
    assert rows[:, 2] - rows[:, 0] == pytest.approx(0.091)
    assert rows[0, 0] == pytest.approx(0.12, abs=1e-3)
    assert rows[-1, 0] == pytest.approx(0.49, abs=1e-3)


@given(
    risks=st.lists(st.floats(0.001, 0.999), min_size=1, max_size=60),
    decimals=st.sampled_from([2, 12]),
    seed=st.integers(0, 1_000),
)
def test_any_refits_make_a_table_that_is_accepted(
    risks: list[float], decimals: int, seed: int
) -> None:
    """Few rows, ties, refits that all disagree: the risks rise, and each lies in its range."""
    shown = np.clip(np.round(risks, decimals), 0.001, 0.999)
    refits = np.random.default_rng(seed).uniform(0.001, 0.999, (len(shown), 10))
    sure = uncertainty_of(COLUMNS, uncertainty_table(shown, refits))
    for risk in (0.0005, *shown, 0.9999):
        low, high = sure.interval_at(float(risk))
        assert 0.0 < low <= risk <= high < 1.0


# ---- reading in between ---------------------------------------------------------------------


def test_at_the_risk_of_a_row_its_range_is_given() -> None:
    sure = uncertainty_of(COLUMNS, table())
    for risk, low, high in table():
        assert sure.interval_at(risk) == pytest.approx((low, high))


def test_between_rows_the_range_lies_between_theirs() -> None:
    low, high = uncertainty_of(COLUMNS, table()).interval_at(0.3)
    assert 0.15 < low < 0.3 < high < 0.48


def test_beyond_the_highest_row_its_distance_in_log_odds_holds_on() -> None:
    """0.4 with 0.3 to 0.48: the odds are divided by 14/9, and multiplied by 18/13."""
    low, high = uncertainty_of(COLUMNS, table()).interval_at(0.8)
    assert low / (1 - low) == pytest.approx(4 / (14 / 9))
    assert high / (1 - high) == pytest.approx(4 * (18 / 13))


# ---- in a package ---------------------------------------------------------------------------


def test_a_package_without_the_table_gives_no_interval(folder: Path) -> None:
    (folder / FILE).unlink(missing_ok=True)
    write_checksums(folder)
    package = load_package(folder)
    assert package.heads[0].uncertainty is None
    (head,) = scored(package)
    assert head.interval is None
    assert head.interval_method is None


def test_a_package_with_the_table_gives_the_interval_unrounded_and_says_how(folder: Path) -> None:
    package = with_table(folder, TABLE)
    (head,) = scored(package)
    sure = package.heads[0].uncertainty
    assert sure is not None
    assert head.interval == sure.interval_at(head.risk)
    assert head.interval_method == METHOD == "refits, 10 bootstrap samples of patients, 80 %"


def scored(package: Package) -> list[HeadPrediction]:
    example = read_example(package.folder / "examples" / "01.json")
    row = row_of_bundle(package, bytes(example.bundle), parse_time(example.as_of))
    return head_predictions(package, row, "da")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("risk,low,high\n", "has no rows"),
        ("risk,lower,upper\n0.1,0.05,0.2\n", "its columns are not risk, low, high"),
        ("risk,low,high\n0.2,0.1,0.3\n0.1,0.05,0.2\n", "its risks do not rise"),
        ("risk,low,high\n0.2,0.25,0.3\n", "not 0 < low <= risk <= high < 1"),
        ("risk,low,high\n20,10,30\n", "not 0 < low <= risk <= high < 1"),
        ("risk,low,high\n0.2,,0.3\n", "not 0 < low <= risk <= high < 1"),
        ("risk,low,high\n0.2,0.1\n", ""),
        ("risk,low,high\n0.2,low,0.3\n", "could not convert"),
    ],
)
def test_a_table_that_is_none_is_refused_by_name(folder: Path, text: str, said: str) -> None:
    with pytest.raises(PackageRefused, match=f"{re.escape(FILE)}: .*{re.escape(said)}"):
        with_table(folder, text)


def test_the_checksum_covers_the_table(folder: Path) -> None:
    with_table(folder, TABLE)
    (folder / FILE).write_text(TABLE.replace("0.48", "0.47"), encoding="utf-8")
    with pytest.raises(PackageRefused, match=re.escape(f"{FILE} is not what SHA256SUMS says")):
        load_package(folder)
