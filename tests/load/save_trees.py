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

from mlruns_config.release import MEMBER_MODELS


def main(folder: str, requests: str) -> None:
    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    model = MEMBER_MODELS["lightgbm"]
    client = mlflow.MlflowClient()
    version = max(int(one.version) for one in client.search_model_versions(f"name='{model}'"))
    stored = mlflow.artifacts.download_artifacts(f"models:/{model}/{version}")
    booster = lightgbm.Booster(model_file=f"{stored}/model.txt")
    mlflow.lightgbm.save_model(booster, folder, pip_requirements=["lightgbm"])
    rows = np.random.default_rng(7).normal(size=(200, booster.num_feature()))
    lines = [
        json.dumps({"path": "/invocations", "headers": {}, "body": {"inputs": [row.tolist()]}})
        for row in rows
    ]
    Path(requests).write_text("\n".join(lines))


if __name__ == "__main__":
    main(*sys.argv[1:])
