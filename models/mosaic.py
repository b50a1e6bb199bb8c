"""Invented rows that stand for a cohort of patients whose own rows must not leave the house.

Lives here: rows put together from many patients (a mosaic), for the reference sample, the
background and the worked examples of a package trained on real data (ADR 0011 has the choice and
its figures). Does not live here: which data are real (the manifest says `synthetic`), choosing a
background (`models/training.py`). Called by training.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FEWEST_PATIENTS = 5
"""Patients who must share a value, or a row, before it is told: one to four are hidden everywhere
else in the product too (`validation.disclosure`)."""
NEIGHBOURS = 25
"""Patients of like risk a row is put together from, at least; one for each column where there are
more columns."""
TRIES = 20
"""How often a row that is the row of fewer than five patients is put together anew."""

Floats = NDArray[np.float64]
Names = NDArray[np.str_]


def mosaic(rows: Floats, patients: Names, risks: Floats, *, size: int, seed: int) -> Floats:
    """At most `size` invented rows, (size, columns), NaN missing.

    `rows` (n, columns) are the patients' own, `patients` (n,) whose each is, `risks` (n,) what the
    model says of it. Every value of an invented row comes from another patient of like risk, and is
    one that at least five patients share, or the middle one of five neighbours. A row that is the
    own row of one to four patients all the same is put together anew; one that stays so is left
    out. The same arguments give the same rows.
    """
    draw = np.random.default_rng(seed)
    told = np.column_stack([shared_values(column, patients) for column in rows.T])
    order = np.argsort(risks, kind="stable")
    rare = _rare_rows(rows, patients)
    made = (
        _row_near(int((place + 0.5) * len(order) / size), told, patients, order, rare, draw)
        for place in range(size)
    )
    return np.array([row for row in made if row is not None]).reshape(-1, rows.shape[1])


def shared_values(column: Floats, patients: Names) -> Floats:
    """The column with each value that fewer than five patients have replaced by the middle one of
    its neighbours, five patients or more together; all missing where fewer than five are known."""
    known = np.flatnonzero(~np.isnan(column))
    told = np.full(len(column), np.nan)
    groups = _groups(known[np.argsort(column[known], kind="stable")], column, patients)
    for group in groups:
        told[group] = np.sort(column[group])[len(group) // 2]
    return told


def _groups(ordered: NDArray[np.int64], column: Floats, patients: Names) -> list[list[int]]:
    """Neighbours in value: equal values together, at least five patients in each group."""
    groups: list[list[int]] = []
    group: list[int] = []
    whose: set[str] = set()
    for place, row in enumerate(ordered.tolist()):
        group.append(row)
        whose.add(str(patients[row]))
        last = place + 1 == len(ordered)
        if len(whose) >= FEWEST_PATIENTS and (last or column[ordered[place + 1]] != column[row]):
            groups.append(group)
            group, whose = [], set()
    if group and groups:
        groups[-1].extend(group)
    return groups


def _rare_rows(rows: Floats, patients: Names) -> frozenset[bytes]:
    """The rows that one to four patients have, as bytes."""
    whose: dict[bytes, set[str]] = {}
    for row, patient in zip(rows, patients, strict=True):
        whose.setdefault(row.tobytes(), set()).add(str(patient))
    return frozenset(row for row, who in whose.items() if len(who) < FEWEST_PATIENTS)


def _row_near(
    place: int,
    told: Floats,
    patients: Names,
    order: NDArray[np.int64],
    rare: frozenset[bytes],
    draw: np.random.Generator,
) -> Floats | None:
    """A row put together from patients about a place in the order of risks; None where every try
    was the row of a few patients."""
    near = _neighbours(place, patients, order, wanted=max(NEIGHBOURS, told.shape[1]))
    for _ in range(TRIES):
        row = told[_donors(near, patients, told.shape[1], draw), np.arange(told.shape[1])]
        if row.tobytes() not in rare:
            return np.asarray(row, dtype=np.float64)
    return None


def _neighbours(
    place: int, patients: Names, order: NDArray[np.int64], *, wanted: int
) -> NDArray[np.int64]:
    """The rows next to a place in the order of risks, of `wanted` patients or of all there are."""
    width = wanted
    while True:
        start = max(0, min(place - width // 2, len(order) - width))
        near = order[start : start + width]
        if width >= len(order) or len(np.unique(patients[near])) >= wanted:
            return near
        width *= 2


def _donors(
    near: NDArray[np.int64], patients: Names, columns: int, draw: np.random.Generator
) -> NDArray[np.int64]:
    """For each column the row its value comes from: of another patient each, as far as they go."""
    shuffled = draw.permutation(near)
    _, first = np.unique(patients[shuffled], return_index=True)
    one_each = draw.permutation(shuffled[first])
    return np.resize(one_each, columns)
