"""Rows as members are given them, drawn with a seed, a tenth of them missing."""

import numpy as np

from feature_repo.catalogue import list_model_inputs
from flows.models.member import FittingData, ModelRows

NAMES = tuple(column.name for column in list_model_inputs())


def draw_rows(rows: int, seed: int) -> ModelRows:
    random = np.random.default_rng(seed)
    features = random.normal(8, 5, (rows, len(NAMES)))
    features[:, :11] = np.clip(np.round(features[:, :11]), 0, 27)
    features[random.random(features.shape) < 0.1] = np.nan
    return ModelRows(features.astype(np.float32), np.zeros((rows, 26, 10), np.float32))


def draw_fitting_data(rows: int = 1500, seed: int = 3) -> FittingData:
    """Return rows whose risk rises with the PHQ-9 total and falls with its first item."""
    drawn = [draw_rows(rows, seed), draw_rows(300, seed + 1)]
    labels = [_draw_labels(part, seed) for part in drawn]
    futures = [np.full((len(part), 13), np.nan, np.float32) for part in drawn]
    return FittingData(
        NAMES, drawn[0], labels[0], futures[0], drawn[1], labels[1], futures[1], seed
    )


def _draw_labels(rows: ModelRows, seed: int) -> np.ndarray:
    known = np.nan_to_num(rows.features, nan=8.0)
    total, item = known[:, NAMES.index("phq9_total")], known[:, NAMES.index("phq9_item_1")]
    risk = 1 / (1 + np.exp(-(0.25 * (total - 8) - 0.2 * (item - 8) - 1)))
    return np.random.default_rng(seed).random(len(rows)) < risk
