"""How one column of a drop is read: its value, and what is wrong with it.

A problem names column and rule. It carries a value only where that cannot identify
anyone, which is a small number in the place of an item's answer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import polars as pl

from feature_repo.instruments import INSTRUMENTS, MAX_ANSWER
from flows.sources.contract import INSTANT

#: Nobody who is assessed today was born, or measured, earlier.
EARLIEST = date(1900, 1, 1)
#: Clocks and time zones differ; a day ahead is no error.
FUTURE_TOLERANCE = timedelta(days=1)

#: A larger number in the place of an answer may be an identifier in the wrong column.
MAX_SHOWN = 100

ISO_INSTANT = (
    r"^(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2})(?::(\d{2}(?:\.\d{1,9})?))?"
    r"\s?(?:[Zz]|([+-])(\d{2}):?(\d{2}))?)?$"
)
ISO_DATE = r"^(\d{4}-\d{2}-\d{2})(?:[T ].*)?$"
ISO_BIRTH = r"^(\d{4})(?:-(\d{2})(?:-(\d{2}))?)?$"

INSTRUMENT_NAMES = {name.replace("-", "").lower(): name for name in INSTRUMENTS}
TRUTHS = {"true": True, "1": True, "false": False, "0": False, "1.0": True, "0.0": False}


@dataclass(frozen=True)
class Parsed:
    """`value` and `problem` (null when there is none) of a column, as expressions."""

    value: pl.Expr
    problem: pl.Expr


#: From a column's name, its type in the file and the current time to its reading.
Parser = Callable[[str, pl.DataType, datetime], Parsed]


def required(parser: Parser) -> Parser:
    """Return `parser` that also refuses an empty value."""

    def parse(name: str, dtype: pl.DataType, now: datetime) -> Parsed:
        parsed = parser(name, dtype, now)
        missing = _text(name, dtype).is_null()
        return Parsed(parsed.value, _first((missing, f"{name}: is missing"), parsed.problem))

    return parse


def parse_text(name: str, dtype: pl.DataType, now: datetime) -> Parsed:
    return Parsed(_text(name, dtype), pl.lit(None, dtype=pl.String))


def one_of(allowed: tuple[str, ...], default: str | None = None) -> Parser:
    """Read one of `allowed`, whatever its case; an empty cell is `default`."""

    def parse(name: str, dtype: pl.DataType, now: datetime) -> Parsed:
        value = _text(name, dtype).str.to_lowercase().fill_null(pl.lit(default, dtype=pl.String))
        wrong = ~value.is_in(allowed)
        return Parsed(value, _first((wrong, f"{name}: is not one of {', '.join(allowed)}")))

    return parse


def parse_instrument(name: str, dtype: pl.DataType, now: datetime) -> Parsed:
    """Read the name of a questionnaire, with or without its hyphen."""
    plain = _text(name, dtype).str.to_lowercase().str.replace_all(r"[-_ ]", "")
    value = plain.replace_strict(INSTRUMENT_NAMES, default=None, return_dtype=pl.String)
    wrong = plain.is_not_null() & value.is_null()
    return Parsed(value, _first((wrong, f"{name}: is not one of {', '.join(INSTRUMENTS)}")))


def parse_item(name: str, dtype: pl.DataType, now: datetime) -> Parsed:
    """Read an answer 0 to 3; the problem states a number that is none."""
    number, unreadable = _number(name, dtype)
    impossible = ~(number.is_between(0, MAX_ANSWER) & (number == number.floor()))
    rule = f"allowed are 0 to {MAX_ANSWER}"
    problem = (
        pl.when(unreadable)
        .then(pl.lit(f"{name}: is not a number, {rule}"))
        .when(impossible & (number.abs() < MAX_SHOWN))
        .then(pl.format(f"{name}: is {{}}, {rule}", _show(number)))
        .when(impossible)
        .then(pl.lit(f"{name}: is a number of several digits, {rule}"))
    )
    return Parsed(number.cast(pl.Int8, strict=False), problem)


def between(low: float, high: float, unit: str) -> Parser:
    """Read a number within `low` and `high` inclusive; NaN counts as missing."""

    def parse(name: str, dtype: pl.DataType, now: datetime) -> Parsed:
        number, unreadable = _number(name, dtype)
        problem = _first(
            (unreadable, f"{name}: is not a number"),
            (~number.is_between(low, high), describe_range(name, low, high, unit)),
        )
        return Parsed(number.cast(pl.Float32), problem)

    return parse


def describe_range(name: str, low: float, high: float, unit: str) -> str:
    return f"{name}: is outside {low:g} to {high:g} {unit}"


def parse_truth(name: str, dtype: pl.DataType, now: datetime) -> Parsed:
    """Read true/false or 1/0."""
    text = _text(name, dtype).str.to_lowercase()
    value = text.replace_strict(TRUTHS, default=None, return_dtype=pl.Boolean)
    wrong = text.is_not_null() & value.is_null()
    return Parsed(value, _first((wrong, f"{name}: is not true or false")))


def parse_terms(allowed: tuple[str, ...]) -> Parser:
    """Read a list (Parquet) or a `;`-separated text (CSV) of `allowed` terms."""

    def parse(name: str, dtype: pl.DataType, now: datetime) -> Parsed:
        column = pl.col(name)
        terms = column if isinstance(dtype, pl.List) else column.cast(pl.String).str.split(";")
        tidy = pl.element().cast(pl.String).str.strip_chars().str.to_lowercase()
        value = terms.list.eval(tidy.filter(tidy != "")).list.unique().list.sort()
        empty = value.list.len().fill_null(0) == 0
        unknown = ~value.list.eval(pl.element().is_in(allowed)).list.all()
        problem = _first(
            (empty, f"{name}: is missing"),
            (unknown, f"{name}: has a term other than {', '.join(allowed)}"),
        )
        return Parsed(value, problem)

    return parse


def parse_instant(name: str, dtype: pl.DataType, now: datetime) -> Parsed:
    """Read ISO 8601; a time without a zone is UTC, a date is its midnight UTC."""
    value = _instant(name, dtype)
    unreadable = _text(name, dtype).is_not_null() & value.is_null()
    wrong = f"{name}: is not an ISO 8601 time (precise to the day at least)"
    return Parsed(value, _first((unreadable, wrong)))


def parse_past_instant(name: str, dtype: pl.DataType, now: datetime) -> Parsed:
    """Read an instant that has happened: not before 1900, not after tomorrow."""
    parsed = parse_instant(name, dtype, now)
    limits = _limits(name, parsed.value.dt.date(), now)
    return Parsed(parsed.value, pl.coalesce(parsed.problem, limits))


def parse_past_date(name: str, dtype: pl.DataType, now: datetime) -> Parsed:
    """Read a day, of a time the day as it is written."""
    if dtype == pl.Date or isinstance(dtype, pl.Datetime):
        value = pl.col(name).cast(pl.Date)
    else:
        written = _text(name, dtype).str.extract(ISO_DATE, 1)
        value = written.str.to_date("%Y-%m-%d", strict=False)
    unreadable = _text(name, dtype).is_not_null() & value.is_null()
    problem = _first((unreadable, f"{name}: is not an ISO 8601 date"), _limits(name, value, now))
    return Parsed(value, problem)


def parse_birth_year(name: str, dtype: pl.DataType, now: datetime) -> Parsed:
    """Read the year of a date of birth, which may be YYYY, YYYY-MM or YYYY-MM-DD."""
    text = _text(name, dtype)
    parts = text.str.extract(ISO_DATE, 1).fill_null(text).str.extract_groups(ISO_BIRTH)
    whole = pl.concat_str(
        parts.struct[0], parts.struct[1].fill_null("01"), parts.struct[2].fill_null("01")
    )
    value = whole.str.to_date("%Y%m%d", strict=False)
    unreadable = text.is_not_null() & value.is_null()
    problem = _first((unreadable, f"{name}: is not an ISO 8601 date"), _limits(name, value, now))
    return Parsed(value.dt.year().cast(pl.Int16), problem)


def _limits(name: str, value: pl.Expr, now: datetime) -> pl.Expr:
    latest = (now + FUTURE_TOLERANCE).date()
    return _first(
        (value < EARLIEST, f"{name}: is before {EARLIEST.year}"),
        (value > latest, f"{name}: is in the future"),
    )


def _instant(name: str, dtype: pl.DataType) -> pl.Expr:
    if isinstance(dtype, pl.Datetime):
        column = pl.col(name)
        zoned = column if dtype.time_zone else column.dt.replace_time_zone("UTC")
        return zoned.dt.convert_time_zone("UTC").cast(INSTANT)
    if dtype == pl.Date:
        return pl.col(name).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    groups = _text(name, dtype).str.extract_groups(ISO_INSTANT)
    clock = pl.concat_str(
        groups.struct[0],
        pl.lit(" "),
        groups.struct[1].fill_null("00:00"),
        pl.lit(":"),
        groups.struct[2].fill_null("00"),
    )
    local = clock.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", strict=False, time_unit="us")
    return (local - _offset(groups)).dt.replace_time_zone("UTC")


def _offset(groups: pl.Expr) -> pl.Expr:
    minutes = groups.struct[4].cast(pl.Int64).fill_null(0) * 60 + groups.struct[5].cast(
        pl.Int64
    ).fill_null(0)
    sign = pl.when(groups.struct[3] == "-").then(-1).otherwise(1)
    return pl.duration(minutes=minutes * sign)


def _text(name: str, dtype: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if isinstance(dtype, pl.List):
        return column.list.len().replace(0, None).cast(pl.String)
    text = column if dtype == pl.String else column.cast(pl.String)
    stripped = text.str.strip_chars()
    return pl.when(stripped != "").then(stripped)


def _number(name: str, dtype: pl.DataType) -> tuple[pl.Expr, pl.Expr]:
    if dtype.is_numeric():
        return pl.col(name).cast(pl.Float64).fill_nan(None), pl.lit(False)
    text = _text(name, dtype)
    number = text.cast(pl.Float64, strict=False)
    return number.fill_nan(None), text.is_not_null() & number.is_null()


def _show(number: pl.Expr) -> pl.Expr:
    as_integer = number.cast(pl.Int64, strict=False).cast(pl.String)
    return pl.when(number == number.floor()).then(as_integer).otherwise(number.cast(pl.String))


def _first(*problems: tuple[pl.Expr, str] | pl.Expr) -> pl.Expr:
    """Return the first problem that applies, else null."""
    return pl.coalesce(
        *(
            pl.when(problem[0]).then(pl.lit(problem[1])) if isinstance(problem, tuple) else problem
            for problem in problems
        )
    )
