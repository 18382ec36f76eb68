"""Free ports on loopback, the usual ones first."""

import socket

#: Above it ports are handed out for outgoing connections and clash now and then.
FIRST_EPHEMERAL_PORT = 32768


def choose_port(usual: int, taken: frozenset[int] = frozenset()) -> int:
    """Return `usual` if it is free, else the next free port above it."""
    for port in range(usual, FIRST_EPHEMERAL_PORT):
        if port not in taken and is_free(port):
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
