"""Save the Production release's trees as MLflow's own LightGBM model, with requests for it.

`python tests/load/save_trees.py FOLDER REQUESTS`
"""

import json
import os
import sys
from pathlib import Path

import lightgbm
import mlflow
import numpy as np
import pandas as pd
from mlflow.models import infer_signature

from mlruns_config.manifest import MEMBER_MODELS


def main(folder: str, requests: str) -> None:
    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    model = MEMBER_MODELS["lightgbm"]
    client = mlflow.MlflowClient()
    version = max(int(one.version) for one in client.search_model_versions(f"name='{model}'"))
    stored = mlflow.artifacts.download_artifacts(f"models:/{model}/{version}")
    booster = lightgbm.Booster(model_file=f"{stored}/model.txt")
    names = booster.feature_name()
    rows = pd.DataFrame(np.random.default_rng(7).normal(size=(200, len(names))), columns=names)
    # With the signature that MLflow's guide asks for: names and types are checked, as here.
    signature = infer_signature(rows, booster.predict(rows))
    mlflow.lightgbm.save_model(booster, folder, signature=signature, pip_requirements=["lightgbm"])
    asked = [{"dataframe_split": row.to_dict(orient="split")} for _, row in rows.groupby(level=0)]
    lines = [json.dumps({"path": "/invocations", "headers": {}, "body": body}) for body in asked]
    Path(requests).write_text("\n".join(lines))


if __name__ == "__main__":
    main(*sys.argv[1:])
