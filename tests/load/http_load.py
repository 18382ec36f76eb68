"""A load generator in a process of its own: keeps N connections busy with prepared requests.

`python -m tests.load.http_load PORT CONNECTIONS SECONDS FILE`: FILE holds one JSON object a
line, {"path", "headers", "body"}. Prints one JSON object with latencies in seconds.
"""

import asyncio
import json
import sys
from itertools import cycle
from pathlib import Path
from time import perf_counter

import uvloop


def encode_request(described: dict[str, object]) -> bytes:
    body = json.dumps(described["body"]).encode()
    headers = {"Host": "127.0.0.1", "Content-Type": "application/json"}
    headers |= described["headers"] | {"Content-Length": str(len(body))}
    lines = [f"POST {described['path']} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> int:
    """Send one request, read its whole answer, return its status."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
    await reader.readexactly(int(length))
    return int(head[9:12])


async def keep_sending(
    port: int, requests: "cycle[bytes]", until: float, seen: list[tuple[int, float]]
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while perf_counter() < until:
        begun = perf_counter()
        status = await send(reader, writer, next(requests))
        seen.append((status, perf_counter() - begun))
    writer.close()


async def run(port: int, connections: int, seconds: float, prepared: list[bytes]) -> None:
    seen: list[tuple[int, float]] = []
    requests = cycle(prepared)
    begun = perf_counter()
    senders = [keep_sending(port, requests, begun + seconds, seen) for _ in range(connections)]
    await asyncio.gather(*senders)
    taken = perf_counter() - begun
    errors = sum(status != 200 for status, _ in seen)
    latencies = [latency for _, latency in seen]
    print(json.dumps({"seconds": taken, "errors": errors, "latencies": latencies}))


if __name__ == "__main__":
    described = [json.loads(line) for line in Path(sys.argv[4]).read_text().splitlines()]
    prepared = [encode_request(one) for one in described]
    uvloop.run(run(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), prepared))
