"""The file of callers: what is read, and what is refused with the place named."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from cds_service.callers import read_callers
from cds_service.errors import NotAuthenticated, SetupError

DIGEST = hashlib.sha256(b"token").hexdigest()
OTHER = hashlib.sha256(b"other").hexdigest()


def caller(name: str = "a", digest: str = DIGEST, more: str = "") -> str:
    """One table of the file."""
    return f'[[caller]]\nname = "{name}"\norganisation = "o"\ntoken_sha256 = "{digest}"\n{more}\n'


def written(folder: Path, text: str) -> Path:
    """The file with that text."""
    path = folder / "callers.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_caller_is_recognised_by_its_token(tmp_path: Path) -> None:
    """Whatever the case of the scheme; with its organisation and unit."""
    path = written(tmp_path, caller("a", DIGEST, 'unit = "ward"') + caller("b", OTHER))
    callers = read_callers(path)
    assert callers.recognise("bearer other").name == "b"
    found = callers.recognise("Bearer token")
    assert (found.name, found.organisation, found.unit) == ("a", "o", "ward")
    for header in (None, "", "token", "Basic token", "Bearer", "Bearer tokens", f"Bearer {DIGEST}"):
        with pytest.raises(NotAuthenticated):
            callers.recognise(header)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "caller"),
        ("caller = []", "caller"),
        ("[[caller]]\n", "name"),
        ("[[caller]", "Expected"),
        (caller(digest="abc"), "token_sha256"),
        (caller(digest=DIGEST.upper()), "token_sha256"),
        (caller(name=""), "name"),
        (caller(name="x" * 65), "name"),
        (caller(more="password = 'x'"), "password"),
        (caller(more="unit = 5"), "unit"),
        (caller() + caller("b"), "two callers of one token_sha256"),
        (caller() + caller("a", OTHER), "two callers of one name"),
        ('[[caller]]\nname = "a"\norganisation = "o"\n', "token_sha256 is missing"),
    ],
)
def test_a_file_that_is_wrong_is_refused(tmp_path: Path, text: str, named: str) -> None:
    """The message names the setting and the place."""
    with pytest.raises(SetupError, match=named) as refused:
        read_callers(written(tmp_path, text))
    assert str(refused.value).startswith("VARSEL_CALLERS_FILE: ")


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    """In one line, not with a traceback."""
    with pytest.raises(SetupError, match="No such file"):
        read_callers(tmp_path / "nowhere.toml")
    (tmp_path / "callers.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SetupError, match="VARSEL_CALLERS_FILE"):
        read_callers(tmp_path / "callers.toml")
