"""What a worker holds while it runs."""

from dataclasses import dataclass

from sqlalchemy import Engine

from serving.accountability import Accountability
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
