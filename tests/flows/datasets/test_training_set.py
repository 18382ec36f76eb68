"""The training set: who is learnt from, calibrated on and judged on; no row lost or swapped."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from deltalake import write_deltalake

from feature_repo.catalogue import STORED_VIEWS, list_model_inputs
from feature_repo.feast_library import FeatureStore
from feature_repo.feature_tables import locate_feature_table
from feature_repo.online_store import REPOSITORY
from feature_repo.outcomes import HORIZON_DAYS
from feature_repo.pseudonyms import pseudonymise
from feature_repo.weekly_sequence import SEQUENCE_CHANNELS, SEQUENCE_WEEKS
from flows.datasets.labels import LABEL
from flows.datasets.loading import NotEnoughLabelsError, require_both_outcomes, require_enough
from flows.datasets.rows import number_individuals
from flows.datasets.training_set import (
    FUTURE_WEEKS,
    collect_futures,
    find_time_boundary,
    join_features,
    make_entity_frame,
    split_rows,
    stack_rows,
)
from flows.features.tables import merge_rows, read_bucket
from flows.lake.tables import scan_table
from tests.fixtures.landed_tables import SALT, make_table, midnight

START = date(2024, 1, 1)
PARTS = ("fitting", "stopping", "calibration", "held_out")


def draw_index_rows(people: int, first: int = 0) -> tuple[pl.Series, pl.Series]:
    """Return individuals and index dates: twelve each, spread over two years."""
    names = [pseudonymise(f"p{number}", SALT) for number in range(first, first + people)]
    dates = [START + timedelta(days=60 * n) for n in range(12)]
    return (
        pl.Series([name for name in names for _ in dates]),
        pl.Series(dates * people, dtype=pl.Date),
    )


def test_without_index_dates_there_is_nothing_to_split():
    with pytest.raises(ValueError, match="no index dates"):
        find_time_boundary(pl.Series([], dtype=pl.Date))


def test_no_individual_is_in_two_parts():
    individuals, dates = draw_index_rows(500)
    split = split_rows(individuals, dates)
    members = {part: set(individuals.filter(pl.Series(getattr(split, part)))) for part in PARTS}

    assert all(members.values())
    assert sum(map(len, members.values())) == len(set.union(*members.values()))


def test_nothing_is_learnt_of_the_period_that_is_judged():
    individuals, dates = draw_index_rows(500)
    split = split_rows(individuals, dates)
    boundary = dates.filter(pl.Series(split.held_out)).min()

    for part in ("fitting", "stopping", "calibration"):
        last_outcome = dates.filter(pl.Series(getattr(split, part))).max()
        assert last_outcome + timedelta(days=HORIZON_DAYS) < boundary


def test_parts_have_about_their_shares_of_individuals():
    individuals, dates = draw_index_rows(2000)
    split = split_rows(individuals, dates)
    shares = {
        part: individuals.filter(pl.Series(getattr(split, part))).n_unique() / 2000
        for part in PARTS
    }

    assert shares == pytest.approx(
        {"fitting": 0.42, "stopping": 0.08, "calibration": 0.2, "held_out": 0.3}, abs=0.03
    )


def test_an_individual_stays_in_its_part_when_others_join():
    individuals, dates = draw_index_rows(200)
    newer, newer_dates = draw_index_rows(300, first=200)
    alone = split_rows(individuals, dates)
    together = split_rows(pl.concat([individuals, newer]), pl.concat([dates, newer_dates]))

    for part in PARTS:
        assert np.array_equal(getattr(alone, part), getattr(together, part)[: len(individuals)])


def survey(person: str, answered_at: datetime, points: int, instrument: str = "PHQ-9") -> dict:
    items = {f"item_{n}": points for n in range(1, (9 if instrument == "PHQ-9" else 7) + 1)}
    return {
        "anonymized_id": person,
        "instrument": instrument,
        "answered_at": answered_at,
        "available_at": answered_at,
        **items,
    }


ONE, TWO = "0" * 32, "1" * 32
NOON = datetime(2025, 3, 1, 12, tzinfo=UTC)
LABELS = pl.DataFrame(
    {
        "anonymized_id": [TWO, ONE],
        "index_date": [NOON.date()] * 2,
        "index_time": [NOON] * 2,
        "adverse_course": [True, False],
    }
).cast({"index_time": pl.Datetime("us", "UTC")})


def test_the_index_answers_enter_as_request_data():
    surveys = make_table(
        "surveys",
        survey(ONE, NOON, 2),
        survey(ONE, NOON, 1, "GAD-7"),
        survey(ONE, NOON - timedelta(hours=1), 3),
        survey(TWO, NOON, 1),
    )
    first, second = make_entity_frame(LABELS, surveys).to_dicts()

    assert first["anonymized_id"] == ONE
    assert [first[f"answered_phq9_{n}"] for n in range(1, 10)] == [2] * 9
    assert [first[f"answered_gad7_{n}"] for n in range(1, 8)] == [1] * 7
    assert first["event_timestamp"] == NOON
    assert first["index_day"] == (NOON - datetime(1970, 1, 1, tzinfo=UTC)).days + 0.5
    assert second["answered_gad7_1"] is None
    assert second["adverse_course"] is True


def test_futures_are_the_totals_of_the_thirteen_weeks_after():
    after = {0: 3, 1: 0, 7: 1, 8: 2, 91: 3, 92: 1}  # days after the index -> points
    surveys = make_table(
        "surveys", *[survey(ONE, NOON + timedelta(days=days), n) for days, n in after.items()]
    )
    entities = pl.DataFrame({"anonymized_id": [TWO, ONE], "index_date": [NOON.date()] * 2})
    nobody, someone = collect_futures(entities, surveys)

    assert np.isnan(nobody).all()
    assert len(someone) == FUTURE_WEEKS
    assert someone[[0, 1, 12]].tolist() == [9, 18, 27]
    assert np.isnan(someone[2:12]).all()


def test_a_week_with_two_questionnaires_keeps_the_later_one():
    days = {9: 1, 12: 3}
    surveys = [survey(ONE, NOON + timedelta(days=after), n) for after, n in days.items()]
    entities = pl.DataFrame({"anonymized_id": [ONE], "index_date": [NOON.date()]})

    for order in (surveys, surveys[::-1]):
        assert collect_futures(entities, make_table("surveys", *order))[0, 1] == 27


def test_rows_become_arrays_in_the_catalogues_order():
    names = [column.name for column in list_model_inputs()]
    columns = {name: [float(n), None] for n, name in enumerate(names)}
    weeks = {
        f"weekly_{channel}": [[float(n)] * SEQUENCE_WEEKS, None]
        for n, channel in enumerate(SEQUENCE_CHANNELS)
    }
    rows = stack_rows(pl.DataFrame(columns | weeks))

    assert rows.features.dtype == rows.sequences.dtype == np.float32
    assert rows.features[0].tolist() == list(range(len(names)))
    assert rows.sequences.shape == (2, SEQUENCE_WEEKS, len(SEQUENCE_CHANNELS))
    assert rows.sequences[0, 7].tolist() == list(range(len(SEQUENCE_CHANNELS)))
    assert np.isnan(rows.features[1]).all()
    assert np.isnan(rows.sequences[1]).all()


@pytest.fixture
def store(in_trained_world) -> FeatureStore:
    return FeatureStore(repo_path=str(REPOSITORY))


def ask(*questions: tuple[str, datetime]) -> pl.DataFrame:
    """Return an entity frame of (individual, moment) without answers."""
    people, moments = zip(*questions, strict=True)
    labels = pl.DataFrame(
        {
            "anonymized_id": people,
            "index_date": [moment.date() for moment in moments],
            "index_time": pl.Series(moments, dtype=pl.Datetime("us", "UTC")),
            "adverse_course": [False] * len(people),
        }
    )
    return make_entity_frame(labels, make_table("surveys"))


def test_an_individual_nobody_knows_is_a_row_of_nulls(store):
    (row,) = join_features(store, ask(("f" * 32, midnight(2025, 7, 1)))).to_dicts()

    inputs = [column.name for column in list_model_inputs()]
    assert {row[name] for name in inputs if row[name] == row[name]} == {None}
    assert row["weekly_phq9"] is None


def test_expired_and_future_rows_are_null_and_still_rows(store, in_trained_world):
    person = scan_table(in_trained_world.lake_url, "people").select("anonymized_id").first()
    someone = person.collect().item()
    long_before, long_after = midnight(2020, 1, 1), midnight(2029, 1, 1)
    joined = join_features(store, ask((someone, long_before), (someone, long_after)))

    assert joined.height == 2
    assert joined["stored_phq9_total"].to_list() == [None, None]
    assert joined["weekly_phq9"].to_list() == [None, None]
    assert joined["sex_female"].null_count() == 0  # stands for all time


def test_as_many_rows_come_back_as_were_asked_for_in_the_order_they_were_asked(
    store, in_trained_world
):
    people = scan_table(in_trained_world.lake_url, "people").select("anonymized_id").collect()
    someone = people["anonymized_id"].sort(descending=True).head(150)
    questions = [
        (person, datetime(2025, month, 15, 10, tzinfo=UTC))
        for person in someone
        for month in (9, 3)
    ]
    asked = ask(*questions).sample(fraction=1, shuffle=True, seed=1)
    key = ["anonymized_id", "event_timestamp"]
    joined = join_features(store, asked)

    assert joined.select(key).equals(asked.select(key))
    assert joined["stored_phq9_total"].null_count() < joined.height / 2


def test_a_doubled_question_gets_two_answers(store):
    asked = ask(("e" * 32, NOON), ("e" * 32, NOON))
    assert join_features(store, asked).height == 2


def test_a_late_correction_does_not_reach_into_the_past(store, in_trained_world):
    (view,) = [view for view in STORED_VIEWS if view.name == "survey_history"]
    rows = read_bucket(view, 3).filter(pl.col("stored_phq9_total").is_not_null())
    row = rows.filter(pl.col("event_timestamp") < midnight(2025, 10, 1)).head(1)
    person, moment = row.select("anonymized_id", "event_timestamp").row(0)
    known_at = moment + timedelta(days=30)
    corrected = row.with_columns(
        pl.lit(99.0, dtype=pl.Float32).alias("stored_phq9_total"),
        pl.lit(known_at).cast(row.schema["created_timestamp"]).alias("created_timestamp"),
    )
    asked = ask((person, moment + timedelta(hours=12)))
    before = join_features(store, asked)["stored_phq9_total"].item()
    merge_rows(view, 3, corrected.drop("bucket"))
    try:
        assert join_features(store, asked)["stored_phq9_total"].item() == before != 99
    finally:
        restore_bucket(view, 3)


def restore_bucket(view, bucket: int) -> None:
    """Take the corrected row out again: the world is shared."""
    rows = read_bucket(view, bucket).filter(pl.col("stored_phq9_total").ne_missing(99))
    write_deltalake(
        locate_feature_table(view.name),
        rows.to_arrow(),
        mode="overwrite",
        predicate=f"bucket = {bucket}",
    )
    assert 99 not in read_bucket(view, bucket)["stored_phq9_total"].to_list()


def test_one_date_of_many_people_is_split_by_individual_alone():
    names = [pseudonymise(f"p{number}", SALT) for number in range(600)]
    individuals, dates = pl.Series(names), pl.Series([START] * 600, dtype=pl.Date)
    labels = np.arange(600) % 4 == 0
    split = split_rows(individuals, dates, labels)

    assert not split.by_time
    assert split.holds_both(labels)
    parts = [getattr(split, part).astype(int) for part in PARTS]
    assert (np.sum(parts, axis=0) == 1).all()  # every row is in one part


def test_years_of_data_are_split_in_time_where_both_outcomes_occur():
    individuals, dates = draw_index_rows(500)
    labels = np.arange(len(dates)) % 5 == 0

    assert split_rows(individuals, dates, labels).by_time
    assert not split_rows(individuals, dates, np.zeros(len(dates), bool)).by_time


def test_a_part_without_one_of_the_outcomes_is_named_with_its_numbers():
    people = [pseudonymise(f"p{number}", SALT) for number in range(55)]
    individuals, dates = pl.Series(people), pl.Series([START] * 55, dtype=pl.Date)
    labels = np.arange(55) % 2 == 0
    split = split_rows(individuals, dates, labels)

    with pytest.raises(NotEnoughLabelsError, match=r"part of the people has \d+ labelled index"):
        require_both_outcomes(split, labels)


def test_a_study_of_fifty_five_people_is_refused_in_one_sentence():
    entities = pl.DataFrame(
        {"anonymized_id": [f"p{n}" for n in range(55)], LABEL: [n % 2 == 0 for n in range(55)]}
    )
    with pytest.raises(NotEnoughLabelsError) as shortage:
        require_enough(entities)

    assert str(shortage.value).startswith("55 labelled index dates of 55 individuals")
    assert "at least 400 and 60 are needed" in str(shortage.value)


def test_individuals_are_numbered_in_the_order_of_their_names():
    named = pl.Series(["b", "a", "b", "c"])
    assert number_individuals(named).tolist() == [1, 0, 1, 2]
    assert number_individuals(named.head(0)).tolist() == []
