"""What Minari's own collector recorded, labelled by a teacher of ours."""

from dataclasses import replace

import gymnasium
import minari
import numpy as np
import pytest
import torch
from gymnasium import spaces

from rldistill.adapters.minari_data import from_minari, to_minari
from rldistill.data import Dataset
from rldistill.envs import make_task
from rldistill.errors import DatasetError, MismatchError, UsageError
from rldistill.events import MessageEvent
from tests.adapters.minari_data.made_up import collect_with_minari
from tests.kit.cart_pole import MIRRORED_TASK, MirroredCartPole, hand_made_teacher, saved_teacher
from tests.kit.flat import distill
from tests.kit.other_libraries import QNetwork, randomised
from tests.kit.small_policies import small_policy, vector_task
from tests.kit.tiny_envs import Recorder, ShiftedSpaces

# Minari's collector wants all that it can be told.
pytestmark = pytest.mark.filterwarnings("ignore:.*(is set to None|env_spec is None|out of date):UserWarning")


def make_cart_pole():
    return gymnasium.make("CartPole-v1")


def make_pendulum():
    return gymnasium.make("Pendulum-v1", max_episode_steps=10)


def make_recorder(observation_space, action_space=None):
    return lambda: Recorder(observation_space, action_space or spaces.Discrete(2))


def outputs_of(teacher, dataset):
    output, _ = teacher(dataset.observations(np.arange(dataset.num_steps)))
    return output.raw.numpy()


def test_random_play_on_cart_pole_gets_the_teachers_outputs(tmp_path):
    recorded, shown = collect_with_minari(make_cart_pole, "cartpole/random-v0", num_episodes=4, max_steps=60)
    teacher = hand_made_teacher()
    dataset = from_minari("cartpole/random-v0", tmp_path / "d", teacher=teacher)
    assert dataset.num_steps == recorded.total_steps
    assert dataset.episode_numbers.tolist() == [0, 1, 2, 3]
    for number, episode in enumerate(recorded):
        steps = dataset.episode_steps(number)
        np.testing.assert_array_equal(dataset.observations(steps), np.array(shown[number])[:-1])
        np.testing.assert_array_equal(dataset.last_observation(number), shown[number][-1])
        np.testing.assert_array_equal(dataset.field("action")[steps], episode.actions)
        np.testing.assert_array_equal(dataset.field("reward")[steps], episode.rewards)
        np.testing.assert_array_equal(dataset.field("terminated")[steps], episode.terminations)
    np.testing.assert_array_equal(dataset.field("q_values"), outputs_of(teacher, dataset))
    origin = dataset.provenance
    assert (origin.teacher.hash, origin.behaviour) == (teacher.hash, "minari:cartpole/random-v0")
    assert origin.task.name == "CartPole-v1"


def test_a_box_of_actions_and_a_teachers_file(tmp_path):
    recorded, _ = collect_with_minari(make_pendulum, "pendulum-v0")
    task = make_task("Pendulum-v1").task
    teacher = small_policy(task, output_kind="gaussian")
    teacher.save(tmp_path / "teacher.safetensors")
    dataset = from_minari("pendulum-v0", tmp_path / "d", teacher=tmp_path / "teacher.safetensors", device="cpu")
    assert [name for name, spec in dataset.provenance.fields.items() if spec.role == "target"] == ["mean", "log_std"]
    targets = np.concatenate([dataset.field("mean"), dataset.field("log_std")], axis=1)
    np.testing.assert_array_equal(targets, outputs_of(teacher, dataset))
    np.testing.assert_array_equal(dataset.field("action")[:8], recorded[0].actions)
    assert dataset.provenance.teacher.path == str(tmp_path / "teacher.safetensors")


def test_a_student_is_distilled_from_what_minari_recorded(tmp_path):
    collect_with_minari(make_cart_pole, "cartpole/random-v0", num_episodes=8, max_steps=60)
    teacher = saved_teacher(tmp_path)
    dataset = from_minari("cartpole/random-v0", tmp_path / "d", teacher=teacher)
    run = distill(
        dataset.path,
        student="mlp:4",
        num_updates=3,
        batch_size=8,
        evaluate_episodes=0,
        out=tmp_path / "r",
        num_threads=1,
    )
    assert run is not None


def test_doubles_become_floats(tmp_path):
    space = spaces.Box(-1.0, 1.0, (4,), np.float64)
    _, shown = collect_with_minari(make_recorder(space), "doubles-v0", num_episodes=1)
    assert shown[0][0].dtype == np.float64
    dataset = from_minari("doubles-v0", tmp_path / "d", teacher=small_policy(vector_task(2)))
    np.testing.assert_array_equal(dataset.observations(range(8)), np.array(shown[0][:-1], np.float32))


