"""Packages leave and come: what is signed, what is refused on its way in, and that nothing stays of
what was refused."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.archive import SIGNATURE, write_archive
from models.errors import PackageRefused
from models.evaluation import EVALUATION, SPECIFICATION, is_specification
from models.exchange import Imported, export_archive, import_archive, specifications_in
from models.package import SUMS, load_package, verify_checksums, write_checksums
from models.registry import BUNDLED, load_registry, package_folders
from models.signature import (
    ArchiveKind,
    Signer,
    publisher_of,
    sign,
)

NAME = "readmission-30d"
WHEN = "2026-11-22T08:00:00Z"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
UNANSWERED = '[questions.training-data]\nstatus = "not-answered"'
SIGNER = Signer(KEY, publisher_of(KEY, "Region Nord"))
STRANGER = Signer(Ed25519PrivateKey.from_private_bytes(bytes(32)), SIGNER.publisher)
TRUSTED = {SIGNER.publisher.key_id: SIGNER.publisher}
Files = dict[str, bytes]
Tamper = Callable[[Files], object]


def bumped(folder: Path, version: str = "1.1.0") -> Path:
    """A copy of the bundled package in a version of its own."""
    copy = Path(shutil.copytree(BUNDLED / NAME, folder / NAME))
    for file in ("manifest.toml", EVALUATION):
        text = (copy / file).read_text(encoding="utf-8")
        assert 'version = "1.0.0"' in text
        (copy / file).write_text(text.replace('version = "1.0.0"', f'version = "{version}"'))
    write_checksums(copy)
    return copy


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package nobody else has, not to be changed."""
    return bumped(tmp_path_factory.mktemp("published"))


def exported(folder: Path, *, specification: bool = False) -> bytes:
    return export_archive(folder, SIGNER, specification=specification, signed_at=WHEN).content


@pytest.fixture(scope="module")
def archive(folder: Path) -> bytes:
    """The package as an archive."""
    return exported(folder)


