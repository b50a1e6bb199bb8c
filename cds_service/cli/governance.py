"""`varsel models state`, `record`, `withdraw`: who decided what of a model here, and why.

`who` is what the operator types: it is stored as given, and never printed in a log.
"""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Annotated, Any, get_args

import typer
from sqlalchemy import Engine

from cds_service.cli.console import JSON_HELP, print_json
from cds_service.db.governance import (
    SHOWN_COLUMNS,
    add_decisions,
    add_record,
    answered_by,
    logged_checksum,
    read_history,
    shown_by,
)
from cds_service.errors import BadRequest, SetupError
from cds_service.governance import (
    NEXT,
    Decision,
    History,
    Record,
    Stand,
    Version,
    decide,
    stands_of,
)
from cds_service.service import all_folders, open_database
from cds_service.settings import Settings, read_settings
from cds_service.wording import printable
from fhir_adapters.clock import to_iso
from models.errors import PackageRefused
from models.evaluation import is_specification
from models.manifest import folder_id
from models.package import verify_checksums
from models.prediction import AiActRole, RegulatoryRoute
from models.registry import BUNDLED, admit, folder_version

LONGEST_NAME, LONGEST_WHY, LONGEST_PURPOSE = 128, 1000, 2000
NOT_MADE = "PDFs and write-backs to the record are not made by this version of Varsel: none to list"

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
        versions = _versions(model, history)
        if new is None:
            _print_stands(_stands(versions, history, settings), history, as_json=as_json)
            return
        version = _only(model, versions)
        chosen = next((known for known in NEXT if known == new), None)
        if chosen is None:
            raise BadRequest(f"one of {', '.join(NEXT)}", field="STATE")
        said = (_said(who, "--who", LONGEST_NAME), _said(why, "--why", LONGEST_WHY))
        if chosen in ("silent", "live"):
            _require_admission(version, settings)
        siblings = _versions(version.model_id, history)
        stands = _stands(siblings, history, settings)
        made = decide(stands, version, chosen, demo=settings.is_demo, replaces=replaces)
        now = datetime.now(UTC)
        decisions = [Decision(*about[:3], what, *said, now) for about, what in made]
        add_decisions(engine, decisions, after=history)
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
        version = _only(model, _versions(model, history))
        made = Record(
            model_id=version.model_id,
            version=version.version,
            intended_purpose=_said(intended_purpose, "--intended-purpose", LONGEST_PURPOSE),
            regulatory_route=route,
            ai_act_role=role,
            clinical_owner=_said(clinical_owner, "--clinical-owner", LONGEST_NAME),
            who=_said(who, "--who", LONGEST_NAME),
            at=datetime.now(UTC),
        )
        add_record(engine, made, after=history)
    if as_json:
        print_json(_record(made))
    else:
        print(f"{version}: on record")


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
        history = read_history(engine)
        version = _withdrawn_version(model, history, engine)
        (stand,) = _stands([version], history, settings)
        if stand.state != "retired":
            decision = Decision(*version[:3], "retired", *said, datetime.now(UTC))
            add_decisions(engine, [decision], after=history)
        if not as_json:
            print(f"{version} is withdrawn; every running process stops it within two seconds")
        _list_what_was_shown(engine, version, settings, out=out, as_json=as_json)


# ---- what was shown -------------------------------------------------------------------------


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


def _versions(model: str, history: History) -> list[Version]:
    """The versions of `ID` or `ID@VERSION` that are here, but those whose files do not hold.

    Raises PackageRefused where there are only such, SetupError where there is none.
    """
    model_id, _, wanted = model.partition("@")
    found, refused = [], []
    for folder in all_folders(read_settings()):
        if folder_id(folder) != model_id or is_specification(folder):
            continue
        try:
            version = folder_version(folder)
            if wanted in ("", version):
                bundled = folder.is_relative_to(BUNDLED)
                found.append(Version(model_id, version, verify_checksums(folder), bundled))
        except PackageRefused as refusal:
            refused.append(refusal)
    if refused and not found:
        raise refused[0]
    if not found:
        decided = sorted({f"{d.model_id}@{d.version}" for d in history.decisions})
        told = f"; decided about: {', '.join(decided)}" if decided else ""
        raise SetupError(f"no package of {model} is here{told}")
    return found


def _only(model: str, versions: list[Version]) -> Version:
    if len(versions) > 1:
        names = ", ".join(str(version) for version in versions)
        raise SetupError(f"{model} is here in several versions; say which: {names}")
    return versions[0]


def _withdrawn_version(model: str, history: History, engine: Engine) -> Version:
    """The version to withdraw, though its files be changed or gone."""
    model_id, _, wanted = model.partition("@")
    try:
        return _only(model, _versions(model, history))
    except (SetupError, PackageRefused):
        checksums = {d.version: d.checksum for d in history.decisions if d.model_id == model_id}
        checksum = checksums.get(wanted) or logged_checksum(engine, model_id, wanted)
        if checksum is None:
            raise
        return Version(model_id, wanted, checksum)


def _require_admission(version: Version, settings: Settings) -> None:
    """Raise PackageRefused where the version's files would not be served."""
    for folder in all_folders(settings):
        if folder_id(folder) == version.model_id and folder_version(folder) == version.version:
            admit(folder, allow_synthetic=settings.allows_synthetic)
            return


# ---- settings, texts ------------------------------------------------------------------------


@contextmanager
def _database(settings: Settings) -> Iterator[Engine]:
    engine = open_database(settings)
    try:
        yield engine
    finally:
        engine.dispose()


def _stands(versions: list[Version], history: History, settings: Settings) -> list[Stand]:
    return stands_of(versions, history, demo=settings.is_demo)


def _said(text: str | None, option: str, longest: int) -> str:
    """What the operator typed. BadRequest where it is nothing, too long, or not of one line."""
    given = (text or "").strip()
    if not given:
        raise BadRequest("must be given", field=option)
    if len(given) > longest or given != printable(given):
        raise BadRequest(f"one line of at most {longest} characters", field=option)
    return given


def _utc(moment: datetime) -> str:
    """A stored moment; SQLite keeps no zone, and what is stored is UTC."""
    known = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return to_iso(known.timestamp())


# ---- printing -------------------------------------------------------------------------------


def _decision(decision: Decision) -> dict[str, Any]:
    return decision._asdict() | {"at": _utc(decision.at)}


def _record(made: Record) -> dict[str, Any]:
    return made._asdict() | {"at": _utc(made.at)}


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


def _lines_of(found: Mapping[str, Any] | None) -> Iterator[tuple[str, Any]]:
    if found is None:
        yield "record", "none: it cannot be live outside the demo profile"
        return
    names = ("intended_purpose", "regulatory_route", "ai_act_role", "clinical_owner", "who", "at")
    yield from ((f"record, {name.replace('_', ' ')}", found[name]) for name in names)


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
    }
