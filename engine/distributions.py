"""What was drawn against what was asked for: distributions of a store's rows beside those of its inputs.

A prior's own distribution is exact, from its quantiles. What follows from several inputs (Einstein radii from
hosts' masses, magnitudes from hosts' and colours) is drawn anew, from the same configuration and hosts and
another seed, and never rendered. Cuts take from these, so rows that passed cuts are shown with the limits and
not tested.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.config import Config, parse_config
from arcforge.engine.draws import draw_catalog
from arcforge.engine.errors import ConfigError
from arcforge.engine.host_table import HostTable
from arcforge.engine.pictures import write_png
from arcforge.engine.populations import read_population

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from arcforge.engine.store import Store

Floats = NDArray[np.float64]

_ASKED_ROWS = 50_000
# Two samples of one distribution are farther apart in one of so many comparisons.
SUSPICIOUS = 1e-4
_MOST_BINS, _TAIL = 40, 0.002
_WIDE = "arc_snr"  # drawn over decades
_COLUMNS, _PANEL_INCH = 4, (3.0, 2.2)
_ROWS_COLOUR, _ASKED_COLOUR, _CUT_COLOUR = "#0072B2", "#D55E00", "#666666"
# column of the catalogue: the cuts that limit it
_CUT_OF = {
    "arc_snr": ("arc_snr_min",),
    "magnification": ("magnification_min", "magnification_max"),
    "visibility": ("visibility_min",),
}


@dataclass(frozen=True)
class Distribution:
    """One column."""

    name: str
    rows: Floats  #: of the store's arcs, finite ones
    asked: Floats | None  #: a sample of what was asked for; None where nothing was
    limits: tuple[float, ...] = ()  #: of cuts on it
    distance: float = float("nan")  #: largest difference of the cumulative distributions (Kolmogorov-Smirnov)
    p_value: float = float("nan")  #: of a distance as large; NaN where rows passed cuts

    @property
    def differs(self) -> bool:
        """The rows are not a sample of what was asked for."""
        return self.p_value < SUSPICIOUS


def distributions(store: Store) -> list[Distribution]:
    """Compare the columns of a store's arcs with their inputs.

    Raises
    ------
    ConfigError, CatalogError
        The configuration's population cannot be read any more.
    """
    table = store.catalog
    arcs = np.array(table.column("lens_model").to_pylist()) != "CONTROL"
    if "kind" in table.column_names:
        arcs &= np.array(table.column("kind").to_pylist()) == "arc"
    if not arcs.any():
        raise ConfigError(f"{store.path}: holds no arcs to show the distributions of")
    known = store.plan.catalog.startswith("drawn")
    config = parse_config(store.plan.config)
    asked = _asked(store, config) if known else {}
    out = []
    for name in _names(store.bands, config if known else None):
        if name not in table.column_names:
            continue
        values = np.asarray(table.column(name).to_numpy(), dtype=np.float64)[arcs]
        values = values[np.isfinite(values)]
        if values.size:
            out.append(_compared(name, values, asked.get(name), config if known else None))
    return out


def _names(bands: str, config: Config | None) -> list[str]:
    reference = bands[len(bands) // 2] if config is None else config.reference_band
    names = ["theta_e_arcsec", "lens_e", "shear", "src_reff_arcsec", "src_n", "src_e", "src_z", "src_dmag"]
    if config is not None:
        names += [name for name in config.priors if len(name) == 6 and name[:4] == "src_"]  # colours
    names += [f"src_mag_{band}" for band in bands] + [f"psf_fwhm_arcsec_{band}" for band in bands]
    names += [f"arc_snr_{reference}", "magnification", "visibility"]
    return list(dict.fromkeys(names))


def _asked(store: Store, config: Config) -> dict[str, Floats]:
    """Samples of what the configuration asks for, by column."""
    seed = (store.plan.seed + 1) % 2**64
    population = read_population(config) if config.population else None
    bank = store.sources if config.source_bank else None
    fresh = draw_catalog(
        config, _Hosts(store), seed, np.arange(_ASKED_ROWS), bank=bank, population=population
    )
    has_lens = np.array(fresh.column("lens_model").to_pylist()) != "CONTROL"
    asked: dict[str, Floats] = {}
    for name in fresh.column_names:
        column = fresh.column(name).to_numpy(zero_copy_only=False)
        if column.dtype.kind == "f":
            asked[name] = column[has_lens & np.isfinite(column)]
    exact = (np.arange(_ASKED_ROWS) + 0.5) / _ASKED_ROWS
    psf_drawn = "psf_drawn" in fresh.column_names and all(fresh.column("psf_drawn").to_pylist())
    for name, prior in config.priors.items():
        plain = name in asked and not prior.is_name and (psf_drawn or not name.startswith("psf_"))
        jointly = population is not None and name in population.names
        of_image = bank is not None and name.startswith("src_")
        if plain and not jointly and not of_image and not _follows_host(name, config):
            asked[name] = np.asarray(prior.quantile(exact), dtype=np.float64)
    return asked


def _follows_host(name: str, config: Config) -> bool:
    """Tell whether a column is not its prior's but the host's."""
    mass = name == "theta_e_arcsec" and (
        config.theta_e_from == "host" or config.theta_e_convention == "major"
    )
    shape = name in ("lens_e", "lens_phi_rad") and (
        config.lens_shape_from == "host" or "SIS" in config.priors["lens_model"].support
    )
    return mass or shape or (name == "src_dmag" and config.src_mag_from == "prior")


class _Hosts:
    """What the draws need of a store's hosts."""

    def __init__(self, store: Store) -> None:
        self.bands, self.stamp_size = store.bands, store.stamp_size
        self.pixscale_arcsec = store.pixscale_arcsec
        known, n = store.hosts, store.hosts.num_rows

        def numbers(name: str) -> Floats:
            held = name in known.column_names
            return np.asarray(known.column(name).to_numpy() if held else np.full(n, np.nan), dtype=np.float64)

        def by_band(name: str) -> Floats:
            return np.stack([numbers(f"{name}_{band}") for band in store.bands], axis=1)

        psf_id = np.nan_to_num(numbers("psf_id"), nan=-1.0).astype(np.int64)
        text = {name: np.array(known.column(name).to_pylist()) for name in ("host_id", "file", "sha256")}
        self.table = HostTable(
            host_id=text["host_id"],
            path=text["file"],
            sha256=text["sha256"],
            **{name: numbers(name) for name in ("x_pix", "y_pix", "ra_deg", "dec_deg", "sigma_v_km_s")},
            **{name: numbers(name) for name in ("light_e", "light_phi_rad")},
            **{name: by_band(name) for name in ("mag", "sky_sigma_nmgy", "psf_fwhm_arcsec")},
            psf_model=np.where(psf_id >= 0, "image", ""),
            moffat_beta=np.full(n, np.nan),
            psf_id=psf_id,
        )


