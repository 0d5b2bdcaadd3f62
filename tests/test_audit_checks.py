"""Checks beside the fit: flux, the survey's PSF, realism, what is not pixels, strata and other gates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from arcforge.bench.planted import FAULTS, make_set
from arcforge.engine.auditing import gates, light
from arcforge.engine.auditing.checks import FAIL, PASS, WARN, run_check
from arcforge.engine.auditing.pairs import draw_pairs
from arcforge.engine.auditing.run import CHECKS, _report
from arcforge.engine.auditing.sources import ParquetPairs
from arcforge.engine.auditing.state import AuditState
from arcforge.engine.auditing.thresholds import Thresholds
from arcforge.engine.synthetic import synthetic_hosts

N_PAIRS, N_HOSTS = 60, 30


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    hosts = synthetic_hosts(N_HOSTS, 3).pixels(np.arange(N_HOSTS))
    path = make_set(FAULTS[0], hosts, N_PAIRS, 9).write(tmp_path_factory.mktemp("set") / "set.parquet")
    return draw_pairs(ParquetPairs(str(path), 1 << 26), Thresholds(), 0, None, lambda *step: None)


def state_of(pairs, **changed) -> AuditState:
    return AuditState(replace(pairs, **changed), Thresholds(), 0, lambda *step: None)


def with_columns(table, **columns):
    for name, values in columns.items():
        table = table.drop_columns([n for n in (name,) if n in table.column_names])
        table = table.append_column(name, pa.array(values))
    return table


def test_flux_passes_and_two_per_cent_fail(pairs):
    assert light.check_flux(state_of(pairs)).status == PASS
    arcs = pairs.stamps - pairs.controls
    found = light.check_flux(state_of(pairs, stamps=pairs.controls + np.float32(1.02) * arcs))
    assert found.status == FAIL
    assert found.ci95[0] <= 1.02 <= found.ci95[1]


def test_the_surveys_psf_is_held_against_the_recorded_one(pairs):
    recorded = {b: pairs.table.column(f"psf_fwhm_used_{b}").to_numpy() for b in "grz"}
    right = with_columns(pairs.table, **{f"psfsize_{b}": w for b, w in recorded.items()})
    assert light.check_psf_truth(state_of(pairs, table=right)).status == PASS
    sigma = {f"psfsize_{b}": w * 2.355 for b, w in recorded.items()}
    sigma["psfsize_g"][4] = 0.0
    state = state_of(pairs, table=with_columns(pairs.table, **sigma))
    found = light.check_psf_truth(state)
    assert found.status == FAIL
    assert found.effect == pytest.approx(1 / 2.355, rel=1e-6)
    assert "1 values have none" in found.message
    (check,) = (c for c in CHECKS if c.id == "R7")
    report = _report(state, [run_check(check, state)])
    assert (report["verdict"], report["causes"][0]["name"]) == ("NO-GO", "psf_width")
    assert "FWHM taken for a sigma" in report["causes"][0]["message"]


def test_without_survey_values_widths_in_pixels_are_suspicious(pairs):
    assert light.check_psf_truth(state_of(pairs)).status == PASS
    pixels = {f"psf_fwhm_used_{b}": np.full(N_PAIRS, 5.0) for b in "grz"}
    found = light.check_psf_truth(state_of(pairs, table=with_columns(pairs.table, **pixels)))
    assert found.status == WARN
    assert "unit" in found.message


def test_one_colour_for_all_is_remarked(pairs):
    flux = pairs.table.column("src_flux_nmgy_r").to_numpy()
    same = {f"src_flux_nmgy_{b}": flux * f for b, f in zip("grz", (0.5, 1.0, 1.6), strict=True)}
    assert "one colour" not in light.check_realism(state_of(pairs)).message
    found = light.check_realism(state_of(pairs, table=with_columns(pairs.table, **same)))
    assert found.status == WARN
    assert "one colour" in found.message


def test_rounding_that_only_stamps_have_is_a_leak(pairs):
    clean = gates.check_artefacts(state_of(pairs, stamps=pairs.controls.copy()))
    assert clean.status == PASS
    # light that was added makes sums that nearly cancel, and fewer faint pixels: neither is a leak
    assert gates.check_artefacts(state_of(pairs)).status != WARN
    rounded = pairs.stamps.astype(np.float16).astype(np.float32)
    found = gates.check_artefacts(state_of(pairs, stamps=rounded))
    assert found.status == WARN
    assert found.effect > 0.9


def test_other_gates_and_folds_that_split_hosts_are_shown(pairs):
    state = state_of(pairs)
    found = gates.check_family(state)
    table = state.evidence["G2"]
    assert set(table) == {"core mean", "radial profile", "annulus", "core excluded", "ungrouped folds"}
    assert f"{table['annulus']['auc']:.3f}" in found.message
    assert table["annulus"]["auc"] > 0.8


def test_strata_carry_numbers_hosts_and_what_could_be_seen(pairs):
    state = state_of(pairs)
    gates.check_strata(state)
    table = state.evidence["G4"]
    thirds = [t for t in table if t["stratum"].startswith("PSF")]
    assert sum(t["n_pairs"] for t in thirds) == N_PAIRS
    for entry in table:
        assert entry["ci95"][0] <= entry["within_pair_auc"] <= entry["ci95"][1]
        assert entry["mde"] == pytest.approx(2.487 * 0.5 / np.sqrt(entry["n_pairs"]))


def test_artefact_features_are_what_they_say():
    image = np.zeros((1, 1, 4, 4), dtype=np.float32)
    image[0, 0, 2:] = np.pi * np.arange(1, 9).reshape(2, 4)
    zeros, repeated, coarse, half = gates.artefact_features(image)[0]
    assert zeros == 0.5
    assert repeated == pytest.approx(6 / 14)  # from the third on
    assert coarse == half == 0.0  # of pixels that are not 0
    image[0, 0, 2] = [0.5, 0.25, 1.5, np.pi]
    assert gates.artefact_features(image)[0, 2] == 3 / 8
    assert gates.artefact_features(image, 0.6)[0, 2] == 1 / 6
