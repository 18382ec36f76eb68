"""The application: wires settings, database, release and routes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from monitoring.logging import configure_logging
from serving.answers import INTENDED_USE
from serving.database.sessions import create_database_engine
from serving.features import FeatureGateway, FeatureSource
from serving.middleware import RequestContext
from serving.problems import install_problem_handlers
from serving.registry import Registry
from serving.release_watcher import ReleaseWatcher
from serving.routes import health, metrics, root, screening
from serving.services import Services
from serving.settings import Settings, get_settings

#: Part of SCREENING_TIMEOUT that the feature store may use; the rest is for the record.
FEATURE_SHARE = 0.4


def create_app(settings: Settings, feature_source: FeatureSource | None = None) -> FastAPI:
    """Return the application; without a `feature_source` it reads Feast's online store."""

    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[None]:
        source = feature_source
        if source is None:
            source = await run_in_threadpool(load_feature_source)
        services = make_services(settings, source)
        app.state.services = services
        await run_in_threadpool(services.releases.start)
        yield
        await run_in_threadpool(stop_services, services)

    app = FastAPI(
        title="MHRAS",
        description=INTENDED_USE,
        version=version("mhras"),
        lifespan=run,
        # Their pages load scripts from elsewhere; nothing here may call out.
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(RequestContext)
    install_problem_handlers(app)
    for routes in (screening, health, metrics, root):
        app.include_router(routes.router)
    return app


def start_worker() -> FastAPI:
    """Return the application of a worker process, configured by the environment."""
    settings = get_settings()
    configure_logging(settings.log_level, settings.log_format)
    return create_app(settings)


def make_services(settings: Settings, source: FeatureSource) -> Services:
    registry = Registry(settings.mlflow_tracking_uri)
    database_url = settings.database_url.get_secret_value()
    return Services(
        settings=settings,
        engine=create_database_engine(database_url, settings.screening_timeout),
        releases=ReleaseWatcher(registry, settings.release_poll_seconds),
        features=FeatureGateway(source, FEATURE_SHARE * settings.screening_timeout),
    )


def stop_services(services: Services) -> None:
    services.releases.stop()
    services.features.close()
    services.engine.dispose()


def load_feature_source() -> FeatureSource:
    """Import and return the reader of Feast's online store."""
    # Here, not at the top: Feast takes seconds to import, and tests bring their own source.
    from serving.feast_source import make_feast_source

    return make_feast_source()
