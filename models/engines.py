"""xgboost and shap, imported without the parts of them that Varsel never calls.

Both import scikit-learn (with scipy.stats), and shap also matplotlib, numba and scipy's clustering,
for wrappers, explainers and plots that are not used here: half of what the service would load at
its start, and 100 MB. Every module of this room that needs one of the two takes it from here.
Training imports the real scikit-learn itself.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any


class _Blank(ModuleType):
    """A module any name can be imported from; each name is an empty class.

    As a decorator, which is what numba's are used as, it leaves a function as it is.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__new__": _left_as_it_is})


def _left_as_it_is(cls: type, decorated: Any = None, **_: Any) -> Any:
    return object.__new__(cls) if decorated is None else decorated


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
    """`root` and what is below it is blank meanwhile, unless the real one is there already.

    Blank parts of a real package are taken off it again; scipy loads its own when asked for them.
    """
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
        package, _, part = root.rpartition(".")
        if package in sys.modules:
            vars(sys.modules[package]).pop(part, None)


with _absent("sklearn"):
    import xgboost


def tree_explainer() -> Any:
    """shap's TreeExplainer, imported at the first call, or the commands that never score wait."""
    with ExitStack() as unused:
        unused.enter_context(_absent("matplotlib"))
        for root in ("sklearn", "numba", "scipy.cluster", "scipy.spatial"):
            unused.enter_context(_blank(root))
        from shap import TreeExplainer
    return TreeExplainer


__all__ = ["tree_explainer", "xgboost"]
