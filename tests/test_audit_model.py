"""The forward model and its fit: kernels, transforms and registration against direct computation."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage, signal

from arcforge.bench.planted import PIXSCALE_ARCSEC, draw_columns
from arcforge.engine.auditing import solve
from arcforge.engine.auditing.diagnosis import Judge
from arcforge.engine.auditing.forward import Change, Forward
from arcforge.engine.auditing.gains import find_gain
from arcforge.engine.auditing.kernels import cut_kernel, sampled_psf
from arcforge.engine.auditing.naming import known_scale
from arcforge.engine.auditing.notes import note_on_provenance
from arcforge.engine.auditing.nuisance import FitData, Point, parameter_names
from arcforge.engine.auditing.pairs import PixelScan
from arcforge.engine.auditing.readings import NAMED, READINGS
from arcforge.engine.auditing.resampling import HostBootstrap
from arcforge.engine.auditing.solve import evaluate, fit
from arcforge.engine.auditing.thresholds import Thresholds
from arcforge.engine.auditing.transforms import ORIENTATIONS, list_transforms
from arcforge.engine.catalog import render_columns

N = 12


@pytest.fixture(scope="module")
def forward():
    columns = draw_columns(N, 4, np.random.default_rng(5))
    return Forward(render_columns(columns, "grz"), 64, PIXSCALE_ARCSEC, "grz")


def data_of(forward, added, controls=None):
    model = forward.render(np.arange(N))
    peak = model.max((2, 3)).astype(float)
    return FitData(
        bands="grz",
        rows=np.arange(N),
        added=added,
        controls=np.zeros_like(model) if controls is None else controls,
        recorded=model,
        weights=1.0 / (3e-4 * peak) ** 2,
        peak=peak,
        sky_sigma=np.full((N, 3), 0.005),
        arc=model > 1e-3 * peak[:, :, None, None],
        seen=np.ones(model.shape[2:], dtype=bool),
    )


def test_every_parameter_is_recovered_when_all_change_at_once(forward):
    truth = Change(offset_x_pix=0.15, offset_y_pix=-0.1, psf_width=1.1, theta_e_scale=0.97, source_size=1.2)
    scale = np.array([1.05, 0.95, 1.02], dtype=np.float32)[:, None, None]
    added = forward.render(np.arange(N), truth) * scale + np.float32(3e-4)
    found = fit(forward, data_of(forward, added), Point(), parameter_names("grz")[:-1])
    for name in ("offset_x_pix", "offset_y_pix", "psf_width", "theta_e_scale", "source_size"):
        assert np.median(found.values(name)) == pytest.approx(getattr(truth, name), abs=4e-3)
    for band, value in zip("grz", scale.ravel(), strict=True):
        assert np.median(found.values(f"flux_scale_{band}")) == pytest.approx(value, abs=4e-3)
        assert np.median(found.values(f"pedestal_nmgy_{band}")) == pytest.approx(3e-4, rel=0.02)
    assert np.max(found.rms_of_peak) < 1e-3


def test_the_number_of_threads_does_not_show(forward, monkeypatch):
    added = forward.render(np.arange(N), Change(psf_width=1.1, kernel_edge_pix=9.5))
    monkeypatch.setattr(solve, "_BATCH", 3)
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(solve, "usable_threads", lambda _, threads=threads: threads)
        edges = [("kernel_edge_pix", h) for h in (7.5, 9.5, 15.5)]
        point, data = Point({"psf_width": 1.1}), data_of(forward, added)
        best = solve.best_kernel_edge(forward, data, point, ("psf_width",), edges)
        assert best[0] == edges[1]
        at = evaluate(forward, data, point.at(kernel_edge_pix=9.4), ("psf_width", "kernel_edge_pix"))
        found.append((best[1], *at.chi2, *at.steps.ravel(), *at.total_step))
    assert found[0] == found[1]


def test_widths_by_band_are_recovered_beside_other_changes(forward):
    truth = Change(offset_x_pix=0.15, psf_width_of_bands=(("g", 1.2), ("z", 0.9)))
    added = forward.render(np.arange(N), truth)
    names = parameter_names("grz", width_by_band=True)[:-1]
    found = fit(forward, data_of(forward, added), Point(), names)
    for band, width in {"g": 1.2, "r": 1.0, "z": 0.9}.items():
        assert np.median(found.values(f"psf_width_{band}")) == pytest.approx(width, abs=4e-3)
    assert np.median(found.values("offset_x_pix")) == pytest.approx(0.15, abs=4e-3)
    assert np.max(found.rms_of_peak) < 1e-3


@pytest.mark.parametrize(
    ("name", "value", "pixscale_arcsec", "words"),
    [
        ("psf_width", 3.82, 0.262, "arcsec taken for pixels (1/0.262)"),
        ("psf_width", 5.95, 0.168, "arcsec taken for pixels (1/0.168)"),
        ("psf_width", 3.82, 0.168, ""),
        ("psf_width", 9.0, 0.262, "a sigma taken for a FWHM, and arcsec for pixels (2.355/0.262)"),
        ("source_size", 0.5, 0.262, "a full width taken for a half width"),
        ("theta_e_scale", 2.0, 0.262, "a half width taken for a full width"),
        ("flux_scale", 0.0686, 0.262, "flux per square arcsec taken for flux per pixel"),
        ("flux_scale", 0.3981, 0.262, "one magnitude"),
        ("psf_width", 1.2, 0.262, ""),
    ],
)
def test_a_scale_near_a_known_mistake_is_called_by_it(name, value, pixscale_arcsec, words):
    found = known_scale(name, value, pixscale_arcsec)
    assert words in found
    assert bool(found) == bool(words)


def with_sky(forward, seed):
    """Arcs as recorded on controls with a galaxy and noise."""
    rng = np.random.default_rng(seed)
    model = forward.render(np.arange(N))
    y, x = np.mgrid[:64, :64] - 31.5
    galaxy = np.exp(-np.hypot(y, x) / 6.0)
    return model, (galaxy + rng.normal(0, 0.005, model.shape)).astype(np.float32)


def test_a_gain_of_stamps_over_controls_is_measured_and_taken_back(forward):
    model, controls = with_sky(forward, 3)
    gains = np.array([1.0, 1.05, 0.8], dtype=np.float32)[:, None, None]
    data = data_of(forward, gains * (controls + model) - controls, controls)
    found = find_gain(data, HostBootstrap(np.arange(N), 100, np.random.default_rng(1)), 0.01, 1e-3)
    np.testing.assert_allclose(found.factors, gains.ravel(), atol=2e-3)
    undone = found.undo(data)
    np.testing.assert_allclose(undone.added, gains * model, atol=3e-3 * controls.max())


@pytest.mark.parametrize("beside", ["noise", "pedestal"])
def test_a_gain_is_found_beside_noise_and_constants_of_the_stamp(forward, beside):
    model, controls = with_sky(forward, 3)
    more = np.float32(0.01)
    if beside == "noise":
        more = np.random.default_rng(6).normal(0, 0.004, model.shape).astype(np.float32)
    data = data_of(forward, np.float32(1.1) * (controls + model) + more - controls, controls)
    found = find_gain(data, HostBootstrap(np.arange(N), 100, np.random.default_rng(1)), 0.01, 1e-3)
    np.testing.assert_allclose(found.factors, 1.1, atol=6e-3)


@pytest.mark.parametrize("fault", ["pedestal", "noise", "shift", "wide PSF", "none"])
def test_nothing_else_beside_the_arc_is_taken_for_a_gain(forward, fault):
    model, controls = with_sky(forward, 4)
    added, was = model, controls
    if fault == "pedestal":
        added = model + np.float32(0.02)
    elif fault == "noise":
        added = model + np.random.default_rng(5).normal(0, 0.005, model.shape).astype(np.float32)
    elif fault == "shift":
        moved = ndimage.shift(controls, (0, 0, 0.3, 0.2), order=3, mode="nearest")
        added, was = model + controls - moved, moved
    elif fault == "wide PSF":
        added = forward.render(np.arange(N), Change(psf_width=2.355))
    bootstrap = HostBootstrap(np.arange(N), 100, np.random.default_rng(1))
    assert find_gain(data_of(forward, added, was), bootstrap, 0.01, 1e-3) is None


def test_the_residual_of_the_record_itself_is_nothing(forward):
    model = forward.render(np.arange(N))
    found = evaluate(forward, data_of(forward, model), Point(), ())
    assert found.chi2.max() == 0
    assert found.rms_of_peak.max() == 0


def test_white_noise_is_no_structure_and_a_shift_is(forward):
    model = forward.render(np.arange(N))
    noise = np.random.default_rng(0).normal(scale=2e-3, size=model.shape).astype(np.float32)
    noisy = evaluate(forward, data_of(forward, model + noise), Point(), ())
    moved = forward.render(np.arange(N), Change(offset_x_pix=0.1))
    shifted = evaluate(forward, data_of(forward, moved), Point(), ())
    assert abs(noisy.structured.mean()) < 0.05 * np.mean(noisy.rms_of_peak**2)
    assert shifted.structured.mean() > 0.3 * np.mean(shifted.rms_of_peak**2)


def test_sampled_psf_has_unit_sum_and_the_width_asked_for(forward):
    psf = sampled_psf(forward.columns, 1, 192, PIXSCALE_ARCSEC)
    np.testing.assert_allclose(psf.sum((1, 2)), 1, atol=2e-3)
    fwhm_pix = forward.columns.psf_fwhm_arcsec[:, 1] / PIXSCALE_ARCSEC
    for row in range(N):
        at_half = np.interp(fwhm_pix[row] / 2, np.arange(10), psf[row, 0, :10]) / psf[row, 0, 0]
        assert at_half == pytest.approx(0.5, abs=0.03)
    np.testing.assert_array_equal(psf, np.roll(psf[:, ::-1, ::-1], (1, 1), (1, 2)))


def test_a_cut_kernel_is_the_convolution_with_a_finite_kernel(forward):
    rows = np.arange(3)
    columns = forward.columns.take(rows)
    whole, bare = forward.render(rows), forward.render(rows, with_psf=False)
    (cut,) = cut_kernel(whole, bare, columns, PIXSCALE_ARCSEC, [np.full((3, 3), 6.5)])
    psf = np.roll(sampled_psf(columns, 1, 129, PIXSCALE_ARCSEC), (64, 64), (1, 2))
    for row in rows:
        finite = psf[row, 58:71, 58:71]
        direct = signal.convolve2d(bare[row, 1], finite / finite.sum(), mode="same")
        full = signal.convolve2d(bare[row, 1], psf[row] / psf[row].sum(), mode="same")
        # both sampled kernels blur by the pixel alike: their difference does not
        np.testing.assert_allclose(
            cut[row, 1] - whole[row, 1], direct - full, atol=3e-3 * whole[row, 1].max()
        )
    assert np.abs(cut[0, 1] - whole[0, 1]).max() > 5e-3 * whole[0, 1].max()


def test_an_edge_in_widths_is_one_in_pixels_of_each_band(forward):
    rows = np.arange(2)
    (in_fwhm,) = forward.cut(rows, Change(), [("kernel_edge_fwhm", 1.5)])
    for row in rows:
        for band in range(3):
            edge = 1.5 * forward.columns.psf_fwhm_arcsec[row, band] / PIXSCALE_ARCSEC
            in_pix = forward.render(rows, Change(kernel_edge_pix=edge))
            np.testing.assert_allclose(in_fwhm[row, band], in_pix[row, band], atol=1e-6)


def test_readings_of_ellipticity_give_the_axis_ratio_that_they_name(forward):
    recorded = forward.columns.lens_e
    for words, of_ratio in (("1 - q", lambda q: 1 - q), ("(1 - q^2)", lambda q: (1 - q**2) / (1 + q**2))):
        reading = next(r for name, r in READINGS.items() if f"lens taken for {words}" in name)
        e = reading.apply(forward.columns).lens_e
        np.testing.assert_allclose(of_ratio((1 - e) / (1 + e)), recorded, atol=1e-12)


def note_on(forward, added):
    """What is told of added light that no named fault explains."""
    data = data_of(forward, added)
    pairs = SimpleNamespace(rows=data.rows, scan=PixelScan())
    state = SimpleNamespace(forward=forward, thresholds=Thresholds(), pairs=pairs)
    result = SimpleNamespace(recorded=evaluate(forward, data, Point(), ()))
    bootstrap = HostBootstrap(np.arange(N), 100, np.random.default_rng(1))
    return note_on_provenance(state, result, data, Judge(Thresholds(), bootstrap, 0.0))


@pytest.mark.parametrize(
    "name", ["the ellipticity of the lens taken for 1 - q", "sources of Sersic index 4", "no shear"]
)
def test_a_reading_without_a_name_is_told_in_words(forward, name):
    note = note_on(forward, forward.render(np.arange(N), Change(reading=name)))
    assert note.startswith(f"{name}: that would leave 0 %")


def test_arcs_apart_by_band_are_told_with_their_places(forward):
    added = forward.render(np.arange(N))
    added[:, 0] = forward.render(np.arange(N), Change(offset_x_pix=0.3, offset_y_pix=-0.1))[:, 0]
    note = note_on(forward, added)
    assert note.startswith("arcs at places of their own in each band (x y, in px) (g 0.300 -0.100, r ")


@pytest.mark.compiled
def test_pairs_of_two_kinds_are_told_with_their_rows_and_what_explains_them(forward):
    added = forward.render(np.arange(N))
    added[4:8] = forward.render(np.arange(4, 8), Change(psf_width=2.0))
    note = note_on(forward, added)
    assert note.startswith("67 % of the pairs are as recorded, others are not (rows 4, 5, 6, ...): psf_width")
    width = float(note.split("psf_width (")[1].split(")")[0])
    assert width == pytest.approx(2.0, abs=0.01)


def test_a_reading_tells_its_ratio_in_the_band_that_departs_most(forward):
    rows = np.arange(N)
    width = forward.columns.psf_fwhm_arcsec
    ratio = forward.ratio(
        "psf_fwhm_arcsec", rows, Change(reading="every band has the PSF width of the first one")
    )
    each = width[:, :1] / width
    np.testing.assert_array_equal(ratio, each[rows, np.abs(each - 1).argmax(1)])
    images = forward.otherwise(columns=replace(forward.columns, psf_fwhm_arcsec=np.zeros_like(width)))
    assert not images.ratio("psf_fwhm_arcsec", rows, Change(reading="no PSF")).any()


def test_no_two_readings_are_one(forward):
    rows = np.arange(2)
    of_more_bands = [name for name in NAMED if "fourth" in name or "fifth" in name]
    assert len(of_more_bands) == 2  # the same as of the third, here
    images = [forward.render(rows, Change(reading=name)) for name in NAMED if name not in of_more_bands]
    flat = np.array([image.ravel() for image in (forward.render(rows), *images)])
    apart = np.linalg.norm(flat[:, None] - flat, axis=2) + np.eye(len(flat))
    assert apart.min() > 1e-3


def test_wraparound_is_what_a_periodic_convolution_returns(forward):
    wide = Forward(forward.columns, 40, PIXSCALE_ARCSEC, "grz")  # arcs of 2.5" reach a frame of 10.5"
    extra = wide.wraparound(np.arange(N))
    assert np.abs(extra[:, :, 16:24, 16:24]).max() < 0.1 * np.abs(extra).max()
    assert np.abs(extra).max() > 1e-3


@pytest.mark.parametrize("transform", list_transforms("grz"), ids=lambda t: t.detail)
def test_undoing_a_transform_gives_the_pixels_back(forward, transform):
    model = forward.render(np.arange(N))
    controls = np.random.default_rng(1).normal(size=model.shape).astype(np.float32)
    words = transform.detail
    kind = next((k for k in ORIENTATIONS if words.endswith(k)), None)
    change = ORIENTATIONS[kind] if kind else (lambda i: i[:, ["grz".index(b) for b in words[-3:]]])
    if transform.part == "control":
        added, controls = model + controls - change(controls), change(controls)
    elif transform.part == "stamp":
        added = change(model + controls) - controls
    else:
        added = change(model)
    undone = transform.undo(data_of(forward, np.ascontiguousarray(added), np.ascontiguousarray(controls)))
    np.testing.assert_allclose(undone.added, model, atol=1e-6)
