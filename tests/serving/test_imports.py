"""A worker stays small: what training needs is never imported by serving."""

import json
import subprocess
import sys

FORBIDDEN = (
    "torch",
    "pytorch_forecasting",
    "prefect",
    "great_expectations",
    "evidently",
    "mlflow",
    "pandas",
    "sklearn",
    "lightgbm",
    "shap",
    "polars",
    "feast",
    "flows",
    # Where no identity provider is set.
    "authlib",
)
PROBE = """
import json, sys
import serving.app, serving.scoring.explainers, serving.auth.tokens
serving.scoring.explainers._load_lightgbm()
print(json.dumps(sorted(name.partition(".")[0] for name in sys.modules)))
"""


def test_serving_imports_nothing_that_only_training_needs():
    command = [sys.executable, "-c", PROBE]
    result = subprocess.run(command, capture_output=True, text=True, check=True)

    assert set(json.loads(result.stdout)) & set(FORBIDDEN) == set()
