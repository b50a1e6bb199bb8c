"""The bench of the log measures what it says: real chains, and a product that is not durable."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from cds_service.cli.log import Against, examine
from cds_service.db import log
from cds_service.db.chains import Span, snapshot
from cds_service.db.log import open_engine
from tests.bench import lax, log_durability, log_rows
from tests.bench.sides import Window

_MORNING = datetime.now(UTC).replace(hour=8, minute=0)
_ASKED = {
    "sqlite": ("PRAGMA synchronous", 2, 0),
    "postgresql": ("SHOW synchronous_commit", "on", "off"),
}


def test_the_rows_of_the_bench_stand_in_chains_that_hold(sqlite_url: str) -> None:
    """`varsel log verify` reads every generated row and finds nothing wrong."""
    engine = open_engine(sqlite_url)
    until = datetime.now(UTC)
    template = log_rows.real_call()
    assert sum(log_rows.load(engine, template, 40, until)) > 0
    with snapshot(engine) as connection:
        report = examine(connection, Span(), Against())
    engine.dispose()
    assert (report.found.predictions, report.findings) == (40, [])
    assert report.found.chains > 4
    assert log_rows.time_of(39, 40, until) - log_rows.time_of(0, 40, until) > timedelta(days=600)


def test_a_chain_longer_than_a_page_is_followed_to_its_end(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 600 rows in one chain, the one that was changed behind the first page is named."""
    monkeypatch.setattr(log_rows, "ORGANISATIONS", ("one",))
    monkeypatch.setattr(log_rows, "time_of", lambda number, *_: _MORNING + timedelta(0, number))
    engine = open_engine(database_url)
    list(log_rows.load(engine, log_rows.real_call(), 600, _MORNING))
    changed = log_rows.prediction_id(550)
    with engine.begin() as connection:
        change = text("UPDATE predictions SET status = 'x' WHERE prediction_id = :changed")
        connection.execute(change, {"changed": changed})
    with snapshot(engine) as connection:
        report = examine(connection, Span(), Against())
    engine.dispose()
    assert (report.found.chains, report.found.predictions) == (1, 600)
    assert [(one.fault, one.id) for one in report.findings] == [("changed", changed)]


def test_the_yardstick_is_the_product_without_durability(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every connection of the yardstick has durability switched off; the product's have it on."""
    durable = open_engine(database_url)
    for name in ("_make_sqlite_durable", "settle_session"):
        monkeypatch.setattr(log, name, getattr(log, name))  # put back when the test ends
    lax.switch_off()
    without = open_engine(database_url)
    ask, on, off = _ASKED[durable.name]
    assert [_answer(engine, ask) for engine in (durable, without)] == [on, off]


def _answer(engine: Engine, ask: str) -> object:
    with engine.connect() as connection:
        answer: object = connection.execute(text(ask)).scalar_one()
    engine.dispose()
    return answer


def test_the_share_is_the_median_of_windows_next_to_each_other() -> None:
    """A round in which the machine was busy for both counts like any other."""
    rates = ((90, 100), (9, 10), (50, 100))
    rounds = [{"durable": Window(d, 20.0), "lax": Window(o, 19.0)} for d, o in rates]
    figures = log_durability.served_figures(rounds, [{"scored": 2}, {"scored": 3}], 10.0)
    assert figures["share"] == 0.9
    assert figures["share_each_round"] == [0.9, 0.9, 0.5]
    assert figures["predictions"] == {"scored": 5}
