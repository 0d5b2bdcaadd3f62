"""Damaged files of every kind are read or refused in one line, and nothing in them is run as a program.

A fixed selection of ``python -m arcforge.bench.fuzz``, which goes on for as long as one likes.
"""

from __future__ import annotations

import gzip
import random
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from arcforge.bench import fuzz
from arcforge.bench.fuzz_targets import TARGETS
from arcforge.bench.mutations import SENTINEL_ENV, _bomb, spoil_array
from arcforge.engine.errors import ArcforgeError, HostError

# As many as take a few seconds; the kinds of file are drawn by the number, so that each comes several times.
CASES = range(20_000, 20_060)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    fuzz.prepare_folder(folder)
    return folder


def test_damaged_files_are_read_or_refused_in_one_line(folder, monkeypatch):
    sentinel = folder / "was-run"
    monkeypatch.setenv(SENTINEL_ENV, str(sentinel))
    monkeypatch.setattr("arcforge.bench.mutations._BOMB_BYTES", 1 << 26)  # quick to make
    outcomes = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what libraries remark on damaged files
        for number in CASES:
            outcomes.append((number, fuzz.case(folder, number)))
            assert not sentinel.exists(), outcomes[-1]
    refused = [said for _, said in outcomes if ": refused: " in said]
    assert len(refused) > len(outcomes) / 2
    assert len({said.split(":")[0] for _, said in outcomes}) > len(TARGETS) - 4


def test_the_trap_works_where_data_are_unpickled(tmp_path, monkeypatch):
    """What the fuzzer plants does run where someone allows it: else its silence would mean nothing."""
    monkeypatch.setenv(SENTINEL_ENV, str(tmp_path / "was-run"))

    class First(random.Random):
        def choice(self, seq):
            return seq[0]

    path = tmp_path / "trap.npy"
    path.write_bytes(spoil_array(First(), np.zeros(3)))
    with pytest.raises(ValueError, match="allow_pickle"):
        np.load(path)
    np.load(path, allow_pickle=True)
    assert (tmp_path / "was-run").exists()


def test_bombs_are_refused_before_they_unpack(tmp_path, monkeypatch):
    from arcforge.engine import host_files

    monkeypatch.setattr(host_files, "_MAX_BYTES", 1 << 20)
    monkeypatch.setattr("arcforge.bench.mutations._BOMB_BYTES", 1 << 26)
    with pytest.raises(HostError, match="more than 1048576"):
        host_files.decode("a.npz", _bomb([("cutout.npy", b"")], 0), "grz")
    with pytest.raises(HostError, match="more than 1048576"):
        host_files.decode("a.fits.gz", gzip.compress(bytes(1 << 22)), "grz")


def test_a_crash_and_another_store_than_committed_are_findings(folder, monkeypatch):
    def crash(path: Path) -> None:
        raise ZeroDivisionError(path)

    monkeypatch.setattr(fuzz, "TARGETS", {"config": replace(TARGETS["config"], read=crash)})
    with pytest.raises(ZeroDivisionError):
        fuzz.case(folder, 1)

    other = np.load(folder / "committed.npz")["arr_0"] + 1
    (folder / "damaged").mkdir()
    shutil.copytree(folder / "store.zarr", folder / "damaged" / "store.zarr")
    np.savez(folder / "damaged" / "committed.npz", other)
    with pytest.raises(AssertionError, match="other contents"):
        TARGETS["store"].read(folder / "damaged" / "store.zarr")


def test_a_header_that_promises_a_hundred_million_axes_is_refused_at_once():
    from arcforge.engine.fits_images import check_fits

    cards = [
        "SIMPLE  =                    T",
        "BITPIX  =                  -32",
        "NAXIS   =             99999999",
    ]
    block = "".join(card.ljust(80) for card in [*cards, "END"]).ljust(2880)
    with pytest.raises(ArcforgeError, match="NAXIS = 99999999"):
        check_fits(block.encode())
