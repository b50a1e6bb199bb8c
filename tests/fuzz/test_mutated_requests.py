"""Some hundreds of mutated requests in every test run: the same ones each time.

`make fuzz` sends at least 10,000.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz.harness import Fuzzed, fuzzed
from tests.fuzz.mutations import KINDS, Mutant, Seed, Step, mutants
from tests.fuzz.seeds import all_seeds


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    """A running service that counts what it is asked."""
    with fuzzed(tmp_path_factory.mktemp("fuzzed")) as running:
        yield running


@pytest.mark.parametrize("seed", all_seeds(), ids=lambda seed: seed.name)
def test_a_request_nothing_was_done_to_is_answered_200(service: Fuzzed, seed: Seed) -> None:
    """Else the fuzz would only see refusals; the property holds of it too."""
    before = service.seen["200"]
    service.hold(Mutant(seed, ()))
    assert service.seen["200"] == before + 1


def test_every_kind_of_change_fits_somewhere() -> None:
    """A kind that never fits would be a promise of coverage that is not kept."""
    fitting = {kind for seed in all_seeds() for kind in seed.places}
    assert fitting == set(KINDS)


FOUND = {
    "a blood pressure's code on an undated diagnosis": (
        "example of copd-deterioration",
        Step(("prefetch", "home", "entry", 0, "resource", "resourceType"), "other type", 3),
    ),
    "a water pill prescribed on 0001-01-01": (
        "example of hf-deterioration",
        Step(("prefetch", "medications", "entry", 1, "resource", "authoredOn"), "time", 0),
    ),
    "a water pill prescribed nobody knows when": (
        "example of hf-deterioration",
        Step(("prefetch", "medications", "entry", 1, "resource", "authoredOn"), "removed", 0),
    ),
}
"""What the fuzz once found, by what it means."""


@pytest.mark.parametrize("found", sorted(FOUND))
def test_what_the_fuzz_once_found_stays_mended(service: Fuzzed, found: str) -> None:
    """Each made a model fail for a patient whose record was otherwise sound."""
    name, step = FOUND[found]
    (seed,) = [seed for seed in all_seeds() if seed.name == name]
    service.hold(Mutant(seed, (step,)))


@settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(mutant=mutants(all_seeds()))
def test_a_mutated_request_is_answered_or_refused_by_name(service: Fuzzed, mutant: Mutant) -> None:
    """Never a 500; 200 with valid cards or a 4xx with its field; no number from nowhere."""
    service.hold(mutant)


def test_the_property_notices_a_number_from_nowhere(service: Fuzzed) -> None:
    """The check itself is tried: of an answer to a whole record it is told that a part of the
    record was never sent, or said something else."""
    (seed, *_) = all_seeds()
    request = json.loads(seed.text)
    answer = service.send(json.dumps(request).encode(), seed.service)
    service.check(answer, request, seed.service)
    for key in ("laboratory", "encounters", "medications"):
        without = {**request, "prefetch": {**request["prefetch"], key: None}}
        with pytest.raises(AssertionError, match="rests on what was not sent"):
            service.check(answer, without, seed.service)
    for entry in request["prefetch"]["laboratory"]["entry"]:
        entry["resource"]["valueQuantity"]["value"] = 12345
    with pytest.raises(AssertionError, match="a number that Observation does not hold"):
        service.check(answer, request, seed.service)


def test_the_property_notices_a_zero_nobody_was_asked_for(service: Fuzzed) -> None:
    """ "None" is a finding only of a query that was answered."""
    (seed, *_) = all_seeds()
    request = json.loads(seed.text)
    request["hookInstance"] = "00000000-0000-4000-8000-00000000f00d"
    answer = service.send(json.dumps(request).encode(), seed.service)
    service.check(answer, request, seed.service)
    del request["prefetch"]["procedures"]
    with pytest.raises(AssertionError, match="procedures was not answered"):
        service.check(answer, request, seed.service)
