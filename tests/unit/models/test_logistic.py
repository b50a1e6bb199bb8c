"""The logistic model's two ways to a risk: of many rows, and of one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from models.logistic import Logistic

MODEL = Logistic(["a", "b"], [1.0, 2.0], [1.0, 2.0], [0.5, 2.0], [0.3, -0.2], -1.0)


@pytest.mark.parametrize("value", [-1e9, -1e8, -3.0, 0.0, 2.5, 1e8, 1e9, math.nan])
def test_one_row_has_the_risk_it_has_among_many(value: float) -> None:
    """A probability, also of a value nobody has: an absurd one must not fail the scoring."""
    row = [value, 2.0]
    risk = MODEL.risk_of(row)
    assert 0.0 <= risk <= 1.0
    assert risk == pytest.approx(float(MODEL.risk(np.array([row]))[0]), abs=1e-12)
