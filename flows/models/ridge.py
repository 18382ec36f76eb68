"""Ridge logistic regression some of whose coefficients may not fall below zero.

scikit-learn's has no bounds, and a search by gradients alone took three times as long.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from scipy.linalg.blas import dsyrk
from scipy.optimize import nnls
from scipy.special import expit
from threadpoolctl import threadpool_limits

from flows.datasets.rows import Labels
from flows.models.folded_regression import RIDGE_C, Numbers

#: Six steps are usual from nothing, and a whole step nearly always gains.
MOST_STEPS, MOST_HALVINGS = 100, 30
#: Of a bounded coefficient, between zero and free, in one step; a few are usual.
MOST_EXCHANGES = 100
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
        products = np.zeros((width + 1, width + 1), order="F")
        # In parts: a weighted copy of all columns would be as large as they are.
        for begin in range(0, len(weights), ROWS_AT_ONCE):
            part = slice(begin, begin + ROWS_AT_ONCE)
            roots = np.sqrt(weights[part, None])
            weighed = np.hstack([self.columns[part] * roots, roots])
            # Half the products: the matrix is symmetric.
            products = dsyrk(1.0, weighed.T, beta=1.0, c=products, lower=1, overwrite_c=1)
        return np.asarray(products + np.tril(products, -1).T)


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
    bounded = np.append(rising, False)
    begin = np.zeros(len(bounded)) if start is None else start
    parameters = np.where(bounded, np.maximum(begin, 0.0), begin)
    # Two threads of BLAS on columns this narrow cost ten times the processor time of one.
    with threadpool_limits(1):
        reached = loss.measure(parameters)
        for _ in range(MOST_STEPS):
            before = reached
            parameters, reached = take_step(loss, parameters, reached, bounded)
            if before - reached <= tolerance * abs(reached):
                break
    return parameters[:-1], float(parameters[-1])


def take_step(
    loss: RidgeLoss, parameters: Numbers, reached: float, bounded: NDArray[np.bool_]
) -> tuple[Numbers, float]:
    """Return better parameters, no `bounded` one below zero, and their loss; or the same.

    The step goes to the bounded minimum of the quadratic that touches the loss here, and is halved
    until the loss is less.
    """
    gradient, hessian = loss.find_slopes(parameters)
    step = minimise_quadratic(hessian, hessian @ parameters - gradient, bounded) - parameters
    for halvings in range(MOST_HALVINGS):
        tried = parameters + step / 2**halvings
        now = loss.measure(tried)
        if now < reached:
            return tried, now
    return parameters, reached


def minimise_quadratic(hessian: Numbers, slope: Numbers, bounded: NDArray[np.bool_]) -> Numbers:
    """Return the x of the least x'Hx / 2 - slope'x, where no `bounded` x is below zero.

    With the bounded ones last, the last corner of the triangular root is the root of the problem
    that remains when the free ones are eliminated: few variables for non-negative least squares
    (Lawson and Hanson 1974).
    """
    order = np.argsort(bounded, kind="stable")
    free = int((~bounded).sum())
    root = cholesky(hessian[np.ix_(order, order)], lower=True)
    target = solve_triangular(root, slope[order], lower=True)
    risen = target[free:]
    if bounded.any():  # SciPy refuses a problem without variables.
        risen, _ = nnls(root[free:, free:].T, risen, maxiter=MOST_EXCHANGES * len(risen))
    left = target[:free] - root[free:, :free].T @ risen
    found = np.empty_like(slope)
    found[order] = np.append(solve_triangular(root[:free, :free], left, lower=True, trans=1), risen)
    return found
