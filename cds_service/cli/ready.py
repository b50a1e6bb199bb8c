"""`varsel models init` and `seal`: a package around a model that was made elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cds_service.cli.console import JSON_HELP, folder_to_read, print_json
from cds_service.errors import SetupError
from cds_service.ready_card import ready_card
from models.manifest import read_manifest


def init(
    booster: Annotated[Path, typer.Argument(help="A booster as XGBoost saves it: .ubj or .json")],
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder to write; its name is the model id")
    ],
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Write the skeleton of a package around a ready booster; what is yours to say is DECIDE."""
    from models.skeleton import write_skeleton

    facts = write_skeleton(booster, folder.resolve())
    if as_json:
        print_json(
            {
                "folder": str(folder),
                "objective": facts.objective,
                "classes": facts.classes,
                "features": facts.names or facts.columns,
                "rounds": facts.rounds,
            }
        )
        return
    what = f"a ranking of {facts.classes} classes" if facts.classes else "one outcome"
    print(f"{folder / 'manifest.toml'}: {what}, {facts.columns} features, {facts.rounds} rounds")
    if facts.names is None:
        print("the booster names no columns: their names and order are yours to say")
    print(f"decide what says DECIDE, then: varsel models seal {folder} --background ROWS.csv …")


def seal(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the package")],
    background: Annotated[
        Path, typer.Option("--background", help="CSV of rows like those it was trained on")
    ],
    examples: Annotated[
        Path, typer.Option("--examples", help="Folder of FHIR Bundles (.json), one patient each")
    ],
    reference: Annotated[
        Path | None,
        typer.Option("--reference", help="CSV of rows that say which values are usual"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Make a decided skeleton a package: background, reference, worked examples, checksums."""
    from models.sealing import Material, seal

    folder = folder_to_read(folder, "DIR").resolve()
    bundles = sorted(folder_to_read(examples, "--examples").glob("*.json"))
    if not bundles:
        raise SetupError(f"--examples {examples}: holds no .json file")
    card = ready_card(read_manifest(folder))
    package = seal(folder, Material(background, reference, bundles, card))
    if as_json:
        print_json(
            {"id": package.id, "checksum": package.checksum, "examples_replayed": len(bundles)}
        )
        return
    print(f"{package.id}: admitted, {len(bundles)} examples replayed, {package.checksum}")
