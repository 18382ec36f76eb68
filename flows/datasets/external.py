"""Labelled rows of a lake beside the own one, with the features known at each index date.

Nothing of it is learnt from. The rows come by the same labels, feature tables and point-in-time
join as those of a training, through a feature store that knows only this lake.
"""

import copy
from pathlib import Path

import polars as pl

from feature_repo import definitions
from feature_repo.catalogue import TABLED_VIEWS
from feature_repo.feast_library import FeatureStore, FeatureView, FileSource, RepoConfig
from feature_repo.feature_tables import locate_feature_table
from feature_repo.online_store import read_store_configuration
from feature_repo.pseudonyms import BUCKET_COUNT
from feature_repo.stored_views import JOIN_KEY
from flows.datasets.labels import find_last_day
from flows.datasets.loading import join_rows, label_bucket
from flows.datasets.unseen import UnseenSet, require_enough
from flows.features.tables import ensure_table
from flows.lake.tables import scan_table


def open_separate_store(folder: Path, lake_url: str) -> FeatureStore:
    """Open a feature store of its own, in `folder`, over the feature tables of a lake."""
    for view in TABLED_VIEWS:
        ensure_table(view, lake_url)
    configuration = RepoConfig(
        project="external",
        provider="local",
        registry={"registry_type": "file", "path": str(folder / "registry.db")},
        offline_store=read_store_configuration()["offline_store"],
        online_store=None,
        entity_key_serialization_version=3,
        repo_path=folder,
    )
    store = FeatureStore(config=configuration)
    declared = [getattr(definitions, name) for name in definitions.__all__]
    store.apply(
        [
            _move(declared_object, lake_url) if _is_stored(declared_object) else declared_object
            for declared_object in declared
        ]
    )
    return store


def _is_stored(declared: object) -> bool:
    return any(declared is view for view in TABLED_VIEWS)


def _move(view: FeatureView, lake_url: str) -> FeatureView:
    """Return a copy of a view whose rows lie in another lake."""
    moved = copy.copy(view)
    source = copy.deepcopy(view.batch_source)
    assert isinstance(source, FileSource)
    source.file_options.uri = locate_feature_table(view.name, lake_url)
    moved.batch_source = source
    return moved


def load_external_set(
    store: FeatureStore, lake_url: str, consented: pl.DataFrame, known_people: pl.Series
) -> UnseenSet:
    """Label the index dates of a lake and join their features, people of `known` left out.

    `consented` says who lets which data types be used for training. Raises NotEnoughLabelsError.
    """
    allowed = consented.filter(~pl.col(JOIN_KEY).is_in(known_people.implode()))
    until = find_last_day(lake_url)
    entities = pl.concat(
        label_bucket(lake_url, bucket, allowed, until).entities for bucket in range(BUCKET_COUNT)
    )
    require_enough_external(entities, known_people.len())
    frame, rows = join_rows(store, entities, allowed)
    people = scan_table(lake_url, "people").select(JOIN_KEY, "sex", "ethnicity").collect()
    return UnseenSet(frame, rows, people, known_people.len())


def require_enough_external(entities: pl.DataFrame, known_people: int) -> None:
    """Raise NotEnoughLabelsError where too little is labelled to assess a release on."""
    which = f"of {entities[JOIN_KEY].n_unique()} individuals who consent to training"
    require_enough(entities, which, _describe_known(known_people))


def _describe_known(known_people: int) -> str:
    if not known_people:
        return ""
    return (
        f"; {known_people} individuals were left out because this state holds data of them (if the "
        "drop uses another organisation's ids, start the run with foreign_ids)"
    )
