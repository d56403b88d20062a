import shutil
from dataclasses import replace

import mlflow
import numpy as np
import pandas as pd
import pytest
from answering import register, register_words
from broken_server import broken_server
from samples import CLASSES, WORDS

from distill_tasks.config import parse_config
from distill_tasks.core.errors import InputError, PotstillError
from distill_tasks.results.teacher import make_teacher, teacher_context
from distill_tasks.serving.served_model import open_model
from distill_tasks.stages.label import label_rows
from distill_tasks.stages.prepare import check_config
from distill_tasks.teachers.base import ONE_HOT
from distill_tasks.teachers.registered import RegisteredTeacher

pytestmark = pytest.mark.filterwarnings(r"ignore:[\s\S]*An input example was not provided")

TEXTS = [" ".join(words) for words in WORDS.values()]


@pytest.fixture(scope="module")
def registry(empty_mlflow, tmp_path_factory):
    """A registry with a model of scikit-learn, and the folder it lies in."""
    folder = tmp_path_factory.mktemp("registry")
    shutil.copy(empty_mlflow, folder / "mlflow.db")
    register_words(f"sqlite:///{folder}/mlflow.db", folder)
    return folder


@pytest.fixture
def uri(registry):
    return f"sqlite:///{registry}/mlflow.db"


@pytest.fixture
def context(config, corpus, uri):
    return replace(teacher_context(config, corpus), tracking_uri=uri)


def ask(teacher, context, texts=TEXTS):
    rows, logits = zip(*teacher.answers(texts, context), strict=True)
    assert np.concatenate(rows).tolist() == list(range(len(texts)))
    return np.concatenate(logits)


def configure(written, uri, **settings):
    written["teacher"] = {"kind": "mlflow", "model": "models:/words@teacher", **settings}
    written["tracking"] = {"uri": uri}
    written["students"] = [{"family": "bag_of_words"}]
    return parse_config(written, "test")


@pytest.fixture
def echo(registry, uri):
    """Registers a model that answers each text by a function, and returns its address."""

    def log(answer):
        class Echo(mlflow.pyfunc.PythonModel):
            def predict(self, model_input: list[str]):
                return [answer(text) for text in model_input]

        def save(path):
            mlflow.pyfunc.save_model(path, python_model=Echo(), pip_requirements=["mlflow"])

        return f"models:/echo/{register(uri, registry, 'echo', save)}"

    return log


def test_a_model_of_scikit_learn_gives_its_probabilities_though_it_predicts_labels(context, uri):
    logits = ask(RegisteredTeacher(model="models:/words@teacher"), context)
    location = mlflow.MlflowClient(uri, uri).get_model_version_download_uri("words", "1")
    own = mlflow.sklearn.load_model(location)
    np.testing.assert_allclose(logits, np.log(own.predict_proba(TEXTS)), rtol=1e-5)
    backwards = replace(context, corpus=context.corpus.reorder(CLASSES[::-1]))
    np.testing.assert_array_equal(
        ask(RegisteredTeacher(model="models:/words/1"), backwards)[:, ::-1], logits
    )


def test_a_student_of_ours_teaches_by_the_probabilities_it_serves(
    light_folders, context, registry, uri
):
    from distill_tasks.tracking.logged_models import CODE, SIGNATURE

    def save(path):
        mlflow.pyfunc.save_model(
            path,
            python_model=str(CODE / "served_pyfunc.py"),
            artifacts={
                "student": str(light_folders["bag_of_words"]),
                "code": str(CODE / "served_model.py"),
                "text_code": str(CODE / "served_text.py"),
            },
            signature=SIGNATURE,
            pip_requirements=["mlflow"],
        )

    version = register(uri, registry, "ours", save)
    logits = ask(RegisteredTeacher(model=f"models:/ours/{version}"), context)
    answers = open_model(light_folders["bag_of_words"]).answer(TEXTS)
    said = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = [[answer.probabilities[name] for name in CLASSES] for answer in answers]
    np.testing.assert_allclose(said, expected, atol=1e-5)


def test_the_model_is_found_where_runs_are_tracked_and_answers_every_row_once(written, uri):
    config = configure(written, uri)
    corpus = check_config(config)
    teacher = make_teacher(config, corpus)
    assert label_rows(config, corpus, teacher).asked == len(corpus.texts)
    assert label_rows(config, corpus, make_teacher(config, corpus)).asked == 0


