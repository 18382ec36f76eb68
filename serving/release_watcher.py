"""Keeps the Production release in memory and swaps it when the registry names another.

The swap is one assignment: a request that began with the old release ends with it.
"""

import threading
from dataclasses import dataclass

import structlog

from mlruns_config.release import RELEASE_MODEL
from monitoring.logging import describe_error
from monitoring.metrics import RELEASE_LOAD_FAILURES, show_release
from serving.registry import NoProductionVersionError, Registry, RegistryUnavailableError
from serving.release import Release, ReleaseRejectedError, load_release

log = structlog.get_logger("serving.release")


@dataclass(frozen=True)
class ReleaseProblem:
    """Why the release in memory is not, or may not be, what the registry calls Production."""

    version: int | None
    reason: str


class ReleaseWatcher:
    """Looks at the registry every `poll_seconds` from its own thread."""

    def __init__(self, registry: Registry, poll_seconds: float) -> None:
        self._registry = registry
        self._poll_seconds = poll_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="release-watcher", daemon=True)
        self._rejected: int | None = None
        self.current: Release | None = None
        self.problem: ReleaseProblem | None = None

    def start(self) -> None:
        """Load the release once, so that the first request finds it, then keep watching."""
        self.refresh()
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        self._registry.close()

    def refresh(self) -> None:
        """Load the Production release unless it is already in memory.

        Whatever goes wrong, the loaded release stays, and `problem` says what it was.
        """
        version = None
        try:
            version = self._registry.find_production_version(RELEASE_MODEL)
            if self.current is None or self.current.version != version:
                self._load(version)
            self.problem = None
        except (RegistryUnavailableError, NoProductionVersionError, ReleaseRejectedError) as error:
            self._report(version, str(error))

    def _load(self, version: int) -> None:
        if version == self._rejected and self.problem is not None:
            # A version never changes: what was rejected once stays rejected.
            raise ReleaseRejectedError(self.problem.reason)
        try:
            release = load_release(self._registry, version)
        except ReleaseRejectedError:
            self._rejected = version
            raise
        self.current = release
        show_release(str(version))
        log.info("release loaded", release=version, members=sorted(release.members))

    def _report(self, version: int | None, reason: str) -> None:
        problem = ReleaseProblem(version, reason)
        if problem != self.problem:
            serving = self.current.version if self.current else None
            log.error("release not loaded", release=version, still_serving=serving, reason=reason)
            RELEASE_LOAD_FAILURES.inc()
        self.problem = problem

    def _watch(self) -> None:
        while not self._stop.wait(self._poll_seconds):
            try:
                self.refresh()
            # The thread must outlive any surprise, or no later release is ever noticed.
            except Exception as error:
                log.error("looking for a new release failed", error=describe_error(error))
                self.problem = ReleaseProblem(None, "looking for a new release failed")
