"""`varsel log verify` and `seal`: whether the log is as it was written, and a finished day signed.

Both are in the audit trail, on today's chain: sealing before a manifest is written, verifying
before anything is told, and `--identities` also before it opens the vault. Else they only read.
Exit codes of `verify`: 0 all well, 1 something was tampered with, 2 wrong usage.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, Engine

from cds_service import __version__
from cds_service.cli.audited import LONGEST_WHY, put_on_record, who_acts
from cds_service.cli.console import JSON_HELP, folder_to_read, folder_to_write, print_json
from cds_service.db.audit import AuditEntry
from cds_service.db.chains import (
    Span,
    chains_of,
    erasures_of,
    first_chained,
    keys_destroyed_at,
    older_than_chains,
    orphans,
    rows_of,
    snapshot,
    without_place,
)
from cds_service.db.log import is_absent, open_engine
from cds_service.db.migrate import check_revision
from cds_service.errors import BadRequest, NotDurable, OurFault, SetupError
from cds_service.evidence.manifests import (
    KeyNotGiven,
    Manifest,
    NotSealed,
    Sealed,
    faults_of_day,
    faults_of_order,
    file_of,
    parse,
    previous_in,
    public_text,
    read_manifest_file,
    says_the_same,
    sealed_chain,
    sealed_days,
    signed,
    trusted_keys,
    write_new,
)
from cds_service.evidence.verification import (
    ChainName,
    Examination,
    Finding,
    Walked,
    checked_identities,
)
from cds_service.identities.keyring import read_ring
from cds_service.identities.privacy import Privacy
from cds_service.settings import Settings, read_settings
from cds_service.wording import printable
from models.signature import key_id_of

SETTLED_AFTER = timedelta(minutes=10)
"""How long after midnight (UTC) a day is finished: clocks differ, and commits take their time."""

Json = Annotated[bool, typer.Option("--json", help=JSON_HELP)]
Who = Annotated[str | None, typer.Option(help="Who asks; else the account's name")]
Why = Annotated[str, typer.Option(help="Why, for the audit trail")]


class _By(NamedTuple):
    """Who is on record as doing something, and why."""

    who: str
    why: str


class Report(NamedTuple):
    """What verifying found, and how much it looked at."""

    found: Examination
    findings: list[Finding]
    older_than_chains: int | None
    unsealed_days: list[date]
    sealed_with_faults: list[date]


@dataclass(frozen=True, slots=True)
class Against:
    """What the log is held against: manifests by day, and what is wrong with manifests themselves;
    `privacy` where identities are checked too.
    """

    sealed: Mapping[date, Sealed] = field(default_factory=dict)
    faults: tuple[Finding, ...] = ()
    privacy: Privacy | None = None


def verify(
    day: Annotated[str | None, typer.Option(help="Only this day (UTC), YYYY-MM-DD")] = None,
    from_: Annotated[str | None, typer.Option("--from", help="From this day on")] = None,
    to: Annotated[str | None, typer.Option(help="To this day, included")] = None,
    organisation: Annotated[str | None, typer.Option(help="Only this organisation")] = None,
    manifests: Annotated[
        Path | None, typer.Option(help="Folder of manifests to hold the log against")
    ] = None,
    public_key: Annotated[
        list[str] | None,
        typer.Option(
            help="Key that manifests are signed with (`varsel log seal --public-key`), beside "
            "those of VARSEL_LOG_SIGNING_KEY; may be given several times"
        ),
    ] = None,
    identities: Annotated[
        bool, typer.Option("--identities", help="Open the vault and check every pseudonym")
    ] = False,
    who: Who = None,
    why: Why = "",
    as_json: Json = False,
) -> None:
    """Say whether any row of the log was changed, removed, put in or moved, and which."""
    settings = read_settings()
    span = _span(day, from_, to, organisation)
    sealed, faults = _manifests(manifests, public_key, settings)
    by = _By(who_acts(who), why[:LONGEST_WHY])
    with _database(settings) as engine:
        privacy = None
        if identities:
            _record_opening(settings, engine, span, by)
            privacy = Privacy(settings.keys)
        with snapshot(engine) as connection:
            report = examine(connection, span, Against(sealed, faults, privacy))
    held = {"manifests": len(sealed), "identities": identities}
    on_record = _record_verifying(settings, report, {**_said(span), **held}, by)
    if as_json:
        print_json({**_told(report), "on_record": on_record})
    else:
        _print(report, manifests)
    if report.findings:
        raise typer.Exit(1)


def seal(
    out: Annotated[
        Path | None, typer.Option(help="Folder of manifests; one file is added a day")
    ] = None,
    day: Annotated[
        str | None, typer.Option(help="Only this day (UTC); else all that are finished")
    ] = None,
    public_key: Annotated[
        bool, typer.Option("--public-key", help="Print the public key, and do nothing else")
    ] = False,
    who: Who = None,
    why: Why = "",
    as_json: Json = False,
) -> None:
    """Write the signed manifest of every finished day; a day sealed before is held against it."""
    settings = read_settings()
    keys = _signing_keys(settings)
    if public_key:
        print(public_text(keys[0]))
        return
    if out is None:
        raise BadRequest("must be given", field="--out")
    folder = folder_to_write(out)
    last = (datetime.now(UTC) - SETTLED_AFTER).date() - timedelta(days=1)
    told = []
    by = _By(who_acts(who), why[:LONGEST_WHY])
    with _database(settings) as engine, snapshot(engine) as connection:
        days = _days_to_seal(connection, folder, _day(day, "--day"), last)
        _record_sealing(settings, folder, days, key=keys[0], by=by)
        for one in days:
            told.append(_seal_day(connection, folder, one, keys))
            if not as_json:
                print("{file}: {chains} chains, {links} links{faulty}{done}".format(**told[-1]))
    if as_json:
        print_json([{k: v for k, v in one.items() if k not in ("faulty", "done")} for one in told])
    elif not told:
        print(f"nothing to seal: no prediction or audit entry of a day up to {last}")
    if any(one["faults"] for one in told):
        raise OurFault("a day is sealed with what is wrong with it: see `varsel log verify`")


# ---- verifying ------------------------------------------------------------------------------


def examine(connection: Connection, span: Span, against: Against) -> Report:
    """Everything that is wrong within a span of the log, in constant memory."""
    found = Examination(erasures_of(connection))
    by_day: dict[date, list[ChainName]] = {
        day: [] for day in against.sealed if _is_within(day, span)
    }
    for name in chains_of(connection, span):
        by_day.setdefault(name.day, []).append(name)
    for finding in against.faults:
        found.add(finding)
    for day in sorted(by_day):
        walked = follow_all(connection, by_day[day], found, against.privacy)
        if day in against.sealed:
            manifest = against.sealed[day].manifest
            for finding in faults_of_day(manifest, walked, span.organisation):
                found.add(finding)
    older = _outside_chains(connection, found, against.sealed) if span.is_whole else None
    return Report(
        found,
        found.findings(),
        older,
        [day for day in sorted(by_day) if day not in against.sealed],
        [day for day, one in sorted(against.sealed.items()) if one.manifest.faults],
    )


def follow_all(
    connection: Connection,
    names: list[ChainName],
    found: Examination,
    privacy: Privacy | None = None,
) -> dict[ChainName, Walked]:
    """Every chain followed to its end; what was found stands in `found`."""
    walked = {}
    for name in names:
        rows = rows_of(connection, name, identities=privacy is not None)
        if privacy is not None:
            destroyed_at = keys_destroyed_at(connection, name.organisation)
            rows = checked_identities(rows, privacy, found, destroyed_at=destroyed_at)
        walked[name] = found.follow(name, rows)
    return walked


def _outside_chains(
    connection: Connection, found: Examination, sealed: Mapping[date, Sealed]
) -> int:
    """What stands in no chain: how much is older, and findings where it is not."""
    since = first_chained(connection)
    for table, row_id in without_place(connection, since):
        says = "it has no place in a chain, though it is newer than the first that has one"
        found.add(Finding("inserted", says, table=table, id=row_id))
    for beside, prediction_id in orphans(connection):
        says = "its prediction is gone, or has another id or time"
        found.add(Finding("removed", says, table=beside, id=prediction_id))
    older = older_than_chains(connection, since)
    if sealed:
        newest = sealed[max(sealed)].manifest
        if newest.older_than_chains != older:
            says = (
                f"{older} predictions are older than the chains; when {newest.day} was sealed, "
                f"there were {newest.older_than_chains}"
            )
            found.add(Finding("manifest", says))
    return older


def _manifests(
    folder: Path | None, keys: list[str] | None, settings: Settings
) -> tuple[dict[date, Sealed], tuple[Finding, ...]]:
    """The manifests of a folder by their day, and what is wrong with them."""
    if folder is None:
        return {}, ()
    if keys is None and settings.log_signing_key is None:
        raise BadRequest("which key are the manifests signed with?", field="--public-key")
    own = _signing_keys(settings) if settings.log_signing_key else ()
    trusted = trusted_keys([*(keys or ()), *map(public_text, own)])
    sealed: dict[date, Sealed] = {}
    faults = []
    for day in sealed_days(folder_to_read(folder, "--manifests")):
        try:
            sealed[day] = read_manifest_file(folder, day, trusted)
        except NotSealed as fault:
            faults.append(Finding("manifest", f"the manifest of {day}: {fault}"))
    if not sealed and not faults:
        raise SetupError(f"--manifests {folder}: holds no manifest")
    return sealed, (*faults, *faults_of_order(list(sealed.values())))


def _record_opening(settings: Settings, engine: Engine, span: Span, by: _By) -> None:
    """Have it on record, of every organisation, that the vault is opened."""
    with snapshot(engine) as connection:
        organisations = sorted({name.organisation for name in chains_of(connection, span)})
    details = {"command": "log verify --identities", "vault": "opened", **_said(span)}
    put_on_record(
        settings,
        [
            AuditEntry(one, by.who, "operator", "open vault", why=by.why, details=details)
            for one in organisations
        ],
    )


def _record_verifying(
    settings: Settings, report: Report, looked_at: Mapping[str, Any], by: _By
) -> bool:
    """Have it on record who verified what, and what was found. False, and said, where the account
    may only read: verifying tells ids and counts, and must be open to an auditor who cannot write.
    """
    faults = len(report.findings) + report.found.more
    details = {**looked_at, "chains": report.found.chains, "findings": faults}
    entry = AuditEntry(
        settings.organisation, by.who, "operator", "log verify", why=by.why, details=details
    )
    try:
        put_on_record(settings, [entry])
    except NotDurable as fault:
        print(f"varsel: that it was verified is not on record: {fault}", file=sys.stderr)
        return False
    return True


# ---- sealing --------------------------------------------------------------------------------


def _days_to_seal(
    connection: Connection, folder: Path, wanted: date | None, last: date
) -> list[date]:
    """The days to seal, oldest first: the newest that is sealed, which is looked at again, to the
    last that is finished; or the one that is wanted, where none is left out before it.
    """
    days = sealed_days(folder)
    if wanted is not None:
        if wanted > last:
            raise BadRequest(f"{wanted} may still be written to: finished is {last}", "--day")
        if days and wanted not in days and wanted != days[-1] + timedelta(days=1):
            raise BadRequest(f"after {days[-1]} comes {days[-1] + timedelta(days=1)}", "--day")
        return [wanted]
    chains = chains_of(connection, Span())
    first = days[-1] if days else min((name.day for name in chains), default=last)
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def _record_sealing(
    settings: Settings, folder: Path, days: Sequence[date], *, key: Ed25519PrivateKey, by: _By
) -> None:
    """Have it on record who seals which days with which key; where there are none, nothing.

    It stands on today's chain, never sealed today. Raises NotDurable; nothing is sealed then.
    """
    if not days:
        return
    details = {
        "from": days[0],
        "to": days[-1],
        "new": sum(not file_of(folder, day).exists() for day in days),
        "folder": str(folder),
        "key_id": key_id_of(key.public_key().public_bytes_raw()),
    }
    entry = AuditEntry(
        settings.organisation, by.who, "operator", "log seal", why=by.why, details=details
    )
    put_on_record(settings, [entry])


def _seal_day(
    connection: Connection, folder: Path, day: date, keys: Sequence[Ed25519PrivateKey]
) -> dict[str, Any]:
    """Seal a day with the first of the keys, or hold what is there against it. Raises OurFault
    where the two differ.
    """
    found = Examination(erasures_of(connection))
    walked = follow_all(connection, chains_of(connection, Span(day, day)), found)
    manifest = Manifest(
        format=1,
        day=day,
        chains=[sealed_chain(name, one) for name, one in walked.items()],
        older_than_chains=older_than_chains(connection, first_chained(connection)),
        faults=len(found.findings()) + found.more,
        previous=previous_in(folder, day),
        software=__version__,
        sealed_at=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
    )
    path = file_of(folder, day)
    is_new = not path.exists()
    unchecked = None
    if is_new:
        write_new(path, signed(manifest, keys[0]))
    else:
        unchecked = _why_unchecked(path, manifest, keys)
    looked_at = f"NOT LOOKED AT AGAIN: {unchecked}" if unchecked else "and the same"
    return {
        "day": day,
        "file": str(path),
        "is_new": is_new,
        "unchecked": unchecked,
        "chains": len(walked),
        "links": sum(one.links for one in walked.values()),
        "faults": manifest.faults,
        "faulty": f", {manifest.faults} FAULTS" if manifest.faults else "",
        "done": "" if is_new else f" (sealed before, {looked_at})",
    }


def _why_unchecked(path: Path, manifest: Manifest, keys: Sequence[Ed25519PrivateKey]) -> str | None:
    """Why a day's file could not be held against its manifest; None where it says the same.

    Only an unknown key is such a reason: keys are exchanged, and what comes after must be sealed.
    Raises OurFault where the file says otherwise, or is none.
    """
    try:
        before = parse(path.read_bytes(), trusted_keys([public_text(key) for key in keys]))
    except KeyNotGiven as fault:
        return str(fault)
    except NotSealed as fault:
        raise OurFault(f"{path}: {fault}") from None
    if not says_the_same(before, manifest):
        raise OurFault(
            f"{path}: the log is not as it was when that day was sealed; nothing was written: "
            f"varsel log verify --day {manifest.day} --manifests {path.parent}"
        )
    return None


def _signing_keys(settings: Settings) -> list[Ed25519PrivateKey]:
    """The keys of the setting: the one that signs, and those that did. Raises SetupError."""
    if settings.log_signing_key is None:
        raise SetupError("VARSEL_LOG_SIGNING_KEY is not set: 32 random bytes in base64")
    ring = read_ring("VARSEL_LOG_SIGNING_KEY", settings.log_signing_key.get_secret_value())
    return [Ed25519PrivateKey.from_private_bytes(key) for _, key in ring.items()]


# ---- settings, texts ------------------------------------------------------------------------


@contextmanager
def _database(settings: Settings) -> Iterator[Engine]:
    engine = open_engine(settings.database)
    try:
        if is_absent(engine):
            raise SetupError("there is no database here: VARSEL_DATABASE_URL")
        check_revision(engine)
        yield engine
    finally:
        engine.dispose()


def _span(day: str | None, first: str | None, last: str | None, organisation: str | None) -> Span:
    if day is not None and (first or last):
        raise BadRequest("either one day, or --from and --to", field="--day")
    one = _day(day, "--day")
    return Span(one or _day(first, "--from"), one or _day(last, "--to"), organisation)


def _day(text: str | None, option: str) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        raise BadRequest("a day is YYYY-MM-DD", field=option) from None


def _is_within(day: date, span: Span) -> bool:
    return (span.first or day) <= day <= (span.last or day)


def _said(span: Span) -> dict[str, str]:
    return {
        name: str(value)
        for name, value in (
            ("from", span.first),
            ("to", span.last),
            ("of", span.organisation),
        )
        if value is not None
    }


def _told(report: Report) -> dict[str, Any]:
    found = report.found
    return {
        "is_as_written": not report.findings,
        "chains": found.chains,
        "predictions": found.predictions,
        "audit_entries": found.audit_entries,
        "erased_lawfully": found.erased,
        "older_than_chains": report.older_than_chains,
        "days_without_manifest": report.unsealed_days,
        "days_sealed_with_faults": report.sealed_with_faults,
        "findings": [_finding(one) for one in report.findings],
        "further_findings": found.more,
    }


def _finding(one: Finding) -> dict[str, Any]:
    name = one.chain
    return {
        "fault": one.fault,
        "says": one.says,
        "table": one.table,
        "id": one.id,
        "organisation": name.organisation if name else None,
        "day": name.day if name else None,
        "writer": name.writer if name else None,
        "place": one.sequence,
    }


def _print(report: Report, manifests: Path | None) -> None:
    found = report.found
    for one in report.findings:
        print(printable(_line(one)))
    if found.more:
        print(f"and {found.more} more")
    print(
        f"{found.chains} chains, {found.predictions} predictions, {found.audit_entries} audit "
        f"entries; {found.erased} predictions erased lawfully"
    )
    if report.older_than_chains is None:
        print("rows outside chains were not looked for: leave days and organisation out for that")
    else:
        print(
            f"{report.older_than_chains} predictions older than the chains: nothing shows of them"
        )
    if report.unsealed_days:
        days = ", ".join(str(day) for day in report.unsealed_days[:10])
        more = len(report.unsealed_days) - 10
        print(f"no manifest covers {days}{f' and {more} days more' if more > 0 else ''}:")
        print(
            "  what was taken from the end of a chain, or a chain written anew, is not seen there"
        )
    for day in report.sealed_with_faults:
        print(f"{day} was sealed with faults")
    if report.findings:
        print("TAMPERED: the log is not as it was written")
    else:
        print("the log is as it was written" + ("" if manifests else ", as far as it shows itself"))


def _line(one: Finding) -> str:
    where = f"{one.table} {one.id}: " if one.table else ""
    place = f" (place {one.sequence})" if one.sequence is not None else ""
    return f"{one.fault.upper():<9} {where}{one.says}" + (
        f" [{one.chain}{place}]" if one.chain else ""
    )
