"""How long predictions are kept, and the register of what was erased."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from cds_service.db.tables import prediction_payloads, predictions, vault_entries, vault_keys
from cds_service.errors import SetupError
from cds_service.identities.personal import kind_of
from cds_service.identities.register import Erasure, append_erasure, read_register
from cds_service.identities.retention import months_before, read_retention


@pytest.mark.parametrize(
    ("day", "months", "before"),
    [
        ("2026-11-22", 6, "2026-05-22"),
        ("2026-03-31", 1, "2026-02-28"),
        ("2024-03-31", 1, "2024-02-29"),
        ("2026-01-15", 1, "2025-12-15"),
        ("2026-12-31", 12, "2025-12-31"),
        ("2026-11-30", 120, "2016-11-30"),
    ],
)
def test_months_are_counted_by_the_calendar(day: str, months: int, before: str) -> None:
    """The same day so many months before, or the month's last."""
    moment = datetime.fromisoformat(f"{day}T10:30:00+00:00")
    assert months_before(moment, months).isoformat() == f"{before}T10:30:00+00:00"


def test_months_are_set_per_organisation() -> None:
    """Nothing is set where nothing is said."""
    assert read_retention("") == {}
    assert read_retention("1234567890=60  org=a=24") == {"1234567890": 60, "org=a": 24}


@pytest.mark.parametrize("text", ["60", "=60", "o=", "o=-1", "o=0", "o=1201", "o=1 o=2", "o=٣"])
def test_months_that_are_none_are_refused_by_name(text: str) -> None:
    """A period nobody can read deletes nothing."""
    with pytest.raises(SetupError, match="VARSEL_RETENTION"):
        read_retention(text)


# ---- the register ---------------------------------------------------------------------------


def an_erasure(name: str) -> Erasure:
    """A line of the register."""
    return Erasure(
        id=name, what="erase", organisation="o", at=datetime(2026, 11, 22, tzinfo=UTC), who="w",
        ground="g", pseudonyms={"p": "0"}, predictions=["i"],
    )  # fmt: skip


def test_the_register_reads_back_what_was_written(tmp_path: Path) -> None:
    """In order, in a file that its owner alone can read."""
    path = tmp_path / "erasures.jsonl"
    for name in ("1", "2"):
        append_erasure(path, an_erasure(name))
    assert read_register(path) == [an_erasure("1"), an_erasure("2")]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_line_cut_off_by_a_crash_is_named_and_spoils_no_other(tmp_path: Path) -> None:
    """The erasure it was of was not done; the next one stands on a line of its own."""
    path = tmp_path / "erasures.jsonl"
    append_erasure(path, an_erasure("1"))
    with path.open("ab") as file:
        file.write(b'{"id": "2", "wh')
    append_erasure(path, an_erasure("3"))
    with pytest.raises(SetupError, match="line 2 cannot be read"):
        read_register(path)
    assert path.read_bytes().count(b"\n") == 3


def test_a_register_that_cannot_be_had_is_said_so(tmp_path: Path) -> None:
    """Neither read nor written where its folder is not there."""
    nowhere = tmp_path / "nowhere" / "erasures.jsonl"
    with pytest.raises(SetupError, match="is not there"):
        read_register(nowhere)
    with pytest.raises(SetupError, match="VARSEL_ERASURES_FILE: No such file"):
        append_erasure(nowhere, an_erasure("1"))


# ---- the columns ----------------------------------------------------------------------------

SAYS_NOTHING_OF_A_PERSON = {
    "organisation", "caller", "service", "hook", "attempt", "attempt_of", "model_id",
    "model_version", "package_checksum", "software_version", "mode", "arm", "language", "state",
    "purpose", "legal_ground", "pseudonym_key", "digest_key", "libraries", "erasure", "chain_day",
    "chain_writer", "chain_sequence", "link", "salt", "timings", "id", "seal_key", "created_at",
    "key_id",
}  # fmt: skip


def test_every_column_of_a_prediction_was_looked_at() -> None:
    """A new column is personal until somebody says that it is not."""
    tables = (predictions, prediction_payloads, vault_entries, vault_keys)
    columns = {column.name for table in tables for column in table.columns}
    assert {name for name in columns if kind_of(name) == "none"} == SAYS_NOTHING_OF_A_PERSON
