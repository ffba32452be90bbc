"""From what a user names to something that can be played, or to one line that says why not."""

import json
import os
import sys
import warnings
from dataclasses import replace

import gymnasium
import numpy as np
import pytest

from rldistill.envs import PlayableTask, make_task
from rldistill.errors import EnvironmentFaultError, RldistillError, TaskError, UsageError
from rldistill.tasks import Protocol, Task
from tests.kit.tiny_envs import CHAIN_TASK, TinyChain


def message_of(error, *arguments):
    with pytest.raises(error) as caught:
        make_task(*arguments)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_gymnasium_id_is_a_task():
    task = make_task("CartPole-v1").task
    assert (task.name, task.is_atari, task.protocol) == ("CartPole-v1", False, Protocol())
    assert task.fingerprint.observation_shape == (4,)
    assert task.fingerprint.action_layout.sizes == (2,)


def test_a_module_is_imported_for_the_ids_it_registers():
    task = make_task(CHAIN_TASK)
    assert task.task.name == "tests.kit.tiny_envs:TinyChain-v0"
    envs = task.make_envs(1, 1)
    np.testing.assert_array_equal(envs.reset([0], [0]), [[1, 0, 0, 0, 0]])
    envs.close()


@pytest.mark.parametrize(
    ("task", "asked", "num_busy", "expected"),
    [
        ("CartPole-v1", None, 5, 16),
        ("CartPole-v1", None, 30, 30),
        ("CartPole-v1", None, 100, 100),
        ("CartPole-v1", None, 1_000, 128),
        ("CartPole-v1", 3, 100, 3),
        ("atari:pong", None, 20, 16),
        ("atari:pong", None, 100, 50),
        ("atari:pong", None, 1_000, 64),
    ],
)
def test_the_default_number_of_environments_grows_with_the_work(task, asked, num_busy, expected):
    assert make_task(task).num_envs(asked, num_busy) == expected


def test_environments_that_were_given_stay_as_many_as_they_are():
    envs = gymnasium.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync")
    assert make_task(envs).num_envs(None, 100) == 2


def test_settings_of_a_vector_environment_are_recorded_and_what_cannot_be_recorded_keeps_no_id():
    def task_of(**settings):
        return make_task(gymnasium.make_vec("FrozenLake-v1", 2, vectorization_mode="sync", **settings)).task

    assert task_of() == make_task("FrozenLake-v1").task
    dry = task_of(is_slippery=False, max_episode_steps=7, vector_kwargs={"copy": False}, render_mode="ansi")
    assert dry == make_task("FrozenLake-v1", {"is_slippery": False, "max_episode_steps": 7}).task
    wrapped = task_of(wrappers=[gymnasium.wrappers.FlattenObservation])
    assert (wrapped.name, wrapped.environment_kwargs) == ("python:SyncVectorEnv", {})
    inner = gymnasium.make_vec("CartPole-v1", 2, vectorization_mode="sync")
    counted = gymnasium.wrappers.vector.RecordEpisodeStatistics(inner)
    assert make_task(counted).task.name == "CartPole-v1"
    assert make_task(gymnasium.wrappers.vector.DictInfoToList(counted)).task.name == "CartPole-v1"
    doubled = gymnasium.wrappers.vector.TransformObservation(counted, lambda rows: 2 * rows)
    assert make_task(doubled).task.name == "python:TransformObservation"


class Halved(gymnasium.vector.VectorWrapper):
    """A wrapper of the user's own: it says nowhere that it changes rewards."""

    def step(self, actions):
        observations, rewards, *rest = super().step(actions)
        return observations, rewards / 2, *rest


class RecordVideo(Halved):
    """One with the name of a wrapper that only watches."""


@pytest.mark.parametrize("wrap", [Halved, RecordVideo, gymnasium.wrappers.vector.NormalizeReward])
def test_a_vector_environment_keeps_its_id_under_no_wrapper_that_may_change_what_it_gives(wrap):
    wrapped = wrap(gymnasium.make_vec("CartPole-v1", 2, vectorization_mode="sync", max_episode_steps=7))
    watched = gymnasium.wrappers.vector.RecordEpisodeStatistics(wrapped)
    for envs in (wrapped, watched):
        task = make_task(envs).task
        assert (task.name, task.environment_kwargs) == (f"python:{type(envs).__name__}", {})


