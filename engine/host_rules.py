"""Which cutouts may be hosts: pixels, coverage, masks and PSF of a stamp, judged by stated rules."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.errors import HostError
from arcforge.engine.host_files import Cutout
from arcforge.engine.maskbits import BAD_MASKBITS, SATURATED_MASKBITS


@dataclass(frozen=True)
class HostRules:
    """What a host's stamp has to be."""

    min_coverage: float = 0.9  #: share of its pixels with an inverse variance above 0, in every band
    bad_maskbits: tuple[int, ...] = BAD_MASKBITS
    centre_radius_pix: float = 2.0  #: no bad bit, and coverage in every band, within it of the central pixel
    saturated_radius_arcsec: float = 0.0  #: no saturated pixel within it; 0: not asked for


def check_cube(pixels: NDArray[np.float32], bands: str) -> None:
    """Refuse a cutout with pixels that are not finite, or a band of one value."""
    for band, plane in zip(bands, pixels, strict=True):
        bad = ~np.isfinite(plane)
        if bad.any():
            y, x = np.argwhere(bad)[0]
            raise HostError(
                f"{int(bad.sum())} pixels of band {band} are NaN or infinite, the first at x = {x}, "
                f"y = {y}: remove the file or repair its pixels",
                reason="NaN",
            )
        if plane.min() == plane.max():
            raise HostError(
                f"band {band} is {plane.flat[0]:g} everywhere (no coverage): remove the file",
                reason="no coverage",
            )


def check_stamp(stamp: Cutout, bands: str, pixscale_arcsec: float, rules: HostRules) -> None:
    """Refuse a stamp without coverage, or masked where its galaxy is.

    Raises
    ------
    HostError
        With the reason "no coverage", "masked centre" or "saturated neighbour".
    """
    distance = _distance_pix(stamp.pixels.shape[-1])
    _check_coverage(stamp, bands, distance, rules)
    if stamp.mask is None:
        return
    bad = (stamp.mask & _bits(rules.bad_maskbits)) != 0
    centre = bad & (distance <= rules.centre_radius_pix)
    if centre.any():
        y, x = np.argwhere(centre)[0]
        raise HostError(
            f"masked at its centre (mask bits {_names(int(stamp.mask[y, x]))} at x = {x}, y = {y} of the "
            "stamp): remove it, or set host_bad_maskbits",
            reason="masked centre",
        )
    saturated = (stamp.mask & _bits(SATURATED_MASKBITS)) != 0
    near = saturated & (distance * pixscale_arcsec <= rules.saturated_radius_arcsec)
    if rules.saturated_radius_arcsec > 0.0 and near.any():
        nearest = float(distance[near].min()) * pixscale_arcsec
        raise HostError(
            f"saturated pixels {nearest:.1f} arcsec from its centre, allowed: from "
            f"{rules.saturated_radius_arcsec:g} on (host_saturated_radius_arcsec)",
            reason="saturated neighbour",
        )


def _check_coverage(stamp: Cutout, bands: str, distance: NDArray[np.float64], rules: HostRules) -> None:
    # without an inverse variance, an exact zero is what coadds hold where there is no exposure
    layer = stamp.pixels if stamp.invvar is None else stamp.invvar
    for band, plane in zip(bands, layer, strict=True):
        covered = (plane != 0.0) if stamp.invvar is None else (plane > 0.0)
        share = float(covered.mean())
        if share < rules.min_coverage:
            raise HostError(
                f"{share:.0%} of band {band} of its stamp is covered, allowed: from {rules.min_coverage:.0%} "
                "on (host_min_coverage)",
                reason="no coverage",
            )
        if not covered[distance <= rules.centre_radius_pix].all():
            raise HostError(f"band {band} has no coverage at its centre: remove it", reason="no coverage")
        if stamp.invvar is not None and not (np.isfinite(plane).all() and plane.min() >= 0.0):
            raise HostError(
                f"its inverse variance in {band} is negative or not finite somewhere: correct it",
                reason="bad invvar",
            )


def _distance_pix(size: int) -> NDArray[np.float64]:
    offset = np.arange(size) - size // 2
    return np.hypot(offset[:, None], offset[None, :])


def _bits(bits: tuple[int, ...]) -> int:
    return sum(1 << bit for bit in bits)


def _names(value: int) -> str:
    return ", ".join(str(bit) for bit in range(31) if value >> bit & 1)


def checked_psf_image(psf: NDArray[Any], n_bands: int) -> NDArray[np.float32]:
    """The PSF images as float32 (bands, side, side); HostError where they cannot serve."""
    from arcforge.engine.errors import PsfError
    from arcforge.engine.psf_images import PsfImages

    try:
        PsfImages({0: psf}, n_bands)
    except PsfError as error:
        text = str(error).replace("PSF 0", "its PSF image", 1)
        raise HostError(text, reason="bad PSF image") from error
    return np.ascontiguousarray(psf, dtype=np.float32)


def is_known(values: tuple[float, ...]) -> bool:
    """Tell whether any of the values is a number."""
    return not all(math.isnan(value) for value in values)
