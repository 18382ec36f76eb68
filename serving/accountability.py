"""What a worker holds to account for what it does: tokens, consents, audit trail, signatures."""

from dataclasses import dataclass
from typing import Self

from sqlalchemy import Engine

from serving.audit.checkpoints import CheckpointStore
from serving.audit.jobs import VerificationJobs
from serving.audit.sealer import Sealer
from serving.audit.signing import KeyRing, Signer, make_key_ring
from serving.audit.trail import UnauthenticatedBudget
from serving.auth.openid import OpenIdProvider, open_provider
from serving.auth.revocations import Revocations
from serving.auth.verifier import TokenVerifier
from serving.consent.in_force import ConsentCache
from serving.database.changes import ChangeListener
from serving.queue_metrics import QueueMetrics
from serving.reviews.crisis_notices import NoticeSender
from serving.settings import Settings


@dataclass(frozen=True)
class Accountability:
    """`keys` are the public keys whose signatures count, retired ones included."""

    changes: ChangeListener
    consents: ConsentCache
    tokens: TokenVerifier
    signer: Signer
    keys: KeyRing
    checkpoints: CheckpointStore
    sealer: Sealer
    unauthenticated: UnauthenticatedBudget
    queue_metrics: QueueMetrics
    notices: NoticeSender
    verifications: VerificationJobs
    provider: OpenIdProvider | None

    @classmethod
    def make(cls, settings: Settings, engine: Engine) -> Self:
        changes = ChangeListener(engine.url)
        signer = Signer(settings.audit_signing_key.get_secret_value())
        webhook = settings.alert_webhook_url
        checkpoints = CheckpointStore(settings.audit_checkpoint_url)
        keys = make_key_ring(settings)
        seconds = settings.audit_seal_seconds, settings.audit_checkpoint_seconds
        return cls(
            changes=changes,
            consents=ConsentCache(changes),
            tokens=TokenVerifier(settings, Revocations(engine, changes)),
            signer=signer,
            keys=keys,
            checkpoints=checkpoints,
            sealer=Sealer(engine, checkpoints, signer, *seconds),
            unauthenticated=UnauthenticatedBudget(),
            queue_metrics=QueueMetrics(engine, settings.enable_drift_monitoring),
            verifications=VerificationJobs(
                engine, settings.database_url.get_secret_value(), checkpoints, keys
            ),
            provider=open_provider(settings),
            notices=NoticeSender(engine, webhook.get_secret_value() if webhook else None),
        )

    def start(self) -> None:
        self.changes.start()
        self.notices.start()
        self.sealer.start()

    def stop(self) -> None:
        """Seal what was recorded last, so: after everything that records."""
        self.changes.stop()
        self.notices.stop()
        self.sealer.stop()
