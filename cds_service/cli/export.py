"""`varsel export`: the log's predictions leave the house, pseudonymous, anonymous or synthetic.

That it was done is on record before a file is there, and that the vault was opened before it is.
Files are their owner's alone, and none is written over another. docs/export.md says which way does
what, and what the checks do not see.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import pandas as pd
import typer

from cds_service import __version__
from cds_service.cli.audited import LONGEST_WHY, who_acts
from cds_service.cli.console import JSON_HELP, folder_to_write, print_json
from cds_service.db.audit import AuditEntry
from cds_service.db.cohorts import Cohort, cohort_rows, organisations_in
from cds_service.db.governance import read_history
from cds_service.db.log import PredictionLog
from cds_service.errors import SetupError
from cds_service.exporting.cohort import Exported, read_cohort
from cds_service.exporting.files import (
    WRITERS,
    as_markdown,
    csv_lines,
    require_new,
    write_new,
)
from cds_service.exporting.pseudonyms import (
    BASES,
    KEYED,
    WAYS,
    Coder,
    RandomCodes,
    check_way,
    export_key,
    keyed_coder,
)
from cds_service.identities.privacy import Privacy
from cds_service.service import open_log
from cds_service.settings import Settings, read_settings
from fhir_adapters.clock import parse_time

REFUSED_EXIT = 2
"""The data do not meet the limits: what is wrong is what was asked for, not our work."""


class _Asked(NamedTuple):
    """What is to leave, where to, who asks and why."""

    cohort: Cohort
    out: Path
    form: str
    who: str
    why: str

    def entry(self, what: str, **details: Any) -> AuditEntry:
        """What is put on record of it."""
        filters = {
            "model": self.cohort.model_id,
            "from": self.cohort.from_ and self.cohort.from_.isoformat(),
            "to": self.cohort.to and self.cohort.to.isoformat(),
        }
        return AuditEntry(
            organisation=self.cohort.organisation,
            who=self.who,
            role="operator",
            what=what,
            why=self.why,
            details={"filters": filters, "form": self.form, **details},
        )


class _Opened(NamedTuple):
    settings: Settings
    log: PredictionLog
    privacy: Privacy


def export(
    out: Annotated[
        Path, typer.Option(help="File to write; with --anonymise or --synthetic, a folder")
    ],
    who: Annotated[str, typer.Option(help="Who asks; it goes on record")],
    why: Annotated[str, typer.Option(help="Why; it goes on record")],
    pseudonyms: Annotated[
        str | None, typer.Option(help=f"How patients get codes: {', '.join(WAYS)}")
    ] = None,
    of: Annotated[
        str, typer.Option(help="What codes are made of: pseudonym, patient or cpr")
    ] = "pseudonym",
    mapping_table: Annotated[
        Path | None, typer.Option(help="File of the mapping table, which stays here")
    ] = None,
    anonymise: Annotated[
        bool, typer.Option("--anonymise", help="Only if the limits are met; a report either way")
    ] = False,
    limits: Annotated[Path | None, typer.Option(help="TOML file of limits; else the usual")] = None,
    synthetic: Annotated[
        int | None, typer.Option(min=1, max=1_000_000, help="So many invented rows instead")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the invented rows")] = 0,
    form: Annotated[str, typer.Option("--format", help=", ".join(WRITERS))] = "csv",
    model: Annotated[str | None, typer.Option(help="Model id; else all")] = None,
    from_: Annotated[str | None, typer.Option("--from", help="Computed from this time on")] = None,
    to: Annotated[str | None, typer.Option(help="Computed before this time")] = None,
    organisation: Annotated[
        str | None, typer.Option(help="The organisation; needed where the log holds several")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Write the log's predictions as a table, one row each, patients under a code or not at all.

    Exit code 2 where a limit is not met; the report says which.
    """
    several = anonymise or synthetic is not None
    _check(form, anonymise and synthetic is not None, several=several, model=model)
    if not several:
        _check_codes(pseudonyms, of, mapping_table)
    elif pseudonyms or mapping_table or of != "pseudonym":
        raise SetupError("--pseudonyms, --of and --mapping-table: no patient has a code there")
    if limits and not anonymise:
        raise SetupError("--limits: are those of --anonymise")
    settings = read_settings()
    with open_log(settings) as log:
        here = _Opened(settings, log, Privacy(settings.keys))
        cohort = Cohort(
            organisation=organisation or _only_organisation(log),
            model_id=model,
            from_=_moment("--from", from_),
            to=_moment("--to", to),
            scored=several,
        )
        asked = _Asked(cohort, out, form, who_acts(who), why[:LONGEST_WHY])
        if anonymise:
            done = _anonymous(here, asked, limits)
        elif synthetic is not None:
            done = _synthetic(here, asked, size=synthetic, seed=seed)
        else:
            done = _pseudonymous(here, asked, str(pseudonyms), of=of, mapping_table=mapping_table)
    _tell(done, as_json=as_json)
    if done.get("refused"):
        raise typer.Exit(REFUSED_EXIT)


