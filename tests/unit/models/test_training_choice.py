"""Settings chosen within the part fitted on, logistic heads, and how often outcomes are shuffled:
on small invented cohorts of the columns of a benchmark's manifest."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import models.fitting as fitting
from models.errors import PackageRefused, TrainingRefused
from models.fitting import (
    CrossFit,
    boost,
    cross_fit,
    events_of,
    fit_logistic,
    fold_platt_logistic,
    log_loss,
    margins_of,
    matrix_of,
    platt,
    risks_of,
)
from models.linear import Linear
from models.logistic import Logistic
from models.manifest import MOST_CANDIDATES, Search, Training, parse_manifest
from models.package import Specification, read_specification
from models.refits import Refits, Shuffled, refit, shuffled_auroc, shuffles_of
from models.training import Trained, split_by_time, train
from models.training_checks import chance_limits, refuse_learned_chance
from models.training_kept import TrainedHead, Work
from models.tuning import candidates_of, choose, with_training

MANIFEST = Path(__file__).parents[2] / "bench" / "manifests" / "hf299"
QUICK = Training(seed=3, rounds=15, early_stopping_rounds=5, learning_rate=0.2, min_child_weight=2)
SEARCH = Search(max_depth=[1, 3], reg_lambda=[1.0, 30.0])


@pytest.fixture(scope="module")
def spec() -> Specification:
    """Eight columns of heart failure, lvef of which may only lower the risk."""
    return with_training(read_specification(MANIFEST), QUICK)


@pytest.fixture(scope="module")
def searching(spec: Specification) -> Specification:
    return with_training(spec, msgspec.structs.replace(QUICK, search=SEARCH))


def cohort(spec: Specification, n: int = 400, seed: int = 1) -> pd.DataFrame:
    """Patients with normal values, whose first two columns raise and lower the risk."""
    draw = np.random.default_rng(seed)
    values = draw.normal(size=(n, len(spec.columns)))
    frame = pd.DataFrame(values, columns=spec.columns)
    risk = 1 / (1 + np.exp(0.8 - 1.2 * frame["creatinine"] + 0.9 * frame["lvef"]))
    frame["state"] = np.where(draw.random(n) < risk, "event", "no-event")
    frame["patient"] = [f"p{i:04}" for i in range(n)]
    frame["index_time"] = pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(
        draw.permutation(n), unit="h"
    )
    return frame


@pytest.fixture(scope="module")
def frame(spec: Specification) -> pd.DataFrame:
    return cohort(spec)


# ---- what may be searched -------------------------------------------------------------------


def test_every_combination_is_tried_and_the_rest_stays(searching: Specification) -> None:
    words = searching.manifest.training
    tried = [(one.max_depth, one.reg_lambda) for one in candidates_of(words, "trees")]
    assert tried == [(1, 1.0), (1, 30.0), (3, 1.0), (3, 30.0)]
    assert {one.learning_rate for one in candidates_of(words, "trees")} == {0.2}
    assert candidates_of(words, "logistic") == [words]
    assert candidates_of(QUICK, "trees") == [QUICK]


@pytest.mark.parametrize(
    ("search", "fault"),
    [
        ("search = {}", "nothing to choose among"),
        ("search = { max_depth = [] }", "nothing to choose among"),
        ("search = { max_depth = [2, 2] }", "a value stands twice"),
        ("search = { max_depth = [0] }", ">= 1"),
        ("search = { learning_rate = [1.5] }", "<= 1.0"),
        ("search = { rounds = [100] }", "unknown field `rounds`"),
        (f"search = {{ max_depth = {list(range(1, MOST_CANDIDATES + 2))} }}", "more than 24"),
    ],
)
def test_a_search_that_says_nothing_or_too_much_is_refused(search: str, fault: str) -> None:
    text = (MANIFEST / "manifest.toml").read_text(encoding="utf-8")
    with pytest.raises(PackageRefused, match=fault):
        parse_manifest(text.replace("[training]\n", f"[training]\n{search}\n"), "hf299")


# ---- the choice -----------------------------------------------------------------------------


def test_the_candidate_of_the_lowest_log_loss_of_patients_not_fitted_on_is_chosen(
    searching: Specification, frame: pd.DataFrame
) -> None:
    """And all of them are recorded, each with what cross-fitting it alone gives."""
    trained = train(searching, frame)
    assert len(trained.candidates) == 4
    best = min(trained.candidates, key=lambda one: one.log_loss)
    assert best.settings == {
        "max_depth": trained.training.max_depth, "reg_lambda": trained.training.reg_lambda,
    }  # fmt: skip
    for one in trained.candidates:
        words = msgspec.structs.replace(QUICK, **{k: type(getattr(QUICK, k))(v)
                                                  for k, v in one.settings.items()})  # fmt: skip
        alone = cross_fit(with_training(searching, words), trained.split.fit)
        assert (one.log_loss, one.rounds) == (alone.log_loss, alone.rounds)
    assert trained.rounds == best.rounds


def test_what_happened_in_the_test_part_changes_neither_choice_nor_model(
    searching: Specification, frame: pd.DataFrame
) -> None:
    """All its outcomes turned round, and its values too: the same bytes."""
    test = split_by_time(frame, QUICK).test.index
    other = frame.copy()
    other.loc[test, "state"] = np.where(frame.loc[test, "state"] == "event", "no-event", "event")
    other.loc[test, searching.columns] = -5.0 * frame.loc[test, searching.columns]
    one, two = train(searching, frame), train(searching, other)
    assert one.candidates == two.candidates
    assert one.training == two.training
    assert bytes(one.model.save_raw("ubj")) == bytes(two.model.save_raw("ubj"))  # type: ignore[union-attr]
    assert one.platt == two.platt


def test_the_model_and_its_refits_have_the_settings_chosen(
    searching: Specification, frame: pd.DataFrame
) -> None:
    trained = train(searching, frame)
    fit = trained.split.fit
    chosen = with_training(searching, trained.training)
    alone = boost(chosen, fit, rounds=trained.rounds).booster
    slope, intercept = trained.platt
    expected = slope * margins_of(alone, matrix_of(chosen, fit)) + intercept
    assert margins_of(trained.model, matrix_of(chosen, fit)) == pytest.approx(expected, abs=1e-4)
    again = refit(with_training(searching, QUICK), trained)
    assert again == refit(chosen, trained), "of the head's own settings, not the manifest's"


def test_progress_counts_the_fits_of_every_candidate(
    searching: Specification, frame: pd.DataFrame
) -> None:
    told: list[tuple[int, int]] = []
    train(searching, frame, lambda done, total: told.append((done, total)))
    assert {total for _, total in told} == {(4 * 5 + 1) * 15}
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (315, 315)


def test_a_search_that_broke_off_goes_on_after_the_candidates_it_had(
    searching: Specification, frame: pd.DataFrame, tmp_path: Path
) -> None:
    """With the same choice as in one go."""
    whole = choose(searching, frame.assign(event=(frame["state"] == "event").astype(int)))
    fit = frame.assign(event=(frame["state"] == "event").astype(int))
    first, second = Work(tmp_path, []), Work(tmp_path, [])

    def broken(number: int, fitting_of: object) -> CrossFit:
        if number == 2:
            raise KeyboardInterrupt
        return first.candidate("death", number, fitting_of)  # type: ignore[arg-type]

    with pytest.raises(KeyboardInterrupt):
        choose(searching, fit, keep=broken)
    again = choose(searching, fit, keep=lambda n, f: second.candidate("death", n, f))
    assert second.reused == ["head death candidate 1", "head death candidate 2"]
    assert again.candidates == whole.candidates
    assert again.best.margins.tolist() == whole.best.margins.tolist()


def test_a_part_kept_in_another_form_is_made_anew_and_never_misread(
    spec: Specification, frame: pd.DataFrame, tmp_path: Path
) -> None:
    """As earlier releases kept it: one shuffle as a bare number, and no settings."""
    made = TrainedHead(train(spec, frame), Refits([], []), Shuffled(0.5, 1))
    Work(tmp_path, []).head(spec, "death", frame=frame, make=lambda: made)
    numbers = tmp_path / "heads" / "death" / "numbers.json"
    old = msgspec.json.decode(numbers.read_bytes())
    old["shuffled"] = 0.5
    del old["training"], old["candidates"]
    numbers.write_bytes(msgspec.json.encode(old))
    again = Work(tmp_path, [])
    assert again.head(spec, "death", frame=frame, make=lambda: made) is made
    assert again.reused == []


# ---- outcomes dealt at random ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "events", "shuffles"),
    [
        (224, 72, 10),
        (2_000, 300, 4),
        (26_000, 4_000, 1),
        (26_000, 72, 7),
        (100_000, 150, 2),
        (500_000, 50, 1),
        (10, 0, 10),
    ],
)
def test_few_events_are_dealt_more_often_and_many_rows_less(
    rows: int, events: int, shuffles: int
) -> None:
    assert shuffles_of(rows, events) == shuffles


@given(rows=st.integers(1, 10**7), events=st.integers(0, 10**6))
def test_shuffling_costs_no_more_than_one_cross_fit_or_two_hundred_thousand_rows(
    rows: int, events: int
) -> None:
    assert 1 <= shuffles_of(rows, events) <= 10
    assert shuffles_of(rows, events) == 1 or shuffles_of(rows, events) * rows <= 200_000


def test_several_shuffles_narrow_what_is_allowed() -> None:
    """By the root of their number, beside 0.05: 0.0414 x 2 / sqrt(10) = 0.0262."""
    low, high = chance_limits(224, 72, 10)
    assert (low, high) == pytest.approx((0.5 - 0.0762, 0.5 + 0.0762), abs=1e-4)


def test_a_sound_small_cohort_passes(spec: Specification) -> None:
    """Of a size that one shuffle refused once in fifty."""
    small = cohort(spec, 224)
    fit = small.assign(event=(small["state"] == "event").astype(int))
    found = shuffled_auroc(spec, fit)
    assert found.shuffles > 5
    refuse_learned_chance(found, rows=len(fit), events=int(fit["event"].sum()))


def test_trees_that_saw_the_patients_they_rank_are_refused(
    spec: Specification, frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leak the shuffle is there for: rows left out that were fitted on all the same."""

    def leaking(s: Specification, fit: pd.DataFrame, **words: object) -> fitting.Fit:
        outside = words.get("outside")
        both = fit if outside is None else pd.concat([fit, outside])  # type: ignore[list-item]
        return boost(s, both, **words)  # type: ignore[arg-type]

    monkeypatch.setattr(fitting, "boost", leaking)
    fit = frame.assign(event=(frame["state"] == "event").astype(int))
    with pytest.raises(TrainingRefused, match="are not apart"):
        refuse_learned_chance(
            shuffled_auroc(spec, fit), rows=len(fit), events=int(fit["event"].sum())
        )


