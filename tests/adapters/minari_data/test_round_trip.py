"""Ours to Minari and back: every array equal, and everything that is known of the data still known."""

import gymnasium
import minari
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

from rldistill.adapters.minari_data import from_minari, to_minari
from rldistill.adapters.minari_data import writing as writing_module
from rldistill.data import Dataset, DatasetWriter
from rldistill.envs import make_task
from rldistill.verbs.collect import collect
from tests.adapters.minari_data.made_up import assert_same_episodes
from tests.data.made_up import Player, make_provenance, write_dataset
from tests.kit.cart_pole import collect_cart_pole
from tests.kit.small_policies import small_policy
from tests.kit.tiny_envs import Recorder

SEVEN = spaces.Box(-1.0, 1.0, (7,), np.float64)


def there_and_back(folder):
    to_minari(folder, "test/there-v0")
    ours = Dataset.open(folder)
    back = from_minari("test/there-v0", folder.with_name("back"))
    # Written anew, not only returned: what is on the disk counts.
    return ours, Dataset.open(back.path)


@pytest.mark.parametrize("frame_stack", [1, 4])
def test_every_array_of_every_episode_comes_back_equal(tmp_path, frame_stack):
    write_dataset(tmp_path / "d", make_provenance(frame_stack=frame_stack))
    ours, back = there_and_back(tmp_path / "d")
    assert_same_episodes(ours, back)
    assert back.provenance == ours.provenance
    assert (back.manifest.num_episodes, back.manifest.num_interrupted) == (8, 0)
    assert back.manifest.is_complete


def test_episodes_written_in_pieces_are_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(writing_module, "_STEPS_PER_PIECE", 15)
    write_dataset(tmp_path / "d", lengths=(40, 15, 30, 1, 16))
    ours, back = there_and_back(tmp_path / "d")
    assert_same_episodes(ours, back)
    dataset = minari.load_dataset("test/there-v0")
    assert dataset.total_steps == 102
    assert [m["total_steps"] for m in dataset.storage.get_episode_metadata(range(5))] == [40, 15, 30, 1, 16]


@pytest.mark.parametrize(
    ("action_space", "output_kind"),
    [
        (spaces.Discrete(3), "q_values"),
        (spaces.Discrete(3), "logits"),
        (spaces.MultiDiscrete([2, 3]), "logits"),
        (spaces.MultiBinary(4), "logits"),
        (spaces.Box(-2.0, 3.0, (2,), np.float32), "gaussian"),
        (spaces.Box(-2.0, 3.0, (2,), np.float64), "actions"),
    ],
    ids=lambda value: str(value).partition("(")[0],
)
def test_teachers_of_every_kind_come_back_with_all_that_is_known_of_them(tmp_path, action_space, output_kind):
    task = make_task(lambda: TimeLimit(Recorder(SEVEN, action_space), 6))
    teacher = small_policy(task.task, output_kind=output_kind, behaviour="sample")
    collect(
        teacher, task, num_steps=40, out=tmp_path / "d", exploration_epsilon=0.25, seed=5, num_envs=4, num_threads=1
    )
    ours, back = there_and_back(tmp_path / "d")
    assert_same_episodes(ours, back)
    assert back.provenance == ours.provenance
    assert back.provenance.teacher.hash == teacher.hash
    assert (back.provenance.seed, back.provenance.exploration_epsilon) == (5, 0.25)


