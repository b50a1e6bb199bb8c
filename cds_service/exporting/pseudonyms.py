"""The ways by which a patient gets a code in an export, by the names ENISA and WP 216 give them.

An export is to be joined with others, undone, or neither; the way decides which, so it is asked for
by name and there is none by default. The log's own pseudonym never leaves: under a key of its own,
or a table, an export cannot be joined with the log by who has both. Called by
`cds_service/exporting/cohort.py`.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from typing import NamedTuple

from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cds_service.errors import SetupError
from cds_service.identities.keyring import KeyRing, read_ring

KEY_SETTING = "VARSEL_EXPORT_KEY"
WAYS = {
    "encryption": "the holder of the key can undo it; the same key gives the same codes",
    "mapping-table": "random codes; the table that undoes them is a file of its own, which stays",
    "keyed-hash": "nobody can undo it; the same key gives the same codes",
    "token": "random codes, no table: nobody can undo or join them",
}
REFUSED = {
    "hash": "an unkeyed hash is no pseudonym: there are some 365 million possible CPR numbers, and "
    "all of them can be hashed in minutes and compared; take keyed-hash",
    "none": "patients leave under a code or not at all",
}
KEYED = frozenset({"encryption", "keyed-hash"})
BASES = ("pseudonym", "patient", "cpr")
"""What a code can be made of: the log's pseudonym, or what only the vault holds."""
_SIV_BYTES, _CODE_BYTES, _HASH_BYTES = 64, 16, 16


class Named(NamedTuple):
    """A patient as one row names them: what the code is made of, and the log's pseudonym."""

    base: str
    pseudonym: str


Coder = Callable[[Named], str]
"""The code of a patient; the same patient in the same export, the same code."""


def check_way(way: str) -> None:
    """Raise SetupError where there is no way of that name, with the reason why there is none."""
    if way in REFUSED:
        raise SetupError(f"--pseudonyms {way}: {REFUSED[way]}")
    if way not in WAYS:
        raise SetupError(f"--pseudonyms {way}: one of {', '.join(WAYS)}")


def export_key(text: str | None, *ours: KeyRing) -> bytes:
    """The key of an export from its setting: 32 bytes in base64, and none of the log's own.

    Raises SetupError where it is not set, too short, or a key that pseudonyms of the log are made
    with, or its vault is sealed with: who gets it could test who is in the log, or read it.
    """
    if not text:
        raise SetupError(f"{KEY_SETTING} is not set: 32 random bytes in base64, for this export")
    key = read_ring(KEY_SETTING, text).key
    if any(hmac.compare_digest(key, one) for ring in ours for _, one in ring.items()):
        raise SetupError(
            f"{KEY_SETTING} is a key of the log itself: an export needs one of its own"
        )
    return key


def keyed_coder(way: str, of: str, key: bytes) -> Coder:
    """Codes made with a key, bound to what they are made of (`of`)."""
    return _encrypting(of, key) if way == "encryption" else _hashing(of, key)


class RandomCodes:
    """Random codes, given out as patients come; `table` is what undoes them."""

    def __init__(self) -> None:
        self._codes: dict[str, str] = {}
        self._pairs: dict[tuple[str, str], None] = {}

    def __call__(self, named: Named) -> str:
        """The code of a patient, drawn at their first row."""
        code = self._codes.setdefault(named.base, secrets.token_hex(_CODE_BYTES))
        self._pairs[code, named.pseudonym] = None
        return code

    @property
    def table(self) -> list[tuple[str, str]]:
        """Code and the log's pseudonym, sorted by code, so that their order tells nothing. Whatever
        codes were made of, no patient's id and no CPR number is in it."""
        return sorted(self._pairs)


def _encrypting(of: str, key: bytes) -> Coder:
    """AES-SIV (RFC 5297): deterministic, and a changed code does not open."""
    siv = AESSIV(
        HKDF(SHA256(), _SIV_BYTES, salt=None, info=b"varsel export encryption").derive(key)
    )
    return lambda named: siv.encrypt(named.base.encode(), [of.encode()]).hex()


def _hashing(of: str, key: bytes) -> Coder:
    """HMAC-SHA-256, 32 hexadecimal digits."""
    purpose = b"varsel export keyed-hash\x00" + of.encode() + b"\x00"
    return lambda named: hmac.digest(key, purpose + named.base.encode(), "sha256")[
        :_HASH_BYTES
    ].hex()
