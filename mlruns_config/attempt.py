"""One attempt to change the registry, and the ledger row that it always leaves."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from mlflow.exceptions import MlflowException
from sqlalchemy import Engine

from mlruns_config.ledger import LedgerEntry, Result, append_to_ledger
from mlruns_config.manifest import RELEASE_MODEL


class PromotionRefusedError(RuntimeError):
    """A change of a version was refused; the message gives the reason, the ledger keeps it."""


class PromotionFailedError(RuntimeError):
    """MLflow did not carry a change out; the ledger keeps the attempt as failed."""


@dataclass(frozen=True)
class Attempt:
    """A requested change; `gates` are the values it was checked with."""

    engine: Engine
    #: 0 where no version could be named.
    version: int
    from_stage: str
    to_stage: str
    actor: str
    reason: str
    gates: Mapping[str, Any] = field(default_factory=dict)

    def refuse(self, why: str) -> NoReturn:
        """Keep the refusal in the ledger and raise it."""
        self.record("refused", why)
        raise PromotionRefusedError(why)

    def carry_out(self, change: Callable[[], None], note: str = "") -> None:
        """Make the change in MLflow and write its ledger row.

        The row is written first and committed last: without a ledger that takes it nothing moves,
        and a change that MLflow refuses leaves no row that says it happened. Raises
        PromotionFailedError.
        """
        try:
            with self.engine.begin() as connection:
                append_to_ledger(connection, self._describe("promoted", note))
                change()
        except MlflowException as error:
            self.record("failed", error.error_code)
            why = f"MLflow did not move {RELEASE_MODEL} {self.version} to {self.to_stage}"
            raise PromotionFailedError(f"{why}: {error.error_code}") from error

    def record(self, result: Result, note: str = "") -> None:
        """Write a ledger row about something that moves nothing in MLflow."""
        with self.engine.begin() as connection:
            append_to_ledger(connection, self._describe(result, note))

    def _describe(self, result: Result, note: str) -> LedgerEntry:
        return LedgerEntry(
            model=RELEASE_MODEL,
            version=self.version,
            from_stage=self.from_stage,
            to_stage=self.to_stage,
            actor=self.actor,
            reason=f"{self.reason} ({note})" if note else self.reason,
            result=result,
            gates=self.gates,
        )
