"""The gate between catalogues and kernels: what passes, in which form, and the wording of every refusal."""

from __future__ import annotations

import re
import time
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arcforge.engine.catalog import CONTROL, SIE, SIS, RenderColumns, band_names, render_columns
from arcforge.engine.errors import CatalogError
from arcforge.kernels.codes import PSF_GAUSSIAN, PSF_IMAGE, PSF_MOFFAT, PSF_NONE

Catalog = dict[str, Any]


NUMERIC = [name for name in RenderColumns.__dataclass_fields__ if name != "source_id"]


def make(n: int = 5, bands: str = "grz") -> Catalog:
    rng = np.random.default_rng(3)
    columns: Catalog = {
        "task_id": np.array([f"t{i:03d}" for i in range(n)]),
        "lens_model": np.full(n, "SIE", dtype="U8"),
        "theta_e_arcsec": rng.uniform(0.5, 2.5, n),
        "lens_e": rng.uniform(0.0, 0.4, n),
        "lens_phi_rad": rng.uniform(0.0, 3.0, n),
        "src_x_arcsec": rng.uniform(-0.4, 0.4, n),
        "src_y_arcsec": rng.uniform(-0.4, 0.4, n),
        "src_reff_arcsec": rng.uniform(0.2, 0.5, n),
        "src_e": rng.uniform(0.0, 0.5, n),
        "src_phi_rad": rng.uniform(0.0, 3.0, n),
    }
    for band in bands:
        columns[f"src_flux_nmgy_{band}"] = rng.uniform(0.1, 2.0, n)
        columns[f"psf_fwhm_arcsec_{band}"] = rng.uniform(1.0, 1.6, n)
    return columns


# of five rows in three bands, with a source of one piece
SHAPES = {
    "src_flux_nmgy": (5, 3), "psf_fwhm_arcsec": (5, 3), "more_fraction": (5, 0, 3), "more_shape": (5, 0, 6),
}  # fmt: skip


