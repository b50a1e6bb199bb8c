"""A model from elsewhere is served by the service as it is: no code, a manifest and a few files.

Somebody who knows nothing of Varsel trains a booster, a logistic model and a booster of three
classes on public data (`outsider`). `varsel models init` and `seal` make packages of them in a
folder of the site; the manifests are those a person would write. Then hooks with FHIR resources are
posted, and what comes back is held against the models' own output.
"""

from __future__ import annotations

import json
import pickle
import re
import shutil
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost as xgb
from fastapi.testclient import TestClient
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from typer.testing import CliRunner, Result

from cds_service.app import create_app
from cds_service.cli import app as command_line
from cds_service.settings import Settings
from models.errors import PackageRefused, ServedOnly
from models.package import load_package, write_checksums
from models.registry import admit
from tests.integration import outsider
from tests.logged import WHOLE_ROWS

ROOT = Path(__file__).parents[2]
TREES, LOGISTIC, RANKING = "fifth-trees", "fifth-logistic", "fifth-ranking"
HEART_PLACES, STAY_PLACES = (0, 3, 10, 57, 200), (0, 1, 5, 77, 400)
"""Rows of the data sets whose patients are asked about; the first three make worked examples."""

Site = tuple[Path, dict[str, str]]


def varsel(environment: dict[str, str], *words: str) -> Result:
    """The command with some words, in this process."""
    return CliRunner().invoke(command_line, list(words), env=environment)


def done(environment: dict[str, str], *words: str) -> str:
    """The output of a command that must succeed."""
    result = varsel(environment, *words)
    assert result.exit_code == 0, (words, result.output, result.exception)
    return result.output


def settings_for(room: Path) -> dict[str, str]:
    """The environment of a site whose state and models lie in a folder, in the demo profile."""
    return {
        "VARSEL_PROFILE": "demo",
        "VARSEL_STATE_DIR": str(room),
        "VARSEL_MODELS_DIR": str(room / "models"),
    }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A folder of the site with three sealed packages, and the environment that names it."""
    room = tmp_path_factory.mktemp("site")
    models = room / "models"
    environment = settings_for(room)
    outsider.tree_model().save_model(room / "trees.json")
    outsider.ranking_model().save_model(room / "ranking.ubj")
    done(environment, "models", "init", str(room / "trees.json"), str(models / TREES))
    done(environment, "models", "init", str(room / "ranking.ubj"), str(models / RANKING))
    head = models / LOGISTIC / "heads" / "outcome"
    head.mkdir(parents=True)
    (head / "logistic.json").write_text(outsider.logistic_model()[0], encoding="utf-8")
    for name in (TREES, LOGISTIC):
        _sealed(room, environment, name, columns=outsider.HEART, table=outsider.heart()[0])
    _sealed(room, environment, RANKING, columns=outsider.STAYS, table=outsider.stays()[0])
    return models, environment


def _sealed(
    room: Path,
    environment: dict[str, str],
    name: str,
    *,
    columns: list[str],
    table: outsider.Floats,
) -> None:
    """A package with its decided manifest, sealed with rows and patients of the data set."""
    shutil.copy(outsider.DATA / f"{name}.toml", room / "models" / name / "manifest.toml")
    bundles = room / f"bundles-{name}"
    bundles.mkdir()
    patient, places = (
        (outsider.stay_patient, STAY_PLACES) if name == RANKING
        else (outsider.heart_patient, HEART_PLACES)
    )  # fmt: skip
    for place in places[:3]:
        (bundles / f"{place:03}.json").write_bytes(outsider.bundle_of(patient(place)))
    rows = outsider.write_rows(room / f"{name}.csv", columns, table)
    folder = room / "models" / name
    out = done(
        environment, "models", "seal", str(folder), "--background", str(rows), "--examples",
        str(bundles),
    )  # fmt: skip
    assert f"{name}: admitted, 3 examples replayed" in out


@pytest.fixture(scope="module")
def client(site: Site) -> Iterator[TestClient]:
    """The service over the site's folder, the three taken live by somebody."""
    models, environment = site
    done(environment, "db", "upgrade")
    for name in (TREES, LOGISTIC, RANKING):
        for state in ("silent", "live"):
            done(environment, "models", "state", name, state, "--who", "a test", "--why", "to see")
    settings = Settings(profile="demo", state_dir=models.parent, models_dir=models)
    with TestClient(create_app(settings), raise_server_exceptions=False) as running:
        yield running


