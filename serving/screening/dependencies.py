"""What a screening uses of the worker that answers it."""

import asyncio
from dataclasses import dataclass

from sqlalchemy import Engine

from serving.http.load import LoadLimit
from serving.releases.watcher import ReleaseWatcher
from serving.scoring.assessment import ExplanationOptions
from serving.screening.composition import Thresholds
from serving.screening.consents import ConsentGateway
from serving.screening.recorder import Recorder
from serving.screening.shadow import ShadowScorer
from serving.screening.stored_features import FeatureGateway
from serving.settings import Settings


@dataclass(frozen=True)
class ScreeningDependencies:
    settings: Settings
    engine: Engine
    consents: ConsentGateway
    releases: ReleaseWatcher
    features: FeatureGateway
    recorder: Recorder
    shadow: ShadowScorer
    load: LoadLimit
    #: Shared by all batches of the worker, so that single requests keep their share.
    batch_room: asyncio.Semaphore
    thresholds: Thresholds
    explanations: ExplanationOptions
