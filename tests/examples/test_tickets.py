"""The tickets of the example are neither easy nor hopeless, and its oracle is good, not perfect."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

FOLDER = Path(__file__).parents[2] / "examples" / "tickets"


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The modules of the example, with their data in a folder of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        import make_data
        import oracle

        data = tmp_path_factory.mktemp("tickets")
        for module in (make_data, oracle):
            patch.setattr(module, "DATA", data)
        make_data.main()
        yield data, oracle
        oracle.read_tickets.cache_clear()


@pytest.fixture(scope="module")
def splits(example):
    return {path.stem: pd.read_parquet(path) for path in example[0].glob("*.parquet")}


@pytest.fixture(scope="module")
def answers(example, splits):
    """The oracle's probabilities of the held-out tickets."""
    judge, classes = example[1].judge, list(example[1].read_classes())
    likely = [judge(text, classes) for text in splits["held_out"]["text"]]
    return pd.DataFrame(likely, columns=classes)


def test_the_splits_share_no_ticket_and_hide_what_they_must(splits):
    used = [splits[name] for name in ("train", "validation", "transfer", "held_out")]
    assert [len(rows) for rows in used] == [400, 300, 3000, 1000]
    texts = pd.concat(used)["text"]
    assert texts.is_unique
    assert list(splits["transfer"].columns) == ["text"]
    assert splits["train"]["label"].nunique() == 15


def test_words_on_gold_are_far_from_enough(splits):
    words = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(C=30))
    words.fit(splits["train"]["text"], splits["train"]["label"])
    accuracy = words.score(splits["held_out"]["text"], splits["held_out"]["label"])
    assert 0.68 < accuracy < 0.8


def test_the_oracle_is_right_nearly_always_and_says_the_same_again(example, answers, splits):
    held_out = splits["held_out"]
    assert 0.94 < (answers.idxmax(axis=1) == held_out["label"]).mean() < 0.98
    again = example[1].judge(held_out["text"][0], list(answers.columns))
    assert np.allclose(again, answers.iloc[0])


def test_the_oracle_answers_in_the_order_it_is_asked_and_knows_texts_it_has_not_seen(example):
    judge, classes = example[1].judge, list(example[1].read_classes())
    text = "my parcel is still not here, where is it?"
    forward, backward = judge(text, classes), judge(text, classes[::-1])
    assert forward == pytest.approx(backward[::-1])
    assert classes[int(np.argmax(forward))] == "late_delivery"
