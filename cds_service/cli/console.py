"""What commands share: JSON out, progress on standard error, folders to write to."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from cds_service.errors import SetupError

JSON_HELP = "Print one JSON document on standard output and nothing else"


def print_json(content: Any) -> None:
    """One JSON document on standard output, in which nothing is obeyed by a terminal: characters
    that are not printed stand there as JSON escapes, and mean the same to who reads it.
    """
    text = msgspec.json.format(msgspec.json.encode(content), indent=2).decode()
    shown = (c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
    sys.stdout.buffer.write("".join(shown).encode() + b"\n")
    sys.stdout.flush()


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error: call it with how many are done and how many there are."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def folder_to_write(path: Path, option: str = "--out") -> Path:
    """The folder, made if it is not there; SetupError where it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(f"{option} {path}: {error.strerror}") from None
    return path


def folder_to_read(path: Path, option: str) -> Path:
    """The folder; SetupError where there is none."""
    if not path.is_dir():
        raise SetupError(f"{option} {path}: no such folder")
    return path
