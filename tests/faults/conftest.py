"""Worlds of their own for flows that are killed: nobody else's test reads them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine

from infra.local.postgres import PostgresServer
from tests.fixtures.trained_world import (
    enter_environment,
    forget_settings,
    import_libraries,
    make_variables,
    write_small_drop,
)


@dataclass(frozen=True)
class World:
    """An empty world: its environment, its folder, its database."""

    folder: Path
    variables: dict[str, str]
    engine: Engine

    @property
    def lake_url(self) -> str:
        return self.variables["LAKE_URL"]


@pytest.fixture(scope="session")
def small_drop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_drop(tmp_path_factory.mktemp("faults") / "drop", people=150)


@pytest.fixture
def make_empty_world(
    postgres: PostgresServer,
    prefect_server: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Any]:
    """Make empty worlds; this process's environment is that of the newest."""
    import_libraries()
    engines = []

    def make(name: str) -> World:
        folder = tmp_path / name
        folder.mkdir()
        variables = make_variables(postgres, folder)
        enter_environment(monkeypatch, variables)
        engines.append(create_engine(variables["DATABASE_URL"]))
        return World(folder, variables, engines[-1])

    yield make
    for engine in engines:
        engine.dispose()
    forget_settings()


@pytest.fixture
def world(make_empty_world: Any) -> World:
    made: World = make_empty_world("world")
    return made
