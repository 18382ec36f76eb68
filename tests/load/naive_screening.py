"""A screening as one would write it first: pyfunc models, data frames, Feast's SDK, the ORM.

`python -m tests.load.naive_screening ROUNDS` prints the CPU milliseconds each takes, in a
process that the environment points at a running stack.
"""

import os
import sys
import uuid
from datetime import UTC, datetime, timedelta
from time import process_time
from typing import Any

import jwt
import mlflow
import numpy as np
import pandas as pd
import shap
from fastapi.encoders import jsonable_encoder
from feast import FeatureStore
from sqlalchemy import select
from sqlalchemy.orm import Session

from feature_repo.catalogue import list_model_inputs
from feature_repo.individual import JOIN_KEY
from feature_repo.online import REPOSITORY, Answers, make_request_fields
from feature_repo.screening_v1 import screening_v1
from feature_repo.weekly_sequence import SEQUENCE_CHANNELS, SEQUENCE_WEEKS
from mlruns_config.registry import open_registry, read_manifest
from mlruns_config.release import MemberPin
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
        self.models = {
            pin.name: (
                pin,
                mlflow.pyfunc.load_model(f"models:/{pin.registered_model}/{pin.version}"),
            )
            for pin in self.manifest.members
        }
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
        outputs = {
            name: float(
                np.ravel(
                    next(iter(model.predict(weeks if pin.input == "sequence" else row).values()))
                )[0]
            )
            for name, (pin, model) in self.models.items()
        }
        self.explainer.shap_values(row)
        answer = {"prediction_id": uuid.uuid4(), "anonymized_id": anonymized_id, "outputs": outputs}
        self._record(answer)
        return jsonable_encoder(answer)

    def _load_booster(self) -> Any:
        import lightgbm

        pin = next(pin for pin in self.manifest.members if pin.name == "lightgbm")
        folder = mlflow.artifacts.download_artifacts(
            f"models:/{pin.registered_model}/{pin.version}"
        )
        return lightgbm.Booster(model_file=f"{folder}/model.txt")

    def _read_features(self, anonymized_id: str) -> tuple[np.ndarray, np.ndarray]:
        asked = make_request_fields(Answers(datetime.now(UTC), ANSWERS))
        found = self.store.get_online_features(
            features=self.service, entity_rows=[{JOIN_KEY: anonymized_id, **asked}]
        ).to_df()
        names = [column.name for column in list_model_inputs()]
        row = found[names].astype(np.float32).to_numpy()
        weeks = np.stack(
            [
                np.asarray(value if value is not None else [np.nan] * SEQUENCE_WEEKS, np.float32)
                for value in (found[f"weekly_{name}"].iloc[0] for name in SEQUENCE_CHANNELS)
            ],
            axis=1,
        )
        return pd.DataFrame(row, columns=names).to_numpy(np.float32), weeks[None]

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
