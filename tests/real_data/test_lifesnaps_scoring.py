"""LifeSnaps through ingestion, features and the sequence members: real weeks, with their gaps.

Nobody of LifeSnaps answered a PHQ-9, so nothing can be said of how well they are ranked; what
is tested is that real weeks are taken as they are and scored.
"""

from datetime import UTC, date, datetime

import numpy as np
import polars as pl
import pytest

from feature_repo.weekly_sequence import SEQUENCE_CHANNELS, SEQUENCE_WEEKS
from flows.cohort import simulate_cohort
from flows.datasets.labels import LABEL, derive_labels
from flows.datasets.rows import Labels, Matrix, ModelRows
from flows.datasets.training_set import collect_futures, make_entity_frame, stack_sequences
from flows.materialisation import LANDED, compute_views
from flows.models.forecast_inputs import WEARABLE
from flows.models.forecasting import ForecastingMember
from flows.models.member import FittingData, check_parity
from tests.fixtures.brief_networks import fit_network
from tests.fixtures.ingestion import World, world
from tests.fixtures.lifesnaps import convert_lifesnaps
from tests.load.bench_features import mark_landed

__all__ = ["world"]

PEOPLE, YEARS, LAST_DAY, SEED = 250, 1.5, date(2025, 12, 31), 7
#: Late in the second of the two rounds of the study: the first lies at the far end of the weeks.
SNAPSHOT = date(2022, 1, 17)


@pytest.fixture(scope="module")
def simulated() -> FittingData:
    """A small simulated cohort: its weeks, labels and futures, a quarter to stop early on."""
    (block,) = simulate_cohort(PEOPLE, YEARS, LAST_DAY, SEED)
    tables = {name: mark_landed(frame) for name, frame in block.items() if name != "consents"}
    surveys, events = tables["surveys"], tables["emr_events"]
    nothing = pl.DataFrame(
        schema={"anonymized_id": pl.String, "index_date": pl.Date, "outcome": pl.Boolean}
    )
    entities = make_entity_frame(derive_labels(surveys, events, nothing, LAST_DAY), surveys)
    weeks = compute_views(tables, LAST_DAY)["weekly_sequence"].with_columns(
        pl.col("event_timestamp").dt.date().alias("index_date")
    )
    joined = entities.with_row_index("row").join(
        weeks, on=["anonymized_id", "index_date"], maintain_order="left"
    )
    futures = collect_futures(entities, surveys)[joined["row"].to_numpy()]
    return divide(joined, stack_sequences(joined), futures)


def divide(joined: pl.DataFrame, weeks: Matrix, futures: Matrix) -> FittingData:
    labels: Labels = joined[LABEL].to_numpy()
    stopping = (joined["anonymized_id"].str.slice(-1).is_in(["0", "1"])).to_numpy()
    rows = ModelRows(np.zeros((len(weeks), 1), np.float32), weeks)
    return FittingData(
        ("nothing",),
        rows.select(~stopping),
        labels[~stopping],
        futures[~stopping],
        rows.select(stopping),
        labels[stopping],
        futures[stopping],
        SEED,
    )


#: The default run fits both on simulated weeks (tests/flows/models/test_forecasting.py).
FAMILIES = ["rnn", pytest.param("tft", marks=pytest.mark.nightly)]


@pytest.fixture(scope="module", params=FAMILIES)
def member(request: pytest.FixtureRequest, simulated: FittingData) -> ForecastingMember:
    return fit_network(request.param, simulated)


@pytest.fixture
def real_weeks(world: World, shared_data) -> ModelRows:  # a fixture
    """The weekly sequences of LifeSnaps' people, landed first."""
    days = convert_lifesnaps(shared_data / "lifesnaps-daily")
    days.write_parquet(world.drop / "wearable_days.parquet")
    world.consent(days["person_id"].unique(), types="wearable")
    world.ingest(share=0.0)
    tables = {name: world.read(name) for name in LANDED}
    # They are seen late; what is asked is how the weeks look, not when they were known.
    views = compute_views(tables, SNAPSHOT)["weekly_sequence"]
    assert (views["event_timestamp"] == datetime(2022, 1, 17, tzinfo=UTC)).all()
    weeks = stack_sequences(views)
    return ModelRows(np.zeros((len(weeks), 1), np.float32), weeks)


def test_real_weeks_are_scored_with_their_gaps(
    member: ForecastingMember, real_weeks: ModelRows, capsys: pytest.CaptureFixture[str]
) -> None:
    weeks = real_weeks.sequences
    known = ~np.isnan(weeks)
    worn = known[:, :, [list(SEQUENCE_CHANNELS).index(name) for name in WEARABLE]]
    probabilities = member.predict(real_weeks)

    with capsys.disabled():
        low, middle, high = np.quantile(probabilities, [0, 0.5, 1])
        print(  # noqa: T201
            f"\nLifeSnaps, {member.family}: {len(weeks)} people, {worn.any(axis=2).mean():.0%} of "
            f"{SEQUENCE_WEEKS} weeks worn, probability {low:.3f} to {high:.3f}, median {middle:.3f}"
        )
    assert len(weeks) > 60
    assert 0.05 < worn.any(axis=2).mean() < 0.6  # two rounds of two months, half a year apart
    assert not known[:, :, : list(SEQUENCE_CHANNELS).index(WEARABLE[0])].any()
    assert np.isfinite(probabilities).all()
    assert ((probabilities > 0) & (probabilities < 1)).all()
    assert len(np.unique(probabilities.round(9))) > 60  # their weeks are told apart


def test_the_graph_gives_what_the_library_gives_on_real_weeks(
    member: ForecastingMember, real_weeks: ModelRows
) -> None:
    assert check_parity(member, member.export_graph(), real_weeks) < 1e-5


def test_a_week_that_is_taken_away_changes_the_score_and_breaks_nothing(
    member: ForecastingMember, real_weeks: ModelRows
) -> None:
    fewer = real_weeks.sequences.copy()
    fewer[:, -1] = np.nan
    without = member.predict(ModelRows(real_weeks.features, fewer))

    assert np.isfinite(without).all()
    assert not np.allclose(without, member.predict(real_weeks))
