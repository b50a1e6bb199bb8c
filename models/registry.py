"""Which packages this installation serves: found in folders, admitted or refused by name.

A package is admitted only if its manifest is valid, its checksums hold, its worked examples replay,
and, where it is synthetic, synthetic models are allowed. A refused package is kept with its fault,
so that readiness and `varsel doctor` can say it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from models.errors import PackageRefused, UnknownModel
from models.examples import replay_examples
from models.package import Package, load_package

BUNDLED = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Registry:
    """The packages served, by id, and those refused with their fault."""

    packages: dict[str, Package]
    refused: dict[str, str]

    def find(self, model_id: str) -> Package:
        """The package of an id; UnknownModel where there is none."""
        try:
            return self.packages[model_id]
        except KeyError:
            raise UnknownModel(model_id) from None


def package_folders(*roots: Path) -> list[Path]:
    """The package folders in some folders: those with a manifest."""
    found = (path.parent for root in roots for path in sorted(root.glob("*/manifest.toml")))
    return list(found)


def load_registry(folders: Iterable[Path], *, allow_synthetic: bool) -> Registry:
    """Every package of the folders, admitted or refused."""
    packages: dict[str, Package] = {}
    refused: dict[str, str] = {}
    for folder in folders:
        try:
            package = admit(folder, allow_synthetic=allow_synthetic)
        except PackageRefused as refusal:
            refused[folder.name] = refusal.fault
        else:
            if package.id in packages:
                refused[package.id] = "another package of this id is served already"
            else:
                packages[package.id] = package
    return Registry(packages, refused)


def admit(folder: Path, *, allow_synthetic: bool) -> Package:
    """A package that passed every check. Raises PackageRefused with the first that failed."""
    package = load_package(folder)
    if package.manifest.synthetic and not allow_synthetic:
        raise PackageRefused(package.id, "trained on synthetic data, which is not allowed here")
    replay_examples(package)
    return package
