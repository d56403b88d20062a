"""A teacher that lies behind a real MLflow server, while runs are tracked elsewhere."""

from dataclasses import replace

import mlflow
import numpy as np
import pytest
from answering import fit_words
from samples import CLASSES, make_rows

from distill_tasks.config import TrackingConfig
from distill_tasks.data.corpus import Corpus, Split
from distill_tasks.results.teacher import teacher_context
from distill_tasks.teachers.registered import RegisteredTeacher
from distill_tasks.tracking.store import connect


@pytest.fixture
def model(mlflow_server):
    """A model of scikit-learn that is logged and registered on the server."""
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    connect(TrackingConfig(uri=mlflow_server, experiment="teachers"))
    model = fit_words()
    with mlflow.start_run():
        mlflow.sklearn.log_model(
            model,
            name="words",
            registered_model_name="words behind http",
            pip_requirements=["scikit-learn"],
        )
    client = mlflow.MlflowClient()
    client.set_registered_model_alias("words behind http", "teacher", "1")
    mlflow.set_tracking_uri(before[0])
    mlflow.set_registry_uri(before[1])
    return model


def test_a_model_behind_a_server_answers_wherever_runs_are_tracked(model, config, mlflow_server):
    rows = make_rows(70, seed=4)
    corpus = Corpus({"train": Split(tuple(rows["text"]), np.full(70, -1))}, CLASSES)
    teacher = RegisteredTeacher(model="models:/words behind http@teacher", uri=mlflow_server)
    context = teacher_context(config, corpus)
    assert context.tracking_uri != mlflow_server
    identity = teacher.identify(context)
    assert identity.startswith("m-")
    elsewhere = RegisteredTeacher(model="models:/words behind http/1")
    assert elsewhere.identify(replace(context, tracking_uri=mlflow_server)) == identity
    batches = teacher.answers(corpus.texts, replace(context, identity=identity))
    logits = np.concatenate([logits for _, logits in batches])
    np.testing.assert_allclose(logits, np.log(model.predict_proba(rows["text"])), rtol=1e-5)
