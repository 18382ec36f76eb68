import re
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, create_engine, event, inspect, select, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from infra.local.postgres import PostgresServer
from mlruns_config.ledger import LedgerEntry, append_to_ledger, ledger_metadata
from serving.database.access import ensure_application_login
from serving.database.migrate import (
    SCRIPTS,
    NotMigratedError,
    downgrade,
    upgrade,
    wait_for_revision,
)
from serving.database.tables import Base, ReviewItem
from serving.reviews.queue import OPEN, ORDER

APPEND_ONLY_TABLES = (
    *("audit_log", "audit_chain", "audit_checkpoints", "promotion_ledger"),
    *("erasures", "token_revocations"),
)
HEAD = "0022"


#: Rows as releases before outcomes had names left them.
OLD_PREDICTION = """
INSERT INTO predictions (id, anonymized_id, created_at, user_id, risk_score, probability,
    risk_band, confidence, needs_review, review_reasons, arm, answer, inputs)
VALUES (:id, :person, now(), 'dr.who', 68.5, 0.3, 'high', 0.5, true, '{score}', 'production',
    '{}', '{}')
"""
OLD_ITEM = """
INSERT INTO review_items (id, prediction_id, anonymized_id, created_at, priority, reasons,
    status, due_at)
VALUES (:id, :id, :person, now(), 'high', '{score,clinicians_word}', 'pending', now())
"""
OLD_LABEL = """
INSERT INTO prediction_labels (prediction_id, kind, anonymized_id, source, deteriorated,
    settled_at)
VALUES (:id, 'outcome', :person, 'observed', true, now())
"""


@pytest.fixture
def empty_database_url(postgres: PostgresServer) -> str:
    name = f"empty_{uuid.uuid4().hex[:8]}"
    postgres.create_databases([name])
    return postgres.url(name)


@pytest.fixture
def engine(database_url: str) -> Engine:
    engine = create_engine(database_url)
    yield engine
    engine.dispose()


def run_command(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "serving.database.migrate", *arguments]
    return subprocess.run(
        command, env={"DATABASE_URL": url}, capture_output=True, text=True, check=False
    )


def test_a_missing_database_url_ends_in_one_line_that_says_so():
    result = run_command("")

    assert result.returncode == 1
    assert result.stderr == (
        "database migration failed: DATABASE_URL must start with postgresql://\n"
    )


@pytest.mark.parametrize("revision", [None, "0006"])
def test_a_database_that_is_not_migrated_is_waited_for_and_named(empty_database_url, revision):
    if revision:
        upgrade(empty_database_url, revision)
    with pytest.raises(NotMigratedError, match=f"is {revision or 'empty'} and not at {HEAD}"):
        wait_for_revision(empty_database_url, patience=0)


def test_a_pod_waits_under_the_api_s_login_until_somebody_migrates(empty_database_url):
    """The login is there before the tables are: an upgrade of a cluster that runs."""
    upgrade(empty_database_url, "0006")
    engine = create_engine(empty_database_url)
    waiting = engine.url.set(username=f"api_{uuid.uuid4().hex[:8]}", password="waits")
    waiting = waiting.render_as_string(hide_password=False)
    engine.dispose()
    ensure_application_login(empty_database_url, waiting)
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(wait_for_revision, waiting, 60, 0.1)
        upgrade(empty_database_url)
        assert found.result() == HEAD


