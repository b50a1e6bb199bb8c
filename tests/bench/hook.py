"""`make bench`: what a hook call costs, stage by stage and whole, against two yardsticks.

`records` builds the requests, `stages` times the parts in this process, `floor` is the server that
does only what cannot be left out, `servers` and `client` run and load both; here they take turns,
round after round, so that a noisy machine is as noisy to one as to the other. Ends with one line of
JSON and exits 1 where a target is missed. Method and figures of a day: docs/performance.md.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

from tests.bench.client import send_burst
from tests.bench.production import patient_caller
from tests.bench.records import SIZES, Request, hook_request
from tests.bench.servers import FLOOR, PRODUCT, Server, running
from tests.bench.stages import PATH, running_app, stage_times, validation_time

MOST_TIMES_FLOOR = 2.0
LONGEST_START_S = 6.0
MOST_MEMORY_MB = 450.0

STARTS = 3
ROUNDS, ROUNDS_LAST_S = 20, 110.0
"""Rounds on a quiet machine; none begins later than this after the first."""
CONNECTIONS = (1, 16)
REQUESTS = {50: {1: 12, 16: 32}, 500: {1: 8, 16: 16}, 5000: {1: 3, 16: 16}}
"""Requests in a burst, by size and connections; short, so that the turns are quick."""
STAGE_CALLS = {50: 4, 500: 3, 5000: 1}
VALIDATIONS = {50: 5, 500: 3, 5000: 1}
"""In how many of the rounds the record is also fully validated."""
_SPIN = 400_000


@dataclass(frozen=True, slots=True)
class Burst:
    """What one burst cost the server per request, and what the client saw; milliseconds."""

    cpu_ms: float
    latencies_ms: list[float]
    per_second: float


@dataclass(slots=True)
class Seen:
    """All that was measured: bursts by (server, size, connections), stages and validation by size,
    and what the same small piece of work cost at each turn (CPU and wall, milliseconds)."""

    rounds: int = 0
    bursts: dict[tuple[str, int, int], list[Burst]] = field(default_factory=dict)
    stages: dict[int, list[dict[str, float]]] = field(default_factory=dict)
    validation: dict[int, list[float]] = field(default_factory=dict)
    spins: list[tuple[float, float]] = field(default_factory=list)
    starts_s: list[float] = field(default_factory=list)
    memory_mb: float = 0.0


async def measure() -> Seen:
    """Every measurement, in turns. Servers are ended whatever happens."""
    seen = Seen()
    with ExitStack() as stack:
        for _ in range(STARTS - 1):
            with running(PRODUCT, _folder(stack)) as started:
                seen.starts_s.append(started.ready_after_s)
        callers, token = patient_caller(_folder(stack))
        known = {"VARSEL_CALLERS_FILE": str(callers), "VARSEL_CALLS_PER_MINUTE": "1000000"}
        product = stack.enter_context(running(PRODUCT, _folder(stack), known))
        seen.starts_s.append(product.ready_after_s)
        floor = stack.enter_context(running(FLOOR, _folder(stack)))
        async with running_app(_folder(stack)) as (app, log):
            for size in SIZES:  # what the first calls pay is not what calls cost
                await _take_turns(Seen(), product, floor, hook_request(size), token=token)
            began = perf_counter()
            while seen.rounds < ROUNDS and perf_counter() - began < ROUNDS_LAST_S:
                seen.rounds += 1
                _progress(f"round {seen.rounds} of {ROUNDS}")
                for size in SIZES:
                    request = hook_request(size)
                    await _take_turns(seen, product, floor, request, token=token)
                    times = await stage_times(app, log, request, STAGE_CALLS[size])
                    seen.stages.setdefault(size, []).extend(times)
                    if seen.rounds <= VALIDATIONS[size]:
                        found = validation_time(request)
                        seen.validation.setdefault(size, []).append(found)
        seen.memory_mb = product.memory_mb()
    return seen


def _folder(stack: ExitStack) -> Path:
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="varsel-bench-")))


def _progress(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


async def _take_turns(
    seen: Seen, product: Server, floor: Server, request: Request, *, token: str
) -> None:
    """A burst to each at each number of connections; who is first changes every round.

    `token`: proves the caller to the product; the floor does not look at it.
    """
    turns = [("product", product, PATH), ("floor", floor, f"/{request.resources}")]
    if seen.rounds % 2:
        turns.reverse()
    for connections in CONNECTIONS:
        seen.spins.append(_spin())
        for name, server, path in turns:
            burst = await _burst(server, path, request, connections=connections, token=token)
            seen.bursts.setdefault((name, request.resources, connections), []).append(burst)


async def _burst(
    server: Server, path: str, request: Request, *, connections: int, token: str
) -> Burst:
    before = server.cpu_s()
    total = REQUESTS[request.resources][connections]
    load = await send_burst(
        server.port, path, request, connections=connections, total=total, token=token
    )
    return Burst(
        cpu_ms=1000 * (server.cpu_s() - before) / total,
        latencies_ms=[1000 * latency for latency in load.latencies_s],
        per_second=total / load.lasted_s,
    )


def _spin() -> tuple[float, float]:
    """Milliseconds of CPU and of wall time that the same small piece of work costs now."""
    cpu, wall = process_time(), perf_counter()
    sum(range(_SPIN))
    return 1000 * (process_time() - cpu), 1000 * (perf_counter() - wall)


# ---- figures --------------------------------------------------------------------------------


def figures_of(seen: Seen) -> dict[str, Any]:
    """The figures, medians over rounds; with the spread where noise matters. Milliseconds."""
    return {
        "rounds": seen.rounds,
        "start_to_ready_s": _spread(seen.starts_s),
        "resident_memory_mb": round(seen.memory_mb),
        "noise": {
            "same_work_cpu_ms": _spread(cpu for cpu, _ in seen.spins),
            "wall_per_cpu": _spread(wall / cpu for cpu, wall in seen.spins),
        },
        "sizes": {str(size): _size_figures(seen, size) for size in SIZES},
    }


def _size_figures(seen: Seen, size: int) -> dict[str, Any]:
    stages = seen.stages[size]
    return {
        "request_bytes": len(hook_request(size)),
        "stages_cpu_ms": {
            stage: round(median(call[stage] for call in stages), 3) for stage in stages[0]
        },
        "connections": {str(n): _request_figures(seen, size, n) for n in CONNECTIONS},
        "r4b_validation_cpu_ms": round(median(seen.validation[size]), 1),
    }


def _request_figures(seen: Seen, size: int, connections: int) -> dict[str, Any]:
    product = seen.bursts["product", size, connections]
    floor = seen.bursts["floor", size, connections]
    ratios = [p.cpu_ms / f.cpu_ms for p, f in zip(product, floor, strict=True)]
    return {
        "times_floor": _spread(ratios),
        "cpu_ms": _spread(burst.cpu_ms for burst in product),
        "floor_cpu_ms": _spread(burst.cpu_ms for burst in floor),
        **_latency(product),
        "per_second": round(median(burst.per_second for burst in product), 1),
        "floor": _latency(floor),
    }


def _latency(bursts: list[Burst]) -> dict[str, float]:
    latencies = sorted(latency for burst in bursts for latency in burst.latencies_ms)
    slow = latencies[min(len(latencies) - 1, int(0.95 * len(latencies)))]
    return {"p50_ms": round(median(latencies), 2), "p95_ms": round(slow, 2)}


def _spread(values: Iterable[float]) -> dict[str, float]:
    """Smallest, median and largest."""
    numbers = list(values)
    named = {"min": min(numbers), "median": median(numbers), "max": max(numbers)}
    return {name: round(number, 3) for name, number in named.items()}


def missed_targets(figures: dict[str, Any]) -> list[str]:
    """The targets that were missed, in words.

    Ratios count by their median. Of the starts the fastest counts: what else the machine does can
    only make a start longer.
    """
    missed = []
    for size, of_size in figures["sizes"].items():
        for connections, found in of_size["connections"].items():
            ratio = found["times_floor"]["median"]
            if ratio > MOST_TIMES_FLOOR:
                missed.append(
                    f"{size} resources, {connections} connections: {ratio:.2f} times the floor,"
                    f" at most {MOST_TIMES_FLOOR:g}"
                )
    ready = figures["start_to_ready_s"]["min"]
    if ready >= LONGEST_START_S:
        missed.append(f"ready after {ready:.1f} s, under {LONGEST_START_S:g}")
    memory = figures["resident_memory_mb"]
    if memory >= MOST_MEMORY_MB:
        missed.append(f"resident memory {memory} MB, under {MOST_MEMORY_MB:g}")
    return missed


# ---- showing --------------------------------------------------------------------------------


def table(figures: dict[str, Any]) -> str:
    """The figures as text to read."""
    parts = (_stage_lines(figures["sizes"]), _request_lines(figures["sizes"]), _machine(figures))
    return "\n\n".join("\n".join(lines) for lines in parts)


def _stage_lines(sizes: dict[str, Any]) -> list[str]:
    stages = list(next(iter(sizes.values()))["stages_cpu_ms"])
    rows = [
        _row(
            size,
            of["request_bytes"],
            *(f"{of['stages_cpu_ms'][stage]:.2f}" for stage in stages),
            f"{of['r4b_validation_cpu_ms']:.0f}",
        )
        for size, of in sizes.items()
    ]
    title = "Stages in one process, CPU ms (medians); R4B: full validation with fhir.resources"
    return [title, _row("resources", "bytes", *stages, "R4B"), *rows]


def _request_lines(sizes: dict[str, Any]) -> list[str]:
    rows = [
        _row(
            size,
            connections,
            *(f"{found[name]['median']:.2f}" for name in ("cpu_ms", "floor_cpu_ms")),
            *(f"{found[name]:.1f}" for name in ("p50_ms", "p95_ms", "per_second")),
            _three(found["times_floor"]),
        )
        for size, of in sizes.items()
        for connections, found in of["connections"].items()
    ]
    title = "Whole requests over HTTP; CPU ms of the server per request; times floor min/median/max"
    names = ("cpu", "floor cpu", "p50 ms", "p95 ms", "per s", "times floor")
    return [title, _row("resources", "conns", *names), *rows]


def _machine(figures: dict[str, Any]) -> list[str]:
    noise = figures["noise"]
    spent, waited = _three(noise["same_work_cpu_ms"]), _three(noise["wall_per_cpu"])
    return [
        f"start to ready {_three(figures['start_to_ready_s'])} s (min/median/max)",
        f"resident memory {figures['resident_memory_mb']} MB after the run",
        f"{figures['rounds']} rounds",
        f"noise: the same work took {spent} ms of CPU, and {waited} times that on the wall",
    ]


def _row(*cells: object) -> str:
    return "".join(f"{cell!s:>11}" for cell in cells)


def _three(spread: dict[str, float]) -> str:
    return "/".join(f"{number:.2f}" for number in spread.values())


def main() -> int:
    """Run the bench; 1 where a target is missed or it could not be run."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the servers on the way out
    figures: dict[str, Any] = {}
    try:
        figures = figures_of(asyncio.run(measure()))
        missed = missed_targets(figures)
        print(table(figures))
    except (RuntimeError, TimeoutError) as failure:
        missed = [f"the bench could not be run: {failure}"]
    for text in missed:
        print(f"MISSED {text}")
    print(json.dumps({"target": "bench", "figures": figures, "missed": missed}))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
