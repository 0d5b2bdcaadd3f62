"""The numerical certificate: what this installation, on this machine, gets right, in numbers.

Every check compares the renderer with something that it shares no code with: a formula, an exact point-spread
function summed by hand, or the float64 reference. Bounds are those that the project promises.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.catalog import render_columns
from arcforge.engine.profiles import deflection_epl, deflection_nfw, deflection_sie
from arcforge.engine.rays import KINDS, fold
from arcforge.engine.render import render_batch, render_unlensed
from arcforge.kernels.codes import EPL, NFW
from arcforge.kernels.ray import source_points

SCHEMA = "arcforge.certificate/1"
PIXSCALE_ARCSEC = 0.262
Floats = NDArray[np.float64]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Check:
    """One line of the certificate: it passes where ``measured`` is at most ``bound``."""

    id: str
    title: str
    against: str
    measured: float
    bound: float
    unit: str

    @property
    def passed(self) -> bool:
        """Whether the bound holds; NaN does not pass."""
        return bool(self.measured <= self.bound)


def _rows(n: int, **columns: Any) -> dict[str, Any]:
    """Return a catalogue of n round lenses and sources in one band, with some columns replaced."""
    base: dict[str, Any] = {
        "lens_model": np.full(n, "SIE"),
        "theta_e_arcsec": np.ones(n),
        "src_reff_arcsec": np.full(n, 0.3),
        "src_flux_nmgy_r": np.ones(n),
        "psf_fwhm_arcsec_r": np.full(n, 1.3),
    }
    for name in ("lens_e", "lens_phi_rad", "src_x_arcsec", "src_y_arcsec", "src_e", "src_phi_rad"):
        base[name] = np.zeros(n)
    base.update(columns)
    return {name: np.broadcast_to(value, (n,)) for name, value in base.items()}


def _lens_samples() -> tuple[Floats, Floats, Floats]:
    """Return positions [arcsec] and axis ratios with the axes, the centre's surroundings and q = 1."""
    rng = np.random.default_rng(20260101)
    x, y = rng.normal(scale=2.0, size=(2, 400))
    x[:20], y[20:40] = 0.0, 0.0
    x[40:60] *= 1e-4
    y[40:60] *= 1e-4
    return x, y, np.concatenate([np.linspace(0.3, 0.999, 15), [1.0 - 1e-6, 1.0 - 1e-12, 1.0]])


def _polar_sie(x: Floats, y: Floats, q: float, phi: float) -> tuple[Floats, Floats]:
    """Return the SIE deflection for theta_E = 1 by its polar form (arcsin, arcsinh)."""
    angle = np.arctan2(y, x) - phi
    f2 = (1.0 - q) * (1.0 + q)
    if f2 == 0.0:
        alpha = np.exp(1j * angle)
    else:
        f = np.sqrt(f2)
        alpha = np.sqrt(q) / f * (np.arcsin(f * np.cos(angle)) + 1j * np.arcsinh(f / q * np.sin(angle)))
    alpha = alpha * np.exp(1j * phi)
    return alpha.real, alpha.imag


def _check_other_lenses() -> Check:
    """Compare power-law and NFW deflections with the arbiter's own formulae."""
    from arcforge.engine.reference_lenses import Mass

    x, y, _ = _lens_samples()
    r, angle = np.hypot(x, y), np.arctan2(y, x) - 0.7
    worst = 0.0
    for e in (0.0, 0.2, 0.6):
        for shape in (1.5, 1.9, 2.0, 2.1, 2.6):
            pairs = (
                (deflection_epl(x, y, 1.0, e, 0.7, shape), Mass(EPL, 1.0, e, shape, 1.0)),
                (deflection_nfw(x, y, 1.0, e, 0.7, shape), Mass(NFW, 1.0, e, 2.0, shape)),
            )
            for (alpha_x, alpha_y), mass in pairs:
                exact = mass.deflection(r, angle) * np.exp(0.7j)
                worst = max(
                    worst, float(np.abs((alpha_x + 1j * alpha_y - exact) / (1.0 + np.abs(exact))).max())
                )
    return Check("deflection_others", "deflection, EPL and NFW", "other formulae", worst, 1e-10, "arcsec")


def _check_deflection() -> Check:
    x, y, axis_ratios = _lens_samples()
    worst = 0.0
    for q in axis_ratios:
        ours = deflection_sie(x, y, 1.0, (1.0 - q) / (1.0 + q), 0.7)
        exact = _polar_sie(x, y, float(q), 0.7)
        worst = max(worst, *(float(np.abs(a - b).max()) for a, b in zip(ours, exact, strict=True)))
    return Check("deflection", "deflection, float64", "polar form", worst, 1e-10, "arcsec")


