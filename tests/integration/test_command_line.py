"""The `varsel` command as its users call it: what it prints where, and its exit codes.

0 is done, 2 wrong usage or bad input with a message on standard error that names the field, 1 our
failure. The command runs in this process; test_serving.py starts it as one of its own.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import shutil
import socket
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cds_service.cli import main
from models.registry import BUNDLED

Request = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    def document(self) -> Any:
        """The one JSON document on standard output."""
        return json.loads(self.out)


Varsel = Callable[..., Ended]


@pytest.fixture
def varsel(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Varsel:
    """Runs `varsel` with some arguments, and bytes on standard input, in the demo profile."""
    monkeypatch.setenv("VARSEL_PROFILE", "demo")
    monkeypatch.setenv("VARSEL_STATE_DIR", str(tmp_path / "state"))

    def run(*arguments: str | Path, stdin: bytes = b"") -> Ended:
        monkeypatch.setattr(sys, "argv", ["varsel", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        code = end.value.code
        return Ended(code if isinstance(code, int) else 0, printed.out, printed.err)

    return run


@pytest.fixture
def bundle(hook_request: Request) -> bytes:
    """The demo patient's record as one Bundle."""
    prefetch = hook_request["prefetch"]
    entries: list[Any] = [{"resource": prefetch.pop("patient")}]
    for answer in prefetch.values():
        entries += answer.get("entry", [])
    whole = {"resourceType": "Bundle", "type": "collection", "entry": entries}
    return json.dumps(whole).encode()


@pytest.fixture
def file(tmp_path: Path, bundle: bytes) -> Path:
    """That Bundle in a file."""
    path = tmp_path / "patient.json"
    path.write_bytes(bundle)
    return path


# ---- score ----------------------------------------------------------------------------------


def test_score_prints_a_readable_card(varsel: Varsel, file: Path) -> None:
    """Model, risk, a chart of contributions that adds up, and that nothing was logged."""
    ended = varsel("score", file, "--as-of", "latest")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("readmission-30d ")
    assert "SYNTETISK MODEL" in ended.out
    assert "▲ █" in ended.out
    assert "not logged (--log writes it)" in ended.out
    english = varsel("score", file, "--as-of", "latest", "--language", "en")
    assert "SYNTHETIC MODEL" in english.out


def test_score_json_prints_one_document_and_nothing_else(varsel: Varsel, file: Path) -> None:
    """A list of predictions, one per package."""
    ended = varsel("score", file, "--as-of", "latest", "--json")
    assert (ended.code, ended.err) == (0, "")
    (prediction,) = ended.document()
    assert prediction["status"] == "scored"
    assert prediction["service"] == "readmission-30d"
    assert prediction["cards"]


def test_score_reads_standard_input_and_gzip(varsel: Varsel, file: Path, bundle: bytes) -> None:
    """The same record gives the same risk, whichever way it comes."""

    def risk(ended: Ended) -> float:
        found: float = ended.document()[0]["heads"][0]["risk"]
        return found

    packed = file.with_suffix(".gz")
    half = len(bundle) // 2
    packed.write_bytes(gzip.compress(bundle[:half], mtime=0) + gzip.compress(bundle[half:]))
    rest = ("--as-of", "latest", "--json", "--model", "readmission-30d")
    expected = risk(varsel("score", file, *rest))
    assert risk(varsel("score", packed, *rest)) == expected
    assert risk(varsel("score", "-", *rest, stdin=bundle)) == expected
    assert risk(varsel("score", "-", *rest, stdin=gzip.compress(bundle, mtime=0))) == expected


def test_score_answers_a_hook_request_as_the_service_does(
    varsel: Varsel, demo_request: Request
) -> None:
    """The same checks, the same risk."""
    whole = varsel(
        "score", "-", "--as-of", "latest", "--json", stdin=json.dumps(demo_request).encode()
    )
    assert whole.document()[0]["status"] == "scored"
    other = demo_request | {"context": demo_request["context"] | {"patientId": "another"}}
    ended = varsel("score", "-", stdin=json.dumps(other).encode())
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("varsel: prefetch.patient: ")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "not valid JSON"),
        (b"hello", "not valid JSON"),
        (b"[]", "Expected `object`"),
        (b"{}", "resourceType"),
        (b'{"resourceType": "Bundle", "entry": []}', "Patient"),
        (b'{"resourceType": "Bundle", "entry": 5}', "Bundle.entry"),
        (b'{"x": 1, "resourceType": "\\u001b[31mEvil"}', "resourceType"),
        (b'{"hookInstance": "x"}', "hook"),
        (gzip.compress(b"{}" * 1000, mtime=0)[:-12], "not a whole gzip file"),
        (b"\x1f\x8bnonsense", "not a whole gzip file"),
        (b"\xff\xfe{\x00}\x00", "not valid JSON"),
    ],
)
def test_score_refuses_what_it_cannot_read(varsel: Varsel, content: bytes, named: str) -> None:
    """Exit code 2, nothing on standard output, one printable line that names the fault."""
    ended = varsel("score", "-", "--model", "readmission-30d", stdin=content)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("varsel: ")
    assert named in ended.err
    assert ended.err.removesuffix("\n").isprintable()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nowhere.json"], "nowhere.json: No such file or directory"),
        (["FOLDER"], "Is a directory"),
        (["FILE", "--as-of", "soon"], "--as-of"),
        (["FILE", "--as-of", "0001-01-01"], "--as-of"),
        (["FILE", "--language", "sv"], "--language"),
        (["FILE", "--model", "no-such-model"], "no model is called no-such-model"),
        ([], "Missing argument"),
        (["FILE", "--wrong"], "No such option"),
    ],
)
def test_score_refuses_wrong_usage(
    varsel: Varsel, file: Path, arguments: list[str], named: str
) -> None:
    """Exit code 2; standard error names the argument."""
    given = [{"FILE": str(file), "FOLDER": str(file.parent)}.get(a, a) for a in arguments]
    ended = varsel("score", *given)
    assert (ended.code, ended.out) == (2, "")
    assert named in ended.err


