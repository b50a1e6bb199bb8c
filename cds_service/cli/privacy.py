"""`varsel privacy …`: patients' rights over the log, retention, and changes of keys.

Every command names who asks and why, and that is on record before anything is handed out. A CPR
number is read from standard input or typed unseen, never from the command line, which other
accounts on the machine can read.
"""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args

import msgspec
import typer

from cds_service.cli.audited import LONGEST_NAME, LONGEST_WHY
from cds_service.cli.console import JSON_HELP, folder_to_write, print_json
from cds_service.db.log import PredictionLog
from cds_service.db.patients import (
    Whom,
    count_by_pseudonym,
    decisions_about,
    ids_of,
    is_restricted,
    predictions_of,
    records_of,
)
from cds_service.db.record import entries_about, entries_of_kinds, what_became_of
from cds_service.db.search import utc
from cds_service.errors import BadRequest, SetupError, UnknownService
from cds_service.evidence.replay import whole_record
from cds_service.identities.erasure import (
    LEFT,
    Answer,
    Asking,
    decide,
    destroy,
    erase,
    patient_by_cpr,
    patient_of,
    replay_erasures,
    require_known,
    subject_of,
)
from cds_service.identities.personal import seen_by_an_officer
from cds_service.identities.privacy import Privacy
from cds_service.identities.reads import OF_MANY, Read, in_words, reads_of_many, reads_of_one
from cds_service.identities.reads import Patient as ReadPatient
from cds_service.identities.reads import as_json as read_as_json
from cds_service.identities.retention import (
    MOST_MONTHS,
    months_before,
    read_retention,
    take_what_is_due,
    what_is_due,
)
from cds_service.identities.rotation import rotate_pseudonyms, rotate_seals
from cds_service.identities.subject_access import Found, Language, as_text, everything
from cds_service.service import all_folders, open_log
from cds_service.settings import Settings, read_settings
from cds_service.wording import printable
from fhir_adapters.reading.cpr import cpr_number
from models.errors import PackageRefused
from models.manifest import Manifest, read_manifest
from models.registry import folder_of

LONGEST_VALUE = 60
"""Characters of a value that are printed; `--json` has all of it."""
LANGUAGES = ("da", "en")

Who = Annotated[str, typer.Option(help="Who asks; it goes on record")]
Why = Annotated[str, typer.Option(help="Why; it goes on record")]
Organisation = Annotated[
    str, typer.Option(help="The organisation, as callers are registered under")
]
Cpr = Annotated[
    str | None,
    typer.Option(help="`-`: a CPR number is read from standard input, or asked for on a terminal"),
]
Patient = Annotated[str | None, typer.Option(help="The patient's id on a FHIR server")]
FhirBase = Annotated[str | None, typer.Option(help="That server, as calls name it (fhirServer)")]
Json = Annotated[bool, typer.Option("--json", help=JSON_HELP)]


class _Opened(NamedTuple):
    settings: Settings
    log: PredictionLog
    privacy: Privacy


@contextmanager
def _opened() -> Iterator[_Opened]:
    settings = read_settings()
    with open_log(settings) as log:
        yield _Opened(settings, log, Privacy(settings.keys))


# ---- one patient ----------------------------------------------------------------------------


def find(
    organisation: Organisation,
    who: Who,
    why: Why,
    cpr: Cpr = None,
    patient: Patient = None,
    fhir_base: FhirBase = None,
    as_json: Json = False,
) -> None:
    """Say under which pseudonyms a patient stands in the log, with how many predictions."""
    asking = _asking(organisation, who, why)
    named = _named(cpr, patient, fhir_base)
    with _opened() as here:
        whom = _whom(here, asking, named)
        if whom.pseudonyms:
            here.log.audit(asking.entry("find", subject_of(whom))).result()
        counted = count_by_pseudonym(here.log.engine, whom)
        restricted = is_restricted(here.log.engine, whom)
    found = [
        {"pseudonym": one, "key": whom.pseudonyms[one], "predictions": n}
        for one, n in counted.items()
    ]
    total = sum(counted.values())
    if as_json:
        print_json({"predictions": total, "restricted": restricted, "pseudonyms": found})
        return
    for one in found:
        print(f"{one['pseudonym']}  key {one['key']}  {one['predictions']} predictions")
    print(f"{total} predictions{'; reading is restricted' if restricted else ''}")


