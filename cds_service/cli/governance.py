"""`varsel models state`, `record`, `validated`, `withdraw`: who decided what of a model, and why.

`who` is what the operator types: it is stored as given, and never printed in a log.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Annotated, Any, NamedTuple, get_args

import typer
from sqlalchemy import Engine

from cds_service.cli.audited import put_on_record
from cds_service.cli.console import JSON_HELP, print_json
from cds_service.db.audit import AuditEntry
from cds_service.db.governance import (
    SHOWN_COLUMNS,
    Overtaken,
    add_decisions,
    add_record,
    add_validated,
    answered_by,
    logged_checksums,
    read_history,
    shown_by,
    shown_in,
)
from cds_service.errors import BadRequest, SetupError
from cds_service.governance import (
    NEXT,
    Decision,
    History,
    Record,
    Stand,
    Validated,
    Version,
    decide,
    stands_of,
)
from cds_service.local_validation import found_by
from cds_service.service import all_folders, open_database
from cds_service.settings import Settings, read_settings
from cds_service.watch import EVERY_S
from cds_service.wording import printable
from fhir_adapters.clock import to_iso
from models.errors import PackageRefused
from models.evaluation import is_specification
from models.manifest import Manifest, folder_id, read_manifest
from models.package import SUMS, verify_checksums
from models.prediction import AiActRole, RegulatoryRoute
from models.registry import BUNDLED, admit, folder_version

LARGEST_REPORT = 16 * 2**20
"""Bytes of a report that are read; one of `varsel validate` has some hundred thousand."""
LONGEST_NAME, LONGEST_WHY, LONGEST_PURPOSE = 128, 1000, 2000
NOT_MADE = "PDFs and write-backs to the record are not made by this version of Varsel: none to list"

MAY_FOLLOW = (
    "a process that cannot read the database stops after VARSEL_STATES_SECONDS: asked again, this "
    "command lists what came since"
)
STOPPED_AFTER_S = EVERY_S + 1
"""Seconds after which every process that can read the database has stopped a withdrawn model."""
MOST_TRIES = 50
"""How often a withdrawal is tried again where somebody else decides at the same time."""

Json = Annotated[bool, typer.Option("--json", help=JSON_HELP)]
Model = Annotated[str, typer.Argument(help="Model id, or ID@VERSION where there are several")]


def state(
    model: Model,
    new: Annotated[str | None, typer.Argument(metavar="STATE", help=", ".join(NEXT))] = None,
    who: Annotated[str | None, typer.Option(help="Who decided")] = None,
    why: Annotated[str | None, typer.Option(help="Why")] = None,
    replaces: Annotated[
        str | None, typer.Option(help="Version in front until now, which goes on silent")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say where a model's versions stand and why; with a STATE, decide it."""
    settings = read_settings()
    with _database(settings) as engine:
        history = read_history(engine)
        known = _known(model, history)
        if new is None:
            _print_stands(_stands(known, history, settings), history, as_json=as_json)
            return
        version = _only(model, known).version
        chosen = next((known for known in NEXT if known == new), None)
        if chosen is None:
            raise BadRequest(f"one of {', '.join(NEXT)}", field="STATE")
        said = (_said(who, "--who", LONGEST_NAME), _said(why, "--why", LONGEST_WHY))
        if chosen in ("silent", "live") or not version.checksum:
            _require_admission(_sound(model, known), settings)
        siblings = _known(version.model_id, history)
        stands = _stands(siblings, history, settings)
        made = decide(stands, version, chosen, demo=settings.is_demo, replaces=replaces)
        now = datetime.now(UTC)
        decisions = [Decision(*about[:3], what, *said, now) for about, what in made]
        add_decisions(engine, decisions, after=history, organisation=settings.organisation)
    if as_json:
        print_json([_decision(decision) for decision in decisions])
        return
    for decision in decisions:
        print(f"{decision.model_id}@{decision.version} is {decision.state}")
    print("every running process follows within two seconds; one started before this version was")
    print("put here must be started again to serve it")


