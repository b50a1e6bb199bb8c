"""`varsel cohort`: synthetic Bulk Data, and features and outcomes from any Bulk Data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cds_service.cli.console import (
    JSON_HELP,
    folder_to_read,
    folder_to_write,
    print_json,
    progress_bar,
)
from cds_service.errors import SetupError
from cds_service.service import find_folder
from models.cohort import Cohort, build_cohort
from models.package import read_specification

Json = Annotated[bool, typer.Option("--json", help=JSON_HELP)]
Out = Annotated[Path, typer.Option("--out", help="Where to write")]


def synth(
    model: Annotated[str, typer.Argument(help="Model the cohort is for")],
    patients: Annotated[int, typer.Option(min=1, max=10_000_000)],
    seed: Annotated[int, typer.Option(min=0)],
    out: Out,
    as_json: Json = False,
) -> None:
    """Write a SYNTHETIC cohort as FHIR Bulk Data (NDJSON), the same for the same seed."""
    from models.synthetic import GENERATORS
    from models.synthetic.bulk import write_bulk_data

    if model not in GENERATORS:
        raise SetupError(f"no generator for {model}; there are: {', '.join(GENERATORS)}")
    with progress_bar("patients") as told:
        manifest = write_bulk_data(
            GENERATORS[model],
            folder_to_write(out),
            patients=patients,
            seed=seed,
            progress=lambda done: told(done, patients),
        )
    if as_json:
        print_json(
            {
                "out": str(out),
                "patients": patients,
                "seed": seed,
                "synthetic": True,
                "resources": manifest.counts,
            }
        )
    else:
        total = sum(manifest.counts.values())
        print(f"{patients} SYNTHETIC patients, {total} resources in {out} (seed {seed})")


def build(
    model: Annotated[str, typer.Argument(help="Model whose features are computed")],
    ndjson_dir: Annotated[Path, typer.Argument(help="Folder of Bulk Data NDJSON")],
    out: Annotated[Path, typer.Option("--out", help="Parquet file to write")],
    as_json: Json = False,
) -> None:
    """Write features, reference scores and outcomes of every eligible index to a Parquet file."""
    import pyarrow
    from pyarrow import parquet

    spec = read_specification(find_folder(model))
    folder_to_write(out.parent)
    with progress_bar("patients") as told:
        cohort = build_cohort(
            spec, folder_to_read(ndjson_dir, "NDJSON_DIR"), with_scores=True, progress=told
        )
    parquet.write_table(pyarrow.Table.from_pandas(cohort.frame, preserve_index=False), out)
    states = {head.id: _states(cohort, head.id) for head in spec.manifest.heads}
    if as_json:
        print_json(
            {
                "out": str(out),
                "patients": cohort.patients,
                "indexes": cohort.indexes,
                "rows": len(cohort.frame),
                "states": states,
                "excluded": cohort.excluded,
            }
        )
        return
    print(f"{cohort.patients} patients, {cohort.indexes} indexes")
    for reason, count in cohort.excluded.items():
        print(f"  {count:>8}  left out: {reason}")
    for state, count in _by_head(states):
        print(f"  {count:>8}  {state}")
    print(f"{len(cohort.frame)} rows in {out}")


def _states(cohort: Cohort, head: str) -> dict[str, int]:
    counts = cohort.frame[f"state:{head}"].value_counts()
    return {str(state): int(n) for state, n in counts.items()}


def _by_head(states: dict[str, dict[str, int]]) -> list[tuple[str, int]]:
    return [(f"{head} {state}", n) for head, found in states.items() for state, n in found.items()]
