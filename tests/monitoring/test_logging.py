import json
import logging

import pytest
import structlog

from monitoring.logging import configure_logging, describe_error


@pytest.fixture(autouse=True)
def restore_logging():
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers, _ = handlers, root.setLevel(level)
    logging.getLogger("uvicorn.access").disabled = False
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def read_line(capsys):
    (line,) = capsys.readouterr().out.strip().splitlines()
    return json.loads(line)


def test_a_line_has_the_guides_fields_in_their_order(capsys):
    configure_logging("INFO", "json")
    structlog.contextvars.bind_contextvars(request_id="req_1", user_id="clinician_001")
    structlog.get_logger("serving.screening").info("completed", risk_score=68.5)
    line = read_line(capsys)

    assert list(line) == [
        "timestamp",
        "level",
        "logger",
        "message",
        "request_id",
        "user_id",
        "risk_score",
    ]
    assert (line["level"], line["logger"]) == ("INFO", "serving.screening")
    assert line["timestamp"].endswith("Z")


@pytest.mark.parametrize("broken", ["a\nb", "a\r\n{}", 'a"}\n{"level": "ERROR"', "a\u2028b"])
def test_a_value_with_line_breaks_stays_on_one_line(capsys, broken):
    configure_logging("INFO", "json")
    structlog.get_logger("serving").info("completed", given=broken)
    logging.getLogger("library").info("completed %s", broken)
    lines = [json.loads(line) for line in capsys.readouterr().out.strip().split("\n")]

    assert [line["level"] for line in lines] == ["INFO", "INFO"]
    assert lines[0]["given"] == broken


def test_an_exceptions_message_is_never_logged(capsys):
    configure_logging("INFO", "json")
    try:
        raise ValueError("Jane Doe answered 3")
    except ValueError:
        structlog.get_logger("a").exception("failed")
        logging.getLogger("b").exception("failed in a library")
    out = capsys.readouterr().out

    assert "Jane" not in out
    assert [json.loads(line)["error"]["type"] for line in out.splitlines()] == ["ValueError"] * 2


def test_an_error_is_described_by_types_and_places():
    try:
        try:
            raise KeyError("Jane")
        except KeyError as cause:
            raise RuntimeError("Doe") from cause
    except RuntimeError as error:
        described = describe_error(error)

    assert (described["type"], described["cause"]) == ("RuntimeError", "KeyError")
    assert "test_logging.py" in described["places"][0]
    assert "Doe" not in str(described)


def test_lines_below_the_level_are_left_out(capsys):
    configure_logging("WARNING", "json")
    structlog.get_logger("a").info("quiet")
    structlog.get_logger("a").warning("loud")

    assert read_line(capsys)["message"] == "loud"


def test_text_lines_are_for_people(capsys):
    configure_logging("INFO", "text")
    structlog.get_logger("serving").info("started", port=8000)
    out = capsys.readouterr().out

    assert "started" in out
    assert "port=8000" in out