def record(
    model: Model,
    intended_purpose: Annotated[str, typer.Option(help="What the site uses the model for")],
    regulatory_route: Annotated[str, typer.Option(help=" or ".join(get_args(RegulatoryRoute)))],
    ai_act_role: Annotated[str, typer.Option(help=" or ".join(get_args(AiActRole)))],
    clinical_owner: Annotated[str, typer.Option(help="Who answers for it clinically; shown")],
    who: Annotated[str, typer.Option(help="Who puts this on record")],
    as_json: Json = False,
) -> None:
    """Put on record what a version needs before it may be live outside the demo profile."""
    settings = read_settings()
    route = next((r for r in get_args(RegulatoryRoute) if r == regulatory_route), None)
    role = next((r for r in get_args(AiActRole) if r == ai_act_role), None)
    if route is None:
        raise BadRequest(" or ".join(get_args(RegulatoryRoute)), field="--regulatory-route")
    if role is None:
        raise BadRequest(" or ".join(get_args(AiActRole)), field="--ai-act-role")
    with _database(settings) as engine:
        history = read_history(engine)
        version = _sound(model, _known(model, history))
        made = Record(
            model_id=version.model_id,
            version=version.version,
            checksum=version.checksum,
            intended_purpose=_said(intended_purpose, "--intended-purpose", LONGEST_PURPOSE),
            regulatory_route=route,
            ai_act_role=role,
            clinical_owner=_said(clinical_owner, "--clinical-owner", LONGEST_NAME),
            who=_said(who, "--who", LONGEST_NAME),
            at=datetime.now(UTC),
        )
        add_record(engine, made, after=history, organisation=settings.organisation)
    if as_json:
        print_json(_record(made))
    else:
        print(f"{version}: on record")


def validated(
    model: Model,
    report: Annotated[Path, typer.Option(help="report.json of varsel validate")],
    who: Annotated[str, typer.Option(help="Who vouches for it")],
    as_json: Json = False,
) -> None:
    """Put on record how often cards were right in a local validation; cards state it then."""
    settings = read_settings()
    content = _bytes_of(report)
    with _database(settings) as engine:
        history = read_history(engine)
        version = _sound(model, _known(model, history))
        found = found_by(
            content,
            version,
            _manifest_of(version).heads,
            takes_synthetic=settings.is_demo,
            who=_said(who, "--who", LONGEST_NAME),
            at=datetime.now(UTC),
        )
        add_validated(engine, found, after=history, organisation=settings.organisation)
    if as_json:
        print_json(_validated(found))
    else:
        print(f"{version}: {_said_hit_rate(found)}")
        print("every running process states it on cards and pages within two seconds")


def withdraw(
    model: Model,
    who: Annotated[str, typer.Option(help="Who withdraws it")],
    why: Annotated[str, typer.Option(help="Why")],
    out: Annotated[Path | None, typer.Option(help="File for what was shown: .csv or .json")] = None,
    as_json: Json = False,
) -> None:
    """Retire a version at once, in every process, and list every card it has shown."""
    settings = read_settings()
    if out is not None and out.suffix not in (".csv", ".json"):
        raise BadRequest("a file named .csv or .json", field="--out")
    said = (_said(who, "--who", LONGEST_NAME), _said(why, "--why", LONGEST_WHY))
    with _database(settings) as engine:
        version, here = _withdrawn(model, read_history(engine), engine)
        by = Retiring(settings.organisation, *said)
        new = _retire(engine, version, here, by)
        new += _retire(engine, version, logged_checksums(engine, *version[:2]), by)
        if not as_json:
            print(f"{version} is withdrawn; every running process stops it within two seconds")
        if new:
            time.sleep(STOPPED_AFTER_S)
        _record_listing(engine, version, settings, by)
        _list_what_was_shown(engine, version, settings, out=out, as_json=as_json)


class Retiring(NamedTuple):
    """Under which organisation a withdrawal is on record, who withdraws and why."""

    organisation: str
    who: str
    why: str


def _retire(engine: Engine, version: Version, checksums: list[str], by: Retiring) -> int:
    """Retire a version's files, each of those that are not yet, whoever decides meanwhile of what.

    How many were retired now.
    """
    for _ in range(MOST_TRIES):
        history = read_history(engine)
        done = {d.checksum for d in history.decisions if d[:2] == version[:2] and _retires(d)}
        now = datetime.now(UTC)
        decisions = [
            Decision(*version[:2], checksum, "retired", by.who, by.why, now)
            for checksum in checksums
            if checksum not in done
        ]
        try:
            if decisions:
                add_decisions(engine, decisions, after=history, organisation=by.organisation)
        except Overtaken:
            continue
        return len(decisions)
    raise Overtaken(f"others decided {MOST_TRIES} times meanwhile: withdraw it again")