def access(
    organisation: Organisation,
    who: Who,
    why: Why,
    out: Annotated[Path, typer.Option(help="Folder to write access.json and access.txt to")],
    cpr: Cpr = None,
    patient: Patient = None,
    fhir_base: FhirBase = None,
    language: Annotated[str, typer.Option(help="Of the text: da or en")] = "da",
    as_json: Json = False,
) -> None:
    """Write everything the log holds about one patient to files only their owner can read.

    It opens the vault: identities and references stand in the files.
    """
    if language not in LANGUAGES:
        raise BadRequest("da or en", field="--language")
    asking = _asking(organisation, who, why)
    named = _named(cpr, patient, fhir_base)
    with _opened() as here:
        whom = require_known(_whom(here, asking, named))
        count = len(ids_of(here.log.engine, whom))
        entry = asking.entry("access", subject_of(whom), predictions=count, vault="opened")
        here.log.audit(entry).result()
        content = _everything(here, whom)
        manifests = _manifests_of(here.settings, content["predictions"])
    spoken: Language = "da" if language == "da" else "en"
    text = as_text(content, here.settings.zone, spoken, manifests=manifests)
    folder = folder_to_write(out)
    data = msgspec.json.format(msgspec.json.encode(content), indent=2)
    written = {"access.json": data + b"\n", "access.txt": text.encode()}
    for name, body in written.items():
        _write_new(folder / name, body)
    files = [str(folder / name) for name in written]
    if as_json:
        print_json({"predictions": len(content["predictions"]), "files": files})
    else:
        print(f"{len(content['predictions'])} predictions: {', '.join(files)}")


def reads(
    organisation: Organisation,
    who: Who,
    why: Why,
    cpr: Cpr = None,
    patient: Patient = None,
    fhir_base: FhirBase = None,
    as_json: Json = False,
) -> None:
    """Say who read or handled a patient's predictions: one by one, in lists, and in exports.

    What the predictions say is not read, and the vault stays shut but to find a CPR number.
    """
    asking = _asking(organisation, who, why)
    named = _named(cpr, patient, fhir_base)
    with _opened() as here:
        whom = require_known(_whom(here, asking, named))
        here.log.audit(asking.entry("find reads", subject_of(whom))).result()
        rows = predictions_of(here.log.engine, whom)
        ids = [row["prediction_id"] for row in rows]
        entries = entries_about(here.log.engine, whom.organisation, ids)
        found = [*reads_of_one(entries), *_lists_and_exports(here, whom, rows)]
    found.sort(key=lambda one: utc(one.entry["at"]))
    if as_json:
        print_json({"predictions": len(ids), "reads": [read_as_json(one) for one in found]})
        return
    for one in found:
        print(printable(in_words(one)))
    print(f"{len(found)} reads of {len(ids)} predictions")


def erase_patient(
    organisation: Organisation,
    decision: Annotated[str, typer.Option(help=", ".join(get_args(Answer)))],
    ground: Annotated[str, typer.Option(help="On which ground; it goes on record")],
    who: Who,
    cpr: Cpr = None,
    patient: Patient = None,
    fhir_base: FhirBase = None,
    as_json: Json = False,
) -> None:
    """Put a decision about a patient's data on record, and do what it says.

    granted: payloads, identities, data keys and pseudonyms are deleted. refused: nothing is; a
    restriction ends. restricted: nothing is, and nobody may read them.
    """
    answer = next((known for known in get_args(Answer) if known == decision), None)
    if answer is None:
        raise BadRequest(f"one of {', '.join(get_args(Answer))}", field="--decision")
    asking = _asking(organisation, who, ground, why_is="--ground")
    named = _named(cpr, patient, fhir_base)
    with _opened() as here:
        register = here.settings.erasures
        whom = require_known(_whom(here, asking, named))
        taken = 0
        if answer == "granted":
            decision_id, taken = erase(here.log, register, asking, whom)
        else:
            decision_id = decide(here.log, asking, whom, answer)
    if as_json:
        print_json({"decision": answer, "id": decision_id, "predictions": taken})
        return
    print(f"{answer}: decision {decision_id}")
    if answer == "granted":
        print(f"{taken} predictions erased. {LEFT}")


def destroy_keys(
    organisation: Organisation,
    who: Who,
    why: Why,
    cpr: Cpr = None,
    patient: Patient = None,
    fhir_base: FhirBase = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation")] = False,
    as_json: Json = False,
) -> None:
    """Destroy the data keys of a patient, or of a whole organisation where no patient is named.

    What is sealed under them can never be opened again, nor told by pseudonym.
    """
    asking = _asking(organisation, who, why)
    named = _named(cpr, patient, fhir_base) if cpr or patient or fhir_base else None
    _confirm(organisation, yes=yes)
    with _opened() as here:
        register = here.settings.erasures
        whom = require_known(_whom(here, asking, named)) if named else None
        decision_id, keys = destroy(here.log, register, asking, whom)
    if as_json:
        print_json({"id": decision_id, "data_keys": keys})
    else:
        print(f"{keys} data keys destroyed: decision {decision_id}")


