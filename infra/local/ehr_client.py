"""The demo EHR client of a local stack: its registration, and the tokens it signs.

``python -m infra.local.ehr_client URL`` prints a token for one call of that URL.
"""

import json
import time
import uuid
from pathlib import Path
from typing import Annotated

import jwt
import typer
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from jwt.algorithms import ECAlgorithm

from infra.local.secrets import write_private_file
from serving.fhir.clients import SCOPES

CLIENT_ID = "demo-ehr"
ISSUER = "https://demo-ehr.example"
TENANT = "demo"
KEY_ID = "demo-ehr-1"
KEY_FILE, CLIENTS_FILE = "ehr-demo.key", "ehr-clients.json"
TOKEN_SECONDS = 120


def register_demo_client(state: Path) -> Path:
    """Return the EHR_CLIENTS_FILE of a state with the demo client; its key is made once."""
    path = state / KEY_FILE
    if not path.exists():
        write_private_key(path)
    public = ECAlgorithm.to_jwk(read_private_key(path).public_key(), as_dict=True)
    client = {
        "id": CLIENT_ID,
        "issuer": ISSUER,
        "jwks": {"keys": [public | {"kid": KEY_ID}]},
        "scopes": list(SCOPES),
        "tenant": TENANT,
    }
    registered = state / CLIENTS_FILE
    registered.write_text(json.dumps([client], indent=1))
    return registered


def write_private_key(path: Path) -> None:
    """Write a new P-384 key as PEM, readable by its owner only."""
    key = ec.generate_private_key(ec.SECP384R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_private_file(path, pem.decode())


def read_private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Return the demo client's key; raises ValueError for one that is not on a curve."""
    key = load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{path.name}: is no key on an elliptic curve")
    return key


def make_demo_token(state: Path, url: str) -> str:
    """Return a JWT of the demo client for one call of `url`; it expires after two minutes."""
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "aud": url.partition("?")[0],
        "iat": now,
        "exp": now + TOKEN_SECONDS,
        "jti": uuid.uuid4().hex,
    }
    headers = {"typ": "JWT", "kid": KEY_ID}
    return jwt.encode(claims, read_private_key(state / KEY_FILE), "ES384", headers)


def print_token(
    url: Annotated[str, typer.Argument(help="The address to call, without its query.")],
    state: Annotated[Path, typer.Option(help="State folder of the stack.")] = Path(".mhras"),
) -> None:
    """Print a token of the demo EHR client; it is accepted once, for that address."""
    if not (state / KEY_FILE).exists():
        typer.echo(f"{state / KEY_FILE}: is missing; `make run` writes it", err=True)
        raise typer.Exit(2)
    typer.echo(make_demo_token(state, url))


if __name__ == "__main__":
    typer.run(print_token)
