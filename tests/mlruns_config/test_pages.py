"""Links into MLflow open its view of machine learning."""

import re
from pathlib import Path

from mlruns_config.pages import VIEW, locate_model, locate_run, locate_version

PROJECT = Path(__file__).parents[2]
ROOMS = ("feature_repo", "flows", "infra", "mlruns_config", "monitoring", "serving")
#: A route of MLflow's pages, as an address has it.
ROUTE = re.compile(r"#/(experiments|models|runs)\b")


def test_each_page_asks_for_the_view_of_machine_learning():
    host = "http://mlflow:5000/"
    assert locate_run("7", "abc", host=host) == f"{host}#/experiments/7/runs/abc?{VIEW}"
    assert locate_run("7", "abc", "plots/roc.png").endswith(f"/artifacts/plots/roc.png?{VIEW}")
    assert locate_version("mhras-risk", 3) == f"#/models/mhras-risk/versions/3?{VIEW}"
    assert locate_model("mhras-risk", host) == f"{host}#/models/mhras-risk?{VIEW}"


def test_no_other_file_writes_an_address_of_a_page():
    written = [
        str(path.relative_to(PROJECT))
        for room in ROOMS
        for path in (PROJECT / room).rglob("*")
        if path.suffix in (".py", ".html", ".j2", ".yaml") and ROUTE.search(path.read_text())
    ]
    assert written == ["mlruns_config/pages.py"]