def show(
    prediction_id: Annotated[str, typer.Argument(metavar="ID", help="The prediction's id")],
    who: Who,
    why: Why,
    as_json: Json = False,
) -> None:
    """Say what each column of a prediction holds and which are personal; the vault stays shut."""
    with _opened() as here:
        row = here.log.read(prediction_id, restricted_too=True)
        if row is None:
            raise UnknownService("no prediction of that id", field="ID")
        asking = _asking(row["organisation"], who, why)
        here.log.audit(asking.entry("read", prediction_id, command="privacy show")).result()
        record = whole_record({**row}, what_became_of(here.log.engine, prediction_id))
    columns = seen_by_an_officer(record)
    if as_json:
        reads = {name: record[name] for name in ("audit", "feedback", "undelivered")}
        print_json({"columns": [one._asdict() for one in columns], **reads})
        return
    for one in columns:
        print(f"{f'{one.table}.{one.column}':44} {one.kind:16} {_short(one.value)}")
    print("read or handled by:")
    for entry in record["audit"]:
        said = f"{entry['at']} {entry['who']} ({entry['role']}) {entry['what']}: {entry['why']}"
        print(printable(f"  {said}"))


# ---- all patients ---------------------------------------------------------------------------


def retention(
    who: Who,
    why: Why,
    organisation: Annotated[
        str | None, typer.Option(help="Of one organisation; else all of VARSEL_RETENTION")
    ] = None,
    months: Annotated[
        int | None, typer.Option(help="Keep so many months; else as VARSEL_RETENTION says")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count, and take nothing away")
    ] = False,
    as_json: Json = False,
) -> None:
    """Take away what predictions older than so many months say, and whom they are about."""
    now = datetime.now(UTC)
    said = {}
    with _opened() as here:
        kept = _kept_months(here.settings, organisation, months)
        for one, keeping in kept.items():
            asking = _asking(one, who, why)
            before = months_before(now, keeping)
            due = what_is_due(here.log, one, before)
            said[one] = {"months_kept": keeping, "before": before, "due": asdict(due)}
            if not dry_run:
                taken = take_what_is_due(here.log, asking, before, planned=due)
                said[one]["taken"] = asdict(taken)
    if as_json:
        print_json({"dry_run": dry_run, "organisations": said})
        return
    for one, found in said.items():
        _print_retention(one, found)


def _print_retention(organisation: str, found: dict[str, Any]) -> None:
    due = found["due"]
    print(printable(f"{organisation}: older than {found['before']:%Y-%m-%d}"))
    for month, n in due["months"].items():
        print(f"  {month}  {n} predictions")
    print(f"  {due['feedback']} of feedback, {due['undelivered']} not delivered")
    if due["restricted"]:
        print(f"  {due['restricted']} predictions stay: reading them is restricted")
    if "taken" in found:
        print(f"  {found['taken']['predictions']} predictions taken away")
    else:
        print("  dry run: nothing was taken away")


def rotate(
    what: Annotated[str, typer.Argument(metavar="KEYS", help="pseudonyms or seals")],
    who: Who,
    why: Why,
    as_json: Json = False,
) -> None:
    """Carry a change of keys through the log, until the old key is not needed.

    pseudonyms: opens the vault and computes every pseudonym anew. seals: wraps the data keys anew.
    """
    work = {"pseudonyms": rotate_pseudonyms, "seals": rotate_seals}.get(what)
    if work is None:
        raise BadRequest("pseudonyms or seals", field="KEYS")
    with _opened() as here:
        key = here.privacy.pseudonym_key if what == "pseudonyms" else here.privacy.vault.seal_key
        asking = _asking(here.settings.organisation, who, why)
        here.log.audit(asking.entry(f"rotate {what}", None, key=key, vault="opened")).result()
        done = work(here.log, here.privacy)
    if as_json:
        print_json({"key": key, **done})
    else:
        print(f"key {key}: " + ", ".join(f"{n} {name}" for name, n in done.items()))


def replay(who: Who, why: Why, as_json: Json = False) -> None:
    """Erase again what a restored backup brought back, from the register of erasures."""
    with _opened() as here:
        for name, value in (("--who", who), ("--why", why)):
            _checked(name, value)
        done = replay_erasures(here.log, here.settings.erasures, who, why)
    if as_json:
        print_json({"replayed": done})
        return
    for decision_id, taken in done.items():
        print(f"{decision_id}: {taken}")
    print(f"{len(done)} decisions done again")


# ---- who and whom ---------------------------------------------------------------------------


class _Named(NamedTuple):
    """How a patient was named: by CPR number, or by id and server."""

    cpr: str | None
    patient: str
    fhir_base: str


def _named(cpr: str | None, patient: str | None, fhir_base: str | None) -> _Named:
    """Raises BadRequest where a patient is named in no way or in two."""
    if cpr is not None and patient is None and fhir_base is None:
        return _Named(_read_cpr(cpr), "", "")
    if cpr is None and patient and fhir_base:
        return _Named(None, patient, fhir_base)
    raise BadRequest("a patient is named by `--cpr -`, or by --patient and --fhir-base")


