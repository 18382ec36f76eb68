"""The release in a few rules: a small regression tree fitted to the release's estimates.

A global surrogate (Craven & Shavlik 1996, "Extracting tree-structured representations of
trained networks"): it explains the release, not the people, and says how much of it.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from sklearn.tree import DecisionTreeRegressor

from flows.datasets.rows import Matrix, Probabilities
from flows.datasets.training_set import TrainingSet
from flows.models.assembly import predict_release
from flows.models.levers import describe_levers
from flows.models.member import FittedMember
from mlruns_config.manifest import BEYOND_ALL, Condition, ReleaseManifest, Rule, Surrogate

Step = tuple[int, bool]  # node, whether to its right

#: More rules than this are not readable.
MAX_RULES = 12
#: A rule covers at least this share of the rows it was made from.
MIN_SHARE = 0.02


def explain_manifest(
    manifest: ReleaseManifest,
    training_set: TrainingSet,
    members: Mapping[str, FittedMember],
    seed: int,
) -> ReleaseManifest:
    """Return the manifest with its levers and its surrogate rules."""
    fitting, unseen = (
        training_set.rows.select(chosen)
        for chosen in (training_set.split.fitting, training_set.split.stopping)
    )
    tree = fit_surrogate(fitting.features, predict_release(members, manifest, fitting), seed)
    probabilities = predict_release(members, manifest, unseen)
    added = {
        "levers": describe_levers(manifest.features),
        "surrogate": describe_surrogate(
            tree, list(manifest.columns), unseen.features, probabilities
        ),
    }
    return manifest.model_copy(update=added)


def fit_surrogate(
    features: Matrix, probabilities: Probabilities, seed: int
) -> DecisionTreeRegressor:
    """Fit the tree to the release's probabilities of these rows.

    Float64 [rows] probabilities of [rows, columns].
    """
    tree = DecisionTreeRegressor(
        max_leaf_nodes=MAX_RULES, min_samples_leaf=MIN_SHARE, random_state=seed
    )
    return tree.fit(features, probabilities)


def describe_surrogate(
    tree: DecisionTreeRegressor,
    names: Sequence[str],
    features: Matrix,
    probabilities: Probabilities,
) -> Surrogate:
    """Write a tree as rules; its fidelity is measured on these rows, which it has not seen."""
    rules = [_describe_leaf(tree, leaf, path, names) for leaf, path in _walk(tree)]
    return Surrogate(rules=rules, fidelity=float(tree.score(features, probabilities)))


def _walk(tree: DecisionTreeRegressor) -> Iterator[tuple[int, list[Step]]]:
    """Yield every leaf with the steps that lead to it."""
    children = tree.tree_.children_left, tree.tree_.children_right
    waiting: list[tuple[int, list[Step]]] = [(0, [])]
    while waiting:
        node, path = waiting.pop()
        left, right = int(children[0][node]), int(children[1][node])
        if left == right:  # both -1: a leaf
            yield node, path
        else:
            waiting += [(right, [*path, (node, True)]), (left, [*path, (node, False)])]


def _describe_leaf(
    tree: DecisionTreeRegressor, leaf: int, path: list[Step], names: Sequence[str]
) -> Rule:
    inner = tree.tree_
    share = inner.weighted_n_node_samples[leaf] / inner.weighted_n_node_samples[0]
    return Rule(
        conditions=[_describe_step(tree, step, names) for step in path],
        probability=float(np.clip(inner.value[leaf, 0, 0], 0, 1)),
        share=float(share),
    )


def _describe_step(tree: DecisionTreeRegressor, step: Step, names: Sequence[str]) -> Condition:
    node, to_the_right = step
    missing_goes_right = not tree.tree_.missing_go_to_left[node]
    return Condition(
        feature=names[tree.tree_.feature[node]],
        # A split of the known from the unknown has an infinite threshold; JSON has none.
        threshold=float(np.clip(tree.tree_.threshold[node], -BEYOND_ALL, BEYOND_ALL)),
        above=to_the_right,
        if_missing=missing_goes_right == to_the_right,
    )
