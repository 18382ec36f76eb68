"""Keeps the releases in memory that the registry names, and swaps them when it names others.

A swap is one assignment: a request that began with the old release ends with it. Whatever
goes wrong with a new release, the loaded one goes on.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from feature_repo.stored_views import SEQUENCE_OUTPUTS, StoredView
from mlruns_config.arms import Arm, Rollout
from mlruns_config.manifest import RELEASE_MODEL
from monitoring.logging import describe_error
from monitoring.metrics import RELEASE_LOAD_FAILURES, show_release
from serving.audit.signing import KeyRing
from serving.releases.loading import ReleaseRejectedError, load_release
from serving.releases.registry import NoProductionVersionError, Registry, RegistryUnavailableError
from serving.scoring.loaded_release import Release

log = structlog.get_logger("serving.releases")

#: Seconds between two looks while no release is loaded: a worker often starts before MLflow.
SECONDS_WITHOUT_RELEASE = 1.0


@dataclass(frozen=True)
class ReleaseProblem:
    """Why the release in memory is not, or may not be, what the registry names."""

    version: int | None
    reason: str


@dataclass(frozen=True)
class Candidate:
    """A release that is rolled out beside Production."""

    rollout: Rollout
    release: Release


@dataclass(frozen=True)
class Choice:
    """The release that answers for an individual, and the one that only scores (shadow)."""

    release: Release
    arm: Arm = "production"
    shadow: Release | None = None

    def list_views(self) -> list[StoredView]:
        """Return the stored views that either release reads, and the outputs scored already."""
        releases = [release for release in (self.shadow, self.release) if release is not None]
        views = {view.name: view for release in releases for view in release.manifest.stored_views}
        scored = (
            [SEQUENCE_OUTPUTS] if any(release.manifest.sequence for release in releases) else []
        )
        return [*views.values(), *scored]

    def list_fallbacks(self) -> list["Choice"]:
        """Return the release that answers where this one cannot score: Production, or none."""
        if self.arm == "production" or self.shadow is None:
            return []
        return [Choice(self.shadow, "production", shadow=self.release)]


class ReleaseWatcher:
    """Looks at the registry every `poll_seconds` from its own thread.

    Without a release it looks each second. `cache_size` releases stay in memory, so that a
    rollback needs no download. With `keys`, only releases signed by one of them are loaded.
    """

    def __init__(
        self,
        registry: Registry,
        poll_seconds: float,
        cache_size: int = 5,
        keys: KeyRing | None = None,
    ) -> None:
        self._registry = registry
        self._keys = keys
        self._poll_seconds = poll_seconds
        self._cache_size = cache_size
        self._loaded: OrderedDict[int, Release] = OrderedDict()
        self._rejected: dict[int, str] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="release-watcher", daemon=True)
        self.current: Release | None = None
        self.candidate: Candidate | None = None
        self.problem: ReleaseProblem | None = None
        self.candidate_problem: ReleaseProblem | None = None

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        """Load the releases once, so that the first request finds them, then keep watching."""
        self.refresh()
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        self._registry.close()

    @property
    def cached_versions(self) -> list[int]:
        return list(self._loaded)

    def choose(self, anonymized_id: str) -> Choice | None:
        """Return who answers for an individual and who scores beside, None without a release."""
        current, candidate = self.current, self.candidate
        if current is None:
            return None
        if candidate is None:
            return Choice(current)
        if candidate.rollout.choose_arm(anonymized_id) == "candidate":
            return Choice(candidate.release, "candidate", shadow=current)
        return Choice(current, shadow=candidate.release)

    def refresh(self) -> None:
        """Load what the registry names unless it is in memory already.

        Whatever goes wrong, the loaded release stays, and `problem` says what it was.
        """
        self.problem = self._attempt(self._refresh_production, self.problem)
        if self.problem is None:
            self.candidate_problem = self._attempt(self._refresh_candidate, self.candidate_problem)
        if self.candidate_problem is not None:
            # Not known to be sound, or no longer a candidate: it answers no request.
            self.candidate = None

    def _attempt(
        self, refresh: Callable[[], None], before: ReleaseProblem | None
    ) -> ReleaseProblem | None:
        try:
            refresh()
        except _LoadError as error:
            problem = ReleaseProblem(error.version, error.reason)
        except (RegistryUnavailableError, NoProductionVersionError, ValueError) as error:
            problem = ReleaseProblem(None, str(error))
        else:
            return None
        self._report(problem, before)
        return problem

    def _refresh_production(self) -> None:
        version = self._registry.find_production_version(RELEASE_MODEL)
        if self.current is None or self.current.version != version:
            self.current = self._load(version)
            show_release(str(version))

    def _refresh_candidate(self) -> None:
        rollout = self._registry.find_rollout(RELEASE_MODEL)
        if rollout is None:
            self.candidate = None
        elif self.candidate is None or self.candidate.rollout != rollout:
            self.candidate = Candidate(rollout, self._load(rollout.version))
            log.info("candidate taken up", release=rollout.version, rollout=rollout.describe())

    def _load(self, version: int) -> Release:
        if version in self._rejected:
            # A version never changes: what was rejected once stays rejected.
            raise _LoadError(version, self._rejected[version])
        if version not in self._loaded:
            self._loaded[version] = self._download(version)
        self._loaded.move_to_end(version)
        self._forget_oldest(keep=version)
        return self._loaded[version]

    def _download(self, version: int) -> Release:
        try:
            release = load_release(self._registry, version, self._keys)
        except ReleaseRejectedError as error:
            self._rejected[version] = str(error)
            raise _LoadError(version, str(error)) from error
        log.info("release loaded", release=version, members=sorted(release.members))
        return release

    def _forget_oldest(self, keep: int) -> None:
        in_use = {keep, self.current.version if self.current else keep}
        spare = [version for version in self._loaded if version not in in_use]
        while len(self._loaded) > self._cache_size and spare:
            del self._loaded[spare.pop(0)]

    def _report(self, problem: ReleaseProblem, before: ReleaseProblem | None) -> None:
        if problem == before:
            return
        serving = self.current.version if self.current else None
        log.error(
            "release not loaded",
            release=problem.version,
            still_serving=serving,
            reason=problem.reason,
        )
        RELEASE_LOAD_FAILURES.inc()

    def _watch(self) -> None:
        while not self._stop.wait(self._choose_pause()):
            try:
                self.refresh()
            # The thread must outlive any error, or no later release is ever loaded.
            except Exception as error:
                log.error("looking for a new release failed", error=describe_error(error))
                self.problem = ReleaseProblem(None, "looking for a new release failed")

    def _choose_pause(self) -> float:
        """Return the seconds until the next look: few while nothing can answer."""
        if self.current is None:
            return min(self._poll_seconds, SECONDS_WITHOUT_RELEASE)
        return self._poll_seconds


class _LoadError(Exception):
    """A version that must not be served."""

    def __init__(self, version: int, reason: str) -> None:
        super().__init__(reason)
        self.version = version
        self.reason = reason
