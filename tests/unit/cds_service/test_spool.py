"""The spool's files: what a crash leaves, what was tampered with, whose they are, full disks."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as properties
from hypothesis import strategies as st

from cds_service.errors import SetupError
from cds_service.identities.keyring import KeyRing
from cds_service.spool import HEAD_BYTES, HEADER_BYTES, SUFFIX, Spool, SpoolBroken
from tests.logged import KEYS

ROOT = Path(__file__).parents[3]
CONTENTS = [b"first", b"", b"third" * 40, b"fourth\0\0"]


def written(folder: Path, contents: Sequence[bytes] = CONTENTS) -> Path:
    """The file of a process that is gone."""
    folder.mkdir(exist_ok=True)
    spool = Spool(folder, KEYS.seal)
    for content in contents:
        spool.append([content])
    spool.close()
    (path,) = folder.glob(f"*{SUFFIX}")
    return path


def held(folder: Path, ring: KeyRing = KEYS.seal) -> list[bytes]:
    """What the next process finds."""
    spool = Spool(folder, ring)
    try:
        return [spool.read(place) for place in spool.adopt()]
    finally:
        spool.close()


def test_records_come_back_in_order_after_a_restart(tmp_path: Path) -> None:
    """Byte for byte, and more can be added behind them; nothing of them can be read in the file."""
    path = written(tmp_path)
    assert b"third" not in path.read_bytes()
    assert path.stat().st_mode & 0o077 == 0
    spool = Spool(tmp_path, KEYS.seal)
    list(spool.adopt())
    spool.append([b"fifth", b"sixth"])
    spool.close()
    assert held(tmp_path) == [*CONTENTS, b"fifth", b"sixth"]


@given(st.data())
@properties(max_examples=40)
def test_any_truncation_leaves_a_prefix(data: st.DataObject) -> None:
    """A crash in the middle of a write loses the record being written, of which no card was shown,
    and none before it; what is written next stands behind what was whole."""
    contents = data.draw(st.lists(st.binary(max_size=200), max_size=5))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = written(folder, [b"begin", *contents])
        whole = path.read_bytes()
        path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
        found = held(folder)
        assert found == [b"begin", *contents][: len(found)]
        spool = Spool(folder, KEYS.seal)
        assert len(list(spool.adopt())) == len(found)
        spool.append([b"next"])
        spool.close()
        assert held(folder) == [*found, b"next"]


@given(st.data())
@properties(max_examples=40)
def test_any_flipped_bit_is_found(data: st.DataObject) -> None:
    """Wherever it is: never other content, never a record silently left out."""
    contents = data.draw(st.lists(st.binary(max_size=100), min_size=1, max_size=4))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = written(folder, contents)
        whole = bytearray(path.read_bytes())
        bit = data.draw(st.integers(0, 8 * len(whole) - 1))
        whole[bit // 8] ^= 1 << bit % 8
        path.write_bytes(whole)
        with pytest.raises(SpoolBroken, match=path.name):
            held(folder)
        assert path.read_bytes() == whole


def test_zeros_a_power_cut_left_at_the_end_are_cut(tmp_path: Path) -> None:
    """The file had its new size, its new content not yet; half of a record may be there."""
    path = written(tmp_path, [b"first", bytes(200), bytes(200)])
    whole = path.read_bytes()
    second = len(whole) - 2 * ((len(whole) - HEADER_BYTES - HEAD_BYTES - 12 - 5 - 16) // 2)
    for kept in (0, 10, HEAD_BYTES, HEAD_BYTES + 50):
        path.write_bytes(whole[: second + kept] + bytes(len(whole) - second - kept))
        assert held(tmp_path) == [b"first"]
        assert path.stat().st_size == second
    path.write_bytes(whole[:-5] + bytes(5))  # too few to be told from a change
    with pytest.raises(SpoolBroken):
        held(tmp_path)


def test_records_cannot_be_moved(tmp_path: Path) -> None:
    """Exchanged, doubled, taken out, or brought from another file: each is found."""
    a, b = (written(tmp_path / name, [b"same size 1", b"same size 2"]) for name in ("a", "b"))
    whole, other = a.read_bytes(), b.read_bytes()
    size = (len(whole) - HEADER_BYTES) // 2
    header, first, second = whole[:HEADER_BYTES], whole[HEADER_BYTES:-size], whole[-size:]
    foreign = other[HEADER_BYTES:-size]
    for tampered in (second + first, first + first, second, foreign + second):
        a.write_bytes(header + tampered)
        with pytest.raises(SpoolBroken, match="record"):
            held(a.parent)
    a.write_bytes(other[:HEADER_BYTES] + first + second)
    with pytest.raises(SpoolBroken, match="record 0 is broken"):
        held(a.parent)


def test_a_key_that_was_exchanged_still_opens(tmp_path: Path) -> None:
    """As long as the ring holds it; without it the spool says which setting lacks it."""
    written(tmp_path)
    both = KeyRing("new", {"new": b"n" * 32, "0": b"s" * 32})
    assert held(tmp_path, both) == CONTENTS
    with pytest.raises(SpoolBroken, match="VARSEL_SEAL_KEY"):
        held(tmp_path, KeyRing("new", {"new": b"n" * 32}))


def test_a_file_in_use_is_left_and_one_of_a_dead_process_taken_over(tmp_path: Path) -> None:
    """Two processes share a folder: each holds its own; `kill -9` of one, and the other has all."""
    code = (
        "import sys, time; from pathlib import Path; from cds_service.spool import Spool;"
        "from tests.logged import KEYS; s = Spool(Path(sys.argv[1]), KEYS.seal);"
        "s.append([b'theirs']); print('written', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"written\n"
    ours = Spool(tmp_path, KEYS.seal)
    ours.append([b"ours"])
    assert list(ours.adopt()) == []
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    process.stdout.close()
    assert [ours.read(place) for place in ours.adopt()] == [b"theirs"]
    ours.clear()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_stops_the_start(tmp_path: Path) -> None:
    """Naming the setting."""
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match="VARSEL_SPOOL_DIR"):
        Spool(tmp_path / "file" / "spool", KEYS.seal).check()
    Spool(tmp_path / "made" / "spool", KEYS.seal).check()
    assert list((tmp_path / "made" / "spool").iterdir()) == []


def test_a_full_disk_takes_a_group_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's write is made to fail half way, as it does on a full disk: what was durable
    stays, the half is gone, and with room again the next one stands behind it."""
    spool = Spool(tmp_path, KEYS.seal)
    spool.append([b"before"])
    real = os.pwrite
    written_so_far: list[int] = []

    def full(descriptor: int, data: memoryview, offset: int) -> int:
        if written_so_far:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written_so_far.append(1)
        return real(descriptor, data[:20], offset)

    with monkeypatch.context() as disk:
        disk.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space left"):
            spool.append([b"lost", b"lost too"])
        assert not spool.has_room()
    assert spool.has_room()
    spool.append([b"after"])
    spool.close()
    assert held(tmp_path) == [b"before", b"after"]


def test_a_file_may_not_grow_past_the_system_s_limit(tmp_path: Path) -> None:
    """A real limit of the system (RLIMIT_FSIZE), in a process of its own: an error, and the file
    holds what was durable."""
    code = (
        "import resource, signal, sys; from pathlib import Path;"
        "from cds_service.spool import Spool; from tests.logged import KEYS;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "s = Spool(Path(sys.argv[1]), KEYS.seal); s.append([b'kept']);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096));\n"
        "try: s.append([bytes(9000)])\n"
        "except OSError as error: print(type(error).__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, cwd=ROOT, check=True
    )
    assert done.stdout == b"OSError\n"
    assert held(tmp_path) == [b"kept"]
