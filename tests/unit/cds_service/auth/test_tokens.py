"""Checking one JWT: whatever is sent is taken apart or refused in a word; no third way."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cds_service.auth.tokens import (
    Claims,
    TokenRefused,
    check_claims,
    check_header,
    check_signature,
    take_apart,
)
from tests.issuers import claims, key_of, signed

GOOD = signed(key_of("ec-1"), claims())["Authorization"].removeprefix("Bearer ")
NOW = 1_800_000_000.0
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
NAMES = st.sampled_from(
    ["alg", "kid", "typ", "jku", "jwk", "crit", "iss", "aud", "exp", "iat", "jti", "nbf", "sub"]
)


def segment(value: object) -> str:
    """A part of a JWT."""
    return urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@given(st.text(max_size=200))
@example("")
@example("..")
@example(GOOD[:-1] + "!")
@example("é.é.é")
def test_any_text_is_a_token_or_refused(text: str) -> None:
    """Never with another error, which would be our fault and a 500."""
    with suppress(TokenRefused):
        take_apart(text)


@given(st.dictionaries(NAMES, JSON), st.dictionaries(NAMES, JSON))
def test_any_header_and_payload_are_refused_or_of_the_right_types(
    header: dict[str, object], payload: dict[str, object]
) -> None:
    """Fields of other types than the standard's make it no JWT."""
    with suppress(TokenRefused):
        token = take_apart(f"{segment(header)}.{segment(payload)}.AAAA")
        check_header(token.header)
        check_claims(token.claims, audiences=["https://v.example"], now=NOW)


@given(st.integers(0, len(GOOD) - 1), st.sampled_from("Aa0_-."))
def test_a_token_with_one_letter_exchanged_is_refused(place: int, letter: str) -> None:
    """Wherever it is; the key says no to all but what it signed."""
    changed = GOOD[:place] + letter + GOOD[place + 1 :]
    if changed == GOOD:
        return
    with pytest.raises(TokenRefused):
        check_signature(take_apart(changed), key_of("ec-1"))


def test_a_token_is_read_up_to_16_kb() -> None:
    """What is longer is not even decoded."""
    assert isinstance(take_apart(GOOD).claims, Claims)
    with pytest.raises(TokenRefused, match="too long"):
        take_apart(GOOD + "A" * 16_384)