CLOCK = {"zero_padding": 2, "time_feature": 6}
SEVERAL = {
    "Dict": (
        spaces.Dict(
            b=spaces.Discrete(3), a=spaces.Box(-1.0, 1.0, (2, 2)), view=spaces.Box(0, 255, (5, 6, 3), np.uint8)
        ),
        {},
    ),
    "Dict with a clock": (spaces.Dict(b=spaces.Discrete(3), a=spaces.Box(-1.0, 1.0, (2,))), CLOCK),
    "Dict of pictures": (
        spaces.Dict(left=spaces.Box(0, 255, (3, 4, 4), np.uint8), right=spaces.Box(0, 255, (1, 5, 4), np.uint8)),
        {},
    ),
    "Dict of one matrix": (spaces.Dict(m=spaces.Box(-1.0, 1.0, (2, 3))), {}),
    "Dict of bytes": (spaces.Dict(a=spaces.Box(0, 255, (6,), np.uint8), b=spaces.Box(0, 255, (2, 2), np.uint8)), {}),
    "Dict of Dicts": (spaces.Dict(a=spaces.Dict(x=spaces.Discrete(2)), b=spaces.Box(-1.0, 1.0, (3,))), {}),
    "Tuple": (spaces.Tuple((spaces.Box(-1.0, 1.0, (3,)), spaces.MultiBinary(2))), {}),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_observations_of_several_parts_come_back_with_their_parts_and_the_teachers_outputs(tmp_path, name):
    space, settings = SEVERAL[name]
    task = make_task(lambda: TimeLimit(Recorder(space, spaces.Discrete(3)), 6), settings)
    teacher = small_policy(task.task)
    collect(teacher, task, num_steps=20, out=tmp_path / "d", exploration_epsilon=0.25, num_envs=2, num_threads=1)
    ours, back = there_and_back(tmp_path / "d")
    assert_same_episodes(ours, back)
    assert back.provenance == ours.provenance
    assert back.provenance.task.fingerprint.observation_parts == task.task.fingerprint.observation_parts != ()
    other = small_policy(task.task, seed=1)
    labelled = from_minari("test/there-v0", tmp_path / "labelled", teacher=other)
    steps = np.arange(labelled.num_steps)
    np.testing.assert_array_equal(labelled.field("q_values"), other(labelled.observations(steps))[0].raw.numpy())
    assert labelled.provenance.task == task.task


def test_the_last_step_of_an_episode_that_was_given_up_comes_back_too(tmp_path):
    messages = []
    with DatasetWriter.create(tmp_path / "d", make_provenance(), target_num_steps=100) as writer:
        player = Player(writer, num_slots=2, lengths={0: 30, 1: 50, 2: 60})
        for _ in range(40):
            player.step()
        writer.finish()
    to_minari(tmp_path / "d", "cut-v0", callbacks=[messages.append])
    assert any("2 episodes had not ended: cut before their last step" in getattr(m, "text", "") for m in messages)
    whole, cut, _ = minari.load_dataset("cut-v0")
    assert (len(whole), len(cut)) == (30, 39)
    assert (len(cut.observations), len(cut.infos["rldistill"]["q_values"])) == (40, 40)
    assert (cut.terminations[-1], cut.truncations[-1]) == (False, True)
    ours, back = Dataset.open(tmp_path / "d"), from_minari("cut-v0", tmp_path / "back")
    assert_same_episodes(ours, back)
    assert (back.manifest.num_episodes, back.manifest.num_interrupted) == (1, 2)


def test_an_unfinished_collection_is_converted_as_far_as_it_is(tmp_path):
    with DatasetWriter.create(tmp_path / "d", make_provenance(), target_num_steps=1000) as writer:
        player = Player(writer, num_slots=2, lengths={0: 50, 1: 70})
        for _ in range(20):
            player.step()
    ours, back = there_and_back(tmp_path / "d")
    assert [entry.num_steps for entry in ours.manifest.running] == [20, 20]
    assert_same_episodes(ours, back)
    assert back.manifest.running == ()


def test_an_episode_of_one_step_that_had_not_ended_is_left_out_and_said_so(tmp_path):
    messages = []
    with DatasetWriter.create(tmp_path / "d", make_provenance(), target_num_steps=100) as writer:
        player = Player(writer, num_slots=1, lengths={0: 5, 1: 50})
        for _ in range(6):
            player.step()
        writer.finish()
    to_minari(tmp_path / "d", "one-v0", callbacks=[messages.append])
    assert len(minari.load_dataset("one-v0")) == 1
    assert [m.text for m in messages if "not ended" in getattr(m, "text", "")] == [
        "1 episodes had not ended: cut before their last step, and marked as truncated; 1 of them had one step and are "
        "left out."
    ]


def test_minari_sees_whole_episodes_with_one_observation_and_one_info_more_than_steps(tmp_path):
    provenance = write_dataset(tmp_path / "d", lengths=(12, 7))
    path = to_minari(tmp_path / "d", "plain-v0")
    dataset = minari.load_dataset("plain-v0")
    assert path.name == "plain-v0"
    assert (dataset.total_episodes, dataset.total_steps) == (2, 19)
    assert dataset.observation_space == spaces.Box(0, 255, (4, 6, 5), np.uint8)
    assert dataset.action_space == spaces.Discrete(3)
    first = dataset[0]
    assert first.observations.shape == (13, 4, 6, 5)
    assert (first.actions.dtype, first.rewards.dtype) == (np.int64, np.float64)
    assert first.infos["rldistill"]["q_values"].shape == (13, 3)
    assert np.isnan(first.infos["rldistill"]["q_values"][-1]).all()
    record = dataset.storage.metadata["rldistill"]["provenance"]
    assert (record["teacher"]["hash"], record["task"]["name"]) == (provenance.teacher.hash, "made-up")


def test_the_environment_can_be_made_again_from_minari(tmp_path):
    collect_cart_pole(tmp_path / "d", num_steps=60)
    to_minari(tmp_path / "d", "cartpole/teacher-v3")
    env = minari.load_dataset("cartpole/teacher-v3").recover_environment()
    assert (env.spec.id, env.spec.max_episode_steps) == ("CartPole-v1", 40)
    assert list(minari.list_local_datasets()) == ["cartpole/teacher-v3"]


def test_a_box_of_truth_values_comes_back(tmp_path):
    task = make_task(lambda: TimeLimit(Recorder(spaces.Box(0, 1, (3,), np.bool_), spaces.Discrete(2)), 3))
    collect(small_policy(task.task), task, num_steps=8, out=tmp_path / "d", num_envs=1, num_threads=1)
    assert_same_episodes(*there_and_back(tmp_path / "d"))


def test_an_environment_registered_with_an_object_leaves_without_its_specification(tmp_path, monkeypatch):
    collect_cart_pole(tmp_path / "d", num_steps=60)
    registered = gymnasium.registry["CartPole-v1"]
    # JSON cannot say it.
    monkeypatch.setattr(registered, "kwargs", {**registered.kwargs, "sutton_barto_reward": np.False_})
    to_minari(tmp_path / "d", "cartpole/object-v0")
    assert minari.load_dataset("cartpole/object-v0").env_spec is None


def test_large_single_frames_are_not_altered_by_jpeg(tmp_path):
    task = make_task(lambda: TimeLimit(Recorder(spaces.Box(0, 255, (40, 36, 3), np.uint8), spaces.Discrete(2)), 3))
    teacher = small_policy(task.task)
    collect(teacher, task, num_steps=8, out=tmp_path / "d", num_envs=1, num_threads=1)
    assert_same_episodes(*there_and_back(tmp_path / "d"))


def test_some_episodes_of_a_dataset_of_ours_are_chosen_with_minari(tmp_path):
    write_dataset(tmp_path / "d", lengths=(5, 20, 6, 30))
    to_minari(tmp_path / "d", "all-v0")
    chosen = minari.load_dataset("all-v0").filter_episodes(lambda episode: len(episode) >= 20)
    back = from_minari(chosen, tmp_path / "back")
    assert back.episode_numbers.tolist() == [1, 3]
    assert back.num_steps == 50


def test_the_message_says_what_whole_observations_cost(tmp_path):
    messages = []
    write_dataset(tmp_path / "d", lengths=(2000, 1000), steps_per_shard=4096)
    to_minari(tmp_path / "d", "size-v0", callbacks=[messages.append])
    # 3,000 × 4 × 6 × 5 bytes.
    assert messages[0].text.startswith(
        "Minari keeps whole observations, uncompressed, stacks of frames included: about 0.4 MB for what takes "
    )
