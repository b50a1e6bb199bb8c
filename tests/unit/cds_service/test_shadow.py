"""Silent versions that wait: each that comes to nothing is told of, whyever."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cds_service import shadow
from cds_service.db.log import PredictionLog, open_engine
from cds_service.db.migrate import upgrade
from cds_service.governance import Duty
from cds_service.shadow import MOST_WAITING, Beside, Shadows
from models.package import Package
from tests.logged import PRIVACY, a_row


@pytest.fixture
def log(tmp_path: Path) -> Iterator[PredictionLog]:
    """A log of its own."""
    engine = open_engine(f"sqlite:///{tmp_path / 'varsel.db'}")
    upgrade(engine)
    with PredictionLog(engine, PRIVACY) as opened:
        yield opened


@pytest.fixture
def beside(package: Package) -> Beside:
    """A silent version beside some call."""
    unread: Any = None
    question: Any = SimpleNamespace(prediction_id="of-the-live-one")
    return Beside(Duty(package, unread, {}), unread, question, unread)


@pytest.fixture
def let_go(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Silent versions compute until this is set."""
    event = threading.Event()

    def slowly(*_: object) -> dict[str, Any]:
        event.wait(10)
        return a_row(returned="shadow")

    monkeypatch.setattr(shadow, "shadow_row", slowly)
    yield event
    event.set()


def test_a_stop_while_they_wait_is_told_of_each(
    log: PredictionLog,
    beside: Beside,
    let_go: threading.Event,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The one that computes and the two behind it: three failures, three events, no row."""
    shadows = Shadows(log, PRIVACY)

    async def stopped() -> None:
        tasks = [asyncio.create_task(shadows.compute(beside)) for _ in range(3)]
        await asyncio.sleep(0.1)
        for task in tasks:
            task.cancel()
        let_go.set()
        await asyncio.wait(tasks)

    asyncio.run(stopped())
    assert (shadows.logged, shadows.failed) == (0, 3)
    told = capfd.readouterr()
    assert (told.out + told.err).count("shadow failed") == 3
    assert (told.out + told.err).count("CancelledError") == 3
    assert (told.out + told.err).count("of-the-live-one") == 3


def test_where_too_many_wait_a_call_is_left_out_and_that_is_told(
    log: PredictionLog,
    beside: Beside,
    let_go: threading.Event,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Two more than may wait: two events; all others have their row."""
    shadows = Shadows(log, PRIVACY)

    async def many() -> None:
        tasks = [asyncio.create_task(shadows.compute(beside)) for _ in range(MOST_WAITING + 2)]
        await asyncio.sleep(0.1)
        let_go.set()
        await asyncio.gather(*tasks)

    asyncio.run(many())
    assert (shadows.logged, shadows.failed, shadows.left_out) == (MOST_WAITING, 0, 2)
    told = capfd.readouterr()
    assert (told.out + told.err).count("shadow left out") == 2
