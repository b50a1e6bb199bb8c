"""`varsel export`, as an operator types it, over predictions of the bundled model."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import sqlite3
import stat
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from typer.testing import Result

from cds_service.cli.export import REFUSED_EXIT
from cds_service.errors import SetupError
from cds_service.exporting import files
from cds_service.identities.privacy import Privacy
from cds_service.settings import Settings
from tests.decided import typed
from tests.exported import BASE, log_cohort

KEY = bytes(range(32))
KEY_TEXT = base64.b64encode(KEY).decode()
WHO = ("--who", "I. Eksport", "--why", "study 12")
ANONYMOUS = ("--model", "readmission-30d", "--anonymise")


def exported(settings: Settings, out: Path, *options: object) -> Result:
    """What `varsel export` did."""
    return typed(settings, "export", "--out", out, *WHO, *options)


def lines_of(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV file by column."""
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def query(settings: Settings, statement: str) -> list[tuple[Any, ...]]:
    """Rows of the log, past the service."""
    with closing(sqlite3.connect(settings.state_dir / "varsel.db")) as connection:
        return connection.execute(statement).fetchall()


def pseudonyms(settings: Settings) -> set[str]:
    """The log's own."""
    return {one for (one,) in query(settings, "SELECT patient_pseudonym FROM predictions")}


def clear(numbers: list[str], path: Path) -> list[str]:
    """CPR numbers and ids that stand in a file."""
    text = path.read_bytes().decode("utf-8", "replace")
    return [one for one in [*numbers, "patient-0", BASE] if one in text]


def read_back(path: Path, form: str) -> pd.DataFrame:
    """The table a file holds."""
    if form == "parquet":
        table: pd.DataFrame = pq.read_table(path).to_pandas()
        return table
    return pd.read_csv(path) if form == "csv" else pd.DataFrame(json.loads(path.read_bytes()))


# ---- pseudonymous ---------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["csv", "json", "parquet"])
def test_one_row_a_prediction_with_features_risk_and_band(
    settings: Settings, tmp_path: Path, form: str
) -> None:
    """Features are columns, patients have codes, no id of ours or theirs is there, no outcome."""
    log_cohort(settings, 6, visits=2, unit="A1")
    out = tmp_path / f"out.{form}"
    assert exported(settings, out, "--pseudonyms", "token", "--format", form).exit_code == 0
    table = read_back(out, form)
    assert len(table) == 12
    assert table["patient"].nunique() == 6
    assert {"age", "male", "risk:readmission", "band:readmission", "unit"} <= set(table)
    assert table["risk:readmission"].between(0, 1).all()
    assert not {"prediction_id", "hook_instance", "outcome"} & set(table)
    assert not set(table["patient"]) & pseudonyms(settings)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


@pytest.mark.parametrize("way", ["encryption", "keyed-hash"])
@pytest.mark.parametrize("of", ["cpr", "patient", "pseudonym"])
def test_codes_of_a_key_are_the_same_in_every_export(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, of: str
) -> None:
    """The same key, the same codes; another key, others; and nothing in clear."""
    numbers = log_cohort(settings, 3)
    codes = []
    for name, key in (("a", KEY), ("b", KEY), ("c", KEY[::-1])):
        monkeypatch.setenv("VARSEL_EXPORT_KEY", base64.b64encode(key).decode())
        out = tmp_path / name
        done = exported(settings, out, "--pseudonyms", way, "--of", of)
        assert done.exit_code == 0, done.exception
        codes.append([line["patient"] for line in lines_of(out)])
        assert clear(numbers, out) == []
    assert codes[0] == codes[1]
    assert not set(codes[0]) & set(codes[2])
    assert len(set(codes[0])) == 3


