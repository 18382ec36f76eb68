"""The parts of a screening by themselves: what no arrangement of them could go below.

`python -m tests.load.screening_parts INDIVIDUALS` prints one JSON object of CPU milliseconds, in
a process that the environment points at a running stack.
"""

import json
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import cycle
from time import process_time

from feature_repo.online import Answers, open_reader
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
from serving.scoring.estimate import find_pattern
from serving.scoring.loaded_release import Release
from serving.screening.composition import compose_answer, read_thresholds
from serving.screening.recorder import write_records
from serving.screening.records import Caller, make_record
from serving.settings import load_settings

ROUNDS = 300
EVERYTHING = frozenset({"survey", "wearable", "emr"})
ANSWERS = [1, 2, 1, 1, 2, 1, 0, 1, 0]


def measure(call: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Return the CPU milliseconds of one call."""
    for _ in range(20):
        call()
    begun = process_time()
    for _ in range(rounds):
        call()
    return 1000 * (process_time() - begun) / rounds


def measure_parts(individuals: list[str]) -> dict[str, float]:
    settings = load_settings()
    registry = Registry(settings.mlflow_tracking_uri, settings.mlflow_login)
    release = load_release(registry, registry.find_production_version(RELEASE_MODEL))
    reader, views = open_reader(2), release.manifest.stored_views
    engine = create_single_engine(settings.database_url.get_secret_value(), 5)
    secret = settings.jwt_secret_key.get_secret_value()
    token = issue_token(secret, "bench", Role.CLINICIAN, timedelta(minutes=10))
    people = cycle(individuals)
    row = reader.fetch(views, individuals[:1])[individuals[0]]
    case = Case(Answers(datetime.now(UTC), ANSWERS), EVERYTHING, row)
    inputs = assemble_inputs(release, case.see_features(release), EVERYTHING)
    assessment = assess(release, case, ExplanationOptions())
    rules = load_severity_rules()
    findings = case.apply_rules(release, rules)
    pattern = find_pattern(release.manifest, inputs.vector, assessment.missing_data)
    outputs, total = score(release, inputs, case), find_total(assessment.features)
    thresholds = read_thresholds(settings)
    caller = Caller(Principal("bench", Role.CLINICIAN), "bench", time.monotonic() + 3600)

    def answer() -> object:
        return compose_answer(individuals[0], findings, assessment, [], thresholds)

    def make() -> object:
        said = answer().model_copy(update={"prediction_id": uuid.uuid4()})
        seen = describe_inputs(assessment, case.answers)
        return make_record(said, caller, EVERYTHING, "production", seen)

    def make_estimate() -> object:
        return estimate(release.manifest, outputs, assessment.missing_data, pattern, total)

    tabular = keep_members(release, "features")
    networks = keep_members(release, "sequence")
    return {
        "token, verified (PyJWT)": measure(lambda: read_token(token, secret)),
        "features of one, one query": measure(lambda: reader.fetch(views, [next(people)])),
        "features seen against answers": measure(lambda: replace(case).see_features(release)),
        "crisis and severity rules": measure(lambda: case.apply_rules(release, rules)),
        "tabular members": measure(lambda: predict_members(tabular, inputs, {})),
        "sequence members, if live": measure(lambda: predict_members(networks, inputs, {})),
        "refits and forest": measure(
            lambda: (predict_refits(release, inputs), release.measure_unfamiliarity(inputs))
        ),
        "estimates of both outcomes": measure(make_estimate),
        "counterfactuals": measure(
            lambda: find_counterfactuals(release, inputs, assessment.estimate, pattern)
        ),
        "reasons": measure(lambda: explain_release(release, inputs.vector)),
        "answer composed and encoded": measure(lambda: answer().model_dump_json()),
        "three rows, durable, one commit": measure(lambda: write_records(engine, [make()])),
    }


def keep_members(release: Release, given: str) -> Release:
    """Return the release with the members alone whose graph takes `given` first."""
    members = {name: one for name, one in release.members.items() if one.pin.input == given}
    return replace(release, members=members)


if __name__ == "__main__":
    print(json.dumps(measure_parts(sys.argv[1].split(","))))
