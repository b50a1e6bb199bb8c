"""Pseudonyms and seals: the only two forms in which an identity reaches the log.

A pseudonym is a keyed hash (HMAC-SHA-256) of organisation, FHIR base and resource id: the same
patient gets the same one, and without the key nobody can compute or undo it. A seal (AES-256-GCM,
bound to its prediction) holds the references needed later for outcomes and write-back. The keys
come from the environment and are never in the database.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import uuid
from typing import Any

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cds_service.errors import SealBroken
from cds_service.settings import Keys

_SEAL_VERSION = b"\x01"
_NONCE_BYTES = 12


class Privacy:
    """Pseudonyms, ids and seals under one pair of keys."""

    def __init__(self, keys: Keys) -> None:
        self._pseudonym_key = keys.pseudonym
        self._seal = AESGCM(keys.seal)

    def pseudonym(self, *parts: str) -> str:
        """The pseudonym of what the parts name, 32 hexadecimal digits."""
        return self._mac(b"pseudonym", *parts).hex()[:32]

    def prediction_id(
        self, organisation: str, service: str, hook: str, instance: str, *answering: str
    ) -> str:
        """The id of the prediction a hook call asks for (UUID v8); the same call, the same id.

        `answering`: the digest of what was sent, the checksum and the state of the version that
        answers, and its mode. When one of them changes, it is another prediction.
        """
        digest = self._mac(b"prediction", organisation, service, hook, instance, *answering)
        return str(uuid_v8(digest))

    def digest(self, *parts: bytes | memoryview) -> str:
        """A keyed digest of content, to tell whether a repeated call says the same."""
        mac = hmac.new(self._pseudonym_key, b"content", hashlib.sha256)
        for part in parts:
            mac.update(len(part).to_bytes(8, "big"))
            mac.update(part)
        return mac.hexdigest()

    def _mac(self, purpose: bytes, *parts: str) -> bytes:
        message = b"\x00".join([purpose, *(part.encode() for part in parts)])
        return hmac.digest(self._pseudonym_key, message, "sha256")

    def seal(self, prediction_id: str, content: Any) -> bytes:
        """The content as JSON, sealed to one prediction."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = self._seal.encrypt(nonce, msgspec.json.encode(content), prediction_id.encode())
        return _SEAL_VERSION + nonce + sealed

    def unseal(self, prediction_id: str, sealed: bytes) -> Any:
        """What was sealed; SealBroken where it was changed or the key is another."""
        nonce, rest = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            return msgspec.json.decode(self._seal.decrypt(nonce, rest, prediction_id.encode()))
        except InvalidTag:
            raise SealBroken(
                f"the references of prediction {prediction_id} cannot be unsealed: they were "
                "changed, or sealed with another key"
            ) from None


def uuid_v8(digest: bytes) -> uuid.UUID:
    """A UUID of version 8 (RFC 9562) from the first 16 bytes of a digest."""
    number = int.from_bytes(digest[:16], "big")
    number &= ~(0xF << 76) & ~(0x3 << 62)
    return uuid.UUID(int=number | (0x8 << 76) | (0x2 << 62))
