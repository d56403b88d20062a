import pytest
from transformers import AutoTokenizer, ByT5Tokenizer

from distill_tasks.config import parse_config
from distill_tasks.core.errors import InputError
from distill_tasks.stages.prepare import check_config


def test_hub_id_without_revision_is_refused(written):
    written["teacher"] = {"kind": "transformers", "model": "someone/some-model"}
    with pytest.raises(InputError, match="revision"):
        check_config(parse_config(written, "test"))


def test_folder_without_config_is_refused(written, copied_base):
    (copied_base / "config.json").unlink()
    written["teacher"]["base"] = str(copied_base)
    with pytest.raises(InputError, match=r"no config\.json"):
        check_config(parse_config(written, "test"))


def replace_tokenizer(folder, tokenizer):
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (folder / name).unlink()
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize(("kind", "key"), [("finetune", "base"), ("transformers", "model")])
def test_a_model_whose_tokenizer_has_no_fast_implementation_is_refused(
    written, copied_base, kind, key
):
    written["teacher"] = {"kind": kind, key: str(copied_base), "max_length": 16}
    replace_tokenizer(copied_base, ByT5Tokenizer())
    with pytest.raises(InputError) as caught:
        check_config(parse_config(written, "test"))
    said = f"Model {copied_base} has a ByT5Tokenizer, which has no fast implementation"
    assert str(caught.value).startswith(said)


def test_a_model_whose_tokenizer_cannot_pad_is_refused(written, copied_base):
    tokenizer = AutoTokenizer.from_pretrained(copied_base)
    tokenizer.pad_token = None
    replace_tokenizer(copied_base, tokenizer)
    written["teacher"] = {"kind": "finetune", "base": str(copied_base), "max_length": 16}
    with pytest.raises(InputError, match="has no padding token, so rows cannot be read together"):
        check_config(parse_config(written, "test"))


def test_a_model_whose_tokenizer_is_broken_is_refused_in_one_line(written, copied_base):
    (copied_base / "tokenizer.json").write_text("{")
    written["teacher"]["base"] = str(copied_base)
    with pytest.raises(InputError) as caught:
        check_config(parse_config(written, "test"))
    assert str(caught.value).startswith(f"The tokenizer of {copied_base} cannot be loaded: ")
    assert "\n" not in str(caught.value)
