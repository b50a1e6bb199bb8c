"""Pseudonyms, ids and digests: the keyed forms in which identities reach the log.

A pseudonym is a keyed hash (HMAC-SHA-256) of organisation, FHIR base and resource id, or of
organisation and CPR number: the same patient gets the same one, and without the key nobody can
compute or undo it. The keys come from the environment and are never in the database. What must be
known again later, sealed: `vault.py`.
"""

from __future__ import annotations

import hashlib
import hmac
import uuid
from typing import Any

from cds_service.identities.vault import Vault, Wrapped
from cds_service.settings import Keys


class Privacy:
    """Pseudonyms, ids and digests under one pair of key rings, and the vault."""

    def __init__(self, keys: Keys) -> None:
        self._ring = keys.pseudonym
        self._key = keys.pseudonym.key
        self.vault = Vault(keys.seal)

    @property
    def pseudonym_key(self) -> str:
        """The id of the key that pseudonyms are made with now."""
        return self._ring.current

    def pseudonym(self, *parts: str) -> str:
        """The pseudonym of what the parts name, 32 hexadecimal digits."""
        return self._mac(b"pseudonym", *parts).hex()[:32]

    def pseudonyms(self, *parts: str) -> dict[str, str]:
        """By key id, the pseudonym under every key there is: to look up what older ones made."""
        return {
            key_id: _mac(key, b"pseudonym", *parts).hex()[:32] for key_id, key in self._ring.items()
        }

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
        mac = hmac.new(self._key, b"content", hashlib.sha256)
        for part in parts:
            mac.update(len(part).to_bytes(8, "big"))
            mac.update(part)
        return mac.hexdigest()

    def unseal(self, row: Any) -> Any:
        """The references of a prediction, from its row of the log. Raises SealBroken."""
        held = None
        if row["key_id"] is not None:
            held = Wrapped(row["key_id"], row["organisation"], row["seal_key"], row["wrapped"])
        return self.vault.unseal(row["prediction_id"], row["sealed"], held)

    def _mac(self, purpose: bytes, *parts: str) -> bytes:
        return _mac(self._key, purpose, *parts)


def _mac(key: bytes, purpose: bytes, *parts: str) -> bytes:
    message = b"\x00".join([purpose, *(part.encode() for part in parts)])
    return hmac.digest(key, message, "sha256")


def uuid_v8(digest: bytes) -> uuid.UUID:
    """A UUID of version 8 (RFC 9562) from the first 16 bytes of a digest."""
    number = int.from_bytes(digest[:16], "big")
    number &= ~(0xF << 76) & ~(0x3 << 62)
    return uuid.UUID(int=number | (0x8 << 76) | (0x2 << 62))
