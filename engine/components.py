"""Sources of several components: bulge and disk, clumps on a disk, or whatever a catalogue says.

A catalogue gives each component after the first its columns: ``src2_fraction_<band>`` (or ``src2_fraction``,
for all bands), its share in the source's flux; ``src2_x_arcsec`` and ``src2_y_arcsec``, its place from the
first one's centre; ``src2_reff_arcsec``, ``src2_n``, ``src2_e``, ``src2_phi_rad``; then ``src3_`` and so on.
The first component is what ``src_`` says and has the rest of the flux. The light is the sum of all. A row
whose shares of a component are 0 or null does not have it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.columns import Column
from arcforge.engine.errors import CatalogError
from arcforge.kernels.codes import CONTROL

if TYPE_CHECKING:
    from arcforge.engine.catalog import RenderColumns

Floats = NDArray[np.float64]

_NAME = re.compile(r"src([2-9]|[1-9][0-9]+)_fraction(_[a-zA-Z0-9]+)?\Z")
_ROUNDING = 1e-9  # by which shares may exceed 1
_ELLIPTICITY = "e = (1-q)/(1+q), with q the axis ratio"

# The shape of a component, in the order of ``RenderColumns.more_shape``.
SHAPE = (
    Column("x_arcsec", default=0.0),
    Column("y_arcsec", default=0.0),
    Column("reff_arcsec", 0.0, low_open=True, neutral=1.0, remedy="half-light radius in arcsec"),
    Column("n", 0.3, 8.0, default=1.0, neutral=1.0, remedy="give another Sersic index"),
    Column("e", 0.0, 1.0, high_open=True, default=0.0, remedy=_ELLIPTICITY),
    Column("phi_rad", default=0.0),
)
FRACTION = Column(
    "fraction", 0.0, 1.0, remedy="share of the source's flux in this component, 0 where there is none"
)
_X, _Y, _REFF, _N, _E, _PHI = range(len(SHAPE))


def is_share(name: str) -> bool:
    """Tell whether a column is the share of a component in the flux."""
    return _NAME.match(name) is not None


def component_numbers(names: Iterable[str]) -> list[int]:
    """Return the numbers, from 2 on, of the components that a catalogue with these columns has.

    Raises
    ------
    CatalogError
        Where a number is left out.
    """
    found = {int(match[1]): match[0] for match in map(_NAME.match, names) if match}
    for expected, number in enumerate(sorted(found), start=2):
        if number != expected:
            raise CatalogError(
                f"the catalogue has a column {found[number]} but no src{expected}_{FRACTION.name}: number "
                "the components after the first from 2 on, without gaps"
            )
    return sorted(found)


def column_names(number: int, bands: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return a component's columns: its shares by band, and its shape."""
    shares = [f"src{number}_{FRACTION.name}_{band}" for band in bands]
    return shares, [f"src{number}_{column.name}" for column in SHAPE]


def read_components(table: Any, names: list[str], bands: tuple[str, ...], rows: NDArray[np.bool_]) -> Any:
    """Check a catalogue's further components.

    Parameters
    ----------
    table
        The catalogue, as ``catalog`` looks at it.
    names : list of str
        Its columns.
    bands : tuple of str
    rows : bool (n,)
        Rows that may have components; the others' are not looked at.

    Returns
    -------
    dict of str to float64
        ``more_fraction`` (n, components, bands) and ``more_shape`` (n, components, 6); 0 where a row has no
        such component.

    Raises
    ------
    CatalogError
        For a missing column, a value out of range, or shares that exceed the whole; names row and column.
    """
    numbers = component_numbers(names)
    fraction = np.zeros((table.n, len(numbers), len(bands)))
    shape = np.zeros((table.n, len(numbers), len(SHAPE)))
    for k, number in enumerate(numbers):
        shares, shapes = column_names(number, bands)
        common = f"src{number}_{FRACTION.name}"
        read = [common if name not in names and common in names else name for name in shares]
        given = np.zeros(table.n, dtype=np.bool_)  # in one band, so it is asked for in all
        for name in set(read) & set(names):
            given |= rows & ~np.isnan(table.floats(name))
        for b, name in enumerate(read):
            fraction[:, k, b] = np.where(given, table.checked(replace(FRACTION, name=name), given), 0.0)
        there = rows & (fraction[:, k] > 0.0).any(axis=1)
        for c, (name, column) in enumerate(zip(shapes, SHAPE, strict=True)):
            values = table.checked(replace(column, name=name), there)
            shape[:, k, c] = np.where(there, values, 0.0)
    total = fraction.sum(axis=1)
    if (total > 1.0 + _ROUNDING).any():
        row, b = (int(i[0]) for i in np.nonzero(total > 1.0 + _ROUNDING))
        table.refuse(
            row, f"src2_{FRACTION.name}_{bands[b]}", total[row, b],
            "shares of all components that add up to at most 1", "the first component has the rest",
        )  # fmt: skip
    return {"more_fraction": fraction, "more_shape": shape}


