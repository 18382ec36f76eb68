"""What a worker holds while it runs."""

from dataclasses import dataclass

from sqlalchemy import Engine

from serving.accountability import Accountability
from serving.fhir.client_tokens import ClientVerifier
from serving.http.rate_limit import RateLimiter
from serving.releases.lineage import ManifestReader
from serving.screening.dependencies import ScreeningDependencies
from serving.settings import Settings


@dataclass(frozen=True)
class Services:
    settings: Settings
    engine: Engine
    screening: ScreeningDependencies
    rates: RateLimiter
    manifests: ManifestReader
    accountability: Accountability
    ehr_clients: ClientVerifier

    def list_stopped_threads(self) -> list[str]:
        """Return the background threads that should run and have ended."""
        held = self.accountability
        threads = {
            **{lane.name: lane.is_alive for lane in self.screening.recorder.lanes},
            "audit-sealer": held.sealer.is_alive,
            "change-listener": held.changes.is_alive,
            "notice-sender": held.notices.is_alive,
            "release-watcher": self.screening.releases.is_alive,
        }
        return [name for name, is_alive in threads.items() if not is_alive]
