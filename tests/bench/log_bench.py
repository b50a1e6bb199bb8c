"""`make bench-log`: a million predictions (or `--rows`) in SQLite and in PostgreSQL.

How fast they go in, how large they are with their indexes, how long the questions take that are
asked of them and whether each goes by an index; how long `varsel log verify` takes over all of
them; and what full durability costs (`log_durability.py`). Ends with one line of JSON and exits 1
where something is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import psutil  # type: ignore[import-untyped]
from sqlalchemy import Engine, event, text

from cds_service.card_ids import ids_of_card
from cds_service.db.feedback import predictions_of
from cds_service.db.log import open_engine
from cds_service.db.migrate import upgrade
from cds_service.db.partitions import make_months
from cds_service.db.reader import WHOLE, LogReader
from cds_service.db.search import Wanted, predictions_page
from cds_service.db.tables import predictions
from tests.bench import log_rows
from tests.bench.log_durability import LEAST_SHARE, log_alone, served
from tests.bench.log_rows import Template
from tests.bench.servers import ROOT
from tests.bench.sides import SHORTEST_WINDOW_S
from tests.postgres import postgres

ROWS = 1_000_000
KINDS = ("postgresql", "sqlite")
TRY_WINDOW_S = 3.0
"""Seconds of a window of the service where fewer rows are asked for: it is a try."""
_LOOK_S = 0.05
"""Seconds between two looks at the memory of what verifies."""
ASKED = 25
_SMALL = 1000
"""Rows of a table that may well be read whole."""
LONGEST_MS = {
    "read by id": 20.0,
    "last shown to a patient": 20.0,
    "a page of 100 by organisation and time": 100.0,
    "a patient's predictions": 50.0,
    "predictions near a card's id": 20.0,
    "a model's features of a month": 5000.0,
}
"""The median of each question, in milliseconds; the first two and the fifth stand in a call."""
Question = Callable[[int], object]


def main() -> int:
    """Run the bench; 1 where something is missed."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--window", type=float, help="seconds of load on the service, each time")
    asked = parser.parse_args()
    count: int = asked.rows
    window_s = asked.window or (SHORTEST_WINDOW_S if count >= ROWS else TRY_WINDOW_S)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the servers on the way out
    template = log_rows.real_call()
    figures: dict[str, Any] = {"rows": count, "payload_bytes": _payload_bytes(template)}
    missed = _too_small(count, window_s)
    for kind in KINDS:
        with databases(kind) as make:
            figures[kind], lacking = measured(make, template, count, window_s=window_s)
        missed += [f"{kind}: {said}" for said in lacking]
    for said in missed:
        print(f"MISSED {said}")
    print(json.dumps({"target": "bench-log", "figures": figures, "missed": missed}))
    return 1 if missed else 0


def _too_small(count: int, window_s: float) -> list[str]:
    """What was asked for smaller than the figures are of."""
    missed = [] if count >= ROWS else [f"{count} rows, at least {ROWS}"]
    if window_s < SHORTEST_WINDOW_S:
        missed.append(f"windows of {window_s:g} s, at least {SHORTEST_WINDOW_S:g}")
    return missed


@contextmanager
def databases(kind: str) -> Iterator[Callable[[], str]]:
    """What makes an empty database of a kind; PostgreSQL as large as a small server of a
    hospital's."""
    if kind == "postgresql":
        with postgres(shared_buffers="512MB", max_wal_size="8GB") as server:
            yield lambda: server.url(server.create())
    else:
        with tempfile.TemporaryDirectory(prefix="varsel-bench-") as folder:
            yield lambda: f"sqlite:///{Path(tempfile.mkdtemp(dir=folder)) / 'varsel.db'}"


def measured(
    make: Callable[[], str], template: Template, count: int, *, window_s: float
) -> tuple[dict[str, Any], list[str]]:
    """The figures of a kind of database, and what is missed there."""
    url = make()
    figures, missed = of_rows(url, template, count)
    _say("log verify")
    figures["verify"], lacking = verified(url, count)
    _say(f"the log alone, after {figures['verify']}")
    figures["log_alone"] = log_alone(url, template)
    _say(f"the service, after {figures['log_alone']}")
    figures["service"] = served({"durable": make(), "lax": make()}, window_s)
    _say(f"{figures['service']}")
    return figures, [*missed, *lacking, *_missed_of_service(figures["service"])]


