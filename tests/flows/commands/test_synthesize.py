import pandas as pd
import pytest
import yaml
from answering import judge, write
from command_line import potstill
from endpoint import ScriptedEndpoint


@pytest.fixture
def path(written, tmp_path):
    path = tmp_path / "distill.yaml"
    written["students"] = [{"family": "bag_of_words"}]
    written["data"]["synthetic"] = str(tmp_path / "synthetic.csv")  # to be written
    with ScriptedEndpoint(judge, author=write) as endpoint:
        written["teacher"] = {
            "kind": "api",
            "base_url": endpoint.url,
            "model": "oracle-large",
            "licence": {"name": "Terms", "url": "https://example.org/t", "may_train": "ask"},
        }
        path.write_text(yaml.safe_dump(written))
        yield path


def test_the_file_that_is_written_is_one_that_a_run_reads(capsys, path, tmp_path):
    output = tmp_path / "synthetic.csv"
    command = ["synthesize", path, "--per-class", "10"]
    code, printed = potstill(capsys, *command, "--estimate")
    assert code == 0
    assert "30 texts are not written: 3 requests" in printed
    for wrong, said in (
        ([], "Say where to write"),
        (["-o", tmp_path / "x.txt"], "is none of .csv"),
        (["-o", output], "says may_train: ask"),
    ):
        code, printed = potstill(capsys, *command, *wrong)
        assert code == 2
        assert said in printed
        assert len(printed.splitlines()) == 1
    command += ["-o", output, "--accept-licence"]
    code, printed = potstill(capsys, *command)
    assert code == 0
    assert f"Wrote {output}: 30 of " in " ".join(printed.split())
    assert "that repeat another one of them" in printed
    frame = pd.read_csv(output)
    assert list(frame.columns) == ["text", "intended_class", "synthetic"]
    assert frame["intended_class"].value_counts().to_dict() == {"cats": 10, "dogs": 10, "fish": 10}
    assert frame["synthetic"].all()
    assert potstill(capsys, *command)[0] == 2  # it is there already
    code, printed = potstill(capsys, "check", path)
    assert code == 0
    assert "synthetic 30" in printed
