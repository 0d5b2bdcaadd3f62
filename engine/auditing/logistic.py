"""L2-penalised logistic regression for many labelings of one feature matrix at once.

A permutation test refits the gate some hundred times on the same pixels with other labels. The quadratic
upper bound of the log-likelihood (Böhning & Lindsay 1988, Ann. Inst. Stat. Math. 40, 641: Hessian <= X'X/4)
does not depend on labels, so one Cholesky factor serves them all and each step is two matrix products.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor
from scipy.linalg.lapack import dpotrs

Floats = NDArray[np.float64]

_MAX_STEPS = 5000


def fit_logistic(features: Floats, labels: Floats, penalty: float, tolerance: float = 1e-3) -> Floats:
    """Fit one logistic regression a column of ``labels``.

    Minimises sum log(1 + exp(-s z)) + penalty/2 |w|^2, z = x.w + intercept, s = +-1; the intercept is free.
    This is scikit-learn's objective with C = 1/penalty.

    Parameters
    ----------
    features : float64 (n, p)
        Standardised features.
    labels : float64 (n, m)
        0 or 1; each column is one labeling.
    penalty : float
        > 0.
    tolerance : float
        Stops where the bound on what one more step gains is below this (in nats, for the whole sample).

    Returns
    -------
    float64 (p + 1, m)
        Weights, the intercept last.

    Raises
    ------
    RuntimeError
        Not converged.
    """
    design = np.hstack([features, np.ones((len(features), 1))])
    ridge = np.full(design.shape[1], penalty)
    ridge[-1] = 1e-9 * len(features)
    factor, lower = cho_factor(design.T @ design / 4.0 + np.diag(ridge))
    weights = np.zeros((design.shape[1], labels.shape[1]))
    ahead = weights.copy()
    momentum = np.ones(labels.shape[1])
    for _ in range(_MAX_STEPS):
        gradient = design.T @ (_sigmoid(design @ ahead) - labels) + ridge[:, None] * ahead
        # cho_solve does the same behind checks that take as long as the small solves of one labeling
        step, _ = dpotrs(factor, gradient, lower=lower)
        moved = ahead - step
        if np.einsum("ij,ij->j", gradient, step).max() < tolerance:
            return np.asarray(moved)
        # Nesterov's momentum, restarted in each column where it points uphill
        momentum = np.where(np.einsum("ij,ij->j", gradient, moved - weights) > 0, 1.0, momentum)
        grown = 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * momentum**2))
        ahead = moved + (momentum - 1.0) / grown * (moved - weights)
        weights, momentum = moved, grown
    raise RuntimeError(f"the logistic regression did not converge in {_MAX_STEPS} steps")


def _sigmoid(z: Floats) -> Floats:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * z)))
