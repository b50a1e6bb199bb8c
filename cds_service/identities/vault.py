"""The vault's cryptography: who a prediction is about, sealed so that erasing one key forgets it.

    VARSEL_SEAL_KEY --HKDF--> an organisation's key
                    --wraps--> a patient's data key --seals--> an entry

The keys of organisations are derived and never stored; data keys are random and stored wrapped
(`db/vault.py`). Every seal is AES-256-GCM and bound to what it belongs to: an entry to its
prediction, a wrapped key to its own id and organisation. Who may open the vault, and that each time
is on record, is decided by who calls: outcome linking, the work list, write-back, subject access.
"""

from __future__ import annotations

import secrets
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cds_service.errors import Erased, SealBroken
from cds_service.identities.keyring import KEY_BYTES, KeyRing

BEFORE_THE_VAULT, _OF_A_PATIENT = b"\x01", b"\x02"
"""How an entry begins: sealed with the key of the seals itself, or with a patient's data key."""
_NONCE_BYTES = 12


class Wrapped(NamedTuple):
    """A patient's data key as it is stored: wrapped, with the id of the key that wrapped it."""

    key_id: str
    organisation: str
    seal_key: str
    wrapped: bytes


class Vault:
    """Seals and unseals under one ring of keys."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring
        self._of_organisation = lru_cache(maxsize=256)(self._organisation_key)

    @property
    def seal_key(self) -> str:
        """The id of the key that wraps data keys now."""
        return self._ring.current

    def new_key(self, key_id: str, organisation: str) -> Wrapped:
        """A new data key for a patient of an organisation, wrapped."""
        return self._wrap(key_id, organisation, secrets.token_bytes(KEY_BYTES))

    def rewrap(self, held: Wrapped) -> Wrapped:
        """The same data key, wrapped with the key in use. Raises SealBroken."""
        return self._wrap(held.key_id, held.organisation, self._unwrap(held))

    def data_key(self, held: Wrapped) -> AESGCM:
        """What seals and unseals a patient's entries. Raises SealBroken."""
        return AESGCM(self._unwrap(held))

    def seal(self, key: AESGCM, prediction_id: str, content: bytes) -> bytes:
        """An entry: the content under a patient's data key, bound to a prediction."""
        return _OF_A_PATIENT + _sealed(key, content, prediction_id)

    def unseal(self, prediction_id: str, entry: bytes, held: Wrapped | None) -> Any:
        """What was sealed, decoded from JSON; `held` is None of an entry older than the vault.

        Raises SealBroken where it was changed, or the key is another, Erased where the patient's
        data key was destroyed.
        """
        if held is None and entry[:1] == _OF_A_PATIENT:
            raise Erased(f"the key of the references of prediction {prediction_id} was destroyed")
        keys = [self.data_key(held)] if held else [AESGCM(key) for _, key in self._ring.items()]
        expected = _OF_A_PATIENT if held else BEFORE_THE_VAULT
        if entry[:1] != expected:
            raise _broken(f"the references of prediction {prediction_id}")
        tried = (_opened(key, entry[1:], prediction_id) for key in keys)
        content = next((found for found in tried if found is not None), None)
        if content is None:
            raise _broken(f"the references of prediction {prediction_id}")
        return msgspec.json.decode(content)

    def _wrap(self, key_id: str, organisation: str, key: bytes) -> Wrapped:
        outer = self._of_organisation(self._ring.current, organisation)
        wrapped = _sealed(outer, key, _bound_to(key_id, organisation))
        return Wrapped(key_id, organisation, self._ring.current, wrapped)

    def _unwrap(self, held: Wrapped) -> bytes:
        outer = self._of_organisation(held.seal_key, held.organisation)
        key = _opened(outer, held.wrapped, _bound_to(held.key_id, held.organisation))
        if key is None:
            raise _broken(f"the data key {held.key_id}")
        return key

    def _organisation_key(self, key_id: str, organisation: str) -> AESGCM:
        info = b"varsel organisation\x00" + organisation.encode()
        derived = HKDF(SHA256(), KEY_BYTES, salt=None, info=info).derive(self._key(key_id))
        return AESGCM(derived)

    def _key(self, key_id: str) -> bytes:
        key = self._ring.find(key_id)
        if key is None:
            raise SealBroken(f"VARSEL_SEAL_KEY holds no key called {key_id}")
        return key


def _bound_to(key_id: str, organisation: str) -> str:
    return f"{key_id}\0{organisation}"


def _sealed(key: AESGCM, content: bytes, bound_to: str) -> bytes:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + key.encrypt(nonce, content, bound_to.encode())


def _opened(key: AESGCM, sealed: bytes, bound_to: str) -> bytes | None:
    """What was sealed; None where it was changed, is bound to something else, or the key is."""
    try:
        return key.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound_to.encode())
    except (InvalidTag, ValueError):  # ValueError: too short to hold a nonce
        return None


def _broken(what: str) -> SealBroken:
    return SealBroken(f"{what} cannot be unsealed: changed, or sealed with another key")
