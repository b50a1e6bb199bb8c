"""The gates of the telemonitoring and surgery packages: each head on an independent cohort.

At least 100,000 rows and 2,000 distinct patients' events, drawn with a seed no training uses,
written as FHIR and read through the path that serves. AUROC inside the published interval on both
sides, slope 0.85 to 1.15, observed over expected 0.9 to 1.1; where the generator knows the true
risk, not above that oracle by more than 0.005. Run by `make test-all`; three to eight minutes each.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from fhir_adapters.decode import Gathered, decode_lines
from models.cohort import Cohort, cohort_of
from models.package import Head, Package, load_package
from models.registry import BUNDLED
from models.synthetic import GENERATORS
from models.training import known_outcomes
from validation.analysis import validate

LEAST_ROWS, LEAST_EVENTS = 100_000, 2_000
ORACLE_MARGIN = 0.005


@dataclass(frozen=True, slots=True)
class Gate:
    """How many patients to draw with which seed, and each head's published AUROC interval."""

    model: str
    patients: int
    seed: int
    intervals: dict[str, tuple[float, float]]


GATES = (
    Gate("copd-deterioration", 3_000, 20_270_101, {"deterioration": (0.65, 0.74)}),
    Gate("hf-deterioration", 6_200, 20_270_101, {"deterioration": (0.67, 0.80)}),
    Gate(
        "crc-surgery",
        130_000,
        20_270_101,
        {
            "mort90": (0.82, 0.88),
            "compl30": (0.62, 0.70),
            "leak30": (0.55, 0.65),
            "reop30": (0.58, 0.68),
            "readm30": (0.60, 0.68),
        },
    ),
)
"""Patients as many as 2,000 distinct events of the rarest head take. Published intervals: COPD and
heart failure with weekly measurements (Orchard 2018, myCOPD 2022, PEARL's kin), colorectal surgery
(Bräuner 2024; models of leaks and complications 0.55 to 0.70); 0.58 to 0.68 for reoperation is an
engineering choice between leak and complication."""


def draw(package: Package, gate: Gate) -> tuple[Cohort, pd.DataFrame]:
    """The cohort of freshly drawn patients, and the rows of the truth, patient by patient."""
    generator = GENERATORS[gate.model]
    truth: list[tuple[str, ...]] = []

    def stream() -> Iterator[tuple[str, Gathered]]:
        for patient in generator.draw(gate.seed, gate.patients):
            truth.extend((patient.patient_id, *row) for row in patient.truth)
            yield patient.patient_id, decode_lines([line for _, line in patient.resources])

    until = generator.data_end.timestamp()
    cohort = cohort_of(package, stream(), until, total=gate.patients)
    return cohort, pd.DataFrame(truth, columns=["patient", *generator.truth_fields])


def distinct_events(rows: pd.DataFrame) -> int:
    """How many events there were: several sets may come before the same one."""
    events = rows[rows["state"] == "event"]
    at = events["index_time"] + pd.to_timedelta(events["days"], unit="D")
    return len(set(zip(events["patient"], at.dt.round("min"), strict=True)))


def figures(head: Head, rows: pd.DataFrame, columns: list[str]) -> dict[str, float]:
    """The trees' AUROC, calibration and rows, and the AUROC of the logistic model beside them."""
    matrix = rows[columns].to_numpy(dtype=np.float64)
    asked = rows[["patient", "index_time", "state"]].assign(risk=head.trees.risk(matrix))
    found = validate(asked, thresholds=[], excluded={}, bootstrap=100, seed=1)
    named = {s.name: s.value for s in found.statistics if s.value is not None}
    event = (rows["state"] == "event").to_numpy()
    return {
        "rows": len(rows),
        "distinct_events": distinct_events(rows),
        "auroc": named["auroc"],
        "slope": named["calibration_slope"],
        "observed_expected": named["observed_expected"],
        "logistic_auroc": float(roc_auc_score(event, head.baseline.risk(matrix))),
    }


def oracle_auroc(rows: pd.DataFrame, truth: pd.DataFrame, head: str) -> float | None:
    """The AUROC of the true risk on the same rows; None where the generator knows none."""
    if f"risk_{head}" not in truth:
        return None
    known = truth.set_index("patient")[f"risk_{head}"]
    risk = pd.to_numeric(rows["patient"].map(known))
    return float(roc_auc_score(rows["state"] == "event", risk))


@pytest.mark.slow
@pytest.mark.parametrize("gate", GATES, ids=lambda gate: gate.model)
def test_every_head_passes_its_gate_on_an_independent_cohort(gate: Gate) -> None:
    """In the published range on both sides, calibrated, and not better than the truth."""
    package = load_package(BUNDLED / gate.model)
    cohort, truth = draw(package, gate)
    report = {}
    for head in package.heads:
        rows = known_outcomes(cohort.of_head(head.id))
        report[head.id] = figures(head, rows, package.columns)
        oracle = oracle_auroc(rows, truth, head.id)
        if oracle is not None:
            report[head.id]["oracle_auroc"] = oracle
    print(json.dumps({"model": gate.model, "excluded": cohort.excluded, "heads": report}, indent=1))

    assert set(report) == set(gate.intervals)
    assert len(cohort.frame) >= LEAST_ROWS
    for name, found in report.items():
        low, high = gate.intervals[name]
        assert found["distinct_events"] >= LEAST_EVENTS, name
        assert low <= found["auroc"] <= high, name
        assert 0.85 <= found["slope"] <= 1.15, name
        assert 0.9 <= found["observed_expected"] <= 1.1, name
        assert found["auroc"] <= found.get("oracle_auroc", 1.0) + ORACLE_MARGIN, name
