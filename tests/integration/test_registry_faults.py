"""What a registry is left like by a process that dies between any two of its writes."""

import os
from dataclasses import dataclass

import mlflow
import pytest
from samples import LAYERS, LAYERS_ONNX, STATIC, WORDS_STUDENT

from registry import register as registering
from registry.aliases import MOVE, Registered, read_versions
from registry.history import CHANGES, History
from registry.promote import finish_promotion, promote_version, roll_back
from registry.review import Decision, decide_review, find_decided, note_approval, reject

pytestmark = pytest.mark.parametrize("house", ["server"], indirect=True)

WRITES = ("set_", "delete_", "create_", "log_", "update_", "transition_")


class Killed(BaseException):
    """What ends a process between two calls of the registry."""


def kill_in_process():
    raise Killed


def kill_for_good():
    os._exit(9)


class Dying(mlflow.MlflowClient):
    """A client whose process ends before the write of some number."""

    def __init__(self, uri, writes, kill):
        super().__init__(uri)
        self.left, self.kill = writes, kill

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        if not name.startswith(WRITES):
            return found

        def write(*args, **told):
            if self.left == 0:
                self.kill()
            self.left -= 1
            return found(*args, **told)

        return write


@dataclass
class Scene:
    """A model of which version 2 is champion, 1 is previous and 3 challenges."""

    house: object
    model: str

    @property
    def challenger(self):
        return Registered(self.model, 3, reused=True)

    def set_up(self):
        for name in (LAYERS, STATIC):
            self.house.crown(self.model, name)
        self.gate = self.house.allow(self.house.register(self.model, WORDS_STUDENT))

    def register(self, client):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(registering, "MlflowClient", lambda _uri: client)
            self.house.register(self.model, LAYERS_ONNX)

    def promote(self, client):
        if finish_promotion(client, self.model) is None:
            promote_version(client, self.challenger, self.gate)

    def roll_back(self, client):
        roll_back(client, self.model)

    def approve(self, client):
        approval = Decision("approved", "Ada", "flips read")
        if finish_promotion(client, self.model) is None:
            decide_review(client, self.challenger, approval)
            for version, decision in find_decided(client, self.model):
                note_approval(client, version, decision)
                promote_version(client, version, self.gate, approval=decision)

    def reject(self, client):
        decide_review(client, self.challenger, Decision("rejected", "Ada", "worse"))
        for version, decision in find_decided(client, self.model):
            reject(client, version, decision)


AFTER = {
    "register": {"champion": 2, "previous": 1, "challenger": 4},
    "promote": {"champion": 3, "previous": 2},
    "roll_back": {"champion": 1, "previous": 2, "challenger": 3},
    "approve": {"champion": 3, "previous": 2},
    "reject": {"champion": 2, "previous": 1},
}
"""The aliases after each command; versions are numbered in the order of registration."""


def die(scene, command, writes):
    """Run a command that dies before a write; return whether it came to its end."""
    try:
        getattr(scene, command)(Dying(scene.house.config.tracking.uri, writes, kill_in_process))
    except Killed:
        return False
    return True


def die_for_good(scene, command, writes):
    """Run a command in a process of its own that ends before a write, without any cleaning up."""
    child = os.fork()
    if child == 0:
        getattr(scene, command)(Dying(scene.house.config.tracking.uri, writes, kill_for_good))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def check_between(scene, command, writes):
    """Fail unless there is a champion that loads and the former one can be gone back to."""
    aliases = scene.house.aliases(scene.model)
    champion = aliases["champion"]
    assert mlflow.pyfunc.load_model(f"models:/{scene.model}/{champion}") is not None
    before, after = {"champion": 2, "previous": 1}, AFTER[command]
    assert champion in (before["champion"], after["champion"]), (command, writes)
    known = {aliases.get("previous"), champion}
    move = MOVE in scene.house.client.get_registered_model(scene.model).tags
    assert before["champion"] in known or move, (command, writes)


def check_after(scene, command):
    """Fail unless the command is done and stands in the history once."""
    assert scene.house.aliases(scene.model) == AFTER[command]
    assert MOVE not in scene.house.client.get_registered_model(scene.model).tags
    versions = read_versions(scene.house.client, scene.model)
    assert len(versions) == (4 if command == "register" else 3)
    changes = [
        event
        for event in History(scene.house.client, scene.model).read()
        if event.kind in CHANGES and event.version == AFTER[command]["champion"]
    ]
    assert len(changes) == (2 if command == "roll_back" else 1), command


def try_every_write(house, model, command, dies):
    """Kill a command before each of its writes in turn; return how many there are."""
    for writes in range(100):
        scene = Scene(house, f"{model}-{command}-{writes}"[-60:])
        scene.set_up()
        ended = dies(scene, command, writes)
        check_between(scene, command, writes)
        if not ended:
            getattr(scene, command)(house.client)
        check_after(scene, command)
        if ended:
            return writes
    raise AssertionError("it never ends")


@pytest.mark.slow
def test_a_promotion_killed_before_any_write_is_completed_by_itself(house):
    writes = try_every_write(house, "killed", "promote", die)
    print(f"promote: killed before each of {writes} writes, completed each time")
    assert writes > 3


@pytest.mark.slow
@pytest.mark.parametrize("command", AFTER)
def test_a_process_that_ends_before_any_write_is_completed_by_another(house, command):
    writes = try_every_write(house, "ended", command, die_for_good)
    print(f"{command}: ended before each of {writes} writes, completed each time")
    assert writes > 3
