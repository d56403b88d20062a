import ast
import inspect

from flows import distill, label
from flows import promote as promoting
from flows.stage_lists import DISTILL, LABEL

FUNCTIONS = {"train_all": "train", "promote_if_allowed": "promote"}


class Calls(ast.NodeVisitor):
    """The stages that a flow calls, in the order in which Python evaluates them."""

    def __init__(self):
        self.found = []

    def visit_Call(self, node):
        self.generic_visit(node)
        name = ast.unparse(node.func)
        if name == "gate_and_promote":
            self.found.extend(list_calls(promoting.gate_and_promote))
        self.found.append(FUNCTIONS.get(name, name))


def list_calls(flow):
    calls = Calls()
    calls.visit(ast.parse(inspect.getsource(flow)))
    return calls.found


def test_the_stages_that_people_see_are_those_of_the_flows_in_their_order():
    for flow, stages in ((distill.distill.fn, DISTILL), (label.label_only.fn, LABEL)):
        names = [stage.name for stage in stages]
        assert [name for name in list_calls(flow) if name in names] == names


def test_every_stage_says_something_else():
    said = [stage.about for stage in DISTILL]
    assert len(said) == len(set(said))
