"""The hash of a row: every column counts, and nothing but the columns."""

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from serving.audit.chain import COLUMNS, GENESIS, ROW_COLUMNS, hash_row
from serving.database.tables import AuditRow

#: Documents take a while to draw on a machine that does other work.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

texts = st.text(max_size=12)
hashes = st.binary(min_size=32, max_size=32)
instants = st.datetimes(timezones=st.just(UTC), min_value=datetime(2000, 1, 1))
details = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
rows = st.fixed_dictionaries(
    {
        "id": st.integers(min_value=1),
        "created_at": instants,
        "event_type": texts,
        "user_id": texts,
        "user_role": texts,
        "anonymized_id": st.none() | texts,
        "data_types": st.lists(texts, max_size=3),
        "action": texts,
        "result": texts,
        "request_id": st.none() | texts,
        "details": st.dictionaries(texts, details, max_size=3),
    }
)


def test_every_column_of_the_table_is_hashed():
    assert set(ROW_COLUMNS) == set(AuditRow.__table__.columns.keys())


@given(rows, rows, st.sampled_from(COLUMNS))
@patient
def test_a_changed_column_changes_the_hash(row, other, column):
    assume(row[column] != other[column])

    assert hash_row(GENESIS, row | {column: other[column]}) != hash_row(GENESIS, row)


@given(rows, hashes, hashes)
@patient
def test_the_previous_link_counts(row, first, second):
    assume(first != second)

    assert hash_row(first, row) != hash_row(second, row)


@given(rows, hashes)
@patient
def test_a_hash_is_the_same_whatever_the_order_of_columns_and_the_time_zone(row, previous):
    elsewhere = row["created_at"].astimezone(timezone(timedelta(hours=5, minutes=30)))
    same = dict(reversed(row.items())) | {"created_at": elsewhere}

    assert hash_row(previous, same) == hash_row(previous, row)


@given(st.lists(rows, min_size=2, max_size=2), hashes)
@patient
def test_two_rows_in_another_order_give_another_head(pair, previous):
    first, second = pair
    assume(first != second)

    assert hash_row(hash_row(previous, first), second) != hash_row(
        hash_row(previous, second), first
    )


def test_the_form_is_pinned():
    """A chain sealed by an older version must verify for ever."""
    row = dict.fromkeys(COLUMNS) | {
        "id": 7,
        "created_at": datetime(2026, 3, 1, 12, tzinfo=UTC),
        "data_types": ["emr", "survey"],
        "details": {"risk_score": 68.5, "prediction_id": "ü"},
    }

    assert hash_row(GENESIS, row).hex() == (
        "025a57d14154995c02f469bb8d182bdad551baabc681a95347a18f00c46429a5"
    )


def test_the_network_of_a_caller_is_hashed_and_rows_without_one_keep_their_hash():
    row = dict.fromkeys(COLUMNS)
    without = hash_row(GENESIS, row)

    assert hash_row(GENESIS, row | {"network": None}) == without
    first, second = (hash_row(GENESIS, row | {"network": one}) for one in ("10.0.0.1", "10.0.0.2"))
    assert len({without, first, second}) == 3
