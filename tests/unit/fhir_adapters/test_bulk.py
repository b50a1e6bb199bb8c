"""Bulk Data: a patient at a time, however the lines are strewn over the files."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from fhir_adapters.bulk import index_bulk_data, read_patient, read_patients
from fhir_adapters.clock import parse_time
from fhir_adapters.errors import UnreadableInput
from fhir_adapters.facts import build_record
from fhir_adapters.reading.wanted import Wanted
from tests.spec.drawn import resources

TWO = """
    Patient           | 1950-03-01   | female     | id b
    Patient           | 1980-03-01   | male       | id a
    Observation       | CRP          | 2026-11-20 | 40 mg/L | of Patient/a
    Observation       | CRP          | 2026-11-20 | 50 mg/L | of https://ehr.example/fhir/Patient/b
    Observation       | CRP          | 2026-11-20 | 60 mg/L | of Patient/nobody
    EpisodeOfCare     | KOL          | 2026-01-01 .. | of Patient/a
    Medication        | morphine     |            | id m
    MedicationRequest | Medication/m | 2026-11-01 | active | of Patient/b
"""
CRP_AND_OPIOID = Wanted(frozenset({"crp", "opioid", "episode_of_care"}))


def written(folder: Path, table: str = TWO) -> Path:
    """A table as an export leaves it: one file a type."""
    for resource in resources(table):
        with (folder / f"{resource['resourceType']}.ndjson").open("a") as file:
            file.write(json.dumps(resource) + "\n")
    return folder


def facts(folder: Path) -> dict[str, dict[str, list[float | None]]]:
    found = {}
    for patient, gathered in read_patients(index_bulk_data(folder)):
        record = build_record(gathered, CRP_AND_OPIOID, patient_id=patient)
        assert record.troubles == []
        found[patient] = {name: [f.value for f in them] for name, them in record.facts.items()}
    return found


def test_each_patient_is_read_with_what_is_theirs(tmp_path: Path) -> None:
    """In the order of ids; shared Medications go to whoever refers to them."""
    assert facts(written(tmp_path)) == {
        "a": {"crp": [40.0], "episode_of_care": [1.0]},
        "b": {"crp": [50.0], "opioid": [None]},
    }


def test_lines_may_stand_in_any_file_and_end_in_any_way(tmp_path: Path) -> None:
    """All in one file, with empty lines, Windows line ends and none at the last."""
    lines = [json.dumps(resource) for resource in resources(TWO)]
    (tmp_path / "all.ndjson").write_bytes("\r\n\r\n".join(lines).encode())
    (tmp_path / "empty.ndjson").write_bytes(b"")
    other = tmp_path / "other"
    other.mkdir()
    assert facts(tmp_path) == facts(written(other))


def test_lines_that_are_nobodys_are_counted(tmp_path: Path) -> None:
    """Half a line, a list, and a type that belongs to no patient."""
    with (written(tmp_path) / "Odd.ndjson").open("w") as file:
        file.write('{"resourceType": "Obs\n[]\n{"resourceType": "Location", "id": "x"}\n\n')
    index = index_bulk_data(tmp_path)
    assert (len(index), index.unreadable) == (2, 3)


def test_a_line_that_is_broken_inside_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    """Its owner can be told, its value cannot be read."""
    with (written(tmp_path) / "Observation.ndjson").open("a") as file:
        file.write(
            '{"resourceType": "Observation", "subject": {"reference": "Patient/a"}, "status": 7}\n'
        )
    gathered = dict(read_patients(index_bulk_data(tmp_path)))["a"]
    assert [trouble.code for trouble in gathered.troubles] == ["unreadable"]
    assert len(gathered.of("Observation")) == 1


def test_one_patients_lines_can_be_had_alone(tmp_path: Path) -> None:
    """To copy or to look at."""
    index = index_bulk_data(written(tmp_path))
    kinds = [json.loads(line)["resourceType"] for line in read_patient(index, "a")]
    assert sorted(kinds) == ["EpisodeOfCare", "Observation", "Patient"]
    with pytest.raises(KeyError):
        read_patient(index, "nobody")


def test_the_export_says_until_when_its_data_reach(tmp_path: Path) -> None:
    """`transactionTime` of the manifest; None where there is no manifest."""
    folder = written(tmp_path)
    assert index_bulk_data(folder).until is None
    (folder / "manifest.json").write_text('{"transactionTime": "2026-11-21T12:00:00Z"}')
    assert index_bulk_data(folder).until == parse_time("2026-11-21T12:00:00Z")


def test_a_folder_without_patients_is_refused(tmp_path: Path) -> None:
    """Empty, or with lines that belong to nobody."""
    with pytest.raises(UnreadableInput, match=r"no \*\.ndjson"):
        index_bulk_data(tmp_path)
    (tmp_path / "Location.ndjson").write_text('{"resourceType": "Location"}\n')
    with pytest.raises(UnreadableInput, match="no Patient"):
        index_bulk_data(tmp_path)


def test_progress_is_told_in_bytes(tmp_path: Path) -> None:
    """File by file, together the size of the folder."""
    told: list[int] = []
    index_bulk_data(written(tmp_path), told.append)
    assert sum(told) == sum(path.stat().st_size for path in tmp_path.glob("*.ndjson"))


def test_a_real_export_is_read_whole(shared_data: Path, tmp_path: Path) -> None:
    """Thirteen patients of a published Bulk Data set; every contact finds its patient."""
    with tarfile.open(shared_data / "bulk-10-patients.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    index = index_bulk_data(tmp_path)
    kept = sum(len(gathered.of("Encounter")) for _, gathered in read_patients(index))
    lines = (tmp_path / "Encounter.000.ndjson").read_bytes().splitlines()
    assert len(index) == 13
    assert kept == len(lines) > 500
