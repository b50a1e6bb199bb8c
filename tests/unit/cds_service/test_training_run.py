"""A training run from Bulk Data to a package: what it writes, refuses, keeps, and says on the card.

One small synthetic cohort is trained on once; every test looks at what came of it.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec
import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from cds_service.app import create_app
from cds_service.cards import say_uncertainty, shown_interval
from cds_service.cli import app
from cds_service.errors import SetupError
from cds_service.findings import Setting
from cds_service.settings import Settings
from cds_service.terminal import terminal_card
from cds_service.training.card import model_card
from cds_service.training.examples import bundle_of, write_examples
from cds_service.training.figures import (
    auroc_difference,
    groups_unknown,
    log_loss,
    subgroups,
    uncalibrated,
)
from cds_service.training.run import train_package
from fhir_adapters.bulk import index_bulk_data
from fhir_adapters.clock import COPENHAGEN
from models.cohort import Cohort, build_cohort
from models.errors import TrainingRefused
from models.examples import replay_examples
from models.manifest import Search
from models.package import Package
from models.prediction import Prediction
from models.registry import BUNDLED, Registry, admit
from models.synthetic.bulk import write_bulk_data
from models.synthetic.charts import READMISSION
from models.training import Trained, known_outcomes, split_by_time
from models.training_checks import preferred_model
from tests.decided import decided
from validation.cohort import Sample
from validation.errors import TooFewEvents

NAME, HEAD = "readmission-30d", "readmission"
PATIENTS = 700
RANKING = """
[[rankings]]
id = "next"
outcome = "what comes next"
title = { da = "Det næste", en = "What comes next" }
shown = 2
card_from = 0.5
classes = [
  { id = "a", label = { da = "A", en = "A" } },
  { id = "b", label = { da = "B", en = "B" } },
]
"""


@dataclass(frozen=True)
class Run:
    """Where a run took place, what it returned, and how often it was told of patients."""

    folder: Path
    data: Path
    work: Path
    done: dict[str, Any]
    told: list[tuple[int, int]]

    @property
    def head(self) -> dict[str, Any]:
        """What was achieved by the one head."""
        found: dict[str, Any] = self.done["heads"][HEAD]
        return found


def specification(folder: Path, *, more: str = "") -> Path:
    """The bundled manifest alone, with few rounds, as somebody brings it who wants to train.

    `more`: a further line of its table on training.
    """
    target = folder / NAME
    target.mkdir(parents=True)
    text = (BUNDLED / NAME / "manifest.toml").read_text(encoding="utf-8")
    words = text.replace("rounds = 400", f"rounds = 25\n{more}")
    words = words.replace("min_child_weight = 20", "min_child_weight = 5")
    (target / "manifest.toml").write_text(words, encoding="utf-8")
    return target


def run(folder: Path, data: Path, work: Path | None) -> tuple[dict[str, Any], list[Any]]:
    told: list[Any] = []
    done = train_package(
        folder,
        data,
        gate_data=None,
        cohort_progress=lambda done, total: told.append((done, total)),
        training_progress=lambda done, total: told.append((done, total)),
        work=work,
    )
    return done, told


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One run on fresh patients."""
    place = tmp_path_factory.mktemp("training")
    data = place / "data"
    data.mkdir()
    write_bulk_data(READMISSION, data, patients=PATIENTS, seed=71, progress=lambda _: None)
    folder = specification(place / "models")
    done, told = run(folder, data, place / "work")
    return Run(folder, data, place / "work", done, told)


@pytest.fixture(scope="module")
def made(trained: Run) -> Package:
    """The package it made, admitted."""
    return admit(trained.folder, allow_synthetic=True)


@pytest.fixture(scope="module")
def cohort(trained: Run, made: Package) -> Cohort:
    """The cohort of the same data, built anew."""
    return build_cohort(made, trained.data)


@pytest.fixture(scope="module")
def newest(cohort: Cohort, made: Package) -> pd.DataFrame:
    """The rows of its newest part."""
    frame = known_outcomes(cohort.of_head(HEAD))
    return split_by_time(frame, made.manifest.training).test


