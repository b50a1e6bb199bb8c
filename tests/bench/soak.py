"""`make soak`: sixteen clients that never pause, for ten minutes (or `--minutes`).

The production profile with a bearer token, 500 resources a call, every patient scored. No error, no
growth of memory after the warm-up, and the slowest hundredth within six times the median. Ends with
one line of JSON and exits 1 where something is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.client import Load, send_for
from tests.bench.production import install, request_now
from tests.bench.servers import PRODUCT, Server, running
from tests.bench.stages import PATH

CONNECTIONS, RESOURCES = 16, 500
MINUTES = 10.0
MOST_TIMES_MEDIAN = 6.0
MOST_GROWTH = 0.03
"""Share by which resident memory may differ between warm-up and end: the allocator breathes."""
WARM_UP_SHARE = 0.2
_SAMPLE_S = 1.0
PARTS = 10


@dataclass(frozen=True, slots=True)
class Soaked:
    """What the clients saw, the server's memory each second (MB), and what the log says."""

    load: Load
    memory_mb: list[float]
    statuses: dict[str, int]


async def soak(seconds: float) -> Soaked:
    """Sixteen clients for some seconds; RuntimeError where an answer is not 200."""
    with tempfile.TemporaryDirectory(prefix="varsel-soak-") as name:
        folder = Path(name)
        installed = install(folder)
        with running(PRODUCT, folder, installed.settings) as server:
            memory: list[float] = []
            watching = asyncio.create_task(_watch(server, memory))
            load = await send_for(
                server.port, PATH, request_now(RESOURCES, datetime.now(UTC)),
                connections=CONNECTIONS, seconds=seconds, token=installed.token,
            )  # fmt: skip
            watching.cancel()
        return Soaked(load, memory, installed.statuses())


async def _watch(server: Server, memory: list[float]) -> None:
    began = time.perf_counter()
    while True:
        memory.append(server.memory_mb())
        passed = time.perf_counter() - began
        if len(memory) % 30 == 0:
            print(f"soak: {passed:.0f} s, {memory[-1]:.0f} MB", file=sys.stderr, flush=True)
        await asyncio.sleep(_SAMPLE_S)


def figures_of(soaked: Soaked) -> dict[str, Any]:
    """Requests, latencies in milliseconds, and memory after the warm-up and at the end."""
    latencies = sorted(1000 * latency for latency in soaked.load.latencies_s)
    warm, end = _warm_and_end(soaked.memory_mb)
    p50, p99 = median(latencies), latencies[int(0.99 * (len(latencies) - 1))]
    return {
        "connections": CONNECTIONS,
        "resources": RESOURCES,
        "seconds": round(soaked.load.lasted_s),
        "requests": len(latencies),
        "per_second": round(len(latencies) / soaked.load.lasted_s, 1),
        "p50_ms": round(p50, 1),
        "p99_ms": round(p99, 1),
        "slowest_ms": round(latencies[-1], 1),
        "p99_times_p50": round(p99 / p50, 2),
        "memory_warm_mb": round(warm, 1),
        "memory_end_mb": round(end, 1),
        "growth": round(end / warm - 1, 4),
        "predictions": soaked.statuses,
    }


def _warm_and_end(memory_mb: Sequence[float]) -> tuple[float, float]:
    """The median memory of the tenth after the warm-up, and of the last tenth."""
    part = max(1, len(memory_mb) // PARTS)
    begins = int(WARM_UP_SHARE * len(memory_mb))
    return median(memory_mb[begins : begins + part]), median(memory_mb[-part:])


def missed_targets(figures: Mapping[str, Any], minutes: float) -> list[str]:
    """The targets that were missed, in words."""
    missed = []
    if figures["p99_times_p50"] > MOST_TIMES_MEDIAN:
        said = f"p99 is {figures['p99_times_p50']} times the median"
        missed.append(f"{said}, at most {MOST_TIMES_MEDIAN:g}")
    if figures["growth"] > MOST_GROWTH:
        missed.append(f"memory grew by {figures['growth']:.1%}, at most {MOST_GROWTH:.0%}")
    if figures["predictions"] != {"scored": figures["requests"]}:
        missed.append(f"not one scored row a request: {figures['predictions']}")
    if minutes < MINUTES:
        missed.append(f"{minutes:g} minutes, at least {MINUTES:g}")
    return missed


def main() -> int:
    """Run the soak; 1 where a target is missed or it could not be run."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    minutes = parser.parse_args().minutes
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the server on the way out
    figures: dict[str, Any] = {}
    try:
        figures = figures_of(asyncio.run(soak(60 * minutes)))
        missed = missed_targets(figures, minutes)
    except (RuntimeError, OSError) as failure:
        missed = [f"the soak could not be run to its end: {failure}"]
    for text in missed:
        print(f"MISSED {text}")
    print(json.dumps({"target": "soak", "figures": figures, "missed": missed}))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
