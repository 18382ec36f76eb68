"""The parts of a screening by themselves: what no arrangement of them could go below.

`python -m tests.load.screening_parts INDIVIDUALS` prints one JSON object of CPU milliseconds, in
a process that the environment points at a running stack: of each part alone, in a loop, and of
all in turn. A request runs them in turn, so none finds its code and data in the processor's caches.
"""

import json
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import cycle
from time import process_time

from feature_repo.online import Answers, open_reader
from feature_repo.stored_views import SEQUENCE_OUTPUTS, StoredRow
from mlruns_config.manifest import RELEASE_MODEL
from mlruns_config.severity import load_severity_rules
from serving.auth.tokens import issue_token, read_token
from serving.database.sessions import create_single_engine
from serving.errors import Principal
from serving.releases.loading import load_release
from serving.releases.registry import Registry
from serving.roles import Role
from serving.scoring.assessment import (
    Case,
    ExplanationOptions,
    assemble_inputs,
    assess,
    describe_inputs,
    explain_release,
    find_total,
    predict_members,
    predict_refits,
    score,
)
from serving.scoring.counterfactuals import find_counterfactuals
from serving.scoring.doubts import estimate
from serving.scoring.estimate import find_pattern, list_missing_data
from serving.scoring.loaded_release import Release
from serving.scoring.sequence_outputs import find_known_embeddings
from serving.screening.answers import ScreeningAnswer
from serving.screening.composition import compose_answer, read_thresholds
from serving.screening.recorder import write_records
from serving.screening.records import Caller, make_record
from serving.settings import load_settings

Part = Callable[[], object]

ROUNDS, WARM_UP = 300, 20
#: Beside the parts: the weeks of a person whose embedding is not stored.
LIVE = "sequence members, if live"
EVERYTHING = frozenset({"survey", "wearable", "emr"})
ANSWERS = [1, 2, 1, 1, 2, 1, 0, 1, 0]


def measure_alone(parts: Mapping[str, Part]) -> dict[str, float]:
    """Return each part's CPU milliseconds in a loop of its own, all it needs in the caches."""
    return {name: measure_in_turn({name: part})[name] for name, part in parts.items()}


def measure_in_turn(parts: Mapping[str, Part]) -> dict[str, float]:
    """Return each part's CPU milliseconds where they follow one another, as in a request."""
    used = dict.fromkeys(parts, 0.0)
    for turn in range(WARM_UP + ROUNDS):
        for name, part in parts.items():
            begun = process_time()
            part()
            used[name] += (process_time() - begun) if turn >= WARM_UP else 0.0
    return {name: 1000 * seconds / ROUNDS for name, seconds in used.items()}


def make_parts(individuals: list[str]) -> dict[str, Part]:
    settings = load_settings()
    registry = Registry(settings.mlflow_tracking_uri, settings.mlflow_login)
    release = load_release(registry, registry.find_production_version(RELEASE_MODEL))
    reader, views = open_reader(2), [*release.manifest.stored_views, SEQUENCE_OUTPUTS]
    engine = create_single_engine(settings.database_url.get_secret_value(), 5)
    secret = settings.jwt_secret_key.get_secret_value()
    token = issue_token(secret, "bench", Role.CLINICIAN, timedelta(minutes=10))
    people = cycle(individuals)
    row = choose_embedded(reader.fetch(views, individuals))
    case = Case(Answers(datetime.now(UTC), ANSWERS), EVERYTHING, row)
    inputs = assemble_inputs(release, case.see_features(release), EVERYTHING)
    assessment = assess(release, case, ExplanationOptions())
    rules = load_severity_rules()
    findings = case.apply_rules(release, rules)
    pattern = find_pattern(release.manifest, inputs.vector, assessment.missing_data)
    outputs, total = score(release, inputs, case), find_total(assessment.features)
    thresholds = read_thresholds(settings)
    caller = Caller(Principal("bench", Role.CLINICIAN), "bench", time.monotonic() + 3600)
    tabular, networks = keep_members(release, "features"), keep_members(release, "sequence")

    def answer() -> ScreeningAnswer:
        return compose_answer(individuals[0], findings, assessment, [], thresholds)

    def record() -> object:
        said = answer().model_copy(update={"prediction_id": uuid.uuid4()})
        seen = describe_inputs(assessment, case.answers)
        return write_records(engine, [make_record(said, caller, EVERYTHING, "production", seen)])

    def use_embeddings() -> object:
        return predict_members(
            networks, inputs, find_known_embeddings(networks, row, inputs.sequence)
        )

    return {
        "token, verified (PyJWT)": lambda: read_token(token, secret),
        "features of one, one query": lambda: reader.fetch(views, [next(people)]),
        "features seen against answers": lambda: replace(case).see_features(release),
        "inputs and missing pattern": lambda: find_pattern(
            release.manifest,
            assemble_inputs(release, case.see_features(release), EVERYTHING).vector,
            list_missing_data(release.manifest, inputs.vector),
        ),
        "crisis and severity rules": lambda: case.apply_rules(release, rules),
        "tabular members": lambda: predict_members(tabular, inputs, {}),
        "sequence members, embedded": use_embeddings,
        "refits and forest": lambda: (
            predict_refits(release, inputs),
            release.measure_unfamiliarity(inputs),
        ),
        "estimates of both outcomes": lambda: estimate(
            release.manifest, outputs, assessment.missing_data, pattern, total
        ),
        "counterfactuals": lambda: find_counterfactuals(
            release, inputs, assessment.estimate, pattern
        ),
        "reasons": lambda: explain_release(release, inputs.vector),
        "answer composed and encoded": lambda: answer().model_dump_json(),
        "three rows, durable, one commit": record,
        LIVE: lambda: predict_members(networks, inputs, {}),
    }


def choose_embedded(rows: Mapping[str, StoredRow]) -> StoredRow:
    """Return the row of a person with stored embeddings, as nearly all people have."""
    return next(
        row for row in rows.values() if any(name.endswith("_embedding") for name in row.values)
    )


def keep_members(release: Release, given: str) -> Release:
    """Return the release with the members alone whose graph takes `given` first."""
    members = {name: one for name, one in release.members.items() if one.pin.input == given}
    return replace(release, members=members)


def main(individuals: list[str]) -> None:
    parts = make_parts(individuals)
    on_the_way = {name: part for name, part in parts.items() if name != LIVE}
    measured = {"alone": measure_alone(parts), "in turn": measure_in_turn(on_the_way)}
    print(json.dumps(measured))


if __name__ == "__main__":
    main(sys.argv[1].split(","))
