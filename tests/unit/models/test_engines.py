"""xgboost and shap go without what they never call; whoever needs the real one still gets it."""

from __future__ import annotations

import subprocess
import sys

AFTERWARDS = """
import sys
from models.engines import tree_explainer, xgboost
tree_explainer()
unused = ("sklearn", "matplotlib", "numba", "scipy.cluster", "scipy.spatial")
assert not [name for name in sys.modules if f"{name}.".startswith(tuple(f"{u}." for u in unused))]
import scipy
assert scipy.spatial.distance.euclidean([0.0], [3.0]) == 3.0
from scipy.cluster.hierarchy import linkage
assert linkage([[0.0], [1.0], [5.0]], "single")[:, 2].tolist() == [1.0, 4.0]
import shap.utils
assert shap.utils.hclust_ordering([[0.0], [5.0], [1.0]]).tolist() in ([1, 0, 2], [1, 2, 0])
import numba
assert numba.njit(lambda x: x + 1)(2) == 3
from sklearn.linear_model import LogisticRegression
import matplotlib
fitted = LogisticRegression().fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])
assert fitted.predict([[3.0]])[0] == 1
assert matplotlib.__version__
"""

BEFORE = """
import sklearn.linear_model, matplotlib
real = sklearn.linear_model.LogisticRegression
from models.engines import tree_explainer, xgboost
tree_explainer()
import sys
assert sys.modules["sklearn"] is sklearn and sys.modules["matplotlib"] is matplotlib
from sklearn.linear_model import LogisticRegression
assert LogisticRegression is real
"""


def _runs(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_real_libraries_can_be_imported_afterwards() -> None:
    """Training scores with the real scikit-learn in a process that has explained before."""
    _runs(AFTERWARDS)


def test_what_was_imported_before_stays_as_it_was() -> None:
    """A process that already has scikit-learn keeps its own."""
    _runs(BEFORE)