def test_a_callable_is_a_task_named_after_it():
    assert make_task(TinyChain).task.name == "python:TinyChain"
    assert make_task(lambda: TinyChain(7)).task.fingerprint.observation_shape == (7,)


def test_a_playable_task_stays_what_it_is():
    playable = make_task(TinyChain)
    assert make_task(playable) is playable


@pytest.mark.parametrize(
    ("name", "options"),
    [("atari:pong", {"frame_skip": 2, "noop_max": 7}), ("CartPole-v1", {"max_episode_steps": 9}), (CHAIN_TASK, {})],
)
def test_a_recorded_task_is_made_again(name, options):
    playable = make_task(name, options)
    again = make_task(type(playable.task).from_dict(playable.task.to_dict()))
    assert isinstance(again, PlayableTask)
    assert again.task == playable.task
    again.make_envs(1, 1).close()


@pytest.mark.parametrize(("name", "epsilon"), [("atari:pong", 0.05), ("CartPole-v1", 0.0)])
def test_the_exploration_of_a_record_is_not_that_of_its_task(name, epsilon):
    """What was collected with ε 0.3 is not played with it for ever."""
    recorded = make_task(name).with_exploration(0.3).task
    assert recorded.protocol.exploration_epsilon == 0.3
    assert make_task(recorded).task == make_task(name).task
    assert make_task(recorded).task.protocol.exploration_epsilon == epsilon


def test_keyword_arguments_reach_the_environment_and_the_record():
    task = make_task("CartPole-v1", {"max_episode_steps": 3})
    assert task.task.environment_kwargs == {"max_episode_steps": 3}
    envs = task.make_envs(1, 1)
    envs.reset([0], [0])
    assert [bool(envs.step(np.array([action])).truncated[0]) for action in (0, 1, 0)] == [False, False, True]


def test_another_exploration_changes_nothing_but_the_protocol():
    task = make_task("CartPole-v1")
    other = task.with_exploration(0.25)
    assert other.task.protocol == Protocol(exploration_epsilon=0.25)
    assert other.task.fingerprint == task.task.fingerprint


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("CartPol-v1", "Environment `CartPol` doesn't exist. Did you mean: `CartPole`?"),
        ("CartPole-v7", "Environment version `v7` for environment `CartPole` doesn't exist."),
        ("NoSuchThing", "Environment `NoSuchThing` doesn't exist."),
        ("a/b/c", "Malformed environment ID: a/b/c."),
        ("", "Malformed environment ID: ."),
    ],
)
def test_an_id_without_environment_is_refused(name, message):
    line = message_of(TaskError, name)
    assert line.startswith(f"Task {name!r} cannot be made: {message}")
    # Where the environment is known, only its version is wrong.
    ways = " Atari games are written atari:pong, environments of a module of your own MODULE:ID."
    assert line.endswith(ways) == (name != "CartPole-v7")


@pytest.mark.parametrize(
    ("name", "game"), [("pong", "pong"), ("ms_pacman", "ms_pacman"), ("space-invaders", "space_invaders")]
)
def test_a_game_without_its_prefix_is_told_with_it(name, game):
    assert message_of(TaskError, name) == (
        f"Task {name!r} cannot be made: Atari games have a prefix. Did you mean atari:{game}?"
    )


@pytest.mark.parametrize(
    ("name", "options", "num_warnings"),
    [("ALE/Pong-v5", {}, 1), ("PongNoFrameskip-v4", {}, 1), ("ALE/Pong-v5", {"obs_type": "ram"}, 0)],
)
def test_a_task_of_the_emulators_own_frames_is_told_the_usual_one(name, options, num_warnings):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make_task(name, options)
    told = [str(warning.message) for warning in caught if "the usual preprocessing" in str(warning.message)]
    assert len(told) == num_warnings
    assert all("atari:pong is the same game" in text for text in told)


