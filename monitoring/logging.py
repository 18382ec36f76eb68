"""Structured logs, one JSON object a line, with nothing personal in them.

Exceptions are logged as type and place: their messages may quote what a person answered.
"""

import logging
import sys
import traceback
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal

import orjson
import structlog

#: Fields of the deployment guide's log lines that every line of a request carries.
REQUEST_FIELDS = ("request_id", "user_id", "anonymized_id")

EventDict = MutableMapping[str, Any]


def configure_logging(level: str, log_format: Literal["json", "text"]) -> None:
    """Send all logs of this process, structlog's and the standard library's, to stdout.

    Our own lines do not pass through the standard library: that would take three times as
    long, twice for every screening.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        hide_message,
    ]
    renderer = choose_renderer(log_format)
    structlog.configure(
        processors=[*shared, add_name, name_fields, renderer],
        logger_factory=NamedLogger,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=False,
    )
    remove_marks = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
        processors=[remove_marks, name_fields, renderer],
    )
    _install(formatter, level)


class NamedLogger(structlog.PrintLogger):
    """Writes whole lines to stdout, under the requested name."""

    def __init__(self, name: str = "") -> None:
        super().__init__(sys.stdout)
        self.name = name


def choose_renderer(log_format: Literal["json", "text"]) -> Any:
    if log_format == "json":
        return structlog.processors.JSONRenderer(serializer=write_json)
    return structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty(), event_key="message")


def write_json(line: Mapping[str, Any], **_options: Any) -> str:
    return orjson.dumps(line, default=str).decode()


def add_name(logger: Any, _method: str, event: EventDict) -> EventDict:
    event["logger"] = logger.name
    return event


def hide_message(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Replace exception information by its type and the places it passed."""
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    error = info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        event["error"] = describe_error(error)
    return event


def describe_error(error: BaseException) -> dict[str, Any]:
    """Return what may be logged of an error: its type, its causes' types and its places."""
    cause = error.__cause__ or error.__context__
    described: dict[str, Any] = {"type": type(error).__name__, "places": list_places(error)}
    return described | ({"cause": type(cause).__name__} if cause else {})


def list_places(error: BaseException) -> list[str]:
    """Return file:line function of each frame, without the message and without values."""
    frames = traceback.extract_tb(error.__traceback__)
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]


def name_fields(_logger: Any, _method: str, event: EventDict) -> Mapping[str, Any]:
    """Put the guide's fields first, under its names."""
    named = {
        "timestamp": event.pop("timestamp", None),
        "level": str(event.pop("level", "")).upper(),
        "logger": event.pop("logger", None),
        "message": event.pop("event", ""),
    }
    request_fields = {field: event.pop(field) for field in REQUEST_FIELDS if field in event}
    return named | request_fields | dict(event)


def _install(formatter: logging.Formatter, level: str) -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = True
    # Requests are logged once, by us, without the path's identifiers; httpx adds URLs.
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("httpx").setLevel(logging.WARNING)
