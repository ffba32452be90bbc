"""A teacher that saw several observations as one plays only where the task joins them too."""

import gymnasium
import numpy as np
import pytest
from gymnasium.wrappers import FlattenObservation, FrameStackObservation

from rldistill.adapters.load import load_policy
from rldistill.errors import PolicyFileError, TeacherWarning
from tests.adapters.sb3.made_up import BOX, pack, ppo_data, ppo_weights
from tests.kit.commands import run

STACKED = pack(ppo_data(observation_space=BOX | {"_shape": [16], "low": "-1.0", "high": "1.0"}), ppo_weights(16))
HISTORY = "env_wrapper:\n- rl_zoo3.wrappers.HistoryWrapper:\n    horizon: 2\n"


@pytest.fixture
def stacked(tmp_path):
    """The path of a zip that takes four observations of CartPole as one, with what the zoo wrote beside it."""
    (tmp_path / "p.zip").write_bytes(STACKED)
    (tmp_path / "config.yml").write_text("frame_stack: 4\n")
    (tmp_path / "args.yml").write_text("env: CartPole-v1\nalgo: ppo\n")
    return tmp_path / "p.zip"


def stacked_cart_pole():
    """CartPole as VecFrameStack shows it: the newest observation last, zeros before the first."""
    return FlattenObservation(FrameStackObservation(gymnasium.make("CartPole-v1"), 4, padding_type="zero"))


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ("frame_stack: 4\n", "VecFrameStack of 4 (frame_stack)"),
        (HISTORY, "HistoryWrapper"),
        (HISTORY + "frame_stack: 2\n", "HistoryWrapper and VecFrameStack of 2 (frame_stack)"),
    ],
)
def test_it_is_refused_by_name_where_the_task_does_not_join_observations(stacked, config, name):
    (stacked.parent / "config.yml").write_text(config)
    for argv, got in (
        (["evaluate"], "no task"),
        (["evaluate", "--task", "CartPole-v1"], "[4] from task 'CartPole-v1'"),
    ):
        result = run(argv[0], stacked, *argv[1:])
        assert result.code == 1
        assert result.line == (
            f"rldistill evaluate: Policy file {stacked} saw observations that {name} joins, as its config.yml says: "
            f"got {got}, expected one vector of 16 numbers. Tasks here do not join them: register an environment that "
            "does, and name it: --task module:EnvId."
        )


def test_it_plays_an_environment_of_ones_own_that_joins_them(stacked):
    with pytest.warns(TeacherWarning, match="wrapped in VecFrameStack of 4, which is not done here"):
        policy = load_policy(stacked, task=stacked_cart_pole)
    assert policy.tasks[0].fingerprint.observation_shape == (16,)


def test_statistics_of_single_observations_are_refused(stacked, tmp_path):
    np.savez(tmp_path / "statistics.npz", mean=np.zeros(4), var=np.ones(4))
    with pytest.raises(PolicyFileError) as caught:
        load_policy(stacked, task=stacked_cart_pole, normalizer=tmp_path / "statistics.npz")
    assert str(caught.value) == (
        f"Policy file {stacked} saw observations that VecFrameStack of 4 (frame_stack) joins after they were "
        "normalised: got statistics of shape [4] for observations [16]. Let your environment normalise too, before it "
        "joins them, and leave the file out with normalizer none."
    )
