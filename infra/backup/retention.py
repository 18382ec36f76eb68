"""Which backups are kept: the deployment guide's 7 daily, 4 weekly and 12 monthly ones."""

from collections.abc import Callable, Hashable, Iterable
from datetime import datetime
from typing import Any

DAILY, WEEKLY, MONTHLY = 7, 4, 12

_PERIODS: tuple[tuple[Callable[[datetime], Hashable], int], ...] = (
    (lambda moment: moment.date(), DAILY),
    (lambda moment: moment.isocalendar()[:2], WEEKLY),
    (lambda moment: (moment.year, moment.month), MONTHLY),
)


def choose_kept(taken_at: Iterable[datetime]) -> set[datetime]:
    """Return the moments whose backups stay: the newest of each of the last days, weeks, months.

    Periods without a backup count for nothing, so an outage of the backups removes none. At most
    23 stay; the newest always does. Pruning every day keeps what one pruning at the end keeps.
    """
    newest_first = sorted(set(taken_at), reverse=True)
    kept: set[datetime] = set()
    for name_period, count in _PERIODS:
        newest: dict[Any, datetime] = {}
        for moment in newest_first:
            newest.setdefault(name_period(moment), moment)
        kept |= set(list(newest.values())[:count])
    return kept
