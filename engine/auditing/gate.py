"""The gate: can a classifier tell stamps from controls, on hosts that it has not seen?

Folds keep a host together. On pairs, folds that split a host answer below 0.5 for no effect at all and hide a
real one: the twin with the other label sits in the training set.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.auditing.checks import TooFewHostsError
from arcforge.engine.auditing.groups import deal_folds
from arcforge.engine.auditing.logistic import fit_logistic
from arcforge.engine.auditing.resampling import Estimate, HostBootstrap
from arcforge.engine.auditing.thresholds import Thresholds
from arcforge.engine.threads import for_each, usable_threads

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# One-sided test at 5 %, power 80 %: z(0.95) + z(0.80)
_DETECTABLE_IN_SE = 1.645 + 0.842
# Fits to other hosts differ more than fits of other folds, which share most of theirs. With twice the
# variance over folds, intervals of simulated sets of 19, 80 and 120 hosts cover 93-100 %
# (bench/gate_coverage.py); with once that, 90 % at 19 hosts and AUC 0.87; a jackknife over refits gives twice
# the true error there
FOLD_VARIANCE = 2.0
# Where members of a pair hardly differ, AUCs lie near 0.5 and fold assignments scatter freely: the variance
# of their mean, so many times, covers 94-100 % of 120 sets of 19 and of 80 hosts (once it: 91 %), with
# half-widths of at least what single comparisons move (bench/gate_coverage.py --explained)
_MEAN_VARIANCE, _LEAST_HALF_WIDTH = 3.0, 5e-4
# Comparisons held at a time: 32 MB
_BLOCK = 1 << 22


@dataclass(frozen=True)
class GateResult:
    """What a gate found; AUCs are averages over folds and repeats, intervals are over hosts."""

    auc: Estimate
    within_pair_auc: Estimate
    fpr_at_half_tpr: float
    p_permutation: float | None
    mde: float  #: smallest excess over 0.5 that would be found with 80 % power
    n_pairs: int
    n_groups: int
    null_aucs: Floats = field(default_factory=lambda: np.zeros(0))  #: AUC of each label permutation
    wins: Floats = field(default_factory=lambda: np.zeros(0))  #: how often each pair's stamp scores higher
    fold_aucs: Floats = field(default_factory=lambda: np.zeros(0))  #: AUC of each fold assignment
    resampled: Floats = field(default_factory=lambda: np.zeros(0))  #: AUC of each host resample


def run_gate(
    stamps: Floats,
    controls: Floats,
    bootstrap: HostBootstrap,
    thresholds: Thresholds,
    rng: np.random.Generator,
    *,
    repeats: int | None = None,
    permutations: int = 0,
    hardly_differ: bool = False,
) -> GateResult:
    """Train and score the gate on paired features.

    Scaling and weights are fitted inside each training fold. Scores of different folds come from different
    fits and are never ranked against each other. The AUC compares stamps with controls of other hosts: with
    their own host's they compare far better, so that 19 hosts would read 0.88 where new ones give 0.84. The
    permutation swaps the two labels of a pair and refits the first fold assignment; its statistic, permuted
    and observed, counts a host's own controls too, where a weak cue shows first.

    Parameters
    ----------
    stamps, controls : float64 (n, p)
        Features of the two members of each pair.
    bootstrap : HostBootstrap
        Hosts of the pairs and their resamples.
    thresholds : Thresholds
        Section ``gate``.
    rng : numpy Generator
        Folds and permutations.
    repeats : int, optional
        Fold assignments; default from the thresholds.
    permutations : int
        Label permutations; 0 for none.
    hardly_differ : bool
        Members of a pair differ by rounding at most: fold assignments decide by last digits, and only their
        mean counts for the interval.
    """
    groups = bootstrap.groups
    n = len(groups)
    if bootstrap.n_groups < 2:
        raise TooFewHostsError(bootstrap.n_groups)
    # two hosts a fold, where there are enough: one alone has no other to be compared with
    n_folds = min(thresholds.count("gate.folds"), max(bootstrap.n_groups // 2, 2), bootstrap.n_groups)
    penalty = thresholds["gate.penalty"]
    n_repeats = thresholds.count("gate.repeats") if repeats is None else repeats
    swaps = rng.random((n, permutations)) < 0.5
    values, resampled, wins, rates, null_aucs, observed = [], [], [], [], np.zeros(0), float("nan")
    for repeat in range(n_repeats):
        folds = deal_folds(groups, n_folds, rng)
        scores = _score_out_of_fold(stamps, controls, folds, np.zeros((n, 1), dtype=bool), penalty)[:, :, 0]
        value, of_resamples = score_auc(scores, folds, bootstrap)
        values.append(value)
        resampled.append(of_resamples)
        wins.append((scores[0] > scores[1]) + 0.5 * (scores[0] == scores[1]))
        rates.append(_false_positive_rate(scores, folds))
        if repeat == 0 and permutations:
            null_aucs = _permuted_aucs(stamps, controls, folds, swaps, penalty)
            observed = _auc_over_folds(scores, folds)
    # the bootstrap holds the fits
    of_fits = float(np.var(values, ddof=1)) if n_repeats > 1 else 0.0
    of_fits *= _MEAN_VARIANCE / n_repeats if hardly_differ else FOLD_VARIANCE
    auc = bootstrap.share(float(np.mean(values)), np.mean(resampled, axis=0), extra_variance=of_fits)
    null_se = float(np.std(null_aucs, ddof=1)) if permutations > 1 else 0.408 / np.sqrt(n)
    return GateResult(
        auc=auc.widened(_LEAST_HALF_WIDTH) if hardly_differ else auc,
        within_pair_auc=bootstrap.mean(np.mean(wins, axis=0)),
        fpr_at_half_tpr=float(np.mean(rates)),
        p_permutation=(
            float((np.sum(null_aucs >= observed) + 1) / (permutations + 1)) if permutations else None
        ),
        mde=_DETECTABLE_IN_SE * null_se,
        n_pairs=n,
        n_groups=bootstrap.n_groups,
        null_aucs=null_aucs,
        wins=np.mean(wins, axis=0),
        fold_aucs=np.array(values),
        resampled=np.asarray(np.mean(resampled, axis=0)),
    )


def _score_out_of_fold(
    stamps: Floats, controls: Floats, folds: Integers, swaps: NDArray[np.bool_], penalty: float
) -> Floats:
    """Scores (2, n, m) of stamps and controls, for m labelings; a swap exchanges the labels of a pair."""
    scores = np.empty((2, len(folds), swaps.shape[1]))

    def fit(fold: int) -> None:
        held_out, kept = folds == fold, folds != fold
        train = np.concatenate([stamps[kept], controls[kept]])
        centre, scale = train.mean(0), train.std(0)
        scale[scale == 0] = 1.0
        labels = np.concatenate([~swaps[kept], swaps[kept]]).astype(np.float64)
        weights = fit_logistic((train - centre) / scale, labels, penalty, _tolerance(labels))
        for member, features in enumerate((stamps, controls)):
            scores[member, held_out] = ((features[held_out] - centre) / scale) @ weights[:-1] + weights[-1]

    for_each(fit, np.unique(folds).tolist(), usable_threads(None))
    return scores


def _tolerance(labels: Floats) -> float:
    # 1e-2 nats leave permuted AUCs unchanged to 1e-4 and cost a third of the steps of 1e-4
    return 1e-2 if labels.shape[1] > 1 else 1e-3


def _permuted_aucs(
    stamps: Floats, controls: Floats, folds: Integers, swaps: NDArray[np.bool_], penalty: float
) -> Floats:
    scores = _score_out_of_fold(stamps, controls, folds, swaps, penalty)
    return np.array(
        [
            _auc_over_folds(np.where(swap, scores[::-1, :, k], scores[:, :, k]), folds)
            for k, swap in enumerate(swaps.T)
        ]
    )


def _auc_over_folds(scores: Floats, folds: Integers) -> float:
    """AUC of (2, n) scores, averaged over folds by their number of comparisons."""
    won = compared = 0.0
    for fold in np.unique(folds):
        positive, negative = scores[0, folds == fold], np.sort(scores[1, folds == fold])
        below = np.searchsorted(negative, positive, side="left")
        ties = np.searchsorted(negative, positive, side="right") - below
        won += float(np.sum(below + 0.5 * ties))
        compared += float(len(positive)) * len(negative)
    return won / compared


def score_auc(scores: Floats, folds: Integers, bootstrap: HostBootstrap) -> tuple[float, Floats]:
    """AUC between hosts over folds, and of each host resample (resamples,); NaN without two hosts a fold."""
    # the first row stands for the sample itself: every host once
    counts = np.vstack([np.ones(bootstrap.n_groups), bootstrap.counts])
    won, compared = np.zeros(len(counts)), np.zeros(len(counts))
    for fold in np.unique(folds):
        rows = np.flatnonzero(folds == fold)
        hosts, place, sizes = np.unique(bootstrap.groups[rows], return_inverse=True, return_counts=True)
        drawn = counts[:, hosts]
        won += np.einsum("bg,bg->b", drawn @ _wins_between_hosts(scores[:, rows], place, len(hosts)), drawn)
        compared += (drawn @ sizes) ** 2 - drawn**2 @ sizes.astype(np.float64) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        aucs = won / compared
    return float(aucs[0]), aucs[1:]


def _wins_between_hosts(scores: Floats, hosts: Integers, n_hosts: int) -> Floats:
    """Comparisons that stamps of one host win against controls of another, ties half: (n_hosts, n_hosts)."""
    order = np.argsort(hosts, kind="stable")
    stamps, controls = scores[:, order]
    first = np.searchsorted(hosts[order], np.arange(n_hosts))
    wins = np.zeros((n_hosts, n_hosts))
    step = max(_BLOCK // len(order), 1)
    for begin in range(0, len(order), step):
        some = stamps[begin : begin + step, None]
        won = 0.5 * ((some > controls).astype(np.float64) + (some >= controls))
        np.add.at(wins, hosts[order[begin : begin + step]], np.add.reduceat(won, first, axis=1))
    np.fill_diagonal(wins, 0.0)
    return wins


def _false_positive_rate(scores: Floats, folds: Integers) -> float:
    """Share of controls above the median stamp of their fold."""
    false = 0
    for fold in np.unique(folds):
        of_fold = scores[:, folds == fold]
        false += int(np.sum(of_fold[1] >= np.median(of_fold[0])))
    return float(false / scores.shape[1])


def core_features(images: NDArray[np.float32], box_pix: int) -> Floats:
    """Pixels of the central box of (n, band, y, x) images, flattened over bands: (n, bands * box * box)."""
    ny, nx = images.shape[2:]
    y0, x0 = (ny - box_pix) // 2, (nx - box_pix) // 2
    box = images[:, :, y0 : y0 + box_pix, x0 : x0 + box_pix]
    return np.asarray(box.reshape(len(images), -1), dtype=np.float64)


def cell_features(
    images: NDArray[np.float32], keep: NDArray[np.bool_], window_pix: int, cell_pix: int
) -> Floats:
    """Mean of the kept pixels of each cell of the central window: (n, bands * cells).

    ``keep`` (ny, nx) is the same for every image; cells with no kept pixel are left out.
    """
    n, bands, ny, nx = images.shape
    cells = min(window_pix, ny, nx) // cell_pix
    side = cells * cell_pix
    y0, x0 = (ny - side) // 2, (nx - side) // 2
    window = images[:, :, y0 : y0 + side, x0 : x0 + side] * keep[y0 : y0 + side, x0 : x0 + side]
    kept = keep[y0 : y0 + side, x0 : x0 + side].reshape(cells, cell_pix, cells, cell_pix).sum((1, 3))
    sums = window.reshape(n, bands, cells, cell_pix, cells, cell_pix).sum((3, 5), dtype=np.float64)
    return np.asarray(sums[:, :, kept > 0] / kept[kept > 0]).reshape(n, -1)
