"""What images cost: galaxies as sources and PSFs as images, beside Sersic profiles and analytic PSFs.

    python -m arcforge.bench.image_sources --bank COSMOS --rows 800

The same rows of the default priors are rendered in three bands on one thread, all kinds in turn, several
times; what counts is the processor's time, and the median of the ratios. Without a bank, galaxies of a disk
with clumps are made, of the pixel scale of Hubble's.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.catalog import RenderColumns, render_columns
from arcforge.engine.config import default_config
from arcforge.engine.draws import draw_catalog
from arcforge.engine.psf import moffat_alpha
from arcforge.engine.psf_images import PsfImages
from arcforge.engine.render import render_rows
from arcforge.engine.source_bank import SourceBank, Template
from arcforge.engine.source_files import open_bank
from arcforge.engine.synthetic import synthetic_hosts
from arcforge.kernels.codes import PSF_GAUSSIAN, PSF_IMAGE, PSF_MOFFAT

_SEED, _HOSTS, _PIXSCALE_ARCSEC = 3, 40, 0.262
_TEMPLATES, _TEMPLATE_PIX, _TEMPLATE_PIXSCALE_ARCSEC = 20, 61, 0.03
_PSFS, _PSF_PIX = 20, 63
_BETA = 3.5
_WARM_ROWS = 40


def made_bank(rng: np.random.Generator) -> SourceBank:
    """Disks with four clumps each."""
    axis = np.arange(_TEMPLATE_PIX) - 0.5 * (_TEMPLATE_PIX - 1)
    x, y = np.meshgrid(axis, axis)
    templates = []
    for k in range(_TEMPLATES):
        image = np.exp(-1.68 * np.hypot(x, y / rng.uniform(0.4, 1.0)) / 9.0)
        for u, v in rng.uniform(-12.0, 12.0, (4, 2)):
            image += 0.3 * np.exp(-0.5 * ((x - u) ** 2 + (y - v) ** 2) / 4.0)
        faded = image * (np.hypot(x, y) < 0.5 * _TEMPLATE_PIX - 1.0)
        templates.append(Template(str(k), faded.astype(np.float32), _TEMPLATE_PIXSCALE_ARCSEC))
    return SourceBank(templates)


def made_psfs(fwhm_arcsec: NDArray[np.float64]) -> PsfImages:
    """Moffats of those widths (n, bands), as images."""
    axis = np.arange(_PSF_PIX) - _PSF_PIX // 2
    alpha = moffat_alpha(fwhm_arcsec / _PIXSCALE_ARCSEC, np.full(fwhm_arcsec.shape, _BETA))
    images = (1.0 + (axis[:, None] ** 2 + axis**2) / alpha[..., None, None] ** 2) ** -_BETA
    return PsfImages(images / images.sum(axis=(2, 3), keepdims=True), fwhm_arcsec.shape[1])


def kinds_of_rows(n: int, bank: SourceBank) -> tuple[dict[str, RenderColumns], PsfImages]:
    """The same ``n`` rows in every way, and their PSFs as images."""
    config = default_config()
    hosts = synthetic_hosts(
        _HOSTS, _SEED, bands=config.bands, stamp_size=config.stamp_size, pixscale_arcsec=_PIXSCALE_ARCSEC
    )
    moffat = render_columns(draw_catalog(config, hosts, _SEED, np.arange(n)), config.bands)
    number = np.arange(n)
    psfs = made_psfs(moffat.psf_fwhm_arcsec[:_PSFS])
    as_images = replace(
        moffat,
        psf_model=np.full(n, PSF_IMAGE, dtype=np.int8),
        psf_id=number % len(psfs.pixels),
        psf_fwhm_arcsec=np.zeros_like(moffat.psf_fwhm_arcsec),
    )
    ids = np.array(bank.ids)[number % len(bank)]
    return {
        "Sersic, Moffat": replace(moffat, psf_model=np.full(n, PSF_MOFFAT, dtype=np.int8)),
        "Sersic, Gaussian": replace(moffat, psf_model=np.full(n, PSF_GAUSSIAN, dtype=np.int8)),
        "Sersic, image": as_images,
        "image, image": replace(as_images, source_id=ids, src_reff_arcsec=np.zeros(n)),
    }, psfs


def measure(n: int, repeats: int, bank: SourceBank) -> dict[str, NDArray[np.float64]]:
    """Processor time [us] a row of each kind, (repeats,), taken in turn."""
    kinds, psfs = kinds_of_rows(n, bank)
    options: dict[str, Any] = {
        "pixscale_arcsec": _PIXSCALE_ARCSEC, "threads": 1, "psf_images": psfs, "sources": bank,
    }  # fmt: skip
    for columns in kinds.values():
        render_rows(columns.take(slice(0, _WARM_ROWS)), **options)
    spent = {kind: np.empty(repeats) for kind in kinds}
    for repeat in range(repeats):
        for kind, columns in kinds.items():
            began = time.process_time()
            render_rows(columns, **options)
            spent[kind][repeat] = (time.process_time() - began) / n * 1e6
    return spent


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--bank", default="", help="bank of source images; made ones if not given")
    parser.add_argument("--rows", type=int, default=800)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args(arguments)
    bank = open_bank(given.bank, clean=True) if given.bank else made_bank(np.random.default_rng(_SEED))
    spent = measure(given.rows, given.repeats, bank)
    sys.stdout.write(f"{'source, PSF':18s} {'us a row':>9s}   rate over that of Moffat   of Gaussian\n")
    for kind, each in spent.items():
        ratios = [np.median(spent[f"Sersic, {psf}"] / each) for psf in ("Moffat", "Gaussian")]
        sys.stdout.write(f"{kind:18s} {np.median(each):9.0f}   {ratios[0]:24.2f}   {ratios[1]:11.2f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
