"""The rules of the house as small checks, each telling why it is there.

They read the repository, not the running product: what a reader may rely on in the code and what
the documents promise. Types, style and import contracts are checked by `make check`.
"""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest
from typer import Typer
from typer.testing import CliRunner

from cds_service import __version__
from cds_service.cli import app as command_line
from cds_service.db.tables import metadata
from cds_service.settings import Settings
from fhir_adapters.features.language import FeatureStatus
from fhir_adapters.outcomes import OutcomeState
from models.manifest import read_manifest
from models.prediction import Status

ROOT = Path(__file__).parents[2]
ROOMS = ("fhir_adapters", "models", "validation", "monitoring", "cds_service")
TOP_LEVEL = {*ROOMS, "openapi", "tests", "docs", ".ci"}
LONGEST_MODULE = 600
CODE_THAT_RUNS_ON_READING = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
MAY_CATCH_ALL = {
    "cds_service/app.py": "the one handler of what nobody foresaw",
    "cds_service/assess.py": "a model that fails must not take the alarms with it",
    "cds_service/db/commits.py": "one bad row must not end the writer of all others",
}
VENDORED = ("cds_service/static/swagger-ui",)
DEMO_REQUEST = "cds_service/demo/hook-request.json"


@cache
def repository_files() -> tuple[Path, ...]:
    """Every file that is in the repository or about to be, as a relative path."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    names = sorted(name for name in listed.split("\0") if name and (ROOT / name).is_file())
    return tuple(Path(name) for name in names)


def modules(*folders: str) -> Iterator[Path]:
    """The Python modules of some folders."""
    return (p for p in repository_files() if p.suffix == ".py" and p.parts[0] in folders)


def texts() -> Iterator[tuple[Path, str]]:
    """The text files written by us, with their content."""
    for path in repository_files():
        if path.suffix in (".ubj", ".png", ".gz") or str(path).startswith(VENDORED):
            continue
        yield path, read(path)


def read(path: Path | str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


@cache
def syntax_of(path: Path) -> ast.Module:
    return ast.parse(read(path))


# ---- the code -------------------------------------------------------------------------------


def test_no_module_reads_a_format_that_can_run_code() -> None:
    """A model is data. Unpickling a file somebody sent is running a program somebody sent."""
    found = [
        f"{path}: {name}"
        for path in modules(*ROOMS)
        for name in imported(syntax_of(path))
        if name.split(".")[0] in CODE_THAT_RUNS_ON_READING
    ]
    assert found == []


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_nothing_catches_every_error_but_the_places_that_say_why() -> None:
    """A handler that swallows everything turns a fault into an empty list of cards, and an empty
    list reads as "no risk". Catch what can be named; the rest reaches the one handler."""
    found = {
        str(path)
        for path in modules(*ROOMS)
        for node in ast.walk(syntax_of(path))
        if isinstance(node, ast.ExceptHandler) and catches_all(node)
    }
    assert found <= set(MAY_CATCH_ALL)


def catches_all(handler: ast.ExceptHandler) -> bool:
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(
        kind is None or (isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException"))
        for kind in caught
    )


def test_every_module_says_what_lives_in_it() -> None:
    """A reader who opens a file wants to know in a line whether they are in the right one."""
    silent = [str(p) for p in modules(*ROOMS, "tests") if not ast.get_docstring(syntax_of(p))]
    assert silent == []


def test_no_module_outgrows_one_reading() -> None:
    """Beyond some six hundred lines a file has two subjects, and nobody reads either."""
    long = {
        str(path): lines
        for path in modules(*ROOMS, "tests")
        if (lines := read(path).count("\n")) > LONGEST_MODULE
    }
    assert long == {}


# ---- the repository -------------------------------------------------------------------------


def test_the_repository_has_no_room_without_a_name() -> None:
    """A new top-level folder is a decision, and decisions stand in docs/adr/."""
    folders = {path.parts[0] for path in repository_files() if len(path.parts) > 1}
    assert folders <= TOP_LEVEL


@pytest.mark.parametrize("room", ROOMS)
def test_the_documents_know_every_room(room: str) -> None:
    """The map of the house is only worth its paper if it shows every room."""
    for document in ("README.md", "docs/architecture.md"):
        assert f"`{room}/`" in read(document), document


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    """What works only in one checkout does not work."""
    places = re.compile(r"\.\./" + r"shared|/(?:work|home|root|Users)/[a-z]|[A-Z]:\\Users")
    found = [f"{path}: {hit.group()}" for path, text in texts() if (hit := places.search(text))]
    assert found == []


def test_no_file_leans_on_a_document_that_is_not_here() -> None:
    """A reference the reader cannot follow is noise: every `docs/` page named in a file exists, and
    sources are named so that they can be found."""
    page = re.compile(r"(?<![\w/.-])docs/[\w./-]+\.(?:md|png)")
    lost = {
        f"{path}: {name}"
        for path, text in texts()
        for name in page.findall(text)
        if not (ROOT / name).is_file()
    }
    private = re.compile(r"\b(?:CLINICAL|DANISH|STYLE|UX)(?:\.md|:(?! Final)| notes| \d)")
    lost |= {f"{path}: {hit.group()}" for path, text in texts() if (hit := private.search(text))}
    assert "\n".join(sorted(lost)) == ""


def test_every_module_a_document_names_exists() -> None:
    """Who follows a manual into the code should find the door where the manual says it is."""
    module = re.compile(rf"`((?:{'|'.join(ROOMS)})/[\w/.-]+\.(?:py|toml|csv|json))`")
    lost = [
        f"{path}: {name}"
        for path in documents()
        for name in module.findall(read(path))
        if not (ROOT / name).is_file()
    ]
    assert lost == []


def test_every_document_stands_in_the_index() -> None:
    """A page nobody can find was written for nobody."""
    index = read("docs/README.md")
    pages = [str(p.relative_to("docs")) for p in documents() if p.parts[0] == "docs"]
    assert [page for page in pages if page != "README.md" and f"({page})" not in index] == []


def documents() -> Iterator[Path]:
    """The pages written for readers."""
    return (p for p in repository_files() if p.suffix == ".md" and p.parts[0] != "tests")


def test_every_link_between_documents_leads_somewhere() -> None:
    """A dead link in a manual is found by the reader who needed it."""
    dead = [
        f"{path}: {target}"
        for path in documents()
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", read(path))
        if "://" not in target and not (ROOT / path.parent / target).exists()
    ]
    assert dead == []


@pytest.mark.parametrize("target", ["check", "test"])
def test_continuous_integration_runs_what_a_developer_runs(target: str) -> None:
    """If CI had its own commands, `make test` could be green on a broken main."""
    assert f"make {target}" in read(".ci/run").splitlines()


# ---- dependencies ---------------------------------------------------------------------------

REQUIREMENTS = sorted(path.name for path in ROOT.glob("requirements*.txt"))


@pytest.mark.parametrize("file", REQUIREMENTS)
def test_every_package_is_pinned_by_version_and_hash(file: str) -> None:
    """What was tested is what is installed, byte for byte, wherever it comes from."""
    entries = re.split(r"\n(?=\S)", re.sub(r"(?m)^\s*#.*\n?", "", read(file)).strip())
    loose = [e.split()[0] for e in entries if "==" not in e or "--hash=sha256:" not in e]
    assert loose == []


@pytest.mark.parametrize("file", REQUIREMENTS)
def test_no_requirements_file_names_an_index(file: str) -> None:
    """A hospital installs from its own mirror; the address is pip's business, not ours."""
    assert not re.search(
        r"://|^--?(?:extra-)?(?:index|find-links|i\b|f\b)", read(file), re.MULTILINE
    )


