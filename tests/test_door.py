"""The door `distill_tasks`: its names, what opening it costs, and a run by hand through it."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from test_structure import MODULES, imported

import distill_tasks
from distill_tasks import (
    Findings,
    choose,
    cross_validate,
    evaluate,
    export,
    first_trials,
    gate,
    halve,
    identify_teacher,
    label,
    learning_curve,
    load_config,
    measure,
    narrow,
    parse_config,
    prepare,
    promote,
    prove,
    register,
    report,
    select,
    start_run,
    teach,
    tracked,
    train_all,
    tune,
)

DOOR = Path(distill_tasks.__file__)


def test_the_names_for_type_checkers_are_those_that_are_imported():
    tree = ast.parse(DOOR.read_text())
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    shown = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in nodes
        if node.module.startswith(("distill_tasks", "flows", "registry"))
        for alias in node.names
    }
    assert sorted(shown) == distill_tasks.__all__ == dir(distill_tasks)
    assert len(set(distill_tasks.__all__)) == len(distill_tasks.__all__)
    for name, (module, original) in shown.items():
        found = getattr(distill_tasks, name)
        assert found is getattr(sys.modules[module], original)


def test_a_name_that_is_not_there_is_refused_by_its_name():
    with pytest.raises(AttributeError, match="no attribute 'distill_everything'"):
        distill_tasks.distill_everything  # noqa: B018


@pytest.mark.parametrize("name", distill_tasks.__all__)
def test_every_public_name_says_what_it_does(name):
    value = getattr(distill_tasks, name)
    said = inspect.getdoc(getattr(value, "fn", value))
    assert said.splitlines()[0].endswith((".", ",", "it", "which"))
    assert "\n" in said or said.endswith(".")


def test_opening_the_door_loads_no_library():
    script = (
        "import sys, distill_tasks\n"
        "from distill_tasks import load_config\n"
        "heavy = {'torch', 'transformers', 'mlflow', 'prefect', 'sklearn'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=DOOR.parents[1])


def test_nobody_behind_the_door_goes_through_it():
    inside = {name: path for name, path in MODULES.items() if name != "distill_tasks"}
    assert not [name for name, path in inside.items() if "distill_tasks" in set(imported(path))]


def test_a_configuration_is_loaded_from_a_path_as_it_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    readme = (DOOR.parents[1] / "README.md").read_text()
    Path("distill.yaml").write_text(readme.split("```yaml\n")[1].split("```")[0])
    assert load_config("distill.yaml") == load_config(Path("distill.yaml"))


def go_by_hand(config):
    """Run the chain stage by stage, each with what the others returned."""
    corpus = prepare(config)
    identity = identify_teacher(config, corpus.open())
    with tracked(config, corpus.open(), identity) as distillation:
        teacher = teach(config, corpus, identity)
        run = start_run(config, corpus, teacher, label(config, corpus, teacher))
        tuning, halving = tune(run), halve(run)
        trials = first_trials(config)
        grid = export(run, train_all(run, trials))
        cross = cross_validate(run, trials)
        scores = evaluate(run, grid.students, split="validation")
        latencies = measure(run, grid.students)
        finalists = narrow(run, grid, scores, latencies, cross=cross)
        grid = train_all(run, grid.further_trials(config, finalists), grid)
        selection = select(run, grid, scores, latencies, cross=cross, finalists=finalists)
        tested = grid.of(selection.finalists)
        proof = prove(run, tested, selection.leading)
        findings = Findings(
            run=run,
            tuning=tuning,
            halving=halving,
            grid=grid,
            validation=scores,
            held_out=evaluate(run, tested, split="held_out"),
            latencies=latencies,
            selection=choose(run, selection, proof),
            proof=proof,
            curve=learning_curve(run),
        )
        registered = register(findings, report(findings, distillation), distillation)
        promotion = promote(config, registered, gate(config, corpus, registered))
    return findings, registered, promotion


@pytest.mark.usefixtures("prefect_server")
def test_stages_called_by_hand_take_what_the_others_return_up_to_the_gate(quick):
    config = parse_config(quick, "test")
    findings, registered, promotion = go_by_hand(config)
    assert findings.selection.chosen in {student.name for student in config.students}
    assert (registered.model, registered.version) == ("animals", 1)
    assert promotion.reason
