"""Keys and publishers: what is read back, and what is refused."""

from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from models.errors import SignatureRefused
from models.signature import (
    parse_private,
    parse_publishers,
    private_text,
    publisher_of,
    publisher_table,
)

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLISHER = publisher_of(KEY, "Region Nord")


def test_a_key_and_its_table_are_read_back() -> None:
    """The id is made of the public key, so that both name the same."""
    publisher = publisher_of(KEY, 'Region "Nord"\n')
    assert parse_publishers(publisher_table(publisher).encode()) == {publisher.key_id: publisher}
    assert publisher_of(parse_private(private_text(KEY)), publisher.name) == publisher
    raw = base64.b64decode(publisher.public_key)
    assert publisher.key_id == hashlib.sha256(raw).hexdigest()[:16]


TABLE = publisher_table(PUBLISHER)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "missing required field `publisher`"),
        ("publisher = []", "length >= 1"),
        ("[[publisher]", "Expected"),
        (TABLE + 'trusted = "very"', "unknown field `trusted`"),
        (TABLE + TABLE, "two publishers of one key_id"),
        (TABLE.replace(PUBLISHER.key_id, "0" * 16), "key_id is not that of public_key"),
        (TABLE.replace(PUBLISHER.public_key, "%"), "public_key is not base64"),
        (
            TABLE.replace(PUBLISHER.public_key, "AAAA"),
            "public_key must be 32 bytes, it is 3",
        ),
    ],
)
def test_a_list_of_publishers_that_does_not_hold_is_refused(text: str, said: str) -> None:
    with pytest.raises(SignatureRefused) as refused:
        parse_publishers(text.encode())
    assert said in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PRIVATE KEY-----\n", b"\xff"])
def test_a_file_without_a_key_is_refused(content: bytes) -> None:
    with pytest.raises(SignatureRefused, match="not a private key in PEM"):
        parse_private(content)