def _read_cpr(given: str) -> str:
    """The CPR number typed or piped in. Raises BadRequest, never with what was given."""
    if given != "-":
        raise BadRequest(
            "only `-`: a CPR number on the command line can be read by others", field="--cpr"
        )
    typed = getpass.getpass("CPR: ") if sys.stdin.isatty() else sys.stdin.readline()
    number = cpr_number(typed)
    if number is None:
        raise BadRequest("not a CPR number: six digits and four more characters", field="--cpr")
    return number


def _whom(here: _Opened, asking: Asking, named: _Named) -> Whom:
    if named.cpr is not None:
        return patient_by_cpr(here.log, here.privacy, asking, named.cpr)
    return patient_of(
        here.privacy,
        asking.organisation,
        fhir_base=named.fhir_base.rstrip("/"),
        patient=named.patient,
    )


def _asking(organisation: str, who: str, why: str, *, why_is: str = "--why") -> Asking:
    for name, value in (("--organisation", organisation), ("--who", who), (why_is, why)):
        _checked(name, value)
    return Asking(organisation, who, why)


def _checked(name: str, value: str) -> None:
    """Raise BadRequest where what goes on record is empty or longer than the record."""
    longest = LONGEST_WHY if name in ("--why", "--ground") else LONGEST_NAME
    if not value.strip():
        raise BadRequest("is empty", field=name)
    if len(value) > longest:
        raise BadRequest(f"is longer than {longest} characters", field=name)


def _confirm(organisation: str, *, yes: bool) -> None:
    """Raise BadRequest unless whoever types knows which organisation they destroy keys of."""
    if not yes and input(f"Type {organisation} to destroy keys for ever: ") != organisation:
        raise BadRequest("not confirmed; nothing was destroyed")


def _kept_months(
    settings: Settings, organisation: str | None, months: int | None
) -> dict[str, int]:
    """Months by organisation. Raises BadRequest or SetupError where nobody said how many."""
    if months is not None:
        if organisation is None:
            raise BadRequest("--months is of one --organisation", field="--organisation")
        if not 1 <= months <= MOST_MONTHS:
            raise BadRequest(f"1 to {MOST_MONTHS}", field="--months")
        return {organisation: months}
    named = read_retention(settings.retention or "")
    if organisation is None and named:
        return named
    if organisation in named:
        return {organisation: named[organisation]}
    raise SetupError("VARSEL_RETENTION names no months for this, and no --months are given")


# ---- files and print ------------------------------------------------------------------------


def _everything(here: _Opened, whom: Whom) -> dict[str, Any]:
    """All there is about a patient, the vault opened."""
    engine = here.log.engine
    found = [
        Found({**row}, what_became_of(engine, row["prediction_id"]), here.privacy.unseal(row))
        for row in records_of(engine, whom)
    ]
    sent = {one.references["cpr"] for one in found if one.references.get("cpr")}
    by_number = [here.privacy.pseudonyms(whom.organisation, "CPR", cpr) for cpr in sorted(sent)]
    rows = [one.row for one in found]
    subjects = [*whom.pseudonyms, *(one for made in by_number for one in made.values())]
    searches = [entry for one in subjects for entry in what_became_of(engine, one)["audit"]]
    return everything(
        whom.organisation,
        found,
        decisions=decisions_about(engine, whom),
        searches=searches,
        reads=_lists_and_exports(here, whom, rows),
    )


def _manifests_of(settings: Settings, records: Sequence[dict[str, Any]]) -> dict[str, Manifest]:
    """The manifests of the packages that predicted, by checksum, as far as they are here and not
    refused: the rules of today may be other than those a package was admitted by.
    """
    folders = all_folders(settings)
    manifests = {}
    for checksum in sorted({record["package_checksum"] for record in records}):
        folder = folder_of(folders, checksum)
        if folder is not None:
            with suppress(PackageRefused):
                manifests[checksum] = read_manifest(folder)
    return manifests


def _lists_and_exports(here: _Opened, whom: Whom, rows: Sequence[Mapping[str, Any]]) -> list[Read]:
    """Reads of many that predictions of a patient, by their rows, were among."""
    if not rows:
        return []
    engine, since = here.log.engine, utc(min(row["computed_at"] for row in rows))
    entries = entries_of_kinds(engine, whom.organisation, OF_MANY, since=since)
    known = ReadPatient(rows, whom.pseudonyms, decisions_about(engine, whom))
    return list(reads_of_many(entries, known))


def _write_new(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read. Raises SetupError where there is one already."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except OSError as error:
        raise SetupError(f"--out {path}: {error.strerror}") from None


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return printable(text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…")