def ask(
    client: TestClient, service: str, resources: list[dict[str, Any]], language: str = "da"
) -> dict[str, Any]:
    """The logged prediction of a hook call with a patient's resources, its cards among it."""
    found = next(s for s in client.get("/cds-services").json()["services"] if s["id"] == service)
    patient = next(r for r in resources if r["resourceType"] == "Patient")
    kinds = {
        "conditions": "Condition", "laboratory": "Observation", "encounters": "Encounter",
        "procedures": "Procedure", "medications": "MedicationRequest",
    }  # fmt: skip
    prefetch: dict[str, Any] = {
        key: outsider.searchset(resources, kinds[key]) for key in found["prefetch"] if key in kinds
    }
    context = {"userId": "Practitioner/1", "patientId": patient["id"]}
    if found["hook"] == "encounter-discharge":
        stay = [r for r in resources if r["resourceType"] == "Encounter"][-1]
        context["encounterId"] = stay["id"]
    body = {
        "hook": found["hook"],
        "hookInstance": str(uuid.uuid4()),
        "context": context,
        "prefetch": prefetch | {"patient": patient},
        "extension": {"dk.varsel.as-of": "latest"},
    }
    headers = {"Accept-Language": language}
    answer = client.post(f"/cds-services/{service}", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    cards = answer.json()["cards"]
    link = next(link["url"] for card in cards for link in card["links"])
    prediction: dict[str, Any] = client.get(f"{link}.json").json()
    assert prediction["cards"] == cards
    return prediction | {"page": client.get(link).text}


# ---- trees ----------------------------------------------------------------------------------


def test_discovery_offers_the_models_of_the_site_beside_the_bundled_ones(
    client: TestClient,
) -> None:
    """Under their own titles, in the language asked for."""
    services = {s["id"]: s for s in client.get("/cds-services").json()["services"]}
    assert {TREES, LOGISTIC, RANKING, "readmission-30d"} <= set(services)
    assert services[TREES]["hook"] == "patient-view"
    assert services[RANKING]["hook"] == "encounter-discharge"


@pytest.mark.parametrize("place", HEART_PLACES)
def test_the_risk_is_the_booster_s_own_for_what_came_as_fhir(
    client: TestClient, place: int
) -> None:
    """Creatinine and platelets come in Danish units and are scaled into those it was trained in."""
    head = ask(client, TREES, outsider.heart_patient(place))["heads"][0]
    values = {f["name"]: f["value"] for c in head["contributions"] for f in c["features"]}
    row = outsider.rows_of("hf299")[place]
    wanted = np.array([[float(row[name]) for name in outsider.HEART]])
    assert [values[name] for name in outsider.HEART] == pytest.approx(wanted[0], rel=1e-9)
    assert head["risk"] == outsider.tree_model().inplace_predict(wanted)[0]
    points = sum(c["points"] for c in head["contributions"])
    assert points == pytest.approx(100 * (head["risk"] - head["reference_risk"]), abs=1e-4)
    assert head["baseline_risk"] is None
    assert head["interval"] is None


def test_card_and_page_show_it_as_they_show_any_other(client: TestClient) -> None:
    prediction = ask(client, TREES, outsider.heart_patient(0))
    (card,) = prediction["cards"]
    assert card["summary"].startswith("Død under opfølgning: ")
    assert "Bidrog opad" in card["detail"]
    assert "uddrivningsfraktion 20 %" in card["detail"]
    assert "Den enklere logistiske model" not in prediction["page"]
    assert "Uddrivningsfraktion" in prediction["page"]


def test_the_call_is_in_the_log(client: TestClient, site: Site) -> None:
    """With the checksum of the package that answered, and the values it saw."""
    prediction = ask(client, TREES, outsider.heart_patient(3))
    with closing(sqlite3.connect(site[0].parent / "varsel.db")) as connection:
        connection.row_factory = sqlite3.Row
        (row,) = connection.execute(
            f"{WHOLE_ROWS} WHERE p.prediction_id = ?", [prediction["prediction_id"]]
        ).fetchall()
    assert row["package_checksum"] == load_package(site[0] / TREES).checksum
    assert row["status"] == "scored"
    assert "Observation/" not in row["document"]
    assert "Observation/" in json.dumps(prediction["heads"])


# ---- logistic -------------------------------------------------------------------------------


@pytest.mark.parametrize("place", HEART_PLACES)
def test_a_logistic_model_is_a_head_like_any_other(client: TestClient, place: int) -> None:
    """Its risk is scikit-learn's, and its points add up."""
    head = ask(client, LOGISTIC, outsider.heart_patient(place))["heads"][0]
    text, _ = outsider.logistic_model()
    model = json.loads(text)
    row = outsider.rows_of("hf299")[place]
    scaled = (np.array([float(row[n]) for n in outsider.HEART]) - model["mean"]) / model["sd"]
    risk = 1 / (1 + np.exp(-(scaled @ np.array(model["weight"]) + model["intercept"])))
    assert head["risk"] == pytest.approx(risk, abs=1e-9)
    points = sum(c["points"] for c in head["contributions"])
    assert points == pytest.approx(100 * (head["risk"] - head["reference_risk"]), abs=1e-4)


# ---- several classes ------------------------------------------------------------------------


@pytest.mark.parametrize("place", STAY_PLACES)
def test_a_ranking_holds_every_class_s_own_probability(client: TestClient, place: int) -> None:
    """By falling probability, together 1; no points and no sums anywhere."""
    prediction = ask(client, RANKING, outsider.stay_patient(place))
    (ranking,) = prediction["rankings"]
    row = outsider.stays()[0][place : place + 1]
    wanted = outsider.ranking_model().inplace_predict(row)[0]
    found = {one["id"]: one["probability"] for one in ranking["classes"]}
    assert [found[name] for name in ("none", "later", "early")] == [float(p) for p in wanted]
    shares = [one["probability"] for one in ranking["classes"]]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1.0, abs=1e-6)
    assert prediction["heads"] == []
    assert '"points"' not in json.dumps(ranking)
    schema = json.loads((ROOT / "openapi" / "prediction.schema.json").read_text(encoding="utf-8"))
    prediction.pop("page")
    Draft202012Validator(schema).validate(prediction)


