"""Packages between two sites, with the real commands: keygen, export, import, list, diff.

One site publishes; the other trusts its key, lets the package in as a candidate, and goes on
serving what it served, also where what came was refused.
"""

from __future__ import annotations

import base64
import io
import json
import shutil
import stat
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi.testclient import TestClient

from cds_service.app import create_app
from cds_service.cli import main
from cds_service.cli.exchange import NO_LOG
from cds_service.settings import Settings
from models.exchange import export_archive
from models.package import write_checksums
from models.registry import BUNDLED
from models.signature import Signer, parse_private, private_text, publisher_of, publisher_table

NAME = "readmission-30d"


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
    """Runs `varsel` with some arguments, at the site that receives."""
    monkeypatch.setenv("VARSEL_PROFILE", "demo")
    monkeypatch.setenv("VARSEL_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("VARSEL_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("VARSEL_PUBLISHERS_FILE", str(tmp_path / "publishers.toml"))
    (tmp_path / "models").mkdir()

    def run(*arguments: str | Path) -> Ended:
        monkeypatch.setattr(sys, "argv", ["varsel", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        code = end.value.code
        return Ended(code if isinstance(code, int) else 0, printed.out, printed.err)

    return run


@pytest.fixture(scope="module")
def sender(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a site that publishes: its key, and a package of a new version."""
    site = tmp_path_factory.mktemp("sender")
    folder = Path(shutil.copytree(BUNDLED / NAME, site / NAME))
    for file in ("manifest.toml", "evaluation.toml"):
        text = (folder / file).read_text(encoding="utf-8")
        text = text.replace('version = "1.0.0"', 'version = "1.1.0"')
        text = text.replace("threshold = 0.2\n", "threshold = 0.25\n")
        (folder / file).write_text(text, encoding="utf-8")
    write_checksums(folder)
    key = Ed25519PrivateKey.generate()
    (site / "key.pem").write_bytes(private_text(key))
    (site / "key.toml").write_text(publisher_table(publisher_of(key, "Region Nord")))
    return site


@pytest.fixture
def key(sender: Path, tmp_path: Path) -> Path:
    """The key of a publisher whom the receiving site trusts."""
    shutil.copy(sender / "key.toml", tmp_path / "publishers.toml")
    return sender / "key.pem"


@pytest.fixture
def published(sender: Path, tmp_path: Path) -> Path:
    """The package in a folder of its publisher, to change."""
    return Path(shutil.copytree(sender / NAME, tmp_path / "published" / NAME))


@pytest.fixture
def archive(key: Path, sender: Path) -> Path:
    """Its archive, as the other site receives it."""
    path = sender / "sent.varsel.zip"
    if not path.exists():
        public = publisher_of(parse_private(key.read_bytes()), "Region Nord")
        signer = Signer(parse_private(key.read_bytes()), public)
        when = "2026-11-22T08:00:00Z"
        exported = export_archive(sender / NAME, signer, specification=False, signed_at=when)
        path.write_bytes(exported.content)
    return path


def repacked(archive: Path, name: str, content: bytes) -> Path:
    """The archive with one more file, or another in its place."""
    with zipfile.ZipFile(archive) as old:
        files = {entry: old.read(entry) for entry in old.namelist()} | {name: content}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for entry, inside in files.items():
            new.writestr(entry, inside)
    path = archive.with_name("evil.varsel.zip")
    path.write_bytes(out.getvalue())
    return path


# ---- there and back -------------------------------------------------------------------------


def test_a_package_goes_from_one_site_to_another(
    varsel: Varsel, key: Path, published: Path, tmp_path: Path
) -> None:
    """Exported, verified, unpacked under its version, and listed; what is next is said."""
    sent = varsel("models", "export", published, "--key", key, "--out", tmp_path / "sent")
    assert (sent.code, sent.err) == (0, f"{NO_LOG}\n")
    archive = tmp_path / "sent" / f"{NAME}-1.1.0.varsel.zip"
    ended = varsel("models", "import", archive)
    assert (ended.code, ended.err) == (0, f"{NO_LOG}\n")
    assert (tmp_path / "models" / NAME / "1.1.0" / "manifest.toml").is_file()
    assert f"package {NAME} 1.1.0" in ended.out
    assert "signed by Region Nord with key " in ended.out
    assert "candidate: not in service until somebody decides: varsel models state " in ended.out
    assert "start the processes again first" in ended.out
    again = varsel("models", "import", archive, "--json")
    assert (again.code, again.document()["already_here"]) == (0, True)
    listed = varsel("models", "list", "--json").document()
    versions = [model["version"] for model in listed["models"] if model["id"] == NAME]
    assert versions == ["1.0.0", "1.1.0"]
    assert listed["refused"] == {}


def test_what_came_is_a_candidate_and_does_not_answer(
    varsel: Varsel, archive: Path, hook_request: dict[str, Any], tmp_path: Path
) -> None:
    """The service goes on with the version it served."""
    assert varsel("models", "import", archive).code == 0
    settings = Settings(
        profile="demo", state_dir=tmp_path / "state", models_dir=tmp_path / "models"
    )
    with TestClient(create_app(settings)) as client:
        services = client.get("/cds-services").json()["services"]
        offered = [service["hook"] for service in services if service["id"] == NAME]
        assert sorted(offered) == ["encounter-discharge", "patient-view"]
        assert client.get("/readyz").status_code == 200
        cards = client.post(f"/cds-services/{NAME}", json=hook_request).json()["cards"]
    assert cards
    assert "1.1.0" not in json.dumps(cards)


def test_a_specification_is_listed_and_never_served(
    varsel: Varsel, key: Path, tmp_path: Path
) -> None:
    """The bundled package's own specification beside it: the package is still the one meant."""
    sent = varsel(
        "models", "export", NAME, "--specification", "--key", key, "--out", tmp_path, "--json"
    ).document()
    assert sent["archive"].endswith(f"{NAME}-1.0.0.specification.varsel.zip")
    came = varsel("models", "import", sent["archive"])
    assert came.code == 0, came.err
    assert "specification: listed, never servable" in came.out
    listed = varsel("models", "list")
    assert f"{NAME:<24} 1.0.0    specification, never servable" in listed.out
    document = varsel("models", "list", "--json").document()
    assert [spec["id"] for spec in document["specifications"]] == [NAME]
    assert varsel("models", "card", NAME).code == 0
    assert varsel("models", "check").code == 0


def test_diff_shows_what_a_new_version_changes(
    varsel: Varsel, archive: Path, published: Path
) -> None:
    """By id and version once it is here, or by folder before."""
    assert varsel("models", "import", archive).code == 0
    ended = varsel("models", "diff", f"{NAME}@1.0.0", f"{NAME}@1.1.0")
    assert (ended.code, ended.err) == (0, "")
    assert "heads.readmission.threshold: 0.2 -> 0.25" in ended.out
    assert "readmission, test, AUROC: " in ended.out
    assert "0 change band" in ended.out
    found = varsel("models", "diff", BUNDLED / NAME, published, "--json").document()
    assert found["files"] == {
        "added": [],
        "removed": [],
        "changed": ["evaluation.toml", "manifest.toml"],
    }


def test_the_evaluation_list_is_printed_in_both_languages(varsel: Varsel) -> None:
    assert varsel("models", "evaluation", NAME).out.startswith("# Vurdering: Akut genindlæggelse")
    english = varsel("models", "evaluation", NAME, "--language", "en")
    assert english.out.startswith("# Evaluation: Acute readmission")
    document = varsel("models", "evaluation", NAME, "--json").document()
    assert document["approvals"] == []


def test_what_is_printed_of_a_package_from_elsewhere_obeys_no_terminal(
    varsel: Varsel, published: Path
) -> None:
    """Card and evaluation list are somebody else's text: it cannot colour, hide or retitle."""
    for file, old in (("MODEL_CARD.md", "# "), ("evaluation.toml", '[intended_purpose]\nda = "')):
        text = (published / file).read_text(encoding="utf-8")
        assert old in text
        sent = "\x1b[31mred\x07" if file.endswith(".md") else "\\u001B[31mred\\u0007"
        (published / file).write_text(text.replace(old, old + sent, 1), encoding="utf-8")
    write_checksums(published)
    for command in ("card", "evaluation"):
        shown = varsel("models", command, str(published)).out
        assert "[31mred" in shown
        assert not {"\x1b", "\x07"} & set(shown)


# ---- keys -----------------------------------------------------------------------------------


def test_a_key_is_for_its_owner_alone(varsel: Varsel, tmp_path: Path) -> None:
    """The private file is closed to others; the table says who, and what the key is."""
    made = varsel("models", "keygen", "--publisher", "Region Øst", "--out", tmp_path / "keys")
    (private,) = (tmp_path / "keys").glob("*.pem")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert "PRIVATE" not in made.out
    table = private.with_suffix(".toml").read_text(encoding="utf-8")
    assert 'name = "Region Øst"' in table
    assert f'key_id = "{private.stem}"' in table


def test_every_bundled_package_can_be_published(varsel: Varsel, key: Path, tmp_path: Path) -> None:
    """Each holds all that an archive needs."""
    for model in sorted(path.parent.name for path in BUNDLED.glob("*/manifest.toml")):
        ended = varsel("models", "export", model, "--key", key, "--out", tmp_path / f"{model}.zip")
        assert ended.code == 0, ended.err
        assert zipfile.is_zipfile(tmp_path / f"{model}.zip")


# ---- refusals -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("../outside.json", b"{}", "../outside.json: its path leads outside the folder (..)"),
        ("model.pkl", b"\x80\x04K\x01.", "model.pkl: it is of a kind no package holds"),
        ("MODEL_CARD.md", b"better", "MODEL_CARD.md: is not what SHA256SUMS says"),
        ("manifest.toml", b"id = 1", "manifest.toml: is not what SHA256SUMS says"),
        ("SHA256SUMS", b"", "SIGNATURE.json: signature: not Region Nord's signature"),
        ("SIGNATURE.json", b"{}", "SIGNATURE.json: Object missing required field"),
    ],
)
def test_what_was_tampered_with_is_refused_and_leaves_nothing(
    varsel: Varsel, archive: Path, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    """Exit code 2; one line with the archive, the file in it and the reason; nothing is left."""
    ended = varsel("models", "import", repacked(archive, name, content))
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"varsel: evil.varsel.zip: {said}")
    assert ended.err.count("\n") == 1
    assert list((tmp_path / "models").iterdir()) == []
    assert not (tmp_path / "outside.json").exists()


def test_after_a_refusal_the_others_serve_on(varsel: Varsel, archive: Path) -> None:
    """What was refused is neither a package nor one that is refused at the next start."""
    assert varsel("models", "import", repacked(archive, "model.pkl", b"\x80\x04K\x01.")).code == 2
    listed = varsel("models", "list", "--json").document()
    assert (len(listed["models"]), listed["specifications"], listed["refused"]) == (4, [], {})


def test_nobody_is_trusted_who_is_not_named(
    varsel: Varsel, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a list the command says how to make one; with another's key the archive is named."""
    other = varsel("models", "keygen", "--publisher", "Region Syd", "--out", tmp_path, "--json")
    monkeypatch.setenv("VARSEL_PUBLISHERS_FILE", other.document()["public"])
    ended = varsel("models", "import", archive)
    assert ended.code == 2
    assert f"{archive.name}: SIGNATURE.json: key_id: " in ended.err
    assert "is not a key of a trusted publisher" in ended.err
    monkeypatch.delenv("VARSEL_PUBLISHERS_FILE")
    ended = varsel("models", "import", archive)
    assert ended.code == 2
    assert "VARSEL_PUBLISHERS_FILE is not set" in ended.err
    assert "keygen" in ended.err


def test_without_a_folder_of_packages_nothing_is_imported(
    varsel: Varsel, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VARSEL_MODELS_DIR")
    ended = varsel("models", "import", archive)
    assert (ended.code, ended.out) == (2, "")
    assert "VARSEL_MODELS_DIR is not set" in ended.err


def test_import_refuses_what_is_no_archive(varsel: Varsel, key: Path, tmp_path: Path) -> None:
    """Exit code 2, with the file."""
    assert key.is_file()
    (tmp_path / "a.zip").write_text("no zip")
    for name, said in (("a.zip", "is not a zip archive"), ("b.zip", "No such file")):
        ended = varsel("models", "import", tmp_path / name)
        assert (ended.code, ended.out) == (2, "")
        assert f"varsel: {name}: {said}" in ended.err


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[intended_purpose]", "[purpose]", "evaluation.toml: Object contains unknown field"),
        ("approvals = []", "", "evaluation.toml: Object missing required field `approvals`"),
        (
            "[questions.patients]",
            "[questions.patient]",
            "evaluation.toml: questions.patients: neit",
        ),
    ],
)
def test_export_refuses_an_evaluation_list_that_is_not_complete(
    varsel: Varsel, key: Path, published: Path, old: str, new: str, said: str
) -> None:
    """Exit code 2, and the field."""
    path = published / "evaluation.toml"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    write_checksums(published)
    ended = varsel("models", "export", published, "--key", key, "--out", published)
    assert (ended.code, ended.out) == (2, "")
    assert f"{NAME}: {said}" in ended.err
    assert list(published.glob("*.zip")) == []


def test_export_refuses_a_key_that_does_not_hold(
    varsel: Varsel, key: Path, published: Path, tmp_path: Path
) -> None:
    """No key, a key without its table, the table of another key."""

    def refused(path: Path) -> str:
        ended = varsel("models", "export", published, "--key", path, "--out", tmp_path)
        assert (ended.code, ended.out) == (2, "")
        return ended.err

    assert "--key" in refused(tmp_path / "no.pem")
    lone = Path(shutil.copy(key, tmp_path / "lone.pem"))
    assert "lone.toml: No such file" in refused(lone)
    other = varsel("models", "keygen", "--publisher", "Region Syd", "--out", tmp_path, "--json")
    shutil.copy(other.document()["public"], tmp_path / "lone.toml")
    assert "holds no publisher with the key " in refused(lone)
    lone.write_text(base64.b64encode(b"key").decode())
    assert "not a private key in PEM" in refused(lone)


def test_keygen_refuses_a_name_nobody_can_read(varsel: Varsel, tmp_path: Path) -> None:
    for name in ("", "x" * 101, "a\nb"):
        ended = varsel("models", "keygen", "--publisher", name, "--out", tmp_path / "keys")
        assert (ended.code, ended.out) == (2, "")
        assert "--publisher must be 1 to 100 printable characters" in ended.err
