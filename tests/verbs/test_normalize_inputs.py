"""Students that normalise their inputs by what their teacher's play measured: stored, live, stopped, refused."""

import gymnasium
import numpy as np
import pytest
import torch
from torch import nn

from rldistill.data import Dataset, split_episodes
from rldistill.distillation import stored
from rldistill.distillation.batch import Window
from rldistill.distillation.sources import measure_inputs
from rldistill.envs import make_task
from rldistill.errors import MismatchError, UsageError
from rldistill.events import ProgressEvent
from rldistill.networks import Architecture, InputNormalization
from rldistill.networks.torsos import to_images
from rldistill.policies import load_policy
from rldistill.tasks import ObservationFingerprint, Task
from rldistill.types import ActionLayout
from rldistill.verbs.collect import collect
from rldistill.verbs.input_statistics import to_be_measured
from tests.kit.cart_pole import hand_made_teacher
from tests.kit.flat import distill
from tests.kit.push import PUSH_TASK, push_policy
from tests.kit.small_policies import small_policy, vector_task

SMALL = {"student": "mlp:8", "num_updates": 40, "batch_size": 32, "evaluate_period": 20, "precision": "float32"}
LIVE = {"collect_steps": 400, "collect_period": 20, "exploration_epsilon": 0.3, "num_envs": 4}
NORMALISED = {"normalize_inputs": True}


