"""Threads in which a request waits for the database, without waiting for the thread itself.

Starlette's own thread pool holds a cancelled request until its thread returns. These threads let
it go: the request is answered when its time is up, and the thread ends at its own deadline.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

#: Calls at once in a worker; a database that hangs takes up no more threads than these.
MOST_AT_ONCE = 40

_POOL = ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="database")

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


async def run_apart(
    act: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs
) -> Result:
    """Return `act(*arguments)`; when this is cancelled, a call that has begun runs to its end."""
    future = _POOL.submit(copy_context().run, partial(act, *arguments, **named))
    return await asyncio.wrap_future(future)
