"""Listens for HTTP, and stops so that each connection that was accepted gets its answer.

Uvicorn closes the listening socket and all idle connections at once: requests that lie in the
socket's queue, or in the buffer of a connection, are reset. Here new connections are refused
first, the queue is emptied, and idle connections are closed when they stay silent.
Decision: infra/adr/0080-a-stop-resets-no-request.md.
"""

import asyncio
import ctypes
import multiprocessing
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Sequence

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.supervisors import Multiprocess

#: Until when an open connection may send the request that it was opened for.
SILENCE_SECONDS = 1.0
#: The longest wait for workers to take what is in the queue of a listening socket.
QUEUE_SECONDS = 5.0
#: A handshake that was under way when new ones were refused has ended by then.
HANDSHAKE_SECONDS = 0.2

#: Of Linux's <asm-generic/socket.h>; Python does not name it.
SO_ATTACH_FILTER = 26
#: Classic BPF on the TCP header, each step as (code, jump if true, jump if false, operand): a
#: segment with the flag SYN, which opens a connection, is dropped; all others are kept.
_STEPS = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
_DROP_SYN = b"".join(struct.pack("=HBBI", *step) for step in _STEPS)


class LastingProtocol(HttpToolsProtocol):
    """HTTP on one connection; when the server stops, the next answer is the last one."""

    _ends = False

    def shutdown(self) -> None:
        """Close after the answer that is due, or after SILENCE_SECONDS without a request."""
        self._ends = True
        if self._is_silent():
            self.loop.call_later(SILENCE_SECONDS, self._close_if_silent)
        else:
            self.cycle.keep_alive = False

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self._ends and self.cycle is not None:
            self.cycle.keep_alive = False

    def _is_silent(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _close_if_silent(self) -> None:
        if self._is_silent():
            self.transport.close()


class LastingServer(uvicorn.Server):
    """One worker without a supervisor."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await asyncio.to_thread(refuse_connections, sockets or [])
        await super().shutdown(sockets)


class LastingWorkers(Multiprocess):
    """Several workers that share the listening sockets; stops them when the queue is empty."""

    def terminate_all(self) -> None:
        refuse_connections(self.sockets)
        super().terminate_all()


def serve_on(config: uvicorn.Config, sockets: list[socket.socket]) -> None:
    """Serve until SIGTERM or Ctrl-C; `config.workers` processes share the sockets."""
    if config.workers > 1:
        LastingWorkers(config, sockets).run()
    else:
        LastingServer(config).run(sockets)


def leave_interrupts_to_the_supervisor() -> None:
    """Ignore SIGINT in a worker of several.

    A terminal sends Ctrl-C to every process at once. A worker that stopped by itself would reset
    the connections that wait in the queue; the supervisor empties the queue before it stops any.
    """
    if multiprocessing.parent_process() is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; raises OSError where the address is taken or unknown."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.create_server((host, port), family=family)
    bound.set_inheritable(True)
    return bound


def refuse_connections(sockets: Sequence[socket.socket]) -> None:
    """Let no new connection begin, and wait until all that were made have been accepted.

    Where the operating system offers no filter, connections that arrive during the stop may
    still be reset.
    """
    for listening in sockets:
        _drop_new_connections(listening)
    time.sleep(HANDSHAKE_SECONDS)
    deadline = time.monotonic() + QUEUE_SECONDS
    while select.select(sockets, [], [], 0)[0] and time.monotonic() < deadline:
        time.sleep(0.01)


def _drop_new_connections(listening: socket.socket) -> None:
    if sys.platform != "linux":
        return
    program = ctypes.create_string_buffer(_DROP_SYN)
    option = struct.pack("@HP", len(_STEPS), ctypes.addressof(program))
    listening.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, option)