def test_score_refuses_more_than_is_allowed(
    varsel: Varsel, monkeypatch: pytest.MonkeyPatch, bundle: bytes
) -> None:
    """A small file that unzips to much is refused before it fills the memory."""
    monkeypatch.setenv("VARSEL_MAX_BODY_BYTES", "1000")
    for sent in (bundle, gzip.compress(b" " * 50_000_000, mtime=0)):
        ended = varsel("score", "-", stdin=sent)
        assert (ended.code, ended.out) == (2, "")
        assert "larger than 1000 bytes" in ended.err


def test_score_writes_to_the_log_when_asked(varsel: Varsel, file: Path, tmp_path: Path) -> None:
    """A row with the printed prediction, and no second one for what was not to be logged."""
    varsel("score", file, "--as-of", "latest", "--json")
    assert not (tmp_path / "state" / "varsel.db").exists()
    (prediction,) = varsel("score", file, "--as-of", "latest", "--log", "--json").document()
    with closing(sqlite3.connect(tmp_path / "state" / "varsel.db")) as connection:
        rows = connection.execute("SELECT prediction_id, hook, caller FROM predictions").fetchall()
    assert rows == [(prediction["prediction_id"], "command-line", "varsel score")]


# ---- models ---------------------------------------------------------------------------------


def test_models_list_names_every_package(varsel: Varsel) -> None:
    """Readable, and as JSON."""
    listed = varsel("models", "list")
    assert listed.code == 0
    assert "readmission-30d" in listed.out
    assert "SYNTHETIC" in listed.out
    document = varsel("models", "list", "--json").document()
    assert [m["id"] for m in document["models"]] == [
        "copd-deterioration",
        "crc-surgery",
        "hf-deterioration",
        "readmission-30d",
    ]
    assert document["refused"] == {}