def _check(form: str, both: bool, *, several: bool, model: str | None) -> None:
    if form not in WRITERS:
        raise SetupError(f"--format {form}: one of {', '.join(WRITERS)}")
    if both:
        raise SetupError("--anonymise and --synthetic: one at a time")
    if several and model is None:
        raise SetupError("--model: is needed, since each model has its own columns")


def _check_codes(pseudonyms: str | None, of: str, mapping_table: Path | None) -> None:
    if pseudonyms is None:
        raise SetupError(f"--pseudonyms: one of {', '.join(WAYS)}, or --anonymise or --synthetic")
    check_way(pseudonyms)
    if of not in BASES:
        raise SetupError(f"--of {of}: one of {', '.join(BASES)}")
    if (pseudonyms == "mapping-table") != (mapping_table is not None):
        raise SetupError("--mapping-table: a file, with --pseudonyms mapping-table and only there")


def _only_organisation(log: PredictionLog) -> str:
    found = organisations_in(log.engine)
    if len(found) != 1:
        raise SetupError(f"--organisation: the log holds predictions of {len(found)}; name one")
    return found[0]


def _moment(name: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return datetime.fromtimestamp(parse_time(text), UTC)
    except ValueError:
        raise SetupError(f"{name} {text}: no date or time") from None


# ---- pseudonymous ---------------------------------------------------------------------------


def _pseudonymous(
    here: _Opened, asked: _Asked, way: str, *, of: str, mapping_table: Path | None
) -> dict[str, Any]:
    files = [asked.out, *([mapping_table] if mapping_table else [])]
    require_new(*files)
    coder = _coder(here, way, of)
    exported = _read(here, asked, coder, of=of)
    counted = {"rows": len(exported.table), "uncoded": exported.uncoded}
    here.log.audit(asked.entry("export", pseudonyms=way, of=of, **counted)).result()
    if mapping_table and isinstance(coder, RandomCodes):
        write_new(mapping_table, csv_lines([("code", "patient_pseudonym"), *coder.table]))
    write_new(asked.out, WRITERS[asked.form](exported.table))
    return {"files": [str(path) for path in files], **counted, "keys": exported.keys}


def _coder(here: _Opened, way: str, of: str) -> Coder:
    if way not in KEYED:
        return RandomCodes()
    given = here.settings.export_key
    text = given.get_secret_value() if given else None
    key = export_key(text, *here.settings.keys)
    return keyed_coder(way, of, key)


def _read(here: _Opened, asked: _Asked, coder: Coder, *, of: str = "pseudonym") -> Exported:
    """The table; that the vault is opened for it is on record first."""
    sealed = of != "pseudonym"
    if sealed:
        here.log.audit(asked.entry("open vault", of=of)).result()
    rows = cohort_rows(here.log.engine, asked.cohort, sealed=sealed)
    exported = read_cohort(rows, coder, of=of, privacy=here.privacy)
    if exported.table.empty:
        raise SetupError("no predictions there: see --organisation, --model, --from and --to")
    return exported


# ---- anonymous ------------------------------------------------------------------------------


def _anonymous(here: _Opened, asked: _Asked, limits_file: Path | None) -> dict[str, Any]:
    from validation.anonymise import anonymise

    folder = folder_to_write(asked.out)
    data, reports = _files(folder, "anonymised", asked.form, "report")
    limits = _limits(limits_file)
    exported = _read(here, asked, RandomCodes())
    patients = exported.table["patient"]
    done = anonymise(exported.table, patients, limits=limits, staff=_staff(here.log))
    figures = {name: done.report[name] for name in ("passed", "k", "l")}
    here.log.audit(asked.entry("export anonymised", **figures)).result()
    report = _about(asked) | done.report
    return _leave(
        done.table, report, data=data, reports=reports, asked=asked, title="Anonymisation"
    )


def _limits(path: Path | None) -> Any:
    from validation.anonymise import Limits

    if path is None:
        return Limits()
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Limits)
    except OSError as error:
        raise SetupError(f"--limits {path}: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise SetupError(
            f"--limits {path}: {error} (docs/export.md says what each may be)"
        ) from None


