"""The load generator: latencies of requests that arrive at a fixed rate include their waiting."""

import asyncio
import json

from tests.load.http_load import run

ANSWER_SECONDS = 0.05


async def answer_slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.readline():
        await asyncio.sleep(ANSWER_SECONDS)
        writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
    writer.close()


async def load(rate: float | None) -> None:
    server = await asyncio.start_server(answer_slowly, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        await run(port, 1, 0.2, [b"POST /screen\n"], rate)


def measure(rate: float | None, capsys) -> dict:
    asyncio.run(load(rate))
    return json.loads(capsys.readouterr().out)


def test_a_request_that_was_due_while_another_ran_has_waited(capsys):
    found = measure(100.0, capsys)

    assert len(found["latencies"]) == 20
    # The last was due after 0.19 s and answered after 20 answers of 0.05 s.
    assert found["latencies"][-1] > 0.7


def test_a_connection_kept_busy_waits_for_nothing_but_the_answer(capsys):
    found = measure(None, capsys)

    assert len(found["latencies"]) <= 5
    assert found["errors"] == len(found["latencies"])
