"""What full durability costs: the service's callers, and the log by itself.

`served`: the real service on a database of its own, once as it is and once with durability switched
off (`lax`), under sixteen callers' connections. This is what the target is of. `log_alone`: the log
without a service around it, with sixteen writers that do nothing but write: the hardest case.
Both take turns, and a share is of turns next to each other. Called by `log_bench`.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from statistics import median
from typing import Any

from sqlalchemy import event

from cds_service.db.log import PredictionLog, open_engine
from tests.bench.lax import make_lax
from tests.bench.log_rows import Template
from tests.bench.production import Installation, install, request_now
from tests.bench.servers import PRODUCT, running
from tests.bench.sides import CONNECTIONS, ROUNDS, WARM_UP_S, Side, Window
from tests.bench.stages import PATH

LEAST_SHARE = 0.85
"""Answers per second at full durability, as a share of those without."""
RESOURCES = 500
LAX = ("-m", "tests.bench.lax", "serve")
WRITERS = 16
TURNS, TURN_S = 8, 1.5
_STARTS = itertools.count()
"""Of each turn, so that no turn meets another's patients."""
Rounds = Sequence[Mapping[str, Window]]


# ---- the service ----------------------------------------------------------------------------


def served(urls: Mapping[str, str], window_s: float) -> dict[str, Any]:
    """Answers a second and CPU an answer of both forms, and their share.

    `urls`: an empty database for `durable` and one for `lax`. Raises RuntimeError where a server
    does not start or does not answer 200.
    """
    with ExitStack() as stack:
        sides, installations = {}, []
        for name, command in (("durable", PRODUCT), ("lax", LAX)):
            side, installed = stack.enter_context(_serving(name, command, urls[name]))
            sides[name] = side
            installations.append(installed)
        rounds = asyncio.run(_in_turns(sides, window_s))
        statuses = [installed.statuses() for installed in installations]
    return served_figures(rounds, statuses, window_s)


@contextmanager
def _serving(name: str, command: tuple[str, ...], url: str) -> Iterator[tuple[Side, Installation]]:
    with tempfile.TemporaryDirectory(prefix="varsel-durability-") as folder:
        installed = install(Path(folder), url)
        with running(command, Path(folder), installed.settings) as server:
            yield Side(name, server, PATH, installed.token), installed


async def _in_turns(sides: Mapping[str, Side], window_s: float) -> Rounds:
    request = request_now(RESOURCES, datetime.now(UTC))
    for side in sides.values():
        await side.answer(request, WARM_UP_S)
    rounds = []
    for turn in range(ROUNDS):
        order = list(sides.values())[:: -1 if turn % 2 else 1]
        rounds.append({side.name: await side.answer(request, window_s) for side in order})
    return rounds


def served_figures(
    rounds: Rounds, statuses: Sequence[Mapping[str, int]], window_s: float
) -> dict[str, Any]:
    """Medians over rounds, and the share of each; how many predictions had which status."""
    shares = [one["durable"].per_second / one["lax"].per_second for one in rounds]
    by_side = {name: [one[name] for one in rounds] for name in ("durable", "lax")}
    return {
        "connections": CONNECTIONS,
        "resources": RESOURCES,
        "window_s": window_s,
        "per_second": {n: round(median(w.per_second for w in s), 1) for n, s in by_side.items()},
        "cpu_ms": {n: round(median(w.cpu_ms for w in s), 1) for n, s in by_side.items()},
        "share": round(median(shares), 3),
        "share_each_round": [round(share, 3) for share in shares],
        "predictions": {k: sum(s.get(k, 0) for s in statuses) for k in set().union(*statuses)},
    }


# ---- the log by itself ----------------------------------------------------------------------


def log_alone(url: str, template: Template) -> dict[str, Any]:
    """Predictions stored a second with and without durability, in turns, and their share."""
    pairs: list[tuple[float, float]] = []
    engines = open_engine(url), open_engine(url)
    event.listen(engines[1], "connect", make_lax)
    with (
        PredictionLog(engines[0], template.privacy) as durable,
        PredictionLog(engines[1], template.privacy) as lax,
    ):
        for number in range(TURNS + 1):
            order = (durable, lax) if number % 2 else (lax, durable)
            rates = {log: _stored_per_s(log, template) for log in order}
            pairs.append((rates[durable], rates[lax]))
    pairs = pairs[1:]  # the first turn warms up
    return {
        "writers": WRITERS,
        "durable_per_s": round(median(full for full, _ in pairs)),
        "lax_per_s": round(median(off for _, off in pairs)),
        "share": round(median(full / off for full, off in pairs), 3),
    }


def _stored_per_s(log: PredictionLog, template: Template) -> float:
    """With so many calls waiting for their commit at any time."""
    done: SimpleQueue[Any] = SimpleQueue()
    calls = itertools.count(next(_STARTS) * 1_000_000)
    stored, began = 0, time.perf_counter()
    for _ in range(WRITERS):
        log.store(template.call(next(calls))).add_done_callback(done.put)
    while time.perf_counter() - began < TURN_S:
        done.get().result()
        stored += 1
        log.store(template.call(next(calls))).add_done_callback(done.put)
    lasted = time.perf_counter() - began
    for _ in range(WRITERS):
        done.get().result()
    return stored / lasted
