"""Surveys from whole questionnaires, panels and single items.

Records belong together that say so: an item to the response or panel it was derived from or is a
member of. Items that name nothing belong to the questionnaire within JOIN_WINDOW of them, else to
each other. Answers that then differ are refused if the records themselves were linked or of one
time; if only the clock had joined them, they are taken apart again.
"""

import polars as pl

from feature_repo.fhir_surveys import JOIN_WINDOW, name_family
from feature_repo.instruments import INSTRUMENTS, ITEM_COLUMNS
from flows.lake.joined import Joined, join_rows, reject
from flows.lake.standing import ROW_KEY
from flows.sources.clean import add_items
from flows.sources.contract import INSTANT, SURVEYS

WHOSE = ["anonymized_id", "family"]
UNIT = [*WHOSE, "unit"]

FAMILIES = {name: name_family(name) for name in INSTRUMENTS}
GATES = {
    instrument.short_form_of: instrument
    for instrument in INSTRUMENTS.values()
    if instrument.is_gate and instrument.short_form_of
}


def join_surveys(records: pl.DataFrame) -> Joined:
    """Return one row per individual, instrument and time."""
    if records["part"].is_null().all():
        return join_rows(SURVEYS, records)
    placed = _place_near(_place_linked(records))
    differs = _differs(UNIT)
    judged = placed.with_columns(differs=differs)
    reason = "different answers to one item at one time"
    refused = [reject(judged.filter("differs"), reason)]
    surveys = _sum_up(judged.filter(~pl.col("differs")))
    bad = surveys.filter(pl.col("problem").is_not_null())
    members = judged.filter(~pl.col("differs")).join(surveys.select(*UNIT, "problem"), on=UNIT)
    refused.append(reject(members.filter(pl.col("problem").is_not_null()), pl.col("problem")))
    good = surveys.join(bad.select(UNIT), on=UNIT, how="anti")
    # Two units of one time and instrument, as a table's row and a response, are one survey.
    together = join_rows(SURVEYS, good.with_row_index("pid").select(_SURVEY))
    units = good.with_row_index("pid").select("pid", *UNIT)
    return _trace(together, units, members.filter(pl.col("problem").is_null()), refused)


_SURVEY = ["pid", "anonymized_id", "key_id", "bucket", "available_at", *SURVEYS.columns]


def _trace(
    together: Joined, units: pl.DataFrame, members: pl.DataFrame, refused: list[pl.DataFrame]
) -> Joined:
    """Return the surveys with the records behind them in place of the units."""
    records = members.select("pid", *UNIT)
    of_rows = units.join(together.members, on="pid").drop("pid")
    of_refused = units.join(together.rejected, on="pid").drop("pid")
    return Joined(
        rows=together.rows,
        members=records.join(of_rows, on=UNIT).select("pid", "rid"),
        rejected=pl.concat([*refused, records.join(of_refused, on=UNIT).select("pid", "reason")]),
    )


def _place_linked(records: pl.DataFrame) -> pl.DataFrame:
    """Add `family`, `unit` (null where nothing says what a record belongs to) and `is_whole`."""
    is_whole = pl.col("part").is_null()
    records = records.with_columns(
        family=pl.col("instrument").replace_strict(FAMILIES, return_dtype=pl.String),
        is_whole=is_whole,
    )
    panels = records.drop_nulls("members")
    belongs = (
        panels.select(
            "anonymized_id",
            pl.coalesce("link", "source_id").alias("panel"),
            pl.col("members").str.split(";"),
        )
        .explode("members")
        .select("anonymized_id", pl.col("members").alias("source_id"), "panel")
        .unique(ROW_KEY, keep="first", maintain_order=True)
    )
    placed = records.join(belongs, on=ROW_KEY, how="left")
    own = pl.when(is_whole | pl.col("members").is_not_null()).then("source_id")
    placed = placed.with_columns(unit=pl.coalesce("link", "panel", own))
    # An item's panel may itself be derived from the response.
    further = placed.filter(pl.col("unit") != pl.col("source_id")).select(
        "anonymized_id", pl.col("source_id").alias("unit"), pl.col("unit").alias("further")
    )
    whose_unit = ["anonymized_id", "unit"]
    placed = placed.join(further.unique(whose_unit, keep="first"), on=whose_unit, how="left")
    return placed.with_columns(unit=pl.coalesce("further", "unit")).drop("panel", "further")


def _place_near(placed: pl.DataFrame) -> pl.DataFrame:
    """Place records that nothing links by their time: near a questionnaire, or near each other."""
    loose = _cluster(placed.filter(pl.col("unit").is_null()))
    records = pl.concat([placed.filter(pl.col("unit").is_not_null()), loose])
    units = records.group_by(UNIT).agg(
        pl.col("answered_at").min().alias("start"), pl.col("is_whole").any()
    )
    parts = units.filter(~pl.col("is_whole")).sort("start")
    wholes = units.filter("is_whole").sort("start")
    near = parts.join_asof(
        wholes.select(*WHOSE, "start", pl.col("unit").alias("target")),
        on="start",
        by=WHOSE,
        strategy="nearest",
        tolerance=JOIN_WINDOW,
        check_sortedness=False,
    )
    alone = _number_clusters(near.filter(pl.col("target").is_null()), "start")
    target = pl.col("unit").sort().first().over([*WHOSE, "cluster"])
    moved = pl.concat(
        [
            near.filter(pl.col("target").is_not_null()).select(*UNIT, "target"),
            alone.with_columns(target=target).select(*UNIT, "target"),
        ]
    )
    return _move(records, moved)