def test_its_card_ranks_and_gives_reasons_in_words(client: TestClient) -> None:
    """In Danish; for information only."""
    prediction = ask(client, RANKING, outsider.stay_patient(1))
    (card,) = prediction["cards"]
    assert card["indicator"] == "info"
    assert card["summary"].startswith("Efter udskrivelsen. Mest sandsynligt: ")
    assert ", derefter " in card["summary"]
    for said in ("Taler for »", "Sandsynlighed", "Øvrige", "ikke et råd", "ikke årsager"):
        assert said in card["detail"]
    assert "%-point" not in card["detail"]
    assert "Mulighed" in prediction["page"]
    assert "Encounter/" in prediction["page"]


def test_its_card_speaks_english_too(client: TestClient) -> None:
    (card,) = ask(client, RANKING, outsider.stay_patient(1), "en")["cards"]
    assert card["summary"].startswith("After discharge. Most likely: ")
    assert "Speaks for " in card["detail"]
    assert "no advice" in card["detail"]


def test_the_terminal_ranks_as_the_card_does(site: Site, tmp_path: Path) -> None:
    bundle = tmp_path / "patient.json"
    bundle.write_bytes(outsider.bundle_of(outsider.stay_patient(1)))
    words = ("score", str(bundle), "--model", RANKING, "--as-of", "latest", "--language", "en")
    out = done(site[1], *words)
    assert "Most likely: " in out
    assert "speaks for: " in out
    (prediction,) = json.loads(done(site[1], *words, "--json"))
    assert [len(r["classes"]) for r in prediction["rankings"]] == [3]


