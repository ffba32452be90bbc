"""Without `--student` a run chooses: what fits the observation and is smaller than the teacher."""

import tomllib
from types import SimpleNamespace

import pytest
import torch

import rldistill as rd
from rldistill.errors import UsageError
from rldistill.events import MessageEvent
from rldistill.networks import Architecture
from rldistill.options.distill import DistillOptions
from rldistill.policies import TorchPolicy, load_policy
from rldistill.tasks import ObservationFingerprint, ObservationPart, Task
from rldistill.types import ActionLayout
from rldistill.verbs.collect import collect
from rldistill.verbs.default_student import choose_student
from rldistill.verbs.distillation_setup import _teacher_sizes
from rldistill.verbs.student_task import StudentTask
from tests.kit.cart_pole import hand_made_teacher, short_cart_pole
from tests.kit.commands import run_well
from tests.kit.flat import distill
from tests.kit.small_policies import box_task, image_task, small_policy, vector_task

TINY = {"num_updates": 20, "evaluate_period": 10, "batch_size": 16, "precision": "float32", "evaluate_episodes": 0}


def combined_task() -> Task:
    parts = (ObservationPart("camera", (1, 40, 40), "uint8"), ObservationPart("joints", (3,)))
    return Task(
        "made-up", ObservationFingerprint((1603,), "float32", ActionLayout.discrete(2), observation_parts=parts)
    )


def small_images(height: int = 10) -> Task:
    return Task("made-up", ObservationFingerprint((3, height, height), "uint8", ActionLayout.discrete(2)))


def chosen(task: Task, teacher_sizes, kind="q_values", **options) -> tuple[str, str | None]:
    config = DistillOptions("unused", out="unused", **options)
    return choose_student(config.student, config, [StudentTask(task, samples=False, output_kind=kind)], teacher_sizes)


@pytest.mark.parametrize(
    ("task", "num_parameters", "name"),
    [
        (image_task(), 1_688_550, "net3"),
        (image_task(), 61_000, "conv:8-8-8:32"),
        (image_task(), None, "net3"),
        # 3 · 64 + 64 · 64 … : 4 · 64 + 64 + 64 · 64 + 64 + 64 · 3 + 3 = 4,675, of which the teacher needs twice as many
        (vector_task(), 9_350, "mlp:64x64"),
        (vector_task(), 9_349, "mlp:32x32"),
        (vector_task(), 4_996, "mlp:32x32"),
        (vector_task(), None, "mlp:32x32"),
        (vector_task(), 200, "mlp:4x4"),
        (combined_task(), 1_000_000, "combined:16-16-16:64:64"),
        (combined_task(), None, "combined:16-16-16:64:64"),
        (small_images(), 100_000, "mlp:64x64"),
    ],
)
def test_the_default_fits_the_observation_and_is_at_most_half_the_teacher(task, num_parameters, name):
    assert chosen(task, [num_parameters])[0] == name


def test_a_teacher_that_remembers_gets_a_student_that_does():
    tasks = [StudentTask(vector_task(), samples=False, remembers=True)]
    assert choose_student("auto", DistillOptions("unused", out="unused"), tasks, [9_350])[0] == "gru:32"


def test_a_line_says_what_was_chosen_and_why():
    assert chosen(vector_task(), [9_350])[1] == (
        "student: mlp:64x64, 4,675 parameters, at most half of its teacher's 9,350. --student names another."
    )
    assert chosen(vector_task(), [None])[1] == (
        "student: mlp:32x32, 1,315 parameters; nothing records its teacher's size. --student names another."
    )
    assert chosen(vector_task(), [20, 11])[1] == (
        "student: mlp:2, 19 parameters, the smallest default network; none is half the size of the teachers "
        "(31 parameters). --student names another."
    )
    assert chosen(vector_task(), [9_350], student="mlp:8") == ("mlp:8", None)


def test_a_gaussian_student_is_counted_with_its_spread():
    own = small_policy(box_task(), network="mlp:64x64", output_kind="gaussian")
    size = sum(parameter.numel() for parameter in own.network.parameters())
    assert chosen(box_task(), [2 * size], "gaussian")[0] == "mlp:64x64"
    assert chosen(box_task(), [2 * size - 1], "gaussian")[0] == "mlp:32x32"


def test_what_a_strangers_dataset_says_of_sizes_is_no_error():
    assert chosen(vector_task(), ["many"])[0] == "mlp:32x32"


