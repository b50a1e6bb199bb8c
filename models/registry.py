"""Which packages this installation has: found in folders, admitted or refused by name.

A package lies in `ROOT/ID`, or in `ROOT/ID/VERSION` beside other versions of its id. It is admitted
only if its manifest is valid, its checksums hold, its worked examples replay, and, where it is
synthetic, synthetic models are allowed. A refused package is kept with its fault, so that readiness
and `varsel doctor` can say it, and never keeps the others from serving. Which of the admitted ones
is in service is decided by people, and is the service's business.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from models.errors import PackageRefused, UnknownModel
from models.evaluation import is_specification
from models.examples import replay_examples
from models.manifest import folder_id, is_version, read_manifest
from models.package import Package, load_package, sums_checksum

BUNDLED = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Registry:
    """The packages admitted, and those refused with their fault; by `ID@VERSION` or folder."""

    packages: dict[str, Package]
    refused: dict[str, str]

    def find(self, model_id: str, version: str | None = None) -> Package:
        """The package of an id and version; of an id alone, the only one it has.

        Raises UnknownModel where there is none, or where there are several to choose from.
        """
        found = [p for p in self.packages.values() if p.id == model_id]
        chosen = [p for p in found if version in (None, p.manifest.version)]
        if len(chosen) != 1:
            raise UnknownModel(model_id if version is None else f"{model_id}@{version}")
        return chosen[0]


def package_folders(*roots: Path) -> list[Path]:
    """The package folders in some folders: `ID` and `ID/VERSION` with a manifest, hidden ones
    (something being unpacked) left out.
    """
    return [
        path.parent
        for root in roots
        for path in sorted([*root.glob("*/manifest.toml"), *root.glob("*/[0-9]*/manifest.toml")])
        if not path.relative_to(root).parts[0].startswith(".")
    ]


def package_name(folder: Path) -> str:
    """What a package is called by its folder: its id, or `ID@VERSION` beside other versions."""
    return f"{folder_id(folder)}@{folder.name}" if is_version(folder) else folder.name


def folder_version(folder: Path) -> str:
    """The version in a package's folder. Raises PackageRefused where only a manifest that cannot
    be read could say.
    """
    return folder.name if is_version(folder) else read_manifest(folder).version


def reference(package: Package) -> str:
    """A package's id and version as they are typed: `ID@VERSION`."""
    return f"{package.id}@{package.manifest.version}"


def folder_of(folders: Iterable[Path], checksum: str) -> Path | None:
    """The folder of the package with a checksum, as predictions name it; None where none has it."""
    return next((folder for folder in folders if sums_checksum(folder) == checksum), None)


def load_registry(folders: Iterable[Path], *, allow_synthetic: bool) -> Registry:
    """Every package of the folders, admitted or refused; specifications are none."""
    packages: dict[str, Package] = {}
    refused: dict[str, str] = {}
    for folder in folders:
        if is_specification(folder):
            continue
        try:
            package = admit(folder, allow_synthetic=allow_synthetic)
        except PackageRefused as refusal:
            refused[package_name(folder)] = refusal.fault
        else:
            if reference(package) in packages:
                fault = "another package of this id and version is here already"
                refused[package_name(folder)] = fault
            else:
                packages[reference(package)] = package
    return Registry(packages, refused)


def admit(folder: Path, *, allow_synthetic: bool) -> Package:
    """A package that passed every check. Raises PackageRefused with the first that failed."""
    package = load_package(folder)
    if package.manifest.synthetic and not allow_synthetic:
        raise PackageRefused(package.id, "trained on synthetic data, which is not allowed here")
    replay_examples(package)
    return package
