"""``arcforge replay``: any row again, alone, to the same bits; a row that differs is told."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from arcforge.cli.app import app
from arcforge.engine import open_store
from arcforge.engine.inject import inject


@pytest.fixture(scope="module")
def store(tmp_path_factory, small_config):
    return inject(tmp_path_factory.mktemp("replay") / "S.zarr", config=small_config, n=300, seed=2)


def replay(path, *arguments: str):
    return CliRunner().invoke(app, ["replay", str(path), *arguments])


def test_rows_are_the_same_bit_for_bit(store, tmp_path):
    done = replay(
        store.path, "--rows", "299,7,100:103", "--out", str(tmp_path / "rows.npz"), "--threads", "1"
    )
    assert done.exit_code == 0, done.output
    assert "5 rows are the same, bit for bit" in done.stdout
    rows = np.array([299, 7, 100, 101, 102])
    with np.load(tmp_path / "rows.npz") as found:
        np.testing.assert_array_equal(found["rows"], rows)
        np.testing.assert_array_equal(found["stamps"], store.stamps(rows))
        np.testing.assert_array_equal(found["ctrls"], store.ctrls(rows))
        np.testing.assert_array_equal(found["arcs"], store.arcs(rows))


def test_a_row_that_is_not_what_its_parameters_say_is_told(store, monkeypatch):
    from arcforge.engine.store import Store

    real = Store.arcs

    def changed(self, rows):
        arcs = real(self, rows)
        arcs[-1, 0, 3, 3] = np.nextafter(arcs[-1, 0, 3, 3], np.float32(np.inf))
        return arcs

    monkeypatch.setattr(Store, "arcs", changed)
    done = replay(store.path, "--rows", "3:6")
    assert done.exit_code == 20
    assert "1 of 3 rows differ, the first is row 5" in done.stderr


def test_rows_that_are_not_there_are_refused(store):
    assert replay(store.path, "--rows", "300").exit_code == 2
    assert "not in a store of 300 rows" in replay(store.path, "--rows", "300").stderr


def test_an_imported_store_has_nothing_to_replay(store, tmp_path):
    from arcforge.engine.exports import export_store
    from arcforge.engine.imports import import_pairs

    export_store(open_store(store.path), tmp_path / "npy", format="npy")
    import_pairs(tmp_path / "npy", tmp_path / "I.zarr")
    done = replay(tmp_path / "I.zarr", "--rows", "0")
    assert done.exit_code == 1
    assert "was imported" in done.stderr
    shutil.rmtree(tmp_path / "npy")
