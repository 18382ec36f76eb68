"""A load generator in a process of its own: keeps N connections busy with prepared requests.

`python -m tests.load.http_load PORT CONNECTIONS SECONDS FILE [RATE]`: FILE holds one JSON object a
line, {"path", "headers", "body"}. With RATE requests become due at that many a second, however
slow the answers are, and a latency counts from when its request was due (no coordinated
omission). Prints one JSON object with latencies in seconds.
"""

import asyncio
import json
import sys
from collections.abc import Iterator
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


async def keep_pace(
    port: int, requests: "cycle[bytes]", due: Iterator[float], seen: list[tuple[int, float]]
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for moment in due:
        await asyncio.sleep(max(0.0, moment - perf_counter()))
        status = await send(reader, writer, next(requests))
        seen.append((status, perf_counter() - moment))
    writer.close()


def list_due(begun: float, seconds: float, rate: float) -> Iterator[float]:
    """Return the moments at which a request is due; the connections take them in turn."""
    return (begun + number / rate for number in range(int(seconds * rate)))


async def run(
    port: int, connections: int, seconds: float, prepared: list[bytes], rate: float | None
) -> None:
    seen: list[tuple[int, float]] = []
    requests = cycle(prepared)
    begun = perf_counter()
    if rate is None:
        senders = [keep_sending(port, requests, begun + seconds, seen) for _ in range(connections)]
    else:
        due = list_due(begun, seconds, rate)
        senders = [keep_pace(port, requests, due, seen) for _ in range(connections)]
    await asyncio.gather(*senders)
    taken = perf_counter() - begun
    errors = sum(status != 200 for status, _ in seen)
    latencies = [latency for _, latency in seen]
    print(json.dumps({"seconds": taken, "errors": errors, "latencies": latencies}))


if __name__ == "__main__":
    described = [json.loads(line) for line in Path(sys.argv[4]).read_text().splitlines()]
    prepared = [encode_request(one) for one in described]
    rate = float(sys.argv[5]) if len(sys.argv) > 5 else None
    uvloop.run(run(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), prepared, rate))
