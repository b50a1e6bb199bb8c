"""From a block's arrays to one patient at a time: chart, truth and the written record.

The truth is what the generator knows and no record shows; it stands beside the record and never in
it. Called by `bulk`, the training gate and the tests.
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from math import isfinite
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from models.synthetic import codings
from models.synthetic.bulk import Drawn, Generator, truth_row
from models.synthetic.charts import rows
from models.synthetic.fhir_lines import Choices
from models.synthetic.surgery.after import resources_after
from models.synthetic.surgery.before import resources_before
from models.synthetic.surgery.cohort import (
    BLOCK_SIZE,
    DATA_END,
    DAY_S,
    GENERATOR_VERSION,
    KINDS,
    Block,
    generate_block,
)
from models.synthetic.surgery.resources import MOST_CHOICES, RESOURCE_TYPES, Chart

HEADS: Final = ("mort90", "compl30", "leak30", "reop30", "readm30")
_encode: Final = msgspec.json.Encoder().encode


class Truth(NamedTuple):
    """What is known of one assessment and no record shows; times in UTC seconds.

    `risk_*` is the chance of each head's outcome given all true values and the unobserved part:
    `risk_leak30` None without a planned anastomosis, `risk_readm30` None for who dies in the stay,
    all None where nobody is operated. `*_at` beside the heads is when it happened.
    """

    index_time: int
    exclusion: str
    operated_at: int | None
    discharged_at: int | None
    died_at: int | None
    risk_mort90: float | None
    risk_compl30: float | None
    risk_leak30: float | None
    risk_reop30: float | None
    risk_readm30: float | None
    complicated_at: int | None
    leaked_at: int | None
    reoperated_at: int | None
    readmitted_at: int | None


TIME_FIELDS: Final = frozenset(name for name in Truth._fields if name.endswith(("_at", "_time")))


class SyntheticPatient(NamedTuple):
    """One patient's record as `(resource type, JSON line)` in a fixed order, and the truth."""

    patient_id: str
    resources: tuple[tuple[str, bytes], ...]
    truth: Truth


def draw_patients(seed: int, n: int) -> Iterator[SyntheticPatient]:
    """The first n patients of the cohort with this seed, block by block."""
    for number in range(-(-n // BLOCK_SIZE)):
        drawn = block_patients(generate_block(seed, number))
        yield from islice(drawn, n - number * BLOCK_SIZE)


def block_patients(block: Block) -> Iterator[SyntheticPatient]:
    """All patients of a block with their records; the block alone decides them."""
    key = np.random.SeedSequence([block.seed, block.number, len(block), 3])
    rng = np.random.Generator(np.random.PCG64(key))
    outcomes = block.outcomes._asdict()
    course = outcomes.pop("course")
    columns = zip(
        rows(block.true),
        rows(block.seen),
        rows(outcomes | course._asdict()),
        rows(block.stays._asdict()),
        rows(block.visits),
        strict=True,
    )
    for i, (true, seen, after, stays, visits) in enumerate(columns):
        times = _times(block, i, after)
        chart = Chart(
            patient_id=f"syn-crc-{block.seed:x}-{block.first_patient + i:08d}",
            kind=KINDS[int(block.kind[i])],
            system=int(np.searchsorted(_SYSTEM_BOUNDS, rng.random())),
            true=true,
            seen=seen,
            stays=stays,
            visits=visits,
            after=after,
            choices=Choices(rng.random(MOST_CHOICES).tolist()),
            **times,
        )
        yield SyntheticPatient(chart.patient_id, _lines(chart), truth_of(chart))


_SYSTEM_BOUNDS: Final = np.cumsum(codings.SYSTEM_SHARES)[:-1]


def _times(block: Block, i: int, after: Mapping[str, float]) -> dict[str, Any]:
    """The moments of one patient: assessed, operated, discharged, died."""
    assessed, operated = int(block.assessed_at[i]), int(block.operated_at[i])
    if KINDS[int(block.kind[i])] == "not-operated":
        nothing: dict[str, Any] = {"operated_at": None, "discharged_at": None, "died_at": None}
        return nothing | {"assessed_at": assessed}
    dies = min(after["death_day"], after["late_death_day"])
    return {
        "assessed_at": assessed,
        "operated_at": operated,
        "discharged_at": _moment(operated, after["discharge_day"]),
        "died_at": _moment(operated, dies),
    }


def _moment(start: int, days: float) -> int | None:
    """The second so many days later; None where that is never."""
    return start + round(days * DAY_S) if isfinite(days) else None


def _lines(chart: Chart) -> tuple[tuple[str, bytes], ...]:
    resources = [*resources_before(chart), *resources_after(chart)]
    resources.sort(key=lambda resource: RESOURCE_TYPES.index(resource["resourceType"]))
    return tuple((resource["resourceType"], _encode(resource)) for resource in resources)


def truth_of(chart: Chart) -> Truth:
    """The truth about one patient."""
    after, operated, home = chart.after, chart.operated_at, chart.discharged_at

    def after_operation(event: str) -> int | None:
        return None if operated is None else _moment(operated, after[event])

    risks = {f"risk_{head}": after[head] for head in HEADS}
    return Truth(
        index_time=chart.assessed_at,
        exclusion="" if chart.kind == "eligible" else chart.kind,
        operated_at=operated,
        discharged_at=home,
        died_at=chart.died_at,
        complicated_at=after_operation("complication_day"),
        leaked_at=after_operation("leak_day"),
        reoperated_at=after_operation("reoperation_day"),
        readmitted_at=None if home is None else _moment(home, after["readmission_day"]),
        **{n: None if operated is None or r != r else r for n, r in risks.items()},
    )


def _draw(seed: int, n: int) -> Iterator[Drawn]:
    for patient in draw_patients(seed, n):
        yield Drawn(
            patient.patient_id, patient.resources, [truth_row(patient.truth._asdict(), TIME_FIELDS)]
        )


SURGERY: Final = Generator(
    model="crc-surgery",
    module="models.synthetic.surgery",
    version=GENERATOR_VERSION,
    resource_types=RESOURCE_TYPES,
    truth_fields=Truth._fields,
    data_end=DATA_END,
    draw=_draw,
    block=BLOCK_SIZE,
)
"""The generator of `varsel cohort synth crc-surgery`."""
