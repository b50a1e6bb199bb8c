"""The two telemonitoring cohorts: blocks of persons, drawn alone and always the same.

A block is drawn whole from its seed and number, so that fewer patients are a prefix of more. The
truth stands beside the record and never in it: a row for every deterioration after enrolment, or
one without, with the person's own rate, which no record shows. Called by `bulk` and the tests.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.synthetic import codings as base
from models.synthetic.bulk import Drawn, Generator, truth_cell, truth_time
from models.synthetic.fhir_lines import DAY_S, Choices
from models.synthetic.people import FloatArray, People
from models.synthetic.telemonitoring.anchors import DISEASES, Disease
from models.synthetic.telemonitoring.chart import Chart, Person, make_chart
from models.synthetic.telemonitoring.course import KINDS, Course, draw_course
from models.synthetic.telemonitoring.home import Sets, draw_sets
from models.synthetic.telemonitoring.lines import RESOURCE_TYPES, person_lines
from models.synthetic.telemonitoring.people import draw_people

GENERATOR_VERSION: Final = "1.0.0"
BLOCK_SIZE: Final = 50
FIRST_ENROLMENT: Final = datetime(2023, 1, 1, tzinfo=UTC)
LAST_ENROLMENT: Final = datetime(2025, 1, 1, tzinfo=UTC)
DATA_END: Final = datetime(2026, 2, 15, tzinfo=UTC)
"""Every record ends before it, and three weeks or more after the last weekly set."""
MOST_CHOICES: Final = 5000
"""More random choices than one person's record can use."""
TRUTH_FIELDS: Final = ("enrolled_at", "rate_per_year", "deterioration_at", "kind", "prodrome_days")
_SHORT: Final[Mapping[Disease, str]] = {"copd": "copd", "heart_failure": "hf"}


class Block(NamedTuple):
    """A block of persons; `enrolled` in days since 1970."""

    disease: Disease
    seed: int
    number: int
    enrolled: NDArray[np.int64]
    people: People
    course: Course
    sets: Sets


def draw_block(disease: Disease, seed: int, *, number: int) -> Block:
    """The block of a number: `BLOCK_SIZE` persons, decided by disease, seed and number alone."""
    rng = _generator(disease, seed, number, 0)
    first, last = (int(d.timestamp()) // DAY_S for d in (FIRST_ENROLMENT, LAST_ENROLMENT))
    enrolled = rng.integers(first, last, BLOCK_SIZE)
    people = draw_people(rng, BLOCK_SIZE, disease)
    course = draw_course(rng, people, disease, enrolled=enrolled)
    sets = draw_sets(rng, people, course, disease)
    return Block(disease, seed, number, enrolled, people, course, sets)


def _generator(disease: Disease, *key: int) -> np.random.Generator:
    seeds = np.random.SeedSequence([DISEASES.index(disease) + 1, *key])
    return np.random.Generator(np.random.PCG64(seeds))


def charts_of(block: Block) -> Iterator[Chart]:
    """The charts of a block's persons, in order."""
    rng = _generator(block.disease, block.seed, block.number, 1)
    columns = _rows(block)
    for i in range(BLOCK_SIZE):
        person = Person(
            patient_id=patient_id(block.disease, block.seed, number=block.number * BLOCK_SIZE + i),
            disease=block.disease,
            enrolled=int(block.enrolled[i]) * DAY_S,
            **{name: _picked(column, i) for name, column in columns.items()},
        )
        choices = Choices(rng.random(MOST_CHOICES).tolist())
        yield make_chart(person, choices, system=_record_system(choices))


def patient_id(disease: Disease, seed: int, *, number: int) -> str:
    """The Patient.id of a synthetic person: says that it is invented, sorts by number."""
    return f"syn-{_SHORT[disease]}-{seed:x}-{number:08d}"


def _rows(block: Block) -> dict[str, Any]:
    """The block's arrays as lists, by the name of the person's field; mappings stay mappings."""
    course, sets = block.course, block.sets
    return {
        "true": _lists(block.people),
        "onset": course.onset.tolist(),
        "kind": course.kind.tolist(),
        "prodrome_days": course.prodrome_days.tolist(),
        "death": course.death.tolist(),
        "rate": course.rate.tolist(),
        "day": sets.day.tolist(),
        "sent": sets.sent.tolist(),
        "values": _lists(sets.values),
        "answers": _lists(sets.answers),
    }


def _lists(columns: Mapping[str, FloatArray]) -> dict[str, list[Any]]:
    return {name: column.tolist() for name, column in columns.items()}


def _picked(column: Any, i: int) -> Any:
    """Row i of a column, or of each column of a mapping."""
    if isinstance(column, dict):
        return {name: one[i] for name, one in column.items()}
    return column[i]


def _record_system(choices: Choices) -> int:
    left = choices.chance()
    for system, share in enumerate(base.SYSTEM_SHARES):
        left -= share
        if left < 0:
            return system
    return len(base.SYSTEM_SHARES) - 1


def truth_rows(chart: Chart) -> list[tuple[str, ...]]:
    """What no record shows of one person, as text in the order of `TRUTH_FIELDS`."""
    person = chart.person
    known = (truth_time(person.enrolled), truth_cell(person.rate))
    rows: list[tuple[str, ...]] = [
        (*known, truth_time(event.at), KINDS[event.kind], truth_cell(event.prodrome_days))
        for event in chart.deteriorations
        if event.at > person.enrolled
    ]
    return rows or [(*known, "", "", "")]


def draw_charts(disease: Disease, seed: int, *, n: int) -> Iterator[Chart]:
    """The first n persons of the cohort with this seed, block by block."""
    for number in range(-(-n // BLOCK_SIZE)):
        charts = charts_of(draw_block(disease, seed, number=number))
        yield from islice(charts, n - number * BLOCK_SIZE)


def _draw(disease: Disease, seed: int, n: int) -> Iterator[Drawn]:
    for chart in draw_charts(disease, seed, n=n):
        yield Drawn(chart.person.patient_id, person_lines(chart), truth_rows(chart))


def _cohort(model: str, disease: Disease) -> Generator:
    return Generator(
        model=model,
        module=__name__,
        version=GENERATOR_VERSION,
        resource_types=RESOURCE_TYPES,
        truth_fields=TRUTH_FIELDS,
        data_end=DATA_END,
        draw=partial(_draw, disease),
        block=BLOCK_SIZE,
    )


COPD: Final = _cohort("copd-deterioration", "copd")
"""The generator of `varsel cohort synth copd-deterioration`."""
HEART_FAILURE: Final = _cohort("hf-deterioration", "heart_failure")
"""The generator of `varsel cohort synth hf-deterioration`."""
