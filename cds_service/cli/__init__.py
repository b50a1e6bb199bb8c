"""The `varsel` command. Exit codes: 0 done, 2 wrong usage or bad input, 1 our failure.

`--json` prints one JSON document on standard output and nothing else; messages go to standard error
and name the field at fault.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cds_service import __version__
from cds_service.cli import (
    cohorts,
    exchange,
    export,
    governance,
    log,
    operate,
    packages,
    privacy,
    ready,
    replay,
    scoring,
    sites,
    studies,
)
from cds_service.errors import OurFault, RequestRefused, SetupError
from cds_service.wording import printable
from fhir_adapters.errors import FhirError
from models.errors import ModelError

app = typer.Typer(
    name="varsel",
    help="Explained, logged and validated clinical risk prognoses.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
models_app = typer.Typer(help="Model packages.", no_args_is_help=True)
cohort_app = typer.Typer(help="Cohorts from Bulk Data, and synthetic ones.", no_args_is_help=True)
db_app = typer.Typer(help="The prediction log's database.", no_args_is_help=True)
log_app = typer.Typer(help="Whether the log is as it was written.", no_args_is_help=True)
privacy_app = typer.Typer(help="Patients' rights, retention, keys.", no_args_is_help=True)
doctor_app = typer.Typer(invoke_without_command=True)
app.add_typer(models_app, name="models")
app.add_typer(cohort_app, name="cohort")
app.add_typer(db_app, name="db")
app.add_typer(log_app, name="log")
app.add_typer(privacy_app, name="privacy")
app.add_typer(doctor_app, name="doctor")

app.command("serve")(operate.serve)
doctor_app.callback()(operate.doctor)
doctor_app.command("lgl")(sites.lgl)
doctor_app.command("request")(sites.request)
app.command("openapi")(operate.openapi)
db_app.command("upgrade")(operate.db_upgrade)
log_app.command("verify")(log.verify)
log_app.command("seal")(log.seal)
privacy_app.command("find")(privacy.find)
privacy_app.command("access")(privacy.access)
privacy_app.command("reads")(privacy.reads)
privacy_app.command("erase")(privacy.erase_patient)
privacy_app.command("destroy")(privacy.destroy_keys)
privacy_app.command("show")(privacy.show)
privacy_app.command("retention")(privacy.retention)
privacy_app.command("rotate")(privacy.rotate)
privacy_app.command("replay-erasures")(privacy.replay)
app.command("score")(scoring.score)
models_app.command("list")(packages.list_models)
models_app.command("check")(packages.check)
models_app.command("card")(packages.card)
models_app.command("train")(packages.train)
models_app.command("init")(ready.init)
models_app.command("seal")(ready.seal)
models_app.command("export")(exchange.export)
models_app.command("import")(exchange.import_package)
models_app.command("diff")(exchange.diff)
models_app.command("keygen")(exchange.keygen)
models_app.command("evaluation")(exchange.evaluation)
models_app.command("state")(governance.state)
models_app.command("record")(governance.record)
models_app.command("validated")(governance.validated)
models_app.command("withdraw")(governance.withdraw)
cohort_app.command("synth")(cohorts.synth)
cohort_app.command("build")(cohorts.build)
app.command("validate")(studies.validate)
app.command("drift")(studies.drift)
app.command("replay")(replay.replay_prediction)
app.command("export")(export.export)


EXTRAS = {
    "statsmodels": "study",
    "matplotlib": "study",
    "pyarrow": "study",
    "sklearn": "study",
    "pyvinecopulib": "study",
    "evidently": "drift",
}
"""Modules that only an extra brings, and which."""


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command; bad input and setup end with 2, our faults with 1, both with one line."""
    try:
        app()
    except (SetupError, RequestRefused, FhirError, ModelError) as error:
        field = getattr(error, "field", None)
        where = f"{field}: " if field and field not in str(error) else ""
        print(printable(f"varsel: {where}{error}"), file=sys.stderr)
        raise SystemExit(2) from None
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        print(
            f"varsel: this command needs the {extra} extra ({error.name} is not installed): "
            "install requirements-extras.txt",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
    except OurFault as error:
        print(f"varsel: {error}", file=sys.stderr)
        raise SystemExit(1) from None
