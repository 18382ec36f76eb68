"""Bodies are read strictly: what a lenient reader would guess at is refused.

A name given twice has two meanings, one of which is lost; NaN and Infinity are no JSON.
"""

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict

#: No field has more; Python refuses to convert above 4,300.
MAX_DIGITS = 100


class StrictRequest(Request):
    async def json(self) -> Any:
        """Return the body as JSON; raises JSONDecodeError, also for what is no UTF-8."""
        body = await self.body()
        try:
            return read_strictly(body)
        except UnicodeDecodeError:
            raise json.JSONDecodeError("the body is not UTF-8", "", 0) from None
        except RecursionError:
            raise json.JSONDecodeError("the body is nested too deeply", "", 0) from None


class StrictJsonRoute(APIRoute):
    """A route whose body is read by StrictRequest."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            return await handle(StrictRequest(request.scope, request.receive))

        return handle_strictly


def read_strictly(body: bytes) -> Any:
    """Return the value of a JSON text; raises json.JSONDecodeError, never quoting the text."""
    return _DECODER.decode(body.decode())


def _read_integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise json.JSONDecodeError("a number has too many digits", "", 0)
    return int(digits)


def _refuse_repeated_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    parsed = dict(pairs)
    if len(parsed) != len(pairs):
        raise json.JSONDecodeError("a name is given twice", "", 0)
    return parsed


def _refuse_constant(_constant: str) -> Any:
    raise json.JSONDecodeError("NaN and Infinity are not JSON", "", 0)


#: Made once: json.loads makes a decoder for each text.
_DECODER = json.JSONDecoder(
    object_pairs_hook=_refuse_repeated_names,
    parse_constant=_refuse_constant,
    parse_int=_read_integer,
)


class StrictBody(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
