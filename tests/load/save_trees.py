"""Save the Production release's trees for MLflow's server and for MLServer, with requests.

`python tests/load/save_trees.py FOLDER`; the names in it are those of `rival_servers.SavedTrees`.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import lightgbm
import mlflow
import numpy as np
import pandas as pd
from mlflow.models import infer_signature

from mlruns_config.manifest import MEMBER_MODELS
from tests.load.rival_servers import SavedTrees


def main(folder: str) -> None:
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
    trees = SavedTrees(Path(folder))
    mlflow.lightgbm.save_model(
        booster, str(trees.model), signature=signature, pip_requirements=["lightgbm"]
    )
    booster.save_model(trees.text)
    split = [row.to_dict(orient="split") for _, row in rows.groupby(level=0)]
    write_requests(trees.invocations, "/invocations", [{"dataframe_split": row} for row in split])
    inputs = [
        {"name": "rows", "shape": [1, len(names)], "datatype": "FP32", "data": row.tolist()}
        for row in rows.to_numpy()
    ]
    write_requests(trees.inferences, "/v2/models/trees/infer", [{"inputs": [i]} for i in inputs])


def write_requests(file: Path, path: str, bodies: list[dict[str, Any]]) -> None:
    lines = [json.dumps({"path": path, "headers": {}, "body": body}) for body in bodies]
    file.write_text("\n".join(lines))


if __name__ == "__main__":
    main(*sys.argv[1:])