def direct_dependencies() -> set[str]:
    project = tomllib.loads(read("pyproject.toml"))
    groups = [
        project["project"]["dependencies"],
        *project["project"]["optional-dependencies"].values(),
        *project["dependency-groups"].values(),
    ]
    return {re.split(r"[<>=!~;\[ ]", entry)[0] for group in groups for entry in group}


def test_every_dependency_says_why_it_is_here() -> None:
    """Each is code of others that runs beside patient data: reason, licence and upkeep are known.
    And none stands in the list that has gone."""
    chapter = read("docs/dependencies.md").split("## Considered")[0]
    listed = set(re.findall(r"(?m)^\| `([^`]+)` \|", chapter))
    assert listed == direct_dependencies() | {"uv", "swagger-ui-dist"}


def test_the_image_has_no_more_than_serving_needs() -> None:
    """What is not in the image cannot be attacked in it: no tools, no extras, no root."""
    lines = read("Dockerfile").splitlines()
    installed = [line for line in lines if "install" in line and "requirements" in line]
    assert installed
    assert all("requirements.txt" in line and "--require-hashes" in line for line in installed)
    users = [line.split()[1] for line in lines if line.startswith("USER")]
    assert users
    assert all(re.fullmatch(r"[1-9]\d*(:[1-9]\d*)?", user) for user in users)


# ---- what the documents promise -------------------------------------------------------------


