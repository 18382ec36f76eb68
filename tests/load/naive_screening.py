"""A screening as one would write it first: plain library calls, data frames, Feast, the ORM.

The linear member and the isolation forest are scikit-learn's own, as they would be pickled; the
others go through MLflow's pyfunc. Like a screening it gives reasons, and for those not in the
lowest band what would lower the estimate.

`python -m tests.load.naive_screening ROUNDS` prints the CPU milliseconds each takes, in a
process that the environment points at a running stack.
"""

import os
import sys
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from time import process_time
from typing import Any

import jwt
import mlflow
import numpy as np
import pandas as pd
import shap
from fastapi.encoders import jsonable_encoder
from sklearn.ensemble import IsolationForest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sqlalchemy import select
from sqlalchemy.orm import Session

from feature_repo.catalogue import list_model_inputs
from feature_repo.feast_library import FeatureStore
from feature_repo.online import Answers, make_request_fields
from feature_repo.online_store import REPOSITORY
from feature_repo.screening_v1 import screening_v1
from feature_repo.stored_views import JOIN_KEY
from feature_repo.weekly_sequence import SEQUENCE_CHANNELS, SEQUENCE_WEEKS
from mlruns_config.manifest import MemberPin
from mlruns_config.registry.transitions import open_registry, read_manifest
from serving.database.sessions import create_database_engine
from serving.database.tables import AuditRow, Consent, Prediction

ANSWERS = [2, 1, 2, 1, 1, 0, 1, 1, 0]


