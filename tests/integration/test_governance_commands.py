"""`varsel models state`, `record`, `withdraw` and `varsel doctor`, as an operator types them."""

from __future__ import annotations

import csv
import json
import shutil
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from cds_service.cli import governance as cli
from cds_service.db import governance as sql
from cds_service.db.governance import add_decisions, shown_by
from cds_service.db.log import open_engine
from cds_service.errors import BadRequest, SetupError
from cds_service.governance import Decision, History, Version
from cds_service.settings import Settings
from cds_service.watch import EVERY_S
from models.package import write_checksums
from models.registry import BUNDLED
from tests.decided import DECIDED, ON_RECORD, bring_live, typed
from tests.logged import a_row, store_all

NAME = "readmission-30d"
AT = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.fixture
def production(sqlite_url: str) -> Settings:
    """An installation with a migrated database in which nothing was decided yet."""
    return Settings(profile="production", database_url=sqlite_url, allow_synthetic_models=True)


def told(settings: Settings, *arguments: object) -> Any:
    """The JSON document a command under `varsel models` printed."""
    done = typed(settings, "models", *arguments, "--json")
    assert done.exit_code == 0, done.exception
    return json.loads(done.stdout)


def refused(settings: Settings, *arguments: object) -> Exception:
    """The error a command under `varsel models` ended with."""
    done = typed(settings, "models", *arguments)
    assert isinstance(done.exception, Exception), done.output
    return done.exception


# ---- state and record -----------------------------------------------------------------------


def test_from_candidate_to_live_everything_is_recorded(production: Settings) -> None:
    """Every step with who and why and when; the record beside it."""
    (candidate,) = told(production, "state", NAME)
    assert (candidate["state"], candidate["decisions"], candidate["record"]) == (
        "candidate", [], None,
    )  # fmt: skip
    bring_live(production)
    (live,) = told(production, "state", NAME)
    assert live["state"] == "live"
    assert [(d["state"], d["who"], d["why"]) for d in live["decisions"]] == [
        ("silent", "B. Holm", "trial approved"),
        ("live", "B. Holm", "trial approved"),
    ]
    assert live["since"] == live["decisions"][-1]["at"]
    assert live["record"]["clinical_owner"] == "Ledende overlæge A. Berg"
    printed = typed(production, "models", "state", NAME).output
    assert "B. Holm: trial approved" in printed
    assert "record, regulatory route: mdr-5-5" in printed


def test_live_without_a_record_is_refused(production: Settings) -> None:
    """What is missing is named; after it is there, live is allowed."""
    assert "can become silent" in str(refused(production, "state", NAME, "live", *DECIDED))
    told(production, "state", NAME, "silent", *DECIDED)
    error = refused(production, "state", NAME, "live", *DECIDED)
    assert isinstance(error, BadRequest)
    assert "intended purpose, regulatory route, AI Act role and clinical owner" in str(error)
    told(production, "record", NAME, *ON_RECORD)
    told(production, "state", NAME, "live", *DECIDED)


def test_the_newest_record_holds(production: Settings) -> None:
    told(production, "record", NAME, *ON_RECORD)
    changed = ["other" if word.startswith("Ledende") else word for word in ON_RECORD]
    told(production, "record", NAME, *changed)
    (stand,) = told(production, "state", NAME)
    assert stand["record"]["clinical_owner"] == "other"


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("state", NAME, "alive", *DECIDED), "STATE"),
        (("state", NAME, "silent", "--why", "w"), "--who"),
        (("state", NAME, "silent", "--who", "w"), "--why"),
        (("state", NAME, "silent", "--who", " ", "--why", "w"), "--who"),
        (("state", NAME, "silent", "--who", "w" * 129, "--why", "w"), "--who"),
        (("state", NAME, "silent", "--who", "w\x1b[2J", "--why", "w"), "--who"),
        (("state", NAME, "silent", *DECIDED, "--replaces", "1.0.0"), "--replaces"),
        (("record", NAME, *ON_RECORD, "--regulatory-route", "none"), "--regulatory-route"),
        (("record", NAME, *ON_RECORD, "--ai-act-role", "user"), "--ai-act-role"),
        (("record", NAME, *ON_RECORD, "--clinical-owner", ""), "--clinical-owner"),
        (("withdraw", NAME, *DECIDED, "--out", "list.txt"), "--out"),
    ],
)
def test_what_is_typed_wrongly_is_refused_by_name(
    production: Settings, arguments: tuple[str, ...], field: str
) -> None:
    """And decides nothing."""
    error = refused(production, *arguments)
    assert isinstance(error, BadRequest)
    assert error.field == field
    (stand,) = told(production, "state", NAME)
    assert (stand["state"], stand["record"]) == ("candidate", None)


