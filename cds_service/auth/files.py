"""Reading a TOML file of who is let in: of callers, or of the issuers of readers' tokens."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from cds_service.errors import SetupError

File = TypeVar("File")


class Listed(NamedTuple):
    """A file as it is spoken of: the setting that names it, its tables, and what each goes by."""

    setting: str
    table: str
    name: str

    def fault(self, said: str) -> SetupError:
        """What is wrong with the file."""
        return SetupError(f"{self.setting}: {said}")

    def read(self, path: Path, of: type[File]) -> File:
        """What the file holds; SetupError names the table and the field at fault."""
        read: dict[str, Any] = {}
        try:
            read = tomllib.loads(path.read_text(encoding="utf-8"))
            return msgspec.convert(read, of)
        except OSError as error:
            raise self.fault(str(error.strerror)) from None
        except msgspec.ValidationError as error:
            raise self.fault(f"{self._named(read, str(error))}{error}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise self.fault(str(error)) from None

    def _named(self, read: Mapping[str, Any], said: str) -> str:
        """The name of the table a decoding error is about, as far as it has one."""
        place = re.search(rf"\$\.{self.table}\[(\d+)\]", said)
        table = read[self.table][int(place.group(1))] if place else {}
        name = table.get(self.name) if isinstance(table, dict) else None
        return f"{name}: " if isinstance(name, str) else ""