def commands(group: Typer = command_line, typed: str = "varsel") -> set[str]:
    """Every command, as it is typed."""
    own = {f"{typed} {command.name}" for command in group.registered_commands}
    for inner in group.registered_groups:
        own |= commands(inner.typer_instance or Typer(), f"{typed} {inner.name}")
    return own


def test_every_command_the_readme_names_exists() -> None:
    """The first thing a stranger types is copied from the README."""
    known = commands()
    groups = {command.rsplit(" ", 1)[0] for command in known if command.count(" ") == 2}
    named = set(
        re.findall(r"(?<![\w/-])varsel [a-z][a-z-]+(?: [a-z][a-z-]+)?", code_in("README.md"))
    )
    unknown = [
        name
        for name in named
        if name not in known and name not in groups and name.rsplit(" ", 1)[0] not in known - groups
    ]
    assert unknown == []


def code_in(document: str) -> str:
    text = read(document)
    return "\n".join(
        re.findall(r"```[a-z]*\n(.*?)```", text, re.DOTALL) + re.findall(r"`[^`\n]+`", text)
    )


def test_the_readme_names_every_command() -> None:
    """A command nobody is told of is a command nobody uses."""
    table = code_in("README.md")
    assert [c for c in sorted(commands()) if f"{c} " not in table and f"{c}`" not in table] == []


def test_the_readme_begins_with_the_two_commands() -> None:
    """One to see it, one to trust it."""
    top = read("README.md")[:2500]
    assert "make run" in top
    assert "make test" in top


def test_the_readme_shows_what_the_command_prints() -> None:
    """A picture that is no longer true is worse than none. Printed something else on purpose? Then
    put what `varsel score` prints into the README."""
    typed = ["score", str(ROOT / DEMO_REQUEST), "--as-of", "latest", "--language", "en"]
    printed = CliRunner().invoke(command_line, typed, catch_exceptions=False).stdout
    card = printed.split("\nprediction ")[0].strip()
    assert card in read("README.md")


def test_the_changelog_knows_this_version() -> None:
    """Who upgrades reads what changed for them first."""
    assert f"({__version__})" in read("CHANGELOG.md") or f"## {__version__}" in read("CHANGELOG.md")


@pytest.mark.parametrize(
    "word", sorted({*get_args(FeatureStatus), *get_args(Status), *get_args(OutcomeState)})
)
def test_the_glossary_explains_every_status(word: str) -> None:
    """ "not-obtained" and "missing" are two things, and the difference decides what a clinician
    may conclude."""
    assert f"`{word}`" in read("docs/glossary.md")


def test_the_glossary_explains_every_column_of_the_log() -> None:
    """Who asks for the log's content must find what each column means, and in which form it holds
    what it holds."""
    page = read("docs/privacy.md")
    names = [(t.name, c.name) for t in metadata.sorted_tables for c in t.columns]
    assert [f"{t}.{c}" for t, c in names if f"`{t}`" not in page or f"`{c}`" not in page] == []


def test_secret_settings_are_named_where_privacy_is_told() -> None:
    """A key nobody knows of is a key nobody guards."""
    page = read("docs/privacy.md")
    secrets = [n for n, f in Settings.model_fields.items() if "Secret" in str(f.annotation)]
    assert secrets
    assert [name for name in secrets if f"VARSEL_{name.upper()}" not in page] == []


@pytest.mark.parametrize("folder", sorted(p.parent for p in ROOT.glob("models/*/manifest.toml")))
def test_every_feature_of_a_model_stands_in_its_specification(folder: Path) -> None:
    """A clinician signs off the specification, not the manifest."""
    manifest = read_manifest(folder)
    page = read(f"docs/models/{folder.name}.md")
    assert [f.name for f in manifest.features if f"`{f.name}`" not in page] == []


def decisions() -> list[Path]:
    return sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))


def test_decisions_are_numbered_without_gaps() -> None:
    """A missing number is a decision somebody took away."""
    numbers = [int(path.name[:4]) for path in decisions()]
    assert numbers
    assert numbers[0] == 1
    assert all(after == before + 1 for before, after in pairwise(numbers))


@pytest.mark.parametrize("path", decisions(), ids=lambda path: path.stem)
def test_a_decision_says_what_it_costs_and_what_was_measured(path: Path) -> None:
    """Without cost and figures a decision cannot be overturned, only believed. One page each."""
    text = path.read_text(encoding="utf-8")
    for heading in ("## Context", "## Choice", "## What it costs", "## What was measured"):
        assert heading in text
    assert text.count("\n") <= 70