def test_who_holds_the_key_undoes_encryption(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As docs/export.md says, with the cryptography library alone."""
    numbers = log_cohort(settings, 3)
    monkeypatch.setenv("VARSEL_EXPORT_KEY", KEY_TEXT)
    out = tmp_path / "out.csv"
    exported(settings, out, "--pseudonyms", "encryption", "--of", "cpr")
    siv = AESSIV(HKDF(SHA256(), 64, salt=None, info=b"varsel export encryption").derive(KEY))
    codes = [bytes.fromhex(line["patient"]) for line in lines_of(out)]
    assert sorted(siv.decrypt(one, [b"cpr"]).decode() for one in codes) == sorted(numbers)


@pytest.mark.parametrize("of", ["cpr", "pseudonym"])
def test_a_mapping_table_stays_in_a_file_of_its_own(
    settings: Settings, tmp_path: Path, of: str
) -> None:
    """It leads from codes to the log's pseudonyms, never to a number in clear."""
    numbers = log_cohort(settings, 4, visits=2)
    out, table = tmp_path / "out.csv", tmp_path / "table.csv"
    options = ("--pseudonyms", "mapping-table", "--mapping-table", table, "--of", of)
    assert exported(settings, out, *options).exit_code == 0
    mapped = {line["code"]: line["patient_pseudonym"] for line in lines_of(table)}
    assert set(mapped) == {line["patient"] for line in lines_of(out)}
    assert set(mapped.values()) == pseudonyms(settings)
    assert clear(numbers, table) == []
    assert stat.S_IMODE(table.stat().st_mode) == 0o600


def test_tokens_of_two_exports_do_not_join(settings: Settings, tmp_path: Path) -> None:
    """Random in each, and nothing is left that leads from one to the other."""
    log_cohort(settings, 3)
    for name in "ab":
        exported(settings, tmp_path / name, "--pseudonyms", "token")
    one, other = ({line["patient"] for line in lines_of(tmp_path / name)} for name in "ab")
    assert len(one) == len(other) == 3
    assert not one & other


@pytest.mark.parametrize(
    ("options", "environment", "why"),
    [
        (("--pseudonyms", "hash"), {}, "365 million possible CPR numbers"),
        (("--pseudonyms", "none"), {}, "under a code or not at all"),
        (("--pseudonyms", "rot13"), {}, "one of encryption"),
        ((), {}, "--pseudonyms: one of"),
        (("--pseudonyms", "keyed-hash"), {}, "VARSEL_EXPORT_KEY is not set"),
        (("--pseudonyms", "keyed-hash"), {"VARSEL_EXPORT_KEY": "c2hvcnQ="}, "must be 32 bytes"),
        (("--pseudonyms", "token", "--of", "name"), {}, "--of name"),
        (("--pseudonyms", "mapping-table"), {}, "--mapping-table: a file"),
        (("--pseudonyms", "token", "--from", "soon"), {}, "--from soon: no date"),
        (("--pseudonyms", "token", "--model", "other"), {}, "no predictions there"),
        (("--pseudonyms", "token", "--limits", "x"), {}, "those of --anonymise"),
        (("--anonymise",), {}, "--model: is needed"),
        (("--anonymise", "--model", "m", "--pseudonyms", "token"), {}, "no patient has a code"),
        (("--anonymise", "--model", "m", "--synthetic", "3"), {}, "one at a time"),
    ],
)
def test_what_cannot_be_exported_so_is_refused_with_the_reason(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    environment: Mapping[str, str],
    why: str,
) -> None:
    """Nothing is written, and the message names the option or setting at fault."""
    log_cohort(settings, 1)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    done = exported(settings, tmp_path / "out", *options)
    assert isinstance(done.exception, SetupError)
    assert why in str(done.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("ring", [0, 1], ids=["pseudonyms", "seals"])
def test_a_key_of_the_log_is_no_key_of_an_export(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ring: int
) -> None:
    """Who gets it could test who is in the log, or open its vault."""
    log_cohort(settings, 1)
    ours = base64.b64encode(settings.keys[ring].key).decode()
    monkeypatch.setenv("VARSEL_EXPORT_KEY", ours)
    done = exported(settings, tmp_path / "out", "--pseudonyms", "keyed-hash")
    assert "is a key of the log itself" in str(done.exception)


def test_no_file_is_written_over(settings: Settings, tmp_path: Path) -> None:
    """An export that is there already is kept, and nothing is on record as exported."""
    log_cohort(settings, 1)
    out = tmp_path / "out.csv"
    out.write_text("kept")
    done = exported(settings, out, "--pseudonyms", "token")
    assert "is there already" in str(done.exception)
    assert out.read_text() == "kept"
    assert query(settings, "SELECT what FROM audit_entries") == []


def test_a_cell_is_no_formula(settings: Settings, tmp_path: Path) -> None:
    """As over the API: a spreadsheet shows the ward's name and runs nothing."""
    log_cohort(settings, 1, unit='=HYPERLINK("x")')
    out = tmp_path / "out.csv"
    exported(settings, out, "--pseudonyms", "token")
    assert lines_of(out)[0]["unit"] == '\'=HYPERLINK("x")'


def test_rows_without_a_number_have_no_code_and_that_is_said(
    settings: Settings, tmp_path: Path
) -> None:
    """A CPR number that was never sent is no patient of its own."""
    log_cohort(settings, 2, cpr=None)
    out = tmp_path / "out.csv"
    done = exported(settings, out, "--pseudonyms", "token", "--of", "cpr", "--json")
    assert json.loads(done.stdout)["uncoded"] == 2
    assert "2 rows have no patient" in done.stderr
    assert [line["patient"] for line in lines_of(out)] == ["", ""]


def test_times_and_organisations_choose(settings: Settings, tmp_path: Path) -> None:
    """Of several organisations one is named; from is in, to is out."""
    log_cohort(settings, 3)
    log_cohort(settings, 1, organisation="clinic", hook_instance="c", content_digest="c")
    token = ("--pseudonyms", "token")
    assert "holds predictions of 2" in str(exported(settings, tmp_path / "a", *token).exception)
    ours = (*token, "--organisation", "hospital")
    exported(settings, tmp_path / "b", *ours, "--from", "2026-11-20", "--to", "2026-11-21")
    assert [line["as_of"][:10] for line in lines_of(tmp_path / "b")] == ["2026-11-20"]


def test_restricted_patients_are_left_out(settings: Settings, tmp_path: Path) -> None:
    """A decision that nobody may read holds for exports."""
    log_cohort(settings, 2)
    restricted = min(pseudonyms(settings))
    with closing(sqlite3.connect(settings.state_dir / "varsel.db")) as connection, connection:
        connection.execute(
            "INSERT INTO erasures (id, organisation, patient_pseudonym, pseudonym_key, decision, "
            "ground, who, at, predictions) VALUES ('1', 'hospital', ?, '0', 'restricted', 'g', 'w',"
            " '2026-11-22 00:00:00', 0)",
            (restricted,),
        )
    exported(settings, tmp_path / "out", "--pseudonyms", "token")
    assert len(lines_of(tmp_path / "out")) == 1


# ---- on record ------------------------------------------------------------------------------


def test_it_is_on_record_before_a_file_is_there(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the first byte is written, the entry is durable: who, why, how many, which way."""
    log_cohort(settings, 2)
    seen: list[tuple[Any, ...]] = []
    columns = "organisation, who, role, what, why, details"

    def looking(path: Path, content: bytes) -> None:
        seen.extend(query(settings, f"SELECT {columns} FROM audit_entries"))
        files.write_new(path, content)

    monkeypatch.setattr("cds_service.cli.export.write_new", looking)
    exported(settings, tmp_path / "out", "--pseudonyms", "token")
    ((*entry, details),) = seen
    assert entry == ["hospital", "I. Eksport", "operator", "export", "study 12"]
    said = json.loads(details)
    assert (said["pseudonyms"], said["of"], said["rows"]) == ("token", "pseudonym", 2)


def test_opening_the_vault_is_on_record_before_it_is_open(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where codes are made of what only the vault holds; else it stays shut."""
    log_cohort(settings, 1)
    seen: list[Any] = []
    unseal = Privacy.unseal

    def looking(privacy: Privacy, row: Any) -> Any:
        seen.extend(query(settings, "SELECT what FROM audit_entries ORDER BY at"))
        return unseal(privacy, row)

    monkeypatch.setattr(Privacy, "unseal", looking)
    exported(settings, tmp_path / "a", "--pseudonyms", "token")
    assert seen == []
    exported(settings, tmp_path / "b", "--pseudonyms", "token", "--of", "cpr")
    assert seen == [("export",), ("open vault",)]


# ---- anonymous ------------------------------------------------------------------------------


def report_of(folder: Path) -> dict[str, Any]:
    """The report, which is there either way, in both its forms."""
    said: dict[str, Any] = json.loads((folder / "report.json").read_bytes())
    assert ("Passed" if said["passed"] else "Refused") in (folder / "report.md").read_text("utf-8")
    return said


WIDE = 'k = 5\nl = 1\nmost_suppressed = 0.9\nperiod = "year"\n'


def test_a_table_that_meets_the_limits_leaves(settings: Settings, tmp_path: Path) -> None:
    """Ages are bands, times periods; no code of a patient, no ward; k and l hold in the file."""
    log_cohort(settings, 300, unit="A1")
    (tmp_path / "limits.toml").write_text(WIDE)
    out = tmp_path / "out"
    done = exported(settings, out, *ANONYMOUS, "--limits", tmp_path / "limits.toml")
    assert done.exit_code == 0, (done.exception, done.output)
    table = pd.read_csv(out / "anonymised.csv")
    said = report_of(out)
    assert said["k"] >= 5
    assert not {"patient", "unit", "prediction_id"} & set(table)
    assert all(re.fullmatch(r"\d0-\d9|90\+", age) for age in table["age"])
    assert set(table["as_of"]) == {2026}
    assert table.groupby(said["indirect_identifiers"], dropna=False).size().min() >= 5
    assert "no proof of anonymity" in said["caveat"]


def test_below_the_limits_there_is_a_report_and_no_data(settings: Settings, tmp_path: Path) -> None:
    """Few patients: k cannot be met; the exit code says so, and so does the audit trail."""
    log_cohort(settings, 8)
    done = exported(settings, tmp_path / "out", *ANONYMOUS)
    assert done.exit_code == REFUSED_EXIT
    assert "k is 0, at least 11 is asked for" in done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "report.json",
        "report.md",
    ]
    assert report_of(tmp_path / "out")["refused"]
    ((details,),) = query(settings, "SELECT details FROM audit_entries")
    assert json.loads(details)["passed"] is False


def test_one_patient_many_times_is_one_patient(settings: Settings, tmp_path: Path) -> None:
    """Classes count patients: thirty predictions of three patients hide nobody."""
    log_cohort(settings, 3, visits=10)
    assert exported(settings, tmp_path / "out", *ANONYMOUS).exit_code == REFUSED_EXIT
    assert report_of(tmp_path / "out")["patients"] == {"given": None, "left": 0}


@pytest.mark.parametrize(
    ("planted", "kind", "column"),
    [
        ({"unit": "Afd. B 010203-1234"}, "CPR number", "unit"),
        ({"unit": "see Patient/abc"}, "FHIR reference", "unit"),
        ({"unit": "0f8fad5b-d9cb-469f-a165-70867728950e"}, "UUID", "unit"),
    ],
)
def test_a_planted_identifier_is_found(
    settings: Settings, tmp_path: Path, planted: dict[str, Any], kind: str, column: str
) -> None:
    """Where wards are to stay, what stands in one is looked at; the finding does not repeat it."""
    log_cohort(settings, 20, **planted)
    (tmp_path / "limits.toml").write_text(f"{WIDE}keep_unit = true\n")
    out = tmp_path / "out"
    done = exported(settings, out, *ANONYMOUS, "--limits", tmp_path / "limits.toml")
    assert done.exit_code == REFUSED_EXIT
    found = report_of(out)["direct_identifiers"]
    assert found == [{"column": column, "kind": kind, "cells": 20}]
    assert planted["unit"] not in (out / "report.json").read_text("utf-8")


def test_a_cpr_number_that_came_as_a_value_is_found(settings: Settings, tmp_path: Path) -> None:
    """A number of a feature can be one, its first zero lost."""
    log_cohort(settings, 20, changed={7: {"acute_admissions_12m": 1.0, "procedures": 102031234.0}})
    exported(settings, tmp_path / "out", *ANONYMOUS)
    found = report_of(tmp_path / "out")["direct_identifiers"]
    assert found == [{"column": "procedures", "kind": "CPR number", "cells": 1}]


@pytest.mark.parametrize("text", ["k = 1\n", "many = 3\n", "k = \n", "age_years = 7\n"])
def test_limits_that_are_none_are_refused(settings: Settings, tmp_path: Path, text: str) -> None:
    """A limit below what the product hides anyway, an unknown one, one that cannot be read."""
    log_cohort(settings, 1)
    (tmp_path / "limits.toml").write_text(text)
    done = exported(settings, tmp_path / "out", *ANONYMOUS, "--limits", tmp_path / "limits.toml")
    assert isinstance(done.exception, SetupError)
    assert "--limits" in str(done.exception)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('drop = ["hiv-load"]', "drop: there is no column 'hiv-load'"),
        ('indirect = ["post_code"]', "indirect: there is no column 'post_code'"),
        ('sensitive = ["band-readmission"]', "sensitive: there is no column 'band-readmission'"),
        ('sensitive = ["age"]\ndrop = ["age"]', "sensitive: there is no column 'age'"),
        ("decimals = { creatinin = 1 }", "decimals: there is no column 'creatinin'"),
    ],
)
def test_a_limit_on_a_column_that_is_not_there_refuses(
    settings: Settings, tmp_path: Path, text: str, named: str
) -> None:
    """A misspelt name would let out what it was to keep in; the report says which it is."""
    log_cohort(settings, 300)
    (tmp_path / "limits.toml").write_text(f"{WIDE}{text}\n")
    done = exported(settings, tmp_path / "out", *ANONYMOUS, "--limits", tmp_path / "limits.toml")
    assert done.exit_code == REFUSED_EXIT
    assert named in done.stderr
    assert report_of(tmp_path / "out")["refused"] == [named]
    assert not (tmp_path / "out" / "anonymised.csv").exists()