def _retires(decision: Decision) -> bool:
    return decision.state == "retired"


# ---- what was shown -------------------------------------------------------------------------


def _record_listing(engine: Engine, version: Version, settings: Settings, by: Retiring) -> None:
    """Have it on record, of each organisation, that its predictions are listed."""
    details = {"command": "models withdraw", "model": str(version)}
    entries = [
        AuditEntry(
            name, by.who, "operator", "read predictions", why=by.why, details={**details, "rows": n}
        )
        for name, n in shown_in(engine, version).items()
    ]
    put_on_record(settings, entries)


def _list_what_was_shown(
    engine: Engine, version: Version, settings: Settings, *, out: Path | None, as_json: bool
) -> None:
    """Print, and write where wanted, every prediction of a version whose card was shown."""
    units: Counter[str] = Counter()
    shown = _counted(_shown(engine, version, settings), units)
    if out is not None:
        _write(shown, out)
    elif as_json:
        sys.stdout.write('{"shown": ')
        _write_json(shown, sys.stdout)
    else:
        for row in shown:
            print("  ".join(row[name] or "-" for name in ("as_of", "unit", "prediction_id")))
    told = {
        "model": version.model_id,
        "version": version.version,
        "cards_shown": units.total(),
        "cards_by_unit": dict(sorted(units.items())),
        "predictions": answered_by(engine, version),
        "pdfs_and_write_backs": NOT_MADE,
        "may_follow": MAY_FOLLOW,
    }
    if as_json:
        rest = json.dumps(told, ensure_ascii=False)
        print(rest if out is not None else f", {rest[1:]}")
    else:
        _print_sums(told, out)


def _print_sums(told: Mapping[str, Any], out: Path | None) -> None:
    for unit, number in told["cards_by_unit"].items():
        print(f"{unit}: {number} cards")
    print(f"{told['cards_shown']} cards shown, of {told['predictions']} predictions")
    print("the page of every one of them says that the version was taken out of use")
    print(NOT_MADE)
    print(MAY_FOLLOW)
    if out is not None:
        print(f"listed in {out}")


def _shown(engine: Engine, version: Version, settings: Settings) -> Iterator[dict[str, Any]]:
    """What is told of each prediction whose card was shown; its page's address with it."""
    for row in shown_by(engine, version):
        told = {name: row[name] for name in SHOWN_COLUMNS}
        told |= {name: _utc(told[name]) for name in ("as_of", "computed_at")}
        yield told | {"page": f"{settings.url}/explanations/{row['prediction_id']}"}


def _counted(shown: Iterator[dict[str, Any]], units: Counter[str]) -> Iterator[dict[str, Any]]:
    for row in shown:
        units[row["unit"] or row["organisation"]] += 1
        yield row


def _write(shown: Iterator[dict[str, Any]], out: Path) -> None:
    """The list as a file, row by row: a million of them are never in memory together."""
    write = _write_csv if out.suffix == ".csv" else _write_json
    try:
        with out.open("w", encoding="utf-8", newline="") as file:
            write(shown, file)
    except OSError as error:
        raise SetupError(f"--out {out}: {error.strerror}") from None


