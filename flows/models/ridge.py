"""Ridge logistic regression some of whose coefficients may not fall below zero.

scikit-learn's has no bounds, and a search by gradients alone took three times as long.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import lsq_linear
from scipy.special import expit
from threadpoolctl import threadpool_limits

from flows.datasets.rows import Labels
from flows.models.folded_regression import RIDGE_C, Numbers

#: Six steps are usual from nothing, and a whole step nearly always gains.
MOST_STEPS, MOST_HALVINGS = 100, 30
#: Rows whose weighted copy is held while products of columns are summed.
ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class RidgeLoss:
    """The summed log loss plus |coefficients|^2 / (2 RIDGE_C), as scikit-learn minimises it.

    `often` says how often each row counts. Parameters are the coefficients, then the intercept.
    """

    columns: Numbers
    labels: Labels
    often: Numbers

    def measure(self, parameters: Numbers) -> float:
        margins = np.where(self.labels, 1.0, -1.0) * self._predict(parameters)
        penalty = (parameters[:-1] ** 2).sum() / (2 * RIDGE_C)
        return float((self.often * np.logaddexp(0, -margins)).sum() + penalty)

    def find_slopes(self, parameters: Numbers) -> tuple[Numbers, Numbers]:
        """Return gradient and Hessian. Float64 [parameters], [parameters, parameters]."""
        probabilities = expit(self._predict(parameters))
        errors = self.often * (probabilities - self.labels)
        ridge = np.append(np.full(self.columns.shape[1], 1 / RIDGE_C), 0.0)
        gradient = np.append(self.columns.T @ errors, errors.sum()) + ridge * parameters
        weights = self.often * probabilities * (1 - probabilities)
        return gradient, self._weigh_products(weights) + np.diag(ridge)

    def _predict(self, parameters: Numbers) -> Numbers:
        return np.asarray(self.columns @ parameters[:-1] + parameters[-1])

    def _weigh_products(self, weights: Numbers) -> Numbers:
        """Return the weighted products of all pairs of columns, the intercept's ones last."""
        width = self.columns.shape[1]
        products = np.zeros((width + 1, width + 1))
        # In parts: a weighted copy of all columns would be as large as they are.
        for begin in range(0, len(weights), ROWS_AT_ONCE):
            part = self.columns[begin : begin + ROWS_AT_ONCE]
            weighed = part * weights[begin : begin + ROWS_AT_ONCE, None]
            products[:width, :width] += weighed.T @ part
            products[width, :width] += weighed.sum(axis=0)
        products[:width, width] = products[width, :width]
        products[width, width] = weights.sum()
        return products


def fit_ridge(
    columns: Numbers,
    labels: Labels,
    rising: NDArray[np.bool_],
    counts: Numbers | None = None,
    start: Numbers | None = None,
    tolerance: float = 2.2e-9,
) -> tuple[Numbers, float]:
    """Return coefficients and intercept of the ridge regression, `rising` ones not below zero.

    Minimises RidgeLoss by iteratively reweighted least squares (McCullagh and Nelder 1989), each of
    which is bounded; the problem is convex, so the bounded minimum is the only one. `counts` says
    how often each row counts, `start` where to look first; the search ends at a relative gain
    below `tolerance`.
    """
    loss = RidgeLoss(columns, labels, np.ones(len(labels)) if counts is None else counts)
    lowest = np.append(np.where(rising, 0.0, -np.inf), -np.inf)
    parameters = np.maximum(np.zeros(len(lowest)) if start is None else start, lowest)
    # Two threads of BLAS on columns this narrow cost ten times the processor time of one.
    with threadpool_limits(1):
        reached = loss.measure(parameters)
        for _ in range(MOST_STEPS):
            before = reached
            parameters, reached = take_step(loss, parameters, reached, lowest)
            if before - reached <= tolerance * abs(reached):
                break
    return parameters[:-1], float(parameters[-1])


def take_step(
    loss: RidgeLoss, parameters: Numbers, reached: float, lowest: Numbers
) -> tuple[Numbers, float]:
    """Return better parameters, none below `lowest`, and their loss; the same where none is found.

    The step goes to the bounded minimum of the quadratic that touches the loss here, and is halved
    until the loss is less.
    """
    gradient, hessian = loss.find_slopes(parameters)
    root = cholesky(hessian, lower=True)
    target = root.T @ parameters - solve_triangular(root, gradient, lower=True)
    found = lsq_linear(root.T, target, bounds=(lowest, np.inf), method="bvls").x
    step = np.maximum(found, lowest) - parameters
    for halvings in range(MOST_HALVINGS):
        tried = parameters + step / 2**halvings
        now = loss.measure(tried)
        if now < reached:
            return tried, now
    return parameters, reached