def test_a_student_has_the_mean_and_variance_of_what_it_was_trained_on(tmp_path, q_data):
    student = distill(q_data, out=tmp_path / "r", **SMALL | NORMALISED)
    loaded = load_policy(tmp_path / "r" / "student.safetensors")
    assert loaded.hash == student.hash
    dataset = Dataset.open(q_data)
    trained_on = dataset.observations(split_episodes(dataset, 0.1, 0).train).astype(np.float64)
    np.testing.assert_allclose(loaded.normalization.mean, trained_on.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(loaded.normalization.variance, trained_on.var(axis=0), rtol=1e-6)
    assert distill(q_data, out=tmp_path / "plain", **SMALL).normalization is None


class Alternating(gymnasium.Env[np.ndarray, int]):
    """Episodes of two steps: the first observation is 0, the second one 1."""

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(0.0, 2.0, (1,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._step = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self._step += 1
        return np.full(1, self._step, np.float32), 1.0, self._step == 2, False, {}


def test_a_sample_of_many_steps_holds_all_places_of_episodes_of_one_length(tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "_SAMPLE_SIZE", 100)
    teacher = small_policy(make_task(Alternating).task, network="mlp:4")
    collect(teacher, Alternating, num_steps=1200, out=tmp_path / "data")
    settings = SMALL | NORMALISED | {"num_updates": 2}
    student = distill(tmp_path / "data", out=tmp_path / "a", evaluate_episodes=0, **settings)
    # Of 100 steps, a share of 0.5 with a standard deviation of 0.05.
    np.testing.assert_allclose(student.normalization.mean, 0.5, atol=0.15)
    again = distill(tmp_path / "data", out=tmp_path / "b", evaluate_episodes=0, **settings)
    assert again.normalization == student.normalization
    other = distill(tmp_path / "data", out=tmp_path / "c", evaluate_episodes=0, seed=1, **settings)
    assert other.normalization != student.normalization


def stop_at_30(event) -> bool:
    return isinstance(event, ProgressEvent) and (event.phase, event.done) == ("distill", 30)


@pytest.mark.parametrize("fraction", [1.0, 0.0])
def test_a_live_student_has_them_before_it_acts_and_keeps_them_over_a_stop(tmp_path, fraction):
    settings = SMALL | LIVE | NORMALISED | {"teacher": hand_made_teacher(), "teacher_fraction": fraction}
    whole = distill(out=tmp_path / "whole", **settings)
    assert min(whole.normalization.variance) > 0
    assert 0 not in whole.normalization.mean
    with pytest.raises(KeyboardInterrupt):
        distill(out=tmp_path / "part", callbacks=[stop_at_30], **settings)
    resumed = distill(out=tmp_path / "part", resume=True, **settings)
    assert resumed.hash == whole.hash


def test_of_windows_the_steps_that_count_are_measured_each_once():
    student = small_policy(normalization=InputNormalization((0.0,) * 4, (1.0,) * 4))
    rows = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0))
    is_real = torch.tensor([[False, False], [True, True], [True, False]])  # burnt in, full, and padded
    window = Window(0, {"observation": rows}, {"q_values": torch.zeros(3, 2, 3)}, "made up", is_real=is_real, burn_in=1)
    measure_inputs(student, window)
    real = rows[is_real].double().numpy()
    np.testing.assert_allclose(student.normalization.mean, real.mean(axis=0))
    np.testing.assert_allclose(student.normalization.variance, real.var(axis=0))


def test_small_numbers_are_scaled_and_only_those_that_never_change_are_not():
    student = small_policy(normalization=to_be_measured(vector_task(), None))
    noise = torch.randn(1, 500, 4, generator=torch.Generator().manual_seed(0))
    # In small units; small beside its mean; a constant that float32 rounds; numerical dust.
    rows = torch.tensor([0.0, 5.0, 0.1, 0.0]) + torch.tensor([1e-5, 1e-4, 1e-9, 1e-13]) * noise
    measure_inputs(student, Window(0, {"observation": rows}, {"q_values": torch.zeros(1, 500, 3)}, "made up"))
    seen = student.network.scale(rows[0]).std(dim=0, correction=0)
    torch.testing.assert_close(seen[:2], torch.ones(2), atol=1e-3, rtol=0)
    assert seen[2:].max() < 1e-6


@pytest.mark.parametrize("shape", [(10, 10, 3), (2, 10, 10, 3), (3, 10, 10)])
def test_of_images_each_pixel_is_normalised_by_its_own_measure(shape):
    size = int(np.prod(shape))
    task = Task("images", ObservationFingerprint(shape, "float32", ActionLayout.discrete(3)))
    made = Architecture("made-up", "conv", (6,), (4,), (4,), (2,))
    student = small_policy(task, network=made, normalization=InputNormalization((0.0,) * size, (1.0,) * size))
    generator = torch.Generator().manual_seed(0)
    spread, mean = torch.linspace(0.1, 5, size), torch.linspace(-3, 30, size)
    rows = (mean + spread * torch.randn(40, size, generator=generator)).reshape(-1, *shape)
    window = Window(0, {"observation": rows[None]}, {"q_values": torch.zeros(1, 40, 3)}, "made up")
    measure_inputs(student, window)
    seen = student.network.scale(to_images(rows)).flatten(1)
    torch.testing.assert_close(seen.std(dim=0, correction=0), torch.ones(size), atol=1e-3, rtol=0)
    torch.testing.assert_close(seen.mean(dim=0), torch.zeros(size), atol=1e-3, rtol=0)


def test_a_file_keeps_what_it_was_made_with(tmp_path, q_data):
    first = distill(q_data, out=tmp_path / "first", **SMALL | NORMALISED)
    begun = {"init_from": tmp_path / "first" / "student.safetensors"}
    collect(hand_made_teacher(), num_steps=1000, out=tmp_path / "other", exploration_epsilon=0.9, seed=5)
    again = distill(tmp_path / "other", out=tmp_path / "again", **SMALL | NORMALISED | begun)
    assert again.normalization == first.normalization
    assert not torch.equal(again.network.state_dict()["torso.1.weight"], first.network.state_dict()["torso.1.weight"])
    with pytest.raises(MismatchError, match=r"something else\. Leave --no-normalize-inputs out\.$"):
        distill(tmp_path / "other", out=tmp_path / "plain", **SMALL | begun | {"normalize_inputs": False})


def test_a_student_of_continuous_actions_normalises_unless_it_is_not_to(tmp_path):
    teacher = push_policy(normalised=False)
    collect(teacher, PUSH_TASK, num_steps=500, out=tmp_path / "data", num_threads=1)
    assert distill(tmp_path / "data", out=tmp_path / "a", **SMALL).normalization is not None
    assert distill(tmp_path / "data", out=tmp_path / "b", normalize_inputs=False, **SMALL).normalization is None
    plain = {"init_from": tmp_path / "b" / "student.safetensors", "loss": "mean_mse"}
    assert distill(tmp_path / "data", out=tmp_path / "c", **SMALL | plain).normalization is None
    with pytest.raises(
        MismatchError, match=r"student\.safetensors does not normalise its inputs: its weights would see"
    ):
        distill(tmp_path / "data", out=tmp_path / "d", **SMALL | plain | NORMALISED)


def test_the_teachers_statistics_reach_a_module_of_the_users_own_too(tmp_path):
    teacher = push_policy()
    collect(teacher, PUSH_TASK, num_steps=200, out=tmp_path / "data", num_threads=1)
    student = distill(tmp_path / "data", out=tmp_path / "r", **SMALL | {"student": nn.Linear(2, 1)})
    assert student.normalization == teacher.normalization
    again = load_policy(tmp_path / "r" / "student.safetensors", module=nn.Linear(2, 1))
    assert again.normalization == teacher.normalization


def test_what_cannot_be_normalised_is_refused(tmp_path, q_data, mirrored_data):
    expected = "normalize_inputs is for vectors, those of each task apart, got {}. Leave it out."
    for source, settings, why in (
        ([q_data, mirrored_data], {}, "2 tasks, whose observations have means of their own"),
        (q_data, {"student": nn.Linear(4, 2)}, "a module of your own, which may do so itself"),
    ):
        with pytest.raises(UsageError) as caught:
            distill(source, out=tmp_path / "r", **SMALL | NORMALISED | settings)
        assert str(caught.value) == expected.format(why)
    with pytest.raises(UsageError, match="normalize_inputs belongs with a dataset and --teacher, got it with online"):
        distill(online=True, task="CartPole-v1", out=tmp_path / "r", student="mlp:8", **NORMALISED)
    assert not (tmp_path / "r").exists()
