"""The topics of cards: never the same for two things, never another for the same thing."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cds_service.topics import LONGEST_CODE, STOPPED, check_said, risk_said, rule_said, topic_code

WORDS = st.text(min_size=1, max_size=40)


@given(st.lists(WORDS, min_size=1, max_size=12), WORDS)
def test_a_code_is_letters_and_digits_at_most_a_hundred(said: list[str], model: str) -> None:
    """Whatever a package calls its parts, also in Danish."""
    code = topic_code(model, tuple(said))
    assert re.fullmatch(rf"[A-Za-z0-9]{{1,{LONGEST_CODE}}}", code)
    assert code == topic_code(model, tuple(said))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (rule_said("spo2-low"), rule_said("spo2low")),
        (rule_said("iltmåling-lav"), rule_said("iltmling-lav")),
        (risk_said([("a", "bc")]), risk_said([("ab", "c")])),
        (risk_said([("a", "b"), ("c", "d")]), risk_said([("c", "d"), ("a", "b")])),
        (rule_said("x"), rule_said("x") + risk_said([("a", "b")])),
        (check_said("x"), rule_said("x")),
        ((STOPPED[0],), (STOPPED[1],)),
    ],
)
def test_two_things_never_share_a_code(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    """Also where they are the same letters."""
    assert topic_code("m", one) != topic_code("m", other)
    assert topic_code("m", one) != topic_code("m2", one)


def test_a_code_does_not_change() -> None:
    """A site's lock-outs hang on it, so this test may never need another code."""
    code = topic_code("readmission-30d", risk_said([("readmission", "high")]))
    assert code == "readmission30driskreadmissionhighbc3767ab"
