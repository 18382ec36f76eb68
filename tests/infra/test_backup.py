"""Backup, wipe, restore: PostgreSQL and an S3 server on loopback, both real."""

import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import polars as pl
import pytest
from click.testing import Result
from deltalake import DeltaTable
from moto.server import ThreadedMotoServer
from sqlalchemy import create_engine, text
from typer.testing import CliRunner

from infra.backup.__main__ import app
from infra.backup.databases import DatabaseError, dump_database
from infra.backup.encryption import encrypt_file, make_key_pair, parse_recipients
from infra.backup.retention import choose_kept
from infra.backup.store import BackupStore, name_moment
from infra.backup.taking import prune_backups
from infra.local.ports import choose_port
from infra.local.postgres import PostgresServer
from serving.audit import Event
from serving.audit.checkpoints import CheckpointStore
from serving.audit.sealer import seal_rows, sign_checkpoint
from serving.audit.signing import Signer
from serving.audit.trail import make_row
from serving.database.migrate import upgrade
from serving.database.sessions import open_session
from serving.database.tables import Consent
from serving.individuals.erasure import erase_individual
from tests.fixtures.api import SIGNING_KEY

STAYS, LEFT_BEFORE, LEAVES_AFTER = "1" * 32, "2" * 32, "3" * 32
SIGNER = Signer(SIGNING_KEY)


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    """The variables that lead to an S3 server with a bucket `backups`."""
    port = choose_port(15555)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port)
    server.start()
    variables = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    boto3.client(
        "s3", endpoint_url=variables["AWS_ENDPOINT_URL"], region_name="us-east-1",
        aws_access_key_id="test", aws_secret_access_key="test",
    ).create_bucket(Bucket="backups")  # fmt: skip
    yield variables
    server.stop()


@dataclass
class World:
    """What is backed up, and the command with its variables."""

    postgres: PostgresServer
    folder: Path
    variables: dict[str, str]
    bucket: str

    def run(self, *arguments: str, **changes: str) -> Result:
        return CliRunner().invoke(app, list(arguments), env=self.variables | changes)

    def succeed(self, *arguments: str, **changes: str) -> str:
        finished = self.run(*arguments, **changes)
        assert finished.exit_code == 0, finished.output
        return finished.output

    def client(self):
        return boto3.client(
            "s3",
            endpoint_url=self.variables["AWS_ENDPOINT_URL"],
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )


