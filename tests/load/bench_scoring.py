"""What scoring one individual costs: the graphs serving runs beside the libraries' own calls.

Both are measured in turn in the same run, so the ratios hold on a busy machine.
"""

import numpy as np
import pandas as pd
from lightgbm import LGBMClassifier
from sklearn.ensemble import IsolationForest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from feature_repo.catalogue import list_model_inputs
from feature_repo.weekly_sequence import SEQUENCE_CHANNELS, SEQUENCE_WEEKS
from flows.datasets.rows import ModelRows
from flows.datasets.training_set import FUTURE_WEEKS
from flows.models.families import FAMILIES, TABULAR_FAMILIES, UNFAMILIARITY, load_families
from flows.models.member import GRAPH_OUTPUT, FittingData, choose_input, open_graph
from mlruns_config.uncertainty import UNFAMILIARITY_OUTPUT
from tests.load.timing import measure_pairs, print_table

ROWS = 1500


def draw_data(rows: int = ROWS, seed: int = 7) -> FittingData:
    """Draw rows of the product's width whose outcome depends on a few of the columns."""
    rng = np.random.default_rng(seed)
    names = tuple(column.name for column in list_model_inputs())
    features = rng.normal(size=(rows, len(names))).astype(np.float32)
    sequences = rng.normal(size=(rows, SEQUENCE_WEEKS, len(SEQUENCE_CHANNELS)))
    labels = rng.random(rows) < 1 / (1 + np.exp(2 - features[:, 9] - features[:, 12]))
    features[rng.random(features.shape) < 0.2] = np.nan
    both = ModelRows(features, sequences.astype(np.float32))
    futures = rng.integers(0, 28, (rows, FUTURE_WEEKS)).astype(np.float32)
    return FittingData(names, both, labels, futures, both, labels, futures, seed)


def fit_naive(data: FittingData) -> dict[str, object]:
    """Fit what one would write first: pipelines over data frames."""
    frame = pd.DataFrame(data.rows.features, columns=data.names)
    linear = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression(max_iter=500))
    forest = make_pipeline(SimpleImputer(), IsolationForest(n_estimators=200, random_state=7))
    return {
        "logistic_regression": linear.fit(frame, data.labels),
        "lightgbm": LGBMClassifier(n_estimators=150, n_jobs=1, verbose=-1).fit(frame, data.labels),
        "isolation_forest": forest.fit(frame),
    }


def main() -> None:
    data = draw_data()
    one = data.rows.select(np.array([0]))
    frame = pd.DataFrame(one.features, columns=data.names)
    naive = fit_naive(data)
    rows = []
    for name, fit in load_families(FAMILIES).items():
        member = fit(data)
        session = open_graph(member.export_graph())
        output = UNFAMILIARITY_OUTPUT if name == UNFAMILIARITY else GRAPH_OUTPUT
        given = choose_input(session, one)
        library = _choose_library_call(naive.get(name), member, one, frame)
        graph, own = measure_pairs(lambda s=session, o=output, g=given: s.run([o], g), library)
        how = "pipeline over a DataFrame" if name in TABULAR_FAMILIES else "network in its library"
        rows.append((name, how, own, graph))
    print_table("Scoring one individual, one thread", "library", "graph", rows)


def _choose_library_call(naive, member, one, frame):  # type: ignore[no-untyped-def]
    if naive is None:
        return lambda: member.predict(one)
    score = getattr(naive, "predict_proba", None) or naive.score_samples
    return lambda: score(frame)


if __name__ == "__main__":
    main()
