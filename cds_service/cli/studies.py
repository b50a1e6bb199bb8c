"""`varsel validate` and `varsel drift`: one-shot studies, each with a report that opens offline.

Both compute features on the one feature path. Their libraries belong to the `study` and `drift`
extras and are imported only when the command runs.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np
import pandas as pd
import typer

from cds_service import __version__
from cds_service.cli.audited import LONGEST_WHY, put_on_record, who_acts
from cds_service.cli.console import (
    JSON_HELP,
    folder_to_read,
    folder_to_write,
    print_json,
    progress_bar,
)
from cds_service.db.audit import AuditEntry
from cds_service.db.log import open_engine
from cds_service.db.reader import LogReader
from cds_service.errors import BadRequest, SetupError
from cds_service.service import find_folder
from cds_service.settings import read_settings
from fhir_adapters.clock import parse_time
from models.cohort import Cohort, build_cohort
from models.manifest import Head
from models.package import Package, load_package, read_table
from models.scores.about import ABOUT
from models.scores.comparators import comparators

if TYPE_CHECKING:
    from validation.comparison import Comparator
    from validation.report import ModelFacts

Json = Annotated[bool, typer.Option("--json", help=JSON_HELP)]
Model = Annotated[str, typer.Option("--model", help="Model id")]
Out = Annotated[Path, typer.Option("--out", help="Folder to write the report to")]
INVENTED = "synthetic:"
"""How the request of a synthetic export's manifest begins (`models/synthetic/bulk.py`)."""
TEST_LABEL = b'"HTEST"'
"""Security label of test data: HL7 v3 ActReason, as synthetic patients carry it in `meta`."""


def validate(
    model: Model,
    data: Annotated[Path, typer.Option("--data", help="Folder of Bulk Data NDJSON")],
    out: Out,
    head_id: Annotated[
        str | None, typer.Option("--head", help="Which outcome, where the model has several")
    ] = None,
    bootstrap: Annotated[int, typer.Option(min=100, help="Bootstrap draws")] = 1000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: Json = False,
) -> None:
    """Validate a model on Bulk Data: report.html, report.json and tables/*.csv."""
    from validation.analysis import validate as analyse
    from validation.errors import ValidationError
    from validation.report import write_report

    package, cohort = _cohort(model, data, with_scores=True)
    head = _head(package, head_id)
    rows = cohort.of_head(head.id)
    risks = _risks(package, head.id, rows)
    scores = [name for name in rows.columns if name.startswith(("score:", "score-risk:"))]
    frame = rows[["patient", "index_time", "state", *scores]].assign(risk=risks)
    bands = {band.from_risk for band in head.bands if band.from_risk > 0}
    invented = is_synthetic(data)
    try:
        with progress_bar("bootstrap") as told:
            result = analyse(
                frame,
                thresholds=sorted({*bands, head.threshold}),
                excluded=cohort.excluded,
                comparators=_comparators(package, head.id),
                bootstrap=bootstrap,
                seed=seed,
                progress=lambda _, done, total: told(done, total),
            )
    except ValidationError as error:
        raise SetupError(f"--data: {error}") from None
    folder_to_write(out)
    page = write_report(
        result,
        out,
        title=f"{head.title.en}: validation",
        model=_facts(package),
        head={"id": head.id, "threshold": head.threshold},
        plan=f"Outcome: {head.outcome}. Every eligible index of the data, features and "
        "eligibility computed as when serving.",
        data={data.name: _digest(data)},
        synthetic_data=invented,
        software_version=__version__,
        made_at=datetime.now(UTC),
    )
    if as_json:
        print_json(msgspec.json.decode((out / "report.json").read_bytes()))
        return
    compared = (s for one in result.comparisons for s in (one.share, *one.statistics))
    for statistic in (*result.statistics, *compared):
        print(f"{statistic.name:<34} {_text(statistic)}")
    print(f"report: {page}")


def _comparators(package: Package, head_id: str) -> list[Comparator]:
    """The package's reference scores that predict something comparable with a head."""
    from validation.comparison import Comparator

    compared = comparators(package.id, head_id, package.manifest.reference_scores)
    return [
        Comparator(
            id=name,
            label=ABOUT[name].label.en,
            version=ABOUT[name].version,
            predicts=outcome.en if (outcome := ABOUT[name].outcome) else "",
            risk_of=risk_of,
        )
        for name, risk_of in compared.items()
    ]


def drift(
    model: Model,
    out: Out,
    data: Annotated[Path | None, typer.Option("--data", help="Folder of Bulk Data NDJSON")] = None,
    since: Annotated[str | None, typer.Option("--since", help="Logged predictions from")] = None,
    who: Annotated[str | None, typer.Option(help="Who asks; else the account's name")] = None,
    why: Annotated[str, typer.Option(help="Why, for the audit trail")] = "",
    as_json: Json = False,
) -> None:
    """Compare features with the package's reference: report.html and metrics.json."""
    from monitoring.comparison import Column
    from monitoring.drift import describe, drift_report
    from monitoring.errors import MonitoringError

    if (data is None) == (since is None):
        raise SetupError("give one of --data and --since")
    package, current = (
        _given(model, data) if data else _logged(model, since or "", who=who_acts(who), why=why)
    )
    names, rows = read_table(package.folder / "reference.csv")
    reference = pd.DataFrame(rows, columns=names)
    reference = reference.assign(**_all_risks(package, reference))
    columns = [
        Column(f.name, f.label.en, "binary" if f.yes_no else "numeric")
        for f in package.manifest.inputs
    ]
    columns += [
        Column(f"risk_{head.id}", f"Risk: {head.title.en}", "numeric")
        for head in package.manifest.heads
    ]
    try:
        result = drift_report(
            reference,
            current,
            columns=columns,
            out_dir=folder_to_write(out),
            model=dict(_facts(package)),
            made_at=datetime.now(UTC),
            patient="patient" if "patient" in current else None,
        )
    except MonitoringError as error:
        raise SetupError(str(error)) from None
    if as_json:
        print_json({"out": str(out), **describe(result)})
        return
    for alarm in result.alarms:
        print(f"ALARM {alarm.column}: {alarm.text}")
    print(f"{len(result.alarms)} alarms, {result.rows_current} rows; report: {out}/report.html")