@pytest.mark.parametrize("name", ["no_such_module:Env-v0", ".relative:Env-v0", ":Env-v0"])
def test_an_id_whose_module_cannot_be_imported_is_refused(name):
    line = message_of(TaskError, name)
    assert line.startswith(f"Task {name!r}: module {name.rpartition(':')[0]!r} cannot be imported (")
    assert line.endswith("Is it installed, or in this folder, or misspelt?")


def test_the_module_of_a_task_may_lie_in_the_current_folder_and_hides_none_that_is_installed(tmp_path, monkeypatch):
    # As a command has it that pip installed: without the current folder.
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each not in ("", os.getcwd())])
    monkeypatch.chdir(tmp_path)
    registers = (
        "import gymnasium\ngymnasium.register('InThisFolder-v0', 'gymnasium.envs.classic_control:CartPoleEnv')\n"
    )
    (tmp_path / "module_in_this_folder.py").write_text(registers)
    (tmp_path / "gymnasium.py").write_text("raise RuntimeError('it is hidden')\n")
    try:
        assert make_task("module_in_this_folder:InThisFolder-v0").task.name == "module_in_this_folder:InThisFolder-v0"
        assert sys.path[-1] == os.getcwd()
    finally:
        gymnasium.registry.pop("InThisFolder-v0", None)
        sys.modules.pop("module_in_this_folder", None)


def test_a_record_does_not_choose_an_environment_of_another_library():
    task = replace(
        make_task("CartPole-v1").task, name="GymV26Environment-v0", environment_kwargs={"env_id": "evil:A-v0"}
    )
    assert "makes an environment of another library that its settings name" in message_of(TaskError, task)


def test_a_recorded_task_that_was_an_object_in_python_cannot_be_made_again():
    assert message_of(TaskError, make_task(TinyChain).task) == (
        "Task 'python:TinyChain' was given as an object in Python, which a file cannot bring back: pass it as task=…."
    )


@pytest.mark.parametrize(
    ("name", "error", "reason", "extra"),
    [
        ("Walker2d-v4", ModuleNotFoundError("No module named 'imageio'"), "No module named 'imageio'", "mujoco"),
        (
            "LunarLander-v3",
            gymnasium.error.DependencyNotInstalled('Box2D is not installed, run `pip install "gymnasium[box2d]"`'),
            "Box2D is not installed",
            "box2d",
        ),
    ],
)
def test_a_package_that_is_not_installed_is_named_with_the_extra_that_brings_it(
    monkeypatch, name, error, reason, extra
):
    def make(*_, **__):
        raise error

    monkeypatch.setattr(gymnasium, "make", make)
    assert message_of(RldistillError, name) == (
        f"Task {name!r} needs a package that is not installed ({reason}): "
        f".venv/bin/pip install -c constraints.txt -e '.[{extra}]' in the checkout of rldistill."
    )


def test_a_package_of_somebody_elses_environment_that_is_not_installed_is_named(monkeypatch):
    def make(*_, **__):
        raise ModuleNotFoundError("No module named 'panda_gym'")

    monkeypatch.setattr(gymnasium, "make", make)
    assert message_of(RldistillError, "PandaReach-v3") == (
        "Task 'PandaReach-v3' needs a package that is not installed: No module named 'panda_gym'"
    )
    assert message_of(EnvironmentFaultError, make).startswith(
        "Task 'python:make' failed: its environment raised ModuleNotFoundError in its constructor: No module named"
    )


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("CartPole-v1", {"no_such": 1}, "CartPoleEnv.__init__() got an unexpected keyword argument 'no_such'"),
        ("CartPole-v1", {"max_episode_steps": -7}, "Expect the `max_episode_steps` to be positive, actually: -7"),
        ("FrozenLake-v1", {"map_name": "9x9"}, "'9x9'"),
    ],
)
def test_keyword_arguments_that_the_environment_does_not_take_are_refused(name, options, reason):
    line = message_of(UsageError, name, options)
    assert line.startswith(f"Task {name!r} does not take these keyword arguments ({', '.join(options)}): {reason}")


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (np.int64(5), "a int64"),
        ([float("nan")], "a list"),
        (object(), "a object"),
        ({5}, "a set"),
        ("\udcff", r"'\\udcff'"),
    ],
)
def test_keyword_arguments_that_no_file_can_record_are_refused(value, got):
    with pytest.raises(UsageError) as caught:
        make_task("CartPole-v1", {"gravity": value})
    assert str(caught.value) == (
        f"env_kwargs: got gravity={got}, expected a finite number, a text of valid Unicode, or a list or mapping of "
        "them, of Python's own types: files record it as JSON. For anything else name a callable that makes the "
        "environment."
    )