# ---- a logistic head ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def logistic(spec: Specification, frame: pd.DataFrame) -> Trained:
    return train(spec, frame, kind="logistic")


def test_a_logistic_head_is_calibrated_on_patients_not_fitted_on(
    spec: Specification, logistic: Trained
) -> None:
    """Slope and intercept of its cross-fitted margins are folded into its weights."""
    assert isinstance(logistic.model, Logistic)
    fit = logistic.split.fit
    alone = fit_logistic(spec, fit, signed=True)
    slope, intercept = platt(cross_fit(spec, fit, "logistic").margins, events_of(fit))
    assert logistic.platt == (slope, intercept)
    expected = slope * margins_of(alone, matrix_of(spec, fit)) + intercept
    assert margins_of(logistic.model, matrix_of(spec, fit)) == pytest.approx(expected)
    assert (logistic.kind, logistic.rounds, logistic.baseline) == ("logistic", 0, None)


def test_its_background_has_the_mean_risk_of_those_it_was_fitted_on(
    spec: Specification, logistic: Trained
) -> None:
    assert isinstance(logistic.model, Logistic)
    mean = risks_of(logistic.model, matrix_of(spec, logistic.split.fit)).mean()
    served = Linear(logistic.model, logistic.background)
    assert served.reference_risk == pytest.approx(mean, abs=0.001)


