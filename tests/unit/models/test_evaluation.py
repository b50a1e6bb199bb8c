"""The evaluation list: complete, honest, and readable in both languages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from models.errors import PackageRefused
from models.evaluation import (
    EVALUATION,
    QUESTIONS,
    evaluation_text,
    parse_evaluation,
    read_evaluation,
)
from models.manifest import Manifest, read_manifest
from models.registry import BUNDLED

NAME = "readmission-30d"
BUNDLED_FOLDERS = sorted(path.parent for path in BUNDLED.glob("*/manifest.toml"))
APPROVAL = '[{ who = "A. Berg", role = "overlæge", what = "formål", on = 2026-11-20 }]'


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return read_manifest(BUNDLED / NAME)


@pytest.fixture(scope="module")
def written() -> str:
    """The bundled list as it is written."""
    return (BUNDLED / NAME / EVALUATION).read_text(encoding="utf-8")


def without_table(text: str, name: str) -> str:
    """The list without one of its tables."""
    found, count = re.subn(rf"(?ms)^\[{re.escape(name)}\]\n.*?(?=^\[|\Z)", "", text)
    assert count == 1
    return found


@pytest.mark.parametrize("folder", BUNDLED_FOLDERS, ids=lambda folder: folder.name)
def test_the_bundled_lists_are_complete_and_claim_nothing(folder: Path) -> None:
    """Synthetic, approved by nobody, route and role unanswered, not for clinical use."""
    manifest = read_manifest(folder)
    found = read_evaluation(folder, manifest)
    assert found.approvals == []
    assert found.not_approved is not None
    assert "Ikke til klinisk brug" in found.intended_purpose.da
    assert "Not for clinical use" in found.intended_purpose.en
    for question in ("medical-device", "ai-act", "data-protection", "responsibility"):
        assert found.questions[question].status == "not-answered"


CHANGES: list[tuple[str, str, str]] = [
    ("schema_version = 1", "schema_version = 2", "schema_version: 2 is not spoken here"),
    ('version = "1.0.0"', 'version = "0.9.0"', "version: written for 0.9.0, the manifest says 1."),
    ("approvals = []\n", "", "missing required field `approvals`"),
    (
        "approvals = []",
        f"approvals = {APPROVAL}",
        "not_approved: said although there are approvals",
    ),
    (
        'reason = "palliative"',
        'reason = "paliative"',
        "exclusions: palliative, which the manifest's",
    ),
    ('status = "not-answered"', 'status = "unknown"', "Invalid enum value 'unknown'"),
    ("[questions.harm]", "[questions.harms]", "questions.harm: neither answered nor said to be un"),
    ("[intended_purpose]", "[purpose]", "unknown field `purpose`"),
    ("schema_version", "schema version", "is not TOML"),
]


@pytest.mark.parametrize(("old", "new", "said"), CHANGES)
def test_a_list_that_is_not_complete_is_refused_with_the_field(
    manifest: Manifest, written: str, old: str, new: str, said: str
) -> None:
    assert old in written
    with pytest.raises(PackageRefused) as refused:
        parse_evaluation(written.replace(old, new, 1).encode(), manifest)
    assert refused.value.fault.startswith(EVALUATION)
    assert said in refused.value.fault


@pytest.mark.parametrize("name", ["intended_purpose", "population", "not_approved"])
def test_a_part_that_is_left_out_is_named(manifest: Manifest, written: str, name: str) -> None:
    with pytest.raises(PackageRefused, match=name):
        parse_evaluation(without_table(written, name).encode(), manifest)


@pytest.mark.parametrize("name", sorted(QUESTIONS))
def test_every_question_has_to_be_taken_a_stand_on(
    manifest: Manifest, written: str, name: str
) -> None:
    """ "Not answered" is a stand; silence is none."""
    with pytest.raises(PackageRefused, match=f"questions.{name}: neither answered"):
        parse_evaluation(without_table(written, f"questions.{name}").encode(), manifest)


def test_a_text_left_empty_is_named(manifest: Manifest, written: str) -> None:
    start = written.index("da = ", written.index("[population]"))
    empty = written[:start] + 'da = " "\n' + written[written.index("en = ", start) :]
    with pytest.raises(PackageRefused, match="population: empty in Danish or English"):
        parse_evaluation(empty.encode(), manifest)


def test_no_limit_and_nobody_excluded_are_not_believed(manifest: Manifest, written: str) -> None:
    for table in ("known_limits", "exclusions"):
        none = re.sub(rf"(?ms)^\[\[{table}\]\]\n.*?(?=^\[|\Z)", "", written)
        none = none.replace("approvals = []", f"approvals = []\n{table} = []")
        with pytest.raises(PackageRefused, match=f"{table}: "):
            parse_evaluation(none.encode(), manifest)


def test_an_approval_says_who_in_which_role_what_and_when(manifest: Manifest, written: str) -> None:
    approved = without_table(written, "not_approved")
    found = parse_evaluation(
        approved.replace("approvals = []", f"approvals = {APPROVAL}").encode(), manifest
    )
    text = evaluation_text(found, manifest, "da")
    assert "- 2026-11-20: A. Berg, overlæge: formål" in text
    assert "Ingen har godkendt den" not in text
    nobody = APPROVAL.replace("A. Berg", "")
    with pytest.raises(PackageRefused, match=r"approvals\.1\.who: empty"):
        parse_evaluation(
            approved.replace("approvals = []", f"approvals = {nobody}").encode(), manifest
        )


def test_a_file_that_is_no_text_or_not_there_is_named(manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(PackageRefused, match=r"evaluation\.toml is missing"):
        read_evaluation(tmp_path, manifest)
    with pytest.raises(PackageRefused, match=r"evaluation\.toml is not UTF-8"):
        parse_evaluation(b"\xff", manifest)


PAGES = {
    "da": """\
# Vurdering: Akut genindlæggelse (readmission-30d 1.0.0)
- Virkelige patienter: modellen er kun til demonstration (modellen kan ikke selv se det)
- Patienter under 18 år
  Ikke besvaret. Der er ikke udpeget nogen klinisk ansvarlig eller driftsansvarlig.
  Ingen. Modellen er ikke afprøvet på patienter.""",
    "en": """\
# Evaluation: Acute readmission (readmission-30d 1.0.0)
- Real patients: the model is for demonstration only (the model cannot see to this by itself)
- Patients under 18
  Not answered. Nobody has been named as responsible, clinically or for operation.
  None. The model has not been tried on patients.""",
}


@pytest.mark.parametrize("language", sorted(PAGES))
def test_the_list_reads_as_a_page(manifest: Manifest, written: str, language: str) -> None:
    """Every question, its answer, and what the model cannot see to by itself."""
    text = evaluation_text(parse_evaluation(written.encode(), manifest), manifest, language)
    lines = text.splitlines()
    places = [lines.index(line) for line in PAGES[language].splitlines()]
    assert places == sorted(places)
    for question in QUESTIONS.values():
        assert question.text.in_language(language) in text