def test_models_card_prints_the_model_card(varsel: Varsel) -> None:
    """The file, or one JSON document; an unknown model is bad input."""
    text = (BUNDLED / "readmission-30d" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert varsel("models", "card", "readmission-30d").out == text
    assert varsel("models", "card", "readmission-30d", "--json").document()["card"] == text
    assert varsel("models", "card", "no-such-model").code == 2


def test_models_check_admits_and_refuses_by_name(varsel: Varsel, tmp_path: Path) -> None:
    """0 for the bundled package; 1 for one whose file is not what its checksum says."""
    good = varsel("models", "check", "readmission-30d", "--json")
    assert good.code == 0
    assert good.document()[0]["admitted"]
    broken = tmp_path / "readmission-30d"
    shutil.copytree(BUNDLED / "readmission-30d", broken)
    with (broken / "metrics.json").open("a", encoding="utf-8") as metrics:
        metrics.write(" ")
    bad = varsel("models", "check", broken, "--json")
    assert bad.code == 1
    (finding,) = bad.document()
    assert not finding["admitted"]
    assert "metrics.json is not what SHA256SUMS says" in finding["fault"]
    assert "REFUSED" in varsel("models", "check", broken).out


# ---- installation ---------------------------------------------------------------------------


@pytest.fixture
def production(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, varsel: Varsel) -> Varsel:
    """The command in a production profile that lacks nothing but its database's tables."""
    digest = hashlib.sha256(b"token").hexdigest()
    (tmp_path / "callers.toml").write_text(
        f'[[caller]]\nname = "a"\norganisation = "o"\ntoken_sha256 = "{digest}"\n',
        encoding="utf-8",
    )
    key = base64.b64encode(b"k" * 32).decode()
    values = {
        "PROFILE": "production",
        "DATABASE_URL": f"sqlite:///{tmp_path / 'varsel.db'}",
        "CALLERS_FILE": str(tmp_path / "callers.toml"),
        "PSEUDONYM_KEY": key,
        "SEAL_KEY": key,
        "ALLOW_SYNTHETIC_MODELS": "true",
    }
    for name, value in values.items():
        monkeypatch.setenv(f"VARSEL_{name}", value)
    return varsel


def findings(ended: Ended) -> dict[str, tuple[bool, str]]:
    """What doctor says, by check."""
    return {f["check"]: (f["ok"], f["says"]) for f in ended.document()}


def test_doctor_finds_a_database_without_tables(production: Varsel, tmp_path: Path) -> None:
    """Exit code 1 and the command to run; after it, 0."""
    ill = production("doctor", "--json")
    assert ill.code == 1
    ok, says = findings(ill)["database"]
    assert not ok
    assert "varsel db upgrade" in says
    (tmp_path / "varsel.db").touch()
    assert "varsel db upgrade" in findings(production("doctor", "--json"))["database"][1]
    assert production("db", "upgrade", "--json").document()["upgraded"]
    well = production("doctor", "--json")
    assert well.code == 0, well.out
    assert all(ok for ok, _ in findings(well).values())
    assert production("doctor").out.count("ok ") == len(findings(well))


def test_doctor_finds_a_package_that_is_refused(
    production: Varsel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By the folder's name, with the file at fault."""
    production("db", "upgrade")
    (tmp_path / "site" / "half-a-model").mkdir(parents=True)
    (tmp_path / "site" / "half-a-model" / "manifest.toml").write_text("x = ", encoding="utf-8")
    monkeypatch.setenv("VARSEL_MODELS_DIR", str(tmp_path / "site"))
    ended = production("doctor", "--json")
    assert ended.code == 1
    ok, says = findings(ended)["models"]
    assert not ok
    assert "half-a-model refused: " in says
    monkeypatch.setenv("VARSEL_MODELS_DIR", str(tmp_path / "nowhere"))
    assert "VARSEL_MODELS_DIR" in findings(production("doctor", "--json"))["models"][1]


def test_doctor_names_settings_callers_and_databases_that_are_wrong(
    production: Varsel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All in one run, none of them a traceback."""
    monkeypatch.delenv("VARSEL_SEAL_KEY")
    (tmp_path / "callers.toml").write_text("", encoding="utf-8")
    monkeypatch.setenv("VARSEL_DATABASE_URL", "mysql://u:secret@db/x")
    ended = production("doctor", "--json")
    assert ended.code == 1
    found = findings(ended)
    assert {name for name, (ok, _) in found.items() if not ok} == {
        "settings",
        "callers",
        "database",
    }
    assert "VARSEL_SEAL_KEY is not set" in found["settings"][1]
    assert "secret" not in ended.out


def test_a_setting_that_is_wrong_stops_every_command(
    varsel: Varsel, monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    """Exit code 2 and the name of the variable."""
    monkeypatch.setenv("VARSEL_LANGUAGE", "sv")
    for command in (["doctor"], ["serve"], ["score", str(file)], ["models", "list"]):
        ended = varsel(*command)
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.startswith("varsel: VARSEL_LANGUAGE: ")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--port", "99999"], "VARSEL_PORT"),
        (["--host", "192.0.2.1"], "VARSEL_HOST"),
        (["--host", "192.0.2.1.example"], "VARSEL_HOST"),
    ],
)
def test_serve_refuses_to_listen_where_it_must_not(
    varsel: Varsel, arguments: list[str], named: str
) -> None:
    """Exit code 2 names the setting; the demo stays on loopback."""
    ended = varsel("serve", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert named in ended.err


def test_serve_refuses_a_port_that_is_taken(varsel: Varsel) -> None:
    """Exit code 2 and the setting, not a traceback."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = varsel("serve", "--port", str(taken.getsockname()[1]))
    assert (ended.code, ended.out) == (2, "")
    assert "Address already in use (VARSEL_PORT)" in ended.err


def test_serve_refuses_a_database_that_is_behind(production: Varsel) -> None:
    """Exit code 2 and the command to run, before anything listens."""
    ended = production("serve", "--port", "0")
    assert (ended.code, ended.out) == (2, "")
    assert "run `varsel db upgrade`" in ended.err


def test_openapi_writes_its_documents(varsel: Varsel, tmp_path: Path) -> None:
    """Without making keys or a database on the way."""
    assert varsel("openapi", "--out", tmp_path / "api").code == 0
    assert {path.name for path in (tmp_path / "api").iterdir()} == {
        "openapi.json",
        "prediction.schema.json",
    }
    assert not (tmp_path / "state").exists()


def test_help_and_version_are_there(varsel: Varsel) -> None:
    """0, on standard output; no command at all shows the help."""
    assert varsel("--version").code == 0
    assert "score" in varsel("--help").out
    assert varsel("nonsense").code == 2
