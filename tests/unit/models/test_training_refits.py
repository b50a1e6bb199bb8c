"""Refits on other patients: nested shares, bootstrap samples of whole patients, outcomes at random;
and finished parts that are kept and read back as they were."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest

from models.cohort import Cohort
from models.fitting import matrix_of, risks_of
from models.package import Package, Specification, read_table
from models.refits import (
    LEARNING_SHARES,
    STEPS,
    Refits,
    Shuffled,
    bootstrap_samples,
    refit,
    shares_of,
    shuffled_auroc,
)
from models.training import (
    Trained,
    known_outcomes,
    split_by_time,
    train,
    write_head,
)
from models.training_kept import TrainedHead, Work, work_on
from models.uncertainty import REFITS, uncertainty_table

HEAD = "readmission"
CHANCE = Shuffled(0.5, 1)


@pytest.fixture(scope="module")
def quick(package: Package) -> Specification:
    """The bundled specification with few rounds."""
    words = msgspec.structs.replace(package.manifest.training, rounds=30, min_child_weight=5)
    return Specification(
        msgspec.structs.replace(package.manifest, training=words), package.features
    )


@pytest.fixture(scope="module")
def frame(package: Package) -> pd.DataFrame:
    """A thousand stays of 700 patients: the package's reference rows, with outcomes drawn from its
    own risks, so that there is something to learn."""
    columns, reference = read_table(package.folder / "reference.csv")
    draw = np.random.default_rng(12)
    rows = reference[:1_000]
    days = pd.to_timedelta(draw.permutation(len(rows)), unit="h")
    found = pd.DataFrame(rows, columns=columns)
    found["patient"] = [f"p{i:04}" for i in draw.integers(0, 700, len(rows))]
    found["index_time"] = pd.Timestamp("2025-01-01", tz="UTC") + days
    risks = package.heads[0].trees.risk(rows) * 1.5
    found["state"] = np.where(draw.random(len(rows)) < risks, "event", "no-event")
    found["days"] = np.where(found["state"] == "event", 5.0, np.nan)
    return found


@pytest.fixture(scope="module")
def trained(quick: Specification, frame: pd.DataFrame) -> Trained:
    return train(quick, frame)


@pytest.fixture(scope="module")
def refits(quick: Specification, trained: Trained) -> Refits:
    return refit(quick, trained)


# ---- samples of patients --------------------------------------------------------------------


def test_a_smaller_share_of_the_patients_is_in_the_larger_with_all_their_rows(
    trained: Trained,
) -> None:
    fit = trained.split.fit
    everybody = set(fit["patient"])
    before: set[str] = set()
    for share, rows in shares_of(fit, 7):
        patients = set(rows["patient"])
        assert len(patients) == round(share * len(everybody))
        assert before <= patients
        assert len(rows) == fit["patient"].isin(patients).sum()
        before = patients


def test_a_bootstrap_sample_draws_patients_and_not_rows(trained: Trained) -> None:
    """As many patients as there are; each as often with every one of its rows."""
    fit = trained.split.fit
    had = fit.groupby("patient").size()
    samples = list(bootstrap_samples(fit, 7))
    assert len(samples) == REFITS
    for sample in samples:
        times = sample.groupby("patient").size() / had
        drawn = times.dropna()
        assert (drawn == drawn.round()).all()
        assert drawn.sum() == len(had)
        assert 0.58 < len(drawn) / len(had) < 0.69, "about 1 - 1/e of the patients"


def test_the_order_of_rows_changes_no_sample(trained: Trained) -> None:
    fit = trained.split.fit
    shuffled = fit.sample(frac=1.0, random_state=2)
    for one, other in zip(bootstrap_samples(fit, 7), bootstrap_samples(shuffled, 7), strict=True):
        assert one.index.tolist() == other.index.tolist()


def test_a_sample_without_the_outcome_is_drawn_again() -> None:
    rows = pd.DataFrame({"patient": ["a", "b", "c"], "index_time": [1, 2, 3], "event": [1, 0, 0]})
    assert all(sample["event"].nunique() == 2 for sample in bootstrap_samples(rows, 7))


# ---- refits ---------------------------------------------------------------------------------


def test_every_refit_gives_every_test_row_a_risk(trained: Trained, refits: Refits) -> None:
    rows = len(trained.split.test)
    assert [learned.share for learned in refits.learning] == list(LEARNING_SHARES)
    assert [len(learned.risks) for learned in refits.learning] == [rows] * 3
    assert [len(risks) for risks in refits.bootstrap] == [rows] * REFITS
    everything = np.array([*refits.bootstrap, *(one.risks for one in refits.learning)])
    assert ((everything > 0) & (everything < 1)).all()


def test_the_refits_differ_and_lie_about_the_model(
    quick: Specification, trained: Trained, refits: Refits
) -> None:
    """They rank as it does, and their range widens as the risk rises."""
    risks = risks_of(trained.model, matrix_of(quick, trained.split.test))
    spread = np.array(refits.bootstrap)
    assert np.unique(spread, axis=0).shape[0] == REFITS
    assert np.corrcoef(spread.mean(axis=0), risks)[0, 1] > 0.9
    rows = uncertainty_table(np.asarray(risks, dtype=np.float64), spread.T)
    width = rows[:, 2] - rows[:, 1]
    assert width[-1] > width[0] > 0.0


def test_progress_counts_the_fits(quick: Specification, trained: Trained, refits: Refits) -> None:
    """And the same cohort and seed give the same refits."""
    told: list[tuple[int, int]] = []
    assert refit(quick, trained, lambda done, total: told.append((done, total))) == refits
    assert told == [(done, STEPS) for done in range(1, STEPS + 1)]


def test_a_share_without_the_outcome_has_no_risks(quick: Specification, trained: Trained) -> None:
    """Where no patient of the smallest share had it, the curve begins later."""
    fit = trained.split.fit
    _, smallest = next(shares_of(fit, quick.manifest.training.seed))
    fit = fit.assign(event=fit["event"].where(~fit["patient"].isin(smallest["patient"]), 0))
    split = type(trained.split)(fit, trained.split.test)
    other = dataclasses.replace(trained, split=split, rounds=5)
    first, *others = refit(quick, other).learning
    assert (first.events, first.risks) == (0, [])
    assert all(learned.risks for learned in others)


# ---- outcomes dealt at random ---------------------------------------------------------------


def test_outcomes_dealt_at_random_are_not_learned(quick: Specification, trained: Trained) -> None:
    assert 0.4 < shuffled_auroc(quick, trained.split.fit).auroc < 0.6


@pytest.mark.slow
def test_ranks_within_folds_do_not_lean_to_the_wrong_side(
    quick: Specification, frame: pd.DataFrame
) -> None:
    """A fold with more events leaves the others with fewer, so that all folds ranked together come
    out under 0.5; ranked apart they lie about 0.5."""
    areas = []
    for seed in range(4):
        words = msgspec.structs.replace(quick.manifest.training, seed=seed, folds=5)
        spec = Specification(
            msgspec.structs.replace(quick.manifest, training=words), quick.features
        )
        areas.append(shuffled_auroc(spec, known_outcomes(frame)).auroc)
    assert np.mean(areas) == pytest.approx(0.5, abs=0.035)


# ---- kept, and read back --------------------------------------------------------------------


def never() -> TrainedHead:
    raise AssertionError("trained again")


def test_a_kept_head_is_read_back_to_the_byte(
    quick: Specification, frame: pd.DataFrame, trained: Trained, refits: Refits, tmp_path: Path
) -> None:
    """Booster, baseline and background are written again as they were; figures and parts too."""
    made = TrainedHead(trained, refits, CHANCE)
    first, second = Work(tmp_path / "kept", []), Work(tmp_path / "kept", [])
    assert first.head(quick, HEAD, frame=frame, make=lambda: made) is made
    found = second.head(quick, HEAD, frame=frame, make=never)
    assert (first.reused, second.reused) == ([], [f"head {HEAD}"])
    write_head(tmp_path / "again", quick, HEAD, found.trained)
    for path in (tmp_path / "again" / "heads" / HEAD).iterdir():
        assert path.read_bytes() == (tmp_path / "kept" / "heads" / HEAD / path.name).read_bytes()
    assert (found.refits, found.shuffled) == (refits, CHANCE)
    assert (found.trained.rounds, found.trained.platt) == (trained.rounds, trained.platt)
    assert found.trained.reference.tobytes() == trained.reference.tobytes()
    assert found.trained.split.test.equals(trained.split.test)


def test_a_head_that_was_not_finished_is_trained_again(
    quick: Specification, frame: pd.DataFrame, trained: Trained, refits: Refits, tmp_path: Path
) -> None:
    """Its last file says that it is finished; a run that broke off before it left none."""
    made = TrainedHead(trained, refits, CHANCE)
    Work(tmp_path, []).head(quick, HEAD, frame=frame, make=lambda: made)
    (tmp_path / "heads" / HEAD / "numbers.json").unlink()
    again = Work(tmp_path, [])
    assert again.head(quick, HEAD, frame=frame, make=lambda: made) is made
    assert again.reused == []


def test_a_kept_cohort_is_read_back_as_it_was(frame: pd.DataFrame, tmp_path: Path) -> None:
    cohort = Cohort(frame, 700, 1_200, {"deceased": 200})
    Work(tmp_path, []).cohort(lambda: cohort)
    again = Work(tmp_path, [])
    found = again.cohort(lambda: pytest.fail("built again"))
    pd.testing.assert_frame_equal(found.frame, frame)
    assert (found.patients, found.indexes, found.excluded) == (700, 1_200, {"deceased": 200})
    assert again.reused == ["cohort"]


def test_without_a_work_folder_nothing_is_kept(frame: pd.DataFrame, tmp_path: Path) -> None:
    cohort = Cohort(frame, 1, 1, {})
    work = work_on(None, tmp_path, tmp_path, software="1")
    assert work.cohort(lambda: cohort) is cohort
    assert work.cohort(lambda: cohort) is cohort
    assert (work.reused, list(tmp_path.iterdir())) == ([], [])


@pytest.fixture
def sources(tmp_path: Path) -> tuple[Path, Path]:
    """A specification and Bulk Data, as far as a digest looks at them."""
    specification, data = tmp_path / "model", tmp_path / "data"
    specification.mkdir()
    data.mkdir()
    (specification / "manifest.toml").write_text("a = 1")
    (data / "Patient.ndjson").write_text("{}\n")
    (data / "manifest.json").write_text("{}")
    return specification, data


def test_the_work_on_the_same_is_found_again_and_only_its_owner_can_read_it(
    sources: tuple[Path, Path], tmp_path: Path
) -> None:
    one, two = (work_on(tmp_path / "work", *sources, software="1").folder for _ in range(2))
    assert one == two
    assert one is not None
    assert one.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "other", ["model/manifest.toml", "data/Patient.ndjson", "data/manifest.json", "data/X.ndjson"]
)
def test_another_manifest_or_other_data_start_anew(
    sources: tuple[Path, Path], tmp_path: Path, other: str
) -> None:
    before = work_on(tmp_path / "work", *sources, software="1").folder
    with (tmp_path / other).open("a") as file:
        file.write("\n")
    assert work_on(tmp_path / "work", *sources, software="1").folder != before


def test_another_release_starts_anew(sources: tuple[Path, Path], tmp_path: Path) -> None:
    folders = {work_on(tmp_path / "work", *sources, software=v).folder for v in ("1", "2")}
    assert len(folders) == 2


def test_the_parts_are_those_the_frame_has(
    quick: Specification, frame: pd.DataFrame, trained: Trained
) -> None:
    """A kept head is set beside the parts of its cohort, which follow from the frame alone."""
    split = split_by_time(known_outcomes(frame), quick.manifest.training)
    assert split.fit.equals(trained.split.fit)
