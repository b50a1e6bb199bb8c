"""Keys with their ids: the one in use, and those that were and still open what they closed.

Read from the environment by `settings.py`; never in the database, never printed. How a key is
exchanged for another: docs/privacy.md.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping

from cds_service.errors import SetupError

KEY_BYTES = 32
UNNAMED = "0"
"""The id of a key that was given without one."""
_ID = re.compile(r"[A-Za-z0-9._-]{1,16}")


class KeyRing:
    """Keys by id, of which `current` is used for what is made now. Never printed."""

    __slots__ = ("_keys", "current")

    def __init__(self, current: str, keys: Mapping[str, bytes]) -> None:
        self.current = current
        self._keys = dict(keys)

    @classmethod
    def of(cls, key: bytes) -> KeyRing:
        """A ring of one key without a name."""
        return cls(UNNAMED, {UNNAMED: key})

    @property
    def key(self) -> bytes:
        """The key in use."""
        return self._keys[self.current]

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all keys, the one in use first."""
        return tuple(self._keys)

    def items(self) -> Iterator[tuple[str, bytes]]:
        """Every key with its id, the one in use first."""
        return iter(self._keys.items())

    def find(self, key_id: str) -> bytes | None:
        """The key of an id; None where it is not here any more."""
        return self._keys.get(key_id)


def read_ring(name: str, text: str) -> KeyRing:
    """The ring a setting holds: keys separated by spaces, each `id:base64`, or base64 alone.

    The first one is in use. Raises SetupError naming the setting; never what it holds.
    """
    keys: dict[str, bytes] = {}
    for one in text.split():
        named, _, key = one.rpartition(":")
        key_id = named or UNNAMED
        if not _ID.fullmatch(key_id):
            raise SetupError(f"{name}: an id is up to 16 letters, digits and . _ -")
        if key_id in keys:
            raise SetupError(f"{name}: two keys of one id")
        keys[key_id] = _decoded(name, key)
    if not keys:
        raise SetupError(f"{name} is empty")
    return KeyRing(next(iter(keys)), keys)


def _decoded(name: str, text: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise SetupError(f"{name} is not base64") from None
    if len(key) != KEY_BYTES:
        raise SetupError(f"{name} must be {KEY_BYTES} bytes, it is {len(key)}")
    return key
