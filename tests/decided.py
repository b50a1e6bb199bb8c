"""What an operator decided of models: by the real commands, or straight in the database."""

from __future__ import annotations

from datetime import UTC, datetime

from typer.testing import CliRunner, Result

from cds_service.cli import app
from cds_service.db.governance import add_decisions, read_history
from cds_service.governance import Decision, version_of
from cds_service.service import open_database
from cds_service.settings import Settings
from models.package import Package
from models.prediction import State

ON_RECORD = (
    "--intended-purpose", "support at discharge",
    "--regulatory-route", "mdr-5-5",
    "--ai-act-role", "provider",
    "--clinical-owner", "Ledende overlæge A. Berg",
    "--who", "B. Holm",
)  # fmt: skip
DECIDED = ("--who", "B. Holm", "--why", "trial approved")


def typed(settings: Settings, *arguments: object) -> Result:
    """What `varsel` with some arguments did in an installation of some settings."""
    environment = {
        "VARSEL_PROFILE": settings.profile,
        "VARSEL_DATABASE_URL": settings.database,
        "VARSEL_STATE_DIR": str(settings.state_dir),
        "VARSEL_MODELS_DIR": str(settings.models_dir) if settings.models_dir else None,
        "VARSEL_ALLOW_SYNTHETIC_MODELS": str(settings.allow_synthetic_models).lower(),
    }
    words = [str(argument) for argument in arguments]
    return CliRunner().invoke(app, words, env=environment)


def bring_live(settings: Settings, model: str = "readmission-30d") -> None:
    """Take a candidate live, as an operator does: record, silent, live."""
    for command in (
        ("record", model, *ON_RECORD),
        ("state", model, "silent", *DECIDED),
        ("state", model, "live", *DECIDED),
    ):
        done = typed(settings, "models", *command)
        assert done.exit_code == 0, (command, done.output, done.exception)


def decided(settings: Settings, package: Package, *states: State) -> None:
    """Put decisions about a package into the database, one after the other."""
    engine = open_database(settings)
    for state in states:
        at = datetime.now(UTC)
        decision = Decision(*version_of(package)[:3], state, "B. Holm", "a test", at)
        add_decisions(engine, [decision], after=read_history(engine), organisation="o")
    engine.dispose()