@pytest.fixture(scope="module")
def card(trained: Run) -> str:
    return (trained.folder / "MODEL_CARD.md").read_text(encoding="utf-8")


# ---- what a run writes ----------------------------------------------------------------------


def test_a_manifest_and_bulk_data_make_a_package_that_is_admitted(made: Package) -> None:
    """From the manifest alone: numbers, examples that replay, checksums of every file."""
    names = {p.relative_to(made.folder).as_posix() for p in made.folder.rglob("*") if p.is_file()}
    assert names == {
        "manifest.toml", "reference.csv", "metrics.json", "MODEL_CARD.md", "SHA256SUMS",
        *(f"heads/{HEAD}/{name}" for name in (
            "booster.ubj", "background.csv", "baseline.json", "uncertainty.csv",
        )),
        *(f"examples/0{number}.json" for number in (1, 2, 3, 4)),
    }  # fmt: skip


def test_what_is_returned_stands_in_metrics_json(trained: Run) -> None:
    written = json.loads((trained.folder / "metrics.json").read_text(encoding="utf-8"))
    returned = msgspec.to_builtins(trained.done)
    assert returned.pop("reused") == []
    assert written == json.loads(msgspec.json.encode(returned))


def test_the_run_can_be_repeated_from_what_it_recorded(trained: Run, made: Package) -> None:
    """Seeds and the releases of what computes."""
    assert trained.done["seeds"]["training"] == made.manifest.training.seed
    assert set(trained.done["software"]) == {"varsel", "python", "xgboost", "shap", "numpy"}


def test_progress_rises_to_all_of_all_fits(trained: Run) -> None:
    fits = [pair for pair in trained.told if pair[1] != PATIENTS]
    assert [done for done, _ in fits] == sorted(done for done, _ in fits)
    assert fits[-1][0] == fits[-1][1]


def test_the_missing_are_counted_in_all_rows_and_in_the_newest(
    trained: Run, made: Package, cohort: Cohort
) -> None:
    frame = cohort.frame
    missing = trained.done["missing"]
    assert set(missing) == set(made.columns)
    assert missing["age"] == {"rows": 0.0, "newest": 0.0}
    assert missing["cfs"]["rows"] == pytest.approx(frame["cfs"].isna().sum() / len(frame))
    newest = frame.sort_values("index_time").tail(len(frame) - int(len(frame) * 0.75))
    assert missing["cfs"]["newest"] == pytest.approx(newest["cfs"].isna().mean())


# ---- for whom -------------------------------------------------------------------------------


def test_sexes_and_ages_each_add_up_to_the_newest_part(trained: Run) -> None:
    groups = {group["group"]: group for group in trained.head["subgroups"]}
    assert list(groups) == ["women", "men", "under 65", "65 to 79", "80 and over"]
    for some in (("women", "men"), ("under 65", "65 to 79", "80 and over")):
        assert sum(groups[name]["n"] for name in some) == trained.head["test"]["n"]


def test_observed_over_expected_of_a_group_is_its_events_over_its_risks(
    trained: Run, made: Package, newest: pd.DataFrame
) -> None:
    women = newest[newest["male"] == 0.0]
    risks = made.heads[0].trees.risk(women[made.columns].to_numpy(dtype=np.float64))
    (found,) = (group for group in trained.head["subgroups"] if group["group"] == "women")
    ratio = found["observed_expected"]
    assert ratio["value"] == pytest.approx((women["state"] == "event").sum() / risks.sum())
    assert ratio["low"] < ratio["value"] < ratio["high"]


