"""From a local validation to the hit rate on card and page: by the commands and over HTTP."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from cds_service.app import create_app
from cds_service.cli.studies import is_synthetic
from cds_service.errors import BadRequest, SetupError
from cds_service.service import open_database
from cds_service.settings import Settings
from models.package import Package, write_checksums
from models.registry import Registry, load_registry
from models.synthetic import GENERATORS
from models.synthetic.bulk import write_bulk_data
from tests.decided import bring_live, typed

NAME = "readmission-30d"
URL = f"/cds-services/{NAME}"
PATIENTS, SEED = 400, 77
Changed = Callable[[Mapping[str, Any]], dict[str, Any]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bulk Data of invented patients."""
    folder = tmp_path_factory.mktemp("bulk")
    write_bulk_data(GENERATORS[NAME], folder, patients=PATIENTS, seed=SEED, progress=lambda _: None)
    return folder


@pytest.fixture(scope="module")
def invented(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a validation on them."""
    out = tmp_path_factory.mktemp("report")
    settings = Settings(profile="demo", state_dir=out / "state")
    how = ("--model", NAME, "--data", data, "--out", out, "--bootstrap", "100")
    done = typed(settings, "validate", *how)
    assert done.exit_code == 0, done.output
    return out / "report.json"


@pytest.fixture
def measured(invented: Path, tmp_path: Path) -> Path:
    """The same report as if it were of patients."""
    said = json.loads(invented.read_bytes()) | {"synthetic_data": False}
    path = tmp_path / "measured.json"
    path.write_text(json.dumps(said), encoding="utf-8")
    return path


@pytest.fixture
def production(tmp_path: Path) -> Settings:
    """An installation whose bundled model is live, on record."""
    settings = Settings(
        profile="production",
        database_url=f"sqlite:///{tmp_path / 'production.db'}",
        allow_synthetic_models=True,
    )
    open_database(settings.model_copy(update={"profile": "demo"})).dispose()
    bring_live(settings)
    return settings


def recorded(settings: Settings, report: Path, model: str = NAME) -> dict[str, Any]:
    done = typed(
        settings, "models", "validated", model, "--report", report, "--who", "B. Holm", "--json"
    )
    assert done.exit_code == 0, done.exception
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def refused(settings: Settings, report: Path, *more: str) -> Exception:
    who = more or ("--who", "B. Holm")
    done = typed(settings, "models", "validated", NAME, "--report", report, *who)
    assert isinstance(done.exception, Exception), done.output
    return done.exception


def stand(settings: Settings) -> Any:
    (one,) = json.loads(typed(settings, "models", "state", NAME, "--json").stdout)
    return one


def models_checked(settings: Settings) -> str:
    findings = json.loads(typed(settings, "doctor", "--json").stdout)
    return str(next(f["says"] for f in findings if f["check"] == "models"))


def detail_of(client: TestClient, request: Mapping[str, Any], language: str = "da") -> str:
    answer = client.post(URL, json=request, headers={"Accept-Language": language})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["cards"][0]["detail"])


# ---- the report -----------------------------------------------------------------------------


def test_a_report_says_what_it_is_of(invented: Path, package: Package) -> None:
    """Files, outcome, threshold, period, and that the patients are invented."""
    said = json.loads(invented.read_bytes())
    assert said["model"]["checksum"] == package.checksum
    assert said["head"] == {"id": "readmission", "threshold": 0.2}
    assert said["synthetic_data"] is True
    assert said["first_index_time"] < said["last_index_time"]
    (ppv,) = (s for s in said["statistics"] if s["name"] == "ppv_at_0.2")
    assert ppv["value"] == ppv["events"] / ppv["n"]
    page = invented.with_name("report.html").read_text(encoding="utf-8")
    assert "the patients of these data are made up" in page


def test_data_are_known_as_invented_by_each_of_their_marks(data: Path, tmp_path: Path) -> None:
    """Whichever of the files somebody copied; and not without any."""
    patients, plain = data / "Patient.ndjson", tmp_path / "plain"
    for name in ("PROVENANCE.json", "manifest.json", "Patient.ndjson"):
        (tmp_path / name).mkdir()
        shutil.copy(data / name, tmp_path / name)
        assert is_synthetic(tmp_path / name)
    plain.mkdir()
    lines = patients.read_text(encoding="utf-8").replace("HTEST", "other")
    (plain / "Patient.ndjson").write_text(lines, encoding="utf-8")
    assert not is_synthetic(plain)
    (plain / "PROVENANCE.json").write_text("{", encoding="utf-8")
    with pytest.raises(SetupError, match=r"PROVENANCE\.json"):
        is_synthetic(plain)


# ---- demo -----------------------------------------------------------------------------------


def test_cards_state_the_hit_rate_once_it_is_on_record(
    settings: Settings, registry: Registry, invented: Path, changed: Changed
) -> None:
    """A running process follows within two seconds; in demo it says that the data are synthetic."""
    with TestClient(create_app(settings, registry)) as client:
        assert "ukendt her" in detail_of(client, changed({}))
        found = recorded(settings, invented)
        deadline = time.monotonic() + 2
        while "ukendt her" in (detail := detail_of(client, changed({}))):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        share = f"{round(100 * found['ppv'])} %"
        assert f"blev fulgt af hændelsen her: {share} (" in detail
        assert f" af {found['flagged']} kort, " in detail
        assert ", på SYNTETISKE data." in detail
        english = detail_of(client, changed({}), "en")
        assert f" of {found['flagged']} cards, " in english
        answer = client.post(URL, json=changed({})).json()["cards"][0]
        page = client.get(answer["links"][0]["url"])
        assert f" af {found['flagged']} kort, " in page.text
        shape = client.get(f"{answer['links'][0]['url']}.json").json()["heads"][0]["hit_rate"]
        assert shape == {
            "ppv": found["ppv"],
            "low": found["low"],
            "high": found["high"],
            "flagged": found["flagged"],
            "from": found["first_index_time"],
            "to": found["last_index_time"],
            "synthetic": True,
        }


# ---- production -----------------------------------------------------------------------------


def test_a_report_on_invented_patients_is_refused_outside_demo(
    production: Settings, invented: Path
) -> None:
    error = refused(production, invented)
    assert isinstance(error, BadRequest)
    assert "synthetic_data: invented patients" in str(error)
    assert stand(production)["hit_rates"] == []


def test_state_and_doctor_tell_it(production: Settings, measured: Path) -> None:
    """Who, when, of how many; every one there was."""
    assert "; hit rate unknown here: readmission-30d readmission" in models_checked(production)
    printed = typed(production, "models", "state", NAME).output
    assert "hit rate: unknown here: varsel models validated" in printed
    first, second = recorded(production, measured), recorded(production, measured)
    assert stand(production)["hit_rates"] == [first, second]
    printed = typed(production, "models", "state", NAME).output
    assert printed.count("B. Holm: hit rate of readmission from 0.2: ") == 2
    assert f" of {first['flagged']} cards, " in printed
    assert "; hit rate known here: readmission-30d readmission" in models_checked(production)


def test_after_the_files_changed_it_is_unknown_and_said_why(
    production: Settings, measured: Path, package: Package, tmp_path: Path
) -> None:
    """A report of the files before is refused too."""
    folder = tmp_path / "models" / NAME / "1.1.0"
    shutil.copytree(package.folder, folder)
    manifest = (folder / "manifest.toml").read_text(encoding="utf-8")
    manifest = manifest.replace('version = "1.0.0"', 'version = "1.1.0"')
    (folder / "manifest.toml").write_text(manifest, encoding="utf-8")
    write_checksums(folder)
    site = production.model_copy(update={"models_dir": tmp_path / "models"})
    model = f"{NAME}@1.1.0"
    said = json.loads(measured.read_bytes())
    (there,) = load_registry([folder], allow_synthetic=True).packages.values()
    said["model"] |= {"version": "1.1.0", "checksum": there.checksum}
    measured.write_text(json.dumps(said), encoding="utf-8")
    recorded(site, measured, model)
    (folder / "manifest.toml").write_text(f"{manifest}\n", encoding="utf-8")
    write_checksums(folder)
    printed = typed(site, "models", "state", model).output
    assert "; of other files: not stated" in printed
    done = typed(site, "models", "validated", model, "--report", measured, "--who", "B. Holm")
    assert "model.checksum: it is of other files" in str(done.exception)


def test_what_is_typed_wrongly_is_refused_by_name(production: Settings, tmp_path: Path) -> None:
    """No file, no report, nobody who vouches."""
    nowhere = refused(production, tmp_path / "nowhere.json")
    assert "nowhere.json: No such file" in str(nowhere)
    empty = tmp_path / "empty.json"
    empty.write_text("{}", encoding="utf-8")
    assert "`schema_version`" in str(refused(production, empty))
    nobody = refused(production, empty, "--who", " ")
    assert isinstance(nobody, BadRequest)
    assert stand(production)["hit_rates"] == []
