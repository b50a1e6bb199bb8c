"""From Bulk Data to a comparison with published scores, by the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from cds_service.cli import app as command_line
from models.synthetic import GENERATORS
from models.synthetic.bulk import write_bulk_data

MODEL = "readmission-30d"
PATIENTS, SEED = 400, 77


def run(*typed: str) -> Any:
    done = CliRunner().invoke(command_line, [*typed, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bulk Data of made-up patients."""
    folder = tmp_path_factory.mktemp("bulk")
    write_bulk_data(
        GENERATORS[MODEL], folder, patients=PATIENTS, seed=SEED, progress=lambda _: None
    )
    return folder


def test_validation_compares_the_model_with_each_score_it_names(data: Path, tmp_path: Path) -> None:
    """LACE with its risk of readmission or death; HOSPITAL only where no cancer leaves it open."""
    typed = ("--model", MODEL, "--data", str(data), "--out", str(tmp_path), "--bootstrap", "100")
    report = run("validate", *typed)
    assert [(c["id"], c["risk_of"]) for c in report["comparisons"]] == [
        ("lace", "outcome-or-death"),
        ("hospital-2016", None),
        ("charlson", None),
    ]
    found = {one["name"]: one for one in report["statistics"]}
    assert found["share_with_lace"]["value"] == 1.0
    assert 0.5 < found["share_with_hospital-2016"]["value"] < 1.0
    assert found["auroc_of_hospital-2016"]["n"] == found["share_with_hospital-2016"]["events"]
    assert found["model_auroc_beside_lace"]["value"] == pytest.approx(found["auroc"]["value"])
    difference = found["auroc_difference_lace"]
    assert difference["low"] <= difference["value"] <= difference["high"]
    assert found["observed_expected_of_lace"]["value"] is not None


def test_a_built_cohort_carries_the_scores(data: Path, tmp_path: Path) -> None:
    """Points from 0 to 19 and the risk they stand for, beside the features in the Parquet file."""
    out = tmp_path / "cohort.parquet"
    run("cohort", "build", MODEL, str(data), "--out", str(out))
    frame = pd.read_parquet(out)
    assert frame["score:lace"].between(0, 19).all()
    assert frame["score-risk:lace"].between(0.02, 0.44).all()
    cancer = frame["score:hospital-2016"].isna()
    assert cancer.any()
    assert frame["score:charlson"].notna().all()
