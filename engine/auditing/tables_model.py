"""What stated inputs predict for published tables, as they are or changed in one respect."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.auditing.tables import Tables
from arcforge.engine.remedies import distance_pix

Floats = NDArray[np.float64]
Images = NDArray[np.float32]

# Published numbers are known to some per cent
_RTOL = 1e-2
# A bin of Test 3 says little about its number of pairs; its sampling error is that of so many
_PAIRS_OF_A_BIN = 90


@dataclass(frozen=True)
class Departure:
    """How the set may differ from what is stated.

    Attributes
    ----------
    psf_width, source_size, theta_e_scale, source_offset : float
        Factors on what is stated.
    offset_of_theta_e : float or None
        Sources out to this share of theta_E, evenly over the disc, in place of the stated offsets.
    arc_offset_pix : float
        Distance of every arc from its place.
    pedestal : float
        Constant of every pixel, of the profile's peak.
    psf_model : str or None
        In place of the stated one.
    """

    psf_width: float = 1.0
    source_size: float = 1.0
    theta_e_scale: float = 1.0
    source_offset: float = 1.0
    offset_of_theta_e: float | None = None
    arc_offset_pix: float = 0.0
    pedestal: float = 0.0
    psf_model: str | None = None


@dataclass(frozen=True)
class Prediction:
    """Published numbers as predicted, with the sampling error of a set of that size."""

    core_share: Floats
    core_share_se: Floats
    profile: Floats  #: over its largest value
    profile_se: Floats
    outer_over_core: float
    slopes: dict[str, float]
    sharpness: float  #: median of brightest pixel over total light: what pixels would show
    visible: Floats = field(repr=False)  #: share of light outside the core, by bin


class TablesModel:
    """Renders rows drawn from stated inputs; every departure is applied to the same draws.

    Parameters
    ----------
    tables : Tables
    n_rows : int
        Rows drawn.
    seed : int
    """

    def __init__(self, tables: Tables, n_rows: int, seed: int) -> None:
        self.tables = tables
        rng = np.random.default_rng([seed, 11])
        names = ("theta_e_arcsec", "lens_e", "shear", "src_x_arcsec", "src_y_arcsec", "src_reff_arcsec",
                 "src_n", "src_e", "psf_fwhm_arcsec", "moffat_beta")  # fmt: skip
        self.columns = {name: _draw(tables.inputs[name], n_rows, rng) for name in names}
        for name in ("lens_phi_rad", "shear_phi_rad", "src_phi_rad"):
            self.columns[name] = rng.uniform(0.0, np.pi, n_rows)
        self._disc = np.sqrt(rng.random(n_rows)) * np.exp(2j * np.pi * rng.random(n_rows))
        self._direction = np.exp(2j * np.pi * rng.random(n_rows))
        size = int(tables.frame["stamp_pix"])
        self._distance = distance_pix((size, size))

    def predict(self, departure: Departure) -> Prediction:
        """Return the published numbers under a departure."""
        images = self._render(departure)[:, 0].astype(np.float64)
        return self._measure(images, departure.pedestal)

    def _render(self, d: Departure) -> Images:
        from arcforge.engine.render import render_batch

        c, frame = self.columns, self.tables.frame
        n = len(c["theta_e_arcsec"])
        theta_e = c["theta_e_arcsec"] * d.theta_e_scale
        source = d.source_offset * (c["src_x_arcsec"] + 1j * c["src_y_arcsec"])
        if d.offset_of_theta_e is not None:
            source = d.offset_of_theta_e * theta_e * self._disc
        lens = d.arc_offset_pix * frame["pixscale_arcsec"] * self._direction
        changed: dict[str, Any] = c | {
            "lens_model": np.full(n, self.tables.inputs["lens_model"]),
            "theta_e_arcsec": theta_e,
            "src_x_arcsec": source.real,
            "src_y_arcsec": source.imag,
            "lens_x_arcsec": lens.real,
            "lens_y_arcsec": lens.imag,
            "src_reff_arcsec": c["src_reff_arcsec"] * d.source_size,
            "psf_model": np.full(n, d.psf_model or self.tables.inputs["psf_model"]),
            "psf_fwhm_arcsec_r": c["psf_fwhm_arcsec"] * d.psf_width,
            "src_flux_nmgy_r": np.ones(n),
        }
        return render_batch(
            changed,
            stamp_size=int(frame["stamp_pix"]),
            pixscale_arcsec=frame["pixscale_arcsec"],
            bands="r",
            rtol=_RTOL,
        )

    def _measure(self, images: Floats, pedestal: float) -> Prediction:
        tables, r = self.tables, self._distance
        resolved = self.columns["theta_e_arcsec"] >= tables.tests["test4"]["theta_e_min_arcsec"]
        rings = np.stack([(r >= inner) & (r < inner + 1) for inner in tables.radius_pix])
        weight = rings.reshape(len(rings), -1) / rings.sum((1, 2))[:, None]
        of_rows = images[resolved].reshape(int(resolved.sum()), -1) @ weight.T
        constant = pedestal * float(of_rows.mean(0).max())
        images = images + constant
        of_rows = of_rows + constant
        profile = of_rows.mean(0)
        n_resolved = tables.tests["test4"].get("n_pairs", _PAIRS_OF_A_BIN)
        core, outer = r < tables.frame["core_radius_pix"], r >= tables.frame["outer_radius_pix"]
        in_core, total = images[:, core].sum(1), images.sum((1, 2))
        shares = [self._share(in_core, total, rows) for rows in self._bins()]
        outside = total - in_core
        x = {"theta_e": self.columns["theta_e_arcsec"], "flux": total}
        in_core_mean = in_core / core.sum()
        return Prediction(
            core_share=np.array([share for share, _ in shares]),
            core_share_se=np.array([se for _, se in shares]),
            profile=profile / profile.max(),
            profile_se=of_rows.std(0) / np.sqrt(n_resolved) / profile.max(),
            outer_over_core=float(images[:, outer].mean() / images[:, core].mean()),
            slopes={name: _slope(v, in_core_mean) / float(in_core_mean.mean()) for name, v in x.items()},
            sharpness=float(np.median(images[resolved].max((1, 2)) / total[resolved])),
            visible=np.array([float(outside[rows].sum() / total[rows].sum()) for rows in self._bins()]),
        )

    def _bins(self) -> list[NDArray[np.bool_]]:
        theta_e, edges = self.columns["theta_e_arcsec"], self.tables.edges_arcsec
        return [(theta_e >= low) & (theta_e < high) for low, high in pairwise(edges)]

    @staticmethod
    def _share(in_core: Floats, total: Floats, rows: NDArray[np.bool_]) -> tuple[float, float]:
        if not rows.any():
            return float("nan"), float("nan")
        share = float(in_core[rows].sum() / total[rows].sum())
        scatter = np.std(in_core[rows] - share * total[rows]) / total[rows].mean()
        return share, float(scatter / np.sqrt(_PAIRS_OF_A_BIN))


def _draw(stated: Any, n: int, rng: np.random.Generator) -> Floats:
    """Draw a stated input: a number, a [low, high] range, or a list of values in equal numbers."""
    values = np.atleast_1d(np.asarray(stated, dtype=np.float64))
    if len(values) == 2:
        return rng.uniform(values[0], values[1], n)
    return np.asarray(rng.permutation(np.resize(values, n)))


def _slope(x: Floats, y: Floats) -> float:
    return float(np.polyfit(x, y, 1)[0]) if np.ptp(x) > 0 else float("nan")
