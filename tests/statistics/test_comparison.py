"""A model beside a published score: same predictions, paired interval, never a part of a score."""

import json
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from validation.analysis import Validation, validate
from validation.comparison import Comparator, Comparison
from validation.report import ModelFacts, write_report
from validation.resampling import Floats
from validation.statistics import Statistic

MODEL: ModelFacts = {"id": "example", "version": "1.0.0", "checksum": "ab12", "synthetic": True}
SCORE = Comparator("points", "Example score", "Somebody 1999", "death within 30 days")
RISKS = SCORE._replace(risk_of="outcome")
OR_DEATH = SCORE._replace(risk_of="outcome-or-death")


def predictions(n: int = 900, *, seed: int = 1, each: int = 1) -> pd.DataFrame:
    """A model and a coarser score of the same risk; every ninth patient lacks the score."""
    random = np.random.default_rng(seed)
    logit = random.normal(-1.2, 1.0, n)
    risk = 1 / (1 + np.exp(-logit))
    points = np.round(2 * (logit + random.normal(0, 1.0, n)))
    event = random.random(n) < risk
    patient = np.arange(n) // each
    points[patient % 9 == 0] = np.nan
    return pd.DataFrame(
        {
            "patient": [f"p{number}" for number in patient],
            "index_time": pd.date_range("2026-01-01", periods=n, freq="h", tz="UTC"),
            "risk": risk,
            "state": np.where(event, "event", "no-event"),
            "score:points": points,
            "score-risk:points": 1 / (1 + np.exp(-(-1.2 + points / 4))),
        }
    )


def validated(
    frame: pd.DataFrame, comparator: Comparator | None, *, draws: int = 200
) -> Validation:
    return validate(
        frame,
        thresholds=[0.2],
        excluded={},
        comparators=[comparator] if comparator else [],
        bootstrap=draws,
        seed=3,
    )


def compared(frame: pd.DataFrame, comparator: Comparator, *, draws: int = 200) -> Comparison:
    (found,) = validated(frame, comparator, draws=draws).comparisons
    return found


def named(comparison: Comparison) -> dict[str, Statistic]:
    return {one.name: one for one in comparison.statistics}


def auroc_by_pairs(event: Floats, value: Floats) -> float:
    """The share of pairs of an event and a non-event in the right order; ties count half."""
    pairs = product(value[event == 1], value[event == 0])
    return float(np.mean([(a > b) + 0.5 * (a == b) for a, b in pairs]))


def delong_error(event: Floats, first: Floats, second: Floats) -> float:
    """The standard error of the difference of two AUROCs of the same rows, independent rows.

    DeLong, DeLong & Clarke-Pearson, Biometrics 1988;44:837-845, written out.
    """

    def placements(value: Floats) -> tuple[Floats, Floats]:
        ill, well = value[event == 1][:, None], value[event == 0][None, :]
        right = (ill > well) + 0.5 * (ill == well)
        return right.mean(axis=1), right.mean(axis=0)

    (ill_1, well_1), (ill_2, well_2) = placements(first), placements(second)
    ill, well = ill_1 - ill_2, well_1 - well_2
    return float(np.sqrt(ill.var(ddof=1) / len(ill) + well.var(ddof=1) / len(well)))


def test_both_are_measured_on_the_predictions_that_have_the_whole_score() -> None:
    """800 of 900; the AUROCs and their difference are those counted pair by pair."""
    frame = predictions()
    found = compared(frame, SCORE)
    assert (found.share.n, found.share.events) == (900, 800)
    having = frame[frame["score:points"].notna()]
    event = np.asarray(having["state"] == "event", dtype=np.float64)
    of_score = auroc_by_pairs(event, having["score:points"].to_numpy())
    of_model = auroc_by_pairs(event, having["risk"].to_numpy())
    statistics = named(found)
    assert all((one.n, one.events) == (800, int(event.sum())) for one in found.statistics)
    assert statistics["auroc_of_points"].value == pytest.approx(of_score)
    assert statistics["model_auroc_beside_points"].value == pytest.approx(of_model)
    assert statistics["auroc_difference_points"].value == pytest.approx(of_model - of_score)


def test_the_interval_of_the_difference_is_that_of_a_pair() -> None:
    """With one prediction a patient it is DeLong's for correlated curves, within a tenth."""
    frame = predictions(1200)
    difference = named(compared(frame, SCORE, draws=1500))["auroc_difference_points"]
    having = frame[frame["score:points"].notna()]
    error = delong_error(
        np.asarray(having["state"] == "event", dtype=np.float64),
        having["risk"].to_numpy(),
        having["score:points"].to_numpy(),
    )
    assert difference.low is not None
    assert difference.high is not None
    assert difference.high - difference.low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_patients_are_drawn_and_not_predictions() -> None:
    """Every prediction written three times leaves the interval about as wide as it was."""
    once = predictions(600)
    thrice = pd.concat([once] * 3, ignore_index=True)
    widths = [
        named(compared(frame, SCORE, draws=500))["auroc_difference_points"]
        for frame in (once, thrice)
    ]
    assert all(one.low is not None and one.high is not None for one in widths)
    first, second = ((one.high or 0) - (one.low or 0) for one in widths)
    assert second == pytest.approx(first, rel=0.05)


def test_a_score_that_orders_as_the_model_does_differs_by_nothing() -> None:
    """Ten times the risk is the same order: a difference of 0, in every draw."""
    frame = predictions()
    same = frame.assign(**{"score:points": 10 * frame["risk"]})
    difference = named(compared(same, SCORE))["auroc_difference_points"]
    assert (difference.value, difference.low, difference.high) == (0.0, 0.0, 0.0)


