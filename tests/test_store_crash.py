"""A kill at any step costs the work in hand and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.compiled  # hundreds of children

DRIVER = Path(__file__).with_name("store_crash_driver.py")


@pytest.fixture(scope="module")
def kills():
    """What became of every kill. In memory where the system allows: thousands of files, none to keep."""
    memory = Path("/dev/shm")
    usable = memory.is_dir() and os.access(memory, os.W_OK)
    with tempfile.TemporaryDirectory(dir=memory if usable else None) as folder:
        done = subprocess.run([sys.executable, DRIVER, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_step_of_the_protocol_was_killed_once(kills):
    assert len(kills) > 15
    assert {kill["point"] for kill in kills} >= {
        "opened",
        "written",
        "synced",
        "renamed",
        "filled",
        "before commit",
        "committed",
        "columns placed",
        "manifest placed",
    }
    assert all(kill["killed"] for kill in kills)


def test_a_resumed_store_is_byte_identical_to_an_undisturbed_one(kills):
    assert [kill for kill in kills if not (kill["resumed"] and kill["same_bytes"])] == []


def test_nothing_is_left_beside_the_store(kills):
    assert [kill for kill in kills if kill["left"] != ["S.zarr"]] == []


def test_a_store_says_complete_at_the_last_rename_only(kills):
    complete = [kill["step"] for kill in kills if kill["complete_when_killed"]]
    assert complete == [kills[-1]["step"]]
    assert kills[-1]["point"] == "renamed"