def test_its_refits_are_logistic_models_too(spec: Specification, logistic: Trained) -> None:
    risks = np.array(refit(spec, logistic).bootstrap)
    assert isinstance(logistic.model, Logistic)
    own = risks_of(logistic.model, matrix_of(spec, logistic.split.test))
    assert np.corrcoef(risks.mean(axis=0), own)[0, 1] > 0.95


def test_no_weight_has_a_sign_the_manifest_forbids(spec: Specification) -> None:
    """A column whose data say otherwise counts for nothing, as in trees."""
    turned = cohort(spec)
    turned["lvef"] = -turned["lvef"]
    fit = turned.assign(event=(turned["state"] == "event").astype(int))
    free, signed = (fit_logistic(spec, fit, signed=kept) for kept in (False, True))
    place = spec.columns.index("lvef")
    assert free.weight[place] > 0.1
    assert signed.weight[place] == 0.0
    for weight, feature in zip(signed.weight, spec.manifest.inputs, strict=True):
        assert weight * feature.monotone >= 0.0


def test_a_column_nobody_has_is_no_warning_and_counts_for_nothing(
    spec: Specification, frame: pd.DataFrame
) -> None:
    """Its median is 0; a warning would fail this test."""
    fit = frame.assign(event=(frame["state"] == "event").astype(int), platelets=np.nan)
    model = fit_logistic(spec, fit)
    place = spec.columns.index("platelets")
    assert (model.median[place], model.sd[place]) == (0.0, 1.0)
    assert model.weight[place] == pytest.approx(0.0, abs=1e-9)


def test_features_that_say_nothing_are_refused_for_a_logistic_head_too() -> None:
    with pytest.raises(ValueError, match="turns the model round"):
        fold_platt_logistic(Logistic([], [], [], [], [], 0.0), -0.1, 0.0)


def test_log_loss_of_certainty_is_finite() -> None:
    assert log_loss(np.array([800.0, -800.0]), np.array([0.0, 1.0])) == pytest.approx(27.6, abs=0.1)