@pytest.fixture(scope="module")
def world(
    postgres: PostgresServer, s3: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> World:
    folder = tmp_path_factory.mktemp("backed-up")
    public, private = make_key_pair()
    (folder / "key.txt").write_text(f"# kept elsewhere\n{private}\n")
    databases = make_databases(postgres)
    fill_record(databases[0], folder / "audit")
    fill_trees(folder)
    prefix = f"backups/{uuid.uuid4().hex[:8]}"
    variables = s3 | {
        "BACKUP_URL": f"s3://{prefix}",
        "BACKUP_DATABASE_URLS": ",".join(databases),
        "BACKUP_MODELS_URL": str(folder / "models"),
        "BACKUP_LAKE_URL": str(folder / "lake"),
        "BACKUP_CHECKPOINTS_URL": str(folder / "audit"),
        "BACKUP_CONFIGURATION_URL": str(folder / "config"),
        "BACKUP_WITHOUT": "prefect,feast",
        "BACKUP_RECIPIENTS": public,
        "BACKUP_IDENTITY_FILE": str(folder / "key.txt"),
        "AUDIT_SIGNING_KEY": SIGNING_KEY,
    }
    made = World(postgres, folder, variables, prefix)
    print_of_run = made.succeed("run")
    assert "databases/mhras.dump.age" in print_of_run
    return made


def make_databases(postgres: PostgresServer) -> list[str]:
    """A server has one `mhras`: databases of this test are made anew under that name."""
    drop_databases(postgres)
    postgres.create_databases(["mhras", "mlflow"])
    urls = [postgres.url(name) for name in ("mhras", "mlflow")]
    upgrade(urls[0])
    engine = create_engine(urls[1])
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE runs (id bigint, name text, score float8)"))
        connection.execute(
            text("INSERT INTO runs SELECT n, 'run ' || n, n / 7.0 FROM generate_series(1, 500) n")
        )
    engine.dispose()
    return urls


def drop_databases(postgres: PostgresServer) -> None:
    engine = create_engine(postgres.url("postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for name in ("mhras", "mlflow"):
            connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
    engine.dispose()


def fill_record(url: str, checkpoints: Path) -> None:
    engine = create_engine(url)
    with open_session(engine) as session:
        for individual in (STAYS, LEFT_BEFORE, LEAVES_AFTER):
            session.add(make_consent(individual))
        for number in range(40):
            event = Event("test_event", f"act_{number}", STAYS, ["survey"], {"n": number})
            session.add(make_row("u", "clinician", "success", None, event))
    with open_session(engine) as session:
        erase_individual(session, LEFT_BEFORE, "u", SIGNER)
    seal_rows(engine)
    sign_checkpoint(engine, CheckpointStore(str(checkpoints)), SIGNER)
    engine.dispose()


def make_consent(individual: str) -> Consent:
    now = datetime.now(UTC)
    return Consent(
        anonymized_id=individual,
        granted_at=now - timedelta(days=1),
        data_types=["survey"],
        purposes=["screening"],
        expires_at=now + timedelta(days=300),
        key_id="k",
    )


def fill_trees(folder: Path) -> None:
    pl.DataFrame({"id": [1, 2, 3]}).write_delta(str(folder / "lake" / "surveys"))
    pl.DataFrame({"id": [4]}).write_delta(str(folder / "lake" / "surveys"), mode="append")
    (folder / "models" / "1").mkdir(parents=True)
    (folder / "models" / "1" / "model.onnx").write_bytes(os.urandom(50_000))
    (folder / "config").mkdir()
    (folder / "config" / "MHRAS_ENV").write_text("production")


def list_consenting(url: str) -> set[str]:
    engine = create_engine(url)
    with engine.connect() as connection:
        found = set(connection.scalars(text("SELECT anonymized_id FROM consent")))
    engine.dispose()
    return found


def list_objects(world: World) -> list[str]:
    bucket, _, prefix = world.bucket.partition("/")
    listed = world.client().list_objects_v2(Bucket=bucket, Prefix=prefix)
    return [one["Key"] for one in listed["Contents"]]


# Refusals first.


def test_a_wrong_key_opens_nothing(world: World, tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text(make_key_pair()[1])
    finished = world.run(
        "verify",
        *("--scratch-url", world.postgres.url("postgres")),
        BACKUP_IDENTITY_FILE=str(tmp_path / "other.txt"),
    )
    assert finished.exit_code == 1
    assert "wrong key" in finished.output


@pytest.mark.parametrize("name", ["databases/mhras.dump.age", "trees/lake.index.age"])
@pytest.mark.parametrize("hash_too", [False, True])
def test_a_flipped_byte_is_refused_even_by_an_intruder_who_mends_the_hash(
    world: World, name: str, hash_too: bool
) -> None:
    client, bucket = world.client(), "backups"
    key = next(one for one in list_objects(world) if one.endswith(name))
    manifest_key = f"{key.removesuffix(name)}manifest.json"
    whole = client.get_object(Bucket=bucket, Key=key)["Body"].read()
    manifest = client.get_object(Bucket=bucket, Key=manifest_key)["Body"].read()
    flipped = bytearray(whole)
    flipped[len(flipped) // 2] ^= 1
    try:
        client.put_object(Bucket=bucket, Key=key, Body=bytes(flipped))
        if hash_too:
            client.put_object(
                Bucket=bucket, Key=manifest_key, Body=mend_hash(manifest, name, bytes(flipped))
            )
        finished = world.run("verify", "--scratch-url", world.postgres.url("postgres"))
    finally:
        client.put_object(Bucket=bucket, Key=key, Body=whole)
        client.put_object(Bucket=bucket, Key=manifest_key, Body=manifest)

    assert finished.exit_code == 1
    assert "changed" in finished.output


def mend_hash(manifest: bytes, name: str, content: bytes) -> bytes:
    import hashlib

    stated = json.loads(manifest)
    for group in ("databases", "trees"):
        for kept in stated[group].values():
            if kept["file"] == name:
                kept["sha256"] = hashlib.sha256(content).hexdigest()
    return json.dumps(stated).encode()


def test_a_dump_that_lost_a_row_is_told_from_a_whole_one(world: World) -> None:
    client = world.client()
    key = next(one for one in list_objects(world) if one.endswith("manifest.json"))
    manifest = client.get_object(Bucket="backups", Key=key)["Body"].read()
    stated = json.loads(manifest)
    stated["databases"]["mlflow"]["tables"]["runs"]["rows"] += 1
    try:
        client.put_object(Bucket="backups", Key=key, Body=json.dumps(stated).encode())
        finished = world.run("verify", "--scratch-url", world.postgres.url("postgres"))
    finally:
        client.put_object(Bucket="backups", Key=key, Body=manifest)
    assert finished.exit_code == 1
    assert "database mlflow: runs differ" in finished.output


def test_a_restore_never_overwrites(world: World) -> None:
    finished = world.run("restore", "--yes")
    assert finished.exit_code == 1
    assert "not empty" in finished.output
    assert list_consenting(world.postgres.url("mhras")) == {STAYS, LEAVES_AFTER}


def test_a_restore_asks_for_a_yes(world: World) -> None:
    finished = world.run("restore")
    assert finished.exit_code == 1
    assert "--yes" in finished.output


def test_a_backup_without_a_recipient_is_none(world: World) -> None:
    finished = world.run("run", BACKUP_RECIPIENTS="")
    assert finished.exit_code == 1
    assert "keygen" in finished.output


def test_a_run_without_settings_names_the_first_of_them() -> None:
    clean = dict.fromkeys(("BACKUP_URL", "BACKUP_DATABASE_URLS", "BACKUP_RECIPIENTS"))
    finished = CliRunner().invoke(app, ["run"], env=clean)
    assert finished.exit_code == 2
    assert finished.output == "BACKUP_URL: Field required\n"


def test_a_run_that_would_leave_data_behind_names_every_variable(tmp_path: Path) -> None:
    clean = dict.fromkeys(f"BACKUP_{name}_URL" for name in ("MODELS", "LAKE", "CHECKPOINTS"))
    given = {"BACKUP_URL": str(tmp_path / "store"), "BACKUP_RECIPIENTS": make_key_pair()[0]}
    given["BACKUP_DATABASE_URLS"] = "postgresql://u:secret@127.0.0.1:1/mhras"
    finished = CliRunner().invoke(app, ["run"], env=clean | given)
    assert finished.exit_code == 2
    for name in ("BACKUP_MODELS_URL", "BACKUP_LAKE_URL", "BACKUP_CHECKPOINTS_URL"):
        assert f"  {name}: folder or s3:// prefix of" in finished.output
    assert "BACKUP_DATABASE_URLS: PostgreSQL URLs of feast, mlflow, prefect" in finished.output
    assert "secret" not in finished.output
    assert not (tmp_path / "store").exists()


def test_a_tree_without_a_file_is_a_wrong_url_and_no_backup(world: World, tmp_path: Path) -> None:
    before = world.succeed("list")
    finished = world.run("run", BACKUP_LAKE_URL=str(tmp_path / "mistyped"))
    assert finished.exit_code == 1
    assert "lake has no file" in finished.output
    assert world.succeed("list") == before


def test_a_file_exchanged_by_one_encrypted_to_the_same_key_is_refused(
    world: World, tmp_path: Path
) -> None:
    """The public key is no secret: whoever writes the bucket can encrypt to it."""
    client = world.client()
    (tmp_path / "plain").write_bytes(b"another model")
    encrypt_file(
        tmp_path / "plain",
        tmp_path / "forged.age",
        parse_recipients(world.variables["BACKUP_RECIPIENTS"]),
    )
    key = next(one for one in list_objects(world) if "/objects/" in one)
    whole = client.get_object(Bucket="backups", Key=key)["Body"].read()
    try:
        client.put_object(Bucket="backups", Key=key, Body=(tmp_path / "forged.age").read_bytes())
        finished = world.run("verify", "--scratch-url", world.postgres.url("postgres"))
    finally:
        client.put_object(Bucket="backups", Key=key, Body=whole)
    assert finished.exit_code == 1
    assert "is another file than was backed up" in finished.output


def test_a_backup_tells_the_node_exporter_when_it_ended(world: World, tmp_path: Path) -> None:
    metric = tmp_path / "mhras_backup.prom"
    failed = world.run("run", "--textfile", str(metric), BACKUP_RECIPIENTS="")
    assert failed.exit_code == 1
    assert not metric.exists()
    world.succeed("run", "--textfile", str(metric))
    line = metric.read_text().splitlines()[-1].split(" ")
    assert line[0] == "mhras_backup_last_success_timestamp_seconds"
    assert abs(float(line[1]) - datetime.now(UTC).timestamp()) < 600


def test_a_client_without_tls_is_named_before_it_fails(world: World, tmp_path: Path) -> None:
    """The wheel's pg_dump is one; a cluster's URLs ask for a verified server."""
    url = world.variables["BACKUP_DATABASE_URLS"].partition(",")[0]
    with pytest.raises(DatabaseError, match="BACKUP_POSTGRES_BIN"):
        dump_database(f"{url}?sslmode=verify-ca", tmp_path / "dump", "a-snapshot", None)


def test_nothing_that_is_stored_can_be_read_without_the_key(world: World) -> None:
    for key in list_objects(world):
        content = world.client().get_object(Bucket="backups", Key=key)["Body"].read()
        assert STAYS.encode() not in content
        assert key.endswith("manifest.json") or content.startswith(b"age-encryption.org/v1")


def test_a_whole_backup_is_verified_with_its_audit_trail(world: World) -> None:
    shown = world.succeed("verify", "--scratch-url", world.postgres.url("postgres"))
    assert "audit trail intact" in shown
    assert "mlflow: 1 tables, 500 rows, hashes equal" in shown
    assert "is whole" in shown


def test_a_backup_that_broke_off_is_no_backup(world: World) -> None:
    bucket, _, prefix = world.bucket.partition("/")
    before = world.succeed("list")
    world.client().put_object(
        Bucket=bucket, Key=f"{prefix}/20990101T020000Z/databases/mhras.dump.age", Body=b"half"
    )
    assert world.succeed("list") == before


def test_after_a_wipe_all_is_as_it_was_and_the_erased_stay_erased(world: World) -> None:
    """Last: it wipes what the tests above look at."""
    url = world.postgres.url("mhras")
    engine = create_engine(url)
    with open_session(engine) as session:
        receipt = erase_individual(session, LEAVES_AFTER, "u", SIGNER).erasure.receipt
    engine.dispose()
    receipts = world.folder / "receipts.json"
    receipts.write_text(json.dumps([receipt]))
    drop_databases(world.postgres)
    world.postgres.create_databases(["mhras", "mlflow"])
    targets = {
        "BACKUP_MODELS_URL": str(world.folder / "new" / "models"),
        "BACKUP_LAKE_URL": "s3://backups/new-lake",
    }
    forged = world.folder / "forged.json"
    forged.write_text(json.dumps([receipt | {"anonymized_id": STAYS}]))

    shown = world.succeed("restore", "--yes", "--erasures", str(receipts), **targets)

    assert "erasures: 1 carried out, 6 stores queued" in shown
    assert list_consenting(url) == {STAYS}
    model = Path("models") / "1" / "model.onnx"
    assert (world.folder / "new" / model).read_bytes() == (world.folder / model).read_bytes()
    table = DeltaTable("s3://backups/new-lake/surveys", storage_options=delta_options(world))
    assert table.version() == 1
    assert sorted(table.to_pyarrow_table()["id"].to_pylist()) == [1, 2, 3, 4]
    assert_application_may_write(url)


def delta_options(world: World) -> dict[str, str]:
    return {
        name.lower(): world.variables[name]
        for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    } | {"aws_allow_http": "true", "aws_region": "us-east-1"}


def assert_application_may_write(url: str) -> None:
    engine = create_engine(url)
    query = "SELECT has_column_privilege('mhras_app', 'audit_log', 'created_at', 'INSERT')"
    with engine.connect() as connection:
        assert connection.scalar(text(query))
    engine.dispose()


def test_old_backups_are_pruned_and_what_is_not_ours_stays(tmp_path: Path) -> None:
    store = BackupStore(str(tmp_path))
    moments = [datetime(2026, 1, 1, 2, tzinfo=UTC) + timedelta(days=day) for day in range(40)]
    for moment in moments:
        (tmp_path / name_moment(moment)).mkdir()
        store.write_manifest(moment, {})
    (tmp_path / "notes").mkdir()

    removed = prune_backups(store)

    assert set(store.list_moments()) == choose_kept(moments)
    assert len(removed) == 40 - len(choose_kept(moments))
    assert (tmp_path / "notes").is_dir()