@pytest.mark.parametrize("name", [LOGISTIC, RANKING, TREES])
def test_what_it_said_is_computed_again_from_the_log(
    client: TestClient, site: Site, name: str
) -> None:
    """To the last bit, its card as text: whatever kind of model it is."""
    patient = outsider.stay_patient(1) if name == RANKING else outsider.heart_patient(0)
    said = ask(client, name, patient)
    replayed = json.loads(done(site[1], "replay", said["prediction_id"], "--json"))
    assert (replayed["equal"], replayed["differences"]) == (True, [])


# ---- refused by name ------------------------------------------------------------------------


def test_a_skeleton_is_refused_until_a_person_has_decided(tmp_path: Path) -> None:
    """Every field left to a person is named; nothing of it passes by itself."""
    outsider.ranking_model().save_model(tmp_path / "any.ubj")
    folder = tmp_path / "models" / "any-model"
    told = done({}, "models", "init", str(tmp_path / "any.ubj"), str(folder))
    assert "a ranking of 3 classes, 9 features, 30 rounds" in told
    (result,) = json.loads(varsel({}, "models", "check", str(folder), "--json").output)
    assert not result["admitted"]
    assert result["fault"].startswith("manifest.toml: version is not decided yet (DECIDE …), and ")
    again = varsel({}, "models", "init", str(tmp_path / "any.ubj"), str(folder))
    assert "not overwritten" in str(again.exception)


def test_a_booster_of_other_features_is_refused_and_the_others_keep_serving(
    site: Site, tmp_path: Path
) -> None:
    """Readiness names the file, the field and the reason; another package answers all the same."""
    models = tmp_path / "models"
    shutil.copytree(site[0], models)
    rows, died = outsider.heart()
    other = xgb.DMatrix(rows, died, feature_names=[*outsider.HEART[:-1], "shoe_size"])
    booster = xgb.train({"objective": "binary:logistic", "nthread": 1}, other, num_boost_round=3)
    (models / TREES / "heads" / "outcome" / "booster.ubj").write_bytes(
        bytes(booster.save_raw("ubj"))
    )
    write_checksums(models / TREES)
    environment = settings_for(tmp_path)
    checked = (
        varsel(environment, "models", "check", str(models / name), "--json")
        for name in (TREES, LOGISTIC)
    )
    results = [result for check in checked for result in json.loads(check.output)]
    faults = {result["id"]: result.get("fault") for result in results}
    assert faults[TREES] == (
        "unreadable: heads/outcome/booster.ubj: feature_names: number 8 is 'shoe_size', where the "
        "manifest has 'platelet'"
    )
    assert faults[LOGISTIC] is None
    settings = Settings(profile="demo", state_dir=tmp_path, models_dir=models)
    with TestClient(create_app(settings)) as running:
        assert "shoe_size" in running.get("/readyz").text
        offered = {s["id"] for s in running.get("/cds-services").json()["services"]}
    assert "readmission-30d" in offered
    assert TREES not in offered


# What is wrong, in which package; where it is changed; and how the refusal must name it.
Fault = Callable[[Path], object]