def _check_fast_deflection() -> Check:
    x, y, axis_ratios = _lens_samples()
    worst = 0.0
    for q in axis_ratios:
        e = (1.0 - q) / (1.0 + q)
        row = _rows(1, theta_e_arcsec=2.0, lens_e=e, lens_phi_rad=0.7, src_phi_rad=0.7, src_reff_arcsec=1.0)
        rays = fold(render_columns(row, "r"), 1.0)
        xs, ys = x.astype(np.float32), y.astype(np.float32)
        u, v = np.empty_like(xs), np.empty_like(ys)
        source_points(KINDS[rays.kinds[0]], rays.fields[0], xs, ys, u, v)
        exact_x, exact_y = _polar_sie(xs.astype(np.float64), ys.astype(np.float64), float(q), 0.7)
        beta = ((xs - 2.0 * exact_x) + 1j * (ys - 2.0 * exact_y)) * np.exp(-0.7j)
        worst = max(worst, float(np.abs(u + 1j * v - beta).max()))
    return Check("deflection_fast", "deflection, fast path", "polar form", worst, 2e-6, "arcsec")


def _check_critical_curve() -> Check:
    """Compare the critical curve's area with pi theta_E^2, for several axis ratios."""
    angle = (np.arange(720) + 0.5) * np.pi / 360.0
    step, worst = 1e-5, 0.0
    for q in (0.4, 0.7, 1.0):
        e = (1.0 - q) / (1.0 + q)

        def determinant(r: Floats, e: float = e) -> Floats:
            x, y = r * np.cos(angle), r * np.sin(angle)
            right, left = deflection_sie(x + step, y, 1.3, e, 0.4), deflection_sie(x - step, y, 1.3, e, 0.4)
            up, down = deflection_sie(x, y + step, 1.3, e, 0.4), deflection_sie(x, y - step, 1.3, e, 0.4)
            xx, yy = (right[0] - left[0]) / (2 * step), (up[1] - down[1]) / (2 * step)
            xy = (right[1] - left[1]) / (2 * step)
            return np.asarray((1.0 - xx) * (1.0 - yy) - xy**2)

        low, high = np.full_like(angle, 0.05), np.full_like(angle, 6.0)
        for _ in range(60):
            middle = 0.5 * (low + high)
            inside = determinant(middle) < 0.0
            low, high = np.where(inside, middle, low), np.where(inside, high, middle)
        area = 0.5 * np.sum(low**2) * (angle[1] - angle[0])
        worst = max(worst, abs(area / (np.pi * 1.3**2) - 1.0))
    return Check("critical_curve", "critical curve's area", "pi theta_E^2", worst, 1e-5, "relative")


def _exact_psf(model: str, fwhm: float, size: int, x: float, y: float) -> Floats:
    """Return a unit-flux PSF at pixel centres, centred at (x, y) [pix from the stamp's centre]."""
    grid = np.arange(size) - 0.5 * (size - 1)
    r2 = (grid[None, :] - x) ** 2 + (grid[:, None] - y) ** 2
    if model == "gaussian":
        scale = 4.0 * np.log(2.0) / fwhm**2
        return np.asarray(scale / np.pi * np.exp(-scale * r2))
    alpha2 = fwhm**2 / (4.0 * (2.0 ** (1.0 / 3.5) - 1.0))
    return np.asarray(2.5 / (np.pi * alpha2) * (1.0 + r2 / alpha2) ** -3.5)


def _impulse(model: str, fwhm: float, size: int, x: float, y: float) -> tuple[Floats, Floats]:
    """Return the image of a source too small to see, and what it must look like."""
    row = _rows(
        1, src_reff_arcsec=1e-3, src_x_arcsec=x, src_y_arcsec=y, psf_fwhm_arcsec_r=fwhm, psf_model=model
    )
    image = render_unlensed(row, bands="r", stamp_size=size, pixscale_arcsec=1.0)[0, 0]
    return image.astype(np.float64), _exact_psf(model, fwhm, size, x, y)