@pytest.fixture(scope="module")
def specification(folder: Path) -> bytes:
    """Its specification as an archive."""
    return exported(folder, specification=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A site's folder of packages, with something beside it that must not change."""
    (tmp_path / "beside.json").write_text("{}")
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def let_in(content: bytes, root: Path, *, synthetic: bool = True) -> Imported:
    return import_archive(content, "a.zip", trusted=TRUSTED, root=root, allow_synthetic=synthetic)


def unzipped(content: bytes) -> Files:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def tree(folder: Path) -> dict[str, str]:
    """Every file and folder below a folder, with what it holds."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else ""
        for path in folder.rglob("*")
    }


# ---- there and back -------------------------------------------------------------------------


def test_a_package_comes_in_as_it_was_sent(archive: bytes, folder: Path, root: Path) -> None:
    """Under its version, with the same checksum, the signature beside it as evidence."""
    came = let_in(archive, root)
    assert came.folder == root / NAME / "1.1.0"
    assert (came.kind, came.publisher, came.signed_at) == ("package", "Region Nord", WHEN)
    assert came.checksum == verify_checksums(came.folder) == verify_checksums(folder)
    assert tree(came.folder) == tree(folder)
    assert json.loads((root / NAME / f"1.1.0.{SIGNATURE}").read_text())["key_id"] == came.key_id
    assert list(root.iterdir()) == [root / NAME]
    registry = load_registry(package_folders(root), allow_synthetic=True)
    assert (list(registry.packages), registry.refused) == ([f"{NAME}@1.1.0"], {})


def test_the_same_package_signed_at_the_same_moment_is_the_same_archive(
    archive: bytes, folder: Path
) -> None:
    assert exported(folder) == archive


def test_what_is_here_already_is_left_alone(archive: bytes, root: Path) -> None:
    """The same content again is no fault; other content of that version is."""
    let_in(archive, root)
    before = tree(root)
    assert let_in(archive, root).already_here
    with pytest.raises(PackageRefused, match=r"version 1\.1\.0: the package is here already"):
        let_in(exported(root / NAME / "1.1.0", specification=True), root)
    assert tree(root) == before


def test_a_package_takes_the_place_of_its_specification(
    archive: bytes, specification: bytes, folder: Path, root: Path
) -> None:
    """Where the specification names its checksum; the evidence is then the package's."""
    let_in(specification, root)
    came = let_in(archive, root)
    assert (came.kind, came.already_here) == ("package", False)
    assert tree(came.folder) == tree(folder)
    assert json.loads((root / NAME / f"1.1.0.{SIGNATURE}").read_text())["kind"] == "package"
    assert sorted(p.name for p in root.rglob("1.1.0*")) == ["1.1.0", f"1.1.0.{SIGNATURE}"]
    assert list(root.iterdir()) == [root / NAME]


def test_a_package_the_specification_was_not_made_from_does_not_take_its_place(
    specification: bytes, root: Path, tmp_path: Path
) -> None:
    let_in(specification, root)
    before = tree(root)
    other = bumped(tmp_path)
    (other / CARD).write_text("another card")
    write_checksums(other)
    with pytest.raises(PackageRefused, match=r"version 1\.1\.0 is here with other content"):
        let_in(exported(other), root)
    assert tree(root) == before


def test_the_evidence_is_there_before_the_package(
    archive: bytes, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interruption between the two cannot lose who signed; a refused move takes it along."""
    seen: list[bool] = []

    def fails(*_: Path) -> None:
        seen.append((root / NAME / f"1.1.0.{SIGNATURE}").is_file())
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("models.exchange.put_in_place", fails)
    with pytest.raises(PackageRefused, match="No space left"):
        let_in(archive, root)
    assert (seen, list(root.iterdir())) == ([True], [])


def test_what_an_interrupted_import_left_is_removed_by_a_later_one(
    archive: bytes, root: Path
) -> None:
    """Not what an import that runs at the same time is unpacking."""
    for name in ("old", "new"):
        (root / f".import-{name}" / "unpacked").mkdir(parents=True)
    os.utime(root / ".import-old", (0, 0))
    let_in(archive, root)
    assert sorted(p.name for p in root.iterdir()) == [".import-new", NAME]


def test_a_package_that_comes_with_the_software_is_here_already(root: Path, tmp_path: Path) -> None:
    """It is not kept twice; another package under its version is refused."""
    came = let_in(exported(BUNDLED / NAME), root)
    assert (came.already_here, came.folder) == (True, BUNDLED / NAME)
    other = bumped(tmp_path, "1.0.0")
    (other / "MODEL_CARD.md").write_text("another card")
    write_checksums(other)
    with pytest.raises(PackageRefused, match=r"version 1\.0\.0 is here with other content"):
        let_in(exported(other), root)
    assert list(root.iterdir()) == []


def test_a_version_is_not_put_inside_another_package(
    archive: bytes, folder: Path, root: Path
) -> None:
    """It would be a file that package's checksums do not know, and stop it from serving."""
    shutil.copytree(folder, root / NAME)
    before = tree(root)
    with pytest.raises(PackageRefused, match="is a package itself"):
        let_in(archive, root)
    assert tree(root) == before


def test_a_synthetic_package_is_refused_where_synthetic_models_are_not_allowed(
    archive: bytes, root: Path
) -> None:
    with pytest.raises(PackageRefused, match="trained on synthetic data"):
        let_in(archive, root, synthetic=False)
    assert list(root.iterdir()) == []


# ---- specifications -------------------------------------------------------------------------


def test_a_specification_holds_words_and_figures_and_no_numbers_of_the_model(
    specification: bytes, folder: Path
) -> None:
    """No weights, no background, no reference sample, no examples; and it says of what it is."""
    files = unzipped(specification)
    words = {"manifest.toml", EVALUATION, "MODEL_CARD.md", "metrics.json"}
    assert set(files) == words | {SPECIFICATION, SUMS, SIGNATURE}
    made_from = json.loads(files[SPECIFICATION])
    assert made_from["package_checksum"] == verify_checksums(folder)
    assert "heads/readmission/booster.ubj" in made_from["left_out"]
    assert json.loads(files[SIGNATURE])["kind"] == "specification"


def test_a_specification_is_listed_and_never_served(specification: bytes, root: Path) -> None:
    """Also where synthetic models are not allowed: nothing of it can run."""
    came = let_in(specification, root, synthetic=False)
    assert is_specification(came.folder)
    folders = package_folders(root)
    (listed,), broken = specifications_in(folders)
    assert (listed.id, listed.version, broken) == (NAME, "1.1.0", {})
    registry = load_registry(folders, allow_synthetic=True)
    assert (registry.packages, registry.refused) == ({}, {})
    with pytest.raises(PackageRefused):
        load_package(came.folder)


def test_a_specification_that_was_changed_is_named(specification: bytes, root: Path) -> None:
    came = let_in(specification, root)
    (came.folder / "MODEL_CARD.md").write_text("better")
    assert specifications_in([came.folder]) == (
        [],
        {f"{NAME}@1.1.0": "MODEL_CARD.md is not what SHA256SUMS says"},
    )


def test_a_specification_goes_on_as_one(specification: bytes, root: Path) -> None:
    """Exported again it is the same; it cannot be exported as a package."""
    came = let_in(specification, root)
    assert exported(came.folder, specification=True) == specification
    with pytest.raises(PackageRefused, match=r"SPECIFICATION\.json: a specification, to be expor"):
        exported(came.folder)


def test_a_specification_can_be_written_before_anything_was_trained(tmp_path: Path) -> None:
    """Words alone: no checksums yet, so none is claimed."""
    draft = bumped(tmp_path)
    shutil.rmtree(draft / "heads")
    (draft / SUMS).unlink()
    made_from = json.loads(unzipped(exported(draft, specification=True))[SPECIFICATION])
    assert made_from["package_checksum"] is None


# ---- what is not exported -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        (EVALUATION, None, "evaluation.toml is missing"),
        ("MODEL_CARD.md", None, "MODEL_CARD.md is missing"),
        ("notes and thoughts.md", b"", "notes and thoughts.md is no file of a package"),
        ("all-our-patients.csv", b"1\n", "all-our-patients.csv is no file of a package"),
        ("examples/01.json", b"{}", "01.json: "),
    ],
)
def test_what_would_be_refused_elsewhere_is_not_exported(
    tmp_path: Path, file: str, content: bytes | None, said: str
) -> None:
    """With the file and the reason, also where its checksums hold."""
    copy = bumped(tmp_path)
    if content is None:
        (copy / file).unlink()
    else:
        (copy / file).write_bytes(content)
    write_checksums(copy)
    with pytest.raises(PackageRefused) as refused:
        exported(copy)
    assert said in refused.value.fault