def _write_csv(shown: Iterator[dict[str, Any]], file: IO[str]) -> None:
    writer = csv.DictWriter(file, [*SHOWN_COLUMNS, "page"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(shown)


def _write_json(shown: Iterator[dict[str, Any]], file: IO[str]) -> None:
    separator = "[\n"
    for row in shown:
        file.write(f"{separator}{json.dumps(row, ensure_ascii=False)}")
        separator = ",\n"
    file.write("[]\n" if separator == "[\n" else "\n]\n")


# ---- which version --------------------------------------------------------------------------


class Known(NamedTuple):
    """A version that is here or was decided about, and why its files cannot be used, if so."""

    version: Version
    fault: str | None = None


def _known(model: str, history: History) -> list[Known]:
    """Every version of `ID` or `ID@VERSION` that is here or was decided about.

    One whose files do not hold, or are gone, has the checksum that was decided about last. One
    whose number cannot be read is left out where a number is asked for. Raises SetupError where
    there is none.
    """
    model_id, _, wanted = model.partition("@")
    decided = {d.version: d.checksum for d in history.decisions if d.model_id == model_id}
    folders = [f for f in all_folders(read_settings()) if folder_id(f) == model_id]
    here = [_known_by(f, model_id, decided) for f in folders if not is_specification(f)]
    numbers = {one.version.version for one in here}
    gone = [
        Known(Version(model_id, number, checksum), "its files are not here")
        for number, checksum in decided.items()
        if number not in numbers
    ]
    found = [one for one in (*here, *gone) if wanted in ("", one.version.version)]
    if not found:
        faults = "".join(f"; {one.version}: {one.fault}" for one in here if one.fault)
        told = f"; decided about: {', '.join(decided)}" if decided else ""
        raise SetupError(f"no package of {model} is here{told}{faults}")
    return found


def _known_by(folder: Path, model_id: str, decided: Mapping[str, str]) -> Known:
    """The version in a folder; `?` where its number cannot be read."""
    number = "?"
    try:
        number = folder_version(folder)
        bundled = folder.is_relative_to(BUNDLED)
        return Known(Version(model_id, number, verify_checksums(folder), bundled))
    except PackageRefused as refusal:
        checksum = decided.get(number) or ("" if number == "?" else _listed_checksum(folder))
        return Known(Version(model_id, number, checksum), refusal.fault)


def _listed_checksum(folder: Path) -> str:
    """The checksum that files had by their list, whatever they are now; empty without a list."""
    try:
        return hashlib.sha256((folder / SUMS).read_bytes()).hexdigest()
    except OSError:
        return ""


def _only(model: str, known: list[Known]) -> Known:
    if len(known) > 1:
        names = ", ".join(str(one.version) for one in known)
        raise SetupError(f"{model} is here in several versions; say which: {names}")
    return known[0]


def _sound(model: str, known: list[Known]) -> Version:
    """The only version, its files being as they should. Raises SetupError."""
    version, fault = _only(model, known)
    if fault is not None:
        raise SetupError(f"{version}: {fault}")
    return version


def _withdrawn(model: str, history: History, engine: Engine) -> tuple[Version, list[str]]:
    """The version to withdraw, though its files be changed or gone, and the checksums that lie here
    or were decided about. Raises SetupError where nothing is known of it.
    """
    model_id, _, wanted = model.partition("@")
    try:
        known = _known(model, history)
    except SetupError:
        if not logged_checksums(engine, model_id, wanted):
            raise
        return Version(model_id, wanted, ""), []
    if len({one.version.version for one in known}) > 1 or known[0].version.version == "?":
        _only(model, known)
        raise SetupError(f"{model}: say which version: {known[0].fault}")
    version = known[0].version
    decided = [d.checksum for d in history.decisions if d[:2] == version[:2]]
    here = [one.version.checksum for one in known if one.version.checksum]
    if not (here or logged_checksums(engine, *version[:2])):
        raise SetupError(f"{version}: {known[0].fault}")
    return version, list(dict.fromkeys([*decided, *here]))


def _require_admission(version: Version, settings: Settings) -> None:
    """Raise PackageRefused where the version's files would not be served."""
    for folder in all_folders(settings):
        if folder_id(folder) == version.model_id and folder_version(folder) == version.version:
            admit(folder, allow_synthetic=settings.allows_synthetic)
            return


def _manifest_of(version: Version) -> Manifest:
    """The manifest of a version that is here."""
    packages = (f for f in all_folders(read_settings()) if not is_specification(f))
    folders = (f for f in packages if folder_id(f) == version.model_id)
    return next(read_manifest(f) for f in folders if folder_version(f) == version.version)


# ---- settings, texts ------------------------------------------------------------------------


@contextmanager
def _database(settings: Settings) -> Iterator[Engine]:
    engine = open_database(settings)
    try:
        yield engine
    finally:
        engine.dispose()


def _stands(known: list[Known], history: History, settings: Settings) -> list[Stand]:
    """Where versions stand; what keeps their files from being used is their fault."""
    stands = stands_of([one.version for one in known], history, demo=settings.is_demo)
    return [
        dataclasses.replace(stand, fault=one.fault or stand.fault)
        for one, stand in zip(known, stands, strict=True)
    ]


def _said(text: str | None, option: str, longest: int) -> str:
    """What the operator typed. BadRequest where it is nothing, too long, or not of one line."""
    given = (text or "").strip()
    if not given:
        raise BadRequest("must be given", field=option)
    if len(given) > longest or given != printable(given):
        raise BadRequest(f"one line of at most {longest} characters", field=option)
    return given


def _bytes_of(report: Path) -> bytes:
    try:
        with report.open("rb") as file:
            content = file.read(LARGEST_REPORT + 1)
    except OSError as error:
        raise BadRequest(f"{report}: {error.strerror}", field="--report") from None
    if len(content) > LARGEST_REPORT:
        raise BadRequest(f"larger than {LARGEST_REPORT} bytes", field="--report")
    return content


def _utc(moment: datetime) -> str:
    """A stored moment; SQLite keeps no zone, and what is stored is UTC."""
    known = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return to_iso(known.timestamp())


# ---- printing -------------------------------------------------------------------------------


def _decision(decision: Decision) -> dict[str, Any]:
    return decision._asdict() | {"at": _utc(decision.at)}


def _record(made: Record) -> dict[str, Any]:
    return made._asdict() | {"at": _utc(made.at)}


def _validated(found: Validated) -> dict[str, Any]:
    moments = ("first_index_time", "last_index_time", "at")
    return found._asdict() | {name: _utc(getattr(found, name)) for name in moments}


def _said_hit_rate(found: Validated) -> str:
    share, low, high = (f"{100 * part:.1f}" for part in (found.ppv, found.low, found.high))
    period = f"{found.first_index_time:%Y-%m-%d} to {found.last_index_time:%Y-%m-%d}"
    synthetic = ", SYNTHETIC data" if found.synthetic else ""
    return (
        f"hit rate of {found.head} from {found.threshold:g}: {share} % ({low} to {high} %) "
        f"of {found.flagged} cards, {period}{synthetic}"
    )


def _print_stands(stands: list[Stand], history: History, *, as_json: bool) -> None:
    told = [_told(stand, history) for stand in stands]
    if as_json:
        print_json(told)
        return
    for stand, one in zip(stands, told, strict=True):
        print(f"{stand.version} is {stand.state}")
        if stand.fault:
            print(f"  {stand.fault}")
        for decision in one["decisions"]:
            print(
                f"  {decision['at']}  {decision['state']:<9} {decision['who']}: {decision['why']}"
            )
        for name, value in _lines_of(one["record"]):
            print(f"  {name}: {value}")
        for line in _hit_rate_lines(stand, history):
            print(f"  {line}")


def _lines_of(found: Mapping[str, Any] | None) -> Iterator[tuple[str, Any]]:
    if found is None:
        yield "record", "none: it cannot be live outside the demo profile"
        return
    names = ("intended_purpose", "regulatory_route", "ai_act_role", "clinical_owner", "who", "at")
    yield from ((f"record, {name.replace('_', ' ')}", found[name]) for name in names)


def _hit_rate_lines(stand: Stand, history: History) -> Iterator[str]:
    """What was found of a version, oldest first; what was found of other files is marked."""
    found = _found_of(stand, history)
    if not found:
        yield "hit rate: unknown here: varsel models validated"
    for one in found:
        of_others = "" if one.checksum == stand.version.checksum else "; of other files: not stated"
        yield f"{_utc(one.at)}  {one.who}: {_said_hit_rate(one)}{of_others}"


def _found_of(stand: Stand, history: History) -> list[Validated]:
    return [one for one in history.validations if one[:2] == stand.version[:2]]


def _told(stand: Stand, history: History) -> dict[str, Any]:
    of_it = [d for d in history.decisions if d[:2] == stand.version[:2]]
    return {
        "model": stand.version.model_id,
        "version": stand.version.version,
        "checksum": stand.version.checksum,
        "state": stand.state,
        "since": _utc(stand.since) if stand.since else None,
        "fault": stand.fault,
        "record": _record(stand.record) if stand.record else None,
        "decisions": [_decision(d) for d in of_it],
        "hit_rates": [_validated(found) for found in _found_of(stand, history)],
    }
