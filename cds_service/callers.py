"""Who may call: the allow-list of callers, each of one organisation.

The file (VARSEL_CALLERS_FILE) is TOML, one table a caller, with the SHA-256 of its bearer token;
the token itself stands nowhere with us. Without a file (demo on loopback) everybody is the demo
caller.

    [[caller]]
    name = "ward-a"
    organisation = "1234567890"
    unit = "ward-a"                             # optional: the unit its predictions are logged for
    token_sha256 = "<64 hexadecimal digits>"
"""

from __future__ import annotations

import hashlib
import hmac
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from cds_service.errors import NotAuthenticated, SetupError

# as long as the columns of the log that hold them
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class Caller(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A caller, the organisation whose silo it writes to, and the unit it speaks for, if one."""

    name: Name
    organisation: Name
    token_sha256: Digest = ""
    unit: Name | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    caller: Annotated[list[Caller], msgspec.Meta(min_length=1)]


@dataclass(frozen=True, slots=True)
class Callers:
    """The callers let in; `open_to` is the caller everybody is where there is no list."""

    listed: tuple[Caller, ...] = ()
    open_to: Caller | None = None

    def recognise(self, authorization: str | None) -> Caller:
        """The caller an Authorization header proves; NotAuthenticated where it proves none."""
        if self.open_to is not None:
            return self.open_to
        scheme, _, token = (authorization or "").partition(" ")
        digest = hashlib.sha256(token.encode()).hexdigest()
        matching = [c for c in self.listed if hmac.compare_digest(c.token_sha256, digest)]
        if scheme.lower() != "bearer" or not matching:
            raise NotAuthenticated("not authenticated")
        return matching[0]


def read_callers(path: Path) -> Callers:
    """The callers a file lists; SetupError names what is wrong in it."""
    try:
        file = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _File)
    except OSError as error:
        raise SetupError(f"VARSEL_CALLERS_FILE: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise SetupError(f"VARSEL_CALLERS_FILE: {error}") from None
    for caller in file.caller:
        if not caller.token_sha256:
            raise SetupError(f"VARSEL_CALLERS_FILE: {caller.name}: token_sha256 is missing")
    for what in ("name", "token_sha256"):
        seen = Counter(getattr(caller, what) for caller in file.caller)
        if max(seen.values()) > 1:
            raise SetupError(f"VARSEL_CALLERS_FILE: two callers of one {what}")
    return Callers(listed=tuple(file.caller))