def test_rows_of_patients_leave_only_where_somebody_answered_for_them(tmp_path: Path) -> None:
    """A package on real data holds rows of features; its specification holds none."""
    copy = bumped(tmp_path)
    for file, old, new in (
        ("manifest.toml", "synthetic = true", "synthetic = false"),
        (EVALUATION, '[questions.training-data]\nstatus = "answered"', UNANSWERED),
    ):
        text = (copy / file).read_text(encoding="utf-8")
        assert old in text
        (copy / file).write_text(text.replace(old, new), encoding="utf-8")
    write_checksums(copy)
    with pytest.raises(PackageRefused, match=r"questions\.training-data: a package holds rows"):
        exported(copy)
    assert exported(copy, specification=True)


def test_a_specification_does_not_name_files_that_are_no_package_s(tmp_path: Path) -> None:
    """Of what was left out only the package's own is told, also before there are checksums."""
    draft = bumped(tmp_path)
    (draft / "heads" / "all-our-patients.csv").write_bytes(b"1\n")
    (draft / SUMS).unlink()
    with pytest.raises(PackageRefused, match=r"all-our-patients\.csv is no file of a package"):
        exported(draft, specification=True)


@pytest.mark.parametrize("version", ["../1", "one", "1/2", "1.", "", f"1.1.0.{SIGNATURE}"])
def test_a_version_that_cannot_be_a_folder_is_not_exported(tmp_path: Path, version: str) -> None:
    with pytest.raises(PackageRefused, match=r"manifest\.toml: .*version"):
        exported(bumped(tmp_path, version))


# ---- what is refused on its way in ----------------------------------------------------------


def summed(files: Files) -> bytes:
    names = sorted(files.keys() - {SUMS, SIGNATURE})
    return "".join(f"{hashlib.sha256(files[n]).hexdigest()}  {n}\n" for n in names).encode()


def resigned(files: Files, signer: Signer = SIGNER, kind: ArchiveKind = "package") -> None:
    """Signs the checksums as they are."""
    signature = sign(signer, kind, sums=files[SUMS], signed_at=WHEN)
    fields = {name: getattr(signature, name) for name in signature.__struct_fields__}
    files[SIGNATURE] = json.dumps(fields).encode()


def signing(change: Tamper, kind: ArchiveKind = "package") -> Tamper:
    """What a trusted publisher could send: the change, with checksums and signature that hold."""

    def tamper(files: Files) -> None:
        change(files)
        files[SUMS] = summed(files)
        resigned(files, kind=kind)

    return tamper


def in_text(name: str, old: str, new: str) -> Tamper:
    def change(files: Files) -> None:
        assert old.encode() in files[name]
        files[name] = files[name].replace(old.encode(), new.encode(), 1)

    return change


def in_signature(**fields: object) -> Tamper:
    def change(files: Files) -> None:
        files[SIGNATURE] = json.dumps(json.loads(files[SIGNATURE]) | fields).encode()

    return change


