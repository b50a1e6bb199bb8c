"""A synthetic copy: like the patients in what is asked, and nobody's row."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from validation.errors import ValidationError
from validation.likeness import Halves, closeness, exact_copies, halves, judged, too_close

THRESHOLDS = {"risk:x": 0.5}


def patients_of(size: int, seed: int = 1) -> pd.DataFrame:
    """Invented patients: measurements, of which two go together, gaps, a diagnosis, a risk."""
    draw = np.random.default_rng(seed)
    base = draw.normal(size=size)
    albumin = (38 - 4 * base + draw.normal(size=size)).round(1)
    crp = np.exp(2 + base + draw.normal(size=size) / 2).round(1)
    crp[draw.random(size) < 0.1] = np.nan
    copd = (draw.random(size) < 1 / (1 + np.exp(-base))).astype(float)
    weight = draw.normal(75, 12, size).round(2)
    risk = 1 / (1 + np.exp(-base - copd + 0.5))
    columns = {"albumin": albumin, "crp": crp, "copd": copd, "weight": weight, "risk:x": risk}
    return pd.DataFrame(columns)


def codes(rows: pd.DataFrame) -> pd.Series:
    """One patient a row."""
    return pd.Series([f"p{number}" for number in range(len(rows))], index=rows.index)


@pytest.fixture(scope="module")
def real() -> Halves:
    """Patients a copy is made from, and others."""
    rows = patients_of(800)
    return halves(rows, codes(rows), seed=3)


def test_no_patient_is_in_both_halves() -> None:
    """A patient's rows stay together: else the copy would be compared with itself."""
    rows = patients_of(900)
    whose = pd.Series([f"p{number // 3}" for number in range(900)])
    real = halves(rows, whose, seed=1)
    assert not set(whose[real.made_from.index]) & set(whose[real.unseen.index])
    assert len(real.made_from) + len(real.unseen) == 900


def test_too_few_patients_are_refused() -> None:
    """However many rows they have."""
    rows = patients_of(900)
    with pytest.raises(ValidationError, match="9 patients"):
        halves(rows, pd.Series([str(number // 100) for number in range(900)]), seed=1)


def test_other_patients_are_not_too_close(real: Halves) -> None:
    """Rows drawn from the same source, independent of both halves, pass."""
    found = closeness(patients_of(800, seed=2), real)
    assert found["share_closer_to_made_from"] == pytest.approx(0.5, abs=0.05)
    assert too_close(found) == []


def test_the_patients_themselves_are_too_close(real: Halves) -> None:
    """A copy that copies is refused for both reasons."""
    found = closeness(real.made_from.head(100), real)
    assert found["exact_copies"] == 100
    assert len(too_close(found)) == 2


def test_patients_with_a_little_noise_are_too_close(real: Halves) -> None:
    """No row is equal, and the copy is refused all the same."""
    noise = np.random.default_rng(1).normal(scale=0.02, size=real.made_from.shape)
    found = closeness(real.made_from * (1 + noise), real)
    assert found["exact_copies"] == 0
    assert found["ratio_made_from"] < found["ratio_unseen"]
    assert any("nearer to a patient" in reason for reason in too_close(found))


def test_missing_equals_missing(real: Halves) -> None:
    """A copy with the same gap in the same place is a copy."""
    gap = real.made_from[real.made_from["crp"].isna()].head(1)
    assert exact_copies(gap, real.made_from) == 1
    assert exact_copies(gap.assign(albumin=0.0), real.made_from) == 0


def test_the_report_knows_a_good_copy_from_a_shuffled_one(real: Halves) -> None:
    """Shuffled columns keep each column and lose what goes with what."""
    features = ["albumin", "crp", "copd"]
    good = judged(patients_of(400, seed=5), real, features=features, thresholds=THRESHOLDS)
    draw = np.random.default_rng(1)
    shuffled = real.made_from.apply(lambda column: draw.permutation(column.to_numpy()))
    bad = judged(shuffled, real, features=features, thresholds=THRESHOLDS)
    assert good["passed"]
    assert good["correlations"]["mean_difference"] < 0.1 < bad["correlations"]["mean_difference"]
    ((right,), (wrong,)) = good["found_again"], bad["found_again"]
    assert right["learnt_from_synthetic"] == pytest.approx(right["learnt_from_real"], abs=0.03)
    assert wrong["learnt_from_synthetic"] < right["learnt_from_synthetic"]


def test_a_copy_is_useful_and_nobodys(real: Halves) -> None:
    """Columns, gaps, decimals and what goes together are kept; the same seed, the same rows."""
    from validation.synthetic_copy import synthetic_copy

    whose = codes(real.made_from)
    copy, again = (synthetic_copy(real.made_from, whose, size=400, seed=7) for _ in range(2))
    pd.testing.assert_frame_equal(copy, again)
    found = judged(copy, real, features=["albumin", "crp", "copd"], thresholds=THRESHOLDS)
    assert found["passed"], found["refused"]
    assert found["correlations"]["largest_difference"] < 0.2
    assert all(one["largest_difference"] < 0.15 for one in found["columns"])
    assert set(copy["copd"].unique()) == {0.0, 1.0}
    assert copy["crp"].isna().mean() == pytest.approx(0.1, abs=0.06)
    assert (copy["albumin"].round(1) == copy["albumin"]).all()


def test_no_extreme_of_one_patient_is_in_a_copy(real: Halves) -> None:
    """The largest value of a copy is one that five patients share, or lies below."""
    from validation.synthetic_copy import synthetic_copy

    rows = real.made_from.assign(nothing=np.nan, constant=2.0)
    rows.loc[rows.index[0], "crp"] = 1e5
    copy = synthetic_copy(rows, codes(rows), size=300, seed=1)
    assert copy["crp"].max() < 1e4
    assert copy["nothing"].isna().all()
    assert copy["constant"].unique().tolist() == [2.0]