def test_a_group_of_few_shows_no_figures_and_no_small_counts(
    made: Package, newest: pd.DataFrame
) -> None:
    """Three men with the outcome could be pointed at; nine cannot, but say nothing either."""
    event, male = newest["state"] == "event", newest["male"] == 1.0
    for kept, shown in ((3, False), (9, True)):
        men = newest[event & male].head(kept)
        frame = pd.concat([newest[~event], newest[event & ~male], men])
        found = {group["group"]: group for group in subgroups(made, made.heads[0], frame)}
        assert (found["men"]["events"] is not None) == shown
        assert found["men"]["auroc"] is found["men"]["observed_expected"] is None
        assert found["women"]["auroc"] is not None


def test_those_whose_age_is_unknown_are_a_group_of_their_own(
    made: Package, newest: pd.DataFrame
) -> None:
    frame = newest.assign(age=newest["age"].where(np.arange(len(newest)) % 2 == 0))
    found = {group["group"]: group for group in subgroups(made, made.heads[0], frame)}
    assert found["age unknown"]["n"] == len(newest) // 2


def test_a_model_without_sex_or_age_says_so_instead(trained: Run, made: Package) -> None:
    without = [f for f in made.manifest.features if f.name != "male"]
    manifest = msgspec.structs.replace(made.manifest, features=without)
    assert groups_unknown(made.manifest) == []
    assert groups_unknown(manifest) == ["sex"]
    metrics = changed(trained, subgroups=[], subgroups_unknown=["sex"])
    assert "Not by sex: no feature of the model says it." in model_card(made.manifest, metrics)


@pytest.mark.parametrize(
    ("low", "high", "named"),
    [(1.21, 1.6, True), (0.5, 0.79, True), (1.15, 1.6, False), (0.5, 0.85, False)],
)
def test_a_group_clearly_more_than_twenty_per_cent_off_is_named(
    low: float, high: float, named: bool
) -> None:
    group = {"group": "women", "observed_expected": {"value": 1.0, "low": low, "high": high}}
    few = {"group": "men", "observed_expected": None}
    assert uncalibrated([group, few]) == (["women"] if named else [])


# ---- would more data help, trees or logistic model ------------------------------------------


def test_the_learning_curve_ends_at_the_model_itself(trained: Run) -> None:
    curve = trained.head["learning_curve"]
    assert [point["share"] for point in curve] == [0.1, 0.25, 0.5, 1.0]
    assert curve[-1]["auroc"] == trained.head["test"]["trees"]["auroc"]
    assert curve[-1]["rows"] == trained.head["split"]["fit"]
    sizes = [point["patients"] for point in curve]
    assert sizes == sorted(sizes)


def test_log_loss_is_that_of_a_worked_example() -> None:
    """Risks 0.8 of an event and 0.4 of none: (-ln 0.8 - ln 0.6) / 2 = 0.3670."""
    sample = Sample(np.array([True, False]), np.array([0.8, 0.4]), np.array([0, 1]))
    assert log_loss(sample) == pytest.approx(0.3670, abs=1e-4)


def test_the_difference_of_trees_and_logistic_model_is_taken_on_the_same_patients(
    trained: Run, made: Package, newest: pd.DataFrame
) -> None:
    """Its interval is narrower than if each had patients of its own."""
    test, found = trained.head["test"], trained.head["trees_minus_logistic"]
    aurocs = [test[name]["auroc"] for name in ("trees", "logistic")]
    assert found["value"] == pytest.approx(aurocs[0]["value"] - aurocs[1]["value"])
    assert found["low"] <= found["value"] <= found["high"]
    apart = np.hypot(*(auroc["high"] - auroc["low"] for auroc in aurocs))
    assert found["high"] - found["low"] < apart
    assert auroc_difference(made, made.heads[0], newest) == found


# ---- the card -------------------------------------------------------------------------------


def changed(trained: Run, **fields: Any) -> dict[str, Any]:
    """The run's metrics with other words for its head."""
    return {**trained.done, "heads": {HEAD: {**trained.head, **fields}}}


def first_lines(text: str) -> str:
    """What stands before the description."""
    return text.partition("\n- **Hooks**")[0]


