"""`varsel models`: list, check, show the card of, and train model packages."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from cds_service.cli.console import (
    JSON_HELP,
    folder_to_read,
    folder_to_write,
    print_json,
    progress_bar,
)
from cds_service.errors import SetupError
from cds_service.service import all_folders, find_folder
from cds_service.settings import read_settings
from cds_service.wording import printable
from models.errors import PackageRefused
from models.evaluation import is_specification
from models.examples import replay_examples
from models.exchange import specifications_in
from models.package import load_package
from models.registry import load_registry

Json = Annotated[bool, typer.Option("--json", help=JSON_HELP)]


def list_models(as_json: Json = False) -> None:
    """List the model packages, specifications, and those refused with the reason."""
    folders = all_folders(read_settings())
    registry = load_registry(folders, allow_synthetic=True)
    specifications, broken = specifications_in(folders)
    refused = registry.refused | broken
    rows = [
        {
            "id": p.id,
            "version": p.manifest.version,
            "title": p.manifest.title.en,
            "synthetic": p.manifest.synthetic,
            "hooks": p.manifest.hooks,
            "features": len(p.columns),
            "checksum": p.checksum,
        }
        for p in registry.packages.values()
    ]
    if as_json:
        print_json({"models": rows, "specifications": specifications, "refused": refused})
        return
    for row in rows:
        mark = "SYNTHETIC" if row["synthetic"] else ""
        print(f"{row['id']:<24} {row['version']:<8} {row['features']} features  {mark}")
    for spec in specifications:
        print(f"{spec.id:<24} {spec.version:<8} specification, never servable")
    for name, fault in refused.items():
        print(f"{name:<24} REFUSED  {fault}")


def check(
    model: Annotated[str | None, typer.Argument(help="Model id; all where none is named")] = None,
    as_json: Json = False,
) -> None:
    """Check packages as admission does: manifest, checksums, worked examples. 1 where one fails."""
    folders = [find_folder(model)] if model else all_folders(read_settings())
    folders = [folder for folder in folders if model or not is_specification(folder)]
    results = []
    for folder in folders:
        try:
            package = load_package(folder)
            replayed = replay_examples(package)
        except PackageRefused as refusal:
            results.append({"id": folder.name, "admitted": False, "fault": refusal.fault})
        else:
            results.append(
                {
                    "id": package.id,
                    "admitted": True,
                    "checksum": package.checksum,
                    "examples_replayed": replayed,
                }
            )
    if as_json:
        print_json(results)
    else:
        for result in results:
            verdict = (
                f"admitted, {result['examples_replayed']} examples replayed, {result['checksum']}"
                if result["admitted"]
                else f"REFUSED: {result['fault']}"
            )
            print(f"{result['id']}: {verdict}")
    if not all(result["admitted"] for result in results):
        raise typer.Exit(1)


def card(model: Annotated[str, typer.Argument(help="Model id")], as_json: Json = False) -> None:
    """Print the model card."""
    folder = find_folder(model)
    try:
        text = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    except OSError as error:
        raise PackageRefused(folder.name, f"MODEL_CARD.md: {error.strerror}") from None
    if as_json:
        print_json({"id": model, "card": text})
    else:
        for line in text.splitlines():
            print(printable(line))


def train(
    model: Annotated[str, typer.Argument(help="Model id, or the folder of its manifest")],
    data: Annotated[Path, typer.Option("--data", help="Folder of Bulk Data NDJSON")],
    gate_data: Annotated[
        Path | None,
        typer.Option("--gate-data", help="Independent Bulk Data whose figures go on the card"),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option("--work", help="Folder to keep finished parts in, and to continue from"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a package from Bulk Data: trees, baseline, background, examples, card, checksums."""
    from cds_service.training.run import train_package
    from validation.errors import ValidationError

    folder = find_folder(model)
    started = time.perf_counter()
    try:
        with progress_bar("patients") as told, progress_bar("rounds") as rounds:
            done = train_package(
                folder,
                folder_to_read(data, "--data"),
                gate_data=folder_to_read(gate_data, "--gate-data") if gate_data else None,
                cohort_progress=told,
                training_progress=rounds,
                work=folder_to_write(work, "--work") if work else None,
            )
    except ValidationError as error:
        raise SetupError(f"the newest part, or the gate, cannot be judged: {error}") from None
    done["seconds"] = round(time.perf_counter() - started, 1)
    done["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    if as_json:
        print_json(done)
        return
    cohort = done["cohort"]
    print(f"{cohort['patients']} patients, {cohort['indexes']} indexes, {cohort['rows']} rows")
    if done["reused"]:
        print(f"continued from {work}: {', '.join(done['reused'])}")
    for head, made in done["heads"].items():
        for reason in made["reasons"]:
            print(f"{head}: experimental: {reason}")
        for warning in made["warnings"]:
            print(f"{head}: warning: {warning}")
        if made.get("preferred") == "logistic":
            print(f"{head}: the logistic model is preferred: {made['preferred_because']}")
            print(f'{head}: to serve it, say kind = "logistic" in heads.{head} and train again')
        for part in ("test", "gate"):
            if part in made:
                print(f"{head}, {part}: {_figures(made[part])}")
    print(f"{done['seconds']} s, at most {done['peak_memory_mb']} MB; all of it in MODEL_CARD.md")


def _figures(part: dict[str, Any]) -> str:
    """The main figures of one part on one line."""
    logistic = part["logistic"]
    served = part.get("trees", logistic)
    named = (("AUROC", "auroc"), ("slope", "calibration_slope"), ("O/E", "observed_expected"))
    said = ", ".join(f"{label} {served[name]['value']:.3f}" for label, name in named)
    beside = f" (logistic AUROC {logistic['auroc']['value']:.3f})" if "trees" in part else ""
    return f"{part['n']} rows, {part['events']} events, {said}{beside}"
