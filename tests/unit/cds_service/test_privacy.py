"""Pseudonyms, prediction ids and digests."""

from __future__ import annotations

import itertools
import uuid

from hypothesis import given
from hypothesis import strategies as st

from cds_service.identities.keyring import KeyRing
from cds_service.identities.privacy import Privacy
from cds_service.settings import Keys
from tests.logged import KEYS, PRIVACY

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)


@given(st.lists(TEXT, min_size=4, max_size=4), st.lists(TEXT, min_size=4, max_size=4))
def test_pseudonyms_differ_exactly_where_their_parts_do(one: list[str], two: list[str]) -> None:
    """32 hexadecimal digits; parts do not run into each other."""
    pseudonyms = PRIVACY.pseudonym(*one), PRIVACY.pseudonym(*two)
    assert (pseudonyms[0] == pseudonyms[1]) == (one == two)
    assert all(len(p) == 32 and int(p, 16) >= 0 for p in pseudonyms)


def test_a_pseudonym_is_nothing_without_its_key() -> None:
    """Another key, another pseudonym and another prediction id."""
    other = Privacy(Keys(KeyRing.of(b"q" * 32), KEYS.seal))
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


def test_after_a_change_of_keys_old_pseudonyms_are_still_found() -> None:
    """New ones are made with the first key; every key's can be looked up, by the key's id."""
    ring = KeyRing("2027", {"2027": b"q" * 32, "0": b"p" * 32})
    changed = Privacy(Keys(ring, KEYS.seal))
    parts = ("org", "https://ehr/fhir", "Patient", "1")
    assert changed.pseudonym_key == "2027"
    assert changed.pseudonyms(*parts) == {
        "2027": changed.pseudonym(*parts),
        "0": PRIVACY.pseudonym(*parts),
    }
