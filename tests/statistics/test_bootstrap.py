"""The bootstrap of patients: honest width, honest coverage, the same figures again."""

import numpy as np
import pytest

from validation.cohort import Sample
from validation.resampling import (
    Floats,
    Weighted,
    auroc,
    percentile_interval,
    rank,
    replicates,
    weigh_equally,
)


def simulated(
    patients: int, *, each: int, random: np.random.Generator, frailty: float = 1.0
) -> Sample:
    """Patients with `each` predictions, alike in risk and, beyond the risk, in frailty."""
    patient = np.repeat(np.arange(patients), each)
    own = random.normal(size=patients)[patient]
    predicted = -1.5 + 0.8 * own + 0.6 * random.normal(size=len(patient))
    true = predicted + frailty * random.normal(size=patients)[patient]
    event = random.random(len(patient)) < 1 / (1 + np.exp(-true))
    return Sample(event=event, risk=1 / (1 + np.exp(-predicted)), patient=patient)


def only_auroc(sample: Weighted) -> Floats:
    return np.array([auroc(sample)])


def unseen(step: str, done: int, total: int) -> None:
    """Nobody watches the progress."""


def auroc_interval(sample: Sample, *, draws: int, seed: int = 1) -> tuple[float, float]:
    drawn = replicates(rank(sample), only_auroc, draws=draws, seed=seed, progress=unseen)
    return percentile_interval(drawn[:, 0])


def test_copies_of_a_patient_make_no_interval_narrower() -> None:
    """Every prediction written four times: the interval of patients stays, that of rows halves."""
    once = simulated(300, each=1, random=np.random.default_rng(3))
    copied = Sample(np.repeat(once.event, 4), np.repeat(once.risk, 4), np.repeat(once.patient, 4))
    as_rows = Sample(copied.event, copied.risk, np.arange(copied.n))
    width = {
        name: np.subtract(*auroc_interval(sample, draws=600)[::-1])
        for name, sample in (("once", once), ("copied", copied), ("rows", as_rows))
    }
    assert width["copied"] == pytest.approx(width["once"], rel=0.02)
    assert width["copied"] > 1.7 * width["rows"]


@pytest.mark.slow
def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """150 patients with 3 predictions each, 200 studies: the nominal 95 % holds within 5 points."""
    random = np.random.default_rng(11)
    truth = auroc(weigh_equally(simulated(200_000, each=1, random=random)))
    hits = 0
    for study in range(200):
        low, high = auroc_interval(simulated(150, each=3, random=random), draws=200, seed=study)
        hits += low <= truth <= high
    assert 0.90 <= hits / 200 <= 0.99


def test_same_seed_gives_the_same_interval() -> None:
    """The figures of a report can be had again; another seed gives slightly others."""
    sample = simulated(200, each=2, random=np.random.default_rng(5))
    assert auroc_interval(sample, draws=50) == auroc_interval(sample, draws=50)
    assert auroc_interval(sample, draws=50) != auroc_interval(sample, draws=50, seed=2)


def test_progress_is_told_to_the_end() -> None:
    """Who watches sees the number of draws done, up to the last."""
    seen: list[tuple[str, int, int]] = []
    sample = simulated(50, each=1, random=np.random.default_rng(5))
    replicates(
        rank(sample), only_auroc, draws=120, seed=1, progress=lambda *told: seen.append(told)
    )
    assert seen == [("drawing patients", done, 120) for done in (50, 100, 120)]
