"""Current features against the reference, column by column, with alarms that mean something.

Lives here: reading a column, two distances, their limits, alarms. Pure functions over frames.
Does not live here: files (`drift`) and the Evidently page (`drift_page`).
Called by `monitoring.drift`.

The rule, in one sentence: an alarm needs a change that is large enough to matter and too large to
be chance. For each column two things are compared, the distribution of its values and the share
that is missing; the limit of each distance is the larger of a smallest change worth hearing of and
the value that chance alone passes with probability `FALSE_ALARM / number of comparisons`. So a run
over all columns of an unchanged world raises any alarm with a probability of at most about 1 %.
What was measured of this, and of the defaults it replaces, is in docs/drift.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from statistics import NormalDist
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from monitoring.errors import InvalidComparison

Floats = npt.NDArray[np.float64]
Kind = Literal["numeric", "binary"]
AlarmKind = Literal["distribution", "missingness", "unusable"]

FALSE_ALARM: Final = 0.01
"""Probability of any alarm in a run over an unchanged world, all columns together (Bonferroni)."""

MIN_KS_DISTANCE: Final = 0.1
"""Smallest change of a numeric column worth an alarm: the two distributions differ by 10
percentage points somewhere; a shift of a normal value by a quarter of its standard deviation."""

MIN_SHARE_DISTANCE: Final = 0.1
"""Smallest change of a share (binary column, missing values) worth an alarm, as Cohen's h:
from 5 to 7.4 %, from 10 to 13.2 %, from 50 to 55 %."""

MIN_ROWS: Final = 50
"""Fewest values on either side for a comparison."""

ANSCOMBE: Final = 3 / 8
"""Added to the hits and to the misses of a share before its angle is taken."""

ABSENT: Final = "the column is absent"

COMPARISONS_PER_COLUMN: Final = 2
"""Distribution and missingness."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column to compare: its name in both frames, its label for people, and its kind.

    A binary column holds 0 and 1 (or false and true); a numeric one any finite number.
    """

    name: str
    label: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Values:
    """A column of one frame: its usable numbers, and how many rows had none.

    `missing` counts rows without a value, `unusable` rows whose value is text, infinite, or
    neither 0 nor 1 in a binary column. An absent column has `absent` set and every row missing.
    """

    numbers: Floats
    missing: int
    unusable: int
    absent: bool = False

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.numbers) + self.missing + self.unusable


class Share(NamedTuple):
    """So many rows of so many."""

    hits: int
    rows: int


class Distance(NamedTuple):
    """How far the current frame lies from the reference, and the limit for an alarm."""

    value: float
    limit: float

    @property
    def alarming(self) -> bool:
        """Whether the change is large enough to matter and too large to be chance."""
        return self.value >= self.limit


@dataclass(frozen=True, slots=True)
class ColumnComparison:
    """One column in both frames.

    `distribution` is None where it could not be compared and `note` then says why; `note` is empty
    for a column with nothing to remark. `missingness` is None under `MIN_ROWS` rows.
    """

    column: Column
    reference: Values
    current: Values
    distribution: Distance | None
    missingness: Distance | None
    note: str

    @property
    def drifted(self) -> bool:
        """Whether the distribution of the values has changed."""
        return self.distribution is not None and self.distribution.alarming


class Alarm(NamedTuple):
    """Something to look at: in which column, of which kind, its figure and the limit it passed."""

    column: str
    kind: AlarmKind
    value: float
    limit: float
    text: str


def compare(
    reference: pd.DataFrame, current: pd.DataFrame, *, columns: Sequence[Column]
) -> list[ColumnComparison]:
    """Each column compared, in the given order; none can stop the others.

    Rows must be independent: one per patient (see `one_row_per_patient`). Raises
    `InvalidComparison` when no column is named, one is named twice, or the reference has no rows.
    """
    names = [column.name for column in columns]
    if not names or len(set(names)) < len(names):
        raise InvalidComparison(f"{len(names)} columns named, {len(set(names))} of them different")
    if reference.empty or not (reference.columns.is_unique and current.columns.is_unique):
        raise InvalidComparison("the reference has no rows, or a frame has a column twice")
    chance = FALSE_ALARM / (COMPARISONS_PER_COLUMN * len(names))
    return [
        compare_column(
            column, read_values(reference, column), read_values(current, column), chance=chance
        )
        for column in columns
    ]


def one_row_per_patient(frame: pd.DataFrame, patient: str) -> pd.DataFrame:
    """The last row of each patient, in the order of the frame.

    Several predictions of one patient resemble each other; counted as independent they make chance
    look like drift. A frame without the column `patient` is returned as it is.
    """
    if patient not in frame.columns:
        return frame
    return frame.drop_duplicates(subset=patient, keep="last")


def read_values(frame: pd.DataFrame, column: Column) -> Values:
    """The usable numbers of a column; text is never read as a number, nor infinity as a value."""
    if column.name not in frame.columns:
        return Values(np.empty(0), missing=len(frame), unusable=0, absent=True)
    series = frame[column.name]
    present = series[series.notna()]
    numbers = _numbers(present)
    usable = np.isfinite(numbers)
    if column.kind == "binary":
        usable &= (numbers == 0) | (numbers == 1)
    return Values(
        numbers[usable],
        missing=len(series) - len(present),
        unusable=len(present) - int(usable.sum()),
    )


def _numbers(present: pd.Series) -> Floats:
    """The values as numbers, NaN for each that is none."""
    if pd.api.types.is_numeric_dtype(present):
        return present.to_numpy(dtype=np.float64)
    values = present.tolist()
    return np.array([float(v) if isinstance(v, Real) else np.nan for v in values], dtype=np.float64)


def compare_column(
    column: Column, reference: Values, current: Values, *, chance: float
) -> ColumnComparison:
    """One column in both frames; `chance` is the probability of each distance passing by chance."""
    note = _why_not_compared(reference, current)
    return ColumnComparison(
        column=column,
        reference=reference,
        current=current,
        distribution=None
        if note
        else distance(column.kind, reference.numbers, current.numbers, chance=chance),
        missingness=_missingness(reference, current, chance=chance),
        note=note or _remark(reference, current),
    )


def distance(kind: Kind, reference: Floats, current: Floats, *, chance: float) -> Distance:
    """The distance of two columns of usable numbers, and its limit."""
    n, m = len(reference), len(current)
    if kind == "binary":
        value = share_distance(Share(int(reference.sum()), n), Share(int(current.sum()), m))
        return Distance(value, share_limit(n, m, chance=chance))
    return Distance(ks_distance(reference, current), ks_limit(n, m, chance=chance))


def ks_distance(reference: Floats, current: Floats) -> float:
    """The largest gap between the two cumulative distributions, 0 to 1 (Kolmogorov-Smirnov)."""
    points = np.concatenate([reference, current])
    below_reference = np.searchsorted(np.sort(reference), points, side="right") / len(reference)
    below_current = np.searchsorted(np.sort(current), points, side="right") / len(current)
    return float(np.abs(below_reference - below_current).max())


def ks_limit(n: int, m: int, *, chance: float) -> float:
    """The limit of `ks_distance` for samples of `n` and `m`.

    The value passed by chance with probability `chance` or less (Smirnov's asymptotic law; for
    ties and small samples it is on the safe side), at least `MIN_KS_DISTANCE`.
    """
    by_chance = np.sqrt(-np.log(chance / 2) / 2 * (n + m) / (n * m))
    return max(MIN_KS_DISTANCE, float(by_chance))


def share_distance(reference: Share, current: Share) -> float:
    """Cohen's h of two shares, without sign, 0 to about 3.1; its spread hardly depends on them.

    With Anscombe's correction for few hits: without it, seeing none of something rare looks like
    far more than chance (measured: any alarm in 13 % of unchanged runs of 100 rows, not in 1 %).
    Cohen, Statistical Power Analysis for the Behavioral Sciences, 2nd ed. 1988, section 6.2;
    Anscombe, Biometrika 1948;35:246-254.
    """
    return abs(_angle(current) - _angle(reference))


def _angle(share: Share) -> float:
    corrected = (share.hits + ANSCOMBE) / (share.rows + 2 * ANSCOMBE)
    return 2 * math.asin(math.sqrt(corrected))


def share_limit(n: int, m: int, *, chance: float) -> float:
    """The limit of `share_distance` for shares of `n` and `m` rows; see `ks_limit`."""
    by_chance = NormalDist().inv_cdf(1 - chance / 2) * np.sqrt(1 / n + 1 / m)
    return max(MIN_SHARE_DISTANCE, float(by_chance))


def find_alarms(comparisons: Sequence[ColumnComparison]) -> list[Alarm]:
    """All alarms, in the order of the columns; empty when all is quiet."""
    return [alarm for one in comparisons for alarm in _alarms_of(one)]


def _alarms_of(one: ColumnComparison) -> list[Alarm]:
    found = []
    if one.current.absent or one.current.unusable:
        found.append(_unusable(one))
    if one.distribution is not None and one.distribution.alarming:
        found.append(_alarm(one, "distribution", one.distribution, _distribution_text(one)))
    if one.missingness is not None and one.missingness.alarming:
        found.append(_alarm(one, "missingness", one.missingness, _missingness_text(one)))
    return found


def _alarm(one: ColumnComparison, kind: AlarmKind, found: Distance, text: str) -> Alarm:
    return Alarm(one.column.name, kind, found.value, found.limit, f"{one.column.label}: {text}")


def _unusable(one: ColumnComparison) -> Alarm:
    share = 1.0 if one.current.absent else one.current.unusable / one.current.rows
    text = ABSENT if one.current.absent else _unusable_text(one.current)
    return _alarm(one, "unusable", Distance(share, 0.0), text)


def _missingness(reference: Values, current: Values, *, chance: float) -> Distance | None:
    if current.absent or reference.absent or min(reference.rows, current.rows) < MIN_ROWS:
        return None
    value = share_distance(
        Share(reference.missing, reference.rows), Share(current.missing, current.rows)
    )
    return Distance(value, share_limit(reference.rows, current.rows, chance=chance))


def share_missing(values: Values) -> float:
    """The share of rows without a value, 0 to 1."""
    return values.missing / values.rows


def _why_not_compared(reference: Values, current: Values) -> str:
    """Why the distributions cannot be compared; empty when they can."""
    for which, values in (("reference", reference), ("current data", current)):
        if values.absent:
            return f"{which}: {ABSENT}"
        if values.rows and values.missing == values.rows:
            return f"{which}: every value is missing"
        if values.unusable and not len(values.numbers):
            return f"{which}: {_unusable_text(values)}"
        if len(values.numbers) < MIN_ROWS:
            return f"{which}: only {len(values.numbers)} values, {MIN_ROWS} are needed"
    return ""


def _remark(reference: Values, current: Values) -> str:
    """What is odd about a column that could be compared; empty when nothing is."""
    remarks = []
    for which, values in (("reference", reference), ("current data", current)):
        if values.unusable:
            remarks.append(f"{which}: {_unusable_text(values)}")
        if values.numbers.min() == values.numbers.max():
            remarks.append(f"{which}: every value is the same")
    return "; ".join(remarks)


def _unusable_text(values: Values) -> str:
    return (
        f"{values.unusable} of {values.rows} rows hold text, infinity "
        "or another value the column cannot have"
    )


def _distribution_text(one: ColumnComparison) -> str:
    if one.column.kind == "binary":
        before, now = one.reference.numbers.mean() * 100, one.current.numbers.mean() * 100
        return f"present in {now:.1f} %, {before:.1f} % in the reference"
    before, now = float(np.median(one.reference.numbers)), float(np.median(one.current.numbers))
    return f"the distribution has changed; median {now:.4g}, {before:.4g} in the reference"


def _missingness_text(one: ColumnComparison) -> str:
    before, now = share_missing(one.reference) * 100, share_missing(one.current) * 100
    return f"missing in {now:.1f} %, {before:.1f} % in the reference"