def test_a_moved_alias_is_another_teacher_and_the_same_model_by_another_name_is_not(
    context, registry, uri
):
    teacher = RegisteredTeacher(model="models:/moved@teacher")
    register_words(uri, registry, "moved", seed=1)
    first = teacher.identify(context)
    client = mlflow.MlflowClient(uri, uri)
    client.copy_model_version("models:/moved/1", "copied")
    assert RegisteredTeacher(model="models:/copied/1").identify(context) == first
    register_words(uri, registry, "moved", seed=2)
    assert teacher.identify(context) != first
    assert RegisteredTeacher(model="models:/moved/1").identify(context) == first
    with pytest.raises(InputError, match="has become another model during this run"):
        ask(teacher, replace(context, identity=first))


def test_labels_alone_are_told_to_be_one_hot(context, echo):
    teacher = RegisteredTeacher(model=echo(lambda text: "cats" if "purr" in text else "dogs"))
    assert teacher.probe(context) == [ONE_HOT]
    assert ask(teacher, context).argmax(axis=1).tolist() == [0, 1, 1]


def test_numbers_without_names_have_the_order_that_is_set(context, echo):
    model = echo(lambda _: [0.7, 0.2, 0.1])
    assert ask(RegisteredTeacher(model=model), context).argmax(axis=1).tolist() == [0, 0, 0]
    named = RegisteredTeacher(model=model, classes=("dogs", "fish", "cats"))
    assert ask(named, context).argmax(axis=1).tolist() == [1, 1, 1]


def test_a_column_that_the_signature_names_is_given_by_name(context, registry, uri):
    class Named(mlflow.pyfunc.PythonModel):
        def predict(self, model_input: pd.DataFrame):
            return [["cats", "dogs"]["bark" in text] for text in model_input["complaint"]]

    def save(path, columns=("complaint",)):
        from mlflow.models import ModelSignature
        from mlflow.types import ColSpec, DataType, Schema

        inputs = Schema([ColSpec(DataType.string, name) for name in columns])
        mlflow.pyfunc.save_model(
            path,
            python_model=Named(),
            signature=ModelSignature(inputs=inputs),
            pip_requirements=["mlflow"],
        )

    version = register(uri, registry, "named", save)
    logits = ask(RegisteredTeacher(model=f"models:/named/{version}"), context)
    assert logits.argmax(axis=1).tolist() == [0, 1, 0]
    version = register(uri, registry, "named", lambda path: save(path, ("title", "body")))
    with pytest.raises(InputError, match="reads the columns title, body; a teacher is given one"):
        ask(RegisteredTeacher(model=f"models:/named/{version}"), context)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("models:/word/1", r"no model is registered as 'word' \(did you mean 'words'\?\)"),
        ("models:/words@teachr", r"has no 'teachr' \(did you mean 'teacher'\?\).* versions 1 and"),
        ("models:/words/7", "words has no '7'. It has the versions 1 and the aliases teacher"),
    ],
)
def test_an_address_that_names_nothing_ends_the_check_in_one_line(written, uri, model, said):
    with pytest.raises(InputError, match=said) as caught:
        check_config(configure(written, uri, model=model))
    assert "\n" not in str(caught.value)


def test_a_registry_that_cannot_be_reached_is_named(context):
    with broken_server() as address:
        teacher = RegisteredTeacher(model="models:/words/1", uri=address)
        with pytest.raises(InputError, match=f"The registry of models:/words/1, {address}, cannot"):
            teacher.probe(context)


def test_files_that_are_gone_are_told_in_one_line(context, registry, uri):
    version = register_words(uri, registry, "gone")
    location = mlflow.MlflowClient(uri, uri).get_model_version_download_uri("gone", str(version))
    shutil.rmtree(location.removeprefix("file://"))
    with pytest.raises(InputError, match=r"files of models:/gone@teacher cannot be read") as caught:
        RegisteredTeacher(model="models:/gone@teacher").identify(context)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda _: "wolves", "'wolves'.* is no class of the data: cats, dogs, fish"),
        (lambda _: [0.5, 0.5], "have 2 numbers for a text; the data has 3 classes"),
        (lambda _: float("nan"), "have 1 numbers for a text"),
        (lambda _: {}["lost"], "failed: KeyError: 'lost'"),
    ],
)
def test_answers_of_no_use_end_the_check(context, echo, answer, said):
    with pytest.raises(PotstillError, match=said) as caught:
        RegisteredTeacher(model=echo(answer)).probe(context)
    assert "\n" not in str(caught.value)


def test_other_classes_than_the_data_has_are_refused(context, written, uri):
    corpus = context.corpus
    other = replace(corpus, classes=("cats", "dogs", "wolves"))
    with pytest.raises(InputError, match="have the classes cats, dogs, fish; the data has cats"):
        RegisteredTeacher(model="models:/words/1").probe(replace(context, corpus=other))
    with pytest.raises(InputError, match="have the classes cats, wolves; the data has"):
        check_config(configure(written, uri, classes=["cats", "wolves"]))
