"""`make bench-peer`: answers per second beside HealthChain, in the same run, in turns.

We do all our work (production profile, caller checked, patient scored and explained, row
committed); the peer decodes the same request and runs a handler that does nothing, once as shipped,
once with what we give ourselves. The floor of `make bench` takes turns too: how often it answers is
the most that any scored, explained, logged answer of one process could reach. Windows of at least
ten seconds, who is first changes every round.
Ends with one line of JSON and exits 1 where a target is missed (docs/performance.md).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.peer.app import SERVICE
from tests.bench.production import install, request_now
from tests.bench.servers import FLOOR, PRODUCT, ROOT, running
from tests.bench.sides import CONNECTIONS, ROUNDS, SHORTEST_WINDOW_S, WARM_UP_S, Side, Window

PEER_PYTHON = ROOT / ".venv-peer" / "bin" / "python"
PEER = ROOT / "tests" / "bench" / "peer" / "app.py"
LEAST_TIMES: Mapping[int, Mapping[str, float]] = {
    500: {"shipped": 4.0, "tuned": 2.5},
    5000: {"shipped": 8.0, "tuned": 2.5},
}
"""How many times as many requests per second as the peer, by size and form of the peer."""

Windows = dict[int, dict[str, list[Window]]]
"""By size and side, one a round."""


async def measure(window_s: float, rounds: int) -> tuple[Windows, dict[str, int]]:
    """The windows, and how many of our predictions had which status."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="varsel-peer-")))
        installed = install(folder)
        product = stack.enter_context(running(PRODUCT, folder, installed.settings))
        forms = ("shipped", "tuned")
        peers = [
            stack.enter_context(running((str(PEER), form), folder, python=PEER_PYTHON))
            for form in forms
        ]
        own = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="varsel-floor-")))
        floor = stack.enter_context(running(FLOOR, own))
        windows: Windows = {}
        for size in LEAST_TIMES:
            request = request_now(size, datetime.now(UTC))
            sides = [
                Side("varsel", product, f"/cds-services/{SERVICE}", installed.token),
                *(
                    Side(form, peer, f"/cds/cds-services/{SERVICE}")
                    for form, peer in zip(forms, peers, strict=True)
                ),
                Side("floor", floor, f"/{size}"),
            ]
            for side in sides:
                await side.answer(request, WARM_UP_S)
            for turn in range(rounds):
                first = turn % len(sides)
                for side in (*sides[first:], *sides[:first]):
                    print(f"peer: {size} resources, {side.name}", file=sys.stderr, flush=True)
                    window = await side.answer(request, window_s)
                    windows.setdefault(size, {}).setdefault(side.name, []).append(window)
        return windows, installed.statuses()


def figures_of(windows: Windows, statuses: Mapping[str, int], window_s: float) -> dict[str, Any]:
    """Rates, CPU and ratios, medians over rounds; the ratios of windows next to each other."""
    sizes = {}
    for size, sides in windows.items():
        ratios = {form: _ratios(sides["varsel"], sides[form]) for form in LEAST_TIMES[size]}
        floors = {form: _ratios(sides["floor"], sides[form]) for form in LEAST_TIMES[size]}
        sizes[str(size)] = {
            "per_second": {n: round(median(w.per_second for w in f), 1) for n, f in sides.items()},
            "cpu_ms": {n: round(median(w.cpu_ms for w in f), 1) for n, f in sides.items()},
            "times": {form: round(median(found), 2) for form, found in ratios.items()},
            "floor_times": {form: round(median(found), 2) for form, found in floors.items()},
            "times_each_round": {form: [round(r, 2) for r in f] for form, f in ratios.items()},
        }
    return {
        "connections": CONNECTIONS,
        "window_s": window_s,
        "predictions": dict(statuses),
        "sizes": sizes,
    }


def _ratios(some: list[Window], others: list[Window]) -> list[float]:
    """Of windows next to each other, how many times as many answers."""
    return [a.per_second / b.per_second for a, b in zip(some, others, strict=True)]


def missed_targets(figures: Mapping[str, Any]) -> list[str]:
    """The targets that were missed, in words."""
    missed = [
        f"{size} resources: {times} times the peer {form}, at least {least:g}"
        for size, wanted in LEAST_TIMES.items()
        for form, least in wanted.items()
        if (times := figures["sizes"][str(size)]["times"][form]) < least
    ]
    if set(figures["predictions"]) != {"scored"}:
        missed.append(f"not every prediction was scored: {figures['predictions']}")
    if figures["window_s"] < SHORTEST_WINDOW_S:
        missed.append(f"windows of {figures['window_s']:g} s, at least {SHORTEST_WINDOW_S:g}")
    return missed


def main() -> int:
    """Run the comparison; 1 where a target is missed or it could not be run."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--window", type=float, default=SHORTEST_WINDOW_S, help="seconds")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the servers on the way out
    figures: dict[str, Any] = {}
    try:
        figures = figures_of(*asyncio.run(measure(asked.window, asked.rounds)), asked.window)
        missed = missed_targets(figures)
    except (RuntimeError, OSError) as failure:
        missed = [f"the comparison could not be run: {failure}"]
    for text in missed:
        print(f"MISSED {text}")
    print(json.dumps({"target": "bench-peer", "figures": figures, "missed": missed}))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