def _check_impulse() -> list[Check]:
    """Put an impulse at sub-pixel positions of odd and even stamps, through every analytic PSF."""
    shift = shape = 0.0
    rng = np.random.default_rng(7)
    for size in (63, 64):
        for model in ("gaussian", "moffat"):
            for fwhm in (2.5, 5.0):
                x, y = rng.uniform(-0.5, 0.5, 2)
                image, exact = _impulse(model, fwhm, size, x, y)
                grid = np.arange(size)
                for axis in (0, 1):
                    ours, theirs = image.sum(axis=axis), exact.sum(axis=axis)
                    shift = max(
                        shift, abs(float((ours @ grid) / ours.sum() - (theirs @ grid) / theirs.sum()))
                    )
                shape = max(shape, float(np.abs(image - exact).max() / exact.max()))
    return [
        Check("centring", "centroid of an impulse", "exact PSF", shift, 1e-3, "pix"),
        Check("psf", "image of an impulse", "exact PSF", shape, 1e-3, "of peak"),
    ]


def _check_wrap() -> Check:
    """Put light at one edge and look at the opposite one."""
    worst = 0.0
    for model in ("gaussian", "moffat"):
        image, exact = _impulse(model, 5.0, 64, -30.2, 11.3)
        worst = max(worst, float(np.abs(image - exact)[:, 32:].max() / exact.max()))
    return Check("wrap", "light on opposite edge", "exact PSF", worst, 1e-6, "of peak")


def _check_flux() -> Check:
    """Compare the flux of unlensed sources on a wide stamp with the catalogue's."""
    n = np.array([0.5, 1.0, 2.0])
    rows = _rows(3, src_n=n, src_reff_arcsec=0.4, src_e=0.3, src_phi_rad=0.5)
    total = render_unlensed(rows, bands="r", stamp_size=200).astype(np.float64).sum(axis=(1, 2, 3))
    return Check("flux", "unlensed flux", "analytic", float(np.abs(total - 1.0).max()), 5e-4, "relative")


def _check_magnification() -> Check:
    """Compare the flux of a small lensed source with 2 theta_E / beta, of a point source behind an SIS."""
    beta = 0.4
    rows = _rows(1, lens_model="SIS", theta_e_arcsec=1.5, src_x_arcsec=beta, src_reff_arcsec=0.01)
    total = float(render_batch(rows, bands="r", stamp_size=128).astype(np.float64).sum())
    return Check(
        "magnification", "magnification, SIS", "2 theta_E / beta",
        abs(total * beta / 3.0 - 1.0), 1e-3, "relative",
    )  # fmt: skip


def _check_pixel_response() -> Check:
    """The box adds exactly 1/12 pix^2 to the image's variance along each axis."""
    rows = _rows(1, src_reff_arcsec=0.2)
    grid = np.arange(64) - 31.5
    variance = {}
    for response in ("in_psf", "box"):
        image = render_unlensed(rows, bands="r", pixel_response=response)[0, 0].astype(np.float64)
        variance[response] = float((image.sum(axis=0) @ grid**2) / image.sum())
    error = abs(variance["box"] - variance["in_psf"] - 1.0 / 12.0)
    return Check("pixel_response", "variance the pixel adds", "1/12", error, 1e-3, "pix^2")


def hard_rows(n: int, seed: int) -> dict[str, Any]:
    """Return random rows over the ranges for which the tolerance is promised, one band, fluxes 1.

    n 0.3 to 6 (cusps and flat tops), half-light radii 0.03 to 1 arcsec, Einstein radii 0.001 to 3 arcsec,
    axis ratios to 1 from 0.33, sources on caustics, at the centre and far outside, both PSFs, FWHM 2 to 8
    pix.
    """
    rng = np.random.default_rng(seed)
    theta_e = np.where(rng.random(n) < 0.15, 10.0 ** rng.uniform(-3, -0.5, n), rng.uniform(0.3, 3.0, n))
    kind, turn = rng.random(n), rng.uniform(0, 2 * np.pi, n)
    offset = np.select(
        [kind < 0.5, kind < 0.7, kind < 0.9],
        [rng.uniform(0, 0.6, n), 10.0 ** rng.uniform(-4, -1, n), theta_e * rng.uniform(0.5, 1.3, n)],
        rng.uniform(2, 10, n),
    )
    return {
        "lens_model": np.where(rng.random(n) < 0.1, "SIS", "SIE"),
        "theta_e_arcsec": theta_e,
        "lens_e": np.where(rng.random(n) < 0.1, 10.0 ** rng.uniform(-9, -2, n), rng.uniform(0, 0.5, n)),
        "lens_phi_rad": rng.uniform(0, np.pi, n),
        "lens_x_arcsec": rng.uniform(-0.3, 0.3, n),
        "lens_y_arcsec": rng.uniform(-0.3, 0.3, n),
        "shear": rng.uniform(0, 0.12, n),
        "shear_phi_rad": rng.uniform(0, np.pi, n),
        "src_x_arcsec": offset * np.cos(turn),
        "src_y_arcsec": offset * np.sin(turn),
        "src_reff_arcsec": 10.0 ** rng.uniform(np.log10(0.03), 0, n),
        "src_n": np.where(rng.random(n) < 0.3, 4.0, rng.uniform(0.3, 6.0, n)),
        "src_e": rng.uniform(0, 0.6, n),
        "src_phi_rad": rng.uniform(0, np.pi, n),
        "src_flux_nmgy_r": np.ones(n),
        "psf_fwhm_arcsec_r": PIXSCALE_ARCSEC * rng.uniform(2, 8, n),
        "psf_model": np.where(rng.random(n) < 0.5, "gaussian", "moffat"),
        "moffat_beta": np.where(rng.random(n) < 0.7, 3.5, rng.uniform(2.5, 5.0, n)),
    }