def test_a_head_of_too_few_events_is_marked_in_the_first_lines(trained: Run, card: str) -> None:
    events = trained.head["split"]["fit_events"]
    assert trained.head["status"] == "experimental"
    assert f"**Experimental**: {events} events in the part fitted on, fewer" in first_lines(card)


def test_a_head_of_enough_events_is_not(trained: Run, made: Package) -> None:
    text = model_card(made.manifest, changed(trained, status="adequate", reasons=[]))
    assert "Experimental" not in text


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (-0.01, 0.02, "**Trees not clearly better than the logistic model**"),
        (-0.02, -0.01, "**The logistic model is better**"),
        (0.01, 0.02, ""),
    ],
)
def test_the_first_lines_say_where_the_simpler_model_does_as_well(
    trained: Run, made: Package, low: float, high: float, said: str
) -> None:
    difference = {"value": (low + high) / 2, "low": low, "high": high}
    kind, because = preferred_model(difference, few=True)
    fields = {"preferred": kind, "preferred_because": because}
    metrics = changed(trained, trees_minus_logistic=difference, **fields)
    text = first_lines(model_card(made.manifest, metrics))
    assert said in text
    assert ("logistic" in text) == bool(said)


def test_what_was_searched_is_on_the_card_the_chosen_first(trained: Run, made: Package) -> None:
    """All that was tried with its log loss, and the seed; the depth of the manifest is not said."""
    tried = [
        {"settings": {"max_depth": 2.0}, "log_loss": 0.41234, "rounds": 90},
        {"settings": {"max_depth": 4.0}, "log_loss": 0.41222, "rounds": 40},
    ]
    words = msgspec.structs.replace(made.manifest.training, search=Search(max_depth=[2, 4]))
    manifest = msgspec.structs.replace(made.manifest, training=words)
    settings = {"used": {"max_depth": 4}, "candidates": tried, "seed": 7}
    text = model_card(manifest, changed(trained, settings=settings))
    table = text.partition("### Settings tried")[2]
    assert "(seed 7)" in table
    assert table.index("| 4 | 40 | 0.41222 |") < table.index("| 2 | 90 | 0.41234 |")
    assert ", depth" not in text
    assert "### Settings tried" not in model_card(made.manifest, trained.done)


def test_a_package_that_ranks_classes_is_not_trained_here(trained: Run, tmp_path: Path) -> None:
    """Said before anything is read; a ranking is brought ready made."""
    folder = specification(tmp_path)
    text = (folder / "manifest.toml").read_text(encoding="utf-8")
    (folder / "manifest.toml").write_text(text + RANKING, encoding="utf-8")
    with pytest.raises(TrainingRefused, match=r"rankings\.next: a ranking is not trained here"):
        run(folder, trained.data, None)


def test_a_warning_stands_in_the_first_lines(trained: Run, made: Package) -> None:
    metrics = changed(trained, warnings=["the category X holds 72 % of all contributions"])
    text = first_lines(model_card(made.manifest, metrics))
    assert "**Warning**: the category X holds 72 % of all contributions." in text


@pytest.mark.parametrize(
    "heading",
    [
        "| Left out | n |",
        "| Missing | All rows | Newest part |",
        "| Group | n | Events | AUROC | Observed/expected |",
        "| Share | Patients | Events | AUROC | Log loss |",
        "| Risk | Refits |",
    ],
)
def test_the_card_has_each_table(card: str, heading: str) -> None:
    assert card.count(heading) == 1


def test_every_table_of_the_card_is_whole(card: str) -> None:
    """As many cells in every line as in its heading, or a reader sees it in pieces."""
    for table in tables(card):
        cells = {line.replace("\\|", "").count("|") for line in table}
        assert len(cells) == 1, table[0]


def tables(text: str) -> Iterator[list[str]]:
    for block in text.split("\n\n"):
        if block.startswith("|"):
            yield block.splitlines()


# ---- how sure the model is, as shown --------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """What a hook call brought: the card, the page it links to, and the prediction as logged."""

    card: dict[str, Any]
    page: str
    logged: Prediction


