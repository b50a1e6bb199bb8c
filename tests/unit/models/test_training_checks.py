"""What training refuses, warns of and marks: leakage, and too few events."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest

from fhir_adapters.bulk import index_bulk_data
from fhir_adapters.clock import DAY_S, parse_time
from fhir_adapters.features.compute import FeatureRow, FeatureValue
from models.cohort import build_cohort
from models.errors import TrainingRefused
from models.fitting import Kind
from models.manifest import Training
from models.package import Package, Specification, read_table
from models.refits import Shuffled
from models.synthetic.bulk import write_bulk_data
from models.synthetic.charts import READMISSION
from models.training_checks import (
    POINTS_ROWS,
    category_shares,
    chance_limits,
    check_evidence,
    distinct_events,
    dominating,
    few_events_warnings,
    late_evidence,
    preferred_model,
    refuse_late_evidence,
    refuse_learned_chance,
    too_few_events,
)

NOW = float(parse_time("2026-11-21T12:00:00Z"))


def row(**values: FeatureValue) -> FeatureRow:
    return FeatureRow(as_of=NOW, index=None, values=values, implausible=())


def value(name: str, **said: object) -> FeatureValue:
    return FeatureValue(name, 1.0, "measured", **said)  # type: ignore[arg-type]


# ---- evidence from after the prediction -----------------------------------------------------


def test_evidence_up_to_the_moment_of_prediction_is_no_leak() -> None:
    """Also what has no time at all, as a count of nothing."""
    known = row(
        crp=value("crp", time=NOW, series=((NOW - DAY_S, 80.0), (NOW, 40.0))),
        contacts=value("contacts", time=None),
    )
    assert late_evidence(known) == []
    refuse_late_evidence(known)


@pytest.mark.parametrize(
    "late",
    [
        value("crp", time=NOW + 1.0),
        value("crp", time=NOW, series=((NOW - DAY_S, 80.0), (NOW + 1.0, 40.0))),
        value("crp", series=((NOW + DAY_S, 40.0),)),
    ],
)
def test_a_feature_that_rests_on_what_came_later_refuses_the_training_by_name(
    late: FeatureValue,
) -> None:
    found = row(pulse=value("pulse", time=NOW), crp=late)
    assert late_evidence(found) == ["crp"]
    with pytest.raises(TrainingRefused, match=r"features\.crp .* from after 2026-11-21T12:00:00Z"):
        refuse_late_evidence(found)


def test_the_evidence_of_a_cohort_is_dated_again_patient_by_patient(
    package: Package, tmp_path: Path
) -> None:
    """Every row of a small cohort; where prediction is moved before the data, nothing is late."""
    write_bulk_data(READMISSION, tmp_path, patients=40, seed=61, progress=lambda _: None)
    frame = build_cohort(package, tmp_path).frame
    index = index_bulk_data(tmp_path)
    assert check_evidence(package, index, frame) == len(frame) > 20
    years_ago = frame.assign(index_time=frame["index_time"] - pd.Timedelta(days=900))
    assert check_evidence(package, index, years_ago) == len(frame)


# ---- outcomes dealt at random ---------------------------------------------------------------


def test_a_large_cohort_allows_hardly_more_than_0_45_to_0_55() -> None:
    """Standard error by hand: sqrt((1,000,000 + 1) / (12 x 150,000 x 850,000)) = 0.00081."""
    low, high = chance_limits(1_000_000, 150_000)
    assert (low, high) == pytest.approx((0.45 - 0.00162, 0.55 + 0.00162), abs=1e-5)


def test_a_small_cohort_allows_two_standard_errors_more() -> None:
    """Forty events in 400 rows: sqrt(401 / (12 x 40 x 360)) = 0.0482."""
    assert chance_limits(400, 40) == pytest.approx((0.45 - 0.0964, 0.55 + 0.0964), abs=2e-4)


def test_the_standard_error_is_that_of_random_ranks() -> None:
    """Of 3,000 random rankings of 400 rows, the AUROC varies by what the formula says."""
    draw = np.random.default_rng(8)
    ranks = np.argsort(draw.random((3_000, 400)), axis=1)[:, :40] + 1
    areas = (ranks.sum(axis=1) - 40 * 41 / 2) / (40 * 360)
    low, high = chance_limits(400, 40)
    assert (high - low - 0.1) / 4 == pytest.approx(areas.std(), rel=0.05)


@pytest.mark.parametrize("auroc", [0.30, 0.44, 0.56, 0.90])
def test_outcomes_dealt_at_random_that_are_learned_refuse_the_training(auroc: float) -> None:
    with pytest.raises(TrainingRefused, match=f"AUROC of {auroc:.3f}, outside 0.44"):
        refuse_learned_chance(Shuffled(auroc, 1), rows=1_000_000, events=150_000)


@pytest.mark.parametrize("auroc", [0.45, 0.5, 0.55])
def test_chance_passes(auroc: float) -> None:
    refuse_learned_chance(Shuffled(auroc, 1), rows=1_000_000, events=150_000)


# ---- one category that explains everything --------------------------------------------------


def test_the_shares_of_the_categories_add_up_and_the_largest_is_first(package: Package) -> None:
    rows = read_table(package.folder / "reference.csv")[1]
    shares = category_shares(package, package.heads[0].trees, rows)
    assert set(shares) == {c.id for c in package.manifest.categories}
    assert sum(shares.values()) == pytest.approx(1.0)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert len(rows) > POINTS_ROWS
    assert dominating(shares) is None


def test_what_members_of_a_category_take_from_each_other_does_not_count(package: Package) -> None:
    """A category weighs what it moves the risk by: its points are summed before their size."""
    rows = read_table(package.folder / "reference.csv")[1][:50]
    shares = category_shares(package, package.heads[0].trees, rows)
    points = pd.DataFrame(package.heads[0].trees.points(rows), columns=package.columns)
    members = [feature.category or "" for feature in package.manifest.inputs]
    sizes = points.T.groupby(members).sum().T.abs().mean()
    assert shares == pytest.approx((sizes / sizes.sum()).to_dict())


@pytest.mark.parametrize(
    ("shares", "named"),
    [
        ({"contacts": 0.61, "blood": 0.39}, "contacts"),
        ({"contacts": 0.60, "blood": 0.40}, None),
        ({"blood": 0.2, "contacts": 0.8}, "contacts"),
        ({"contacts": 1.0}, None),
    ],
)
def test_a_category_of_more_than_sixty_per_cent_is_named_unless_it_is_the_only_one(
    shares: dict[str, float], named: str | None
) -> None:
    assert dominating(shares) == named


# ---- too few events -------------------------------------------------------------------------


def test_an_event_that_follows_many_rows_of_a_patient_is_one_event() -> None:
    """Three weekly measurements before one admission, another patient's at the same hour, and a
    measurement that nothing followed."""
    frame = pd.DataFrame(
        [
            ("a", "2026-03-01T08:00:00Z", 1, 13.2),
            ("a", "2026-03-08T08:00:00Z", 1, 6.2),
            ("a", "2026-03-11T20:00:00Z", 1, 2.7),
            ("b", "2026-03-08T08:00:00Z", 1, 6.2),
            ("c", "2026-03-08T08:00:00Z", 0, float("nan")),
        ],
        columns=["patient", "index_time", "event", "days"],
    )
    frame["index_time"] = pd.to_datetime(frame["index_time"])
    assert distinct_events(frame) == 2


@pytest.mark.parametrize(
    ("events", "columns", "reasons"),
    [
        (500, 50, []),
        (4_000, 43, []),
        (499, 10, ["499 events in the part fitted on, fewer than 500"]),
        (500, 51, ["9.8 events for each of 51 features, fewer than 10"]),
        (
            130,
            40,
            [
                "130 events in the part fitted on, fewer than 500",
                "3.2 events for each of 40 features, fewer than 10",
            ],
        ),
    ],
)
def test_a_head_of_too_few_events_is_experimental_and_says_why(
    events: int, columns: int, reasons: list[str]
) -> None:
    assert too_few_events(events, columns) == reasons


@pytest.mark.parametrize(
    ("columns", "depth", "kind", "warned"),
    [
        (15, 3, "trees", []),
        (16, 2, "trees", ["16 features are many"]),
        (40, 6, "trees", ["40 features are many", "trees of depth 6 are deep"]),
        (15, 6, "logistic", []),
    ],
)
def test_few_events_bear_few_features_and_shallow_trees(
    columns: int, depth: int, kind: Kind, warned: list[str], package: Package
) -> None:
    features = [f for f in package.manifest.features if f.category][:columns]
    assert len(features) == columns
    manifest = msgspec.structs.replace(package.manifest, features=features)
    spec = Specification(manifest, package.features)
    found = few_events_warnings(spec, Training(max_depth=depth), kind)
    assert [one.partition(" for so few")[0] for one in found] == warned


# ---- trees or logistic model ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "few", "kind"),
    [
        (0.01, 0.05, True, "trees"),
        (-0.01, 0.05, True, "logistic"),
        (-0.01, 0.05, False, "trees"),
        (-0.05, -0.01, False, "logistic"),
        (-0.05, -0.01, True, "logistic"),
        (None, None, True, "logistic"),
        (None, None, False, "trees"),
        (0.0, 0.05, True, "logistic"),
    ],
)
def test_the_logistic_model_is_preferred_where_trees_are_not_clearly_better_on_few_events(
    low: float | None, high: float | None, few: bool, kind: str
) -> None:
    """And wherever it clearly ranks better; with a reason, which trees need not."""
    found = preferred_model({"value": 0.0, "low": low, "high": high}, few=few)
    assert found.kind == kind
    assert bool(found.reason) == (kind == "logistic")