def _check_convergence(n_rows: int, progress: Progress, done: int, total: int) -> list[Check]:
    """Compare random hard rows with the float64 reference at three tolerances."""
    rows = hard_rows(n_rows, 20260102)
    reference = np.empty((n_rows, 64, 64))
    for row in range(n_rows):
        one = {name: values[row : row + 1] for name, values in rows.items()}
        reference[row] = render_batch(one, bands="r", variant="reference")[0, 0]
        progress(done + row + 1, total)
    peak, flux = reference.max(axis=(1, 2)), reference.sum(axis=(1, 2))
    checks, worst_flux = [], 0.0
    for rtol in (1e-2, 1e-3, 1e-4):
        image = render_batch(rows, bands="r", rtol=rtol)[:, 0].astype(np.float64)
        error = float((np.abs(image - reference).max(axis=(1, 2)) / peak).max())
        worst_flux = max(worst_flux, float(np.abs(image.sum(axis=(1, 2)) / flux - 1.0).max()))
        checks.append(
            Check(
                f"convergence_{rtol:g}",
                f"{n_rows} hard rows, rtol {rtol:g}",
                "float64 reference",
                error,
                rtol,
                "of peak",
            )
        )
    checks.append(Check("lensed_flux", "their flux", "float64 reference", worst_flux, 5e-4, "relative"))
    return checks


@lru_cache(maxsize=1)
def quick_certificate() -> dict[str, Any]:
    """Return the certificate without the rows that take the reference: what every dataset is stored with.

    It is kept beside the compiled kernels, for these sources, libraries and this processor, since it takes a
    second or two; a copy that cannot be read or written is no matter.
    """
    from arcforge.engine.provenance import code_sha256, cpu, software
    from arcforge.kernels._jit import cache_folder

    known_by = json.dumps([SCHEMA, code_sha256(), software(), cpu()], sort_keys=True)
    path = cache_folder() / f"certificate-{hashlib.sha256(known_by.encode()).hexdigest()[:16]}.json"
    try:
        kept: dict[str, Any] = json.loads(path.read_text())
        if kept["schema"] == SCHEMA and isinstance(kept["checks"], list):
            return kept
    except (OSError, ValueError, KeyError, TypeError):
        pass
    result = certify(n_rows=0)
    temporary = path.with_suffix(f".{os.getpid()}")
    with contextlib.suppress(OSError):
        temporary.write_text(json.dumps(result))
        temporary.replace(path)
    return result


def certify(*, n_rows: int = 12, progress: Progress | None = None) -> dict[str, Any]:
    """Run every check and return the certificate.

    Parameters
    ----------
    n_rows : int
        Random rows compared with the float64 reference, some seconds each; 0 leaves that out.
    progress : callable (done, total), optional

    Returns
    -------
    dict
        schema, passed, checks (id, title, against, measured, bound, unit, passed), software and machine.
    """
    from arcforge.engine.provenance import cpu, software

    def say(done: int, total: int) -> None:
        if progress is not None:
            progress(done, total)

    quick: list[Callable[[], Check]] = [
        _check_deflection, _check_other_lenses, _check_fast_deflection, _check_critical_curve, _check_wrap,
        _check_flux, _check_magnification, _check_pixel_response,
    ]  # fmt: skip
    total = len(quick) + 1 + n_rows
    checks: list[Check] = []
    for done, check in enumerate(quick):
        checks.append(check())
        say(done + 1, total)
    checks += _check_impulse()
    say(len(quick) + 1, total)
    if n_rows:
        checks += _check_convergence(n_rows, say, len(quick) + 1, total)
    return {
        "schema": SCHEMA,
        "passed": all(check.passed for check in checks),
        "checks": [{**check.__dict__, "passed": check.passed} for check in checks],
        "software": software(),
        "cpu": cpu(),
    }