# ---- synthetic ------------------------------------------------------------------------------


SYNTHETIC = ("--model", "readmission-30d", "--synthetic")


def test_a_synthetic_copy_leaves_with_its_report(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file is called so, every row says so; no code of a patient, and on record first."""
    monkeypatch.setattr("validation.synthetic_copy.TREES", 1)
    log_cohort(settings, 220)
    out = tmp_path / "out"
    done = exported(settings, out, *SYNTHETIC, "50")
    assert done.exit_code == 0, (done.exception, done.output)
    assert all(path.name.startswith("synthetic") for path in out.iterdir())
    table = pd.read_csv(out / "synthetic.csv")
    assert len(table) == 50
    assert table["synthetic"].all()
    assert not {"patient", "unit", "organisation"} & set(table)
    said = json.loads((out / "synthetic-report.json").read_bytes())
    assert said["closeness"]["exact_copies"] == 0
    assert said["found_again"][0]["learnt_from_synthetic"] > 0.6
    ((what, details),) = query(settings, "SELECT what, details FROM audit_entries")
    assert (what, json.loads(details)["passed"]) == ("export synthetic", True)


def test_a_copy_that_copies_does_not_leave(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report says why; there are no data."""

    def copying(rows: pd.DataFrame, *_: object, size: int, **__: object) -> pd.DataFrame:
        return rows.head(size).reset_index(drop=True)

    monkeypatch.setattr("validation.synthetic_copy.synthetic_copy", copying)
    log_cohort(settings, 220)
    out = tmp_path / "out"
    done = exported(settings, out, *SYNTHETIC, "50")
    assert done.exit_code == REFUSED_EXIT
    assert "50 rows equal a patient's in every column" in done.stderr
    assert sorted(path.name for path in out.iterdir()) == [
        "synthetic-report.json", "synthetic-report.md",
    ]  # fmt: skip


def test_a_synthetic_copy_takes_patients_enough(settings: Settings, tmp_path: Path) -> None:
    """Of few, nobody can say whether it came too near to one of them."""
    log_cohort(settings, 9)
    done = exported(settings, tmp_path / "out", *SYNTHETIC, "10")
    assert "9 patients; a synthetic copy takes at least 200" in str(done.exception)
    assert list((tmp_path / "out").iterdir()) == []