def test_dict_observations_lie_in_the_order_that_environments_have_here(tmp_path):
    space = spaces.Dict(b=spaces.Discrete(3), a=spaces.Box(-1.0, 1.0, (2,), np.float64))
    make = make_recorder(space)
    _, shown = collect_with_minari(make, "dict-v0", num_episodes=1)
    task = make_task(make).task
    dataset = from_minari("dict-v0", tmp_path / "d", teacher=small_policy(task))
    wanted = [[*seen["a"], *np.eye(3)[seen["b"]]] for seen in shown[0]]
    np.testing.assert_array_equal(dataset.observations(range(8)), np.array(wanted[:-1], np.float32))


def test_actions_that_do_not_begin_at_0_are_counted_from_0(tmp_path):
    recorded, _ = collect_with_minari(ShiftedSpaces, "shifted-v0", num_episodes=1)
    dataset = from_minari("shifted-v0", tmp_path / "d", teacher=small_policy(make_task(ShiftedSpaces).task))
    np.testing.assert_array_equal(dataset.field("action"), recorded[0].actions + 1)


def test_a_clock_that_the_teacher_was_trained_with_is_added(tmp_path):
    _, shown = collect_with_minari(make_cart_pole, "plain-v0", num_episodes=1)
    teacher = small_policy(make_task("CartPole-v1", {"zero_padding": 1, "time_feature": 10}).task)
    dataset = from_minari("plain-v0", tmp_path / "d", teacher=teacher)
    observations = dataset.observations(range(8))
    np.testing.assert_array_equal(observations[:, :4], np.array(shown[0])[:8])
    np.testing.assert_array_equal(observations[:, 4], np.zeros(8))
    np.testing.assert_allclose(observations[:, 5], 1 - np.arange(8) / 10, rtol=1e-6)
    assert dataset.provenance.task.fingerprint.time_feature == 10


def test_frames_that_are_no_stack_of_consecutive_ones_are_refused_where_single_frames_would_be_kept(tmp_path):
    make = make_recorder(spaces.Box(0, 255, (2, 3, 3), np.uint8))
    collect_with_minari(make, "unrelated-v0", num_episodes=1)
    teacher = small_policy(_stacked_task())
    line = _message(DatasetError, "unrelated-v0", tmp_path / "d", teacher=teacher)
    assert line.startswith(
        "Minari dataset 'unrelated-v0': episode 0, step 0, is not the stack of the last 2 frames with zeros before"
    )


def test_another_teacher_labels_a_dataset_of_ours_anew_and_the_same_does_not(tmp_path):
    collect_with_minari(make_cart_pole, "random-v0", num_episodes=2, max_steps=30)
    first, second = hand_made_teacher(), hand_made_teacher(scale=2.0)
    ours = from_minari("random-v0", tmp_path / "d", teacher=first)
    to_minari(ours, "labelled-v0")
    same = from_minari("labelled-v0", tmp_path / "same", teacher=first)
    assert same.provenance == ours.provenance
    other = from_minari("labelled-v0", tmp_path / "other", teacher=second)
    assert (other.provenance.teacher.hash, other.provenance.behaviour) == (second.hash, "minari:labelled-v0")
    np.testing.assert_array_equal(other.field("q_values"), 2 * same.field("q_values"))


def test_an_episode_that_was_neither_terminated_nor_truncated_counts_as_given_up(tmp_path):
    buffer = minari.data_collector.EpisodeBuffer(
        observations=np.zeros((3, 4), np.float32),
        actions=np.array([0, 1]),
        rewards=np.zeros(2),
        terminations=np.zeros(2, bool),
        truncations=np.zeros(2, bool),
    )
    _create("open-v0", buffer)
    dataset = from_minari("open-v0", tmp_path / "d", teacher=small_policy(vector_task(2)))
    assert (dataset.num_steps, dataset.manifest.num_interrupted) == (2, 1)
    assert dataset.last_observation(0) is None


def test_a_teachers_file_may_be_another_librarys(tmp_path):
    messages = []
    collect_with_minari(MirroredCartPole, "cart-v0", num_episodes=1)
    network = randomised(QNetwork())
    torch.save(network.state_dict(), tmp_path / "dqn.cleanrl_model")
    dataset = from_minari(
        "cart-v0",
        tmp_path / "d",
        teacher=tmp_path / "dqn.cleanrl_model",
        task=MIRRORED_TASK,
        callbacks=[messages.append],
    )
    with torch.no_grad():
        expected = network(torch.tensor(dataset.observations(range(dataset.num_steps))))
    np.testing.assert_allclose(dataset.field("q_values"), expected.numpy(), rtol=1e-5, atol=1e-5)
    assert dataset.provenance.task.name == MIRRORED_TASK
    assert not any(isinstance(message, MessageEvent) for message in messages)


