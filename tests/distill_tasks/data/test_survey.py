import numpy as np
import pandas as pd
import pytest
from samples import make_rows

from distill_tasks.core.errors import InputError
from distill_tasks.data.survey import survey_table

TEXTS = make_rows(60, seed=1)["text"].tolist()


def survey(**columns):
    given = {name: values for name, values in columns.items() if name != "named"}
    return survey_table(pd.DataFrame(given), "rows.csv", **columns.get("named", {}))


def labels(*names):
    return [names[row % len(names)] for row in range(60)]


def test_texts_labels_and_ids_are_told_apart():
    found = survey(
        ticket_id=[f"T{row}" for row in range(60)],
        opened=[f"2026-01-{row:02}" for row in range(60)],
        priority=labels("high", "low"),
        subject=[f"About {text}" for text in TEXTS],
        body=TEXTS,
        category=labels("cats", "dogs", "fish"),
    )
    assert (found.text_columns, found.label_column) == (("subject", "body"), "category")
    assert (found.id_columns, found.other_labels) == (("ticket_id", "opened"), ("priority",))
    assert found.classes == {"cats": 20, "dogs": 20, "fish": 20}
    assert (found.problem, found.label_separator) == ("single_label", None)


def test_empty_cells_repeats_and_long_texts_are_counted():
    texts = [*TEXTS[:50], *TEXTS[:4], "", "  ", None, "one two three", "one two", "one two"]
    gold = [*labels("a", "b")[:58], None, " "]
    found = survey(text=texts, label=gold)
    assert (found.rows, found.empty_texts, found.unlabelled, found.labelled) == (60, 3, 2, 55)
    assert found.repeats == 5
    assert found.long_text == 8


@pytest.mark.parametrize(
    ("cells", "problem", "separator", "classes"),
    [
        (labels("cats|dogs", "fish|dogs", "cats"), "multi_label", "|", {"cats", "dogs", "fish"}),
        (labels("cats, dogs", "dogs", "cats"), "multi_label", ",", {"cats", "dogs"}),
        (labels("a;b", "b;c", "a;c"), "multi_label", ";", {"a", "b", "c"}),
        (labels("Arts, Crafts", "Sports"), "single_label", None, {"Arts, Crafts", "Sports"}),
        ([["cats", "dogs"], ["fish"], []] * 20, "multi_label", None, {"cats", "dogs", "fish"}),
        (labels(1.0, 2.0, np.nan), "single_label", None, {"1", "2"}),
        (labels("1", "01"), "single_label", None, {"1", "01"}),
    ],
)
def test_several_labels_in_a_cell_are_seen_by_what_stands_between(
    cells, problem, separator, classes
):
    found = survey(text=TEXTS, label=cells)
    assert (found.problem, found.label_separator) == (problem, separator)
    assert found.classes.keys() == classes


def test_texts_without_spaces_between_words_are_texts():
    chinese = [f"{'我今天很高兴见到你' * 3}{row}" for row in range(60)]
    assert survey(content=chinese, y=labels("x", "y")).text_columns == ("content",)


def test_columns_that_are_named_are_not_guessed():
    columns = {"note": labels("a b", "c"), "text": TEXTS, "kind": labels("x", "y"), "label": TEXTS}
    named = {"text_columns": ("note",), "label_column": "kind"}
    found = survey(**columns, named=named)
    assert (found.text_columns, found.label_column) == (("note",), "kind")


def test_a_table_may_have_no_labels():
    found = survey(text=TEXTS, author=[f"user{row}" for row in range(60)])
    assert (found.label_column, found.classes, found.unlabelled) == (None, {}, 60)


@pytest.mark.parametrize(
    ("columns", "named", "said"),
    [
        ({"text": []}, {}, "rows.csv has no rows"),
        ({"id": range(9)}, {}, r"no column that looks like texts; it has id\. Name it: --text-col"),
        ({"text": TEXTS}, {"text_columns": ("txt",)}, r"no column 'txt' \(did you mean 'text'\?\)"),
        ({"text": TEXTS}, {"label_column": "gold"}, "no column 'gold'; it has text"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(columns, named, said):
    with pytest.raises(InputError, match=said):
        survey(**columns, named=named)
