"""Read banks of source images: GalSim's RealGalaxyCatalog layout, npz archives, FITS cubes and folders."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.blobs import read_arrays
from arcforge.engine.errors import SourceError
from arcforge.engine.fits_images import FitsImage, check_fits, fits_images, wcs_pixscale_arcsec
from arcforge.engine.host_files import unpacked
from arcforge.engine.source_audit import BankReport, audit_bank, judge_prepared
from arcforge.engine.source_bank import SourceBank, Template, sharpen
from arcforge.engine.source_noise import cut_out, denoised
from arcforge.engine.threads import for_each, usable_threads

_SUFFIXES = (".fits", ".fit", ".fits.gz", ".fits.fz")
_BANDS = "ugrizy"
_NPZ_KEYS = {"images", "pixscale_arcsec", "psf", "ids", "noise_variance", *(f"mag_{band}" for band in _BANDS)}
_MOST_PIX = 4096  # a side of a template
_MOST_BYTES = 8 << 30  # what an archive may unpack to
_LEAST_KEPT = 0.5  # share of a bank that must be fit for use: what is worse was made wrongly


def open_bank(path: str | os.PathLike[str], *, deconvolve: bool = True, clean: bool = False) -> SourceBank:
    """Read a bank of source images, judge every template, and free it of its telescope's PSF.

    Parameters
    ----------
    path : path
        GalSim's layout: the catalogue (``IDENT``, ``GAL_FILENAME``, ``GAL_HDU``, ``PIXEL_SCALE``, with
        ``PSF_FILENAME``, ``PSF_HDU``, ``NOISE_VARIANCE`` where known) or the folder that holds it; an
        ``.npz`` with ``images`` (n, ny, nx) and ``pixscale_arcsec``, also ``psf``, ``ids``,
        ``noise_variance``; a FITS cube (n, ny, nx) with PIXSCALE or a WCS; a folder of FITS images.
    deconvolve : bool
        Divide the templates' PSFs out where they are given.
    clean : bool
        Take off a pedestal and fade the light out at the edge instead of refusing such templates; then take
        away the noise of each galaxy and the sky around it, which would be lensed with it.

    Returns
    -------
    SourceBank
        The templates that passed; its ``report`` names the others.

    Raises
    ------
    SourceError
        Unreadable, or the audit refuses more than half of it; says why, and names the first.
    """
    templates = list(read_templates(Path(path)))
    kept, report = audit_bank(templates, clean=clean)

    def prepare(place: int) -> None:
        template = denoised(kept[place]) if clean else kept[place]
        template = _without_psf(template, clean) if deconvolve else template
        kept[place] = cut_out(template) if clean else template

    for_each(prepare, range(len(kept)), usable_threads(None))
    kept = [template for template in kept if judge_prepared(template, report)]
    if len(kept) <= _LEAST_KEPT * len(templates):
        raise SourceError(f"bank {path}: {report.summary()}; mend it or give another")
    bank = SourceBank(kept)
    bank.report = report
    return bank


def audit_bank_file(path: str | os.PathLike[str], *, clean: bool = False) -> BankReport:
    """Judge the templates of a bank as they are; see ``source_audit``."""
    return audit_bank(list(read_templates(Path(path))), clean=clean)[1]


def _without_psf(template: Template, clean: bool) -> Template:
    if template.psf is None:
        return template
    pixels, _ = sharpen(template.pixels, template.psf, positive=clean)
    return Template(template.source_id, pixels, template.pixscale_arcsec, None, template.mag)


def read_templates(path: Path) -> Iterator[Template]:
    """Yield the templates of a bank as they are.

    Raises
    ------
    SourceError
        The bank, or what it should hold, is absent, damaged or of another form.
    """
    if not path.exists():
        raise SourceError(f"bank {path}: no such file or folder: check the path")
    try:
        for template in _templates(path):
            for what, image in (("image", template.pixels), ("PSF", template.psf)):
                if image is not None and (image.ndim != 2 or max(image.shape) > _MOST_PIX):
                    raise SourceError(
                        f"bank {path}: source {template.source_id}: its {what} has shape {image.shape}: "
                        f"give a 2-D one of at most {_MOST_PIX} pixels a side"
                    )
            yield template
    except SourceError:
        raise
    except Exception as error:  # damaged bytes fail in many ways inside zip, numpy and FITS
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SourceError(f"bank {path}: damaged or of another form ({reason}): fetch it again") from error


def _templates(path: Path) -> Iterator[Template]:
    if path.name.lower().endswith(".npz"):
        return _from_npz(path)
    if path.is_dir():
        catalogs = [each for each in sorted(path.glob("*.fits")) if _is_galsim_catalog(each)]
        return _from_galsim(catalogs[0]) if catalogs else _from_folder(path)
    return _from_galsim(path) if _is_galsim_catalog(path) else _from_cube(path)


def _from_npz(path: Path) -> Iterator[Template]:
    entries = read_arrays(path.read_bytes(), _MOST_BYTES, _NPZ_KEYS.__contains__)
    if "images" not in entries or "pixscale_arcsec" not in entries or entries["images"].ndim != 3:
        raise SourceError(f"bank {path}: needs the keys images (n, ny, nx) and pixscale_arcsec")
    images = entries["images"]
    n = len(images)
    scale = np.broadcast_to(entries["pixscale_arcsec"], n)
    ids = entries.get("ids", np.arange(n))
    variance = np.broadcast_to(entries.get("noise_variance", math.nan), n)
    psf = entries.get("psf")
    mags = {band: entries[f"mag_{band}"] for band in _BANDS if f"mag_{band}" in entries}
    for i in range(n):
        own = None if psf is None else psf if psf.ndim == 2 else psf[i]
        mag = {band: float(values[i]) for band, values in mags.items()}
        yield Template(str(ids[i]), _float32(images[i]), float(scale[i]), _psf(own), mag, float(variance[i]))


def _from_cube(path: Path) -> Iterator[Template]:
    image = next((each for each in fits_images(_content(path)) if len(each.shape) == 3), None)
    if image is None:
        raise SourceError(f"bank {path}: no FITS cube (n, ny, nx), and no catalogue of GalSim's layout")
    cube, scale = image.read(), _scale(image, path)
    for number, plane in enumerate(cube):
        yield Template(str(number), _float32(plane), scale)


def _from_folder(path: Path) -> Iterator[Template]:
    files = sorted(each for each in path.iterdir() if each.name.lower().endswith(_SUFFIXES))
    if not files:
        raise SourceError(f"bank {path}: the folder holds no FITS file: check the path")
    for file in files:
        units = {each.name: each for each in fits_images(_content(file)) if len(each.shape) == 2}
        image = next((each for name, each in units.items() if name != "PSF"), None)
        if image is None:
            raise SourceError(f"source {file}: holds no 2-D image: take it out of the bank")
        psf = units["PSF"].read() if "PSF" in units else None
        yield Template(file.name.split(".")[0], _float32(image.read()), _scale(image, file), _psf(psf))


def _scale(image: FitsImage, path: Path) -> float:
    scale = image.header.get("PIXSCALE", wcs_pixscale_arcsec(image.header))
    if scale is None:
        raise SourceError(f"bank {path}: does not state its pixel scale: add PIXSCALE (arcsec)")
    return float(scale)


def _content(path: Path) -> bytes:
    return unpacked(path.name, path.read_bytes())


def _is_galsim_catalog(path: Path) -> bool:
    from astropy.io import fits

    content = _content(path)
    check_fits(content)
    with fits.open(io.BytesIO(content)) as units:
        return any("GAL_FILENAME" in unit.columns.names for unit in units if hasattr(unit, "columns"))


def _from_galsim(path: Path) -> Iterator[Template]:
    """Templates of a catalogue in GalSim's layout (galsim.RealGalaxyCatalog), with magnitudes beside it."""
    from astropy.io import fits
    from astropy.table import Table

    table = Table.read(path)
    beside = path.with_name(f"{path.name.removesuffix('.fits')}_fits.fits")
    more = Table.read(beside) if beside.exists() else Table()
    names = {f"HSC_{band}": band for band in _BANDS if f"HSC_{band}" in more.colnames}
    held: dict[str, Any] = {}

    def plane(name: str, number: int) -> NDArray[Any]:
        if name not in held:
            file = path.parent / name.strip()
            if not file.exists():
                raise SourceError(f"bank {path}: its file {file.name} is not beside it: fetch it")
            content = _content(file)
            check_fits(content)
            held[name] = fits.open(io.BytesIO(content))
        return np.asarray(held[name][number].data)

    try:
        for i, row in enumerate(table):
            psf = (
                plane(str(row["PSF_FILENAME"]), int(row["PSF_HDU"]))
                if "PSF_FILENAME" in table.colnames
                else None
            )
            mag = (
                {band: float(more[name][i]) for name, band in names.items()}
                if len(more) == len(table)
                else {}
            )
            variance = float(row["NOISE_VARIANCE"]) if "NOISE_VARIANCE" in table.colnames else math.nan
            image = plane(str(row["GAL_FILENAME"]), int(row["GAL_HDU"]))
            yield Template(
                str(row["IDENT"]), _float32(image), float(row["PIXEL_SCALE"]), _psf(psf), mag, variance
            )
    finally:
        for units in held.values():
            units.close()


def _float32(image: NDArray[Any]) -> NDArray[np.float32]:
    return np.ascontiguousarray(image, dtype=np.float32)


def _psf(image: NDArray[Any] | None) -> NDArray[np.float32] | None:
    return None if image is None else _float32(image)
