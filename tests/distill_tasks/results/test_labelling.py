import pytest
from samples import write_settings, write_splits

from distill_tasks.config import parse_config
from distill_tasks.results.labelling import can_shard, list_shards
from distill_tasks.results.teacher import make_teacher
from distill_tasks.stages.label import label, label_rows
from distill_tasks.stages.prepare import check_config, keep_corpus

TWO = {"kind": "local", "workers": 2}


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"execution": TWO}, True),
        ({}, False),
        ({"execution": TWO, "teacher": {"kind": "saved", "path": "answers.parquet"}}, False),
        ({"execution": TWO, "sample": {"rows": 100, "kind": "uncertain"}}, False),
        ({"execution": TWO, "sample": {"rows": 100}}, True),
    ],
)
def test_shards_are_of_local_models_whose_rows_are_known(quick, ready_teacher, changes, wanted):
    sample = changes.pop("sample", None)
    data = quick["data"] | ({"sample": sample} if sample else {})
    config = parse_config(quick | {"teacher": ready_teacher, "data": data} | changes, "test")
    assert can_shard(config) is wanted


@pytest.mark.slow
def test_rows_are_labelled_in_shards_as_they_are_at_once(tiny_base, ready_teacher, tmp_path):
    written = write_settings(tmp_path, write_splits(tmp_path), tiny_base)
    written |= {"teacher": ready_teacher, "execution": TWO}
    found = []
    for name in ("shards", "at-once"):
        config = parse_config(written | {"work_dir": str(tmp_path / name)}, "test")
        corpus = check_config(config)
        kept, teacher = keep_corpus(config, corpus), make_teacher(config, corpus)
        if name == "shards":
            assert len(list_shards(config, kept, teacher)) == 16
            labels = label.fn(config, kept, teacher)
            assert list_shards(config, kept, teacher) == []
            assert label.fn(config, kept, teacher).reused
        else:
            labels = label_rows(config, corpus, teacher)
        assert (labels.asked, labels.reused) == (300, False)
        assert labels.seconds > 0
        found.append(labels.open().read(corpus.texts).logits)
    assert found[0] == pytest.approx(found[1], abs=0.05)  # of other neighbours in a batch
