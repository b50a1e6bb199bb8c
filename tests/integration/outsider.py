"""Models made by somebody who knows nothing of Varsel, and their patients as FHIR.

Two public data sets (tests/data/fifth-package) are read as anybody would, fitted with XGBoost's own
interface or with scikit-learn in the data sets' own units, and saved. `patients` says of the same
rows what a hospital would send. Called by `test_any_model`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from tests.bench import outcomes_hf299
from tests.bench.outcomes_fhir import ATC, Record, born, first_morning

DATA = Path(__file__).parents[1] / "data" / "fifth-package"
Floats = NDArray[np.float64]
Row = Mapping[str, str]

HEART = [
    "age", "sex", "diabetes", "smoking", "ejection_fraction", "serum_creatinine", "serum_sodium",
    "platelet",
]  # fmt: skip
STAYS = [
    "age", "male", "time_in_hospital", "num_procedures", "num_medications", "insulin",
    "number_outpatient", "number_emergency", "number_inpatient",
]  # fmt: skip
CLASSES = ["NO", ">30", "<30"]
CONTACTS = (("number_inpatient", "IMP", 20), ("number_emergency", "EMER", 2),
            ("number_outpatient", "AMB", 1))  # fmt: skip


@cache
def rows_of(name: str) -> list[Row]:
    """The rows of a data set."""
    with (DATA / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@cache
def heart() -> tuple[Floats, Floats]:
    """The columns of hf299 in its own units, with a gap here and there, and who died."""
    table = np.array([[float(row[name]) for name in HEART] for row in rows_of("hf299")])
    died = np.array([float(row["DEATH_EVENT"]) for row in rows_of("hf299")])
    table[np.random.default_rng(1).random(table.shape) < 0.05] = np.nan
    return table, died


@cache
def stays() -> tuple[Floats, Floats]:
    """The columns of diabetes130, and the class of what followed."""
    table = np.array([[_stay_value(row, name) for name in STAYS] for row in rows_of("diabetes130")])
    return table, np.array([CLASSES.index(row["readmitted"]) for row in rows_of("diabetes130")])


def _stay_value(row: Row, name: str) -> float:
    if name == "age":
        return float(row["age"].strip("[)").split("-")[0]) + 5
    if name == "male":
        return float(row["gender"] == "Male")
    return float(row["insulin"] != "No") if name == "insulin" else float(row[name])


# ---- models ---------------------------------------------------------------------------------


def tree_model(**parameters: object) -> xgb.Booster:
    """Boosted trees of death in hf299; more parameters may be given."""
    rows, died = heart()
    words = {"objective": "binary:logistic", "max_depth": 3, "eta": 0.1, "nthread": 1, "seed": 1}
    named = xgb.DMatrix(rows, died, feature_names=HEART)
    return xgb.train(words | parameters, named, num_boost_round=40)


def ranking_model() -> xgb.Booster:
    """Boosted trees of what follows a stay, three classes."""
    rows, followed = stays()
    words = {"objective": "multi:softprob", "num_class": 3, "max_depth": 3, "eta": 0.2,
             "nthread": 1, "seed": 1}  # fmt: skip
    named = xgb.DMatrix(rows, followed, feature_names=STAYS)
    return xgb.train(words, named, num_boost_round=30)


@cache
def logistic_model() -> tuple[str, Floats]:
    """A logistic model of death in hf299 as the text of `logistic.json`; and its risks."""
    rows, died = heart()
    median = np.nanmedian(rows, axis=0)
    filled = np.where(np.isnan(rows), median, rows)
    mean, sd = filled.mean(axis=0), filled.std(axis=0)
    fitted = LogisticRegression(C=0.5).fit((filled - mean) / sd, died)
    text = json.dumps(
        {
            "columns": HEART,
            "median": median.tolist(),
            "mean": mean.tolist(),
            "sd": sd.tolist(),
            "weight": fitted.coef_[0].tolist(),
            "intercept": float(fitted.intercept_[0]),
        }
    )
    return text, fitted.predict_proba((filled - mean) / sd)[:, 1]


def write_rows(path: Path, columns: Sequence[str], table: Floats) -> Path:
    """A CSV file of rows, a missing value an empty cell."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([["" if np.isnan(v) else repr(float(v)) for v in row] for row in table])
    return path


# ---- patients -------------------------------------------------------------------------------


def heart_patient(place: int) -> list[dict[str, Any]]:
    """The resources of the patient of a row of hf299."""
    row = rows_of("hf299")[place]
    record = next(outcomes_hf299.records([{**row, "DEATH_EVENT": "0"}]))
    return record.resources


def stay_patient(place: int) -> list[dict[str, Any]]:
    """The resources of the patient of a row of diabetes130, known at discharge."""
    row = rows_of("diabetes130")[place]
    record = Record(f"d130-{place}")
    admitted = first_morning(record.patient_id) + timedelta(days=365)
    discharged = admitted + timedelta(days=int(row["time_in_hospital"]))
    age = _stay_value(row, "age")
    record.patient(gender=row["gender"].lower(), birth_date=born(admitted, age + 0.5))
    contacts = [
        (kind, hours) for name, kind, hours in CONTACTS for _ in range(int(row[name]))
    ]  # fmt: skip
    for number, (kind, hours) in enumerate(contacts, 1):
        start = admitted - timedelta(days=365) * number / (len(contacts) + 1)
        record.encounter(kind, start, start + timedelta(hours=hours))
    record.encounter("IMP", admitted, discharged, priority="EM")
    at = admitted + timedelta(hours=1)
    for number in range(int(row["num_procedures"])):
        record.procedure(at, ("http://example.org/procedure", str(number)))
    insulin = row["insulin"] != "No"
    for number in range(int(row["num_medications"]) - insulin):
        record.medicine(at, ("http://example.org/drug", str(number)))
    if insulin:
        record.medicine(at, (ATC, "A10A"))
    return record.resources


def bundle_of(resources: list[dict[str, Any]]) -> bytes:
    """A Bundle of some resources."""
    entries = [{"resource": resource} for resource in resources]
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": entries}
    return json.dumps(bundle).encode()


def searchset(resources: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """What a search for a type of resource answers."""
    entries = [{"resource": r} for r in resources if r["resourceType"] == kind]
    return {"resourceType": "Bundle", "type": "searchset", "total": len(entries), "entry": entries}