def put(name: str, content: bytes) -> Tamper:
    return lambda files: files.update({name: content})


def without(*names: str) -> Tamper:
    return lambda files: [files.pop(name) for name in names]


def with_sums(change: Callable[[bytes], bytes]) -> Tamper:
    """Other checksums, signed."""

    def tamper(files: Files) -> None:
        files[SUMS] = change(files[SUMS])
        resigned(files)

    return tamper


def unchanged(_: Files) -> None:
    """Nothing."""


def resummed(files: Files) -> None:
    """A changed file with its checksum written anew, without the key."""
    put("MODEL_CARD.md", b"better")(files)
    files[SUMS] = summed(files)


def signed_by_a_stranger(files: Files) -> None:
    """Under the key id and name of the trusted publisher."""
    resigned(files, STRANGER)


CARD = "MODEL_CARD.md"
TREES = "heads/readmission/booster.ubj"
DEEP = b"x = " + b"[" * 20_000 + b"]" * 20_000
SPECIFIED = put(SPECIFICATION, b"{}")
HEADLESS = without(
    "heads/readmission/booster.ubj",
    "heads/readmission/background.csv",
    "heads/readmission/baseline.json",
    "heads/readmission/uncertainty.csv",
)
TAMPERED: dict[str, tuple[Tamper, str]] = {
    # before anything is unpacked
    "no signature": (without(SIGNATURE), "SIGNATURE.json: is missing"),
    "no checksums": (without(SUMS), "SHA256SUMS: is missing"),
    "signature is none": (put(SIGNATURE, b"signed"), "SIGNATURE.json: "),
    "signature too long": (put(SIGNATURE, b" " * 5000), "SIGNATURE.json: is larger than 4096"),
    "signature word": (in_signature(also="me"), "SIGNATURE.json: Object contains unknown field"),
    "algorithm": (in_signature(algorithm="none"), "SIGNATURE.json: Invalid enum value 'none'"),
    "unknown key": (in_signature(key_id="0" * 16), "not a key of a trusted publisher"),
    "other signature": (
        in_signature(signature=base64.b64encode(bytes(64)).decode()),
        "SIGNATURE.json: signature: not Region Nord's signature of this content",
    ),
    "signature not base64": (in_signature(signature="%"), "SIGNATURE.json: signature: not Region"),
    "a stranger": (signed_by_a_stranger, "SIGNATURE.json: signature: not Region Nord's"),
    "other name": (in_signature(publisher="Region Syd"), "SIGNATURE.json: signature: not Region"),
    "other day": (in_signature(signed_at="2027-01-01T00:00:00Z"), "SIGNATURE.json: signature: not"),
    "other kind": (in_signature(kind="specification"), "SIGNATURE.json: signature: not Region"),
    "checksums anew": (resummed, "SIGNATURE.json: signature: not Region Nord's signature"),
    "a changed file": (put(CARD, b"better"), "MODEL_CARD.md: is not what SHA256SUMS says"),
    "a file more": (put("more.csv", b"x\n"), "more.csv: is not in SHA256SUMS"),
    "a file less": (without("reference.csv"), "reference.csv: is missing"),
    # what a trusted publisher could send
    "pickle, signed": (
        signing(put("heads/readmission/model.pkl", b"\x80\x04K\x01.")),
        "heads/readmission/model.pkl: it is of a kind no package holds",
    ),
    "outside, signed": (signing(put("../a.json", b"{}")), "../a.json: its path leads outside"),
    "no manifest": (signing(without("manifest.toml")), "manifest.toml: is missing"),
    "no list": (signing(without(EVALUATION)), "evaluation.toml: is missing"),
    "no card": (signing(without(CARD)), "MODEL_CARD.md: is missing"),
    "manifest is none": (signing(put("manifest.toml", b"=")), "manifest.toml: "),
    "id outside": (
        signing(in_text("manifest.toml", f'id = "{NAME}"', 'id = "../../up"')),
        "manifest.toml: Expected `str` matching regex",
    ),
    "version outside": (
        signing(in_text("manifest.toml", '"1.1.0"', '"../../1"')),
        "manifest.toml: Expected `str` matching regex",
    ),
    "manifest nested deep": (
        signing(put("manifest.toml", DEEP)),
        "manifest.toml: maximum recursion depth exceeded",
    ),
    "list nested deep": (
        signing(put(EVALUATION, DEEP)),
        "evaluation.toml is not TOML: maximum recursion depth exceeded",
    ),
    "a file too many": (
        signing(put("all-our-patients.csv", b"1\n")),
        "all-our-patients.csv is no file of a package",
    ),
    "booster cut": (
        signing(lambda files: files.update({TREES: files[TREES][:3000]})),
        f"{TREES}: not a booster that can be read",
    ),
    "lines of checksums": (
        with_sums(lambda sums: sums.replace(b"\n", b"\r\n")),
        "SHA256SUMS: is not one checksum and name on every line",
    ),
    "unknown word": (
        signing(in_text("manifest.toml", "max_depth", "max_dept")),
        "manifest.toml: Object contains unknown field `max_dept`",
    ),
    "incomplete list": (
        signing(in_text(EVALUATION, "[questions.ai-act]", "[questions.ai]")),
        "evaluation.toml: questions.ai-act: neither answered nor said to be unanswered",
    ),
    "list of another version": (
        signing(in_text(EVALUATION, '"1.1.0"', '"1.0.0"')),
        "evaluation.toml: version: written for 1.0.0, the manifest says 1.1.0",
    ),
    "booster is none": (
        signing(put("heads/readmission/booster.ubj", b"none")),
        "heads/readmission/booster.ubj",
    ),
    "another example": (
        signing(in_text("examples/01.json", '"risk": 0.', '"risk": 0.9')),
        "01.json: replays",
    ),
    "no numbers": (signing(HEADLESS), "heads/readmission/background.csv"),
    "package as specification": (
        signing(unchanged, kind="specification"),
        "SPECIFICATION.json: is missing",
    ),
    "specification with heads": (
        signing(SPECIFIED, kind="specification"),
        "examples/01.json: no specification holds that",
    ),
    "specification as package": (
        signing(SPECIFIED),
        "SPECIFICATION.json: SIGNATURE.json says kind package",
    ),
    "checksums twice": (
        with_sums(lambda sums: sums * 2),
        "SHA256SUMS: is not one checksum and name on every line",
    ),
    "checksums of a place": (
        with_sums(lambda sums: sums + b"0" * 64 + b"  /x\n"),
        "/x: is missing",
    ),
}


