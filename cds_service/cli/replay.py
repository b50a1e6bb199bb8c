"""`varsel replay ID`: a logged prediction computed again, and whether it is the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import typer

from cds_service.account import account
from cds_service.cli.console import JSON_HELP, print_json
from cds_service.db.audit import AuditEntry
from cds_service.db.log import PredictionLog
from cds_service.db.record import what_became_of
from cds_service.errors import SetupError, UnknownService
from cds_service.evidence.compared import Difference
from cds_service.evidence.replay import Replay, as_json, replay, whole_record
from cds_service.service import all_folders, open_log
from cds_service.settings import Settings, read_settings
from cds_service.wording import printable
from models.package import Package, load_package
from models.registry import folder_of

LONGEST_NAME, LONGEST_WHY = 128, 1000
MOST_SHOWN, LONGEST_VALUE = 40, 60
"""Differences that are printed, and characters of each value; `--json` has all of them whole."""
AS_LOGGED, NOT_LOGGED = "as logged", "this installation's: the log does not say"
"""Where the time zone of a card's times is from."""
_SHARES = (".points", ".positive", ".negative")
"""How fields end that say how much of a risk is whose."""


def replay_prediction(
    prediction_id: Annotated[str, typer.Argument(metavar="ID", help="The prediction's id")],
    show: Annotated[
        bool, typer.Option("--show", help="Print the whole record as JSON, and compute nothing")
    ] = False,
    who: Annotated[str | None, typer.Option(help="Who asks; else the account's name")] = None,
    why: Annotated[str, typer.Option(help="Why, for the audit trail")] = "",
    as_json_: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Compute a logged prediction again from the log and its package, and compare bit by bit.

    Exit code 1 where it is not equal. That it was read is on record before anything is printed.
    """
    settings = read_settings()
    with open_log(settings) as log:
        found = log.read(prediction_id)
        if found is None:
            raise UnknownService("no prediction of that id", field="ID")
        row: dict[str, Any] = {**found}
        if show:
            _audit(log, row, "read", who=who, why=why, details={"command": "replay --show"})
            print_json(whole_record(row, what_became_of(log.engine, prediction_id)))
            return
        done = replay(row, _package(row, settings), settings.zone)
        result = {"equal": done.equal, "differences": len(done.differences)}
        _audit(log, row, "replay", who=who, why=why, details=result)
    if as_json_:
        print_json(as_json(done))
    else:
        _print(done)
    if not done.equal:
        raise typer.Exit(1)


def _audit(
    log: PredictionLog,
    row: Mapping[str, Any],
    what: str,
    *,
    who: str | None,
    why: str,
    details: Mapping[str, Any],
) -> None:
    """Put on record that a prediction is read; returns when the entry is durable."""
    entry = AuditEntry(
        organisation=row["organisation"],
        who=(who or account())[:LONGEST_NAME],
        role="operator",
        what=what,
        subject=row["prediction_id"],
        why=why[:LONGEST_WHY],
        details=details,
    )
    log.audit(entry).result()


def _package(row: Mapping[str, Any], settings: Settings) -> Package:
    """The very package that made a prediction, bundled or in VARSEL_MODELS_DIR.

    Raises SetupError where no folder has its checksum, PackageRefused where its files changed.
    """
    checksum = row["package_checksum"]
    folder = folder_of(all_folders(settings), checksum)
    if folder is None:
        raise SetupError(
            f"no package here has the checksum {checksum} ({row['model_id']}@"
            f"{row['model_version']}): put it into the folder of VARSEL_MODELS_DIR"
        )
    return load_package(folder)


def _print(done: Replay) -> None:
    said = as_json(done)
    print(f"prediction {done.prediction_id}")
    print(f"made by {done.model.id}@{done.model.version}, package {done.model.checksum}")
    for name in ("libraries", "software"):
        logged, now = said[name]["logged"] or "not logged", said[name]["now"]
        print(f"{name}: {now}" if logged == now else f"{name}: {now}; when logged: {logged}")
    if done.taken:
        print(f"taken from the log as it stands: {', '.join(done.taken)}")
    print(f"times on cards: {done.zone}, {AS_LOGGED if done.zone_logged else NOT_LOGGED}")
    if done.equal:
        print("EQUAL: what is computed now is what was logged, to the last bit")
        return
    apart = "" if done.largest is None else f"; numbers by at most {done.largest:.3g}"
    print(f"NOT EQUAL: {len(done.differences)} fields differ{apart}")
    # one changed value moves the points of all others: what moved them first
    shown = sorted(done.differences, key=lambda d: d.field.endswith(_SHARES))
    for difference in shown[:MOST_SHOWN]:
        print(f"  {_line(difference)}")
    if len(done.differences) > MOST_SHOWN:
        print(f"  and {len(done.differences) - MOST_SHOWN} more: see --json")


def _line(difference: Difference) -> str:
    logged, computed = (_short(value) for value in (difference.logged, difference.computed))
    return printable(f"{difference.field}: logged {logged}, computed {computed}")


def _short(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"
