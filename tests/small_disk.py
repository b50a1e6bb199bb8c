"""A disk of a few megabytes that a server lies on, and a test fills: a real "no space left".

It is a tmpfs in a mount namespace of its own, made in a user namespace, so that no rights are
needed where the system gives ordinary users those; nobody else sees it, and it is gone with its
processes. Used by the tests of a PostgreSQL whose own disk is full.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HOLD = 'mkdir "$2" && mount -t tmpfs -o size="$1",mode=0700 small "$2" && echo mounted && read _'
"""Mounts it, and holds it until whoever asked for it closes the pipe or dies."""


class NotHere(Exception):
    """This system lets its user have no such disk; why, in its own words."""


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """A disk at a place, which only what is called through `within`, as its user, sees."""

    place: Path
    as_user: Mapping[str, Any]
    within: tuple[str, ...]

    def fill(self) -> None:
        """Take all the room that is left."""
        ended = self._call('cat /dev/zero > "$1"')
        assert b"No space left" in ended.stderr, ended

    def make_room(self) -> None:
        """Give the room back."""
        self._call('rm "$1"').check_returncode()

    def _call(self, script: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*self.within, "sh", "-c", script, "small", self.place / "filler"],
            stdin=subprocess.DEVNULL, capture_output=True, check=False, **self.as_user,
        )  # fmt: skip


@contextmanager
def small_disk(place: Path, size: str, as_user: Mapping[str, Any]) -> Iterator[SmallDisk]:
    """A disk of a size, as `mount` reads it, in a new folder of the user who is to write there.

    Raises NotHere.
    """
    try:
        holder = subprocess.Popen(
            [
                "unshare", "--user", "--map-current-user", "--keep-caps", "--mount",
                "sh", "-c", _HOLD, "hold", size, place,
            ],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/",
            start_new_session=True, **as_user,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise NotHere(str(error)) from None
    assert holder.stdout is not None
    mounted = holder.stdout.readline()
    try:
        if not mounted:
            raise NotHere(holder.communicate(timeout=10)[1].decode(errors="replace").strip())
        within = ("nsenter", "-t", str(holder.pid), "-U", "-m", "--preserve-credentials")
        yield SmallDisk(place, as_user, within)
    finally:
        if mounted:
            holder.communicate(timeout=10)