def test_keyword_arguments_are_recorded_as_a_file_holds_them():
    task = make_task("FrozenLake-v1", {"desc": ("SF", "FG"), "success_rate": np.float64(0.5)}).task
    assert task == Task.from_dict(json.loads(json.dumps(task.to_dict())))


@pytest.mark.parametrize("task", [TinyChain, make_task(TinyChain), make_task("CartPole-v1").task])
def test_options_beside_something_that_is_already_complete_are_refused(task):
    line = message_of(UsageError, task, {"frame_skip": 2})
    assert line.startswith("Environment options (frame_skip) belong with a task's name: got them with one that is")


def test_a_callable_that_makes_something_else_is_refused():
    assert message_of(TaskError, dict) == (
        "Task 'python:dict': got a dict, expected something that makes a gymnasium.Env."
    )


def test_an_error_inside_a_users_own_environment_is_not_disguised():
    def broken():
        raise TypeError("my own mistake")

    with pytest.raises(EnvironmentFaultError) as caught:
        make_task(broken)
    assert str(caught.value) == (
        "Task 'python:broken' failed: its environment raised TypeError in its constructor: my own mistake. Mend it, or "
        "what it needs (a display, a simulator, another version of a package). Set RLDISTILL_TRACEBACK=1 to see where."
    )
    assert str(caught.value.__cause__) == "my own mistake"


def test_an_environment_instead_of_what_makes_one_is_refused():
    assert message_of(UsageError, gymnasium.make("CartPole-v1")) == (
        "task: got an environment that is made already (CartPoleEnv), expected what makes one: several are played at "
        "once. Pass 'CartPole-v1', or a callable without arguments that makes it."
    )
    assert "Pass its id, or a callable" in message_of(UsageError, TinyChain())
    assert message_of(UsageError, 3).startswith("task: got a int, expected the id of an environment, such as")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("CartPole-v1", {"xml_file": "evil.xml"}),
        ("CartPole-v1", {"render_mode": "human"}),
        ("FrozenLake-v1", {"desc": ["SF", "FG"]}),
        ("HalfCheetah-v5", {"frame_skip": 10**9}),
        ("CartPole-v1", {"text": "x" * 2000}),
    ],
)
def test_settings_that_a_file_may_not_choose_are_the_users(name, settings):
    recorded = replace(make_task("CartPole-v1").task, name=name, environment_kwargs=settings)
    with pytest.raises(TaskError, match=r"which only you may choose\. Name both yourself: --task "):
        make_task(recorded)


def test_a_recorded_atari_protocol_ends():
    task = make_task("atari:pong").task
    with pytest.raises(TaskError, match="noop_max=1000000000, which only you may choose"):
        make_task(replace(task, protocol=replace(task.protocol, noop_max=10**9)))
    assert make_task(task).task == task


@pytest.mark.parametrize(
    "changed", [{"name": "Unknown-v0"}, {"name": "not_imported:Id-v0"}, {"environment_kwargs": {"unknown": 1}}]
)
def test_a_recorded_task_that_cannot_be_made_is_the_files_fault(changed):
    with pytest.raises(UsageError, match=r"--task") as caught:
        make_task(replace(make_task("CartPole-v1").task, **changed))
    assert caught.value.exit_code == 1


def test_a_recorded_limit_of_an_episode_may_be_large():
    task = make_task("CartPole-v1", {"max_episode_steps": 10**6}).task
    assert make_task(task).task == task
