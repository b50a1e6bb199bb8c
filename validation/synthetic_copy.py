"""Rows drawn from a model of a cohort's numbers: a vine copula over kernel-smoothed margins.

The model and its fit are pyvinecopulib's; here stands what it does not take: missing values, which
become a yes/no column of their own, and numbers with few decimals. Before anything is fitted, every
value that fewer than five patients share is replaced (`models.mosaic.shared_values`), so that no
extreme is one patient's. Called by `varsel export --synthetic`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from models.mosaic import shared_values

MOST_FITTED = 3000
"""Rows the model is fitted on, at most: time grows with them, what it learns hardly."""
TREES = 3
"""Levels of the vine: of each column what goes with it best, and twice what remains."""
MOST_STEPS = 20
"""Whole numbers of up to so many values are steps; of more they are a scale."""
_LACKS = "lacks:"
_MOST_DECIMALS = 4


def synthetic_copy(
    numbers: pd.DataFrame, patients: pd.Series, *, size: int, seed: int
) -> pd.DataFrame:
    """`size` invented rows with the columns of `numbers` (float, NaN missing).

    `patients`: whose each row is. A column without a value stays without, one with a single value
    keeps it. The same arguments give the same rows.
    """
    draw = np.random.default_rng(seed)
    told = _shared(numbers, patients)
    if len(told) > MOST_FITTED:
        told = told.iloc[np.sort(draw.choice(len(told), MOST_FITTED, replace=False))]
    whole = _without_gaps(told, draw)
    moving = [name for name in whole if whole[name].nunique() > 1]
    drawn = _drawn(whole[moving], size, draw) if len(moving) > 1 else None
    return pd.DataFrame({str(n): _column(str(n), whole, drawn, size) for n in numbers})


def _shared(numbers: pd.DataFrame, patients: pd.Series) -> pd.DataFrame:
    """The same with no value that fewer than five patients have."""
    names = patients.to_numpy().astype(np.str_)
    columns = {n: shared_values(numbers[n].to_numpy(dtype=np.float64), names) for n in numbers}
    return pd.DataFrame(columns).reset_index(drop=True)


def _without_gaps(told: pd.DataFrame, draw: np.random.Generator) -> pd.DataFrame:
    """Every column filled with values of its own, and beside it whether it lacked them."""
    whole: dict[str, np.ndarray] = {}
    for name in told:
        values = told[name].to_numpy(copy=True)
        lacking = np.isnan(values)
        if lacking.all():
            continue
        if lacking.any():
            whole[f"{_LACKS}{name}"] = lacking.astype(np.float64)
            values[lacking] = draw.choice(values[~lacking], int(lacking.sum()))
        whole[str(name)] = values
    return pd.DataFrame(whole)


def _drawn(whole: pd.DataFrame, size: int, draw: np.random.Generator) -> pd.DataFrame:
    """Rows of the fitted model."""
    from pyvinecopulib.core import FitControlsVinecop, Vinedist  # heavy, of an extra
    from pyvinecopulib.families import gaussian  # as above

    kinds = ["d" if _in_steps(whole[name]) else "c" for name in whole]
    controls = FitControlsVinecop(family_set=[gaussian], trunc_lvl=TREES)
    model = Vinedist.from_data(whole.to_numpy(), controls, var_types=kinds)
    seeds = [int(one) for one in draw.integers(0, 2**31 - 1, 4)]
    return pd.DataFrame(model.sample(size, seeds=seeds), columns=whole.columns)


def _in_steps(values: pd.Series) -> bool:
    return bool((values == values.round()).all()) and values.nunique() <= MOST_STEPS


def _column(name: str, whole: pd.DataFrame, drawn: pd.DataFrame | None, size: int) -> np.ndarray:
    """A column as it was: within its range, with its decimals and gaps."""
    if name not in whole:
        return np.full(size, np.nan)
    known = whole[name]
    if drawn is None or name not in drawn:
        values = np.full(size, known.iloc[0])
    else:
        values = drawn[name].to_numpy().clip(known.min(), known.max()).round(_decimals(known))
    gaps = f"{_LACKS}{name}"
    if drawn is not None and gaps in drawn:
        return np.where(drawn[gaps].to_numpy() > 0.5, np.nan, values)
    return values


def _decimals(known: pd.Series) -> int:
    """How many decimals the values have, up to four."""
    return next(
        (n for n in range(_MOST_DECIMALS) if np.allclose(known, known.round(n), atol=1e-9)),
        _MOST_DECIMALS,
    )