class NaiveService:
    """Everything loaded once at start; each request goes the long way."""

    def __init__(self) -> None:
        self.engine = create_database_engine(os.environ["DATABASE_URL"])
        tracking_uri = os.environ["MLFLOW_TRACKING_URI"]
        mlflow.set_tracking_uri(tracking_uri)
        registry = open_registry(tracking_uri, self.engine)
        version = registry.client.get_model_version_by_alias("mhras-risk", "production").version
        self.manifest = read_manifest(registry, int(version))
        self.names = [column.name for column in list_model_inputs()]
        self.models = {
            pin.name: (pin, mlflow.pyfunc.load_model(locate_member(pin)))
            for pin in self.manifest.members
            if pin.name not in ("logistic_regression", "isolation_forest")
        }
        self.linear, self.forest = fit_with_scikit_learn(self.names)
        self.store = FeatureStore(repo_path=str(REPOSITORY))
        self.service = self.store.get_feature_service(screening_v1.name)
        self.explainer = shap.TreeExplainer(self._load_booster())
        self.secret = os.environ["JWT_SECRET_KEY"]
        now = datetime.now(UTC)
        claims = {"sub": "bench", "exp": now + timedelta(hours=1)}
        self.token = jwt.encode(claims, self.secret, "HS256")

    def screen(self, anonymized_id: str) -> dict[str, Any]:
        jwt.decode(self.token, self.secret, algorithms=["HS256"])
        with Session(self.engine) as session:
            session.scalars(select(Consent).where(Consent.anonymized_id == anonymized_id)).all()
        row, weeks = self._read_features(anonymized_id)
        outputs = {name: float(said[0]) for name, said in self._predict(row, weeks).items()}
        self.explainer.shap_values(row)
        answer = {"prediction_id": uuid.uuid4(), "anonymized_id": anonymized_id, "outputs": outputs}
        if outputs["lightgbm"] > self.manifest.score_map.probabilities[1]:
            answer["lower"] = self._find_what_lowers(row, weeks)
        self._record(answer)
        return jsonable_encoder(answer)

    def _predict(self, row: np.ndarray, weeks: np.ndarray) -> dict[str, np.ndarray]:
        frame, given = pd.DataFrame(row, columns=self.names), {"features": row, "sequence": weeks}
        return {
            name: np.ravel(model.predict(pick(pin, given))["probability"])
            for name, (pin, model) in self.models.items()
        } | {
            "logistic_regression": self.linear.predict_proba(frame)[:, 1],
            "isolation_forest": self.forest.score_samples(frame.fillna(0)),
        }

    def _find_what_lowers(self, row: np.ndarray, weeks: np.ndarray) -> float:
        """Try each lever at five values, then the best one together with each other."""
        levers = self.manifest.levers
        best = row
        for _ in range(2):
            tried = np.repeat(best, 5 * len(levers), axis=0)
            for n, lever in enumerate(levers):
                for column in lever.columns:
                    values = np.linspace(lever.low, lever.high, 5)
                    tried[5 * n : 5 * n + 5, self.names.index(column)] = values
            said = self._predict(tried, np.repeat(weeks, len(tried), axis=0))["lightgbm"]
            best = tried[[int(np.argmin(said))]]
        return float(said.min())

    def _load_booster(self) -> Any:
        import lightgbm

        pin = next(pin for pin in self.manifest.members if pin.name == "lightgbm")
        folder = mlflow.artifacts.download_artifacts(locate_member(pin))
        return lightgbm.Booster(model_file=f"{folder}/model.txt")

    def _read_features(self, anonymized_id: str) -> tuple[np.ndarray, np.ndarray]:
        asked = make_request_fields(Answers(datetime.now(UTC), ANSWERS))
        found = self.store.get_online_features(
            features=self.service, entity_rows=[{JOIN_KEY: anonymized_id, **asked}]
        ).to_df()
        row = found[self.names].astype(np.float32).to_numpy()
        weeks = np.stack(
            [
                np.asarray(value if value is not None else [np.nan] * SEQUENCE_WEEKS, np.float32)
                for value in (found[f"weekly_{name}"].iloc[0] for name in SEQUENCE_CHANNELS)
            ],
            axis=1,
        )
        return row, weeks[None]

    def _record(self, answer: dict[str, Any]) -> None:
        now = datetime.now(UTC)
        with Session(self.engine) as session:
            session.add(
                Prediction(
                    id=answer["prediction_id"],
                    anonymized_id=answer["anonymized_id"],
                    created_at=now,
                    user_id="bench",
                    risk_score=1.0,
                    risk_band="low",
                    confidence=1.0,
                    needs_review=False,
                    review_reasons=[],
                    arm="production",
                    answer={},
                    inputs={},
                )
            )
            session.commit()
            session.add(
                AuditRow(
                    created_at=now,
                    event_type="screening_request",
                    user_id="bench",
                    user_role="clinician",
                    anonymized_id=answer["anonymized_id"],
                    data_types=[],
                    action="generate_risk_score",
                    result="success",
                    details={},
                )
            )
            session.commit()


def fit_with_scikit_learn(names: list[str]) -> tuple[Any, Any]:
    """Fit both on rows of noise: what a prediction costs does not depend on what was learnt."""
    draw = np.random.default_rng(7)
    rows = pd.DataFrame(draw.normal(size=(2000, len(names))), columns=names)
    steps = (SimpleImputer(add_indicator=True), StandardScaler(), LogisticRegression())
    forest = IsolationForest(n_estimators=200, random_state=7)
    return make_pipeline(*steps).fit(rows, draw.random(2000) < 0.1), forest.fit(rows)


def pick(pin: MemberPin, given: Mapping[str, np.ndarray]) -> np.ndarray | dict[str, np.ndarray]:
    """Return what a member takes: an array, or several by name."""
    if len(pin.inputs) == 1:
        return given[pin.input]
    return {name: given[name] for name in pin.inputs}


def locate_member(pin: MemberPin) -> str:
    return f"models:/{pin.registered_model}/{pin.version}"


def main(rounds: int, individuals: list[str]) -> None:
    service = NaiveService()
    for one in individuals[:5]:
        service.screen(one)
    begun = process_time()
    for n in range(rounds):
        service.screen(individuals[n % len(individuals)])
    print(1000 * (process_time() - begun) / rounds)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2].split(","))
