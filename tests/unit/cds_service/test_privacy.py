"""Pseudonyms, prediction ids and seals."""

from __future__ import annotations

import itertools
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cds_service.errors import SealBroken
from cds_service.privacy import Privacy
from cds_service.settings import Keys

PRIVACY = Privacy(Keys(pseudonym=b"p" * 32, seal=b"s" * 32))
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)


@given(st.lists(TEXT, min_size=4, max_size=4), st.lists(TEXT, min_size=4, max_size=4))
def test_pseudonyms_differ_exactly_where_their_parts_do(one: list[str], two: list[str]) -> None:
    """32 hexadecimal digits; parts do not run into each other."""
    pseudonyms = PRIVACY.pseudonym(*one), PRIVACY.pseudonym(*two)
    assert (pseudonyms[0] == pseudonyms[1]) == (one == two)
    assert all(len(p) == 32 and int(p, 16) >= 0 for p in pseudonyms)


def test_a_pseudonym_is_nothing_without_its_key() -> None:
    """Another key, another pseudonym and another prediction id."""
    other = Privacy(Keys(pseudonym=b"q" * 32, seal=b"s" * 32))
    parts = ("org", "https://ehr/fhir", "Patient", "1")
    assert PRIVACY.pseudonym(*parts) != other.pseudonym(*parts)
    assert PRIVACY.prediction_id(*parts) != other.prediction_id(*parts)
    assert PRIVACY.digest(b"x") != other.digest(b"x")


def test_a_prediction_id_is_a_uuid_made_from_the_call() -> None:
    """Version 8 of RFC 9562; the same call has the same id, another organisation another."""
    call = ("org", "readmission-30d", "patient-view", "6f1d2b0a-3c44-4c8e-9a51-5a0f6a3f7d10")
    made = uuid.UUID(PRIVACY.prediction_id(*call))
    assert made.version == 8
    assert made.variant == uuid.RFC_4122
    assert PRIVACY.prediction_id(*call) == str(made)
    assert PRIVACY.prediction_id("other", *call[1:]) != str(made)
    answering = itertools.product(("a", "b"), ("live", "paused"), ("live", "silent"))
    # other files, another state or another mode make another prediction
    assert len({PRIVACY.prediction_id(*call, *parts) for parts in answering}) == 8


def test_content_is_told_apart_by_where_its_parts_end() -> None:
    """`ab` and `c` is not `a` and `bc`."""
    assert PRIVACY.digest(b"ab", b"c") != PRIVACY.digest(b"a", b"bc")
    assert PRIVACY.digest(b"ab", b"c") == PRIVACY.digest(b"ab", b"c")


@given(st.dictionaries(TEXT, TEXT, max_size=3), st.integers(0, 40))
def test_a_seal_opens_whole_or_not_at_all(content: dict[str, str], place: int) -> None:
    """What was sealed comes back; one changed bit, and nothing does."""
    sealed = PRIVACY.seal("id", content)
    assert PRIVACY.unseal("id", sealed) == content
    at = 1 + place % (len(sealed) - 1)
    broken = sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]
    with pytest.raises(SealBroken, match="another key"):
        PRIVACY.unseal("id", broken)


def test_the_same_content_is_sealed_differently_each_time() -> None:
    """Nobody sees from two seals that they hold the same."""
    assert PRIVACY.seal("id", {"a": 1}) != PRIVACY.seal("id", {"a": 1})
