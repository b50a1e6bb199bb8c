"""How a process keeps knowing what was decided, and what it does when it cannot know."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from cds_service import watch
from cds_service.app import create_app
from cds_service.db.governance import add_decisions, read_history
from cds_service.errors import LogUnavailable, SetupError, StatesUnknown
from cds_service.governance import Decision, History, version_of
from cds_service.service import open_database
from cds_service.settings import Settings
from cds_service.watch import Watch
from models.package import Package
from models.registry import Registry
from tests.decided import decided

NOW = datetime(2026, 11, 22, tzinfo=UTC)
URL = "/cds-services/readmission-30d"


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    """The migrated database of a demo installation."""
    made = open_database(settings)
    yield made
    made.dispose()


def within(seconds: float, holds: Callable[[], bool]) -> bool:
    """Whether something comes to hold within some seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.02)
    return False


def test_a_decision_of_another_process_is_known_within_two_seconds(
    engine: Engine, settings: Settings, registry: Registry, package: Package
) -> None:
    with Watch(engine, registry, demo=True) as watching:
        duty = watching.roster().duties[package.id]
        assert duty.standing.state == "live"
        decided(settings, package, "paused")
        assert within(2, lambda: watching.roster().duties[package.id].standing.state == "paused")


def test_the_second_of_two_who_decide_at_once_is_told_to_look_again(
    engine: Engine, package: Package
) -> None:
    """Both saw the same history; one of them did not see what the other made of it."""
    seen = read_history(engine)
    decision = Decision(*version_of(package)[:3], "paused", "one", "why", NOW)
    add_decisions(engine, [decision], after=seen, organisation="o")
    with pytest.raises(SetupError, match="at the same time"):
        add_decisions(
            engine, [decision._replace(state="retired", who="two")], after=seen, organisation="o"
        )
    assert [d.who for d in read_history(engine).decisions] == ["one"]


def test_a_process_that_cannot_see_what_was_decided_answers_no_longer(
    client: TestClient,
    changed: Callable[..., dict[str, object]],
    monkeypatch: pytest.MonkeyPatch,
    rows: Callable[[], list[object]],
) -> None:
    """503, no card and no row; readiness says why. Once it sees again, it answers again."""

    def unreadable(_: Engine) -> tuple[int, int]:
        raise LogUnavailable("the database cannot be read (OperationalError)")

    with monkeypatch.context() as broken:
        broken.setattr(watch, "newest", unreadable)
        running: Any = client.app
        broken.setattr(running.state.service.watch, "_stale_after_s", 0.5)
        assert within(5, lambda: client.post(URL, json=changed({})).status_code == 503)
        before = len(rows())
        answer = client.post(URL, json=changed({}))
        assert answer.json()["resourceType"] == "OperationOutcome"
        assert answer.json()["issue"][0]["code"] == "transient"
        assert client.get("/cds-services").status_code == 503
        readiness = client.get("/readyz")
        assert readiness.status_code == 503
        assert "which models are in service was last seen" in readiness.json()["reasons"][0]
        assert len(rows()) == before
    assert within(5, lambda: client.post(URL, json=changed({})).status_code == 200)


def test_before_its_first_look_a_process_answers_nothing(
    engine: Engine, registry: Registry
) -> None:
    with pytest.raises(StatesUnknown):
        Watch(engine, registry, demo=True).roster()


def test_an_installation_whose_states_cannot_be_read_does_not_start(
    settings: Settings, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would not know what was withdrawn."""

    def unreadable(_: Engine) -> History:
        raise LogUnavailable("the database cannot be read (OperationalError)")

    monkeypatch.setattr(watch, "read_history", unreadable)
    with pytest.raises(LogUnavailable), TestClient(create_app(settings, registry)):
        pass
