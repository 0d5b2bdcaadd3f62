"""What the checks of one audit share: the sample, the model of it, and products that are made once on first
use.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.auditing.checks import PASS, Finding, MissingParametersError
from arcforge.engine.auditing.forward import Edge, Forward, edge_words
from arcforge.engine.auditing.gate import GateResult, core_features, run_gate
from arcforge.engine.auditing.nuisance import Point
from arcforge.engine.auditing.pairs import Pairs
from arcforge.engine.auditing.parameters import column, recorded_parameters
from arcforge.engine.auditing.resampling import HostBootstrap
from arcforge.engine.auditing.thresholds import Thresholds
from arcforge.engine.remedies import MAD_TO_SIGMA, distance_pix

if TYPE_CHECKING:
    from arcforge.engine.auditing.diagnosis import Diagnosis
    from arcforge.engine.catalog import RenderColumns
    from arcforge.engine.psf_tables import PsfTable

Floats = NDArray[np.float64]
Images = NDArray[np.float32]
Integers = NDArray[np.int64]
Progress = Callable[[str, int, int], None]

# What an unpaired set lacks, in the words of a missing column
NO_PAIRS = "the control of each stamp"
# Median absolute deviation to sigma of a Gaussian


class AuditState:
    """The sample and everything derived from it; derived products raise what their inputs raise.

    Parameters
    ----------
    pairs : Pairs
        The drawn pairs.
    thresholds : Thresholds
        The numbers to decide by.
    seed : int
        Root seed; every check draws from its own stream, so none depends on another having run.
    progress : callable
        Called with (stage, done, total).
    psf_table : PsfTable, optional
        The survey's PSF widths by brick.
    """

    def __init__(
        self,
        pairs: Pairs,
        thresholds: Thresholds,
        seed: int,
        progress: Progress,
        psf_table: PsfTable | None = None,
    ) -> None:
        self.pairs = pairs
        self.thresholds = thresholds
        self.seed = seed
        self.progress = progress
        self.psf_table = psf_table
        self.evidence: dict[str, Any] = {}  #: measured tables behind the report's figures, by check
        self.residual_of_peak: Floats | None = None  #: of each pair, set by R1
        self.residual_of_sky: Floats | None = None

    def rng(self, purpose: str) -> np.random.Generator:
        """Return the random stream of one purpose."""
        return np.random.default_rng([self.seed, zlib.crc32(purpose.encode())])

    @cached_property
    def bootstrap(self) -> HostBootstrap:
        """Host resamples of the drawn pairs."""
        n_resamples = self.thresholds.count("gate.bootstraps")
        return HostBootstrap(self.pairs.groups, n_resamples, self.rng("bootstrap"))

    @property
    def has_parameters(self) -> bool:
        """Whether the columns that the model needs are recorded (their values may still be wrong)."""
        try:
            self.parameters  # noqa: B018  (asked for what it raises)
        except MissingParametersError:
            return False
        except ValueError:
            return True
        return True

    @cached_property
    def parameters(self) -> RenderColumns:
        """Validated parameters of the drawn pairs."""
        return recorded_parameters(self.pairs.table, self.pairs.bands)

    @cached_property
    def forward(self) -> Forward:
        """The renderer of these pairs."""
        ny, nx = self.pairs.stamps.shape[2:]
        if ny != nx:
            raise ValueError(f"stamps are {ny} x {nx} pixels; the model renders square ones")
        return Forward(
            self.parameters,
            ny,
            self.pairs.pixscale_arcsec,
            self.pairs.bands,
            pixel_response=self.pairs.source.pixel_response,
            psf_images=self.pairs.source.psf_images,
            sources=self.pairs.source.sources,
        )

    def render_all(self, label: str, **options: object) -> Images:
        """Render every drawn pair in batches, reporting progress."""
        n, size = len(self.pairs), self.thresholds.count("sample.batch_pairs")
        parts = []
        for begin in range(0, n, size):
            parts.append(self.forward.render(np.arange(begin, min(begin + size, n)), **options))  # type: ignore[arg-type]
            self.progress(label, min(begin + size, n), n)
        return np.concatenate(parts)

    @cached_property
    def model(self) -> Images:
        """The arcs that the recorded parameters predict: float32 (n, band, y, x)."""
        return self.render_all("re-rendering")

    @cached_property
    def kernel_edge(self) -> Edge | None:
        """Where the PSF kernel of pixels that the record explains ends; None where that does not show.

        A kernel cut at a few FWHM takes light out of the wings, far below what the residual may be.
        """
        from arcforge.engine.auditing.faults import find_kernel_edge

        if not self.residual_explained or self.diagnosis.kernel_edge:
            return self.diagnosis.kernel_edge
        return find_kernel_edge(self.forward, self.diagnosis.data)

    @cached_property
    def model_as_cut(self) -> Images:
        """The predicted arcs with a PSF kernel that ends at ``kernel_edge``: float32 (n, band, y, x)."""
        edges = dict([self.kernel_edge] if self.kernel_edge else [])
        return self.render_all("re-rendering", change=Point(edges).change)

    def with_cut_kernel(self, judge: Callable[[Images], Finding]) -> Finding:
        """Return what ``judge`` says of the model, or of that with a finite PSF kernel if it passes."""
        finding = judge(self.model)
        if finding.status == PASS or self.kernel_edge is None:
            return finding
        cut = judge(self.model_as_cut)
        words = f"{cut.message}, with a PSF kernel that ends at {edge_words(self.kernel_edge)}"
        return replace(cut, message=words) if cut.status == PASS else finding

    @cached_property
    def model_peak(self) -> Floats:
        """Peak of each predicted arc: (n, band)."""
        return np.asarray(self.model.max((2, 3)), dtype=np.float64)

    @cached_property
    def arc_free(self) -> NDArray[np.bool_]:
        """Pixels in which the model adds less than a share of its peak: (n, band, y, x)."""
        level = self.thresholds["residual.arc_level"] * self.model_peak
        return np.asarray(self.model <= level[:, :, None, None])

    @cached_property
    def added(self) -> Images:
        """What distinguishes the members of each pair, stamp - control: float32 (n, band, y, x)."""
        if self.pairs.source.kind == "unpaired":
            raise MissingParametersError([NO_PAIRS])
        return self.quiet_stamps - self.pairs.controls

    @cached_property
    def quiet_stamps(self) -> Images:
        """The stamps less the noise of the added light, where the set records how it was drawn."""
        noise = self.pairs.source.noise(self.pairs.rows)
        return self.pairs.stamps if noise is None else self.pairs.stamps - noise

    @cached_property
    def recorded_gain(self) -> Floats | None:
        """Electrons per nMgy of each pair's added light, (n, band); None where its noise is not recorded."""
        names = [f"gain_e_per_nmgy_{band}" for band in self.pairs.bands]
        if not all(name in self.pairs.table.column_names for name in names):
            return None
        return np.stack([column(self.pairs.table, name) for name in names], axis=1)

    @cached_property
    def distance(self) -> Floats:
        """Distance of each pixel from the stamp's centre: (y, x)."""
        ny, nx = self.pairs.stamps.shape[2:]
        return distance_pix((ny, nx))

    @cached_property
    def core(self) -> NDArray[np.bool_]:
        """The core's pixels: (y, x)."""
        return self.distance < self.thresholds["core.radius_pix"]

    @cached_property
    def sky_sigma(self) -> Floats:
        """Noise of each control's sky: (n, band), from the scatter of its outer pixels."""
        return self.sky_sigma_of(self.pairs.controls)

    def sky_sigma_of(self, images: Images) -> Floats:
        """Noise of the sky of (k, band, y, x) images: (k, band).

        Robust; of a sky of which more than half is one value, as where it was cut off, the plain scatter.
        """
        outer = self.distance >= self.thresholds["core.outer_pix"]
        sky = images[:, :, outer].astype(np.float64)
        deviation = np.abs(sky - np.median(sky, axis=2, keepdims=True))
        robust = MAD_TO_SIGMA * np.median(deviation, axis=2)
        return np.asarray(np.where(robust > 0, robust, np.std(sky, axis=2)))

    @cached_property
    def theta_e_arcsec(self) -> Floats:
        """Recorded Einstein radius, NaN where there is none: (n,)."""
        if "theta_e_arcsec" in self.pairs.table.column_names:
            return column(self.pairs.table, "theta_e_arcsec")
        return np.full(len(self.pairs), np.nan)

    @cached_property
    def gate(self) -> GateResult:
        """The core gate."""
        box = self.thresholds.count("gate.box_pix")
        return run_gate(
            core_features(self.pairs.stamps, box),
            core_features(self.pairs.controls, box),
            self.bootstrap,
            self.thresholds,
            self.rng("gate"),
            permutations=self.thresholds.count("gate.permutations"),
        )

    @cached_property
    def fit_rows(self) -> Integers:
        """Drawn pairs that the nuisance fit uses, spread evenly over hosts."""
        n, limit = len(self.pairs), self.thresholds.count("sample.fit_pairs")
        if n <= limit:
            return np.arange(n)
        order = self.rng("fit rows").permutation(n)
        groups = self.pairs.groups[order]
        # the k-th row of each host before the (k+1)-th of any
        turn = np.zeros(n, dtype=np.int64)
        by_host = np.argsort(groups, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(groups[by_host]) > 0])
        turn[by_host] = np.arange(n) - np.repeat(starts, np.diff(np.r_[starts, n]))
        return np.sort(order[np.argsort(turn, kind="stable")[:limit]])

    @cached_property
    def attribution(self) -> dict[str, Any]:
        """Shares of the core's added light."""
        from arcforge.engine.auditing.attribution import attribute

        return attribute(self)

    @property
    def residual_explained(self) -> bool:
        """Whether the record explains the pixels and no fault was named."""
        return self.diagnosis.explained_as_recorded and not self.diagnosis.causes

    @cached_property
    def remedies(self) -> list[dict[str, Any]]:
        """Remedies, measured before and after."""
        from arcforge.engine.auditing.masks import measure_remedies

        return measure_remedies(self)

    def finished(self, name: str) -> Any:
        """Return a derived product if a check made it, else None: reporting computes nothing."""
        return self.__dict__.get(name)

    @cached_property
    def diagnosis(self) -> Diagnosis:
        """The nuisance fit and the named faults."""
        from arcforge.engine.auditing.diagnosis import diagnose

        return diagnose(self)
