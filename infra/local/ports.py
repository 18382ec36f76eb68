"""Free ports on loopback, the usual ones first."""

import fcntl
import os
import socket
import tempfile
from pathlib import Path

#: Above it ports are handed out for outgoing connections and clash now and then.
FIRST_EPHEMERAL_PORT = 32768

#: Ports that this process has chosen, each with the descriptor of the locked file that reserves it.
_reserved: dict[int, int] = {}


def choose_port(usual: int, taken: frozenset[int] = frozenset()) -> int:
    """Return `usual` if it is free, else the next free port above it.

    The port is reserved until this process ends: another process that chooses at the same time gets
    another one, although no server is listening yet. Raises OSError where none is free.
    """
    for port in range(usual, FIRST_EPHEMERAL_PORT):
        if port not in taken and is_free(port) and reserve(port):
            return port
    raise OSError(f"no free port from {usual} to {FIRST_EPHEMERAL_PORT}")


def is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def reserve(port: int) -> bool:
    """Return True if no other process of this user has chosen the port."""
    if port in _reserved:
        return True
    folder = Path(tempfile.gettempdir()) / f"mhras-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    file = os.open(folder / str(port), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return False
    _reserved[port] = file
    return True
