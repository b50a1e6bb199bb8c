"""Two documents are the same only where every bit is, and a difference is named by its place."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cds_service.evidence.compared import Difference, differences

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def found(logged: Any, computed: Any) -> list[str]:
    """The places of all differences."""
    return [difference.field for difference in differences(logged, computed)]


@given(JSON)
def test_a_document_is_equal_to_itself(document: Any) -> None:
    """Whatever it holds."""
    assert found(document, document) == []


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_the_next_number_is_another_number(number: float) -> None:
    """Equality has no tolerance: one bit is a difference, and it says how far it is."""
    (difference,) = differences({"risk": number}, {"risk": math.nextafter(number, math.inf)})
    assert difference.field == "risk"
    assert difference.distance is not None
    assert difference.distance > 0


@pytest.mark.parametrize(("logged", "computed"), [(0.0, -0.0), (1, 1.0), (1, True), (None, 0.0)])
def test_what_only_compares_equal_is_not_equal(logged: Any, computed: Any) -> None:
    """Python calls zero and minus zero, one and true the same; a record does not."""
    assert found([logged], [computed]) == ["[0]"]


def test_members_of_a_list_are_known_by_their_names() -> None:
    """A feature that came does not make every feature after it differ."""
    logged = [{"name": "crp", "value": 8.0}, {"name": "age", "value": 78.0}]
    computed = [{"name": "sodium", "value": 140.0}, *logged]
    assert list(differences(logged, computed, "features")) == [
        Difference("features[sodium]", None, {"name": "sodium", "value": 140.0})
    ]


def test_the_order_of_a_list_counts() -> None:
    """The strongest first: another order is another statement."""
    logged = [{"category": "labs"}, {"category": "age"}]
    assert found(logged, logged[::-1]) == [" (order)"]


def test_members_of_one_name_are_told_apart_by_their_places() -> None:
    """Two alarms of one rule are two alarms."""
    logged = [{"rule": "a", "value": 1.0}, {"rule": "a", "value": 2.0}]
    computed = [{"rule": "a", "value": 1.0}, {"rule": "a", "value": 3.0}]
    assert found(logged, computed) == ["[1].value"]


def test_a_field_that_is_not_there_is_named() -> None:
    """On either side."""
    assert found({"risk": 0.5}, {"band": "high"}) == ["risk", "band"]
