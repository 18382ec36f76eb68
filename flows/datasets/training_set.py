"""The training set: labelled index dates with the features known at each of them."""

from dataclasses import dataclass, field, replace
from datetime import date, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from feature_repo.answer_features import (
    GAD7_ANSWERS,
    INDEX_DAY,
    PHQ9_ANSWERS,
    REPORTED_PHQ9_TOTAL,
    SECONDS_PER_DAY,
)
from feature_repo.catalogue import list_model_inputs
from feature_repo.feast_library import FeatureStore
from feature_repo.feature_tables import EVENT_TIMESTAMP
from feature_repo.instruments import GAD7, ITEM_COLUMNS, PHQ9
from feature_repo.outcomes import HORIZON_DAYS
from feature_repo.screening_v1 import screening_v1
from feature_repo.stored_views import JOIN_KEY
from feature_repo.weekly_sequence import SEQUENCE_CHANNELS, SEQUENCE_WEEKS
from flows.datasets.labels import INDEX_DATE, LABEL
from flows.datasets.rows import Labels, Matrix, ModelRows, Probabilities, Sequences
from flows.features.surveys import add_totals

#: Number of a row in the entity frame: the store gives rows back in an order of its own.
ASKED = "asked_row"
#: Weeks a forecasting member looks ahead: the label's 90 days.
FUTURE_WEEKS = 13

#: Shares of individuals: judged on, calibrated on, stopped early on; the rest is fitted on.
HELD_OUT_SHARE = 0.3
CALIBRATION_SHARE = 0.2
STOPPING_SHARE = 0.08
#: Quantile of index dates at which the held-out period begins.
HELD_OUT_FROM = 0.6
STOPPING_PART = 2
#: Rows of either outcome that each part of a split in time must have.
MIN_IN_TIME = 3


class LostRowsError(RuntimeError):
    """The feature store returned another number of rows than requested."""


def make_entity_frame(labels: pl.DataFrame, surveys: pl.DataFrame) -> pl.DataFrame:
    """Return Feast's entity frame: index time, the answers of that moment, the label.

    The index PHQ-9 enters as request data, as it does in serving; so does a GAD-7 of the
    same moment.
    """
    phq9 = _name_answers(surveys, PHQ9.name, PHQ9_ANSWERS)
    gad7 = _name_answers(surveys, GAD7.name, GAD7_ANSWERS)
    moment = [JOIN_KEY, "index_time"]
    return (
        labels.join(phq9, on=moment, how="left")
        .join(gad7, on=moment, how="left")
        .with_columns(
            pl.lit(None, dtype=pl.Float64).alias(REPORTED_PHQ9_TOTAL),
            (pl.col("index_time").dt.epoch("s") / SECONDS_PER_DAY).alias(INDEX_DAY),
        )
        .rename({"index_time": EVENT_TIMESTAMP})
        .sort(JOIN_KEY, EVENT_TIMESTAMP)
    )


def _name_answers(surveys: pl.DataFrame, instrument: str, names: tuple[str, ...]) -> pl.DataFrame:
    items = zip(ITEM_COLUMNS, names, strict=False)
    return surveys.filter(pl.col("instrument") == instrument).select(
        JOIN_KEY,
        pl.col("answered_at").alias("index_time"),
        *(pl.col(item).cast(pl.Float64).alias(name) for item, name in items),
    )


def join_features(store: FeatureStore, entities: pl.DataFrame) -> pl.DataFrame:
    """Return the entity frame, in its order, with the features as of each index time.

    The features are those of screening_v1; a row created after its index time (a late
    correction) is not used. Raises LostRowsError if the store drops or doubles a row.
    """
    joined = store.get_historical_features(
        entity_df=entities.with_row_index(ASKED).to_pandas(),
        features=store.get_feature_service(screening_v1.name),
        filter_by_created_timestamp=True,
    ).to_arrow()
    frame = pl.from_arrow(joined)
    assert isinstance(frame, pl.DataFrame)
    if frame.height != entities.height:
        raise LostRowsError(
            f"{entities.height} rows were requested, the feature store returned {frame.height}"
        )
    # pandas knows no dates, only moments.
    return frame.cast({INDEX_DATE: pl.Date}).sort(ASKED).drop(ASKED)


