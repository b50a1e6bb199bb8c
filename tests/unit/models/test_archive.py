"""The archive a package travels in: what may be unpacked, and what is refused before it is."""

from __future__ import annotations

import io
import stat
import string
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.archive import (
    MAX_ARCHIVE_BYTES,
    MAX_FILE_BYTES,
    MAX_FILES,
    MAX_NAME,
    MIB,
    colliding,
    name_fault,
    open_archive,
    read_archive_file,
    write_archive,
)
from models.errors import PackageRefused
from models.package import KINDS

FILES = {"manifest.toml": b"id = 1\n", "heads/a/background.csv": b"x\n1\n" * 100, "SHA256SUMS": b""}
Build = Callable[[zipfile.ZipFile], object]


def built(*builds: Build, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip with the usual files and what the builds add, as any tool could make it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # duplicate names are meant
        for name, content in FILES.items():
            archive.writestr(name, content)
        for build in builds:
            build(archive)
    return out.getvalue()


def small(name: str) -> Build:
    """Adds one small file."""
    return lambda archive: archive.writestr(name, b"1")


def holding(name: str, content: bytes = b"{}") -> bytes:
    """The usual archive with one more file."""
    return built(lambda archive: archive.writestr(name, content))


def of_mode(name: str, mode: int, content: bytes = b"/etc/passwd") -> bytes:
    """The usual archive with one more entry of a special kind."""
    entry = zipfile.ZipInfo(name)
    entry.external_attr = mode << 16
    return built(lambda archive: archive.writestr(entry, content))


def claiming(offset: int, form: str, *values: int) -> bytes:
    """The usual archive with other numbers at an offset of the directory's first entry."""
    content = bytearray(built())
    at = content.index(b"PK\x01\x02") + offset
    struct.pack_into(form, content, at, *values)
    return bytes(content)


# ---- names ----------------------------------------------------------------------------------


@given(st.text(max_size=MAX_NAME + 10) | st.text("./\\:aA1-", max_size=20).map("{}.csv".format))
def test_a_name_that_passes_lies_in_the_folder_on_any_system(name: str) -> None:
    """Whatever the name: where nothing is wrong with it, it leads nowhere else."""
    if name_fault(name) is not None:
        return
    for path in (PurePosixPath(name), PureWindowsPath(name)):
        assert not path.is_absolute()
        assert not path.drive
        assert ".." not in path.parts
        assert "/".join(path.parts) == name
    folder = Path("/target").resolve()
    assert (folder / name).resolve().is_relative_to(folder)
    assert name == "SHA256SUMS" or PurePosixPath(name).suffix in KINDS


@given(
    st.lists(
        st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=12)
        .filter(lambda segment: not segment.startswith("-"))
        .map("x{}".format),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from(sorted(KINDS)),
)
def test_ordinary_names_pass(segments: list[str], kind: str) -> None:
    assert name_fault("/".join(segments) + kind) is None


@pytest.mark.parametrize(
    ("names", "met"),
    [
        (["a.csv", "b.csv", "A.CSV"], "A.CSV"),
        (["a.csv", "a.csv/b.csv"], "a.csv/b.csv"),
        (["x/a.csv/b.csv", "X/a.csv"], "X/a.csv"),
        (["x/a.csv", "x/b.csv", "y/a.csv"], None),
    ],
)
def test_names_that_meet_on_some_file_system_are_seen(names: list[str], met: str | None) -> None:
    assert colliding(names) == met


# ---- writing --------------------------------------------------------------------------------


def test_the_same_files_give_the_same_bytes_in_any_order() -> None:
    again = dict(sorted(FILES.items(), reverse=True))
    assert write_archive(FILES) == write_archive(again)


def test_what_is_written_is_read() -> None:
    archive = open_archive(write_archive(FILES), "a.zip")
    assert {name: archive.read(name) for name in archive.names} == FILES


# ---- refusals -------------------------------------------------------------------------------

REFUSED: dict[str, tuple[bytes, str]] = {
    # paths
    "a path outside": (holding("../outside.json"), "../outside.json: its path leads outside"),
    "hidden outside": (holding("a/../../b.json"), "a/../../b.json: its path leads outside"),
    "absolute": (holding("/outside.json"), "/outside.json: its path is absolute"),
    "backslash": (holding("..\\outside.json"), "..\\outside.json: its path holds a backslash"),
    "drive": (holding("C:outside.json"), "C:outside.json: its path holds a colon"),
    "dot": (holding("./a.json"), "./a.json: its path is not made of"),
    "empty segment": (holding("a//b.json"), "a//b.json: its path is not made of"),
    "hidden file": (holding(".a.json"), ".a.json: its path is not made of"),
    "line break": (holding("a\nb.json"), "its path is not made of"),
    "device": (holding("heads/con.json"), "heads/con.json: its name is reserved"),
    "long name": (holding("a" * MAX_NAME + ".json"), "its name is longer than 160 characters"),
    # kinds
    "a pickle": (holding("model.pkl", b"\x80\x04K\x01."), "model.pkl: it is of a kind no package"),
    "joblib": (holding("heads/a/m.joblib"), "heads/a/m.joblib: it is of a kind no package holds"),
    "a program": (holding("setup.py"), "setup.py: it is of a kind no package holds"),
    "no suffix": (holding("README"), "README: it is of a kind no package holds"),
    "inner sums": (holding("heads/SHA256SUMS"), "heads/SHA256SUMS: it is of a kind no package"),
    "a folder": (holding("heads/", b""), "heads/: is not a plain file"),
    "a link": (of_mode("a.json", stat.S_IFLNK | 0o777), "a.json: is a link"),
    "a pipe": (of_mode("a.json", stat.S_IFIFO | 0o644), "a.json: is not a plain file"),
    "a device": (of_mode("a.json", stat.S_IFCHR | 0o644), "a.json: is not a plain file"),
    # twice
    "twice": (holding("manifest.toml"), "manifest.toml: its name is there twice"),
    "twice but for case": (holding("MANIFEST.toml"), "MANIFEST.toml: its name is there twice"),
    "a file as folder": (
        holding("manifest.toml/a.json"),
        "manifest.toml/a.json: its name is there",
    ),
    # too much
    "a bomb": (holding("a.csv", bytes(20 * MIB)), "a.csv: is packed more than 100 : 1"),
    "a large file": (claiming(24, "<L", MAX_FILE_BYTES + 1), "manifest.toml: is larger than"),
    "too many files": (
        built(*(small(f"f{i}.csv") for i in range(MAX_FILES + 1))),
        "holds more than 500 files",
    ),
    # how it is packed
    "encrypted": (claiming(8, "<H", 1), "manifest.toml: is encrypted"),
    "bzip2": (built(compression=zipfile.ZIP_BZIP2), "manifest.toml: is packed otherwise"),
    "no zip": (b"no zip at all", "is not a zip archive"),
    "nothing": (b"", "is not a zip archive"),
    "no files": (b"PK\x05\x06" + bytes(18), "holds no files"),
    "something before": (b"#!/bin/sh\n" + built(), "is not a zip archive"),
    "something after": (built() + b"\n", "is not a zip archive"),
    "a comment": (built(lambda z: setattr(z, "comment", b"hello")), "is not a zip archive"),
    "zip64": (
        built()[:-22] + b"PK\x06\x07" + bytes(16) + built()[-22:],
        "is a zip64 archive",
    ),
}


@pytest.mark.parametrize(("content", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_an_archive_that_must_not_be_unpacked_is_refused_by_its_directory(
    content: bytes, said: str
) -> None:
    """With the file in it and the reason."""
    with pytest.raises(PackageRefused) as refused:
        open_archive(content, "a.zip")
    assert said in refused.value.fault
    assert refused.value.model_id == "a.zip"


def test_files_that_are_too_much_together_are_refused() -> None:
    """Each within its own limits, by the sizes the directory claims."""
    content = bytearray(built(*(small(f"f{i}.csv") for i in range(5))))
    at = -1
    while (at := content.find(b"PK\x01\x02", at + 1)) >= 0:
        struct.pack_into("<2L", content, at + 20, MAX_FILE_BYTES, MAX_FILE_BYTES)
    with pytest.raises(PackageRefused, match="holds more than 268435456 bytes unpacked"):
        open_archive(bytes(content), "a.zip")


def test_a_directory_that_lies_about_its_length_is_not_read() -> None:
    """The count says one; what lies there would fill the memory."""
    content = bytearray(built(*(small(f"heads/h{i}.csv") for i in range(5000))))
    struct.pack_into("<2H", content, len(content) - 14, 1, 1)
    with pytest.raises(PackageRefused, match="holds more than 500 files"):
        open_archive(bytes(content), "a.zip")


def test_no_more_is_unpacked_than_was_claimed() -> None:
    """A file that says it is small is never read further than that."""
    archive = open_archive(claiming(24, "<L", 3), "a.zip")
    with pytest.raises(PackageRefused, match=r"manifest\.toml: cannot be unpacked"):
        archive.read("manifest.toml")
    with pytest.raises(PackageRefused, match=r"background\.csv: is larger than 10 bytes"):
        archive.read("heads/a/background.csv", 10)
    with pytest.raises(PackageRefused, match=r"other\.csv: is missing"):
        archive.read("other.csv")


def test_an_archive_file_too_large_or_not_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with pytest.raises(PackageRefused, match=r"a\.zip: No such file"):
        read_archive_file(path)
    with path.open("wb") as file:
        file.truncate(MAX_ARCHIVE_BYTES + 1)
    with pytest.raises(PackageRefused, match=r"a\.zip: is larger than 67108864 bytes"):
        read_archive_file(path)