def has_components(columns: RenderColumns) -> bool:
    """Tell whether a row has more than one component."""
    return bool(columns.more_fraction.any())


def component(columns: RenderColumns, number: int) -> RenderColumns:
    """Return every row's component of that number, from 1 on, as a row of its own.

    Rows without it become CONTROL rows: they hold no light.
    """
    none: Any = np.zeros((len(columns), 0, 1))
    alone: dict[str, Any] = {"more_fraction": none, "more_shape": none}
    profile = columns.source_id == ""
    fraction = np.where(profile[:, None, None], columns.more_fraction, 0.0)
    if number == 1:
        rest = np.clip(1.0 - fraction.sum(axis=1), 0.0, 1.0)
        return replace(columns, src_flux_nmgy=columns.src_flux_nmgy * rest, **alone)
    shape, share = columns.more_shape[:, number - 2], fraction[:, number - 2]
    there = (share > 0.0).any(axis=1)

    def put(name: str, values: Floats) -> Floats:
        return np.ascontiguousarray(np.where(there, values, getattr(columns, name)))

    return replace(
        columns,
        lens_model=np.where(there, columns.lens_model, CONTROL).astype(np.int8),
        src_flux_nmgy=columns.src_flux_nmgy * share,
        src_x_arcsec=put("src_x_arcsec", columns.src_x_arcsec + shape[:, _X]),
        src_y_arcsec=put("src_y_arcsec", columns.src_y_arcsec + shape[:, _Y]),
        src_reff_arcsec=put("src_reff_arcsec", shape[:, _REFF]),
        src_n=put("src_n", shape[:, _N]),
        src_e=put("src_e", shape[:, _E]),
        src_phi_rad=put("src_phi_rad", shape[:, _PHI]),
        **alone,
    )


def components(columns: RenderColumns) -> list[RenderColumns]:
    """Return the components of all rows, each as the rows that it is alone."""
    return [component(columns, number + 1) for number in range(1 + columns.more_fraction.shape[1])]


Render = Callable[[Any, NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]], object]


def render_components(
    columns: RenderColumns,
    render: Render,
    out: NDArray[np.float32],
    magnification: NDArray[np.float64] | None,
    effort: NDArray[np.float64] | None,
) -> None:
    """Render component after component with ``render`` and add them up, in that order, in float32.

    The magnification is the mean of the components', weighted by their shares in the flux of all bands; the
    effort is the sum, and the bound on the error the sum of the components' over the peak of all.
    """
    n = len(columns)
    layer = np.empty_like(out)
    found, spent = np.empty(n), np.empty((n, 3))
    whole = columns.src_flux_nmgy.sum(axis=1)
    lensed, samples, error = np.zeros(n), np.zeros((n, 3)), np.zeros(columns.src_flux_nmgy.shape)
    is_lens = columns.lens_model != CONTROL
    for k, part in enumerate(components(columns)):
        image = out if k == 0 else layer
        render(part, image, found, spent)
        there = part.lens_model != CONTROL
        share = np.full(n, float(k == 0))  # where there is no flux, the first one's
        np.divide(part.src_flux_nmgy.sum(axis=1), whole, out=share, where=whole > 0.0)
        lensed += np.where(there, share * found, 0.0)
        samples[:, :2] += np.where(there[:, None], spent[:, :2], 0.0)
        error += np.where(there[:, None], spent[:, 2:] * image.max(axis=(2, 3)), 0.0)
        if k > 0:
            out[there] += layer[there]
    samples[:, 2] = (error / np.maximum(out.max(axis=(2, 3)), np.finfo(np.float32).tiny)).max(axis=1)
    if magnification is not None:
        magnification[:] = np.where(is_lens, lensed, np.nan)
    if effort is not None:
        effort[:] = np.where(is_lens[:, None], samples, np.nan)


def turned(columns: RenderColumns, angle_rad: Floats) -> Floats:
    """Return ``more_shape`` with every component turned about the first one's centre."""
    c, s = np.cos(angle_rad)[:, None], np.sin(angle_rad)[:, None]
    shape = columns.more_shape.copy()
    x, y = columns.more_shape[..., _X], columns.more_shape[..., _Y]
    shape[..., _X], shape[..., _Y] = c * x - s * y, s * x + c * y
    shape[..., _PHI] += angle_rad[:, None]
    return shape


def offset_arcsec(columns: RenderColumns) -> Floats:
    """Return how far the farthest component lies from the first one's centre (n,)."""
    radius = np.hypot(columns.more_shape[..., _X], columns.more_shape[..., _Y])
    return np.asarray(radius.max(axis=1, initial=0.0))


def scaled(columns: RenderColumns, factor: float) -> Floats:
    """Return ``more_shape`` of a source that is larger by a factor."""
    shape = columns.more_shape.copy()
    shape[..., [_X, _Y, _REFF]] *= factor
    return shape
