"""The gate: the bundled readmission package on an independent synthetic cohort of 100,000 stays.

The cohort is drawn with a seed no training uses, written as FHIR, decoded, and goes through the
feature path that serves, patient by patient. Its true risks are known, so that the model can be
held against the best there is (the generator's own oracle) as well as against the published range.
Run by `make test-all`; five to seven minutes of one core, under 700 MB.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from fhir_adapters.clock import DAY_S
from fhir_adapters.decode import Gathered, decode_lines
from models.cohort import Cohort, cohort_of
from models.package import Package
from models.synthetic.charts import draw_patients
from models.synthetic.readmission import HORIZON_DAYS, STUDY_END
from validation.analysis import Validation, validate

SEED = 20_270_101
PATIENTS = 116_000
"""An eighth of the patients is not eligible; 116,000 leave more than 100,000 rows."""
LEAST_ROWS = 100_000
ORACLE_MARGIN = 0.005
DATA_UNTIL = STUDY_END.timestamp() + (HORIZON_DAYS + 1) * DAY_S
"""Every index stay is followed for its whole horizon: nobody is censored."""


@dataclass(frozen=True, slots=True)
class Gate:
    """The cohort with the true risk of every row, `(n,)`."""

    cohort: Cohort
    true_risk: NDArray[np.float64]


def draw_gate(package: Package, patients: int, *, seed: int) -> Gate:
    """The cohort of freshly drawn patients; one patient in memory at a time."""
    true_risk: dict[str, float] = {}

    def stream() -> Iterator[tuple[str, Gathered]]:
        for patient in draw_patients(seed, patients):
            true_risk[patient.patient_id] = patient.truth.true_risk
            yield patient.patient_id, decode_lines([line for _, line in patient.resources])

    cohort = cohort_of(package, stream(), DATA_UNTIL, total=patients)
    return Gate(cohort, np.array([true_risk[patient] for patient in cohort.frame["patient"]]))


def validated(frame: pd.DataFrame, risk: NDArray[np.float64]) -> dict[str, tuple[float, str]]:
    """Every statistic's value, and how it prints with its interval, by name."""
    rows = frame[["patient", "index_time", "state"]].assign(risk=risk)
    found: Validation = validate(rows, thresholds=[], excluded={}, bootstrap=200, seed=1)
    return {
        s.name: (float("nan") if s.value is None else s.value, f"{s.value} [{s.low}, {s.high}]")
        for s in found.statistics
    }


@pytest.mark.slow
def test_the_package_passes_the_gate_on_an_independent_cohort(package: Package) -> None:
    """AUROC in the published range and not above the oracle; risks neither too high nor extreme."""
    gate = draw_gate(package, PATIENTS, seed=SEED)
    frame, head = gate.cohort.of_head("readmission"), package.heads[0]
    matrix = frame[package.columns].to_numpy(dtype=np.float64)
    risk = head.trees.risk(matrix)
    trees = validated(frame, risk)
    logistic = validated(frame, head.baseline.risk(matrix))
    event = (frame["state"] == "event").to_numpy()
    oracle = float(roc_auc_score(event, gate.true_risk))
    auroc = float(roc_auc_score(event, risk))
    print(
        json.dumps(
            {
                "rows": len(frame),
                "states": {str(k): int(n) for k, n in frame["state"].value_counts().items()},
                "excluded": gate.cohort.excluded,
                "oracle_auroc": oracle,
                "mean_true_risk": float(gate.true_risk.mean()),
                "mean_risk": float(risk.mean()),
                "reference_risk": head.trees.reference_risk,
                "trees": {name: shown for name, (_, shown) in trees.items()},
                "logistic": {name: shown for name, (_, shown) in logistic.items()},
                "trees_less_logistic_auroc": auroc - logistic["auroc"][0],
            },
            indent=1,
        )
    )

    assert len(frame) >= LEAST_ROWS
    assert set(frame["state"]) == {"event", "no-event", "competing"}
    assert np.isfinite(gate.true_risk).all(), "every row the path takes is eligible in truth"
    assert trees["auroc"][0] == pytest.approx(auroc, abs=1e-9)
    assert 0.65 <= auroc <= 0.72
    assert auroc <= oracle + ORACLE_MARGIN
    assert 0.85 <= trees["calibration_slope"][0] <= 1.15
    assert 0.9 <= trees["observed_expected"][0] <= 1.1
    assert risk.mean() == pytest.approx(head.trees.reference_risk, abs=0.005)
