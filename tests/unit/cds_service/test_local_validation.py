"""When the report of a local validation is believed, and how it is refused: on plain documents."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cds_service.errors import BadRequest
from cds_service.governance import Validated, Version, version_of
from cds_service.local_validation import found_by
from models.package import Package
from tests.conftest import bundled_package

NOW = datetime(2026, 11, 22, 8, tzinfo=UTC)
PPV: dict[str, Any] = {
    "name": "ppv_at_0.2",
    "value": 94 / 410,
    "low": 0.19,
    "high": 0.272,
    "method": "Wilson",
    "n": 410,
    "events": 94,
}


def report(package: Package) -> dict[str, Any]:
    """What a report says that is read: 94 of 410 in the first half of 2026."""
    version, (head,) = version_of(package), package.manifest.heads
    return {
        "schema_version": 1,
        "model": {"id": version[0], "version": version[1], "checksum": version[2]},
        "head": {"id": head.id, "threshold": head.threshold},
        "synthetic_data": False,
        "first_index_time": "2026-01-01T08:00:00+00:00",
        "last_index_time": "2026-06-30T08:00:00+00:00",
        "statistics": [{"name": "auroc", "value": None}, dict(PPV)],
    }


def read(
    said: dict[str, Any] | bytes, *, takes_synthetic: bool = False, of: Version | None = None
) -> Validated:
    """What is found of the bundled package by a report."""
    package = bundled_package()
    content = said if isinstance(said, bytes) else json.dumps(said).encode()
    return found_by(
        content,
        of or version_of(package),
        package.manifest.heads,
        takes_synthetic=takes_synthetic,
        who="B. Holm",
        at=NOW,
    )


def test_a_report_of_these_files_gives_the_hit_rate_with_number_and_period(
    package: Package,
) -> None:
    """And the digest of the very report, who vouches for it, and when."""
    found = read(report(package))
    assert found[:3] == version_of(package)[:3]
    assert (found.head, found.threshold) == ("readmission", 0.2)
    assert (found.ppv, found.low, found.high) == (94 / 410, 0.19, 0.272)
    assert (found.flagged, found.events) == (410, 94)
    assert found.first_index_time == datetime(2026, 1, 1, 8, tzinfo=UTC)
    assert found.last_index_time == datetime(2026, 6, 30, 8, tzinfo=UTC)
    assert (found.synthetic, found.who, found.at) == (False, "B. Holm", NOW)
    assert len(found.report_digest) == 64


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("schema_version", 2, "$.schema_version"),
        ("model", None, "$.model"),
        ("model/id", "another", "model: it is of another@1.0.0"),
        ("model/version", "9.9.9", "model: it is of readmission-30d@9.9.9"),
        ("model/checksum", "0" * 64, "model.checksum: it is of other files"),
        ("head", ..., "`head`"),
        ("head/id", "death", "head.id: readmission-30d@1.0.0 has readmission"),
        ("head/threshold", 0.265, "head.threshold: 0.265; a card is shown from 0.2"),
        ("synthetic_data", True, "synthetic_data: invented patients"),
        ("synthetic_data", "no", "$.synthetic_data"),
        ("first_index_time", ..., "`first_index_time`"),
        ("first_index_time", None, "$.first_index_time"),
        ("first_index_time", "2026-01-01T08:00:00", "$.first_index_time"),
        ("last_index_time", "June", "$.last_index_time"),
        ("last_index_time", "2025-01-01T08:00:00Z", "last_index_time: lies before"),
        ("statistics", [], "statistics.ppv_at_0.2: is there 0 times"),
        ("statistics", [PPV, PPV], "statistics.ppv_at_0.2: is there 2 times"),
        ("statistics", ["x"], "$.statistics"),
        ("statistics/1/n", None, "statistics.ppv_at_0.2: Expected `int`, got `null` - at `$.n`"),
        ("statistics/1/n", ..., "statistics.ppv_at_0.2: Object missing required field `n`"),
        ("statistics/1/n", 0, "statistics.ppv_at_0.2"),
        ("statistics/1/low", None, "`$.low`"),
        ("statistics/1/high", 1.2, "`$.high`"),
        ("statistics/1/value", 0.3, "statistics.ppv_at_0.2.value: is not events over n"),
        ("statistics/1/low", 0.25, "statistics.ppv_at_0.2.value: lies outside its interval"),
    ],
)
def test_what_cannot_be_believed_is_refused_by_field(
    package: Package, path: str, value: object, named: str
) -> None:
    said: Any = copy.deepcopy(report(package))
    *way, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    place = said
    for part in way:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    with pytest.raises(BadRequest) as refused:
        read(said)
    assert refused.value.field == "--report"
    assert named in str(refused.value)


def test_a_hit_rate_hidden_for_small_counts_is_refused_with_the_reason(package: Package) -> None:
    """Few patients could point at someone; the report says so, and so does the refusal."""
    said = report(package)
    hidden = {"value": None, "low": None, "high": None, "n": None, "events": None}
    why = "not shown: rests on a count under 5"
    said["statistics"][1] |= {**hidden, "method": why}
    with pytest.raises(BadRequest, match=f"statistics.ppv_at_0.2: {why}"):
        read(said)


def test_a_report_of_invented_patients_is_taken_where_that_is_allowed(package: Package) -> None:
    """And is remembered as such."""
    assert read(report(package) | {"synthetic_data": True}, takes_synthetic=True).synthetic


def test_a_report_of_the_files_before_they_changed_is_refused(package: Package) -> None:
    changed = version_of(package)._replace(checksum="after")
    with pytest.raises(BadRequest, match=r"model\.checksum"):
        read(report(package), of=changed)


@given(st.data())
def test_a_report_cut_anywhere_is_refused_and_never_fails_otherwise(data: st.DataObject) -> None:
    whole = json.dumps(report(bundled_package())).encode()
    with pytest.raises(BadRequest, match="not a whole report"):
        read(whole[: data.draw(st.integers(0, len(whole) - 1))])
