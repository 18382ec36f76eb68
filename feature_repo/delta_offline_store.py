"""Feast's DuckDB offline store, reading Delta tables through `deltalake`.

The stock store needs DuckDB's `delta` extension, which DuckDB downloads at run time:
that fails in a cluster without outbound network. Everything else is Feast's own.
"""

from typing import Any

import ibis
from deltalake import DeltaTable
from feast.data_format import DeltaFormat
from feast.data_source import DataSource
from feast.infra.offline_stores.duckdb import (
    DuckDBOfflineStore,
    DuckDBOfflineStoreConfig,
    _read_data_source,
    _write_data_source,
)
from feast.infra.offline_stores.file_source import FileSource
from feast.infra.offline_stores.ibis import (
    get_historical_features_ibis,
    pull_all_from_table_or_query_ibis,
    pull_latest_from_table_or_query_ibis,
)
from feast.infra.offline_stores.offline_store import RetrievalJob
from ibis.expr.types import Table


class DeltaOfflineStoreConfig(DuckDBOfflineStoreConfig):
    type: str = "feature_repo.delta_offline_store.DeltaOfflineStore"


class DeltaOfflineStore(DuckDBOfflineStore):
    @staticmethod
    def get_historical_features(*args: Any, **kwargs: Any) -> RetrievalJob:
        return get_historical_features_ibis(*args, **_add_access(kwargs))

    @staticmethod
    def pull_all_from_table_or_query(*args: Any, **kwargs: Any) -> RetrievalJob:
        return pull_all_from_table_or_query_ibis(*args, **_add_access(kwargs))

    @staticmethod
    def pull_latest_from_table_or_query(*args: Any, **kwargs: Any) -> RetrievalJob:
        return pull_latest_from_table_or_query_ibis(*args, **_add_access(kwargs))


def read_delta_table(source: DataSource, repo_path: str) -> Table:
    """Return a source's rows as an ibis table; other formats are read as Feast reads them."""
    if isinstance(source, FileSource) and isinstance(source.file_format, DeltaFormat):
        return ibis.memtable(DeltaTable(source.path).to_pyarrow_dataset())
    return _read_data_source(source, repo_path)


def _add_access(arguments: dict[str, Any]) -> dict[str, Any]:
    store = arguments["config"].offline_store  # Feast passes everything by keyword
    return arguments | {
        "data_source_reader": read_delta_table,
        "data_source_writer": _write_data_source,
        "staging_location": store.staging_location,
        "staging_location_endpoint_override": store.staging_location_endpoint_override,
    }