def test_a_teacher_of_several_tasks_is_counted_once():
    def taught_by(teacher, size):
        return SimpleNamespace(teacher=SimpleNamespace(hash=teacher, num_parameters=size))

    data = [taught_by("a", 100), taught_by("a", 100), taught_by("b", 20), taught_by("a", None)]
    assert _teacher_sizes(data) == [100, 20]
    assert _teacher_sizes([taught_by("a", None)]) == [None]


@pytest.mark.parametrize(("network", "windows"), [("mlp:5x3", (1, 0)), ("stack:4+mlp:5", (1, 3)), ("gru:5", (64, 32))])
def test_a_student_that_goes_on_keeps_its_network_and_what_it_remembers(tmp_path, network, windows):
    first, task = tmp_path / "first.safetensors", short_cart_pole().task
    small_policy(task, network=network).save(first)
    student = rd.distill(
        rd.Live(hand_made_teacher(), collect_steps=100, collect_period=10), init_from=first, num_updates=2,
        batch_size=64, evaluate_episodes=0, out=tmp_path / "r",
    )  # fmt: skip
    assert student.spec.architecture.name == network
    config = tomllib.loads((tmp_path / "r" / "config.toml").read_text())
    assert (config["student"], config.get("window") or 1, config.get("burn_in") or windows[1]) == (network, *windows)
    if network == "gru:5":
        with pytest.raises(UsageError, match=r"which remembers, with --online"):
            rd.distill(rd.Online("CartPole-v1"), init_from=first, out=tmp_path / "s")


@pytest.fixture(scope="module")
def large_teacher(tmp_path_factory):
    """A teacher of 1,282 parameters that plays like the hand-made one: its first two units are that one's."""
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    teacher = TorchPolicy.create(Architecture("wide", "mlp", (32, 32)), [short_cart_pole().task], name="wide")
    with torch.no_grad():
        first, second = (teacher.network.get_parameter(f"torso.{layer}.weight") for layer in (1, 3))
        push = torch.tensor([0.1, 0.2, 1.0, 1.0])
        first.zero_()[:2] = torch.stack([push, -push])
        second.zero_()[:2, :2] = torch.eye(2)
        teacher.network.get_parameter("heads.0.output.weight")[:, :2] = torch.tensor([[-1.0, 1.0], [1.0, -1.0]])
    teacher.save(path)
    return path


def test_the_most_natural_command_works_and_its_folder_says_what_was_made(large_teacher, tmp_path):
    command = (
        "distill", "--teacher", large_teacher, "--out", tmp_path / "run", "--num-updates", 20,
        "--evaluate-period", 10, "--collect-steps", 300, "--precision", "float32", "--evaluate-episodes", 0,
    )  # fmt: skip
    result = run_well(*command)
    # A run that goes on is bound to its network.
    assert "student: mlp" not in run_well(*command, "--resume").stderr
    assert "student: mlp:16x16, 386 parameters, at most half of its teacher's 1,282." in result.stderr
    assert tomllib.loads((tmp_path / "run" / "config.toml").read_text())["student"] == "mlp:16x16"
    student = load_policy(tmp_path / "run" / "student.safetensors")
    assert student.name == "mlp:16x16" and student.spec.provenance["config"]["student"] == "mlp:16x16"


def test_a_dataset_remembers_the_size_of_its_teacher(large_teacher, tmp_path):
    collect(large_teacher, num_steps=600, out=tmp_path / "data", exploration_epsilon=0.3, num_envs=4)
    told: list[str] = []
    listen = {"callbacks": [lambda event: told.append(event.text) if isinstance(event, MessageEvent) else None]}
    student = distill(tmp_path / "data", out=tmp_path / "run", **TINY, **listen)
    assert student.name == "mlp:16x16" and any("--student names another" in text for text in told)
    told.clear()
    resumed = distill(tmp_path / "data", out=tmp_path / "run", resume=True, **TINY, **listen)
    assert resumed.hash == student.hash
    assert told and not any("--student" in text for text in told)


def test_collect_proposes_the_default(tmp_path):
    teacher = tmp_path / "teacher.safetensors"
    hand_made_teacher().save(teacher)
    result = run_well("collect", teacher, "--num-steps", 300, "--num-envs", 2, "--out", tmp_path / "data")
    assert result.stderr.splitlines()[-1] == f"next: rldistill distill {tmp_path / 'data'} --out runs/data"
