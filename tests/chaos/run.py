"""`make chaos`: two workers and their database are killed again and again while clients ask.

Two real `varsel serve` on one real PostgreSQL, each with a spool of its own; sixteen clients that
never pause, and ask again where they got no answer; in each round a worker, the database, or both
get `kill -9` at a random moment (seeded) and come back. Every answer a client got is remembered,
and looked for in the log at the end. Ends with one line of JSON; exits 1 where anything is missed.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import text

from cds_service.db.log import open_engine
from cds_service.db.migrate import upgrade
from cds_service.settings import Settings
from tests.bench.production import patient_caller, request_now
from tests.bench.records import Request
from tests.decided import bring_live
from tests.outages import come_true, faults_of
from tests.postgres import Postgres, postgres

ROOT = Path(__file__).parents[2]
ROUNDS, CONNECTIONS, RESOURCES, SEED = 20, 16, 50, 20261122
PATH = "/cds-services/readmission-30d"
STARTS_WITHIN_S = 60.0
_TRIES = 6
"""How often a client asks again for a call that got no answer, before it gives it up."""
Victim = Literal["worker", "database", "both"]
VICTIMS: tuple[Victim, ...] = ("worker", "database", "both")


# ---- the installation -----------------------------------------------------------------------


@dataclass(slots=True)
class Worker:
    """A `varsel serve` on a port of its own, with a folder that outlives it."""

    port: int
    folder: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self.folder / "stderr").open("ab") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cds_service", "serve", "--port", str(self.port)],
                stdout=subprocess.DEVNULL, stderr=err, env=self.environment, cwd=self.folder,
            )  # fmt: skip
        if not come_true(lambda: self.readiness() is not None, within_s=STARTS_WITHIN_S):
            raise RuntimeError(f"the worker did not start: {self.said()[-2000:]}")

    def end(self, how: signal.Signals) -> None:
        """Send it a signal, and wait for its end."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(60)

    def readiness(self) -> str | None:
        """What its readiness says; None where it does not answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return str(json.load(connection.getresponse())["status"])
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def said(self) -> str:
        """What it printed, in all its lives."""
        return (self.folder / "stderr").read_text(encoding="utf-8")


@contextmanager
def installation(folder: Path, server: Postgres) -> Iterator[tuple[list[Worker], str, str]]:
    """Two workers, running, on a new database; with a caller's token and the database's URL."""
    url = server.url(server.create(name="chaos"))
    callers, token = patient_caller(folder)
    settings = Settings(
        database_url=url, state_dir=folder, callers_file=callers, allow_synthetic_models=True
    )
    engine = open_engine(url)
    upgrade(engine)
    engine.dispose()
    bring_live(settings)
    workers = [_worker(folder / name, url, callers) for name in ("a", "b")]
    try:
        for worker in workers:
            worker.start()
        yield workers, token, url
    finally:
        for worker in workers:
            worker.end(signal.SIGTERM)


def _worker(folder: Path, url: str, callers: Path) -> Worker:
    folder.mkdir()
    clean = {k: v for k, v in os.environ.items() if not k.startswith("VARSEL_")}
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    return Worker(port, folder, {
        **clean,
        "VARSEL_PROFILE": "production",
        "VARSEL_DATABASE_URL": url,
        "VARSEL_CALLERS_FILE": str(callers),
        "VARSEL_STATE_DIR": str(folder),
        "VARSEL_PSEUDONYM_KEY": base64.b64encode(b"p" * 32).decode(),
        "VARSEL_SEAL_KEY": base64.b64encode(b"s" * 32).decode(),
        "VARSEL_ALLOW_SYNTHETIC_MODELS": "true",
        "VARSEL_CALLS_PER_MINUTE": "1000000",
        "PYTHONPATH": str(ROOT),
    })  # fmt: skip


# ---- the clients ----------------------------------------------------------------------------


@dataclass(slots=True)
class Seen:
    """What one client saw: how its calls ended, and every answer it got, by call."""

    ended: Counter[str] = field(default_factory=Counter)
    answers: list[tuple[str, str]] = field(default_factory=list)
    cards: int = 0


def ask_until(
    ended: threading.Event, ports: list[int], token: str, *, request: Request, seed: int
) -> Seen:
    """Ask without a pause; a call without an answer again, of either worker."""
    chance, seen = random.Random(seed), Seen()
    while not ended.is_set():
        instance = uuid.UUID(int=chance.getrandbits(128), version=4)
        body = request.body(instance)
        for _ in range(_TRIES):
            answer = _answer(chance.choice(ports), token, body, seen)
            if answer is not None:
                seen.answers.append((str(instance), answer))
                seen.cards += len(json.loads(answer)["cards"])
                if chance.random() > 0.1:  # some ask once more all the same
                    break
            elif ended.wait(0.05):
                break
    return seen


def _answer(port: int, token: str, body: bytes, seen: Seen) -> str | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    try:
        connection.request("POST", PATH, body, headers)
        answer = connection.getresponse()
        content = answer.read().decode()
    except (OSError, http.client.HTTPException):
        seen.ended["no answer"] += 1
        return None
    finally:
        connection.close()
    seen.ended[str(answer.status)] += 1
    return content if answer.status == 200 else None


# ---- chaos ----------------------------------------------------------------------------------


@dataclass(slots=True)
class Chaos:
    """What was done, what the clients saw, and what the log holds."""

    kills: Counter[str]
    seen: list[Seen]
    rows: Counter[tuple[str, str]]
    half_rows: int
    further: int
    faults: list[str]
    said: str
    lasted_s: float


def chaos(rounds: int, seed: int, *, connections: int = CONNECTIONS) -> Chaos:
    """Kill and restart for some rounds under load, then look at what is left."""
    with (
        tempfile.TemporaryDirectory(prefix="varsel-chaos-") as name,
        postgres(shared_buffers="64MB") as server,
        installation(Path(name), server) as (workers, token, url),
    ):
        began = time.monotonic()
        request = request_now(RESOURCES, datetime.now(UTC))
        ended, seen = threading.Event(), list[Seen]()
        ports = [worker.port for worker in workers]

        def ask(number: int) -> None:
            seen.append(ask_until(ended, ports, token, request=request, seed=seed + number))

        clients = [threading.Thread(target=ask, args=(n,)) for n in range(connections)]
        for client in clients:
            client.start()
        try:
            kills = _kill(workers, server, rounds=rounds, seed=seed)
        finally:
            ended.set()
            for client in clients:
                client.join(60)
        lasted_s = time.monotonic() - began
        _await_stored(workers)
        said = "".join(worker.said() for worker in workers)
        return Chaos(kills, seen, *_held(url), faults_of(url), said, lasted_s)


def _kill(workers: list[Worker], server: Postgres, *, rounds: int, seed: int) -> Counter[str]:
    chance, kills = random.Random(seed), Counter[str]()
    for number in range(rounds):
        victim = VICTIMS[number % 3]
        worker = chance.choice(workers)
        time.sleep(chance.uniform(0.5, 2.0))
        if victim in ("database", "both"):
            server.kill()
        if victim in ("worker", "both"):
            time.sleep(chance.uniform(0, 0.5))
            worker.end(signal.SIGKILL)
        time.sleep(chance.uniform(0.2, 2.0))
        if victim in ("database", "both"):
            server.start()
        if victim in ("worker", "both"):
            worker.start()
        kills[victim] += 1
        print(f"chaos: round {number + 1}, {victim}", file=sys.stderr, flush=True)
    return kills


def _await_stored(workers: list[Worker]) -> None:
    """Wait until the spools are empty."""
    for worker in workers:
        if not come_true(lambda: worker.readiness() == "ready", within_s=120):  # noqa: B023
            raise RuntimeError(f"a worker did not become ready: {worker.said()[-2000:]}")


def _held(url: str) -> tuple[Counter[tuple[str, str]], int, int]:
    """How often the log holds each answer, by call; how many rows are not whole; how many are
    further answers to a call.
    """
    engine = open_engine(url)
    query = """
        SELECT p.hook_instance, d.response, e.sealed IS NULL, k.id IS NULL, p.attempt
        FROM predictions p
        LEFT JOIN prediction_payloads d USING (prediction_id, computed_at)
        LEFT JOIN vault_entries e USING (prediction_id) LEFT JOIN vault_keys k ON k.id = e.key_id
    """
    with engine.connect() as connection:
        rows = connection.execute(text(query)).all()
        halves = connection.execute(
            text("""
            SELECT (SELECT count(*) FROM prediction_payloads) + (SELECT count(*) FROM vault_entries)
        """)
        ).scalar_one()
    engine.dispose()
    broken = sum(response is None or bare or lost for _, response, bare, lost, _ in rows)
    held = Counter((instance, response) for instance, response, *_ in rows)
    return held, broken + abs(halves - 2 * len(rows)), sum(row[-1] > 0 for row in rows)


# ---- figures --------------------------------------------------------------------------------


def figures_of(done: Chaos) -> dict[str, Any]:
    """Counts of requests, answers, cards, rows, and of all that may not be."""
    shown = {answer for seen in done.seen for answer in seen.answers}
    ended = sum((seen.ended for seen in done.seen), Counter[str]())
    events = Counter[str]()
    for line in done.said.splitlines():
        with suppress(ValueError):
            event = json.loads(line)
            events[event["event"]] += event.get("records", 1)
    return {
        "rounds": sum(done.kills.values()),
        "kills": dict(done.kills),
        "seconds": round(done.lasted_s),
        "connections": len(done.seen),
        "requests": sum(ended.values()),
        "ended": dict(sorted(ended.items())),
        "answers": sum(len(seen.answers) for seen in done.seen),
        "cards": sum(seen.cards for seen in done.seen),
        "rows": sum(done.rows.values()),
        "further_answers": done.further,
        "times_spooled": events["spooling"],
        "stored_from_spool": events["spool stored"],
        "spools_taken_over": events["spool taken over"],
        "losses": sum(answer not in done.rows for answer in shown),
        "duplicates": sum(count > 1 for count in done.rows.values()),
        "half_rows": done.half_rows,
        "chain_faults": len(done.faults),
        "first_faults": done.faults[:3],
    }


def missed_targets(figures: dict[str, Any], rounds: int) -> list[str]:
    """What may not be and was, in words."""
    missed = [
        f"{figures[name]} {said}"
        for name, said in (
            ("losses", "answers that were shown are not in the log"),
            ("duplicates", "answers are in the log more than once"),
            ("half_rows", "predictions without payload or vault entry, or the other way round"),
            ("chain_faults", "faults in the chains"),
        )
        if figures[name]
    ]
    if not figures["cards"]:
        missed.append("no card was shown")
    if rounds < ROUNDS:
        missed.append(f"{rounds} rounds, at least {ROUNDS}")
    return [*missed, *figures["first_faults"]]


def main() -> int:
    """Run it; 1 where a target is missed or it could not be run."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seed", type=int, default=SEED)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends what it started on the way out
    figures: dict[str, Any] = {}
    try:
        figures = figures_of(chaos(given.rounds, given.seed))
        missed = missed_targets(figures, given.rounds)
    except (RuntimeError, AssertionError, OSError) as failure:
        missed = [f"chaos could not be run to its end: {failure}"]
    for said in missed:
        print(f"MISSED {said}")
    print(json.dumps({"target": "chaos", "figures": figures, "missed": missed}))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
