"""How one column of a drop is read: its value, and what is wrong with it.

A problem names column and rule. It carries a value only where that cannot identify
anyone, which is a small number in the place of an item's answer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import polars as pl

from feature_repo.instruments import INSTRUMENTS
from flows.sources.contract import INSTANT

#: Nobody who is assessed today was born, or measured, earlier.
EARLIEST = date(1900, 1, 1)
#: Clocks and time zones differ; a day ahead is no error.
FUTURE_TOLERANCE = timedelta(days=1)

#: What tools write where there is no value.
MISSING_TOKENS = ("NA", "N/A", "#N/A", "NULL", "null", "None", "NaN", "nan", "<NA>", ".")

#: A larger number in the place of an answer may be an identifier in the wrong column.
MAX_SHOWN = 100

ISO_INSTANT = (
    r"^(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2})(?::(\d{2}(?:\.\d{1,9})?))?"
    r"\s?(?:[Zz]|([+-])(\d{2}):?(\d{2}))?)?$"
)
ISO_DATE = r"^(\d{4}-\d{2}-\d{2})(?:[T ].*)?$"
ISO_BIRTH = r"^(\d{4})(?:-(\d{2})(?:-(\d{2}))?)?$"

INSTRUMENT_NAMES = {instrument.key: instrument.name for instrument in INSTRUMENTS.values()}
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
    if dtype.is_nested():
        wrong = (pl.col(name).is_not_null(), f"{name}: is a list, not one value")
        return Parsed(pl.lit(None, dtype=pl.String), _first(wrong))
    return Parsed(_text(name, dtype), pl.lit(None, dtype=pl.String))


def matching(pattern: str, rule: str) -> Parser:
    """Read a text that a regular expression matches whole; `rule` describes it in a refusal."""

    def parse(name: str, dtype: pl.DataType, now: datetime) -> Parsed:
        text = parse_text(name, dtype, now)
        wrong = text.value.is_not_null() & ~text.value.str.contains(f"^(?:{pattern})$")
        return Parsed(text.value, pl.coalesce(text.problem, _first((wrong, f"{name}: {rule}"))))

    return parse


def one_of(allowed: tuple[str, ...], default: str | None = None) -> Parser:
    """Read one of `allowed` in upper or lower case; an empty cell is `default`."""

    def parse(name: str, dtype: pl.DataType, now: datetime) -> Parsed:
        value = _text(name, dtype).str.to_lowercase().fill_null(pl.lit(default, dtype=pl.String))
        wrong = ~value.is_in(allowed)
        return Parsed(value, _first((wrong, f"{name}: is not one of {', '.join(allowed)}")))

    return parse


def parse_instrument(name: str, dtype: pl.DataType, now: datetime) -> Parsed:
    """Read the name of a questionnaire, with or without its hyphen."""
    value = _name_instrument(_text(name, dtype))
    wrong = _text(name, dtype).is_not_null() & value.is_null()
    return Parsed(value, _first((wrong, f"{name}: is not one of {', '.join(INSTRUMENTS)}")))


def _name_instrument(text: pl.Expr) -> pl.Expr:
    plain = text.str.to_lowercase().str.replace_all(r"[-_ ]", "")
    return plain.replace_strict(INSTRUMENT_NAMES, default=None, return_dtype=pl.String)


def describe_instrument(name: str) -> list[pl.Expr]:
    """Return columns `max_answer` and `max_total` of the instrument in a text column."""
    instrument = _name_instrument(pl.col(name).cast(pl.String).str.strip_chars())
    highest = {definition.name: definition.max_answer for definition in INSTRUMENTS.values()}
    totals = {definition.name: definition.max_total for definition in INSTRUMENTS.values()}
    return [
        # What is said of an unknown instrument's items does not matter: its row is refused.
        instrument.replace_strict(highest, default=0, return_dtype=pl.Int8).alias("max_answer"),
        instrument.replace_strict(totals, default=0, return_dtype=pl.Int16).alias("max_total"),
    ]


def parse_item(name: str, dtype: pl.DataType, now: datetime) -> Parsed:
    """Read an answer of the instrument's range; the problem states a number that is none."""
    return _parse_points(name, dtype, pl.col("max_answer"), pl.Int8)


def parse_total(name: str, dtype: pl.DataType, now: datetime) -> Parsed:
    """Read a total of the instrument's range."""
    return _parse_points(name, dtype, pl.col("max_total"), pl.Int16)


def _parse_points(
    name: str, dtype: pl.DataType, highest: pl.Expr, lands_as: type[pl.DataType]
) -> Parsed:
    number, unreadable = _number(name, dtype)
    impossible = ~((number >= 0) & (number <= highest) & (number == number.floor()))
    problem = (
        pl.when(unreadable)
        .then(pl.format(f"{name}: is not a number, allowed are 0 to {{}}", highest))
        .when(impossible & (number.abs() < MAX_SHOWN))
        .then(pl.format(f"{name}: is {{}}, allowed are 0 to {{}}", _show(number), highest))
        .when(impossible)
        .then(pl.format(f"{name}: is a number of several digits, allowed are 0 to {{}}", highest))
    )
    return Parsed(number.cast(lands_as, strict=False), problem)


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


def parse_terms(allowed: tuple[str, ...], may_be_empty: bool = False) -> Parser:
    """Read a list (Parquet) or a `;`-separated text (CSV) of `allowed` terms."""

    def parse(name: str, dtype: pl.DataType, now: datetime) -> Parsed:
        column = pl.col(name)
        terms = column if isinstance(dtype, pl.List) else column.cast(pl.String).str.split(";")
        tidy = pl.element().cast(pl.String).str.strip_chars().str.to_lowercase()
        value = terms.list.eval(tidy.filter(tidy != "")).list.unique().list.sort()
        empty = value.list.len().fill_null(0) == 0
        unknown = ~value.list.eval(pl.element().is_in(allowed)).list.all()
        problem = _first(
            *([] if may_be_empty else [(empty, f"{name}: is missing")]),
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
    if isinstance(dtype, pl.Datetime):
        value = pl.col(name).dt.date()  # in the column's own zone, as it is written
    elif dtype == pl.Date:
        value = pl.col(name)
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
    return pl.when((stripped != "") & ~stripped.is_in(MISSING_TOKENS)).then(stripped)


def _number(name: str, dtype: pl.DataType) -> tuple[pl.Expr, pl.Expr]:
    if dtype.is_nested():
        return pl.lit(None, dtype=pl.Float64), pl.col(name).is_not_null()
    if isinstance(dtype, pl.Duration):
        return pl.col(name).dt.total_seconds() / 60, pl.lit(False)
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
