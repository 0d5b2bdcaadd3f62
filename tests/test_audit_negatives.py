"""Arcs against the set's own negatives: what the core tells, by kind."""

from __future__ import annotations

from typing import Any

import pytest

from arcforge.engine import open_store
from arcforge.engine.auditing.run import CHECKS, run_audit
from arcforge.engine.config import parse_config
from arcforge.engine.inject import inject


def g5(store: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    checks = [check for check in CHECKS if check.id == "G5"]
    report = run_audit(store, checks=checks).report
    (entry,) = report["checks"]
    return entry, report["evidence"].get("G5", [])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    config = parse_config(
        "synthetic_host_count = 30\nstamp_size = 40\nbands = 'gr'\n"
        "[priors]\ntheta_e_arcsec = {dist = 'uniform', low = 1.2, high = 1.8}\n"
        "[negatives]\nunlensed = 0.25\naveraged = 0.2\nring = 0.02\n"
    )
    return inject(tmp_path_factory.mktemp("negatives") / "S.zarr", config=config, n=600, seed=8)


def test_negatives_with_the_arcs_light_are_harder_than_blobs(store: Any) -> None:
    entry, evidence = g5(store)
    assert (entry["status"], entry["required"]) == ("PASS", False)
    by_kind = {each["kind"]: each for each in evidence}
    assert set(by_kind) == {"averaged", "unlensed"}
    assert "too few of ring" in entry["message"]
    assert by_kind["averaged"]["n_pairs"] > 80
    # the average has the arc's light in every ring: nothing for a core to tell
    assert by_kind["averaged"]["core"]["ci95"][0] < 0.6
    assert by_kind["unlensed"]["core"]["ci95"][0] > 0.75
    assert entry["effect"] == by_kind["averaged"]["core"]["auc"]


def test_a_set_without_negatives_says_so(store: Any) -> None:
    plain = open_store(store.path)
    plain.catalog = plain.catalog.drop_columns(["kind"])
    entry, _ = g5(plain)
    assert entry["status"] == "SKIPPED"
