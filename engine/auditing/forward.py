"""The forward model of the audit: re-render rows from recorded parameters, as they are or changed in one
respect.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.auditing.kernels import cut_kernel, wraparound
from arcforge.engine.auditing.readings import READINGS
from arcforge.engine.components import scaled
from arcforge.kernels.codes import PSF_NONE

if TYPE_CHECKING:
    from arcforge.engine.catalog import RenderColumns

Images = NDArray[np.float32]
Integers = NDArray[np.int64]

# Where a PSF kernel ends: the name of the parameter, which tells the unit, and its value
Edge = tuple[str, float]

# The audit asks for residuals of 1e-3 of the peak; its own error must not show in them.
VARIANT, RTOL = "auto", 2e-4


@dataclass(frozen=True)
class Change:
    """How a set may differ from its record: the same for every row. The defaults change nothing.

    Scales multiply the recorded value; ``psf_width_of_bands`` (band, scale) multiplies ``psf_width``.
    ``reading`` names one of ``READINGS``, by which the columns are read before anything else.
    ``kernel_edge_pix`` cuts the PSF kernel to a square that ends so far from its centre (a kernel of 2 h + 1
    pixels a side ends at h + 1/2), ``kernel_edge_fwhm`` to one that ends at so many of its own FWHM.
    """

    offset_x_pix: float = 0.0
    offset_y_pix: float = 0.0
    psf_width: float = 1.0
    psf_width_of_bands: tuple[tuple[str, float], ...] = ()
    theta_e_scale: float = 1.0
    source_size: float = 1.0
    reading: str = ""
    kernel_edge_pix: float = np.inf
    kernel_edge_fwhm: float = np.inf

    @property
    def edges(self) -> list[Edge]:
        """The finite edges of the kernel."""
        both = (("kernel_edge_pix", self.kernel_edge_pix), ("kernel_edge_fwhm", self.kernel_edge_fwhm))
        return [(name, value) for name, value in both if np.isfinite(value)]


NOMINAL = Change()


class Forward:
    """Renders rows of one set.

    Parameters
    ----------
    columns : RenderColumns
        Recorded parameters of the audited pairs.
    stamp_size, pixscale_arcsec
        Frame of the stamps.
    bands : str
        Order of the band axis.
    variant, rtol
        Renderer; the defaults are the audit's.
    pixel_response : {"in_psf", "box"}
        Of the set.
    psf_images : mapping of int to array, optional
        PSFs of rows whose PSF is an image.
    sources : SourceBank, optional
        Images of rows whose source is one.
    """

    def __init__(
        self,
        columns: RenderColumns,
        stamp_size: int,
        pixscale_arcsec: float,
        bands: str,
        variant: str = VARIANT,
        rtol: float = RTOL,
        pixel_response: str = "in_psf",
        psf_images: Any = None,
        sources: Any = None,
    ) -> None:
        self.columns = columns
        self.stamp_size = stamp_size
        self.pixscale_arcsec = pixscale_arcsec
        self.bands = bands
        self.variant = variant
        self.rtol = rtol
        self.pixel_response = pixel_response
        self.psf_images = psf_images
        self.sources = sources
        self._own = threading.local()  # a thread's last images before their PSFs were cut

    def otherwise(self, **changes: Any) -> Forward:
        """Return a renderer of the same rows with some arguments changed."""
        arguments = {name: value for name, value in vars(self).items() if name != "_own"}
        return Forward(**arguments | changes)

    def render(
        self,
        rows: Integers,
        change: Change = NOMINAL,
        *,
        with_psf: bool = True,
        reff_arcsec: float | None = None,
    ) -> Images:
        """Render rows.

        Parameters
        ----------
        rows : int64 (k,)
            Rows of ``columns``.
        change : Change
            Departure from the record.
        with_psf : bool
            False leaves the PSF out (pixel means).
        reff_arcsec : float, optional
            Source size in place of the recorded one.

        Returns
        -------
        float32 (k, band, y, x)
            nMgy per pixel.
        """
        if change.edges:
            return self.cut(rows, change, change.edges[:1])[0]
        return self._render(self._changed(rows, change, with_psf, reff_arcsec), self.stamp_size)

    def cut(self, rows: Integers, change: Change, edges: Sequence[Edge]) -> list[Images]:
        """Render rows with the PSF kernel cut at each of several edges: float32 (k, band, y, x) each."""
        whole = replace(change, kernel_edge_pix=np.inf, kernel_edge_fwhm=np.inf)
        changed = self._changed(rows, whole, True, None)
        key = (rows.tobytes(), whole)
        # a fit asks for three edges of the same rows and change in a row
        if getattr(self._own, "key", None) != key:
            bare = self._changed(rows, whole, False, None)
            self._own.images = self._render(changed, self.stamp_size), self._render(bare, self.stamp_size)
            self._own.key = key
        images, unconvolved = self._own.images
        fwhm_pix = changed.psf_fwhm_arcsec / self.pixscale_arcsec
        edges_pix = [
            value * (fwhm_pix if name == "kernel_edge_fwhm" else np.ones_like(fwhm_pix))
            for name, value in edges
        ]
        return cut_kernel(images, unconvolved, changed, self.pixscale_arcsec, edges_pix)

    def ratio(self, column: str, rows: Integers, change: Change) -> NDArray[np.float64]:
        """Return what a change multiplies a column by, in the band of each row that departs most: (k,).

        0 where nothing is recorded, as the width of a PSF that is an image.
        """
        recorded = getattr(self.columns.take(rows), column).reshape(len(rows), -1)
        changed = getattr(self._changed(rows, change, True, None), column).reshape(len(rows), -1)
        ratio = np.divide(changed, recorded, out=np.zeros(changed.shape), where=recorded > 0)
        return np.asarray(ratio[np.arange(len(rows)), np.argmax(np.abs(ratio - 1.0), axis=1)])

    def wide_light(self, rows: Integers) -> Images:
        """Render rows without PSF on a frame twice as wide: float32 (k, band, y, x)."""
        return self._render(self._changed(rows, NOMINAL, False, None), 2 * self.stamp_size)

    def wraparound(self, rows: Integers) -> Images:
        """Return what an unpadded convolution would add to each row: float32 (k, band, y, x)."""
        n = self.stamp_size
        wide = self._render(self._changed(rows, NOMINAL, False, None), n + 2 * (n // 2))
        return wraparound(wide, self._changed(rows, NOMINAL, True, None), self.pixscale_arcsec, n)

    def _render(self, columns: RenderColumns, stamp_size: int) -> Images:
        from arcforge.engine.render import render_rows

        return render_rows(
            columns,
            stamp_size=stamp_size,
            pixscale_arcsec=self.pixscale_arcsec,
            variant=self.variant,
            rtol=self.rtol,
            pixel_response=self.pixel_response,
            psf_images=self.psf_images,
            sources=self.sources,
        )

    def _changed(
        self, rows: Integers, change: Change, with_psf: bool, reff_arcsec: float | None
    ) -> RenderColumns:
        c = self.columns.take(rows)
        if change.reading:
            c = READINGS[change.reading].apply(c)
        widths = dict(change.psf_width_of_bands)
        psf_width = np.array([change.psf_width * widths.get(band, 1.0) for band in self.bands])
        return replace(
            c,
            theta_e_arcsec=c.theta_e_arcsec * change.theta_e_scale,
            lens_x_arcsec=c.lens_x_arcsec + change.offset_x_pix * self.pixscale_arcsec,
            lens_y_arcsec=c.lens_y_arcsec + change.offset_y_pix * self.pixscale_arcsec,
            src_reff_arcsec=(
                c.src_reff_arcsec * change.source_size
                if reff_arcsec is None
                else np.full(len(c), reff_arcsec)
            ),
            # a source of another extent is one piece
            more_fraction=c.more_fraction * (reff_arcsec is None),
            more_shape=scaled(c, change.source_size),
            psf_fwhm_arcsec=c.psf_fwhm_arcsec * psf_width,
            psf_model=c.psf_model if with_psf else np.full_like(c.psf_model, PSF_NONE),
        )


def edge_words(edge: Edge) -> str:
    """Return where a kernel ends, in words."""
    name, value = edge
    return f"{value:.1f} FWHM" if name == "kernel_edge_fwhm" else f"{value:.1f} px"
