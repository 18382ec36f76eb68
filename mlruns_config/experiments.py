"""What MLflow shows of each experiment and registered model above its list.

Without a description a reviewer sees names only.
"""

import mlflow
from mlflow import MlflowClient

from mlruns_config.manifest import MEMBER_MODELS, RELEASE_MODEL

#: Tag that MLflow shows as an experiment's description.
NOTE_TAG = "mlflow.note.content"

TRAINING = "mhras-training"
VALIDATION = "mhras-validation"
DRIFT = "mhras-drift"
EXTERNAL_VALIDATION = "mhras-external-validation"
MEDS_EXPORT = "mhras-meds-export"

EXPERIMENTS = {
    TRAINING: "One run for each training of a release, with a child run for each member: first as "
    "evaluated without the held-out people, then as deployed, fitted on everything. The run has "
    "the model card, plots, group tables and the lineage of the data. Recalibrations are here too.",
    VALIDATION: "One run for each validation of the landed tables by Great Expectations; "
    "`validation.html` is its page. A training names the run that validated its table versions.",
    DRIFT: "One run for each window of screenings compared with the training of the release in "
    "Production: `summary.md` and Evidently's page `drift.html` begin with the column farthest "
    "beyond its bound.",
    EXTERNAL_VALIDATION: "One run for each release assessed on labelled data of another site, "
    "which are neither kept nor learnt from.",
    MEDS_EXPORT: "One run for each export of the people who consent to training as a MEDS dataset.",
}
MODELS = {
    RELEASE_MODEL: "The release: for each outcome a stack of members, calibrated by missing-data "
    "pattern, with the numeric versions of its members pinned. Stages move by "
    "`python -m mlruns_config.registry`, which writes the promotion ledger. "
    '`mlflow.pyfunc.load_model("models:/mhras-risk/Production")` predicts from a table of '
    "features.",
    MEMBER_MODELS["logistic_regression"]: "Member: regression with splines on the symptom scores, "
    "the baseline of every report.",
    MEMBER_MODELS["lightgbm"]: "Member: boosted trees, monotone in symptoms.",
    MEMBER_MODELS["rnn"]: (
        "Member: recurrent network on the weekly sequence and the day's questionnaires."
    ),
    MEMBER_MODELS["tft"]: (
        "Member: temporal fusion transformer on the weekly sequence and the day's questionnaires."
    ),
    MEMBER_MODELS["isolation_forest"]: "Measures how unlike the training data a case is; "
    "estimates no outcome.",
}


def open_experiment(name: str) -> None:
    """Make an experiment the active one, created if needed, with its description."""
    experiment = mlflow.set_experiment(name)
    if experiment.tags.get(NOTE_TAG) != EXPERIMENTS[name]:
        MlflowClient().set_experiment_tag(experiment.experiment_id, NOTE_TAG, EXPERIMENTS[name])


def describe_model(client: MlflowClient, model: str) -> None:
    """Give a registered model its description where it has another one, or none."""
    if client.get_registered_model(model).description != MODELS[model]:
        client.update_registered_model(model, description=MODELS[model])
