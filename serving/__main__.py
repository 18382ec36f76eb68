"""Run the API: `python -m serving [--port 8000] [--workers 1]`."""

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
import uvicorn

from monitoring.metrics import MULTIPROCESS_FOLDER
from serving.http.listening import LastingProtocol, bind, serve_on
from serving.http.rate_limit import SHARED_FILE
from serving.settings import MissingSettingError, get_settings

#: Seconds that requests under way get when the server is told to stop.
GRACE_SECONDS = 20


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    workers: Annotated[int, typer.Option(min=1, max=64)] = 1,
) -> None:
    """Answer screenings until SIGTERM or Ctrl-C, then finish what is under way."""
    try:
        metrics_port = get_settings().metrics_port
    except MissingSettingError as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(2) from None
    with TemporaryDirectory(prefix="mhras-metrics-") as folder:
        if workers > 1:
            # Before a worker imports prometheus_client, which reads it once.
            os.environ.setdefault(MULTIPROCESS_FOLDER, folder)
            os.environ.setdefault(SHARED_FILE, make_file(Path(folder) / "rate-limit"))
        run_server(host, port, workers, metrics_port)


def make_file(path: Path) -> str:
    path.touch()
    return str(path)


def run_server(host: str, port: int, workers: int, metrics_port: int | None = None) -> None:
    config = uvicorn.Config(
        "serving.app:start_worker",
        factory=True,
        http=LastingProtocol,
        workers=workers,
        log_config=None,
        access_log=False,
        server_header=False,
        # Nothing here asks for the caller's address.
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    ports = [port] if metrics_port is None else [port, metrics_port]
    serve_on(config, [bind(host, listened) for listened in ports])


if __name__ == "__main__":
    typer.run(serve)
