"""The application: wires settings, database, release and routes."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import Depends, FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.concurrency import run_in_threadpool

from feature_repo.online import open_reader
from feature_repo.online_store import OnlineReader
from monitoring.logging import configure_logging
from serving.accountability import Accountability
from serving.console import assets, cases, persons, queue, reviewer, sessions, sign_in
from serving.console import consents as consent_pages
from serving.console import models as model_pages
from serving.console import screening as screening_form
from serving.console.problems import render_problem
from serving.database.sessions import create_database_engine, create_single_engine
from serving.fhir.client_tokens import ClientVerifier
from serving.fhir.clients import EhrClient, load_clients
from serving.fhir.operation_outcomes import PREFIXES as EHR_PREFIXES
from serving.fhir.operation_outcomes import render_outcome
from serving.http.listening import leave_interrupts_to_the_supervisor
from serving.http.load import LoadLimit
from serving.http.middleware import RequestContext
from serving.http.origins import CrossOrigin
from serving.http.parameters import refuse_repeated_parameters
from serving.http.problems import PAGES, install_problem_handlers
from serving.http.rate_limit import BURST, Allowance, open_rate_limiter
from serving.http.separate_port import MetricsApart
from serving.releases.lineage import ManifestReader
from serving.releases.registry import Registry
from serving.releases.signatures import make_release_keys
from serving.releases.watcher import ReleaseWatcher
from serving.routes import (
    audit_trail,
    cds_services,
    compliance,
    configuration,
    consents,
    crisis_overrides,
    docs,
    drift,
    fhir,
    fhir_records,
    health,
    individuals,
    metrics,
    models,
    predictions,
    reviews,
    root,
    screening,
    tokens,
)
from serving.scoring.assessment import read_explanation_options
from serving.screening.answers import INTENDED_USE
from serving.screening.batch import BATCH_ITEMS_UNDER_WAY
from serving.screening.composition import read_thresholds
from serving.screening.consents import ConsentGateway
from serving.screening.dependencies import ScreeningDependencies
from serving.screening.recorder import Recorder
from serving.screening.shadow import ShadowScorer
from serving.screening.stored_features import FeatureGateway
from serving.services import Services
from serving.settings import Settings, get_settings

#: Part of SCREENING_TIMEOUT that the feature store may use; the rest is for the record.
FEATURE_SHARE = 0.4

#: How long each of the two reads of a manifest may take: a passport without it is better than none.
PASSPORT_SECONDS = 2.0

#: FastAPI's own spans, metrics and logs hold bodies and messages of errors, and an environment
#: variable alone could send them away. What is counted and logged here is monitoring's.
NO_TELEMETRY: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "auto_configure": False,
}

#: A screening makes some thousand objects, nearly all gone with its answer: Python's default of
#: 700 looks for cycles in the middle of each.
OBJECTS_BETWEEN_COLLECTIONS = 20_000


def create_app(settings: Settings, reader: OnlineReader | None = None) -> FastAPI:
    """Return the application; without a `reader` it reads Feast's online store."""
    clients = load_clients(settings.ehr_clients_file)

    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[None]:
        opened = reader or open_reader(FEATURE_SHARE * settings.screening_timeout)
        services = make_services(settings, opened, clients)
        app.state.services = services
        await run_in_threadpool(start_services, services)
        yield
        await run_in_threadpool(stop_services, services)

    app = FastAPI(
        title="MHRAS",
        description=INTENDED_USE,
        version=version("mhras"),
        lifespan=run,
        # Their pages load scripts from elsewhere; nothing here may call out. See routes/docs.py.
        dependencies=[Depends(refuse_repeated_parameters)],
        docs_url=None,
        redoc_url=None,
        telemetry=NO_TELEMETRY,
    )
    origins = sorted({origin for client in clients for origin in client.origins})
    app.add_middleware(CrossOrigin, prefix=cds_services.router.prefix, origins=origins)
    if settings.metrics_port is not None:
        app.add_middleware(MetricsApart, port=settings.metrics_port)
    app.add_middleware(
        RequestContext,
        timeout_seconds=settings.request_timeout,
        screening_seconds=settings.screening_timeout,
    )
    install_problem_handlers(
        app, {PAGES: render_problem, **dict.fromkeys(EHR_PREFIXES, render_outcome)}
    )
    for routes in (
        *(screening, predictions, crisis_overrides, reviews, consents, individuals),
        *(audit_trail, compliance, tokens, models, drift, configuration),
        *(cds_services, fhir, fhir_records, health, metrics, root, docs),
    ):
        app.include_router(routes.router)
    for pages in (
        *(sign_in, queue, cases, screening_form, persons, consent_pages),
        *(reviewer, model_pages, sessions, assets),
    ):
        app.include_router(pages.router)
    return app


def start_worker() -> FastAPI:
    """Return the application of a worker process, configured by the environment."""
    leave_interrupts_to_the_supervisor()
    settings = get_settings()
    configure_logging(settings.log_level, settings.log_format)
    return create_app(settings)


def make_services(
    settings: Settings, reader: OnlineReader, clients: tuple[EhrClient, ...]
) -> Services:
    database_url = settings.database_url.get_secret_value()
    engine = create_database_engine(database_url, settings.screening_timeout)
    thresholds = read_thresholds(settings)
    registry = Registry(settings.mlflow_tracking_uri, settings.mlflow_login)
    accountability = Accountability.make(settings, engine)
    return Services(
        settings=settings,
        engine=engine,
        screening=ScreeningDependencies(
            settings=settings,
            engine=engine,
            consents=ConsentGateway(accountability.consents, engine, settings.screening_timeout),
            releases=ReleaseWatcher(
                registry,
                settings.release_poll_seconds,
                settings.model_cache_size,
                make_release_keys(settings),
            ),
            features=FeatureGateway(reader, FEATURE_SHARE * settings.screening_timeout),
            recorder=Recorder(
                create_single_engine(database_url, settings.screening_timeout),
                create_single_engine(database_url, settings.screening_timeout),
            ),
            batch_room=asyncio.Semaphore(BATCH_ITEMS_UNDER_WAY),
            shadow=ShadowScorer(engine, thresholds),
            load=LoadLimit(settings.max_concurrent_screenings),
            thresholds=thresholds,
            explanations=read_explanation_options(settings),
        ),
        manifests=ManifestReader(
            Registry(settings.mlflow_tracking_uri, settings.mlflow_login, PASSPORT_SECONDS)
        ),
        rates=open_rate_limiter(read_allowance(settings)),
        accountability=accountability,
        ehr_clients=ClientVerifier(clients),
    )


def read_allowance(settings: Settings) -> Allowance:
    return Allowance(settings.rate_limit_per_minute, BURST * settings.rate_limit_per_second)


def start_services(services: Services) -> None:
    services.accountability.start()
    services.screening.releases.start()
    tune_garbage_collection()


def tune_garbage_collection() -> None:
    """Leave what was loaded out of garbage collections: it lives as long as the worker."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)


def stop_services(services: Services) -> None:
    """Stop in the order of need: what writes goes before what it writes to."""
    services.screening.releases.stop()
    services.screening.shadow.close()
    services.screening.recorder.close()
    services.accountability.stop()
    services.screening.features.close()
    services.screening.consents.close()
    services.rates.close()
    services.engine.dispose()
