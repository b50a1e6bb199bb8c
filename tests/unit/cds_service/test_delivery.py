"""Work that outlived its call: it ends, is logged, and is told of in our words."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import cast

import pytest
from fastapi import Request, Response
from starlette.background import BackgroundTask

from cds_service.db.log import PredictionLog, open_engine
from cds_service.db.migrate import upgrade
from cds_service.delivery import Answered, Delivery
from cds_service.errors import TooLate
from tests.logged import PRIVACY

NAME = "1204850000 Nancy Berggren"


async def _fails() -> None:
    raise ValueError(NAME)


async def _late() -> Answered:
    await asyncio.sleep(0.02)
    return Answered(Response("{}", background=BackgroundTask(_fails)), "late")


def test_an_error_after_a_late_answer_is_told_without_its_text(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """What a silent version fails with may hold what the record held; asyncio would print it."""
    engine = open_engine(f"sqlite:///{tmp_path / 'varsel.db'}")
    upgrade(engine)

    async def call(log: PredictionLog) -> None:
        delivery = Delivery(log)
        with pytest.raises(TooLate):
            await delivery.within(0.001, asyncio.create_task(_late()), cast("Request", None))
        await delivery.close()

    with caplog.at_level(logging.DEBUG), PredictionLog(engine, PRIVACY) as log:
        asyncio.run(call(log))
    told = capfd.readouterr()
    assert "ValueError" in told.out + told.err
    assert NAME not in told.out + told.err + caplog.text