def _compared(name: str, rows: Floats, asked: Floats | None, config: Config | None) -> Distribution:
    cuts = {} if config is None else config.cuts
    limited_by = next((cut for start, cut in _CUT_OF.items() if name.startswith(start)), ())
    limits = tuple(cuts[cut] for cut in limited_by if cut in cuts)
    if asked is None or not asked.size:
        return Distribution(name, rows, None, limits)
    from scipy.stats import ks_2samp

    if asked.min() == asked.max():
        far = 0.0 if np.allclose(rows, asked[0]) else 1.0
        return Distribution(name, rows, asked, limits, far, np.nan if cuts else 1.0 - far)
    found = ks_2samp(rows, asked, method="asymp")
    # widths are drawn once a host, so that rows of one are no independent draws
    tested = not cuts and not name.startswith("psf_")
    return Distribution(
        name, rows, asked, limits, float(found.statistic), float(found.pvalue) if tested else np.nan
    )


def draw_distributions(found: Sequence[Distribution], out_png: str | Path, title: str) -> Path:
    """Write a picture with a panel a column: rows as bars, what was asked for as a line, cuts dashed."""
    from matplotlib.figure import Figure

    lines = -(-len(found) // _COLUMNS)
    width, height = _PANEL_INCH
    figure = Figure(figsize=(width * _COLUMNS, height * lines + 0.5), dpi=130, layout="constrained")
    figure.suptitle(title, fontsize=9)
    axes: list[Any] = list(figure.subplots(lines, _COLUMNS, squeeze=False).flat)
    for axis, each in zip(axes, found, strict=False):
        _draw(axis, each)
    for axis in axes[len(found) :]:
        axis.set_visible(False)
    return write_png(figure, out_png)


def _draw(axis: Axes, each: Distribution) -> None:
    low, high = np.quantile(each.rows, (_TAIL, 1.0 - _TAIL))
    if each.asked is not None:
        asked_low, asked_high = np.quantile(each.asked, (_TAIL, 1.0 - _TAIL))
        low, high = min(low, asked_low), max(high, asked_high)
    wide = each.name.startswith(_WIDE) and low > 0.0
    if not high > low:
        low, high = low - 0.5, high + 0.5
    n_bins = min(_MOST_BINS, int(np.ceil(2.0 * np.cbrt(each.rows.size))))  # the rule of Rice University
    edges = (np.geomspace if wide else np.linspace)(low, high, n_bins + 1)
    for values, kind, colour, words in (
        (each.rows, "stepfilled", _ROWS_COLOUR, "rows"),
        (each.asked, "step", _ASKED_COLOUR, "asked for"),
    ):
        if values is not None:  # both as shares of all of their values, also of those beyond the panel
            weights = np.full(values.size, 1.0 / values.size)
            alpha = 0.45 if kind == "stepfilled" else 1.0
            axis.hist(values, edges, weights=weights, histtype=kind, color=colour, alpha=alpha, label=words)  # type: ignore[arg-type]
    for limit in each.limits:
        axis.axvline(limit, color=_CUT_COLOUR, ls="--", lw=1.0, label="cut")
    if wide:
        axis.set_xscale("log")
    axis.set_title(each.name, fontsize=8)
    axis.set_yticks([])
    axis.tick_params(labelsize=7)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.legend(fontsize=6, frameon=False)