@pytest.mark.parametrize(("tamper", "said"), TAMPERED.values(), ids=TAMPERED.keys())
def test_an_archive_that_was_tampered_with_leaves_nothing_behind(
    archive: bytes, root: Path, tamper: Tamper, said: str
) -> None:
    """Refused with the archive, the file in it and the reason; every folder is as it was."""
    files = unzipped(archive)
    tamper(files)
    before = tree(root.parent)
    with pytest.raises(PackageRefused) as refused:
        let_in(write_archive(files), root)
    assert said in str(refused.value)
    assert tree(root.parent) == before


# ---- any damage at all ----------------------------------------------------------------------


def outcome(content: bytes) -> str | None:
    """The checksum of what came in; None where it was refused and nothing was left behind."""
    with tempfile.TemporaryDirectory() as beside:
        root = Path(beside) / "models"
        root.mkdir()
        try:
            came = let_in(content, root)
        except PackageRefused:
            assert list(Path(beside).rglob("*")) == [root]
            return None
        assert verify_checksums(came.folder) == came.checksum
        return came.checksum


DAMAGE = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@DAMAGE
@given(st.data())
def test_a_changed_byte_is_refused_or_changes_nothing_that_comes_in(
    specification: bytes, data: st.DataObject
) -> None:
    """Nobody reads the zip's own times and versions; whatever is read has to be what was signed."""
    content = bytearray(specification)
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    came = outcome(bytes(content))
    assert came in (None, hashlib.sha256(unzipped(specification)[SUMS]).hexdigest())


@DAMAGE
@given(st.data())
def test_an_archive_cut_short_is_refused(archive: bytes, data: st.DataObject) -> None:
    assert outcome(archive[: data.draw(st.integers(0, len(archive) - 1))]) is None


@DAMAGE
@given(st.binary(max_size=200))
def test_bytes_that_are_no_archive_are_refused(content: bytes) -> None:
    assert outcome(content) is None
    assert outcome(content + b"PK\x05\x06" + bytes(18)) is None


def test_a_changed_byte_of_a_file_of_the_package_is_refused(archive: bytes) -> None:
    """Of a package too, in the middle of what is packed: weights, samples, words."""
    with zipfile.ZipFile(io.BytesIO(archive)) as zipped:
        entries = zipped.infolist()
    for entry in entries:
        content = bytearray(archive)
        content[entry.header_offset + 30 + len(entry.filename) + entry.compress_size // 2] ^= 1
        assert outcome(bytes(content)) is None, entry.filename