def answer(package: Package, settings: Settings, request: dict[str, Any]) -> Answer:
    """The answer of a service with this package alone."""
    registry = Registry({package.id: package}, {})
    decided(settings, package, "live")
    with TestClient(create_app(settings, registry)) as client:
        (card,) = client.post(f"/cds-services/{NAME}", json=request).json()["cards"]
        path = urlsplit(card["links"][0]["url"]).path
        data = client.get(f"{path}.json").content
        return Answer(card, client.get(path).text, msgspec.json.decode(data, type=Prediction))


def showing_every_risk(package: Package) -> Package:
    """The package with a card for any risk."""
    heads = [msgspec.structs.replace(head, threshold=0.0) for head in package.manifest.heads]
    manifest = msgspec.structs.replace(package.manifest, heads=heads)
    return dataclasses.replace(package, manifest=manifest)


def test_card_page_and_terminal_show_how_sure_the_model_is(
    made: Package, settings: Settings, hook_request: dict[str, Any]
) -> None:
    """In whole per cent, and logged unrounded."""
    found = answer(showing_every_risk(made), settings, hook_request)
    (head,) = found.logged.heads
    sure = made.heads[0].uncertainty
    assert sure is not None
    assert head.interval == sure.interval_at(head.risk)
    shown = shown_interval(head.interval)
    assert f"\n\nModelusikkerhed: {shown} % (så meget varierer tallet" in found.card["detail"]
    assert f">Modelusikkerhed: {shown} % (så meget varierer tallet" in found.page
    printed = terminal_card(made.manifest, found.logged, Setting("da", COPENHAGEN, None))
    assert f" % [{shown}]   " in printed
    english = Setting("en", COPENHAGEN, None)
    assert say_uncertainty(head.interval, english).startswith(f"Model uncertainty: {shown} % (")


def test_of_a_package_that_does_not_know_nothing_is_said(
    made: Package, settings: Settings, hook_request: dict[str, Any]
) -> None:
    heads = tuple(dataclasses.replace(head, uncertainty=None) for head in made.heads)
    package = showing_every_risk(dataclasses.replace(made, heads=heads))
    found = answer(package, settings, hook_request)
    assert found.logged.heads[0].interval is None
    printed = terminal_card(made.manifest, found.logged, Setting("da", COPENHAGEN, None))
    for text in (found.card["detail"], found.page, printed):
        assert "usikkerhed" not in text
        assert " % [" not in text


@pytest.mark.parametrize(
    ("interval", "shown"),
    [
        ((0.2134, 0.3391), "21–34"),
        ((0.0355, 0.0391), "3–4"),
        ((0.29, 0.57), "29–57"),
        ((0.9951, 0.9999), "99–100"),
        ((0.0004, 0.0031), "0–1"),
    ],
)
def test_the_shown_interval_is_rounded_outwards(interval: tuple[float, float], shown: str) -> None:
    """So that a risk of 3,6 % does not stand beside 4–4."""
    assert shown_interval(interval) == shown


# ---- continuing -----------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_second_run_continues_after_what_is_done_and_makes_the_same_package(
    trained: Run, tmp_path: Path
) -> None:
    """To the byte, with no patient read for the cohort and no tree fitted."""
    folder = specification(tmp_path)
    done, told = run(folder, trained.data, trained.work)
    assert done["reused"] == ["cohort", f"head {HEAD}"]
    assert len(told) == 1
    assert contents(folder) == contents(trained.folder)


def test_the_gate_is_kept_too(trained: Run, tmp_path: Path) -> None:
    """Its figures stand beside those of the newest part."""
    done = train_package(
        specification(tmp_path),
        trained.data,
        gate_data=trained.data,
        cohort_progress=lambda *_: None,
        training_progress=lambda *_: None,
        work=trained.work,
    )
    assert done["reused"] == ["cohort", f"head {HEAD}", "gate cohort"]
    assert done["heads"][HEAD]["gate"]["n"] > done["heads"][HEAD]["test"]["n"]


