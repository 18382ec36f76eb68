"""Which backups are kept."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from infra.backup.retention import choose_kept

NIGHT = datetime(2025, 1, 1, 2, tzinfo=UTC)
moments = st.lists(
    st.datetimes(datetime(2023, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)), max_size=60
)


def prune_nightly(days: int) -> tuple[set[datetime], int]:
    kept: set[datetime] = set()
    peak = 0
    for day in range(days):
        kept = choose_kept({*kept, NIGHT + timedelta(days=day)})
        peak = max(peak, len(kept))
    return kept, peak


def test_nothing_is_kept_of_nothing() -> None:
    assert choose_kept([]) == set()


@given(moments)
def test_the_newest_stays_and_never_more_than_23(taken: list[datetime]) -> None:
    kept = choose_kept(taken)
    assert kept <= set(taken)
    assert len(kept) <= 23
    assert not taken or max(taken) in kept


@given(moments)
def test_pruning_again_removes_nothing_more(taken: list[datetime]) -> None:
    kept = choose_kept(taken)
    assert choose_kept(kept) == kept


@given(moments)
def test_the_newest_of_each_of_the_last_seven_days_stays(taken: list[datetime]) -> None:
    days = sorted({moment.date() for moment in taken}, reverse=True)[:7]
    for day in days:
        assert max(one for one in taken if one.date() == day) in choose_kept(taken)


def test_nine_hundred_nights_never_leave_more_than_twenty_one() -> None:
    # The last days, weeks and months overlap, how much depends on the day of the week.
    kept, peak = prune_nightly(900)
    assert (len(kept), peak) == (20, 21)


def test_pruning_every_night_keeps_what_one_pruning_at_the_end_keeps() -> None:
    for days in (1, 8, 40, 365, 900):
        kept, _ = prune_nightly(days)
        assert kept == choose_kept(NIGHT + timedelta(days=day) for day in range(days))


def test_after_an_outage_a_backup_takes_one_place_of_each_kind_and_no_more() -> None:
    before = {NIGHT + timedelta(days=day) for day in range(100)}
    kept = choose_kept(before)
    after = choose_kept({*kept, NIGHT + timedelta(days=400)})
    assert len(kept - after) <= 3
