"""`varsel serve`, `doctor`, `db upgrade` and `openapi`: running an installation."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from cds_service.auth.door import fetch_all_keys
from cds_service.auth.reader_door import fetch_reader_keys
from cds_service.cli.console import JSON_HELP, print_json
from cds_service.db.log import is_absent, open_engine
from cds_service.db.migrate import check_revision, upgrade
from cds_service.db.patients import warnings_of_restrictions
from cds_service.db.reader import LogReader
from cds_service.errors import LogUnavailable, SetupError
from cds_service.governance import OFFERED, Roster, roster_of
from cds_service.service import history_here, open_callers, open_readers, open_registry
from cds_service.settings import Settings, check_fit_to_serve, read_settings


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (VARSEL_HOST)")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on (VARSEL_PORT)")] = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="First score one bundled patient over HTTP")
    ] = False,
) -> None:
    """Serve CDS Hooks; prints its URLs."""
    from cds_service.server import run

    given: dict[str, Any] = {"host": host, "port": port}
    settings = read_settings(**{k: value for k, value in given.items() if value is not None})
    run(settings, demo=demo)


def db_upgrade(
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Bring the prediction log's database to this software's tables."""
    engine = open_engine(read_settings().database)
    upgrade(engine)
    check_revision(engine)
    shown = engine.url.render_as_string(hide_password=True)
    if as_json:
        print_json({"database": shown, "upgraded": True})
    else:
        print(f"{shown} is up to date")


def openapi(
    out: Annotated[Path, typer.Option("--out", help="Folder to write to")] = Path("openapi"),
) -> None:
    """Write the OpenAPI document and the JSON Schema of a prediction."""
    for name, document in openapi_files().items():
        out.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(document, encoding="utf-8")
        print(out / name)


def openapi_files() -> dict[str, str]:
    """The committed files of `openapi/`, by name."""
    from cds_service import docs
    from cds_service.app import bare_app

    contents = {
        "openapi.json": bare_app().openapi(),
        "prediction.schema.json": docs.prediction_schema(),
    }
    return {
        name: json.dumps(content, ensure_ascii=False, indent=2) + "\n"
        for name, content in contents.items()
    }


# ---- doctor ---------------------------------------------------------------------------------


def doctor(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Check the installation and say what is wrong. Exit code 1 where something is."""
    if context.invoked_subcommand is not None:
        return
    findings = examine(read_settings())
    if as_json:
        print_json(findings)
    else:
        for finding in findings:
            print(f"{'ok ' if finding['ok'] else 'BAD'}  {finding['check']}: {finding['says']}")
    if not all(finding["ok"] for finding in findings):
        raise typer.Exit(1)


def examine(settings: Settings) -> list[dict[str, Any]]:
    """Every check with whether it passed and what it says."""
    checks: dict[str, Callable[[Settings], str]] = {
        "settings": _settings,
        "callers": _callers,
        "readers": _readers,
        "models": _models,
        "database": _database,
        "extras": _extras,
    }
    findings = []
    for name, check in checks.items():
        try:
            findings.append({"check": name, "ok": True, "says": check(settings)})
        except (SetupError, LogUnavailable) as error:
            findings.append({"check": name, "ok": False, "says": str(error)})
    return findings


def _settings(settings: Settings) -> str:
    check_fit_to_serve(settings)
    return f"{settings.profile} profile, {settings.url}, zone {settings.timezone}"


def _callers(settings: Settings) -> str:
    callers = open_callers(settings)
    if callers.open_to:
        return "everybody on loopback (demo)"
    fetched = asyncio.run(fetch_all_keys(callers))
    faults = [f"{name}: jwt.jku: {fault}" for name, fault in fetched.items() if fault]
    if faults:
        raise SetupError("; ".join(faults))
    return f"{len(callers.listed)} callers" + (f"; keys of {len(fetched)} read" if fetched else "")


def _readers(settings: Settings) -> str:
    readers = open_readers(settings)
    if readers.open_to:
        return "everybody on loopback (demo)"
    fetched = asyncio.run(fetch_reader_keys(readers))
    faults = [f"{name}: {fault}" for name, fault in fetched.items() if fault]
    if faults:
        raise SetupError("VARSEL_READERS_FILE: " + "; ".join(faults))
    return f"{len(readers.issuers)} issuers" if readers.issuers else "nobody may read /api"


def _models(settings: Settings) -> str:
    registry = open_registry(settings)
    if registry.refused:
        raise SetupError("; ".join(f"{k} refused: {v}" for k, v in registry.refused.items()))
    if not registry.packages:
        raise SetupError("no model package")
    try:
        history = history_here(settings)
    except (SetupError, LogUnavailable):
        return f"{', '.join(registry.packages)} (states unknown: see database)"
    roster = roster_of(registry, history, demo=settings.is_demo)
    if roster.faults or roster.warnings:
        raise SetupError("; ".join([*roster.faults, *roster.warnings]))
    said = ", ".join(f"{stand.version} {stand.state}" for stand in roster.stands)
    said += _hit_rates(roster)
    offered = any(duty.standing.state in OFFERED for duty in roster.duties.values())
    return said if offered else f"{said} (none is in service: varsel models state)"


def _hit_rates(roster: Roster) -> str:
    """Of which heads that bring cards here the hit rate is known, and of which it is not."""
    known = {
        f"{duty.package.id} {head.id}": head.id in duty.hit_rates
        for duty in roster.duties.values()
        for head in duty.package.manifest.heads
        if duty.standing.state in OFFERED and head.role == "card"
    }
    named = {
        word: ", ".join(name for name, is_known in known.items() if is_known is wanted)
        for word, wanted in (("known", True), ("unknown", False))
    }
    return "".join(f"; hit rate {word} here: {names}" for word, names in named.items() if names)


def _database(settings: Settings) -> str:
    engine = open_engine(settings.database)
    shown = engine.url.render_as_string(hide_password=True)
    if is_absent(engine):
        if settings.is_demo:
            return f"{shown} is made at the first start"
        raise SetupError(f"{shown} does not exist: run `varsel db upgrade`")
    check_revision(engine)
    LogReader(engine).ping()
    said = warnings_of_restrictions(engine, settings.keys.pseudonym.current)
    if said:
        raise SetupError("; ".join(said))
    return f"{shown} is up to date"


def _extras(_: Settings) -> str:
    extras = {"study": ("statsmodels", "matplotlib"), "drift": ("evidently",)}
    there = [
        name
        for name, modules in extras.items()
        if all(importlib.util.find_spec(module) for module in modules)
    ]
    return f"installed: {', '.join(there) or 'none'} (validate needs study, drift needs drift)"