def stack_rows(frame: pl.DataFrame) -> ModelRows:
    """Return the model inputs of joined rows as arrays."""
    names = [column.name for column in list_model_inputs()]
    features = frame.select(pl.col(names).cast(pl.Float32)).to_numpy()
    return ModelRows(np.ascontiguousarray(features, np.float32), stack_sequences(frame))


def stack_sequences(frame: pl.DataFrame) -> Sequences:
    """Return the weekly channels as float32 [rows, weeks, channels], NaN where unknown."""
    shape = (frame.height, SEQUENCE_WEEKS)
    weeks = [_stack_weeks(frame[f"weekly_{channel}"], shape) for channel in SEQUENCE_CHANNELS]
    return np.stack(weeks, axis=2)


def _stack_weeks(weeks: pl.Series, shape: tuple[int, int]) -> Matrix:
    unknown = pl.Series([[float("nan")] * shape[1]], dtype=pl.List(pl.Float32))
    filled = pl.select(pl.when(weeks.is_null()).then(unknown).otherwise(weeks)).to_series()
    return filled.explode().to_numpy().astype(np.float32).reshape(shape)


def collect_futures(entities: pl.DataFrame, surveys: pl.DataFrame) -> Matrix:
    """Return the PHQ-9 totals of the FUTURE_WEEKS weeks after each row's index date.

    Float32 [rows, FUTURE_WEEKS], NaN in weeks without a complete PHQ-9; of several in one
    week the last.
    """
    asked = surveys.filter(pl.col("instrument") == PHQ9.name).sort("answered_at")
    totals = add_totals(asked).drop_nulls("total")
    later = totals.select(JOIN_KEY, "total", pl.col("answered_at").dt.date().alias("later"))
    numbered = entities.select(JOIN_KEY, INDEX_DATE).with_row_index("row")
    days = (pl.col("later") - pl.col(INDEX_DATE)).dt.total_days()
    weekly = (
        numbered.join(later, on=JOIN_KEY, maintain_order="right")
        .with_columns(((days - 1) // 7).alias("week"))
        .filter(days >= 1, pl.col("week") < FUTURE_WEEKS)
    )
    futures = np.full((entities.height, FUTURE_WEEKS), np.nan, dtype=np.float32)
    futures[weekly["row"].to_numpy(), weekly["week"].to_numpy()] = weekly["total"].to_numpy()
    return futures


@dataclass(frozen=True)
class Split:
    """Masks over the rows of a training set; no individual is in two of them."""

    fitting: NDArray[np.bool_]
    stopping: NDArray[np.bool_]
    calibration: NDArray[np.bool_]
    held_out: NDArray[np.bool_]
    #: Whether the held-out rows are later than all that is learnt from.
    by_time: bool = True

    def holds_both(self, labels: Labels, least: int = MIN_IN_TIME) -> bool:
        """Return True if every part has at least so many rows of either label.

        Labels are bool [rows].
        """
        parts = (self.fitting, self.stopping, self.calibration, self.held_out)
        counts = [(int(labels[part].sum()), int((~labels[part]).sum())) for part in parts]
        return all(min(count) >= least for count in counts)

    def limit(self, kept: NDArray[np.bool_]) -> "Split":
        """Return the split of the rows chosen by `kept`, bool [rows]."""
        return Split(
            fitting=self.fitting & kept,
            stopping=self.stopping & kept,
            calibration=self.calibration & kept,
            held_out=self.held_out & kept,
            by_time=self.by_time,
        )


def find_input(name: str) -> int:
    """Return the column of a model input."""
    return [column.name for column in list_model_inputs()].index(name)


def place_individuals(individuals: pl.Series) -> NDArray[np.int64]:
    """Return the part of each row's individual, in the order of the shares; 3 is fitted on.

    Int64 [rows].
    """
    position = individuals.str.slice(4, 8).str.to_integer(base=16).to_numpy() / 0x100000000
    edges = np.cumsum([HELD_OUT_SHARE, CALIBRATION_SHARE, STOPPING_SHARE])
    return np.searchsorted(edges, position, side="right")


def split_rows(
    individuals: pl.Series, index_dates: pl.Series, labels: Labels | None = None
) -> Split:
    """Split by individual and by time; by individual alone where the span is too short for that.

    It is too short where a part would have fewer than MIN_IN_TIME rows of either of the `labels`.

    Held-out individuals are judged on the last part of the period only, the others are
    learnt from only where their 90 days end before it begins, so that nothing of the
    future of the held-out period is learnt. Hashing keeps an individual on the same side
    in every run, also when others join.
    """
    part = place_individuals(individuals)
    boundary = find_time_boundary(index_dates)
    late = (index_dates >= boundary).to_numpy()
    learnable = (index_dates < boundary - timedelta(days=HORIZON_DAYS)).to_numpy()
    in_time = Split(
        held_out=(part == 0) & late,
        calibration=(part == 1) & learnable,
        stopping=(part == STOPPING_PART) & learnable,
        fitting=(part == 3) & learnable,
    )
    if labels is None or in_time.holds_both(labels):
        return in_time
    return Split(
        fitting=part == 3,
        stopping=part == STOPPING_PART,
        calibration=part == 1,
        held_out=part == 0,
        by_time=False,
    )


@dataclass(frozen=True)
class TrainingSet:
    """Labelled rows with everything known at their index dates.

    `frame` has anonymized_id, index_date, the labels of both outcomes and age; `rows` the model
    inputs and `futures` the PHQ-9 totals of the weeks after, of the same rows.
    """

    frame: pl.DataFrame
    rows: ModelRows
    futures: Matrix
    split: Split
    #: Rows whose answers only a screening delivered, and rows that a review left out.
    screened_rows: int = 0
    doubted_rows: int = 0
    #: Rows whose outcome was adjudicated elsewhere.
    adjudicated_rows: int = 0
    #: Index dates and outcomes that could not be used, by reason.
    excluded: dict[str, int] = field(default_factory=dict)
    #: Column of the outcome that is learnt, LABEL or WORSENED.
    outcome: str = LABEL

    @property
    def labels(self) -> Labels:
        """Return the outcome of each row; False where it is not known, which no part holds."""
        return self.frame[self.outcome].fill_null(False).to_numpy()

    def turn_to(self, outcome: str, chosen: NDArray[np.bool_]) -> "TrainingSet":
        """Return the same rows for another outcome; every part only of the chosen known ones."""
        kept = chosen & self.frame[outcome].is_not_null().to_numpy()
        return replace(self, outcome=outcome, split=self.split.limit(kept))

    def use_everything(self) -> "TrainingSet":
        """Return the same rows to be fitted on as a whole, newest and held-out ones included.

        The people stopped early on stay so, with all their rows; no person is held out.
        """
        stopping = place_individuals(self.frame[JOIN_KEY]) == STOPPING_PART
        empty = np.zeros(len(stopping), dtype=bool)
        everything = Split(~stopping, stopping, empty, empty, self.split.by_time)
        return replace(self, split=everything)

    def find_last_day(self) -> str:
        """Return the last labelled index date, in ISO format."""
        return str(self.frame[INDEX_DATE].cast(pl.Date).max())

    def read_phq9_totals(self) -> Probabilities:
        """Return the PHQ-9 total of each row's index date, NaN where unknown. Float64 [rows]."""
        return self.rows.features[:, find_input("phq9_total")].astype(np.float64)


def find_time_boundary(index_dates: pl.Series) -> date:
    """Return the first index date of the held-out period. Raises ValueError without index dates."""
    boundary = index_dates.cast(pl.Int32).quantile(HELD_OUT_FROM, interpolation="nearest")
    if boundary is None:
        raise ValueError("there are no index dates to split")
    return date(1970, 1, 1) + timedelta(days=int(boundary))
