"""Planted faults are named, at their size; clean sets name nothing. Small sets on synthetic hosts."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from arcforge.bench.planted import FAULTS, make_set
from arcforge.bench.planted_conventions import CONVENTIONS
from arcforge.bench.planted_several import TWO_FAULTS
from arcforge.engine.auditing.faults import Hypothesis, near_the_best
from arcforge.engine.auditing.nuisance import Point
from arcforge.engine.auditing.pairs import draw_pairs
from arcforge.engine.auditing.run import CHECKS, run_audit
from arcforge.engine.auditing.sources import ParquetPairs
from arcforge.engine.auditing.state import AuditState
from arcforge.engine.auditing.thresholds import Thresholds
from arcforge.engine.synthetic import synthetic_hosts

N_PAIRS, N_HOSTS = 24, 12
_RESIDUAL_CHECKS = [c for c in CHECKS if c.id in ("R1", "R2", "R3", "R6")]


@pytest.fixture(scope="module")
def hosts():
    return synthetic_hosts(N_HOSTS, 3).pixels(np.arange(N_HOSTS))


@pytest.fixture(scope="module")
def diagnosed(hosts, tmp_path_factory):
    """Return a function from a fault's name (and seed) to the audit's state."""
    folder = tmp_path_factory.mktemp("planted")
    limits = Thresholds()

    @cache
    def diagnose(name: str, seed: int = 11) -> AuditState:
        fault = next(f for f in (*FAULTS, *TWO_FAULTS, *CONVENTIONS) if f.name == name)
        path = make_set(fault, hosts, N_PAIRS, seed).write(folder / f"{hash(name)}-{seed}.parquet")
        pairs = draw_pairs(ParquetPairs(str(path), 1 << 26), limits, seed, None, lambda *step: None)
        return AuditState(pairs, limits, seed, lambda *step: None)

    return diagnose


def test_a_clean_set_needs_no_cause_and_every_parameter_is_as_recorded(diagnosed):
    diagnosis = diagnosed("clean").diagnosis
    assert diagnosis.explained_as_recorded
    assert diagnosis.causes == []
    assert diagnosis.hypotheses == []
    assert all(n.within for n in diagnosis.nuisance.values())
    assert diagnosis.noise.value < 1e-3
    assert abs(diagnosis.registration.x.value) < 1e-3


@pytest.mark.parametrize(
    "name",
    [
        "offset 0.25 px",
        "psf_width 2.355",
        "theta_e 1.03",
        "source_size 1.2",
        "flux 1.05",
        "control 0.25 px, order 3",
        pytest.param("unpadded convolution", marks=pytest.mark.compiled),
        "stamps 1.05 times as bright",
        "controls 2.512 times as bright",
        pytest.param("psf_width 1.1 in the first band", marks=pytest.mark.compiled),
        pytest.param("source bank, pedestal 0.4", marks=pytest.mark.compiled),
    ],
)
def test_a_fault_is_named_at_its_size(diagnosed, name):
    fault = next(f for f in (*FAULTS, *CONVENTIONS) if f.name == name)
    causes = diagnosed(name).diagnosis.causes
    assert [c.name for c in causes] == [fault.cause]
    assert causes[0].ci95 is not None
    assert causes[0].ci95[0] <= fault.truth <= causes[0].ci95[1]
    # an interval that holds anything would hold the truth too
    assert causes[0].ci95[1] - causes[0].ci95[0] < 0.2 * abs(fault.truth)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("arc mirrored in y", "mirrored in y"),
        ("bands zrg", "zrg"),
        ("theta_e without sqrt(q)", "1/sqrt(q)"),
        ("flux 1/mu", "1/mu"),
        ("psf_width 2.355", "sigma taken for a FWHM"),
        ("angle of the shear turned by 90", "angle of shear is measured from the y axis"),
        (
            "stamps 1.05 times as bright",
            "stamps, arcs and all, are 1.05 times as bright as in their controls",
        ),
        ("controls 2.512 times as bright", "in every band, as by one magnitude"),
        ("psf_width of the first band", "every band has the PSF width of the first one"),
    ],
)
def test_a_known_mistake_is_called_by_its_name(diagnosed, name, words):
    fault = next(f for f in (*FAULTS, *CONVENTIONS) if f.name == name)
    causes = diagnosed(name).diagnosis.causes
    assert causes[0].name == fault.cause
    assert words in causes[0].message


def test_a_pedestal_is_given_in_nanomaggies(diagnosed):
    state = diagnosed("pedestal 0.2 sigma")
    (cause,) = state.diagnosis.causes
    truth = float(np.median(state.added[:, :, :2, :2] - state.model[:, :, :2, :2]))
    assert cause.name == "pedestal"
    assert cause.ci95[0] <= truth <= cause.ci95[1]
    assert cause.unit == "nMgy/px"


@pytest.mark.compiled
def test_other_sources_than_recorded_are_provenance_and_never_a_named_fault(diagnosed):
    diagnosis = diagnosed("other sources").diagnosis
    assert [c.name for c in diagnosis.causes] == ["provenance"]
    assert not diagnosis.explained_as_recorded
    assert "leaves" in diagnosis.causes[0].message


@pytest.mark.compiled
@pytest.mark.parametrize(
    ("name", "cause", "words"),
    [
        ("psf_width the same in all rows", "psf_width", "the same PSF width, whatever is recorded: g 1."),
        ("pixels of 0.2 arcsec", "provenance", "rendered for pixels of 0.2 arcsec, not 0.262"),
        ("pixels below zero cut off", "provenance", "24 of 24 pairs many pixels are one value"),
    ],
)
def test_what_no_factor_of_one_column_explains_is_told_in_words(diagnosed, name, cause, words):
    (found,) = diagnosed(name).diagnosis.causes
    assert found.name == cause
    assert words in found.message


@pytest.mark.parametrize(
    ("name", "words"),
    [("stamp mirrored in x", "whole stamp is mirrored in x"), ("stamp bands zrg", "in the order zrg")],
)
def test_displaced_stamps_are_told_by_their_noise(diagnosed, name, words):
    fault = next(f for f in FAULTS if f.name == name)
    (cause,) = diagnosed(name).diagnosis.causes
    assert cause.name == fault.cause
    assert words in cause.message


@pytest.mark.compiled
def test_photon_noise_of_the_arc_is_noise_and_gives_its_gain(diagnosed):
    (cause,) = diagnosed("noise of the arc's photons").diagnosis.causes
    assert cause.name == "noise"
    gain = float(cause.message.split("variance of ")[1].split()[0])
    assert gain == pytest.approx(300, rel=0.1)


@pytest.mark.compiled
def test_pixels_of_one_sample_each_are_provenance_and_told_for_what_they_are(hosts, tmp_path):
    path = make_set(FAULTS[0], hosts, N_PAIRS, 11, variant="uniform1").write(tmp_path / "set.parquet")
    pairs = draw_pairs(ParquetPairs(str(path), 1 << 26), Thresholds(), 1, None, lambda *step: None)
    (cause,) = AuditState(pairs, Thresholds(), 1, lambda *step: None).diagnosis.causes
    assert cause.name == "provenance"
    assert cause.message.startswith("1 x 1 samples a pixel")


@pytest.mark.compiled
@pytest.mark.parametrize(
    "name", ["noise 0.2 sigma, blurred by 1.5 px", "control 0.25 px and noise 0.3 sigma"]
)
def test_noise_is_noise_when_it_is_blurred_or_the_control_shifted(diagnosed, name):
    causes = {c.name: c for c in diagnosed(name).diagnosis.causes}
    assert set(causes) - {"control_shift"} == {"noise"}
    assert ("control_shift" in causes) == ("control" in name)
    low, high = causes["noise"].ci95
    assert low <= float(name.split("noise ")[1].split()[0]) <= high


@pytest.mark.compiled
@pytest.mark.parametrize(
    "name",
    [
        # named alone, the other fault was dropped in silence
        "psf_width 1.2 and theta_e without sqrt(q)",
        "psf_width 1.2 and control 0.25 px",
        # a wide PSF hid that the arc was mirrored
        "psf_width 2.355 and arc mirrored in y",
    ],
)
def test_two_faults_at_once_are_both_named(diagnosed, name):
    fault = next(f for f in TWO_FAULTS if f.name == name)
    causes = {c.name: c for c in diagnosed(name).diagnosis.causes}
    assert set(causes) == {fault.cause, *fault.also}
    width = causes["psf_width"]
    assert width.ci95[0] <= fault.truth <= width.ci95[1]


@pytest.mark.compiled
def test_a_stamp_that_was_moved_with_its_arc_is_one_fault(hosts, tmp_path):
    made = make_set(FAULTS[0], hosts, N_PAIRS, 11)
    moved = [[ndimage.shift(band, (0.0, 0.3), order=3, mode="nearest") for band in s] for s in made.stamps]
    made.stamps = np.array(moved, dtype=np.float32)
    path = made.write(tmp_path / "set.parquet")
    pairs = draw_pairs(ParquetPairs(str(path), 1 << 26), Thresholds(), 1, None, lambda *step: None)
    (cause,) = AuditState(pairs, Thresholds(), 1, lambda *step: None).diagnosis.causes
    assert cause.name == "control_shift"
    assert cause.ci95[0] <= 0.3 <= cause.ci95[1]
    assert "the arc went with its stamp" in cause.message


@pytest.mark.compiled
def test_arcs_at_the_rim_of_a_shifted_control_are_not_held_against_other_faults(hosts, tmp_path):
    # stamps of 41 px: arcs reach the rim, which a moved image cannot fill
    fault = next(f for f in TWO_FAULTS if f.name == "flux 1.05 and control 0.25 px")
    path = make_set(fault, hosts[:, :, 11:52, 11:52], N_PAIRS, 11).write(tmp_path / "set.parquet")
    pairs = draw_pairs(ParquetPairs(str(path), 1 << 26), Thresholds(), 1, None, lambda *step: None)
    causes = AuditState(pairs, Thresholds(), 1, lambda *step: None).diagnosis.causes
    assert [c.name for c in causes] == ["control_shift", "flux_scale"]
    assert causes[1].estimate == pytest.approx(1.05, abs=1e-3)


@pytest.mark.compiled
def test_arcs_of_many_sky_sigmas_may_differ_by_what_two_renderers_do(hosts, tmp_path):
    made = make_set(FAULTS[0], hosts, N_PAIRS, 11)
    arcs = 1000 * (made.stamps - made.controls)
    for band in "grz":
        made.columns[f"src_flux_nmgy_{band}"] = made.columns[f"src_flux_nmgy_{band}"] * 1000
    # 3e-4 of what a pixel's light differs from its neighbour's
    made.stamps = made.controls + arcs + 3e-4 * (np.roll(arcs, 1, axis=3) - arcs)
    report = run_audit(made.write(tmp_path / "set.parquet"), checks=_RESIDUAL_CHECKS).report
    found = {c["id"]: c for c in report["checks"]}
    assert report["causes"] == []
    assert [found[check]["status"] for check in ("R1", "R2", "R3", "R6")] == ["WARN", "PASS", "PASS", "WARN"]
    assert "arcs so bright" in found["R6"]["message"]


def test_an_exchange_that_fluxes_stand_in_for_is_tried_as_a_start():
    def leaving(misfit, *causes):
        return Hypothesis(causes, "", Point(), (), np.array([misfit]), explains=False)

    exchanged, worse = leaving(0.11, "band_order"), leaving(0.12, "band_order")
    turned, far = leaving(0.2, "orientation"), leaving(0.4, "orientation")
    found = [leaving(0.07, "flux_scale"), leaving(1.0), worse, exchanged, far, turned]
    assert near_the_best(found) == [exchanged, turned]
    # what leaves most of the misfit is no start
    assert near_the_best([leaving(0.9, "flux_scale"), leaving(1.0), leaving(0.8, "band_order")]) == []