def test_the_command_prints_what_was_reused_and_what_must_be_known(
    trained: Run, tmp_path: Path
) -> None:
    """Reasons and warnings before the figures; time and memory at the end."""
    command = ["models", "train", str(specification(tmp_path)), "--data", str(trained.data)]
    result = CliRunner().invoke(app, [*command, "--work", str(trained.work)])
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[1] == f"continued from {trained.work}: cohort, head {HEAD}"
    assert lines[2].startswith(f"{HEAD}: experimental: ")
    assert " s, at most " in lines[-1]


# ---- refused --------------------------------------------------------------------------------


def test_a_refused_run_leaves_the_package_as_it_was(trained: Run, tmp_path: Path) -> None:
    """A gate too small to judge by, found when all else is done: what was served is still whole."""
    folder, gate = specification(tmp_path), tmp_path / "gate"
    shutil.copytree(trained.folder, folder, dirs_exist_ok=True)
    (folder / "examples" / "05.json").write_bytes((folder / "examples" / "01.json").read_bytes())
    before = contents(folder)
    gate.mkdir()
    write_bulk_data(READMISSION, gate, patients=30, seed=2, progress=lambda _: None)
    with pytest.raises(TooFewEvents):
        train_package(
            folder,
            trained.data,
            gate_data=gate,
            cohort_progress=lambda *_: None,
            training_progress=lambda *_: None,
            work=trained.work,
        )
    assert contents(folder) == before


def test_a_newest_part_too_small_to_be_judged_is_bad_input(trained: Run, tmp_path: Path) -> None:
    """Some thirty stays cannot say how good a model is; nothing is written."""
    folder = specification(tmp_path, more="test_share = 0.05")
    result = CliRunner().invoke(app, ["models", "train", str(folder), "--data", str(trained.data)])
    assert isinstance(result.exception, SetupError)
    assert "at least 10 of each are needed" in str(result.exception)
    assert [path.name for path in folder.iterdir()] == ["manifest.toml"]


# ---- worked examples ------------------------------------------------------------------------


def test_an_example_takes_the_shared_drugs_it_refers_to_and_no_others(tmp_path: Path) -> None:
    """A Medication belongs to no patient; without it an order says nothing of its drug."""
    order = {
        "resourceType": "MedicationRequest", "id": "o", "subject": {"reference": "Patient/a"},
        "medicationReference": {"reference": "https://ehr/fhir/Medication/m1/_history/2"},
    }  # fmt: skip
    lines: dict[str, list[dict[str, Any]]] = {
        "Patient": [{"resourceType": "Patient", "id": "a"}],
        "MedicationRequest": [order],
        "Medication": [{"resourceType": "Medication", "id": name} for name in ("m1", "m2")],
    }
    for kind, resources in lines.items():
        text = "".join(json.dumps(resource) + "\n" for resource in resources)
        (tmp_path / f"{kind}.ndjson").write_text(text)
    bundle = json.loads(bundle_of(index_bulk_data(tmp_path), "a"))
    assert [e["resource"]["id"] for e in bundle["entry"]] == ["o", "a", "m1"]


def test_of_real_patients_the_examples_are_patients_of_the_generator(
    made: Package, trained: Run, tmp_path: Path
) -> None:
    """Where the model has one: nobody's record leaves the house, and the examples still replay."""
    folder = tmp_path / NAME
    shutil.copytree(made.folder, folder)
    manifest = msgspec.structs.replace(made.manifest, synthetic=False)
    package = dataclasses.replace(made, manifest=manifest, folder=folder)
    index = index_bulk_data(trained.data)
    fitted = cast("Trained", None)  # of a package with a generator nothing is taken from it
    assert write_examples(package, index, fitted) == "patients of the generator"
    assert replay_examples(package) == 4
    own = {patient for patient in index.lines if patient in examples_of(folder)}
    ours = {patient for patient in index.lines if patient in examples_of(made.folder)}
    assert not own
    assert len(ours) == 4


def examples_of(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted(folder.glob("examples/*.json")))
