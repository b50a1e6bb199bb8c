"""The synthetic surgery cohort in blocks: who is assessed, when, what is recorded, what follows.

One pre-operative assessment per patient, in 2023 to 2025; any block of patients can be drawn alone
and comes out the same. Every record begins with an outpatient contact more than 365 days before
the assessment. Patients are written as FHIR by `before` and `after`. Called by `records` and the
tests.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.synthetic import contacts
from models.synthetic.people import People
from models.synthetic.surgery import people
from models.synthetic.surgery.anchors import load_anchors
from models.synthetic.surgery.risks import Outcomes, calibrate, draw_outcomes

GENERATOR_VERSION: Final = "1.0.0"
BLOCK_SIZE: Final = 1000
STUDY_START: Final = datetime(2023, 1, 1, tzinfo=UTC)
STUDY_END: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""Assessments lie from the first to before the second."""
DATA_END: Final = datetime(2026, 8, 1, tzinfo=UTC)
"""Where the records end: 212 days later, so that every outcome is known."""

HOUR_S: Final = 3600
DAY_S: Final = 86_400
YEAR_DAYS: Final = 366.0
KINDS: Final = ("eligible", "palliative", "not-operated", "no-form")
"""Whether an assessment counts, and why it does not: palliative care, no operation within 60 days,
no conference form."""

# From assessment to operation, design choices: Danish package courses keep the wait short.
ELECTIVE_WAIT_DAYS: Final = (3, 24)
EMERGENCY_WAIT_HOURS: Final = (2.0, 10.0)


@dataclass(frozen=True, slots=True)
class Block:
    """Patients drawn together: true values, what the record shows, outcomes, contacts and times.

    Times are UTC seconds; `stays` and `visits` are days before `history_end`, the day before the
    assessment.
    """

    seed: int
    number: int
    kind: NDArray[np.int64]
    true: People
    seen: People
    outcomes: Outcomes
    stays: contacts.EarlierStays
    visits: People
    assessed_at: NDArray[np.int64]
    operated_at: NDArray[np.int64]

    def __len__(self) -> int:
        return int(self.kind.shape[0])

    @property
    def first_patient(self) -> int:
        """The cohort number of the block's first patient."""
        return self.number * len(self)

    @property
    def eligible(self) -> NDArray[np.bool_]:
        """Which patients' assessment counts."""
        return np.equal(self.kind, KINDS.index("eligible"))


def generate_block(seed: int, block: int, size: int = BLOCK_SIZE) -> Block:
    """Patients `block * size` onwards of the cohort with this seed; no other block is needed.

    The same seed, block and size give the same patients, to the byte.
    """
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, block, size, 2])))
    true = people.draw_people(rng, size, calibrate().prevalences)
    kind = _draw_kinds(rng, size)
    outcomes = draw_outcomes(rng, true)
    assessed_at = _assessment_times(rng, size)
    stays = contacts.place_stays(rng, true["acute_admissions"], planned=true["planned_admissions"])
    return Block(
        seed=seed,
        number=block,
        kind=kind,
        true=true,
        seen=people.observe(rng, true),
        outcomes=outcomes,
        stays=stays,
        visits=_place_visits(rng, true, stays),
        assessed_at=assessed_at,
        operated_at=assessed_at + _waits(rng, true),
    )


def _draw_kinds(rng: np.random.Generator, size: int) -> NDArray[np.int64]:
    """Index of `KINDS` per patient: eligible, or why the assessment does not count."""
    marginal = load_anchors().marginal
    shares = [marginal[kind.replace("-", "_")].value for kind in KINDS[1:]]
    return rng.choice(len(KINDS), size=size, p=[1.0 - sum(shares), *shares])


def _assessment_times(rng: np.random.Generator, size: int) -> NDArray[np.int64]:
    """Moments between 8 and 15 UTC on days of the study period, in UTC seconds."""
    first = int(STUDY_START.timestamp()) // DAY_S
    last = int(STUDY_END.timestamp()) // DAY_S
    minutes = rng.integers(8 * 60, 15 * 60, size)
    return rng.integers(first, last, size) * DAY_S + minutes * 60


def _waits(rng: np.random.Generator, true: People) -> NDArray[np.int64]:
    """Seconds from assessment to operation: hours in an emergency, else days."""
    size = true["age"].shape[0]
    low, high = ELECTIVE_WAIT_DAYS
    elective = rng.integers(low, high + 1, size) * DAY_S + rng.integers(-60, 60, size) * 60
    hours = rng.uniform(*EMERGENCY_WAIT_HOURS, size)
    emergency = np.round(hours * 60).astype(np.int64) * 60
    return np.where(true["emergency"] > 0, emergency, elective)


def _place_visits(rng: np.random.Generator, true: People, stays: contacts.EarlierStays) -> People:
    """Starts of visits in days before `history_end`, `(n, most)` per kind, NaN where none."""
    window = (0.5, contacts.WINDOW_DAYS)
    count_and_most = {
        "emergency": (true["ed_visits"], people.MAX_ED_VISITS),
        "outpatient": (true["outpatient"], people.MAX_OUTPATIENT),
    }
    placed = {
        name: contacts.place_visits(rng, stays, count, window=window, most=most)
        for name, (count, most) in count_and_most.items()
    }
    placed["first"] = np.asarray(YEAR_DAYS + 1.0 + 89.0 * rng.random(true["age"].shape[0]))
    return placed