def test_a_revision_of_a_newer_version_keeps_no_rollback_waiting(empty_database_url):
    upgrade(empty_database_url)
    engine = create_engine(empty_database_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    assert wait_for_revision(empty_database_url, patience=0) == "9999"


def test_waiting_ends_in_one_line_that_says_for_what(empty_database_url):
    upgrade(empty_database_url, "0006")
    late = run_command(empty_database_url, "--wait", "--patience", "0")
    upgrade(empty_database_url)
    done = run_command(empty_database_url, "--wait", "--patience", "0")
    assert (late.returncode, done.returncode) == (1, 0)
    assert late.stderr == f"database migration failed: the database is 0006 and not at {HEAD}\n"
    assert done.stdout == f"database migration: at {HEAD}\n"


def test_an_unreachable_database_ends_in_one_line_without_the_password():
    result = run_command("postgresql://mhras:hidden@127.0.0.1:1/mhras")

    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "cannot reach the database" in result.stderr
    assert "hidden" not in result.stderr


def test_an_unknown_revision_is_refused(empty_database_url):
    result = run_command(empty_database_url, "9999")

    assert result.returncode == 1
    assert "9999" in result.stderr


def test_the_database_goes_up_down_and_up_again(empty_database_url):
    assert upgrade(empty_database_url) == (None, HEAD)
    assert downgrade(empty_database_url) == (HEAD, None)
    engine = create_engine(empty_database_url)
    assert inspect(engine).get_table_names() == ["alembic_version"]
    engine.dispose()
    assert upgrade(empty_database_url) == (None, HEAD)


def test_records_of_before_keep_their_meaning_up_and_down(empty_database_url):
    upgrade(empty_database_url, "0007")
    engine = create_engine(empty_database_url)
    number, person = uuid.uuid4(), "a" * 32
    with engine.begin() as connection:
        connection.execute(text(OLD_PREDICTION), {"id": number, "person": person})
        connection.execute(text(OLD_ITEM), {"id": number, "person": person})
        connection.execute(text(OLD_LABEL), {"id": number, "person": person})

    upgrade(empty_database_url)
    with engine.connect() as connection:
        outcome = connection.scalar(text("SELECT outcome FROM predictions"))
        label = connection.execute(text("SELECT kind, occurred FROM prediction_labels")).one()
        item = connection.execute(
            text("SELECT reasons, crisis_level, risk_score FROM review_items")
        ).one()
    downgrade(empty_database_url, "0007")
    with engine.connect() as connection:
        before = connection.execute(text("SELECT kind, deteriorated FROM prediction_labels")).one()
        reasons = connection.scalar(text("SELECT reasons FROM review_items"))
    engine.dispose()

    assert outcome == "worsening_v1"
    assert tuple(label) == ("worsening", True)
    assert tuple(item) == (["score", "clinician_override"], 3, 68.5)
    assert tuple(before) == ("outcome", True)
    assert reasons == ["score", "clinicians_word"]


def test_the_command_says_what_it_did(empty_database_url):
    assert run_command(empty_database_url).stdout == f"database migration: empty -> {HEAD}\n"
    assert run_command(empty_database_url).stdout == f"database migration: already at {HEAD}\n"
    down = run_command(empty_database_url, "--down")
    assert down.stdout == f"database migration: {HEAD} -> empty\n"


def test_pods_that_migrate_at_once_do_not_race(empty_database_url):
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(upgrade, [empty_database_url] * 4))

    assert sorted(outcomes, key=str) == [(HEAD, HEAD)] * 3 + [(None, HEAD)]


# SQLAlchemy reflects a check that is not valid for older rows with an option it does not know.
@pytest.mark.filterwarnings("ignore:Can't validate argument 'dialect_options'")
def test_the_migrated_database_equals_the_models(engine):
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "compare_type": True,
                "compare_server_default": True,
                # Alembic compares expressions by their text, which PostgreSQL writes otherwise.
                "include_object": lambda _, name, *__: name != "idx_review_items_urgency",
            },
        )
        differences = compare_metadata(context, [Base.metadata, ledger_metadata])

    assert differences == []


def test_the_queue_is_listed_by_an_index_and_not_sorted(engine):
    listed = select(ReviewItem).where(ReviewItem.status.in_(OPEN)).order_by(*ORDER).limit(20)
    with Session(engine) as session:
        session.execute(text("SET LOCAL enable_seqscan = off"))
        session.execute(text("SET LOCAL enable_sort = off"))
        compiled = listed.compile(engine, compile_kwargs={"literal_binds": True})
        plan = "\n".join(session.scalars(text(f"EXPLAIN {compiled}")))

    assert "idx_review_items_urgency" in plan


