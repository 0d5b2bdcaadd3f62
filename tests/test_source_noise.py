"""Templates freed of noise and dark sky: arcs against those of known galaxies, and of COSMOS's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from arcforge.engine import render_batch
from arcforge.engine.source_audit import MOST_DARK, cleaned
from arcforge.engine.source_bank import SourceBank, Template, sharpen
from arcforge.engine.source_files import audit_bank_file, open_bank, read_templates
from arcforge.engine.source_noise import cut_out, denoised, starlet


def arcs(bank: SourceBank, source_id: list[str], seed: int) -> NDArray[np.float64]:
    """Stamps (n, ny, nx) of sources of a bank behind lenses and in seeing drawn at random."""
    rng, n = np.random.default_rng(seed), len(source_id)
    catalog = {
        "lens_model": np.full(n, "SIE"),
        "theta_e_arcsec": rng.uniform(0.5, 2.5, n),
        "lens_e": rng.uniform(0, 0.4, n),
        "lens_phi_rad": rng.uniform(0, 3, n),
        "src_x_arcsec": rng.uniform(-0.4, 0.4, n),
        "src_y_arcsec": rng.uniform(-0.4, 0.4, n),
        "src_phi_rad": rng.uniform(0, 3, n),
        "source_id": np.array(source_id),
        "psf_model": np.full(n, "moffat"),
        "psf_fwhm_arcsec_r": rng.uniform(0.6, 1.2, n),
        "src_flux_nmgy_r": np.ones(n),
    }
    return np.asarray(render_batch(catalog, bands="r", sources=bank)[:, 0], dtype=np.float64)


def test_templates_that_are_dark_around_are_left_out(
    tmp_path: Path, survey_data: Path, cosmos_bank: SourceBank
) -> None:
    """One is so in the telescope's image, and was negative where lensed; one is with the PSF divided out."""
    folder = survey_data / "sources" / "cosmos_btk100"
    refused = cosmos_bank.report.refused
    dark = {each.source_id: each.dark for each in refused if each.fault.startswith("dark")}
    assert dark.keys() == {"122782"}
    assert dark["122782"] == pytest.approx(0.447, abs=0.01)
    by_name = {template.source_id: template for template in read_templates(folder)}
    given = [cleaned(by_name[name]) for name in ("122810", "2", "8")]
    side = max(max(each.pixels.shape) for each in given)
    arrays = {
        "images": np.stack([_framed(each.pixels, side) for each in given]),
        "psf": np.stack([each.psf for each in given if each.psf is not None]),
        "ids": [each.source_id for each in given],
    }
    np.savez(tmp_path / "bank.npz", pixscale_arcsec=0.03, **arrays)
    assert audit_bank_file(tmp_path / "bank.npz").templates[0].dark < MOST_DARK
    bank = open_bank(tmp_path / "bank.npz")
    assert [each.source_id for each in bank.report.refused] == ["122810"]
    assert bank.report.templates[0].dark > MOST_DARK


def _framed(pixels: NDArray[Any], side: int) -> NDArray[Any]:
    return np.pad(pixels, [((side - n) // 2, side - n - (side - n) // 2) for n in pixels.shape])


def test_cleaned_galaxies_of_cosmos_are_nowhere_dark(cosmos_bank: SourceBank) -> None:
    """Noise and over-subtracted sky made dark notches beside arcs, up to a quarter of their peak deep."""
    for seed in range(3):
        light = arcs(cosmos_bank, cosmos_bank.ids, seed)
        assert (light.min((1, 2)) > -0.01 * light.max((1, 2))).all()


@pytest.mark.parametrize("snr", [15, 50])
def test_a_galaxy_freed_of_noise_is_lensed_more_like_the_true_one(snr: int) -> None:
    """Disks with clumps, seen through a telescope's PSF with noise: arcs against those of the true galaxy."""
    rng = np.random.default_rng(snr)
    as_seen, without_noise = [], []
    for _ in range(8):
        true, psf, image = _disk_with_clumps(rng, snr)
        given = Template("a", image.astype(np.float32), 0.03, psf.astype(np.float32))
        noisy = Template("seen", sharpen(cleaned(given).pixels, psf)[0], 0.03)
        clean, _ = sharpen(denoised(cleaned(given)).pixels, psf, positive=True)
        templates = [Template("true", true.astype(np.float32), 0.03), noisy, Template("clean", clean, 0.03)]
        seed = int(rng.integers(1000))
        light = np.stack([arcs(SourceBank([each]), [each.source_id], seed)[0] for each in templates])
        assert light[2].min() > -0.01 * light[2].max()
        error = np.sqrt(((light[1:] - light[0]) ** 2).sum((1, 2)) / (light[0] ** 2).sum())
        as_seen.append(error[0])
        without_noise.append(error[1])
    assert np.median(without_noise) < 0.6 * np.median(as_seen)
    assert np.median(without_noise) < (0.2 if snr < 20 else 0.1)


def _disk_with_clumps(
    rng: np.random.Generator, snr: float
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """A galaxy as sharp as a template may be, a telescope's PSF with wings, and the noisy image of both."""
    finer, side, narrow, wide, share = 3, 61, 1.2, 5.0, 0.26
    y, x = np.mgrid[: side * finer, : side * finer] / finer - (side - 1 / finer) / 2
    angle, reff = rng.uniform(0, 3), rng.uniform(4, 8)
    u, v = (
        x * np.cos(angle) + y * np.sin(angle),
        (y * np.cos(angle) - x * np.sin(angle)) / rng.uniform(0.5, 1),
    )
    galaxy = np.exp(-1.678 * np.hypot(u, v) / reff)
    galaxy /= galaxy.sum()
    for x0, y0 in rng.normal(0, 0.7 * reff, (2, 2)):
        clump = np.exp(-0.5 * ((x - x0) ** 2 + (y - y0) ** 2))
        galaxy += 0.1 * clump / clump.sum()

    def seen(sigma: float) -> NDArray[Any]:
        return gaussian_filter(galaxy, sigma * finer).reshape(side, finer, side, finer).sum((1, 3))

    around = np.add.outer(*(2 * [(np.arange(25) - 12.0) ** 2]))
    parts = [np.exp(-0.5 * around / sigma**2) for sigma in (narrow, wide)]
    psf = (1 - share) * parts[0] / parts[0].sum() + share * parts[1] / parts[1].sum()
    image = (1 - share) * seen(narrow) + share * seen(wide)
    # of half the light within the half-light radius, about 12 pixels with the PSF's wings
    return seen(0.5 * narrow), psf, image + rng.normal(0, 0.7 / (snr * np.sqrt(np.pi) * 12), image.shape)


def test_an_image_without_noise_stays_as_it_is() -> None:
    around = np.add.outer(*(2 * [(np.arange(45) - 22.0) ** 2]))
    image = np.exp(-0.5 * around / 3.8**2).astype(np.float32)
    assert np.array_equal(denoised(Template("a", image, 0.03)).pixels, image)
    layers, rest = starlet(image.astype(np.float64), 3)
    np.testing.assert_allclose(sum(layers) + rest, image, atol=1e-12)
    cut = cut_out(Template("a", np.pad(image, ((9, 9), (4, 4))), 0.03)).pixels
    assert max(cut.shape) < 45
    assert cut.sum() == pytest.approx(image.sum(), rel=0.01)
    assert np.array_equal(cut, cut[::-1])  # about the same centre
    assert np.array_equal(cut, cut[:, ::-1])