def _staff(log: PredictionLog) -> list[str]:
    """The names of staff that are on record here."""
    history = read_history(log.engine)
    return sorted(
        {
            *(one.who for one in history.decisions),
            *(one.who for one in history.validations),
            *(name for one in history.records for name in (one.who, one.clinical_owner)),
        }
    )


# ---- synthetic ------------------------------------------------------------------------------


def _synthetic(here: _Opened, asked: _Asked, *, size: int, seed: int) -> dict[str, Any]:
    from validation.errors import ValidationError
    from validation.likeness import halves, judged
    from validation.synthetic_copy import synthetic_copy

    folder = folder_to_write(asked.out)
    data, reports = _files(folder, "synthetic", asked.form, "synthetic-report")
    exported = _read(here, asked, RandomCodes())
    table = exported.table.dropna(subset=["patient"])
    risks = [name for name in table if str(name).startswith("risk:")]
    try:
        real = halves(table[[*exported.features, *risks]], table["patient"], seed=seed)
    except ValidationError as error:
        raise SetupError(f"--synthetic: {error}") from None
    patients = table["patient"][real.made_from.index]
    copy = synthetic_copy(real.made_from, patients, size=size, seed=seed)
    thresholds = {str(n): float(table[f"threshold:{n[5:]}"].max()) for n in map(str, risks)}
    found = judged(copy, real, features=exported.features, thresholds=thresholds)
    details = {"passed": found["passed"], "rows": size}
    here.log.audit(asked.entry("export synthetic", **details)).result()
    copy.insert(0, "synthetic", True)
    report = _about(asked) | {"seed": seed} | found
    leaves = copy if found["passed"] else None
    return _leave(leaves, report, data=data, reports=reports, asked=asked, title="Synthetic copy")


# ---- what both leave ------------------------------------------------------------------------


def _files(folder: Path, name: str, form: str, report: str) -> tuple[Path, list[Path]]:
    """The file of the data and those of the report; none of them may be there."""
    data = folder / f"{name}.{form}"
    reports = [folder / f"{report}.json", folder / f"{report}.md"]
    require_new(data, *reports)
    return data, reports


def _about(asked: _Asked) -> dict[str, Any]:
    return {
        "model": asked.cohort.model_id,
        "organisation": asked.cohort.organisation,
        "software_version": __version__,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _leave(
    table: pd.DataFrame | None,
    report: dict[str, Any],
    *,
    data: Path,
    reports: list[Path],
    asked: _Asked,
    title: str,
) -> dict[str, Any]:
    """Write the report, and the data where there are any; what was written and what was found."""
    write_new(reports[0], msgspec.json.format(msgspec.json.encode(report), indent=2))
    write_new(reports[1], as_markdown(title, report))
    if table is not None:
        write_new(data, WRITERS[asked.form](table))
    files = [*reports, *([data] if table is not None else [])]
    return {"files": [str(path) for path in files], "refused": report["refused"], "report": report}


def _tell(done: dict[str, Any], *, as_json: bool) -> None:
    if done.get("uncoded"):
        print(
            f"varsel: {done['uncoded']} rows have no patient: the vault does not hold what the "
            "codes are made of",
            file=sys.stderr,
        )
    if done.get("keys", 1) > 1:
        print(
            f"varsel: the log's pseudonyms are of {done['keys']} keys: a patient may have as many "
            "codes; exchange the keys first (docs/privacy.md)",
            file=sys.stderr,
        )
    for reason in done.get("refused", ()):
        print(f"varsel: refused: {reason}", file=sys.stderr)
    if as_json:
        print_json(done)
        return
    for path in done["files"]:
        print(path)
