"""Model families by name, imported only when asked for."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from flows.models import isolation_forest, lightgbm, logistic_regression
from flows.models.families import (
    BASELINE,
    FAMILIES,
    TABULAR_FAMILIES,
    UnknownFamilyError,
    load_families,
)
from mlruns_config.manifest import MEMBER_MODELS

ROOT = Path(__file__).resolve().parents[3]
HEAVY = ("torch", "pytorch_forecasting", "lightning")


def list_heavy_imports(families: tuple[str, ...]) -> set[str]:
    """Return which of HEAVY a fresh process has imported once it has loaded the families."""
    code = (
        "import sys; from flows.models.families import load_families; "
        f"load_families({families!r}); print(*({set(HEAVY)!r} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_an_unknown_family_is_refused_by_name_with_those_there_are():
    with pytest.raises(UnknownFamilyError) as refusal:
        load_families(["lightgbm", "xgboost", "svm"])

    assert "xgboost, svm" in str(refusal.value)
    assert all(name in str(refusal.value) for name in FAMILIES)


def test_nothing_is_imported_for_a_name_that_is_no_family():
    with pytest.raises(UnknownFamilyError):
        load_families(["member"])  # a module beside the families


def test_the_tabular_families_import_no_torch():
    assert list_heavy_imports(TABULAR_FAMILIES) == set()


def test_what_is_not_imported_could_have_been():
    # Else the test above would hold of anything.
    assert all(find_spec(name) for name in HEAVY)


def test_the_baseline_is_loaded_unasked_and_first():
    assert list(load_families([])) == [BASELINE]
    assert list(load_families(["lightgbm", BASELINE])) == [BASELINE, "lightgbm"]


def test_a_family_named_twice_is_fitted_once():
    assert list(load_families(["lightgbm", "lightgbm"])) == [BASELINE, "lightgbm"]


def test_each_family_is_fitted_by_its_own_module():
    assert load_families(TABULAR_FAMILIES) == {
        "logistic_regression": logistic_regression.fit,
        "lightgbm": lightgbm.fit,
        "isolation_forest": isolation_forest.fit,
    }


def test_every_family_can_be_registered():
    assert set(FAMILIES) == set(MEMBER_MODELS)
    assert set(TABULAR_FAMILIES) < set(FAMILIES)
