"""What an ingestion did: counts per table that add up, and what went wrong in words."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from flows.lake.tables import MergeCounts, TableState


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
    """Records of a drop that belong to one table, by what became of them.

    `inserted`, `corrected` and `unchanged` are rows of the lake (of PostgreSQL for consents).
    `combined`: records that are part of another's row, such as single answers of a survey.
    `duplicate`: repetitions within the drop. `withheld`: no consent in force.
    """

    read: int = 0
    inserted: int = 0
    corrected: int = 0
    unchanged: int = 0
    combined: int = 0
    duplicate: int = 0
    quarantined: int = 0
    withheld: int = 0

    @property
    def landed(self) -> int:
        return self.inserted + self.corrected

    @property
    def accounted(self) -> int:
        return sum(asdict(self).values()) - self.read

    def add(self, other: "TableCounts") -> None:
        for name, number in asdict(other).items():
            setattr(self, name, getattr(self, name) + number)

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
    errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    states: dict[str, TableState] = field(default_factory=dict)

    def add(self, step: "IngestionReport") -> None:
        """Add what one step of the run counted."""
        self.records += step.records
        self.split += step.split
        self.ignored.update(step.ignored)
        self.notes += step.notes
        # A FHIR file is read twice, for consents and for the rest, and complains twice.
        self.errors += [error for error in step.errors if error not in self.errors]
        self.states.update(step.states)
        for name, counts in step.tables.items():
            self.count(name).add(counts)

    def count(self, table: str) -> TableCounts:
        """Return the counts of a table, to be added to."""
        return self.tables.setdefault(table, TableCounts())

    def check(self) -> None:
        """Raise CountsDoNotAddUpError unless every record read is accounted for.

        Per table: read = inserted + corrected + unchanged + combined + duplicate
        + quarantined + withheld. In all: records + rows split off = read + ignored.
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

    def list_failures(self, max_quarantined_share: float) -> list[str]:
        """Return every message that makes a run fail."""
        shares = [
            f"{name}: {counts.quarantined} of {counts.read} records are quarantined "
            f"({counts.quarantined / counts.read:.1%}, allowed are {max_quarantined_share:.1%}); "
            "the table quarantine has file, row and reason"
            for name, counts in sorted(self.tables.items())
            if counts.quarantined > max_quarantined_share * counts.read
        ]
        return [*self.errors, *shares]

    def to_rows(self) -> list[dict[str, Any]]:
        """Return the counts as rows of a table for people to read."""
        return [
            {"table": name} | asdict(counts)
            for name, counts in sorted(self.tables.items())
            if counts.read
        ]