def _cluster(loose: pl.DataFrame) -> pl.DataFrame:
    """Make a unit of items within JOIN_WINDOW of each other, unless their answers differ."""
    numbered = _number_clusters(loose, "answered_at")
    first = pl.col("answered_at").min().over([*WHOSE, "cluster"])
    together = numbered.with_columns(unit=pl.format("near {}", first.dt.epoch("us")))
    apart = pl.format("at {}", pl.col("answered_at").dt.epoch("us"))
    split = together.with_columns(
        unit=pl.when(_differs(UNIT)).then(apart).otherwise(pl.col("unit"))
    )
    return split.drop("cluster")


def _number_clusters(rows: pl.DataFrame, time: str) -> pl.DataFrame:
    """Add `cluster`: rows of one family with no more than JOIN_WINDOW between one and the next."""
    ordered = rows.sort(*WHOSE, time)
    gap = pl.col(time).diff().over(WHOSE)
    return ordered.with_columns(cluster=(gap > JOIN_WINDOW).fill_null(False).cum_sum().over(WHOSE))


def _move(records: pl.DataFrame, moved: pl.DataFrame) -> pl.DataFrame:
    """Move units to their targets, those apart whose answers would differ there."""
    proposed = records.join(moved, on=UNIT, how="left").with_columns(
        target=pl.coalesce("target", "unit")
    )
    clash = proposed.with_columns(clash=_differs([*WHOSE, "target"])).with_columns(
        clash=pl.col("clash") & ~_differs(UNIT)
    )
    unit = pl.when("clash").then("unit").otherwise("target")
    return clash.with_columns(unit=unit).drop("target", "clash")


def _differs(unit: list[str]) -> pl.Expr:
    """Return whether a unit has two answers to one item; a corrected one goes before the first."""
    return pl.any_horizontal((_stand(name).n_unique() > 1).over(unit) for name in ITEM_COLUMNS)


def _stand(name: str) -> pl.Expr:
    """Return the answers to an item that stand: those of the highest rank of version."""
    rank = pl.col("version_rank").fill_null(0)
    given = pl.col(name).is_not_null()
    return pl.col(name).filter(given & (rank == rank.filter(given).max()))


def _sum_up(records: pl.DataFrame) -> pl.DataFrame:
    """Return one row per unit: instrument, time, answers, total, and its `problem` if any."""
    named = pl.col("named").fill_null(False)
    whole_time = pl.col("answered_at").filter("is_whole").min()
    surveys = records.group_by(UNIT, maintain_order=True).agg(
        pl.col("key_id", "bucket").first(),
        pl.col("available_at").max(),
        pl.coalesce(whole_time, pl.col("answered_at").min()).alias("answered_at"),
        pl.col("instrument").filter(named | pl.col("is_whole")).unique().alias("names"),
        pl.col("is_whole").any(),
        *(_stand(name).first().alias(name) for name in ITEM_COLUMNS),
    )
    surveys = surveys.with_columns(instrument=_name_instrument()).drop("names")
    stated = (
        records.drop_nulls("total")
        .group_by(*UNIT, "instrument")
        .agg(_stand("total").unique().alias("totals"))
    )
    surveys = surveys.join(stated, on=[*UNIT, "instrument"], how="left").with_columns(
        total=pl.col("totals").list.first(), is_twofold=pl.col("totals").list.len() > 1
    )
    return surveys.with_columns(problem=_find_problem()).with_columns(
        answered_at=pl.col("answered_at").cast(INSTANT)
    )


def _name_instrument() -> pl.Expr:
    """Return the longest instrument that a unit's records name, else the one of its items.

    A short form is one only if no item beyond its own was answered.
    """
    names = pl.col("names")
    chosen = pl.col("family")
    for instrument in INSTRUMENTS.values():
        family = instrument.short_form_of
        if family is None:
            continue
        own, others = _divide_items(instrument.item_count)
        answered = [pl.col(name).is_not_null() for name in own]
        no_other = ~pl.any_horizontal(pl.lit(False), *(pl.col(n).is_not_null() for n in others))
        is_named = names.list.contains(instrument.name) & ~names.list.contains(family)
        is_gate = pl.lit(instrument.is_gate) & (names.list.len() == 0) & pl.all_horizontal(answered)
        is_short = (pl.col("family") == family) & no_other & (is_named | is_gate)
        chosen = pl.when(is_short).then(pl.lit(instrument.name)).otherwise(chosen)
    return chosen


def _divide_items(count: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return ITEM_COLUMNS[:count], ITEM_COLUMNS[count:]


def _find_problem() -> pl.Expr:
    added = add_items()
    answered = pl.any_horizontal(pl.col(name).is_not_null() for name in ITEM_COLUMNS)
    is_empty = ~pl.col("is_whole") & ~answered & pl.col("total").is_null()
    differs = (pl.col("total") != added).fill_null(False)
    stated = pl.format("{} total: ", pl.col("instrument"))
    return (
        pl.when(is_empty)
        .then(pl.lit("no item of this survey has an answer"))
        .when(pl.col("is_twofold").fill_null(False))
        .then(pl.concat_str(stated, pl.lit("is stated twice, differently")))
        .when(differs)
        .then(pl.concat_str(stated, pl.format("{} is stated, the items add to {}", "total", added)))
    )
