"""What a running service holds, built once from the settings and handed to every route."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cds_service.callers import Caller, Callers, read_callers
from cds_service.db.log import PredictionLog, open_engine
from cds_service.db.migrate import check_revision, upgrade
from cds_service.errors import SetupError
from cds_service.privacy import Privacy
from cds_service.settings import Settings, read_settings
from models.registry import BUNDLED, Registry, load_registry, package_folders


@dataclass(frozen=True, slots=True)
class Service:
    """Settings, packages, log, keys and callers of one process."""

    settings: Settings
    registry: Registry
    log: PredictionLog
    privacy: Privacy
    callers: Callers


def open_registry(settings: Settings) -> Registry:
    """The packages this installation serves: the bundled ones and those of VARSEL_MODELS_DIR."""
    return load_registry(all_folders(settings), allow_synthetic=settings.allows_synthetic)


def open_log(settings: Settings) -> PredictionLog:
    """The prediction log, its database at this software's revision; demo brings it there itself.

    Raises SetupError where it is not.
    """
    engine = open_engine(settings.database)
    if settings.is_demo:
        upgrade(engine)
    check_revision(engine)
    return PredictionLog(engine)


def open_callers(settings: Settings) -> Callers:
    """The allow-list; in demo without one, everybody on this machine is the demo caller.

    Raises SetupError where there is none outside the demo profile.
    """
    if settings.callers_file:
        return read_callers(settings.callers_file)
    if not settings.is_demo:
        raise SetupError("VARSEL_CALLERS_FILE is not set")
    return Callers(open_to=Caller("demo", settings.organisation))


def all_folders(settings: Settings) -> list[Path]:
    """The folders of all packages here, bundled and the site's own.

    Raises SetupError where the site's folder is not there.
    """
    if settings.models_dir and not settings.models_dir.is_dir():
        raise SetupError(f"VARSEL_MODELS_DIR: {settings.models_dir} is not a folder")
    roots = [BUNDLED, *([settings.models_dir] if settings.models_dir else [])]
    return package_folders(*roots)


def find_folder(model: str) -> Path:
    """The folder of a model id, or the folder itself; SetupError where there is none."""
    if (Path(model) / "manifest.toml").is_file():
        return Path(model)
    folders = {folder.name: folder for folder in all_folders(read_settings())}
    if model not in folders:
        raise SetupError(f"no model is called {model}; there are: {', '.join(sorted(folders))}")
    return folders[model]