def in_manifest(old: str, new: str) -> Fault:
    """The first `old` of the manifest becomes `new`."""

    def fault(folder: Path) -> None:
        text = (folder / "manifest.toml").read_text(encoding="utf-8")
        assert old in text
        (folder / "manifest.toml").write_text(text.replace(old, new, 1), encoding="utf-8")

    return fault


def in_json(name: str, **fields: object) -> Fault:
    """Other fields of a JSON file."""

    def fault(folder: Path) -> None:
        words = json.loads((folder / name).read_text(encoding="utf-8"))
        (folder / name).write_text(json.dumps(words | fields), encoding="utf-8")

    return fault


def booster_of(make: Callable[[], xgb.Booster], head: str) -> Fault:
    """Another booster in a head."""
    path = f"heads/{head}/booster.ubj"
    return lambda folder: (folder / path).write_bytes(bytes(make().save_raw("ubj")))


def written(name: str, content: bytes) -> Fault:
    """A file of other bytes, or one more file."""
    return lambda folder: (folder / name).write_bytes(content)


def without(name: str) -> Fault:
    """A file taken away."""
    return lambda folder: (folder / name).unlink()


def other_probability(folder: Path) -> None:
    """A worked example that expects a class to be a little more probable."""
    path = folder / "examples" / "01.json"
    example = json.loads(path.read_text(encoding="utf-8"))
    example["rankings"]["ranking"]["none"]["probability"] += 2e-6
    path.write_text(json.dumps(example), encoding="utf-8")


def other_weight(folder: Path) -> None:
    """A worked example that expects a feature to weigh otherwise."""
    path = folder / "examples" / "02.json"
    example = json.loads(path.read_text(encoding="utf-8"))
    example["rankings"]["ranking"]["early"]["weights"]["age"] += 2e-6
    path.write_text(json.dumps(example), encoding="utf-8")


