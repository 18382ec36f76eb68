"""The consent flow: warns a week before a consent ends, and clears away when it has.

Use stops at that instant: screening and training read the consents in force. This flow
makes it known, once, and takes what is no longer allowed out of the online store.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from sqlalchemy.orm import Session

from feature_repo.catalogue import TABLED_VIEWS
from feature_repo.consent_terms import DATA_TYPES, SCREENING
from feature_repo.postgres_reader import erase_online_rows
from flows.runtime.database import open_database
from flows.runtime.notifications import NOTIFICATION_HOOKS, notify
from flows.runtime.retries import IO_RETRIES
from serving.consent.in_force import read_allowed
from serving.consent.notices import (
    EXPIRED,
    EXPIRING,
    find_lost_types,
    find_unnoticed,
    give_notices,
)
from serving.database.clock import read_database_time
from serving.database.sessions import open_session
from serving.database.tables import Consent
from serving.errors import FlowActor

ACTOR = FlowActor("consent expiry flow")
#: Consents handled in one transaction.
PAGE_SIZE = 200


@dataclass(frozen=True)
class ExpiryCounts:
    """Notices of this run, and individuals with rows removed from the online store."""

    expiring: int
    expired: int
    cleared: int

    def __bool__(self) -> bool:
        """Whether there was anything to do: quiet hours send no notification."""
        return bool(self.expiring or self.expired or self.cleared)


@flow(name="consent-expiry", timeout_seconds=3600, **NOTIFICATION_HOOKS)
def watch_consents() -> ExpiryCounts:
    """Warn of consents that end within seven days; record and clear away those that have ended.

    Each consent has one warning and one end, however often the flow runs. Notifications contain
    counts only; GET /consents lists the individuals to contact.
    """
    expiring = warn()
    expired, cleared = end()
    counts = ExpiryCounts(expiring, expired, cleared)
    create_table_artifact([asdict(counts)], key="consent-expiry", description="Notices of this run")
    get_run_logger().info("%s", counts)
    if counts:
        notify(
            f"{expiring} consents end within 7 days, {expired} have ended; "
            "GET /consents lists the individuals to contact"
        )
    return counts


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def warn() -> int:
    """Give notice of every consent that ends within a week; return how many."""
    return _notice_all(EXPIRING, lambda _session, _consents: None)


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def end() -> tuple[int, int]:
    """Clear away what ended consents allowed, then give notice; return notices and individuals.

    In this order: a consent with a notice has been cleared away, also when a run is cut off.
    """
    cleared: set[str] = set()

    def clear(session: Session, consents: Sequence[Consent]) -> None:
        lost = find_lost_types(session, consents)
        clear_online(lost, read_allowed(session, list(lost), SCREENING))
        cleared.update(lost)

    noticed = _notice_all(EXPIRED, clear)
    return noticed, len(cleared)


def _notice_all(kind: str, before: Callable[[Session, Sequence[Consent]], None]) -> int:
    """Go through the unnoticed consents a page at a time; return how many there were."""
    noticed = 0
    with open_database() as engine:
        while True:
            with open_session(engine) as session:
                now = read_database_time(session)
                consents = find_unnoticed(session, kind, now, PAGE_SIZE)
                before(session, consents)
                give_notices(session, kind, consents, ACTOR, now)
            noticed += len(consents)
            if len(consents) < PAGE_SIZE:
                return noticed


def clear_online(
    lost: Mapping[str, frozenset[str]], left: Mapping[str, frozenset[str]]
) -> dict[str, int]:
    """Take views of lost data types offline, or every view where no data type is left.

    The weekly sequence is of several types: serving blanks the channels without consent, and the
    next features leave them out.
    """
    removed: dict[str, int] = {}
    gone = [person for person in lost if not left[person]]
    if gone:
        removed |= erase_online_rows([view.name for view in TABLED_VIEWS], *gone)
    for data_type in DATA_TYPES:
        some = [person for person, kinds in lost.items() if left[person] and data_type in kinds]
        views = [view.name for view in TABLED_VIEWS if view.tags.get("data_type") == data_type]
        if some and views:
            for name, rows in erase_online_rows(views, *some).items():
                removed[name] = removed.get(name, 0) + rows
    return removed
