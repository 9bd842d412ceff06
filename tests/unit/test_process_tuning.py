"""Tuning of the interpreter for a long process."""

from __future__ import annotations

import gc
import importlib

import pytest

from ragsvc.cli.process_tuning import imports_kept, settle, suspend_collections


@pytest.fixture(autouse=True)
def thawed():
    yield
    gc.unfreeze()
    gc.enable()


def test_imports_run_without_collections_and_their_objects_are_kept() -> None:
    frozen = gc.get_freeze_count()
    with imports_kept():
        assert not gc.isenabled()
        made = [[] for _ in range(100)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= frozen + len(made)


def test_collections_go_on_after_a_failed_import() -> None:
    frozen = gc.get_freeze_count()
    with pytest.raises(ImportError), imports_kept():
        importlib.import_module("ragsvc.no_such_module")
    assert gc.isenabled()
    assert gc.get_freeze_count() == frozen


def test_a_start_runs_without_collections_until_it_settles() -> None:
    frozen = gc.get_freeze_count()
    suspend_collections()
    assert not gc.isenabled()
    made = [[] for _ in range(100)]
    settle()
    assert gc.isenabled()
    assert gc.get_freeze_count() >= frozen + len(made)
