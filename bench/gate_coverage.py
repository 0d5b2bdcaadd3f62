"""How often the gate's interval holds the AUC that hosts unseen give: simulated pairs, counted.

    python -m arcforge.bench.gate_coverage --trials 200

Pairs of a host share its galaxy; arcs differ in brightness and texture. The truth is what fits to as many
hosts as a training fold holds reach on hosts of their own, averaged over fits. 95 % are wanted; at an AUC of
0.5 more is right, since fits that say nothing cannot vary in what they say. With ``--explained`` stamps
hardly differ from controls, as where the model has been subtracted (R6).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.auditing.gate import run_gate
from arcforge.engine.auditing.logistic import fit_logistic
from arcforge.engine.auditing.resampling import HostBootstrap
from arcforge.engine.auditing.thresholds import Thresholds

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Hosts of the sets of 240 pairs that the audit is calibrated on
N_HOSTS = (19, 40, 80, 120)
# Brightness of the arcs in the one feature that holds them, for AUCs of some 0.5, 0.6, 0.75, 0.87 and 0.95
EFFECTS = (0.0, 0.4, 1.2, 2.3, 4.0)
_TEXTURE = 0.3
# (brightness, texture) of what a subtracted model leaves, for AUCs of 0.5 to 0.507
LEFT_OVER = ((0.0, 1e-3), (0.0, 0.02), (0.01, 0.02), (0.03, 0.02), (0.0, 0.1), (0.03, 0.1))
_TEST_HOSTS = 2000


def simulate_pairs(
    n_hosts: int,
    n_pairs: int,
    n_features: int,
    effect: float,
    rng: np.random.Generator,
    texture: float = _TEXTURE,
) -> tuple[Floats, Floats, Integers]:
    """Return features of stamps and controls (n_pairs, n_features), and the host of each pair (n_pairs,)."""
    hosts = np.arange(n_pairs) % n_hosts
    controls = rng.normal(size=(n_hosts, n_features))[hosts]
    arcs = texture * rng.normal(size=controls.shape)
    arcs[:, 0] += effect * np.exp(0.5 * rng.normal(size=n_pairs))
    return controls + arcs, controls, hosts


def auc_on_new_hosts(
    n_hosts: int,
    n_pairs: int,
    n_features: int,
    effect: float,
    limits: Thresholds,
    rng: np.random.Generator,
    texture: float = _TEXTURE,
) -> float:
    """AUC that a fit to one training fold's worth of hosts reaches on hosts of its own."""
    share = 1.0 - 1.0 / limits.count("gate.folds")
    n_train, train_hosts = round(share * n_pairs), max(round(share * n_hosts), 1)
    stamps, controls, _ = simulate_pairs(train_hosts, n_train, n_features, effect, rng, texture)
    train = np.concatenate([stamps, controls])
    centre, scale = train.mean(0), train.std(0)
    labels = np.repeat([1.0, 0.0], n_train)[:, None]
    weights = fit_logistic((train - centre) / scale, labels, limits["gate.penalty"])[:-1, 0] / scale
    stamps, controls, _ = simulate_pairs(_TEST_HOSTS, _TEST_HOSTS, n_features, effect, rng, texture)
    below = np.searchsorted(np.sort(controls @ weights), stamps @ weights)
    return float(below.mean() / _TEST_HOSTS)


def count_covered(
    n_hosts: int,
    n_pairs: int,
    n_features: int,
    effect: float,
    trials: int,
    seed: int,
    left_over: float | None = None,
) -> tuple[float, float, float]:
    """Audit simulated sets. Returns the true AUC, the mean of the estimates, and the share of intervals that
    hold the truth. ``left_over`` is the texture of stamps that hardly differ from their controls.
    """
    texture = _TEXTURE if left_over is None else left_over
    limits = Thresholds()
    truths, estimates = [], []
    for trial in range(trials):
        rng = np.random.default_rng([seed, trial, n_hosts])
        stamps, controls, hosts = simulate_pairs(n_hosts, n_pairs, n_features, effect, rng, texture)
        bootstrap = HostBootstrap(hosts, 300, rng)
        gate = run_gate(stamps, controls, bootstrap, limits, rng, hardly_differ=left_over is not None)
        estimates.append(gate.auc)
        truths.append(auc_on_new_hosts(n_hosts, n_pairs, n_features, effect, limits, rng, texture))
    truth = float(np.mean(truths))
    covered = np.mean([e.ci95[0] <= truth <= e.ci95[1] for e in estimates])
    return truth, float(np.mean([e.value for e in estimates])), float(covered)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line for each number of hosts and each effect."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=240)
    parser.add_argument("--features", type=int, default=10)
    parser.add_argument("--hosts", type=int, nargs="+", default=list(N_HOSTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--explained", action="store_true", help="stamps hardly differ from controls")
    options = parser.parse_args(arguments)
    cases: Sequence[tuple[float, float | None]] = [(effect, None) for effect in EFFECTS]
    for n_hosts in options.hosts:
        for effect, left_over in LEFT_OVER if options.explained else cases:
            truth, mean, covered = count_covered(
                n_hosts, options.pairs, options.features, effect, options.trials, options.seed, left_over
            )
            sys.stdout.write(
                f"{n_hosts:4d} hosts: AUC {truth:.4f}, estimated {mean:.4f}, covered {100 * covered:.1f} %\n"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