def test_a_dataset_is_read_by_its_folder_too(tmp_path, minari_root):
    collect_with_minari(make_cart_pole, "folder-v0", num_episodes=1)
    for number, path in enumerate((minari_root / "folder-v0", minari_root / "folder-v0" / "data")):
        assert from_minari(path, tmp_path / str(number), teacher=hand_made_teacher()).num_steps == 8


def test_the_new_folder_is_a_dataset_like_any_other(tmp_path):
    collect_with_minari(make_cart_pole, "cart-v0", num_episodes=2)
    from_minari("cart-v0", tmp_path / "d", teacher=hand_made_teacher())
    dataset = Dataset.open(tmp_path / "d")
    assert dataset.manifest.is_complete
    assert (dataset.manifest.num_episodes, dataset.num_steps, dataset.manifest.target_num_steps) == (2, 16, 16)


# What cannot be right is said in one line


def test_a_teacher_of_other_spaces_is_refused_naming_both(tmp_path):
    collect_with_minari(make_cart_pole, "cart-v0", num_episodes=1)
    teacher = small_policy(vector_task(3, 8, name="LunarLander-v3"), name="lander")
    assert _message(MismatchError, "cart-v0", tmp_path / "d", teacher=teacher) == (
        "Minari dataset 'cart-v0' does not fit teacher 'lander' (made for LunarLander-v3): observation_shape: [4] "
        "against [8]; action_layout: discrete [2] against discrete [3]. Was it played on another environment?"
    )
    assert not (tmp_path / "d").exists()


def test_a_dataset_without_outputs_needs_a_teacher(tmp_path):
    collect_with_minari(make_cart_pole, "cart-v0", num_episodes=1)
    assert _message(UsageError, "cart-v0", tmp_path / "d") == (
        "Minari dataset 'cart-v0' holds no outputs of a teacher: pass teacher=…, a policy or its file, to label its "
        "observations."
    )


def test_another_environment_of_the_same_spaces_is_said_and_so_are_altered_images(tmp_path):
    messages = []
    collect_with_minari(make_cart_pole, "cart-v0", num_episodes=1)
    from_minari("cart-v0", tmp_path / "d", teacher=small_policy(vector_task(2)), callbacks=[messages.append])
    images = spaces.Box(0, 255, (36, 40, 3), np.uint8)
    collect_with_minari(make_recorder(images), "images-v0", num_episodes=1)
    teacher = small_policy(make_task(make_recorder(images)).task)
    from_minari("images-v0", tmp_path / "i", teacher=teacher, callbacks=[messages.append])
    first, second = [m.text for m in messages if isinstance(m, MessageEvent)]
    assert first.startswith("Minari dataset 'cart-v0' was played on CartPole-v1, and is recorded as made-up")
    assert second.startswith("Minari dataset 'images-v0' keeps its images as JPEG: the teacher labels pixels")


def test_a_task_may_be_named(tmp_path):
    collect_with_minari(make_cart_pole, "cart-v0", num_episodes=1)
    teacher = small_policy(vector_task(2, name="unnamed"))
    dataset = from_minari("cart-v0", tmp_path / "d", teacher=teacher, task="CartPole-v1")
    assert dataset.provenance.task.name == "CartPole-v1"
    torch.testing.assert_close(
        torch.tensor(dataset.field("q_values")), teacher(dataset.observations(range(8)))[0].q_values
    )


def _create(dataset_id, buffer):
    storage = minari.dataset.minari_storage.MinariStorage
    path = minari.storage.get_dataset_path(dataset_id)
    (path / "data").mkdir(parents=True)
    new = storage.new(
        path / "data",
        observation_space=spaces.Box(-1, 1, (4,), np.float32),
        action_space=spaces.Discrete(2),
    )
    new.update_metadata({"dataset_id": dataset_id, "minari_version": minari.__version__})
    new.update_episodes([buffer])


def _stacked_task():
    task = make_task(make_recorder(spaces.Box(0, 255, (2, 3, 3), np.uint8))).task
    return replace(task, fingerprint=replace(task.fingerprint, frame_stack=2, stack_padding="zero"))


def _message(kind, *args, **options):
    with pytest.raises(kind) as caught:
        from_minari(*args, **options)
    line = str(caught.value)
    assert "\n" not in line
    return line
