"""The `varsel` command. Exit codes: 0 done, 2 wrong usage or bad input, 1 our failure.

`--json` prints one JSON document on standard output and nothing else; messages go to standard error
and name the field at fault.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cds_service import __version__
from cds_service.cli import cohorts, operate, packages, scoring, studies
from cds_service.errors import RequestRefused, SetupError
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
app.add_typer(models_app, name="models")
app.add_typer(cohort_app, name="cohort")
app.add_typer(db_app, name="db")

app.command("serve")(operate.serve)
app.command("doctor")(operate.doctor)
app.command("openapi")(operate.openapi)
db_app.command("upgrade")(operate.db_upgrade)
app.command("score")(scoring.score)
models_app.command("list")(packages.list_models)
models_app.command("check")(packages.check)
models_app.command("card")(packages.card)
models_app.command("train")(packages.train)
cohort_app.command("synth")(cohorts.synth)
cohort_app.command("build")(cohorts.build)
app.command("validate")(studies.validate)
app.command("drift")(studies.drift)


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
    """Run the command; bad input and setup end with 2 and one line that names the fault."""
    try:
        app()
    except (SetupError, RequestRefused, FhirError, ModelError) as error:
        field = getattr(error, "field", None)
        where = f"{field}: " if field and field not in str(error) else ""
        print(f"varsel: {where}{error}", file=sys.stderr)
        raise SystemExit(2) from None