def _missed_of_service(service: Mapping[str, Any]) -> list[str]:
    missed = []
    if service["share"] < LEAST_SHARE:
        said = f"{service['share']:.0%} of the service's throughput without durability"
        missed.append(f"{said}, at least {LEAST_SHARE:.0%}")
    if set(service["predictions"]) != {"scored"}:
        missed.append(f"not every prediction was scored: {service['predictions']}")
    return missed


def of_rows(url: str, template: Template, count: int) -> tuple[dict[str, Any], list[str]]:
    """The figures of so many rows in an empty database, and what is missed there."""
    until = datetime.now(UTC)
    engine = open_engine(url)
    upgrade(engine)
    for months in (log_rows.MONTHS + 1, 12):
        make_months(engine, (until - timedelta(days=31 * months)).date())
    seconds = 0.0
    for number, batch in enumerate(log_rows.load(engine, template, count, until), 1):
        seconds += batch
        if number % 50 == 0:
            _say(f"{engine.name}: {number * log_rows.BATCH} rows, {seconds:.0f} s")
    _settle(engine)
    figures: dict[str, Any] = {
        "inserted_per_s": round(count / seconds),
        "bytes_per_row": round(_size(engine) / count),
    }
    figures["ms"], missed = answers(engine, template, count, until)
    engine.dispose()
    return figures, missed


def _payload_bytes(template: Template) -> int:
    payload = template.rows["prediction_payloads"]
    return sum(len(value.encode()) for value in payload.values() if isinstance(value, str))


def _settle(engine: Engine) -> None:
    """What PostgreSQL does by itself within minutes: count rows, and mark pages as all visible."""
    if engine.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("SET statement_timeout = 0"))
            connection.execute(text("VACUUM ANALYZE"))


def _size(engine: Engine) -> int:
    size = {
        "postgresql": "SELECT pg_database_size(current_database())",
        "sqlite": "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()",
    }
    with engine.connect() as connection:
        return int(connection.execute(text(size[engine.name])).scalar_one())


# ---- the questions --------------------------------------------------------------------------


def questions(
    engine: Engine, template: Template, count: int, until: datetime
) -> dict[str, Question]:
    """What is asked of the log, each of another row by its number."""
    log = LogReader(engine)
    version = template.rows["predictions"]["model_version"]
    card = json.loads(template.rows["prediction_payloads"]["response"])["cards"][0]["uuid"]
    assert ids_of_card(card)

    def pseudonym(number: int) -> str:
        return log_rows.patient_of(number, count)[1]

    def shown(number: int) -> object:
        organisation, patient = log_rows.patient_of(number, count)
        model = log_rows.MODELS[number % len(log_rows.MODELS)]
        at = log_rows.time_of(number, count, until)
        own = {"organisation": organisation, "patient_pseudonym": patient, "service": model}
        row = template.given | template.rows["predictions"] | own
        return log.last_shown(row | {"index_time": at, "hook_instance": ""}, lambda _: True)

    def page(number: int) -> object:
        at = log_rows.time_of(number, count, until)
        wanted = Wanted(log_rows.ORGANISATIONS[number % 4], from_=at)
        return predictions_page(engine, wanted, after=None, limit=100, payload=("document",))

    def of_patient(number: int) -> object:
        query = WHOLE.where(predictions.c.patient_pseudonym == pseudonym(number))
        with engine.connect() as connection:
            return connection.execute(query).all()

    def feedback(_: int) -> object:
        return predictions_of(engine, [card], organisation="demo", service="readmission-30d")

    def month(number: int) -> object:
        model = log_rows.MODELS[number % len(log_rows.MODELS)]
        return log.features_since(model, version, until - timedelta(days=30))

    return {
        "read by id": lambda number: log.read(log_rows.prediction_id(number)),
        "last shown to a patient": shown,
        "a page of 100 by organisation and time": page,
        "a patient's predictions": of_patient,
        "predictions near a card's id": feedback,
        "a model's features of a month": month,
    }


