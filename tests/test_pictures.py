"""Pictures show what is in the pixels: same stretch for both members of a pair, bands in their colours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest

from arcforge.engine import pictures
from arcforge.engine.errors import StoreError

# galaxies of that folder without a neighbour brighter than themselves
ISOLATED = (0, 4, 5, 6, 11, 12, 13, 14, 16, 17, 21, 23, 28, 30, 36, 37, 38, 44, 45)


def blob(flux_nmgy: float, x: float = 31.5, y: float = 31.5, sigma: float = 2.5) -> np.ndarray:
    yy, xx = np.mgrid[:64, :64]
    return flux_nmgy * np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / (2 * sigma**2)) / (2 * np.pi * sigma**2)


@pytest.fixture
def pair():
    """A red galaxy with sky noise, and a blue arc up and to the right."""
    rng = np.random.default_rng(5)
    control = np.stack([blob(flux) for flux in (2.0, 9.0, 20.0)]) + rng.normal(0, 0.004, (3, 64, 64))
    arc = np.stack([blob(flux, 44.0, 50.0) for flux in (3.0, 3.5, 4.0)])
    arc[arc < 1e-6] = 0.0
    return control.astype(np.float32), arc.astype(np.float32)


@dataclass
class FakeStore:
    control: np.ndarray
    arc: np.ndarray
    models: tuple[str, ...] = ("SIE",)
    bands: str = "grz"
    pixscale_arcsec: float = 0.262

    @property
    def catalog(self) -> pa.Table:
        n = len(self.models)
        thetas = [1.234 if model != "CONTROL" else None for model in self.models]
        return pa.table({"row_id": list(range(n)), "lens_model": self.models, "theta_e_arcsec": thetas})

    def ctrls(self, rows):
        return np.repeat(self.control[None], len(rows), axis=0)

    def arcs(self, rows):
        return np.stack([self.arc * (self.models[row] != "CONTROL") for row in rows])

    def stamps(self, rows):
        return self.ctrls(rows) + self.arcs(rows)


def test_colours_follow_the_bands(pair):
    control, arc = pair
    red, green, blue = pictures.colour_stamp(control)[32, 32].astype(int)
    assert red > green > blue
    red, green, blue = pictures.colour_stamp(arc)[50, 44].astype(int)
    assert blue > green
    assert blue > red


def test_the_order_of_bands_is_read_not_assumed(pair):
    control, _ = pair
    np.testing.assert_array_equal(
        pictures.colour_stamp(control), pictures.colour_stamp(control[::-1], bands="zrg")
    )
    four = np.concatenate([control[:2], np.full((1, 64, 64), 99.0), control[2:]])
    assert pictures.colour_stamp(four, bands="griz").shape == (64, 64, 3)
    grey = pictures.colour_stamp(control[:1], bands="g")
    np.testing.assert_array_equal(grey[..., 0], grey[..., 2])


def test_pair_shares_its_stretch(pair):
    control, arc = pair
    stamp = pictures.colour_stamp(control + arc)
    untouched = (arc == 0).all(axis=0)
    assert 0 < untouched.sum() < untouched.size
    np.testing.assert_array_equal(stamp[untouched], pictures.colour_stamp(control)[untouched])
    assert (stamp != pictures.colour_stamp(control)).any()


def test_brightness_rises_with_light_and_bad_pixels_are_black():
    levels = np.array([-0.1, 0.0, 0.01, 0.1, 1.0, 10.0], dtype=np.float32)
    shades = pictures.colour_stamp(np.repeat(levels[None, None], 3, axis=0)).astype(int).sum(axis=-1)[0]
    assert np.all(np.diff(shades) >= 0)
    assert np.all(np.diff(shades)[1:4] > 0)
    bad = np.full((3, 2, 2), 0.1, dtype=np.float32)
    bad[1, 0, 1] = np.nan
    assert pictures.colour_stamp(bad)[0, 1].tolist() == [0, 0, 0]
    assert pictures.colour_stamp(bad)[0, 0].sum() > 0


def test_triplets_show_these_pixels_with_units(pair):
    control, arc = pair
    triplet = pictures.Triplet(control, control + arc, arc, "row 7", residual=arc - arc)
    figure = pictures.triplet_figure([triplet] * 3, bands="grz", pixscale_arcsec=0.262, blocks=2)
    images = [axes.images[0] for axes in figure.axes if axes.images]
    assert len(images) == 12
    np.testing.assert_array_equal(images[1].get_array(), pictures.colour_stamp(control + arc))
    np.testing.assert_array_equal(images[2].get_array(), arc[1])
    assert all(image.origin == "lower" for image in images)
    assert images[2].get_clim() == (0.0, arc[1].max())
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["control", "stamp", "arc, r [nMgy/pix]", "residual, r [nMgy/pix]"] * 2
    without = pictures.triplet_figure(
        [pictures.Triplet(control, control, arc, "")], bands="grz", pixscale_arcsec=0.262
    )
    assert len([axes for axes in without.axes if axes.images]) == 3


def test_panels_stand_inside_the_figure_and_apart(pair):
    control, arc = pair
    triplets = [pictures.Triplet(control, control + arc, arc, str(k)) for k in range(7)]
    figure = pictures.triplet_figure(triplets, bands="grz", pixscale_arcsec=0.262, blocks=2)
    boxes = [axes.get_position() for axes in figure.axes]
    assert all(0 <= b.x0 < b.x1 <= 1 and 0 <= b.y0 < b.y1 <= 1 for b in boxes)
    for i, one in enumerate(boxes):
        for other in boxes[i + 1 :]:
            apart_x = one.x1 <= other.x0 or other.x1 <= one.x0
            assert apart_x or one.y1 <= other.y0 or other.y1 <= one.y0


def test_grid_labels_rows_and_is_written_whole(pair, tmp_path, monkeypatch):
    seen = []
    original = pictures.triplet_figure
    monkeypatch.setattr(
        pictures, "triplet_figure", lambda triplets, **k: seen.extend(triplets) or original(triplets, **k)
    )
    store = FakeStore(*pair, models=("SIE", "CONTROL"))
    out = pictures.stamp_grid(store, [1, 0], tmp_path / "grid.png")
    assert out.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]
    flux = pair[1][1].sum(dtype=np.float64)
    assert seen[0].label == "row 1\ncontrol\nno arc"
    assert seen[1].label.startswith("row 0\n")
    assert '1.23"' in seen[1].label
    assert f"arc r = {22.5 - 2.5 * np.log10(flux):.1f}" in seen[1].label


def test_rows_shown_by_default_are_lensed_and_spread(pair):
    store = FakeStore(*pair, models=("SIE", "CONTROL", "SIS") * 10)
    rows = pictures.lensed_rows(store, 5)
    assert rows[0] == 0
    assert rows[-1] == 29
    assert len(set(rows)) == 5
    assert all(store.models[row] != "CONTROL" for row in rows)
    assert pictures.lensed_rows(FakeStore(*pair, models=("CONTROL",) * 3), 2) == [0, 2]


def test_unwritable_picture_is_one_error(pair, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"grid\.png|file"):
        pictures.stamp_grid(FakeStore(*pair), [0], tmp_path / "file" / "grid.png")


def test_real_early_types_are_red(survey_data):
    from astropy.io import fits

    files = sorted((survey_data / "hosts" / "des46").glob("*.fits"))
    for number in ISOLATED:
        cube = fits.getdata(files[number]).astype(np.float32)
        red, green, blue = pictures.colour_stamp(cube)[45, 45].astype(int)
        assert red > green > blue, files[number]
