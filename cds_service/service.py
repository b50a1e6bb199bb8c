"""What a running service holds, built once from the settings and handed to every route."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from cds_service.auth.callers import Caller, Callers, check_no_loopback, read_callers
from cds_service.auth.door import Door
from cds_service.auth.reader_door import ReaderDoor
from cds_service.auth.readers import (
    Readers,
    check_readers_no_loopback,
    demo_reader,
    read_readers,
)
from cds_service.db.governance import read_history
from cds_service.db.log import PredictionLog, is_absent, open_engine
from cds_service.db.migrate import check_revision, upgrade
from cds_service.delivery import Delivery
from cds_service.errors import SetupError
from cds_service.governance import History
from cds_service.identities.privacy import Privacy
from cds_service.limits import Turns
from cds_service.settings import Settings, read_settings
from cds_service.shadow import Shadows
from cds_service.spool import Spool
from cds_service.watch import Watch
from fhir_adapters.client.fetch import FhirClient
from models.evaluation import is_specification
from models.manifest import folder_id
from models.registry import (
    BUNDLED,
    Registry,
    folder_version,
    load_registry,
    package_folders,
    package_name,
)


@dataclass(frozen=True, slots=True)
class Service:
    """Settings, packages, log, keys, doors, who is in service, and turns, of one process.

    Readers of `/api` have turns of their own, so that no export keeps a hook waiting.
    """

    settings: Settings
    registry: Registry
    log: PredictionLog
    privacy: Privacy
    door: Door
    watch: Watch
    shadows: Shadows
    turns: Turns
    delivery: Delivery
    fhir: FhirClient
    readers: ReaderDoor
    reads: Turns


def open_registry(settings: Settings) -> Registry:
    """The packages this installation serves: the bundled ones and those of VARSEL_MODELS_DIR."""
    return load_registry(all_folders(settings), allow_synthetic=settings.allows_synthetic)


def open_log(settings: Settings) -> PredictionLog:
    """The prediction log of the installation's database. Raises SetupError as `open_database`."""
    return PredictionLog(open_database(settings), Privacy(settings.keys))


def open_serving_log(settings: Settings) -> PredictionLog:
    """The same with a spool, for a process that answers hooks.

    Raises SetupError also where the spool cannot be written to.
    """
    spool = Spool(settings.spool, settings.keys.seal)
    spool.check()
    return PredictionLog(
        open_database(settings),
        Privacy(settings.keys),
        spool=spool,
        commit_seconds=settings.commit_seconds,
    )


def open_database(settings: Settings) -> Engine:
    """The database, at this software's revision; demo brings it there itself.

    Raises SetupError where it is not.
    """
    engine = open_engine(settings.database)
    if settings.is_demo:
        upgrade(engine)
    check_revision(engine)
    return engine


def history_here(settings: Settings) -> History:
    """What was decided of models here; nothing where there is no database yet.

    Raises SetupError where the database is not at this software's revision.
    """
    engine = open_engine(settings.database)
    if is_absent(engine):
        return History()
    try:
        check_revision(engine)
        return read_history(engine)
    finally:
        engine.dispose()


def open_callers(settings: Settings) -> Callers:
    """The allow-list; in demo without one, everybody on this machine is the demo caller.

    Raises SetupError where there is none outside the demo profile, or where one there reaches
    loopback.
    """
    if settings.callers_file:
        callers = read_callers(settings.callers_file)
        if not settings.allows_loopback:
            check_no_loopback(callers)
        return callers
    if not settings.is_demo:
        raise SetupError("VARSEL_CALLERS_FILE is not set")
    return Callers(open_to=Caller("demo", settings.organisation))


def open_readers(settings: Settings) -> Readers:
    """Who may read `/api`: in demo without a file everybody on this machine, else without nobody.

    Raises SetupError where the file is wrong, or where one outside demo reaches loopback.
    """
    if settings.readers_file is None:
        return Readers(open_to=demo_reader(settings.organisation) if settings.is_demo else None)
    readers = read_readers(settings.readers_file)
    if not settings.allows_loopback:
        check_readers_no_loopback(readers)
    return readers


def all_folders(settings: Settings) -> list[Path]:
    """The folders of all packages here, bundled and the site's own.

    Raises SetupError where the site's folder is not there.
    """
    if settings.models_dir and not settings.models_dir.is_dir():
        raise SetupError(f"VARSEL_MODELS_DIR: {settings.models_dir} is not a folder")
    roots = [BUNDLED, *([settings.models_dir] if settings.models_dir else [])]
    return package_folders(*roots)


def find_folder(model: str) -> Path:
    """The folder of `ID` or `ID@VERSION`, or the folder itself.

    A package goes before a specification. Raises SetupError where there is none, or where an id has
    several versions to choose from.
    """
    if (Path(model) / "manifest.toml").is_file():
        return Path(model)
    model_id, _, version = model.partition("@")
    folders = all_folders(read_settings())
    found = [folder for folder in folders if folder_id(folder) == model_id]
    chosen = [folder for folder in found if version in ("", folder_version(folder))]
    chosen = [folder for folder in chosen if not is_specification(folder)] or chosen
    if len(chosen) == 1:
        return chosen[0]
    if chosen:
        names = ", ".join(f"{model_id}@{folder_version(folder)}" for folder in chosen)
        raise SetupError(f"{model} is here in several versions; say which: {names}")
    names = ", ".join(sorted({package_name(folder) for folder in found or folders}))
    raise SetupError(f"no model is called {model}; there are: {names}")