def _cohort(model: str, data: Path, *, with_scores: bool = False) -> tuple[Package, Cohort]:
    package = load_package(find_folder(model))
    with progress_bar("patients") as told:
        cohort = build_cohort(
            package, folder_to_read(data, "--data"), with_scores=with_scores, progress=told
        )
    return package, cohort


def _head(package: Package, head_id: str | None) -> Head:
    """The head of an id; the first where none is named."""
    heads = {head.id: head for head in package.manifest.heads}
    if not heads:
        raise SetupError(f"{package.id} has rankings only, and rankings are not validated")
    if head_id is None:
        return package.manifest.heads[0]
    if head_id not in heads:
        raise SetupError(f"--head: {package.id} has {', '.join(heads)}")
    return heads[head_id]


def _all_risks(package: Package, frame: pd.DataFrame) -> dict[str, Any]:
    """What every head says of every row, as columns."""
    return {f"risk_{h.id}": _risks(package, h.id, frame) for h in package.heads}


def _risks(package: Package, head_id: str, frame: pd.DataFrame) -> Any:
    head = next(h for h in package.heads if h.id == head_id)
    return head.model.risk(frame[package.columns].to_numpy(dtype=np.float64))


def _given(model: str, data: Path) -> tuple[Package, pd.DataFrame]:
    package, cohort = _cohort(model, data)
    return package, cohort.frame.assign(**_all_risks(package, cohort.frame))


def _logged(model: str, since: str, *, who: str, why: str) -> tuple[Package, pd.DataFrame]:
    """The features and risks of logged predictions, one row each; that they were read is on record
    before anything is made of them.
    """
    try:
        start = datetime.fromtimestamp(parse_time(since), UTC)
    except ValueError:
        raise BadRequest("not a time", field="--since") from None
    package = load_package(find_folder(model))
    settings = read_settings()
    log = LogReader(open_engine(settings.database))
    version = package.manifest.version
    found = log.features_since(package.id, version, start)
    counted = Counter(logged["organisation"] for logged in found) or {settings.organisation: 0}
    details = {"command": "drift", "model": package.id, "version": version, "since": since}
    entry = AuditEntry("", who, "operator", "read predictions", why=why[:LONGEST_WHY])
    put_on_record(
        settings,
        [
            replace(entry, organisation=name, details={**details, "rows": number})
            for name, number in counted.items()
        ],
    )
    rows = []
    for logged in found:
        features = {f["name"]: f["value"] for f in msgspec.json.decode(logged["features"])}
        heads = msgspec.json.decode(logged["document"])["heads"]
        rows.append(
            {
                **{c: features.get(c) for c in package.columns},
                **{f"risk_{head['head']}": head["risk"] for head in heads},
                "patient": logged["patient_pseudonym"],
            }
        )
    risks = [f"risk_{head.id}" for head in package.manifest.heads]
    columns = [*package.columns, *risks, "patient"]
    frame = pd.DataFrame(rows, columns=columns)
    numeric = [c for c in columns if c != "patient"]
    return package, frame.astype(dict.fromkeys(numeric, "float64"))


def _facts(package: Package) -> ModelFacts:
    return {
        "id": package.id,
        "version": package.manifest.version,
        "checksum": package.checksum,
        "synthetic": package.manifest.synthetic,
    }


def _digest(folder: Path) -> str:
    """SHA-256 over the folder's NDJSON files, by name."""
    whole = hashlib.sha256()
    for path in sorted(folder.glob("*.ndjson")):
        whole.update(path.name.encode())
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


class _Beside(msgspec.Struct):
    """What a file beside the data says of them: PROVENANCE.json, or the export's manifest."""

    synthetic: bool = False
    request: str = ""

    @property
    def is_invented(self) -> bool:
        return self.synthetic or self.request.startswith(INVENTED)


def is_synthetic(folder: Path) -> bool:
    """Whether Bulk Data are of invented patients, or hold any.

    By the folder's PROVENANCE.json or manifest, or by a Patient labelled as test data (HTEST): the
    label stays with the lines when only they are copied. Raises SetupError where one of the files
    cannot be read.
    """
    files = (folder / "PROVENANCE.json", folder / "manifest.json")
    if any(_beside(path).is_invented for path in files if path.exists()):
        return True
    return any(_has_test_patient(path) for path in sorted(folder.glob("Patient*.ndjson")))


def _beside(path: Path) -> _Beside:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Beside)
    except msgspec.DecodeError as error:
        raise SetupError(f"--data: {path.name}: {error}") from None


def _has_test_patient(path: Path) -> bool:
    with path.open("rb") as lines:
        return any(TEST_LABEL in line for line in lines)


def _text(statistic: Any) -> str:
    if statistic.value is None:
        return f"not estimable: {statistic.method}"
    if statistic.low is None:
        return f"{statistic.value:.4f}"
    return f"{statistic.value:.4f} ({statistic.low:.4f} to {statistic.high:.4f})"
