"""Which libraries compute here: what a number must be compared with to be the same to the last bit.

Logged with every prediction and shown by `varsel replay`; nothing is decided by it.
"""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

LONGEST = 128
"""Characters the prediction log keeps of it."""
_COMPUTING = {"numpy": ("numpy",), "shap": ("shap",), "xgboost": ("xgboost-cpu", "xgboost")}
"""What computes risk and points, each under the names it is distributed by."""


@cache
def libraries() -> str:
    """The libraries risk and points are computed with, and the kind of processor.

    Such as "numpy 2.3.5, shap 0.51.0, xgboost 3.2.0, x86_64": at most LONGEST characters. Found out
    once a process. A library that is not installed is left out.
    """
    found = {name: _version(distributions) for name, distributions in _COMPUTING.items()}
    said = [f"{name} {version}" for name, version in found.items() if version]
    return ", ".join([*said, platform.machine()])[:LONGEST]


def _version(distributions: tuple[str, ...]) -> str | None:
    for name in distributions:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None