@pytest.mark.parametrize("table", APPEND_ONLY_TABLES)
@pytest.mark.parametrize(
    "change", ["UPDATE {} SET {} = NULL", "DELETE FROM {}", "TRUNCATE {} CASCADE"]
)
def test_a_written_record_can_be_neither_changed_nor_removed(engine, table, change):
    column = inspect(engine).get_columns(table)[1]["name"]
    with (
        pytest.raises(ProgrammingError, match="append-only"),
        engine.begin() as connection,
    ):
        connection.execute(text(change.format(table, column)))


def test_a_transition_is_written_to_the_ledger_with_its_gates(engine):
    entry = LedgerEntry(
        model="mhras-risk",
        version=3,
        from_stage="Staging",
        to_stage="Production",
        actor="training-flow",
        reason="all gates passed",
        result="promoted",
        gates={"auroc": {"value": 0.79, "passed": True}},
    )
    with engine.begin() as connection:
        row_id = append_to_ledger(connection, entry)

    with engine.connect() as connection:
        query = text("SELECT version, gates, result FROM promotion_ledger WHERE id = :id")
        row = connection.execute(query, {"id": row_id}).one()
    assert row == (3, {"auroc": {"value": 0.79, "passed": True}}, "promoted")


# Changes of a large table while it is used.


def add_prediction(engine: Engine, number: int) -> None:
    """Insert a row as the application did before revision 0006, waiting a second at most."""
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL lock_timeout = '1s'"))
        columns = inspect(connection).get_columns("predictions")
        needed = {
            one["name"]: make_value(str(one["type"]), number)
            for one in columns
            if not one["nullable"] and one["default"] is None
        }
        needed |= {"answer": f'{{"n": {number}}}', "inputs": '{"b": 1, "a": 2}'}
        names, places = ", ".join(needed), ", ".join(f":{name}" for name in needed)
        connection.execute(text(f"INSERT INTO predictions ({names}) VALUES ({places})"), needed)


def make_value(kind: str, number: int) -> object:
    if kind == "ARRAY":
        return []
    if kind == "UUID":
        return str(uuid.UUID(int=number))
    if kind.startswith(("VARCHAR", "TEXT")):
        return "x"
    if kind.startswith(("TIMESTAMP", "DATETIME")):
        return "2026-01-01T00:00:00Z"
    if kind.startswith("BOOL"):
        return False
    if kind.startswith(("JSON", "JSONB")):
        return "{}"
    return 0


@pytest.mark.parametrize("way", [("0005", upgrade, "0006"), ("0006", downgrade, "0005")])
def test_a_table_is_rewritten_while_others_read_and_add_to_it(empty_database_url, monkeypatch, way):
    begin, migrate, end = way
    monkeypatch.setattr("serving.database.online.BATCH", 3)
    upgrade(empty_database_url, begin)
    engine = create_engine(empty_database_url)
    for number in range(1, 11):
        add_prediction(engine, number)
    added: list[int] = []

    def add_beside(_conn, _cursor, statement, *_):
        """Between two batches another session adds a row and reads all of them."""
        if statement.startswith("UPDATE predictions SET answer") and len(added) < 4:
            added.append(100 + len(added))
            add_prediction(engine, added[-1])

    event.listen(Engine, "before_cursor_execute", add_beside)
    try:
        migrate(empty_database_url, end)
    finally:
        event.remove(Engine, "before_cursor_execute", add_beside)

    with engine.connect() as connection:
        kinds = connection.scalars(
            text(
                "SELECT data_type FROM information_schema.columns WHERE table_name = 'predictions'"
                " AND column_name IN ('answer', 'inputs') AND is_nullable = 'NO'"
            )
        ).all()
        rows = connection.execute(text("SELECT id, answer ->> 'n' FROM predictions")).all()
    engine.dispose()
    assert kinds == [{"0006": "json", "0005": "jsonb"}[end]] * 2
    assert len(added) == 4
    assert {(one.int, int(n)) for one, n in rows} == {(n, n) for n in (*range(1, 11), *added)}


def test_no_migration_rewrites_a_table_under_an_exclusive_lock():
    for path in (SCRIPTS / "versions").glob("*.py"):
        assert not re.search(r"ALTER \S+ TYPE|alter_column\([^)]*type_=", path.read_text()), path