def test_a_risk_of_the_same_outcome_is_held_against_it() -> None:
    """The model's own risk as a score: its O/E and slope are the model's."""
    frame = predictions()
    frame = frame.assign(**{"score:points": frame["risk"], "score-risk:points": frame["risk"]})
    whole = validated(frame, RISKS)
    models = {one.name: one for one in whole.statistics}
    scores = named(whole.comparisons[0])
    for name in ("observed_expected", "calibration_slope"):
        assert scores[f"{name}_of_points"].value == pytest.approx(models[name].value)
    assert "observed_expected_of_points" not in named(compared(frame, SCORE))


def test_a_risk_of_outcome_or_death_counts_the_dead() -> None:
    """As many expected, 40 more observed; the order is still that of the outcome alone."""
    frame = predictions()
    died = frame.index[(frame["state"] == "no-event") & frame["score:points"].notna()][:40]
    dead = frame.assign(state=frame["state"].where(~frame.index.isin(died), "competing"))
    expected = frame["score-risk:points"].sum()
    events = int((frame.loc[frame["score:points"].notna(), "state"] == "event").sum())
    found = named(compared(dead, OR_DEATH))
    observed_expected = found["observed_expected_of_points"]
    assert observed_expected.events == events + 40
    assert observed_expected.value == pytest.approx((events + 40) / expected)
    assert found["auroc_of_points"].events == events


def test_a_score_nobody_has_gives_no_figure_and_says_why() -> None:
    frame = predictions().assign(**{"score:points": np.nan, "score-risk:points": np.nan})
    found = compared(frame, RISKS)
    assert (found.share.value, found.share.events) == (0.0, 0)
    assert all(one.value is None for one in found.statistics)
    assert all("at least 10 of each are needed" in one.method for one in found.statistics)


def written(frame: pd.DataFrame, comparator: Comparator | None, out: Path) -> Path:
    write_report(
        validated(frame, comparator),
        out,
        title="Validation",
        model=MODEL,
        head={"id": "outcome", "threshold": 0.2},
        plan="",
        data={},
        synthetic_data=False,
        software_version="0.1.0",
        made_at=datetime(2026, 11, 21, tzinfo=UTC),
    )
    return out


def test_the_report_holds_the_comparison_everywhere(tmp_path: Path) -> None:
    """Page, JSON and table: the same statistics, and words on what they cannot say."""
    out = written(predictions(), RISKS, tmp_path)
    document = json.loads((out / "report.json").read_text(encoding="utf-8"))
    (said,) = document["comparisons"]
    assert said["label"] == "Example score"
    names = [one["name"] for one in document["statistics"] if one["name"].endswith("_points")]
    assert names == [
        "share_with_points",
        "auroc_of_points",
        "model_auroc_beside_points",
        "auroc_difference_points",
        "observed_expected_of_points",
        "calibration_slope_of_points",
    ]
    assert set(names) <= set(pd.read_csv(out / "tables" / "statistics.csv")["name"])
    page = (out / "report.html").read_text(encoding="utf-8")
    for words in ("Beside published scores", "Somebody 1999", "What this cannot say"):
        assert words in page


def test_without_scores_the_page_has_no_such_section(tmp_path: Path) -> None:
    out = written(predictions(), None, tmp_path)
    assert "published scores" not in (out / "report.html").read_text(encoding="utf-8")


def test_a_comparison_on_few_is_hidden(tmp_path: Path) -> None:
    """Three of those with the score had the outcome: no count, and no figure made of it."""
    frame = predictions()
    kept = frame.index[frame["state"] == "event"][:3]
    gone = (frame["state"] == "event") & ~frame.index.isin(kept)
    few = frame.assign(**{"score:points": frame["score:points"].where(~gone).fillna(0.0)})
    few.loc[gone, "score:points"] = np.nan
    out = written(few, SCORE, tmp_path)
    document = json.loads((out / "report.json").read_text(encoding="utf-8"))
    hidden = [one for one in document["statistics"] if one["name"] == "auroc_of_points"]
    assert [(one["n"], one["events"]) for one in hidden] == [(None, None)]


@pytest.mark.parametrize(("with_event", "without"), [(1, 2), (1, 60), (60, 3), (0, 4)])
def test_the_few_without_a_score_cannot_be_counted(
    tmp_path: Path, with_event: int, without: int
) -> None:
    """The rows under the share counted those with the score: everybody less those was a few."""
    out = written(lacking(with_event, without), OR_DEATH, tmp_path)
    rows = rows_of_comparison(out)
    assert all((one["n"], one["events"]) == (None, None) for one in rows)
    assert all(one["value"] is not None for one in rows if one["name"] != "share_with_points")
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "not shown: fewer than 5 are left out" in page


def test_counts_stand_where_everybody_or_enough_lack_the_score(tmp_path: Path) -> None:
    for number, (with_event, without) in enumerate([(0, 0), (0, 60), (30, 60)]):
        rows = rows_of_comparison(
            written(lacking(with_event, without), RISKS, tmp_path / f"{number}")
        )
        assert all(one["n"] is not None for one in rows)


def lacking(with_event: int, without: int) -> pd.DataFrame:
    """Predictions of which so many with, and without, the outcome lack the score."""
    frame = predictions()
    frame["score:points"] = frame["score:points"].fillna(0.0)
    frame["score-risk:points"] = frame["score-risk:points"].fillna(0.2)
    event = frame["state"] == "event"
    gone = [*frame.index[event][:with_event], *frame.index[~event][:without]]
    frame.loc[gone, ["score:points", "score-risk:points"]] = np.nan
    return frame


def rows_of_comparison(out: Path) -> list[dict[str, Any]]:
    document = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return [one for one in document["statistics"] if one["name"].endswith("_points")]
