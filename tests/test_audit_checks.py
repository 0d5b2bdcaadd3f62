"""Checks beside the fit: flux, the survey's PSF, realism, what is not pixels, strata and other gates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from threadpoolctl import threadpool_limits

from arcforge.bench.planted import FAULTS, make_set
from arcforge.engine.auditing import four_tests, gates, light, placement
from arcforge.engine.auditing.checks import FAIL, INCONCLUSIVE, PASS, WARN, run_check
from arcforge.engine.auditing.gate import run_gate
from arcforge.engine.auditing.pairs import draw_pairs
from arcforge.engine.auditing.resampling import HostBootstrap
from arcforge.engine.auditing.run import CHECKS, _report
from arcforge.engine.auditing.sources import ParquetPairs
from arcforge.engine.auditing.state import AuditState
from arcforge.engine.auditing.thresholds import Thresholds
from arcforge.engine.auditing.trees import run_tree_gate
from arcforge.engine.psf_tables import PsfTable
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


BRICKS = """brickname,ra,dec,psfsize_g,psfsize_r,psfsize_z
0001p000,0.125,0.0,1.2,1.1,1.0
0003p000,0.375,0.0,0.0,1.2,1.1
0006p000,0.625,0.0,1.4,1.3,1.2
"""


@pytest.mark.parametrize("by", ["brickname", "place"])
def test_the_surveys_table_of_bricks_is_joined_by_name_or_place(pairs, tmp_path, by):
    (tmp_path / "bricks.csv").write_text(BRICKS)
    brick = np.arange(len(pairs)) % 3
    if by == "brickname":
        joined = {"brickname": np.array(["0001p000", "0003p000", "0006p000"])[brick]}
    else:
        joined = {"ra": 0.15 + 0.25 * brick, "dec": np.full(len(brick), -0.05)}
    # a third of the rows lies in a brick without g
    widths = np.array([[1.2, 1.1, 1.0], [np.nan, 1.2, 1.1], [1.4, 1.3, 1.2]])[brick]
    recorded = {f"psf_fwhm_used_{b}": 1.1 * np.nan_to_num(widths[:, k], nan=1.3) for k, b in enumerate("grz")}
    state = state_of(pairs, table=with_columns(pairs.table, **joined, **recorded))
    state.psf_table = PsfTable.read(tmp_path / "bricks.csv", "grz")
    found = light.check_psf_truth(state)
    assert found.status == FAIL
    assert found.effect == pytest.approx(1.1, rel=1e-6)
    assert f"{int((brick == 1).sum())} values have none" in found.message
    far = {
        "brickname": np.full(len(brick), "9999m999"),
        "ra": np.full(len(brick), 1.0),
        "dec": joined.get("dec", 0 * brick),
    }
    state = state_of(pairs, table=with_columns(pairs.table, **far))
    state.psf_table = PsfTable.read(tmp_path / "bricks.csv", "grz")
    assert light.check_psf_truth(state).status == INCONCLUSIVE


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


def test_one_profile_for_all_is_remarked_of_profiles_alone(pairs):
    same = {"src_n": np.ones(N_PAIRS)}
    found = light.check_realism(state_of(pairs, table=with_columns(pairs.table, **same)))
    assert "every source has Sersic index 1" in found.message
    images = same | {"source_id": np.full(N_PAIRS, "a"), "src_reff_arcsec": np.full(N_PAIRS, np.nan)}
    found = light.check_realism(state_of(pairs, table=with_columns(pairs.table, **images)))
    assert "Sersic" not in found.message
    assert "arcsec" not in found.message


def test_arcs_darker_than_the_sky_are_told_with_the_worst_row(pairs):
    state = state_of(pairs)
    assert "darker" not in light.check_realism(state).message  # reports compute nothing
    model = state.model
    assert "darker" not in light.check_realism(state).message
    planted = model.copy()
    planted[5, 1, 40, 20] = -0.2 * model[5].max()
    vars(state)["model"] = planted
    found = light.check_realism(state)
    assert found.status == WARN
    assert f"1 of {N_PAIRS} arcs have notches darker than the sky (row 5: 20%" in found.message


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
    kinds = ("core mean", "radial profile", "annulus", "core excluded", "boosted trees on the core")
    assert set(table) == {*kinds, "ungrouped folds"}
    assert all(table[kind]["ci95"][0] <= table[kind]["auc"] <= table[kind]["ci95"][1] for kind in kinds)
    assert f"{table['annulus']['auc']:.3f}" in found.message
    assert table["annulus"]["auc"] > 0.8


def test_the_budget_of_the_auc_adds_up_and_leaves_nothing_unexplained(pairs):
    state = state_of(pairs)
    core = np.float32(3 * state.sky_sigma.mean()) * (state.distance < 5)
    with threadpool_limits(limits=1, user_api="blas"):
        budget = state.attribution["auc"]
        brighter = state_of(pairs, stamps=pairs.stamps + core.astype(np.float32)).attribution["auc"]
    parts = budget["parts"]
    assert sum(part["auc"] for part in parts.values()) == pytest.approx(budget["total"])
    assert budget["gates"]["observed"] == pytest.approx(0.5 + budget["total"])
    assert abs(parts["unexplained"]["auc"]) < 0.01
    # light that is not recorded
    assert brighter["parts"]["unexplained"]["auc"] > 0.02


def test_trees_find_what_a_line_does_not():
    rng = np.random.default_rng(4)
    n = 120
    controls, stamps = rng.normal(size=(2, n, 4))
    stamps[:, 0] = np.where(stamps[:, 0] > 0, 1.0, -1.0) * rng.uniform(1.5, 2.5, n)
    bootstrap = HostBootstrap(np.arange(n) // 2, 200, rng)
    line = run_gate(stamps, controls, bootstrap, Thresholds(), rng, repeats=2)
    trees = run_tree_gate(stamps, controls, bootstrap, Thresholds(), rng, repeats=2)
    assert abs(line.auc.value - 0.5) < 0.1
    assert trees.ci95[0] > 0.7
    nothing = run_tree_gate(*rng.normal(size=(2, n, 4)), bootstrap, Thresholds(), rng, repeats=2)
    assert nothing.ci95[0] < 0.5 < nothing.ci95[1]


def test_a_wide_psf_under_added_noise_is_found_with_it(pairs):
    # more rows than faults are searched on: noise must be judged on either
    names = [f"psf_fwhm_used_{band}" for band in "grz"]
    table = with_columns(pairs.table, **{n: np.asarray(pairs.table.column(n)) / 1.2 for n in names})
    noise = np.random.default_rng(1).normal(size=pairs.stamps.shape)
    noisy = pairs.stamps + np.float32(0.1) * (noise * state_of(pairs).sky_sigma[:, :, None, None])
    causes = state_of(pairs, table=table, stamps=noisy.astype(np.float32)).diagnosis.causes
    assert {c.name for c in causes} == {"psf_width", "noise"}
    for cause in causes:
        assert cause.ci95[0] <= {"psf_width": 1.2, "noise": 0.1}[cause.name] <= cause.ci95[1]


def test_centres_of_hosts_are_found_and_half_a_pixel_is_told(pairs):
    y, x = np.indices((64, 64)) - 31.5
    truth = np.random.default_rng(2).uniform(-1.0, 1.0, (20, 2))
    images = [np.exp(-0.5 * ((x - dx) ** 2 + (y - dy) ** 2) / 3.0**2) for dx, dy in truth]
    images = np.repeat(np.array(images, dtype=np.float32)[:, None], 3, axis=1)
    found = placement.find_centres(images + np.float32(0.3), np.ones((20, 3)))
    np.testing.assert_allclose(found, truth, atol=5e-3)
    dark = placement.find_centres(np.zeros_like(images[:2]), np.ones((2, 3)))
    assert np.isnan(dark).all()
    at_lens = np.stack([np.exp(-0.5 * ((x - 0.5) ** 2 + (y - 0.5) ** 2) / 4.0)] * 3)
    moved = np.tile(at_lens.astype(np.float32), (N_PAIRS, 1, 1, 1))
    zero = np.zeros(N_PAIRS)
    table = with_columns(pairs.table, lens_x_arcsec=zero, lens_y_arcsec=zero)
    finding = placement.check_centre(state_of(pairs, table=table, controls=moved))
    assert finding.status == WARN
    assert "(-0.50, -0.50) px" in finding.message
    assert "half a pixel" in finding.message
    half = np.full(N_PAIRS, 0.5 * pairs.pixscale_arcsec)
    table = with_columns(pairs.table, lens_x_arcsec=half, lens_y_arcsec=half)
    assert placement.check_centre(state_of(pairs, table=table, controls=moved)).status == PASS


def test_strata_carry_numbers_hosts_and_what_could_be_seen(pairs):
    state = state_of(pairs)
    gates.check_strata(state)
    table = state.evidence["G4"]
    thirds = [t for t in table if t["stratum"].startswith("PSF")]
    assert sum(t["n_pairs"] for t in thirds) == N_PAIRS
    for entry in table:
        assert entry["ci95"][0] <= entry["within_pair_auc"] <= entry["ci95"][1]
        assert entry["mde"] == pytest.approx(2.487 * 0.5 / np.sqrt(entry["n_pairs"]))


def test_a_cue_in_one_band_is_told_by_band(pairs):
    stamps = pairs.controls.copy()
    sky = pairs.controls[:, 1, :8, :8].std()
    stamps[:, 1, 28:36, 28:36] += 8 * sky
    aucs = gates._gates_by_band(state_of(pairs, stamps=stamps))
    assert list(aucs) == ["g", "r", "z"]
    assert aucs["r"].value > 0.9
    # the other bands are the same in both: every comparison is a tie
    assert aucs["g"].value == aucs["z"].value == 0.5


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


def test_slopes_of_too_few_hosts_are_no_numbers_and_no_warnings():
    flux = np.array([1.0, 1.0, 1.0])  # no spread: no slope, in any resample
    measured = {"flux_outside_nmgy": flux, "core_nmgy": flux}
    ratio = four_tests._slope_ratio(
        measured, measured, HostBootstrap(np.arange(3), 5, np.random.default_rng(1))
    )
    assert np.isnan(ratio.value)
