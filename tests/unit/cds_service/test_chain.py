"""Chains: what a commitment and a link hold, and when a chain moves on."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from sqlalchemy import LargeBinary

from cds_service.db.tables import audit_entries, prediction_payloads, predictions
from cds_service.evidence import chain

TODAY = date(2026, 11, 22)
ROW = {"prediction_id": "1", "organisation": "o", "status": "scored", "sealed": b"x"}
PSEUDONYMS = {"patient_pseudonym", "encounter_pseudonym", "pseudonym_key"}
CHAINED = {"chain_day", "chain_writer", "chain_sequence", "commitment", "link"}


def test_a_commitment_is_to_every_column_but_those_a_new_key_or_an_erasure_changes() -> None:
    """So no column can be changed unseen."""
    columns = {c.name for c in (*predictions.columns, *prediction_payloads.columns)}
    left_out = PSEUDONYMS | CHAINED | {"erasure", "salt"}
    assert set(chain.PREDICTION) == columns - left_out | {"sealed"}
    assert set(chain.AUDIT) == {c.name for c in audit_entries.columns} - CHAINED - {"salt"}
    binary = {c.name for c in predictions.columns if isinstance(c.type, LargeBinary)}
    assert binary == {"commitment", "link"}


@pytest.mark.parametrize("changed", sorted(chain.PREDICTION))
def test_another_value_anywhere_is_another_commitment(changed: str) -> None:
    """Also where it was null before."""
    salt = b"s" * 16
    before = chain.commitment(chain.PREDICTION, ROW, salt)
    assert chain.commitment(chain.PREDICTION, ROW | {changed: "changed"}, salt) != before


def test_a_moment_is_the_same_in_whichever_zone_it_comes_back() -> None:
    """Some databases keep no zone; what is stored is UTC."""
    at = datetime(2026, 11, 22, 12, tzinfo=UTC)
    written = (at, at.replace(tzinfo=None), at.astimezone(timezone(timedelta(hours=1))))
    salt = b"s" * 16
    found = {chain.commitment(("as_of",), {"as_of": moment}, salt) for moment in written}
    assert len(found) == 1


def test_the_same_row_is_committed_to_differently_each_time() -> None:
    """A salt is drawn, so that nobody finds out by trying what an erased row said."""
    writer = chain.Writer()
    placed = [writer.place(chain.PREDICTION, ROW, today=TODAY) for _ in range(2)]
    assert placed[0]["commitment"] != placed[1]["commitment"]


def test_a_chain_moves_on_with_what_was_written_alone() -> None:
    """What turned out to stand there already, or was taken back, leaves no gap."""
    writer = chain.Writer()
    first = writer.place(chain.PREDICTION, ROW, today=TODAY)
    writer.take("o", first)
    kept = writer.heads()
    second = writer.place(chain.PREDICTION, ROW, today=TODAY)
    assert [one["chain_sequence"] for one in (first, second)] == [0, 1]
    assert second["link"] == chain.next_link(first["link"], second["commitment"])
    writer.take("o", second)
    writer.return_to(kept)
    again = writer.place(chain.PREDICTION, ROW, today=TODAY)
    assert again["chain_sequence"] == 1
    assert again["link"] == chain.next_link(first["link"], again["commitment"])


def test_every_organisation_day_and_process_has_a_chain_of_its_own() -> None:
    """Each begins with its own name."""
    writer = chain.Writer()
    places = [
        writer.place(chain.AUDIT, {"organisation": o}, today=day)
        for o, day in (("a", TODAY), ("b", TODAY), ("a", TODAY + timedelta(days=1)))
    ]
    assert {one["chain_sequence"] for one in places} == {0}
    starts = {chain.first_link("a", TODAY, w) for w in (writer.id, chain.Writer().id)}
    assert len(starts) == 2


def test_a_clock_set_back_does_not_reopen_a_day() -> None:
    """Yesterday has ended once today has begun."""
    writer = chain.Writer()
    writer.take("o", writer.place(chain.PREDICTION, ROW, today=TODAY))
    late = writer.place(chain.PREDICTION, ROW, today=TODAY - timedelta(days=1))
    assert (late["chain_day"], late["chain_sequence"]) == (TODAY, 1)
