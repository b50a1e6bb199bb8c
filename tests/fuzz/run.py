"""`make fuzz`: at least 10,000 mutated requests against a running service.

Sent in rounds, each from a seed of its own; a round that fails ends with the smallest input that
hypothesis found, and the next begins. Progress goes to standard error; the last line of standard
output is JSON, and the exit code is 1 where something is missed.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import traceback
from pathlib import Path
from time import perf_counter

import structlog
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.harness import LONGEST_S, Fuzzed, fuzzed
from tests.fuzz.mutations import Mutant, mutants
from tests.fuzz.seeds import all_seeds

LEAST = 10_000
A_ROUND = 500
LEAST_ANSWERED = 0.3
"""Share of the requests that must be answered 200, or the fuzz only knocks at the door."""


def fuzz(service: Fuzzed, least: int, *, first_seed: int) -> list[str]:
    """Send at least so many mutants; what failed, in words, with the smallest input of each."""
    failures: list[str] = []
    number = first_seed
    while service.calls < least:
        found = _round(service, number)
        failures.extend(found)
        number += 1
        said = f"fuzz: {service.calls} requests, {len(failures)} failures"
        print(said, file=sys.stderr, flush=True)
    return failures


def _round(service: Fuzzed, number: int) -> list[str]:
    """What failed in a round: hypothesis tries the smallest failing mutant last."""
    smallest: list[str] = []

    @seed(number)
    @settings(
        max_examples=A_ROUND,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(mutant=mutants(all_seeds()))
    def held(mutant: Mutant) -> None:
        try:
            service.hold(mutant)
        except Exception as error:
            smallest[:] = [f"round {number}: {type(error).__name__} {error}: {mutant}"]
            raise

    try:
        held()
    except Exception:  # noqa: BLE001 - whatever broke is what the fuzz is for; it is reported
        print("\n".join(smallest), file=sys.stderr, flush=True)
        return smallest or [f"round {number}: {traceback.format_exc(limit=1)}"]
    return []


def main() -> int:
    """Run the fuzz; 1 where the property was broken, or too few requests were sent."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--requests", type=int, default=LEAST)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    began = perf_counter()
    with tempfile.TemporaryDirectory(prefix="varsel-fuzz-") as folder, fuzzed(Path(folder)) as it:
        missed = fuzz(it, asked.requests, first_seed=asked.seed)
        answered = it.seen["200"] / it.calls
        if answered < LEAST_ANSWERED:
            missed.append(f"only {answered:.0%} were answered, at least {LEAST_ANSWERED:.0%}")
        figures = {
            "requests": it.calls,
            "outcomes": dict(sorted(it.seen.items())),
            "values_traced_to_their_source": it.values_traced,
            "slowest_s": round(it.slowest_s, 2),
            "slowest_allowed_s": LONGEST_S,
            "seconds": round(perf_counter() - began),
        }
    for text in missed:
        print(f"MISSED {text}")
    print(json.dumps({"target": "fuzz", "figures": figures, "missed": missed}))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