def test_a_model_that_is_not_here_cannot_be_decided_about(production: Settings) -> None:
    for arguments in (("state", "nothing"), ("state", f"{NAME}@9.9.9", "silent", *DECIDED)):
        assert isinstance(refused(production, *arguments), SetupError)


def test_of_several_versions_one_must_be_named(production: Settings, tmp_path: Path) -> None:
    """All are listed; without a name nothing is decided."""
    copy = tmp_path / "models" / NAME
    shutil.copytree(BUNDLED / NAME, copy)
    manifest = (copy / "manifest.toml").read_text(encoding="utf-8")
    changed = manifest.replace('version = "1.0.0"', 'version = "2.0.0"')
    (copy / "manifest.toml").write_text(changed, encoding="utf-8")
    site = production.model_copy(update={"models_dir": tmp_path / "models"})
    write_checksums(copy)
    assert {stand["version"] for stand in told(site, "state", NAME)} == {"1.0.0", "2.0.0"}
    error = refused(site, "state", NAME, "silent", *DECIDED)
    assert f"say which: {NAME}@1.0.0, {NAME}@2.0.0" in str(error)
    told(site, "state", f"{NAME}@2.0.0", "silent", *DECIDED)
    (manifest_path,) = copy.glob("manifest.toml")
    manifest_path.write_text(changed + "\n", encoding="utf-8")  # no longer what SHA256SUMS says
    bundled, broken = told(site, "state", NAME)
    assert (bundled["version"], bundled["fault"]) == ("1.0.0", None)
    assert (broken["version"], broken["state"]) == ("2.0.0", "silent")
    assert broken["fault"] == "manifest.toml is not what SHA256SUMS says"
    assert broken["checksum"] == broken["decisions"][-1]["checksum"]
    assert broken["fault"] in typed(site, "models", "state", NAME).output
    for arguments in (("withdraw", NAME, *DECIDED), ("record", NAME, *ON_RECORD)):
        assert f"say which: {NAME}@1.0.0, {NAME}@2.0.0" in str(refused(site, *arguments))
    assert broken["fault"] in str(refused(site, "record", f"{NAME}@2.0.0", *ON_RECORD))
    assert broken["fault"] in str(refused(site, "state", f"{NAME}@2.0.0", "live", *DECIDED))
    blocked = refused(site, "state", f"{NAME}@1.0.0", "silent", *DECIDED)
    assert f"{NAME}@2.0.0 is silent" in str(blocked)
    shutil.rmtree(copy)
    for gone in (("withdraw", NAME, *DECIDED), ("state", NAME, "silent", *DECIDED)):
        assert f"say which: {NAME}@1.0.0, {NAME}@2.0.0" in str(refused(site, *gone))
    told(site, "withdraw", f"{NAME}@2.0.0", *DECIDED)
    stood = [(stand["version"], stand["state"]) for stand in told(site, "state", NAME)]
    assert stood == [("1.0.0", "candidate"), ("2.0.0", "retired")]


def test_a_package_whose_number_cannot_be_read_is_never_decided_about(
    production: Settings, tmp_path: Path
) -> None:
    """It is told with its fault, and counts where nobody said which version."""
    copy = tmp_path / "models" / NAME
    shutil.copytree(BUNDLED / NAME, copy)
    (copy / "manifest.toml").write_text("[", encoding="utf-8")
    site = production.model_copy(update={"models_dir": tmp_path / "models"})
    _, broken = told(site, "state", NAME)
    assert (broken["version"], broken["checksum"], broken["state"]) == ("?", "", "candidate")
    assert broken["fault"].startswith("manifest.toml")
    for asked in (("withdraw", NAME), ("state", NAME, "retired")):
        assert "say which" in str(refused(site, *asked, *DECIDED))
    for asked in (("withdraw", f"{NAME}@?"), ("state", f"{NAME}@?", "retired")):
        assert broken["fault"] in str(refused(site, *asked, *DECIDED))
    told(site, "withdraw", f"{NAME}@1.0.0", *DECIDED)