def refusal(catalog: Any, **options: Any) -> str:
    with pytest.raises(CatalogError) as caught:
        render_columns(catalog, "grz", **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_columns_are_contiguous_typed_and_defaulted() -> None:
    catalog = make()
    columns = render_columns(catalog, "grz")
    assert len(columns) == 5
    assert (columns.source_id == "").all()
    for name in NUMERIC:
        values = getattr(columns, name)
        expected = {"lens_model": np.int8, "psf_model": np.int8, "psf_id": np.int64}.get(name, np.float64)
        assert values.flags.c_contiguous, name
        assert values.dtype == expected, name
        assert values.shape == SHAPES.get(name, (5,)), name
    assert (columns.lens_model == SIE).all()
    assert (columns.psf_model == PSF_GAUSSIAN).all()
    for name, value in {
        "lens_x_arcsec": 0,
        "lens_y_arcsec": 0,
        "shear": 0,
        "src_n": 1,
        "moffat_beta": 3.5,
    }.items():
        assert (getattr(columns, name) == value).all(), name
    np.testing.assert_array_equal(columns.theta_e_arcsec, catalog["theta_e_arcsec"])
    np.testing.assert_array_equal(columns.src_flux_nmgy[:, 2], catalog["src_flux_nmgy_z"])


def test_bands_set_the_order() -> None:
    catalog = make()
    columns = render_columns(catalog, ("z", "g"))
    np.testing.assert_array_equal(columns.src_flux_nmgy[:, 0], catalog["src_flux_nmgy_z"])
    np.testing.assert_array_equal(columns.psf_fwhm_arcsec[:, 1], catalog["psf_fwhm_arcsec_g"])


@pytest.mark.parametrize(
    ("column", "value", "allowed"),
    [
        ("theta_e_arcsec", 0.0, "0 < value"),
        ("theta_e_arcsec", -1.0, "0 < value"),
        ("theta_e_arcsec", np.nan, "0 < value"),
        ("theta_e_arcsec", np.inf, "0 < value"),
        ("lens_e", 1.0, "0 <= value < 1"),
        ("lens_e", -0.01, "0 <= value < 1"),
        ("src_e", 1.2, "0 <= value < 1"),
        ("src_e", -1e-9, "0 <= value < 1"),
        ("shear", 1.0, "-1 < value < 1"),
        ("shear", -1.5, "-1 < value < 1"),
        ("src_flux_nmgy_r", -0.001, "0 <= value"),
        ("src_flux_nmgy_z", np.inf, "0 <= value"),
        ("src_n", 0.29, "0.3 <= value <= 8"),
        ("src_n", 8.1, "0.3 <= value <= 8"),
        ("src_reff_arcsec", 0.0, "0 < value"),
        ("psf_fwhm_arcsec_g", 0.0, "0 < value"),
        ("psf_fwhm_arcsec_g", -1.3, "0 < value"),
        ("lens_x_arcsec", np.inf, "a finite number"),
        ("src_y_arcsec", np.nan, "a finite number"),
    ],
)
def test_a_bad_value_is_named_with_row_column_and_range(column: str, value: float, allowed: str) -> None:
    catalog = make()
    catalog.setdefault(column, np.ones(5) if column == "src_n" else np.zeros(5))
    render_columns(catalog, "grz")  # without the fault it passes
    catalog[column] = catalog[column].copy()
    catalog[column][3] = value
    message = refusal(catalog)
    assert re.search(rf"catalogue row 3 \(task_id t003\): {column} is ", message)
    assert f"allowed: {allowed};" in message
    assert ("missing" if np.isnan(value) else repr(value)) in message


@pytest.mark.parametrize(
    ("column", "value", "allowed"),
    [
        ("lens_model", "KING", "CONTROL, SIS, SIE, EPL, NFW"),
        ("psf_model", "airy", "none, gaussian, moffat, image"),
    ],
)
def test_an_unknown_name_is_refused(column: str, value: str, allowed: str) -> None:
    catalog = make()
    good = "SIE" if column == "lens_model" else "moffat"
    catalog[column] = np.array([good, good, value, good, value])
    message = refusal(catalog)
    assert f"row 2 (task_id t002): {column} is {value!r}, allowed: {allowed}" in message


def test_several_bad_rows_are_counted() -> None:
    catalog = make()
    catalog["src_e"] = np.array([0.1, 2.0, 0.1, 2.0, 2.0])
    message = refusal(catalog)
    assert "row 1 " in message
    assert message.endswith("2 more rows of this kind")


@pytest.mark.parametrize(
    "column", ["lens_model", "theta_e_arcsec", "lens_e", "src_flux_nmgy_r", "psf_fwhm_arcsec_z"]
)
def test_an_absent_column_without_default_is_named(column: str) -> None:
    catalog = make()
    del catalog[column]
    assert f"no column {column}, which has no default" in refusal(catalog)


def test_an_absent_column_is_matched_to_a_stranger_of_like_name() -> None:
    catalog = make()
    catalog["theta_e"] = catalog.pop("theta_e_arcsec")
    assert 'rename "theta_e"' in refusal(catalog)


def test_sis_rows_need_no_ellipticity_and_get_none() -> None:
    catalog = make()
    catalog["lens_model"] = np.array(["SIS", "SIE", "SIS", "SIE", "SIS"])
    catalog["lens_e"] = np.array([np.nan, 0.2, 0.3, 0.1, 0.0])
    columns = render_columns(catalog, "grz")
    np.testing.assert_array_equal(columns.lens_model, [SIS, SIE, SIS, SIE, SIS])
    np.testing.assert_array_equal(columns.lens_e, [0, 0.2, 0, 0.1, 0])
    catalog["lens_model"] = np.full(5, "SIS")
    del catalog["lens_e"], catalog["lens_phi_rad"]
    assert len(render_columns(catalog, "grz")) == 5


@pytest.mark.parametrize("blank", [0.0, np.nan])
def test_control_rows_may_be_blank_but_not_wrong(blank: float) -> None:
    catalog = make()
    catalog["lens_model"] = np.array(["SIE", "CONTROL", "SIE", "SIE", "CONTROL"])
    for values in catalog.values():
        if values.dtype.kind == "f":
            values[[1, 4]] = blank
    columns = render_columns(catalog, "grz")
    np.testing.assert_array_equal(columns.lens_model == CONTROL, [False, True, False, False, True])
    for name in NUMERIC:
        assert np.isfinite(getattr(columns, name)).all(), name
    assert (columns.psf_model[[1, 4]] == PSF_NONE).all()
    assert (columns.psf_model[[0, 2, 3]] == PSF_GAUSSIAN).all()
    catalog["src_flux_nmgy_g"][1] = -1.0
    assert "row 1 (task_id t001): src_flux_nmgy_g is -1.0" in refusal(catalog)


def test_a_control_row_may_lack_its_psf_model() -> None:
    catalog = {**make(), "lens_model": np.array(["SIE", "SIE", "SIE", "SIE", "CONTROL"])}
    models = ["moffat", "none", "gaussian", "moffat", None]
    columns = render_columns(pa.table({**catalog, "psf_model": models}), "grz")
    np.testing.assert_array_equal(
        columns.psf_model, [PSF_MOFFAT, PSF_NONE, PSF_GAUSSIAN, PSF_MOFFAT, PSF_NONE]
    )
    assert "row 1 (task_id t001): psf_model is missing" in refusal(
        pa.table({**catalog, "psf_model": ["moffat", None, "moffat", "moffat", None]})
    )


def test_a_catalogue_of_controls_needs_no_other_column() -> None:
    columns = render_columns({"lens_model": np.full(3, "CONTROL")}, "grz")
    assert (columns.lens_model == CONTROL).all()


@pytest.mark.parametrize("as_column", [False, True])
def test_major_convention_is_converted_for_sie_rows_only(as_column: bool) -> None:
    catalog = make()
    catalog["lens_model"] = np.array(["SIE", "SIE", "SIS", "SIE", "CONTROL"])
    options: dict[str, Any] = {}
    if as_column:
        catalog["theta_e_convention"] = np.array(["major", "major", "major", "intermediate", "major"])
    else:
        options["theta_e_convention"] = "major"
    columns = render_columns(catalog, "grz", **options)
    q = (1 - catalog["lens_e"]) / (1 + catalog["lens_e"])
    scale = 1 / np.sqrt(q)
    scale[[2, 4]] = 1.0
    if as_column:
        scale[3] = 1.0
    np.testing.assert_allclose(columns.theta_e_arcsec, catalog["theta_e_arcsec"] * scale, rtol=1e-15)


def test_an_unknown_convention_is_refused() -> None:
    assert '"intermediate" or "major"' in refusal(make(), theta_e_convention="minor")
    catalog = make()
    catalog["theta_e_convention"] = np.array(["major"] * 4 + ["minor"])
    assert "row 4" in refusal(catalog)


def test_the_old_name_of_the_psf_width_is_read_unless_the_new_one_is_there() -> None:
    catalog = make()
    expected = catalog["psf_fwhm_arcsec_r"]
    for band in "grz":
        catalog[f"psf_fwhm_used_{band}"] = catalog.pop(f"psf_fwhm_arcsec_{band}")
    np.testing.assert_array_equal(render_columns(catalog, "grz").psf_fwhm_arcsec[:, 1], expected)
    catalog["psf_fwhm_used_r"] = np.array([1.2, 1.2, -1.2, 1.2, 1.2])
    assert "row 2 (task_id t002): psf_fwhm_used_r is -1.2" in refusal(catalog)
    catalog["psf_fwhm_arcsec_r"] = np.full(5, 1.4)
    assert (render_columns(catalog, "grz").psf_fwhm_arcsec[:, 1] == 1.4).all()


def test_psf_models_need_what_they_use() -> None:
    catalog = make()
    catalog["psf_model"] = np.array(["none", "gaussian", "moffat", "image", "image"])
    catalog["moffat_beta"] = np.array([0.0, np.nan, 3.0, np.nan, 0.0])
    catalog["psf_id"] = np.array([-1, -1, -1, 0, 7])
    for band in "grz":
        catalog[f"psf_fwhm_arcsec_{band}"] = np.array([0.0, 1.2, 1.3, np.nan, 0.0])
    columns = render_columns(catalog, "grz")
    np.testing.assert_array_equal(
        columns.psf_model, [PSF_NONE, PSF_GAUSSIAN, PSF_MOFFAT, PSF_IMAGE, PSF_IMAGE]
    )
    np.testing.assert_array_equal(columns.psf_id, [-1, -1, -1, 0, 7])
    np.testing.assert_array_equal(columns.psf_fwhm_arcsec[:, 0], [0, 1.2, 1.3, 0, 0])
    catalog["moffat_beta"] = np.array([0.0, np.nan, 1.0, np.nan, 0.0])
    assert "row 2 (task_id t002): moffat_beta is 1.0" in refusal(catalog)
    catalog["moffat_beta"] = np.full(5, 3.5)
    for bad in (-1.0, 1.5):
        catalog["psf_id"] = np.array([-1, -1, -1, 0, bad])
        assert "row 4 (task_id t004): psf_id" in refusal(catalog)
    del catalog["psf_id"]
    assert "no column psf_id" in refusal(catalog)


def test_arrow_tables_masked_arrays_and_bytes_mean_the_same() -> None:
    catalog = make()
    expected = render_columns(catalog, "grz")
    table = pa.table(catalog)
    index = table.schema.get_field_index("lens_model")
    encoded = table.set_column(index, "lens_model", table["lens_model"].dictionary_encode())
    masked = {k: np.ma.MaskedArray(v, mask=False) for k, v in catalog.items()}
    raw = {**catalog, "lens_model": catalog["lens_model"].astype("S8")}
    lists = {k: v.tolist() for k, v in catalog.items()}
    for form in (table, encoded, masked, raw, lists):
        columns = render_columns(form, "grz")
        for name in RenderColumns.__dataclass_fields__:
            np.testing.assert_array_equal(getattr(columns, name), getattr(expected, name))


def test_a_null_is_not_filled() -> None:
    catalog = make()
    table = pa.table({**catalog, "src_e": pa.array([0.1, None, 0.1, 0.1, 0.1])})
    assert "row 1 (task_id t001): src_e is missing" in refusal(table)
    mask = np.array([False, False, True, False, False])
    assert "row 2" in refusal({**catalog, "src_e": np.ma.MaskedArray(catalog["src_e"], mask=mask)})
    assert "row 3" in refusal({**catalog, "src_n": np.array([1.0, 1.0, 1.0, None, 1.0], dtype=object)})
    assert "lens_model is missing" in refusal(
        pa.table({**catalog, "lens_model": ["SIE", None, "SIE", "SIE", "SIE"]})
    )


def test_text_and_wrong_shapes_are_refused() -> None:
    catalog = make()
    text = np.array(["1.0", "1.0", "abc", "1.0", "1.0"], dtype=object)
    assert "src_n is '1.0', allowed: a number" in refusal({**catalog, "src_n": text})
    assert "column src_e has shape (4,) where lens_model has 5 rows" in refusal(
        {**catalog, "src_e": catalog["src_e"][:4]}
    )
    assert "shape (5, 1)" in refusal({**catalog, "src_e": catalog["src_e"][:, None]})
    assert "shape ()" in refusal({**catalog, "lens_model": "SIE"})


def test_the_input_is_left_alone() -> None:
    catalog = make()
    catalog["lens_model"][2] = "CONTROL"
    catalog["src_e"][2] = np.nan
    before = {k: v.copy() for k, v in catalog.items()}
    render_columns(catalog, "grz", theta_e_convention="major")
    masked = np.ma.MaskedArray(np.array([1.0, 1.0, 9.0, 1.0, 1.0], dtype=object), mask=[0, 0, 1, 0, 0])
    render_columns({**catalog, "src_n": masked}, "grz")
    assert masked.data[2] == 9.0
    for name, values in before.items():
        np.testing.assert_array_equal(catalog[name], values)


def test_take_gives_rows_in_the_order_asked() -> None:
    columns = render_columns(make(), "grz")
    taken = columns.take([4, 0, 4])
    np.testing.assert_array_equal(taken.src_flux_nmgy, columns.src_flux_nmgy[[4, 0, 4]])
    part = columns.take(slice(1, 3))
    np.testing.assert_array_equal(part.lens_e, columns.lens_e[1:3])
    assert part.src_flux_nmgy.flags.c_contiguous
    assert len(columns.take(np.array([], dtype=np.int64))) == 0


def test_no_rows_are_no_error() -> None:
    assert len(render_columns({k: v[:0] for k, v in make().items()}, "grz")) == 0


@pytest.mark.parametrize("bands", ["", "grg", ("g", "")])
def test_bands_are_named_once(bands: Any) -> None:
    with pytest.raises(CatalogError, match="each band once"):
        band_names(bands)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    st.integers(0, 199),
    st.sampled_from(["src_e", "lens_e", "theta_e_arcsec", "src_flux_nmgy_g"]),
    st.floats(-1e6, -1e-300),
)
def test_the_first_bad_row_is_found_wherever_it_is(row: int, column: str, value: float) -> None:
    catalog = make(200)
    catalog[column][row] = value
    catalog[column][199] = value
    assert f"catalogue row {row} (task_id t{row:03d}): {column}" in refusal(catalog)


def test_a_hundred_thousand_rows_take_well_under_a_second() -> None:
    catalog = make(100_000)
    catalog["lens_model"][::3] = "CONTROL"
    for form in (catalog, pa.table(catalog)):
        start = time.perf_counter()
        render_columns(form, "grz")
        assert time.perf_counter() - start < 0.8
