"""Commands of the audit trail: `python -m serving.audit verify`, `public-key`, `receipt`."""

import json
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from sqlalchemy.exc import SQLAlchemyError

from serving.audit.checkpoints import CheckpointStore
from serving.audit.signing import Signer, make_key_ring
from serving.audit.verification import verify_trail
from serving.database.sessions import create_database_engine
from serving.settings import MissingSettingError, Settings, load_settings

app = typer.Typer(add_completion=False, help="The audit trail and what is signed.")


@app.command()
def verify() -> None:
    """Verify the whole trail against its chain and its checkpoints; exit code 1: tampered with."""
    settings = _load()
    engine = create_database_engine(settings.database_url.get_secret_value())
    store = CheckpointStore(settings.audit_checkpoint_url)
    try:
        verification = verify_trail(engine, store, make_key_ring(settings))
    except SQLAlchemyError as error:
        _fail(f"the database cannot be read: {type(error).__name__}")
    finally:
        engine.dispose()
    for finding in verification.findings:
        place = f"link {finding.position}" if finding.position else "the trail"
        row = f", row {finding.audit_id}" if finding.audit_id else ""
        sys.stdout.write(f"{finding.kind}: {place}{row}\n")
    verdict = (
        "intact" if verification.intact else f"NOT intact: {verification.finding_count} findings"
    )
    sys.stdout.write(
        f"audit trail {verdict}; {verification.rows} rows, {verification.checkpoints} checkpoints,"
        f" the newest at {verification.newest_checkpoint}\n"
    )
    raise typer.Exit(0 if verification.intact else 1)


@app.command("public-key")
def print_public_key(
    release: Annotated[bool, typer.Option("--release", help="The key of releases.")] = False,
) -> None:
    """Print the public key of checkpoints and receipts, or of releases (Ed25519, base64)."""
    settings = _load()
    seed = settings.release_signing_key if release else settings.audit_signing_key
    if seed is None:
        _fail("RELEASE_SIGNING_KEY is not set; only the flows that register releases hold it")
    sys.stdout.write(Signer(seed.get_secret_value()).public_key + "\n")


@app.command("receipt")
def check_receipt(path: Annotated[Path, typer.Argument(help="A receipt as JSON.")]) -> None:
    """Check the signature of an erasure's receipt; exit code 1: not ours, or changed."""
    try:
        receipt = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        _fail(f"{path} cannot be read: {type(error).__name__}")
    genuine = isinstance(receipt, dict) and make_key_ring(_load()).holds(receipt)
    sys.stdout.write(f"receipt {'genuine' if genuine else 'NOT genuine'}\n")
    raise typer.Exit(0 if genuine else 1)


def _load() -> Settings:
    try:
        return load_settings()
    except MissingSettingError as error:
        _fail(str(error))


def _fail(reason: str) -> NoReturn:
    sys.stderr.write(f"{reason}\n")
    raise typer.Exit(2)


if __name__ == "__main__":
    app()
