"""Results of validation: counts by expectation and table."""

from dataclasses import dataclass, field

from mlruns_config.experiments import VALIDATION

VALIDATION_EXPERIMENT = VALIDATION


@dataclass
class ExpectationResult:
    """One expectation over all of a table."""

    description: str
    kind: str
    rows: int = 0
    unexpected: int = 0
    success: bool = True

    @property
    def share(self) -> float:
        return self.unexpected / self.rows if self.rows else 0.0


@dataclass
class TableResult:
    """The results of a table's suite; `set_aside` rows left the lake.

    `version` is the table's after that: the one that holds only rows that passed.
    """

    table: str
    version: int | None = None
    rows: int = 0
    set_aside: int = 0
    results: list[ExpectationResult] = field(default_factory=list)

    @property
    def failures(self) -> list[str]:
        return [
            f"{self.table}: {result.description} ({result.unexpected} of {result.rows} rows do not)"
            for result in self.results
            if not result.success
        ]
