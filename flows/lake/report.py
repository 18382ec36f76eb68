"""Report of an ingestion: counts per table that add up, and its errors as sentences."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from flows.lake.landing import Landing
from flows.lake.merging import MergeCounts
from flows.lake.tables import TableState

#: Tables whose rows go to PostgreSQL and decide what may land.
CONSENT_TABLES = ("consents", "withdrawals")


class CountsDoNotAddUpError(AssertionError):
    """Records were lost or counted twice: an error of this program, never of a drop."""


class IngestionFailedError(RuntimeError):
    """Parts of a drop could not be ingested; everything else is landed.

    `report` says what; the message names every file and table concerned.
    """

    def __init__(self, message: str, report: "IngestionReport | None" = None) -> None:
        super().__init__(message)
        self.report = report


@dataclass
class TableCounts:
    """Records of a drop that belong to one table, by result.

    `inserted`, `corrected` and `unchanged` are rows of the lake (of PostgreSQL for consents).
    `combined`: records that are part of another's row, such as single answers of a survey.
    `duplicate`: repetitions within the drop. `superseded`: an older or retracted version.
    `withheld`: no consent in force. Rows that had landed before: `set_aside` left the table,
    `recomputed` changed, because what they were made of was taken back or replaced.
    """

    read: int = 0
    inserted: int = 0
    corrected: int = 0
    unchanged: int = 0
    combined: int = 0
    duplicate: int = 0
    superseded: int = 0
    quarantined: int = 0
    withheld: int = 0
    set_aside: int = 0
    recomputed: int = 0

    @property
    def landed(self) -> int:
        return self.inserted + self.corrected

    @property
    def accounted(self) -> int:
        return sum(asdict(self).values()) - self.read - self.set_aside - self.recomputed

    def add(self, other: "TableCounts") -> None:
        for name, number in asdict(other).items():
            setattr(self, name, getattr(self, name) + number)

    def add_landing(self, landing: Landing) -> None:
        self.add_merge(landing.merged)
        for name in ("combined", "duplicate", "superseded", "set_aside", "recomputed"):
            setattr(self, name, getattr(self, name) + getattr(landing, name))

    def add_merge(self, counts: MergeCounts) -> None:
        self.inserted += counts.inserted
        self.corrected += counts.corrected
        self.unchanged += counts.unchanged


@dataclass
class IngestionReport:
    """The counts and messages of one ingestion; `states` is what lineage cites."""

    run_id: str
    files: int = 0
    other_files: int = 0
    records: int = 0
    split: int = 0
    tables: dict[str, TableCounts] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)
    noted: Counter[str] = field(default_factory=Counter)
    unmapped: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    states: dict[str, TableState] = field(default_factory=dict)
    retractions: list[dict[str, Any]] = field(default_factory=list)
    deaths: list[dict[str, Any]] = field(default_factory=list)
    alive: list[dict[str, Any]] = field(default_factory=list)

    def add(self, step: "IngestionReport") -> None:
        """Add what one step of the run counted."""
        self.records += step.records
        self.split += step.split
        self.ignored.update(step.ignored)
        self.noted.update(step.noted)
        self.unmapped.update(step.unmapped)
        # A FHIR file is read twice, for consents and for the rest, and may complain twice.
        self.notes += [note for note in step.notes if note not in self.notes]
        self.errors += [error for error in step.errors if error not in self.errors]
        self.states.update(step.states)
        self.retractions += step.retractions
        for name, counts in step.tables.items():
            self.count(name).add(counts)

    def count(self, table: str) -> TableCounts:
        """Return the counts of a table, to be added to."""
        return self.tables.setdefault(table, TableCounts())

    def check(self) -> None:
        """Raise CountsDoNotAddUpError unless every record read is accounted for.

        Per table: read = inserted + corrected + unchanged + combined + duplicate
        + superseded + quarantined + withheld. In all: records + rows split off = read + ignored.
        """
        for name, counts in self.tables.items():
            if counts.read != counts.accounted:
                raise CountsDoNotAddUpError(
                    f"{name}: {counts.read} read, {counts.accounted} accounted for"
                )
        read = sum(counts.read for counts in self.tables.values())
        if self.records + self.split != read + self.ignored.total():
            raise CountsDoNotAddUpError(
                f"{self.records} records and {self.split} split off, but {read} in tables "
                f"and {self.ignored.total()} ignored"
            )

    @property
    def withheld(self) -> int:
        return sum(counts.withheld for counts in self.tables.values())

    @property
    def is_all_withheld(self) -> bool:
        """Return True where rows were there to land and consent let none of them."""
        kept = sum(
            counts.landed + counts.unchanged
            for name, counts in self.tables.items()
            if name not in CONSENT_TABLES
        )
        return self.withheld > 0 and kept == 0

    def describe_withheld(self) -> str:
        """Return how many records were withheld, by table, and what to do about it."""
        tables = [
            f"{name} {counts.withheld} of {counts.read}"
            for name, counts in sorted(self.tables.items())
            if counts.withheld
        ]
        return (
            f"withheld without an active consent: {', '.join(tables)}; put the consents into "
            "the drop (flows/sources/README.md) or record them, and ingest it again"
        )

    def list_failures(
        self, max_quarantined_share: float, max_withheld_share: float = 1.0
    ) -> list[str]:
        """Return every message that makes a run fail."""
        shares = [
            f"{name}: {counts.quarantined} of {counts.read} records are quarantined "
            f"({counts.quarantined / counts.read:.1%}, allowed are {max_quarantined_share:.1%}); "
            "the table quarantine has file, row and reason"
            for name, counts in sorted(self.tables.items())
            if counts.quarantined > max_quarantined_share * counts.read
        ]
        read = sum(counts.read for counts in self.tables.values())
        if self.withheld > max_withheld_share * read:
            shares.append(
                f"{self.withheld} of {read} records are withheld "
                f"(allowed are {max_withheld_share:.1%}); {self.describe_withheld()}"
            )
        return [*self.errors, *shares]

    def to_rows(self) -> list[dict[str, Any]]:
        """Return the counts as rows of a table for people to read."""
        return [
            {"table": name} | asdict(counts)
            for name, counts in sorted(self.tables.items())
            if counts.read
        ]
