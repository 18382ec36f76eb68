"""What grants and denials change in PostgreSQL.

A consent that was withdrawn stays withdrawn, however often a drop repeats it.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import polars as pl
from sqlalchemy import or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from feature_repo.consent_terms import DATA_TYPES, PURPOSES
from flows.lake.merging import MergeCounts
from serving.database.tables import Consent

#: Rows per statement; PostgreSQL allows 65,535 parameters.
ROWS_PER_STATEMENT = 5_000

#: A death denies like a denial, but is no record of the drop's consents.
GRANT, DENIAL, DEATH = "grant", "denial", "death"
DENYING = (DENIAL, DEATH)
COLUMNS = ["anonymized_id", "key_id", "data_types", "purposes", "granted_at", "expires_at"]


Rule = dict[str, Any]
Scope = tuple[set[str], set[str]]


def write_rows(session: Session, rows: pl.DataFrame, rules: dict[str, list[Rule]]) -> MergeCounts:
    """Write consents of table files, one per individual and granted_at; count what changed."""
    written = _write_narrowed(session, rows.select(COLUMNS), rules)
    inserted = sum(written.values())
    return MergeCounts(inserted, len(written) - inserted, rows.height - len(written))


def _write_narrowed(
    session: Session, rows: pl.DataFrame, rules: dict[str, list[Rule]]
) -> dict[tuple[str, datetime], bool]:
    """Write consents as far as rules leave them: what they end comes back with no drop."""
    written: dict[tuple[str, datetime], bool] = {}
    for part in rows.iter_slices(ROWS_PER_STATEMENT):
        values = part.to_dicts()
        for row in values:
            left = _apply_rules(row["granted_at"], row, rules.get(row["anonymized_id"], []))
            if all(left):
                row["data_types"], row["purposes"] = sorted(left[0]), sorted(left[1])
        written |= _upsert(session, values)
    return written


def _upsert(session: Session, rows: list[dict[str, Any]]) -> dict[tuple[str, datetime], bool]:
    """Write rows; return for each that was inserted or changed whether it is new."""
    statement = insert(Consent).values(rows)
    new = statement.excluded
    upsert = statement.on_conflict_do_update(
        index_elements=[Consent.anonymized_id, Consent.granted_at],
        set_={"data_types": new.data_types, "purposes": new.purposes, "expires_at": new.expires_at},
        where=or_(
            Consent.data_types != new.data_types,
            Consent.purposes != new.purposes,
            Consent.expires_at != new.expires_at,
        ),
    ).returning(Consent.anonymized_id, Consent.granted_at, text("(xmax = 0) AS is_new"))
    return {(row[0], row[1]): row[2] for row in session.execute(upsert)}


def write_grants(
    session: Session, grants: pl.DataFrame, rules: dict[str, list[Rule]]
) -> MergeCounts:
    """Write the grants of individuals of whom one is new; count the new ones."""
    fresh = grants.filter("is_new")
    some = grants.join(fresh.select("anonymized_id").unique(), on="anonymized_id", how="semi")
    rows = some.with_columns(read_list("data_types"), read_list("purposes"))
    written = _write_narrowed(session, rows.select(COLUMNS), rules)
    _keep_withdrawn(session, fresh, written)
    keys = list(fresh.select("anonymized_id", "granted_at").iter_rows())
    inserted = sum(written.get(key) is True for key in keys)
    corrected = sum(written.get(key) is False for key in keys)
    return MergeCounts(inserted, corrected, len(keys) - inserted - corrected)


def _keep_withdrawn(
    session: Session, fresh: pl.DataFrame, written: dict[tuple[str, datetime], bool]
) -> None:
    """Withdraw what an older version of this program knew by the start of its period.

    There the same consent may have been withdrawn since it was given: it stays so.
    """
    for row in fresh.filter(pl.col("began_at") < pl.col("stated_at")).iter_rows(named=True):
        if not written.get((row["anonymized_id"], row["granted_at"])):
            continue
        older = session.get(Consent, (row["anonymized_id"], row["began_at"]))
        if older and older.withdrawn_at and older.withdrawn_at >= row["stated_at"]:
            _withdraw(session, row["anonymized_id"], row["granted_at"], older.withdrawn_at)


def _withdraw(session: Session, person: str, granted_at: datetime, at: datetime) -> None:
    session.execute(
        update(Consent)
        .where(
            Consent.anonymized_id == person,
            Consent.granted_at == granted_at,
            Consent.withdrawn_at.is_(None),
        )
        .values(withdrawn_at=at)
    )


def withdraw_exactly(session: Session, gone: pl.DataFrame, now: datetime) -> None:
    """Withdraw the consents of statements that were replaced or deleted."""
    for person, granted_at in gone.iter_rows():
        _withdraw(session, person, granted_at, now)


def list_rules(standing: pl.DataFrame) -> dict[str, list[Rule]]:
    """Return by individual the statements that end others: denials, deaths, newer consents."""
    rules: dict[str, list[Rule]] = {}
    ends = pl.col("kind").is_in(DENYING) | pl.col("replaces")
    for row in standing.filter(ends).iter_rows(named=True):
        rules.setdefault(row["anonymized_id"], []).append(row)
    return rules


def end_denied(session: Session, rules: dict[str, list[Rule]], now: datetime) -> set[str]:
    """Take from consents what rules end; return whose changed."""
    changed: set[str] = set()
    people = sorted(rules)
    for first in range(0, len(people), ROWS_PER_STATEMENT):
        some = people[first : first + ROWS_PER_STATEMENT]
        statement = select(Consent).where(
            Consent.anonymized_id.in_(some), Consent.withdrawn_at.is_(None)
        )
        for consent in session.scalars(statement.execution_options(populate_existing=True)):
            if _narrow(consent, rules[consent.anonymized_id], now):
                changed.add(consent.anonymized_id)
    return changed


def _narrow(consent: Consent, rules: list[Rule], now: datetime) -> bool:
    """Take from a consent what the rules end; return whether anything was."""
    before = {"data_types": consent.data_types, "purposes": consent.purposes}
    types, purposes = _apply_rules(consent.granted_at, before, rules)
    if (types, purposes) == (set(consent.data_types), set(consent.purposes)):
        return False
    if types and purposes:
        consent.data_types, consent.purposes = sorted(types), sorted(purposes)
    else:
        consent.withdrawn_at = now
    return True


def _apply_rules(granted_at: datetime, consent: Mapping[str, Any], rules: list[Rule]) -> Scope:
    left = set(consent["data_types"]), set(consent["purposes"])
    for rule in rules:
        left = _apply_rule(granted_at, left, rule)
    return left


def _apply_rule(granted_at: datetime, left: Scope, rule: Rule) -> Scope:
    """Return what a denial, or a newer consent, leaves of a consent's data types and purposes."""
    types, purposes = left
    until = rule["granted_at"] or rule["ingested_at"]
    if rule["kind"] == GRANT:
        is_replaced = until > granted_at and types & set(rule["data_types"].split(";"))
        return (set(), set()) if is_replaced else left
    if until < granted_at or (rule["only_before"] and until <= granted_at):
        return left
    denied_types = set(filter(None, (rule["data_types"] or "").split(";"))) or set(DATA_TYPES)
    denied_purposes = set(filter(None, (rule["purposes"] or "").split(";"))) or set(PURPOSES)
    if denied_purposes >= purposes:
        return types - denied_types, purposes
    if denied_types >= types:
        return types, purposes - denied_purposes
    return types - denied_types, purposes


def read_list(name: str) -> pl.Expr:
    """Return a `;`-separated text as a list."""
    given = pl.when(pl.col(name) != "").then(pl.col(name).str.split(";"))
    return given.fill_null(pl.lit([], dtype=pl.List(pl.String))).alias(name)