def test_a_version_that_would_not_be_served_cannot_be_taken_up(production: Settings) -> None:
    """Synthetic models are not allowed here: refused by name, nothing is decided."""
    strict = production.model_copy(update={"allow_synthetic_models": False})
    assert "synthetic" in str(refused(strict, "state", NAME, "silent", *DECIDED))
    (stand,) = told(strict, "state", NAME)
    assert stand["state"] == "candidate"


def test_doctor_says_the_states_and_what_is_wrong_with_them(production: Settings) -> None:
    """A candidate is no fault; a version whose files changed is."""

    def models() -> dict[str, Any]:
        findings = json.loads(typed(production, "doctor", "--json").stdout)
        return next(finding for finding in findings if finding["check"] == "models")

    assert f"{NAME}@1.0.0 candidate" in models()["says"]
    assert "none is in service" in models()["says"]
    bring_live(production)
    assert models()["ok"]
    assert f"{NAME}@1.0.0 live" in models()["says"]
    engine = open_engine(production.database)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE model_states SET package_checksum = 'before'")
    engine.dispose()
    assert not models()["ok"]
    assert "has other files than when it became live" in models()["says"]


# ---- withdraw -------------------------------------------------------------------------------


def prediction(number: int, **given: Any) -> dict[str, Any]:
    """A row of the log, a minute after the one before."""
    of_a_ward = {"prediction_id": str(uuid.UUID(int=number)), "unit": "ward-a", "service": NAME}
    at = {"as_of": AT + timedelta(minutes=number), "computed_at": AT}
    of_a_model = {"model_id": NAME, "model_version": "1.0.0"}
    return a_row(**{**of_a_ward, **at, **of_a_model, **given})


@pytest.fixture
def answered(production: Settings) -> Settings:
    """An installation that has answered: five cards of 1.0.0 in two wards, and other rows."""
    engine = open_engine(production.database)
    rows = [
        *(prediction(n) for n in (1, 2, 3)),
        prediction(4, unit="ward-b"),
        prediction(5, unit=None),
        prediction(6, returned="below-threshold"),
        prediction(7, status="refused", state="paused"),
        prediction(8, model_version="0.9.0"),
        prediction(9, model_id="another"),
    ]
    store_all(engine, rows)
    return production


def test_withdraw_retires_at_once_and_lists_every_card(answered: Settings) -> None:
    """By unit; the page of each; that there are no PDFs or write-backs is said, not left out."""
    made = told(answered, "withdraw", NAME, "--who", "W", "--why", "too high in dialysis")
    assert [row["prediction_id"][-1] for row in made["shown"]] == ["1", "2", "3", "4", "5"]
    assert made["shown"][0] == {
        "prediction_id": str(uuid.UUID(int=1)),
        "as_of": "2026-11-22T00:01:00Z",
        "computed_at": "2026-11-22T00:00:00Z",
        "organisation": "o",
        "unit": "ward-a",
        "caller": "c",
        "hook": "h",
        "mode": "live",
        "status": "scored",
        "returned": "card",
        "page": f"http://127.0.0.1:8000/explanations/{uuid.UUID(int=1)}",
    }
    assert made["cards_by_unit"] == {"o": 1, "ward-a": 3, "ward-b": 1}
    assert (made["cards_shown"], made["predictions"]) == (5, 7)
    assert "PDFs and write-backs" in made["pdfs_and_write_backs"]
    (stand,) = told(answered, "state", NAME)
    assert (stand["state"], stand["decisions"][-1]["why"]) == ("retired", "too high in dialysis")
    printed = typed(answered, "models", "withdraw", NAME, "--who", "W", "--why", "again").output
    assert "ward-a: 3 cards" in printed
    (again,) = told(answered, "state", NAME)
    assert {d["checksum"] for d in again["decisions"]} == {"x", again["checksum"]}
    assert len(again["decisions"]) == 2


