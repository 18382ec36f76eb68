"""Listens for HTTP, and stops so that each connection that was accepted gets its answer.

Uvicorn closes the listening socket and all idle connections at once: requests that lie in the
socket's queue, or in the buffer of a connection, are reset. Here new connections are refused
first, the queue is emptied, and idle connections are closed when they stay silent.
Decision: infra/adr/0080-a-stop-resets-no-request.md.
"""

import asyncio
import errno
import multiprocessing
import select
import signal
import socket
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

#: Of Linux's <linux/in.h> and <linux/in6.h>; Python names neither.
_IP_MINTTL = (socket.IPPROTO_IP, 21)
_IPV6_MINHOPCOUNT = (socket.IPPROTO_IPV6, 73)
#: By family of the socket; one of IPv6 may take connections of IPv4 too.
LEAST_HOPS = {
    socket.AF_INET: (_IP_MINTTL,),
    socket.AF_INET6: (_IP_MINTTL, _IPV6_MINHOPCOUNT),
}
#: The most hops that a segment can have left; senders begin with 64 or 128.
MOST_HOPS = 255


class LastingProtocol(HttpToolsProtocol):
    """HTTP on one connection; when the server stops, the next answer is the last one."""

    _ends = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection; one from during a stop inherited what drops new ones."""
        set_least_hops(transport.get_extra_info("socket"), 0)
        super().connection_made(transport)

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

    Where the operating system has no such option, connections that arrive during the stop may
    still be reset.
    """
    for listening in sockets:
        set_least_hops(listening, MOST_HOPS)
    time.sleep(HANDSHAKE_SECONDS)
    deadline = time.monotonic() + QUEUE_SECONDS
    while select.select(sockets, [], [], 0)[0] and time.monotonic() < deadline:
        time.sleep(0.01)


def set_least_hops(tcp_socket: socket.socket, hops: int) -> None:
    """Let the kernel drop segments with fewer hops left than that; 0 drops none.

    On a listening socket that concerns the segments that open a connection. It takes no privilege,
    unlike a filter (SO_ATTACH_FILTER), for which Linux 6.18 wants CAP_NET_ADMIN. A system without
    the option is left as it is.
    """
    if sys.platform != "linux":
        return
    try:
        for level, option in LEAST_HOPS.get(tcp_socket.family, ()):
            tcp_socket.setsockopt(level, option, hops)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            raise
