"""Diagrams are drawn from the package's own deflections: known curves come out; every kind is a picture."""

from __future__ import annotations

import numpy as np
import pytest
from typer.testing import CliRunner

from arcforge.cli.app import app
from arcforge.engine.catalog import render_columns
from arcforge.engine.lens_diagrams import critical_curves, ellipse

# the grid's step is 1.2 % of theta_E; contours are linear between its points
AREA = 2e-3


@pytest.mark.parametrize(
    ("model", "more"),
    [
        ("SIS", {}),
        ("SIE", {"lens_e": 0.05}),
        ("SIE", {"lens_e": 0.5, "lens_phi_rad": 2.0}),
        ("EPL", {"lens_e": 0.2, "lens_gamma": 2.0}),
    ],
)
def test_critical_curves_enclose_pi_theta_e_squared(lens_rows, model, more):
    columns = render_columns(lens_rows(lens_model=model, theta_e_arcsec=1.7, **more), "r")
    curves = critical_curves(columns, 0)
    assert curves.enclosed_arcsec2 == pytest.approx(np.pi * 1.7**2, rel=AREA)


def test_curves_of_a_circular_lens_are_a_circle_a_point_and_a_circle(lens_rows):
    curves = critical_curves(render_columns(lens_rows(lens_model="SIS", theta_e_arcsec=1.2), "r"), 0)
    assert np.hypot(*curves.critical[0].T) == pytest.approx(1.2, rel=AREA)
    assert np.abs(curves.caustics[0]).max() < AREA
    assert np.hypot(*curves.cut.T) == pytest.approx(1.2)


def test_an_nfw_halo_has_two_curves_and_a_control_none(lens_rows):
    halo = lens_rows(lens_model="NFW", theta_e_arcsec=1.5, lens_e=0.1, nfw_rs_arcsec=10.0)
    assert len(critical_curves(render_columns(halo, "r"), 0).critical) == 2
    control = critical_curves(render_columns(lens_rows(lens_model="CONTROL"), "r"), 0)
    assert (control.critical, control.caustics, len(control.cut)) == ([], [], 0)


def test_ellipses_are_turned_counter_clockwise():
    points = ellipse(2.0, 0.5, 0.5 * np.pi)
    assert points[0] == pytest.approx([0.0, 2.0])
    assert np.abs(points[:, 0]).max() == pytest.approx(1.0)


@pytest.fixture(scope="module")
def store(tmp_path_factory, small_config):
    from arcforge.engine.inject import inject

    path = tmp_path_factory.mktemp("shown") / "shown.zarr"
    return inject(path, config=small_config, n=24, seed=3)


@pytest.mark.parametrize("kind", ["triplets", "gallery", "lenses", "profiles"])
def test_every_kind_of_picture_is_written(store, tmp_path, kind, monkeypatch):
    monkeypatch.setattr("arcforge.engine.lens_diagrams._GRID", 41)  # coarse curves, in a tenth of the time
    out = tmp_path / "p.png"
    args = ["show", str(store.path), "--kind", kind, "--rows", "0:5", "--out", str(out)]
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 0, result.stderr
    assert out.read_bytes().startswith(b"\x89PNG")
    assert f"{kind}, 5 of 24 rows" in result.stdout


def test_a_profile_has_no_point_where_it_has_no_pixel(store):
    from arcforge.engine.store_figures import profile_figure

    lines = [line for axes in profile_figure(store, range(5)).axes for line in axes.lines]
    curves = [line for line in lines if len(line.get_xdata()) > 2]
    assert curves
    for line in curves:
        assert line.get_xdata()[0] > 0.0, "the centre of an even stamp lies between pixels"
        assert line.get_ydata()[0] > 0.0


def test_pictures_for_print_and_no_other_endings(store, tmp_path):
    for name, magic in (("p.pdf", b"%PDF"), ("p.svg", b"<?xml")):
        CliRunner().invoke(app, ["show", str(store.path), "--rows", "0", "--out", str(tmp_path / name)])
        assert (tmp_path / name).read_bytes().startswith(magic)
    refused = CliRunner().invoke(app, ["show", str(store.path), "--out", str(tmp_path / "p.jpeg")])
    assert refused.exit_code == 1
    assert "png, pdf, svg" in refused.stderr


def test_the_conventions_figure_is_drawn_from_the_code():
    from arcforge.bench.conventions import ROW, draw

    figure = draw()
    texts = " ".join(text.get_text() for axes in figure.axes for text in axes.texts)
    assert f"theta_e = {ROW['theta_e_arcsec']:.3f}" in texts
    assert "= 3.200" in texts, "the area inside the curve that is drawn"
