"""Every error this room raises, as a tree.

    ModelError
    ├── PackageRefused    a package's files, manifest or examples do not hold: not admitted
    ├── SignatureRefused  a key, a list of publishers or a signature that does not hold
    ├── ServedOnly        a head that can be served, asked for what it does not have
    ├── TrainingRefused   a cohort that cannot be trained on
    └── UnknownModel      nobody offers the model that was asked for

A refused package is named with what is wrong; it is never served and never silently skipped.
"""

from __future__ import annotations


class ModelError(Exception):
    """Anything this room refuses."""


class PackageRefused(ModelError):
    """A model package that must not be served. The message names the file and the fault."""

    def __init__(self, model_id: str, fault: str) -> None:
        super().__init__(f"{model_id}: {fault}")
        self.model_id = model_id
        self.fault = fault


class SignatureRefused(ModelError):
    """A key, a list of publishers or a signature that does not hold. The message says what."""


class ServedOnly(ModelError):
    """A head that can be served, and neither trained nor validated. The message names the field."""


class TrainingRefused(ModelError):
    """A cohort that cannot be trained on: too few events, or nothing but events."""


class UnknownModel(ModelError):
    """No model of that id is here."""
