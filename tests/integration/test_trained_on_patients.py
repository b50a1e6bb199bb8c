"""A package trained on public data of real patients: few events, so a logistic head; served; and
no patient in it.

The 299 patients of tests/data/fifth-package become Bulk Data, `varsel models train` makes trees of
them and says what it prefers; the manifest is changed as it says, trained again, and the service
answers a hook with the result.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from cds_service.app import create_app
from cds_service.cli import app as command_line
from cds_service.settings import Settings
from models.cohort import build_cohort
from models.examples import read_example
from models.logistic import read_logistic
from models.package import load_package, read_table
from models.registry import admit
from tests.bench import outcomes
from tests.integration import outsider
from tests.integration.test_any_model import ask

NAME, HEAD = "hf299", "death"
FEWEST = 5


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The patients as Bulk Data."""
    folder = tmp_path_factory.mktemp("patients")
    outcomes.to_fhir(NAME, outsider.DATA / "hf299.csv", folder)
    return folder


def trained(data: Path, models: Path, kind: str) -> tuple[Path, str]:
    """A package trained by the command with the benchmark's manifest, a head of a kind, and few
    rounds; what was printed."""
    folder = models / NAME
    folder.mkdir(parents=True)
    text = (outcomes.MANIFESTS / NAME / "manifest.toml").read_text(encoding="utf-8")
    text = text.replace("rounds = 300", "rounds = 25").replace("rate = 0.04", "rate = 0.15")
    text = text.replace('id = "death"\n', f'id = "death"\nkind = "{kind}"\n')
    (folder / "manifest.toml").write_text(text, encoding="utf-8")
    command = ["models", "train", str(folder), "--data", str(data)]
    result = CliRunner().invoke(command_line, command)
    assert result.exit_code == 0, (result.output, result.exception)
    return folder, result.stdout


@pytest.fixture(scope="module")
def trees(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    return trained(data, tmp_path_factory.mktemp("trees"), "trees")


@pytest.fixture(scope="module")
def logistic(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, _ = trained(data, tmp_path_factory.mktemp("site") / "models", "logistic")
    return folder


def test_on_few_events_the_logistic_model_is_preferred_and_it_is_said_how(
    trees: tuple[Path, str],
) -> None:
    folder, printed = trees
    lines = printed.splitlines()
    assert (
        f"{HEAD}: the logistic model is preferred: on so few events the trees are not " in printed
    )
    assert f'{HEAD}: to serve it, say kind = "logistic" in heads.{HEAD} and train again' in lines
    assert "**Preferred: the logistic model**" in (folder / "MODEL_CARD.md").read_text()


def test_a_logistic_head_holds_coefficients_and_no_trees(logistic: Path) -> None:
    assert {p.name for p in (logistic / "heads" / HEAD).iterdir()} == {
        "logistic.json", "background.csv", "uncertainty.csv",
    }  # fmt: skip
    card = (logistic / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "penalised logistic regression" in card
    assert "| | Penalised logistic |" in card
    assert "gradient-boosted" not in card
    assert "rounds" not in card.partition("### ")[0]


def test_it_is_served_with_its_own_risk_explained(logistic: Path) -> None:
    """What the card shows is what the coefficients say of the values that came as FHIR."""
    room = logistic.parents[1]
    environment = {
        "VARSEL_PROFILE": "demo",
        "VARSEL_STATE_DIR": str(room),
        "VARSEL_MODELS_DIR": str(room / "models"),
    }
    for words in (["db", "upgrade"], *(
        ["models", "state", NAME, state, "--who", "a test", "--why", "to see"]
        for state in ("silent", "live")
    )):  # fmt: skip
        result = CliRunner().invoke(command_line, words, env=environment)
        assert result.exit_code == 0, (words, result.output, result.exception)
    settings = Settings(profile="demo", state_dir=room, models_dir=room / "models")
    with TestClient(create_app(settings)) as client:
        head = ask(client, NAME, outsider.heart_patient(0))["heads"][0]
    features = {f["name"]: f["value"] for c in head["contributions"] for f in c["features"]}
    model = read_logistic(logistic / "heads" / HEAD / "logistic.json")
    values = [np.nan if features[n] is None else features[n] for n in model.columns]
    assert head["risk"] == pytest.approx(model.risk_of(values), abs=1e-9)
    points = sum(category["points"] for category in head["contributions"])
    assert points == pytest.approx(100 * (head["risk"] - head["reference_risk"]), abs=1e-4)
    low, high = head["interval"]
    assert low <= head["risk"] <= high


@pytest.mark.parametrize("kind", ["trees", "logistic"])
def test_no_patient_is_in_the_package(
    kind: str, data: Path, trees: tuple[Path, str], logistic: Path
) -> None:
    """No record, no row one to four patients have, and no value one to four patients have."""
    folder = trees[0] if kind == "trees" else logistic
    package = load_package(folder)
    own = build_cohort(package, data).frame[package.columns].to_numpy(dtype=np.float64)
    told = {
        "reference.csv": read_table(folder / "reference.csv")[1],
        "background.csv": read_table(folder / "heads" / HEAD / "background.csv")[1],
        "examples": np.array([features_of(p) for p in sorted(folder.glob("examples/*.json"))]),
    }
    assert len(told["reference.csv"]) > 500
    for name, rows in told.items():
        for row in rows:
            same = (np.isclose(own, row, rtol=1e-5) | (np.isnan(own) & np.isnan(row))).all(axis=1)
            assert not 0 < same.sum() < FEWEST, name
    oldest = np.sort(own[:, package.columns.index("age")])
    assert max(rows[:, package.columns.index("age")].max() for rows in told.values()) < oldest[-2]
    assert "hf299-0" not in "".join(p.read_text() for p in folder.rglob("*.json"))
    assert "No patient's record and no patient's row" in (folder / "MODEL_CARD.md").read_text()


def features_of(path: Path) -> list[float]:
    """The values of an example that is nobody's record."""
    example = read_example(path)
    assert example.features is not None
    return [np.nan if value is None else value for value in example.features.values()]


def test_its_examples_replay_and_guard_the_model(logistic: Path, tmp_path: Path) -> None:
    """Four invented rows, at the model's entrance; another coefficient is another package."""
    assert admit(logistic, allow_synthetic=False).id == NAME
    folder = tmp_path / NAME
    shutil.copytree(logistic, folder)
    changed: Any = folder / "examples" / "01.json"
    changed.write_text(changed.read_text().replace('"features"', '"values"'))
    with pytest.raises(Exception, match=r"SHA256SUMS"):
        load_package(folder)


def test_the_background_keeps_the_mean_risk_of_the_patients(trees: tuple[Path, str]) -> None:
    """So that points still say how far a patient is from those the model was fitted on."""
    folder, _ = trees
    card = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    said = next(line for line in card.splitlines() if line.startswith("- **Compared with**"))
    of_background, of_patients = (
        float(word.split(" %")[0]) for word in said.replace("risk ", "have ").split("have ")[1:]
    )
    assert of_background == pytest.approx(of_patients, abs=0.11)
