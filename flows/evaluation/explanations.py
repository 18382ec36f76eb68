"""SHAP pictures of the tree member on held-out individuals: what moves its estimates."""

from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib.pyplot as plt
import numpy as np
import shap
from matplotlib.figure import Figure
from shap.plots import bar, beeswarm

from flows.datasets.rows import Matrix
from flows.models.lightgbm import BoostedTrees

#: Enough for a stable order of features, few enough to be drawn in seconds.
EXPLAINED_ROWS = 800
SHOWN_FEATURES = 18
#: Inches and points at which the longest label of a feature fits beside the plot.
SIZE, FONT_SIZE = (12, 8), 9


def explain_trees(
    member: BoostedTrees, features: Matrix, labels: list[str], seed: int
) -> shap.Explanation:
    """Return exact TreeSHAP contributions (log-odds) of a sample of rows.

    `labels` are the columns' plain words. Lundberg et al. 2020, Nature Machine Intelligence.
    """
    count = min(EXPLAINED_ROWS, len(features))
    rows = features[np.random.default_rng(seed).choice(len(features), count, replace=False)]
    explainer = shap.TreeExplainer(member.booster)
    values = np.asarray(explainer.shap_values(rows))
    return shap.Explanation(
        values=values,
        base_values=np.full(count, float(np.ravel(explainer.expected_value)[-1])),
        data=rows,
        feature_names=labels,
    )


def draw_beeswarm(explanation: shap.Explanation) -> Figure:
    with _open_figure("What moves the estimate (one dot: one held-out screening)") as figure:
        beeswarm(explanation, max_display=SHOWN_FEATURES, show=False, plot_size=None)
    return figure


def draw_bar(explanation: shap.Explanation) -> Figure:
    with _open_figure("Mean size of each contribution") as figure:
        bar(explanation, max_display=SHOWN_FEATURES, show=False)
        # The number beside the longest bar stands outside the axes otherwise.
        (axes,) = figure.axes
        low, high = axes.get_xlim()
        axes.set_xlim(low, high + 0.15 * (high - low))
    return figure


@contextmanager
def _open_figure(title: str) -> Iterator[Figure]:
    """Open the figure that shap draws on: pyplot's current one."""
    figure = plt.figure(figsize=SIZE)
    try:
        yield figure
        _keep_texts_inside(figure)
        figure.suptitle(title)
    finally:
        # Out of pyplot's list of open figures: a flow draws many in one process.
        plt.close(figure)


def _keep_texts_inside(figure: Figure) -> None:
    """Make room for shap's texts, which are larger than the figure it is given."""
    figure.set_size_inches(SIZE)
    for axes in figure.axes:
        axes.tick_params(labelsize=FONT_SIZE)
        axes.xaxis.label.set_fontsize(FONT_SIZE)
        axes.yaxis.label.set_fontsize(FONT_SIZE)
    # The bar of colours is no part of the layout: its label lies right of it.
    figure.tight_layout(rect=(0, 0, 0.95, 0.97))
