"""The release as an MLflow model: `mlflow.pyfunc.load_model("models:/mhras-risk/Production")`.

MLflow finds the file MLmodel beside the manifest and calls `_load_pyfunc`. What is loaded are the
manifest and the ONNX graphs of the pinned member versions, whose hashes are checked: no pickle, and
no code of the artifact store. It is for analyses of tables; the rules, doubts and reasons of a
screening are the API's.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
from mlflow import MlflowClient

from feature_repo.catalogue import list_model_inputs
from feature_repo.weekly_sequence import SEQUENCE_CHANNELS, SEQUENCE_WEEKS
from flows.datasets.rows import ModelRows
from flows.datasets.training_set import stack_rows
from flows.models.interval import predict_head
from flows.models.registered import RegisteredMember, open_members
from flows.models.release_signature import list_outputs, list_used, name_weeks
from mlruns_config.manifest import MANIFEST_FILE, ReleaseManifest
from serving.scoring.estimate import map_to_score


class ReleaseModel:
    """A release that predicts from a table of features."""

    def __init__(self, manifest: ReleaseManifest, members: dict[str, RegisteredMember]) -> None:
        self.manifest = manifest
        self.members = members

    def predict(self, frame: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return the probability of each outcome and the score of each row, with its index.

        `frame` has a column for each feature, NaN where it is unknown, and, where a member reads
        the weekly sequence, `weekly_<channel>` with a list of weeks. There are no `params`.
        Raises ValueError where a row has another number of weeks.
        """
        rows = read_rows(frame)
        head, beside = self.manifest.priority, self.manifest.worsening
        estimates = predict_head(self.members, head, rows)
        scores = np.array([map_to_score(self.manifest.score_map, value) for value in estimates])
        columns = [estimates, scores]
        if beside is not None:
            columns.append(predict_head(self.members, beside, rows))
        named = dict(zip(list_outputs(self.manifest), columns, strict=True))
        return pd.DataFrame(named, index=frame.index)


def read_rows(frame: pd.DataFrame) -> ModelRows:
    """Return the rows of a table as model inputs; a column it lacks is unknown in all rows."""
    numbers = {column.name: _read_numbers(frame, column.name) for column in list_model_inputs()}
    weeks = {name: _read_weeks(frame, name) for name in map(name_weeks, SEQUENCE_CHANNELS)}
    return stack_rows(pl.DataFrame(numbers | weeks))


def _read_numbers(frame: pd.DataFrame, name: str) -> pl.Series:
    if name not in frame:
        return pl.Series(name, np.full(len(frame), np.nan), dtype=pl.Float64)
    return pl.Series(name, frame[name].to_numpy(np.float64, na_value=np.nan))


def _read_weeks(frame: pd.DataFrame, name: str) -> pl.Series:
    kind = pl.List(pl.Float32)
    if name not in frame:
        return pl.Series(name, [None] * len(frame), dtype=kind)
    weeks = [[float(week) for week in row] for row in frame[name]]
    if wrong := {len(row) for row in weeks} - {SEQUENCE_WEEKS}:
        raise ValueError(f"{name} has {min(wrong)} weeks in a row, {SEQUENCE_WEEKS} are needed")
    return pl.Series(name, weeks, dtype=kind)


def _load_pyfunc(path: str) -> ReleaseModel:
    """Open the release whose manifest lies in a folder; called by MLflow.

    Raises UnusableReleaseError where an artifact is not the registered one.
    """
    text = (Path(path) / MANIFEST_FILE).read_text()
    manifest = ReleaseManifest.model_validate_json(text)
    return ReleaseModel(manifest, open_members(MlflowClient(), manifest, list_used(manifest)))