RANKED_BY, BOOSTER, COEFFICIENTS = "heads/ranking", "heads/outcome/booster.ubj", "logistic.json"
FAULTS: dict[str, tuple[str, Fault, str]] = {
    "unknown field": (TREES, in_manifest("says =", "tells ="), "unknown field `tells`"),
    "unknown recipe": (TREES, in_manifest('"scaled"', '"scale"'), "no recipe is called 'scale'"),
    "unknown concept": (
        TREES,
        in_manifest('of = ["lvef"]', 'of = ["lvf"]'),
        "no concept is called 'lvf'",
    ),
    "unknown category": (
        TREES,
        in_manifest('category = "heart"', 'category = "hart"'),
        "features.ejection_fraction.category is not listed",
    ),
    "no factor": (TREES, in_manifest("factor = 0.011312\n", ""), "the recipe scaled needs factor"),
    "a word left to decide": (
        TREES,
        in_manifest('says = { da = "dør', 'says = { da = "DECIDE dør'),
        "manifest.toml: heads.outcome.says.da is not decided yet",
    ),
    "an id that is a path": (
        TREES,
        in_manifest('id = "outcome"', 'id = "../../outcome"'),
        "cannot name a folder",
    ),
    "another column": (
        TREES,
        in_manifest('name = "sex"', 'name = "male"'),
        (
            "heads/outcome/background.csv: its columns are not the manifest's: number 2 is 'sex', "
            "where the manifest has 'male'"
        ),
    ),
    "several classes for a risk": (
        TREES,
        booster_of(outsider.ranking_model, "outcome"),
        f"{BOOSTER}: objective: multi:softprob, where it must be binary:logistic",
    ),
    "a pickle in place of a booster": (
        TREES,
        written(BOOSTER, pickle.dumps({"a": 1})),
        f"{BOOSTER}: neither UBJSON nor JSON",
    ),
    "a pickle beside the booster": (
        TREES,
        written("heads/outcome/model.pkl", b"\x80"),
        "model.pkl is of a kind no package",
    ),
    "no booster": (TREES, without(BOOSTER), f"{BOOSTER}: No such file"),
    "another checksum": (TREES, written("MODEL_CARD.md", b"# Better"), "MODEL_CARD.md is not what"),
    "background of other columns": (
        TREES,
        written("heads/outcome/background.csv", b"age,sex\n1,2\n"),
        "heads/outcome/background.csv: its columns are not the manifest's",
    ),
    "no coefficients": (LOGISTIC, without(f"heads/outcome/{COEFFICIENTS}"), "No such file"),
    "trees that are said to be logistic": (
        TREES,
        in_manifest('id = "outcome"', 'id = "outcome"\nkind = "logistic"'),
        "heads/outcome/logistic.json: No such file",
    ),
    "a kind there is not": (
        TREES,
        in_manifest('id = "outcome"', 'id = "outcome"\nkind = "neural"'),
        "Invalid enum value 'neural' - at `$.heads[0].kind`",
    ),
    "one weight too few": (
        LOGISTIC,
        in_json(f"heads/outcome/{COEFFICIENTS}", weight=[1.0]),
        "heads/outcome/logistic.json: weight: not one number for each column",
    ),
    "another weight": (
        LOGISTIC,
        in_json(f"heads/outcome/{COEFFICIENTS}", intercept=0.0),
        "01.json: replays",
    ),
    "one class fewer": (
        RANKING,
        in_manifest('[[rankings.classes]]\nid = "none"', '[[rankings.classes]]\nid = "later"'),
        "rankings.ranking.classes: two of one id",
    ),
    "one class more": (
        RANKING,
        in_manifest(
            "[[rankings.classes]]",
            '[[rankings.classes]]\nid = "dead"\nlabel = { da = "død", en = "dead" }\n'
            "[[rankings.classes]]",
        ),
        f"{RANKED_BY}/booster.ubj: num_class: 3, where the manifest names 4 classes",
    ),
    "one risk for several classes": (
        RANKING,
        booster_of(outsider.tree_model, "ranking"),
        f"{RANKED_BY}/booster.ubj: objective: binary:logistic, where it must be multi:softprob",
    ),
    "more shown than there are": (
        RANKING,
        in_manifest("shown = 2", "shown = 4"),
        "rankings.ranking.shown must be 1 to 3",
    ),
    "a card from beyond 1": (
        RANKING,
        in_manifest("card_from = 0.34", "card_from = 34"),
        "card_from must lie between",
    ),
    "another probability": (RANKING, other_probability, "01.json: replays 2.0e-06 away"),
    "another reason": (RANKING, other_weight, "02.json: replays 2.0e-06 away"),
}


@pytest.mark.parametrize("kind", sorted(FAULTS))
def test_what_does_not_hold_is_refused_with_the_file_the_field_and_the_reason(
    site: Site, tmp_path: Path, kind: str
) -> None:
    """The table of docs/packages.md; the checksums hold again after the change, but for one."""
    name, fault, said = FAULTS[kind]
    folder = Path(shutil.copytree(site[0] / name, tmp_path / name))
    fault(folder)
    if kind != "another checksum":
        write_checksums(folder)
    with pytest.raises(PackageRefused, match=re.escape(said)):
        admit(folder, allow_synthetic=False)


def test_a_model_without_a_rule_is_served_and_not_judged(site: Site) -> None:
    """Asked what counts as its outcome, or for its trees, it names the field that is not there."""
    package = load_package(site[0] / LOGISTIC)
    with pytest.raises(ServedOnly, match=r"heads\.outcome\.rule is not there"):
        _ = package.wanted_later
    with pytest.raises(ServedOnly, match=r"heads\.outcome\.kind"):
        _ = package.heads[0].trees
    with pytest.raises(ServedOnly, match=r"heads/outcome/baseline\.json"):
        _ = package.heads[0].baseline
    card = (package.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "nothing about it was measured here" in card
    assert "cannot be validated until `rule`" in card
