"""Hospital contacts laid out in time: earlier stays and visits before an index stay, none touching.

Times are days before the index admission. The drawn counts are kept exactly: every stay lies
inside the year before, none nearer than half a day to another contact, so that linking contacts
at most four hours apart never joins two of them. Called by `readmission`.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.synthetic.people import FloatArray

MAX_STAYS: Final = 12
WINDOW_DAYS: Final = 364.0
"""Stays lie inside this many days before the index admission: the year looked at, less a day."""
MIN_STAY_DAYS: Final = 0.6
MAX_PRIOR_BED_DAYS: Final = 90.0
MIN_GAP_DAYS: Final = 0.6
PAD_DAYS: Final = 0.4
"""Visits keep this distance to every stay: 9.6 hours, of which a visit itself takes at most 5."""


class EarlierStays(NamedTuple):
    """Stays before the index stay, newest first: days before its admission, NaN where none."""

    start_days: FloatArray
    end_days: FloatArray
    acute: NDArray[np.bool_]


def place_stays(
    rng: np.random.Generator, acute: FloatArray, *, planned: FloatArray
) -> EarlierStays:
    """Lays `acute + planned` stays, each `(n,)`, into the year before the index admission.

    The newest discharge is drawn near (more stays, nearer); lengths are log-normal, scaled down
    where the bed-days of the year would pass `MAX_PRIOR_BED_DAYS`.
    """
    count = (acute + planned).astype(np.int64)
    present = np.arange(MAX_STAYS) < count[:, None]
    lengths = _lengths(rng, present)
    since = _days_since_discharge(rng, count, bed_days=lengths.sum(axis=1))
    gaps = _gaps(rng, present, free=WINDOW_DAYS - since - lengths.sum(axis=1))
    gaps[:, 0] = since
    end = np.cumsum(gaps, axis=1) + np.cumsum(lengths, axis=1) - lengths
    start = end + lengths
    rank = np.argsort(np.argsort(np.where(present, rng.random(present.shape), 2.0)))
    return EarlierStays(
        np.where(present, start, np.nan),
        np.where(present, end, np.nan),
        present & (rank < acute[:, None]),
    )


def _lengths(rng: np.random.Generator, present: NDArray[np.bool_]) -> FloatArray:
    """Days of each stay, 0 where there is none."""
    drawn = np.clip(np.exp(rng.normal(1.0, 0.8, present.shape)), MIN_STAY_DAYS, 40.0) * present
    scale = MAX_PRIOR_BED_DAYS / np.maximum(drawn.sum(axis=1), MAX_PRIOR_BED_DAYS)
    return np.asarray(np.maximum(drawn * scale[:, None], MIN_STAY_DAYS) * present)


def _days_since_discharge(
    rng: np.random.Generator, count: NDArray[np.int64], *, bed_days: FloatArray
) -> FloatArray:
    """Days from the newest discharge to the index admission; room is left for the other stays."""
    drawn = rng.exponential(120.0 / np.sqrt(np.maximum(count, 1)))
    room = WINDOW_DAYS - bed_days - MIN_GAP_DAYS * (count + 1)
    return np.asarray(np.clip(drawn, MIN_GAP_DAYS, room))


def _gaps(rng: np.random.Generator, present: NDArray[np.bool_], *, free: FloatArray) -> FloatArray:
    """Days between neighbouring stays: random shares of the free days, each at least the minimum.

    One more share than there are gaps is drawn; it stays free at the far end of the year.
    """
    gap = present.copy()
    gap[:, 0] = False
    share = rng.exponential(1.0, present.shape) * gap
    rest = rng.exponential(1.0, present.shape[0])
    spare = free - MIN_GAP_DAYS * gap.sum(axis=1)
    return np.asarray(
        share / (share.sum(axis=1) + rest)[:, None] * spare[:, None] + MIN_GAP_DAYS * gap
    )


def place_visits(
    rng: np.random.Generator,
    stays: EarlierStays,
    count: FloatArray,
    *,
    window: tuple[float, float],
    most: int,
) -> FloatArray:
    """Starts of `count` visits in the free time of a window of days, `(n, most)`, NaN beyond.

    The free time is cut into `count` equal pieces and one visit falls into the middle of each, so
    that two visits never come within hours of each other.
    """
    low, high = _free_intervals(stays, window)
    width = np.maximum(high - low, 0.0)
    upto = np.cumsum(width, axis=1)
    pieces = np.maximum(count, 1.0)[:, None]
    slot = np.arange(most) + 0.1 + 0.8 * rng.random((count.shape[0], most))
    position = np.minimum(slot / pieces, 1.0) * upto[:, -1:]
    interval = np.minimum((position[:, :, None] > upto[:, None, :]).sum(axis=2), low.shape[1] - 1)
    before = np.take_along_axis(upto - width, interval, axis=1)
    start = np.take_along_axis(low, interval, axis=1) + position - before
    return np.where(np.arange(most) < count[:, None], start, np.nan)


def _free_intervals(
    stays: EarlierStays, window: tuple[float, float]
) -> tuple[FloatArray, FloatArray]:
    """Nearer and farther ends of the time between stays, trimmed by the pad and to the window."""
    nearest, farthest = window
    size = stays.start_days.shape[0]
    near = np.column_stack([np.full(size, PAD_DAYS), stays.start_days + PAD_DAYS])
    far = np.column_stack([stays.end_days - PAD_DAYS, np.full(size, np.nan)])
    near = np.nan_to_num(near, nan=farthest)
    far = np.nan_to_num(far, nan=farthest)
    return np.clip(near, nearest, farthest), np.clip(far, nearest, farthest)
