"""The months of PostgreSQL's payloads: made ahead, filled rightly, missed aloud."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime

import pytest
from sqlalchemy import Engine, inspect, text

from cds_service.db.log import open_engine
from cds_service.db.migrate import upgrade
from cds_service.db.partitions import make_months, missing_months, warnings_of
from cds_service.errors import LogUnavailable
from tests.databases import emptied
from tests.postgres import Postgres

NOW = datetime.now(UTC)
FAR = date(2042, 11, 30)
_OLD = """
    INSERT INTO predictions (
        prediction_id, organisation, caller, service, hook, hook_instance, content_digest,
        model_id, model_version, package_checksum, software_version, mode, language,
        patient_pseudonym, as_of, computed_at, status, returned, document, response, timings,
        sealed, state
    ) VALUES (:name, 'o', 'c', 's', 'h', :name, 'd', 'm', '1', 'x', '1', 'live', 'da', 'p', :at,
              :at, 'scored', 'card', '{}', '{}', '{}', '', 'live')
"""
_PAYLOAD = """
    INSERT INTO prediction_payloads (prediction_id, computed_at, document, response, timings)
    VALUES (:name, :at, '{}', '{}', '{}')
"""


@pytest.fixture
def engine(postgresql_server: Postgres) -> Iterator[Engine]:
    """A PostgreSQL database without tables."""
    made = open_engine(emptied(postgresql_server))
    yield made
    made.dispose()


def insert(engine: Engine, statement: str, *times: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement), [{"name": at, "at": at} for at in times])


def homes(engine: Engine) -> dict[str, str]:
    """Which partition each payload lies in."""
    query = "SELECT prediction_id, tableoid::regclass::text FROM prediction_payloads"
    with engine.connect() as connection:
        return {row[0]: row[1] for row in connection.execute(text(query))}


def test_old_rows_get_the_months_they_were_made_in(engine: Engine) -> None:
    """By UTC, wherever server and clerk stand; from the oldest row's month to a year ahead."""
    upgrade(engine, "0004")
    insert(engine, _OLD, "2026-05-31 23:59:59.999999+00", "2026-06-01 00:00:00+00")
    upgrade(engine)
    assert sorted(homes(engine).values()) == [
        "prediction_payloads_2026_05",
        "prediction_payloads_2026_06",
    ]
    found = {t for t in inspect(engine).get_table_names() if t.startswith("prediction_payloads_")}
    assert min(found) == "prediction_payloads_2026_05"
    assert f"prediction_payloads_{NOW.year + 1}_{NOW.month:02}" in found


def test_every_month_has_the_key_of_the_whole(engine: Engine) -> None:
    """So that a prediction is found in it by its id."""
    upgrade(engine)
    looking = inspect(engine)
    months = [t for t in looking.get_table_names() if t.startswith("prediction_payloads_2")]
    assert len(months) == 13
    for month in months:
        assert looking.get_pk_constraint(month)["constrained_columns"] == [
            "prediction_id",
            "computed_at",
        ]


def test_a_row_of_a_month_nobody_made_is_kept_and_goes_home_when_it_is(engine: Engine) -> None:
    """Nothing is refused for want of a month, and nothing stays astray."""
    upgrade(engine)
    inside = ("2042-11-01 00:00:00+00", "2042-11-30 23:59:59+00")
    outside = ("2042-10-31 23:59:59+00", "2044-01-01 00:00:00+00")
    insert(engine, _PAYLOAD, *inside, *outside)
    assert set(homes(engine).values()) == {"prediction_payloads_other"}
    made = make_months(engine, FAR)
    assert (made[0], made[-1]) == ("prediction_payloads_2042_11", "prediction_payloads_2043_11")
    assert homes(engine) == {
        **dict.fromkeys(inside, "prediction_payloads_2042_11"),
        **dict.fromkeys(outside, "prediction_payloads_other"),
    }


def test_upgrading_again_makes_the_months_that_came_nearer(engine: Engine) -> None:
    """The same command, though the revision is current; a second time it has nothing to do."""
    upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text(f"DROP TABLE prediction_payloads_{NOW:%Y_%m}"))
    (said,) = warnings_of(engine, NOW.date())
    assert f"predictions of {NOW:%Y-%m} have no partition" in said
    assert "run `varsel db upgrade`" in said
    upgrade(engine)
    assert warnings_of(engine, NOW.date()) == []
    assert make_months(engine, NOW.date()) == []


def test_it_is_said_a_month_before(engine: Engine) -> None:
    """This month's rows, or the next one's, would have no partition."""
    upgrade(engine)
    for last in (9, 10):
        with engine.begin() as connection:
            connection.execute(
                text(
                    f"CREATE TABLE prediction_payloads_2042_{last:02} PARTITION OF "
                    f"prediction_payloads FOR VALUES FROM ('2042-{last:02}-01+00') "
                    f"TO ('2042-{last + 1:02}-01+00')"
                )
            )
    expected = {
        date(2042, 9, 30): [],
        date(2042, 10, 31): [date(2042, 11, 1)],
        date(2042, 11, 1): [date(2042, 11, 1), date(2042, 12, 1)],
        date(2042, 12, 31): [date(2042, 12, 1), date(2043, 1, 1)],
    }
    for today, missing in expected.items():
        assert missing_months(engine, today, ahead=1) == missing
        assert len(warnings_of(engine, today)) == len(missing)


def test_sqlite_has_no_months(sqlite_url: str) -> None:
    """One table, nothing to make and nothing to warn of."""
    engine = open_engine(sqlite_url)
    assert make_months(engine, FAR) == []
    assert warnings_of(engine, FAR) == []
    engine.dispose()


def test_months_that_cannot_be_read_are_said_to_be_so(postgresql_server: Postgres) -> None:
    """No warning is not the same as nothing to warn of."""
    engine = open_engine(postgresql_server.url("absent"))
    with pytest.raises(LogUnavailable, match="cannot be read"):
        warnings_of(engine, FAR)
    engine.dispose()