def answers(
    engine: Engine, template: Template, count: int, until: datetime
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Median and 95th percentile of each question in milliseconds, and which read a whole table."""
    times, missed = {}, []
    for name, question in questions(engine, template, count, until).items():
        whole = whole_tables(engine, question)
        if "month" in name:  # a share of a month's rows is best read from the whole month
            whole = [said for said in whole if said not in _of_month(until)]
        missed += [f"{name}: {said}" for said in whole]
        repeats = 5 if "month" in name else ASKED
        numbers = [(2 * n + 1) * count // (2 * repeats) for n in range(repeats)]
        spent = [_milliseconds(question, number) for number in numbers]
        times[name] = {
            "p50": round(median(spent), 2),
            "p95": round(quantiles(spent, n=20, method="inclusive")[-1], 2),
        }
        _say(f"{engine.name}: {name}: {times[name]}")
        if times[name]["p50"] > LONGEST_MS[name]:
            said = f"{name}: {times[name]['p50']} ms, at most {LONGEST_MS[name]:g}"
            missed.append(said)
    return times, missed


def _of_month(until: datetime) -> set[str]:
    """What is said of the tables of the months that the last thirty days lie in."""
    days = until, until - timedelta(days=30)
    return {f"goes through prediction_payloads_{day:%Y_%m}" for day in days}


def _milliseconds(question: Question, number: int) -> float:
    began = time.perf_counter()
    question(number)
    return 1000 * (time.perf_counter() - began)


def whole_tables(engine: Engine, question: Question) -> list[str]:
    """The large tables a question goes through row by row, as the database plans it."""
    asked: list[tuple[str, Any]] = []

    def note(*given: Any) -> None:
        asked.append((given[2], given[3]))

    event.listen(engine, "before_cursor_execute", note)
    question(1)
    event.remove(engine, "before_cursor_execute", note)
    plan = {"postgresql": _whole_postgresql, "sqlite": _whole_sqlite}[engine.name]
    return sorted({said for statement, given in asked for said in plan(engine, statement, given)})


def _whole_postgresql(engine: Engine, statement: str, given: Any) -> list[str]:
    with engine.connect() as connection:
        explained = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", given)
        nodes = list(_nodes(explained.scalar_one()[0]["Plan"]))
        large = text("SELECT relname FROM pg_class WHERE relkind = 'r' AND reltuples > :small")
        names = set(connection.execute(large, {"small": _SMALL}).scalars())
    scanned = {n["Relation Name"] for n in nodes if n["Node Type"] == "Seq Scan"}
    return [f"goes through {name}" for name in scanned & names]


def _nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from _nodes(below)


def _whole_sqlite(engine: Engine, statement: str, given: Any) -> list[str]:
    with engine.connect() as connection:
        explained = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", given)
        details = [str(row[3]) for row in explained]
    return [said for said in details if said.startswith("SCAN") and " USING " not in said]


# ---- the chains -----------------------------------------------------------------------------


def verified(url: str, count: int) -> tuple[dict[str, Any], list[str]]:
    """What `varsel log verify` takes for the whole log, its start among it, and what is missed."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("VARSEL_")}
    environment = {**own, "VARSEL_DATABASE_URL": url}
    began, peak = time.perf_counter(), 0
    child = subprocess.Popen(
        [sys.executable, "-m", "cds_service", "log", "verify", "--json"],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE,
    )  # fmt: skip
    process = psutil.Process(child.pid)
    while child.poll() is None:
        peak = max(peak, process.memory_info().rss)
        time.sleep(_LOOK_S)
    seconds = time.perf_counter() - began
    said, _ = child.communicate()
    report = json.loads(said or b"{}")
    counted = report.get("predictions", 0)
    missed = [] if child.returncode == 0 else [f"log verify: exit code {child.returncode}"]
    if counted != count:
        missed.append(f"log verify: {counted} predictions, {count} were made")
    return {
        "predictions": counted,
        "chains": report.get("chains", 0),
        "seconds": round(seconds, 1),
        "per_s": round(counted / seconds),
        "peak_mb": round(peak / 1e6),
    }, missed


def _say(said: str) -> None:
    print(f"bench-log: {said}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
