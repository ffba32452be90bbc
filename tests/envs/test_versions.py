"""Versions of environments come and go; who names one that is gone is told what took its place."""

import gymnasium
import pytest

from rldistill.envs import make_task
from rldistill.envs.gymnasium_envs import other_versions, successor
from rldistill.errors import TaskError
from tests.kit.payout import Payout

pytestmark = pytest.mark.filterwarnings("ignore:.*out of date:DeprecationWarning")


def _gone(**_options):
    raise ImportError("moved to another project")


for _name, _entry in (
    ("Versioned-v1", _gone),
    ("Versioned-v2", _gone),
    ("Versioned-v3", Payout),
    ("Versioned-v10", Payout),
):
    gymnasium.register(_name, entry_point=_entry)


def test_other_versions_come_oldest_first():
    assert other_versions("Versioned-v3") == ["Versioned-v1", "Versioned-v2", "Versioned-v10"]
    assert other_versions("tests.kit.payout:Versioned-v10")[-1] == "tests.kit.payout:Versioned-v3"
    assert other_versions("atari:pong") == other_versions("no id") == other_versions("Versioned") == []


def test_the_oldest_later_version_that_can_be_made_is_the_successor():
    assert successor("Versioned-v1") == successor("Versioned-v2") == "Versioned-v3"
    assert successor("Versioned-v3") == "Versioned-v10"
    assert successor("Versioned-v10") is None
    assert successor("atari:pong") is None


@pytest.mark.parametrize(("name", "later"), [("Versioned-v1", "Versioned-v3"), ("Pendulum-v0", "Pendulum-v1")])
def test_a_task_whose_version_is_gone_names_its_successor(name, later):
    with pytest.raises(TaskError) as caught:
        make_task(name)
    assert str(caught.value) == (
        f"Task {name!r} cannot be made: this version is gone from Gymnasium {gymnasium.__version__}. The nearest that "
        f"is there is {later}: --task {later}."
    )


def test_a_version_that_is_yet_to_come_has_no_successor():
    with pytest.raises(TaskError, match="Environment version `v7` for environment `CartPole` doesn't exist"):
        make_task("CartPole-v7")
