"""What a CDS Hooks call costs at 8 connections: signed token, consent, screening, card, audit.

CDS Hooks asks for an answer within 500 ms. Beside it, in the same run, `POST /screen` with the same
answers: the difference is the token's signature, its single use, and the card. State is that of
`bench_serving`.
"""

import json
import random
import time
import uuid
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography.hazmat.primitives.asymmetric import ec
from rich.console import Console
from sqlalchemy import create_engine, text

from feature_repo.pseudonyms import pseudonymise
from infra.local.stack import LocalStack, start_stack
from infra.local.tour import has_release, make_release
from tests.fixtures.ehr import HOOK, EhrClientKeys, make_hook, make_response
from tests.load.bench_serving import (
    PEOPLE,
    STATE,
    Measured,
    measure,
    print_head,
    print_row,
    run_api,
    stop_what_is_not_measured,
    write_requests,
)

PATIENTS = 2000
REQUESTS = 6000
#: A token counts once, so a warm-up has hooks of its own.
WARM_UP_REQUESTS = 3000
CONNECTIONS = 8
LIMIT_MS = 500
GRANT = text(
    "INSERT INTO consent (anonymized_id, granted_at, data_types, purposes, expires_at, key_id) "
    "VALUES (:person, now() - interval '1 day', ARRAY['survey', 'wearable', 'emr'], "
    "ARRAY['screening'], now() + interval '1 year', 'bench') ON CONFLICT DO NOTHING"
)


def main() -> None:
    console = Console(highlight=False)
    stack = start_stack(STATE, lambda name, what: console.print(f"[dim]{name} {what}[/]"))
    try:
        if not has_release(stack):
            make_release(stack, {"drop": None, "people": PEOPLE}, console)
        stop_what_is_not_measured(stack)
        with TemporaryDirectory() as folder:
            report(stack, Path(folder))
    finally:
        stack.stop()


def report(stack: LocalStack, folder: Path) -> None:
    client = EhrClientKeys("bench", ec.generate_private_key(ec.SECP384R1()), "ES384")
    registered = folder / "clients.json"
    registered.write_text(json.dumps([client.register()]))
    stack.environment |= {"EHR_CLIENTS_FILE": str(registered), "PUBLIC_URL": "http://testserver"}
    patients = [f"bench-{number}" for number in range(PATIENTS)]
    people = grant_consents(stack, patients)
    hooks = write_hooks(client, patients, REQUESTS, folder / "hooks.jsonl")
    warm_up = write_hooks(client, patients, WARM_UP_REQUESTS, folder / "warm-up.jsonl")
    screenings = write_requests(stack, people, folder / "screenings.jsonl")
    print(f"\nPOST {HOOK}, {CONNECTIONS} connections, 1 worker\n")
    print_head()
    with run_api(stack, 1) as (api, port):
        hook = measure(api, port, CONNECTIONS, hooks, warm_up=warm_up)
        print_row("hook", CONNECTIONS, hook)
        plain = measure(api, port, CONNECTIONS, screenings)
        print_row("/screen", CONNECTIONS, plain)
    print_comparison(hook, plain)


def print_comparison(hook: Measured, plain: Measured) -> None:
    print(f"\nCPU of a hook: {hook.cpu / plain.cpu:.1f} x that of /screen")
    print(f"p95 of a hook: {hook.p95 / LIMIT_MS:.2f} of the {LIMIT_MS} ms that CDS Hooks asks for")


def grant_consents(stack: LocalStack, patients: list[str]) -> list[str]:
    salt = stack.environment["ANONYMIZATION_SALT"]
    people = [pseudonymise(patient, salt) for patient in patients]
    engine = create_engine(stack.postgres.url("mhras"))
    with engine.begin() as connection:
        connection.execute(GRANT, [{"person": person} for person in people])
    engine.dispose()
    return people


def write_hooks(client: EhrClientKeys, patients: list[str], count: int, path: Path) -> Path:
    """Write hooks of different answers, each with a token of its own, which counts once."""
    draw, moment = random.Random(7), int(time.time())
    lines = []
    for number in range(count):
        patient = patients[number % len(patients)]
        answers = [draw.choice((0, 0, 1, 1, 2, 3)) for _ in range(8)]
        response = make_response(patient, [*answers, 0])
        token = client.make_token(HOOK, exp=moment + 300, jti=uuid.uuid4().hex)
        body = make_hook(patient, response)
        body["context"]["userId"] = f"Practitioner/{number % 1500}"
        headers = {"Authorization": f"Bearer {token}"}
        lines.append(json.dumps({"path": HOOK, "headers": headers, "body": body}))
    path.write_text("\n".join(lines))
    return path


if __name__ == "__main__":
    main()
