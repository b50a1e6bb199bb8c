"""xgboost and shap, imported without the parts of them that Varsel never calls.

Both import scikit-learn (with scipy.stats) and shap also matplotlib, for wrappers, explainers and
plots that are not used here: a third of the start of the service and 70 MB. Every module of this
room that needs one of the two takes it from here. Training imports the real scikit-learn itself.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


class _Blank(ModuleType):
    """A module any name can be imported from; each name is an empty class."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class _Lender(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a blank module for every name at or below `root`."""

    def __init__(self, root: str) -> None:
        self.root = root

    def find_spec(
        self, fullname: str, _path: object = None, _target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not _below(fullname, self.root):
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _Blank(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run: the module is blank."""


def _below(name: str, root: str) -> bool:
    return name == root or name.startswith(f"{root}.")


@contextmanager
def _absent(root: str) -> Iterator[None]:
    """`root` cannot be imported meanwhile; whoever treats it as optional goes without."""
    real = sys.modules.get(root)
    sys.modules[root] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if real is None:
            del sys.modules[root]
        else:
            sys.modules[root] = real


@contextmanager
def _blank(root: str) -> Iterator[None]:
    """`root` and what is below it is blank meanwhile, unless the real one is there already."""
    if root in sys.modules:
        yield
        return
    lender = _Lender(root)
    sys.meta_path.insert(0, lender)
    try:
        yield
    finally:
        sys.meta_path.remove(lender)
        for name in [name for name in sys.modules if _below(name, root)]:
            del sys.modules[name]


with _absent("sklearn"):
    import xgboost


def tree_explainer() -> Any:
    """shap's TreeExplainer, imported at the first call, or the commands that never score wait."""
    with _absent("matplotlib"), _blank("sklearn"):
        from shap import TreeExplainer
    return TreeExplainer


__all__ = ["tree_explainer", "xgboost"]