def test_cards_shown_until_every_process_had_stopped_are_listed(
    answered: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decided first, listed when they have had their time; what may come later is said."""

    def meanwhile(seconds: float) -> None:
        assert seconds == EVERY_S + 1
        engine = open_engine(answered.database)
        with engine.begin() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM model_states").scalar() == 2
        store_all(engine, [prediction(10)])

    monkeypatch.setattr(time, "sleep", meanwhile)
    made = told(answered, "withdraw", NAME, "--who", "W", "--why", "w")
    assert str(uuid.UUID(int=10)) in [row["prediction_id"] for row in made["shown"]]
    assert "stops after VARSEL_STATES_SECONDS" in made["may_follow"]
    printed = typed(answered, "models", "withdraw", NAME, "--who", "W", "--why", "w").output
    assert made["may_follow"] in printed


def test_withdraw_is_not_refused_because_somebody_decided_of_another_model(
    production: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again on what is there then."""
    real = sql.read_history
    overtaken: list[History] = []

    def read_just_before(engine: Engine) -> History:
        seen = real(engine)
        if len(overtaken) < 2:
            overtaken.append(seen)
            other = Decision("another", "1", "x", "silent", "w", "w", AT)
            add_decisions(engine, [other], after=seen, organisation="o")
        return seen

    monkeypatch.setattr(cli, "read_history", read_just_before)
    told(production, "withdraw", NAME, "--who", "W", "--why", "w")
    (stand,) = told(production, "state", NAME)
    assert (stand["state"], len(overtaken)) == ("retired", 2)


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_withdraw_writes_the_list_to_a_file(answered: Settings, tmp_path: Path, kind: str) -> None:
    """The same rows, whichever format."""
    out = tmp_path / f"list.{kind}"
    made = told(answered, "withdraw", NAME, "--who", "W", "--why", "w", "--out", out)
    assert "shown" not in made
    text = out.read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines())) if kind == "csv" else json.loads(text)
    assert [row["prediction_id"][-1] for row in rows] == ["1", "2", "3", "4", "5"]
    assert rows[0]["page"].endswith(str(uuid.UUID(int=1)))


def test_withdraw_of_a_version_that_showed_nothing(production: Settings, tmp_path: Path) -> None:
    out = tmp_path / "list.json"
    made = told(production, "withdraw", NAME, "--who", "W", "--why", "w", "--out", out)
    assert made["cards_shown"] == 0
    assert json.loads(out.read_text(encoding="utf-8")) == []


def test_a_version_whose_files_are_gone_can_be_withdrawn(answered: Settings) -> None:
    """What it showed is in the log, whoever took the folder away."""
    made = told(answered, "withdraw", f"{NAME}@0.9.0", "--who", "W", "--why", "w")
    assert [row["prediction_id"][-1] for row in made["shown"]] == ["8"]
    assert isinstance(
        refused(answered, "withdraw", "gone@1", "--who", "W", "--why", "w"), SetupError
    )


def test_a_long_list_is_read_a_page_at_a_time(
    answered: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million rows are never in memory together."""
    monkeypatch.setattr(sql, "_PAGE", 2)
    engine = open_engine(answered.database)
    rows = shown_by(engine, Version(NAME, "1.0.0", "x"))
    assert [row["prediction_id"][-1] for row in rows] == ["1", "2", "3", "4", "5"]
    engine.dispose()


def test_score_says_how_the_model_stands_here(production: Settings) -> None:
    """As the database has it: a candidate is scored and says so, a withdrawn one is not scored."""
    request = BUNDLED.parent / "cds_service" / "demo" / "hook-request.json"

    def scored() -> dict[str, Any]:
        done = typed(production, "score", request, "--model", NAME, "--as-of", "latest", "--json")
        (prediction,) = json.loads(done.stdout)
        found: dict[str, Any] = prediction
        return found

    before = scored()
    assert before["standing"]["state"] == "candidate"
    assert "Status: kandidat, ikke i drift" in before["cards"][0]["detail"]
    told(production, "withdraw", NAME, "--who", "W", "--why", "w")
    after = scored()
    assert (after["status"], after["reason"], after["heads"]) == ("refused", "retired", [])
    printed = typed(production, "score", request, "--model", NAME, "--as-of", "latest").stdout
    assert "Prognosen er taget ud af brug siden" in printed
