"""Feast is imported without what costs a process seconds and memory (ADR 87)."""

import subprocess
import sys

import pytest
import typeguard

from feature_repo.feast_library import import_less


def run_python(script: str) -> list[str]:
    command = [sys.executable, "-W", "ignore", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_the_definitions_are_imported_without_torch():
    loaded = run_python(
        "import sys, feature_repo.definitions; "
        "print('feast' in sys.modules, 'torch' in sys.modules)"
    )
    assert loaded == ["True", "False"]


def test_feasts_classes_are_not_compiled_again_for_type_checks():
    used = run_python(
        "from feature_repo.feast_library import FeatureView; "
        "print('typeguard' in FeatureView.__init__.__code__.co_names)"
    )
    assert used == ["False"]


def test_torch_and_type_checks_are_there_afterwards():
    there = run_python(
        "import feature_repo.feast_library, torch, typeguard; "
        "print(torch.ones(2).sum().item(), typeguard.typechecked.__name__)"
    )
    assert there == ["2.0", "typechecked"]


def test_an_import_that_fails_leaves_them_as_they_were():
    checks, torch = typeguard.typechecked, sys.modules.get("torch")
    with pytest.raises(ImportError, match="no such"), import_less():
        raise ImportError("no such module")
    assert typeguard.typechecked is checks
    assert sys.modules.get("torch") is torch
    assert ("torch" in sys.modules) is (torch is not None)
