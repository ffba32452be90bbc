"""What Python gives is checked as what the command line gives, before anything is made on disk."""

import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from torch import nn

import rldistill as rd
from rldistill.errors import UsageError
from rldistill.options.declaration import check_types
from tests.kit.cart_pole import hand_made_teacher
from tests.kit.flat import distill as distill_flat


@dataclass(frozen=True)
class Record:
    count: int = 1
    share: float | None = None
    name: str = "a"
    path: Path | None = None
    several: tuple[Path, ...] = ()
    seeds: int | Sequence[int] | None = None

    def __post_init__(self) -> None:
        check_types(self)


def test_numbers_and_paths_become_what_the_types_say():
    record = Record(count=np.int64(7), share=1, path="a/b")
    assert (record.count, record.share, record.path) == (7, 1.0, Path("a/b"))
    assert (type(record.count), type(record.share)) == (int, float)
    assert Record(count=1e4).count == 10_000


@pytest.mark.parametrize("number", [np.float32(0.5), np.float64(0.5), np.int64(2)])
def test_numbers_of_numpy_are_taken_where_a_schedule_is(tmp_path, number):
    out = tmp_path / "run"
    source = rd.Live(hand_made_teacher(), collect_steps=100, teacher_fraction=np.float32(1))
    settings = {"student": "mlp:8", "learning_rate": number, "temperature": number, "loss": "sharpened_kl"}
    rd.distill(source, out=out, num_updates=1, evaluate_episodes=0, **settings)
    config = tomllib.loads((out / "config.toml").read_text())
    assert (config["learning_rate"], config["temperature"], config["teacher_fraction"]) == (number, number, 1)


@pytest.mark.parametrize("seeds", [np.arange(2), np.arange(2, dtype=np.uint8), [np.int64(0), 1], (0, np.int32(1))])
def test_whole_numbers_of_numpy_are_taken_where_a_list_is(seeds):
    record = Record(seeds=seeds)
    assert list(record.seeds) == [0, 1]
    assert [type(seed) for seed in record.seeds] == [int, int]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"count": 200.5}, "count: got 200.5, expected a whole number."),
        ({"count": "7"}, "count: got '7', expected a whole number."),
        ({"count": True}, "count: got True, expected a whole number."),
        ({"count": float("nan")}, "count: got nan, expected a whole number."),
        ({"count": None}, "count: got None, expected a whole number."),
        ({"share": "much"}, "share: got 'much', expected a number."),
        ({"name": 5}, "name: got 5, expected a text."),
        ({"path": 5}, "path: got 5, expected a path."),
        ({"seeds": np.zeros((2, 2), int)}, "seeds: got array([[0, 0], [0, 0]]), expected a whole number or a list."),
        ({"seeds": np.zeros(2)}, "seeds: got array([0., 0.]), expected a whole number or a list."),
        ({"seeds": "01"}, "seeds: got '01', expected a whole number or a list."),
    ],
)
def test_what_the_types_do_not_say_is_refused(values, line):
    with pytest.raises(UsageError) as caught:
        Record(**values)
    assert str(caught.value) == line


def two(_student):
    return 0


def test_no_public_function_begins_with_an_argument_that_the_command_line_refuses(tmp_path):
    teacher = hand_made_teacher()
    out = tmp_path / "out"

    def collect(**values):
        rd.collect(teacher, **({"num_steps": 50, "out": out} | values))

    def distill(**values):
        distill_flat(**({"teacher": teacher, "student": "mlp:8", "num_updates": 5, "out": out} | values))

    def evaluate(**values):
        rd.evaluate(teacher, **values)

    def train(task="CartPole-v1", **values):
        rd.train_teacher(task, **({"network": "mlp:8", "num_steps": 50, "out": out} | values))

    def reproduce(**values):
        rd.reproduce("losses", budget="smoke", out=out, **values)

    def print_event(_event):
        return None

    cases = [
        (collect, {"seed": -1}, "seed must be 0 or more, got -1."),
        (collect, {"num_envs": -1}, "num_envs must lie in [1, 4096], got -1."),
        (collect, {"num_envs": 0}, "num_envs must lie in [1, 4096], got 0."),
        (collect, {"num_envs": 5000}, "num_envs must lie in [1, 4096], got 5000."),
        (collect, {"num_steps": 200.5}, "num_steps: got 200.5, expected a whole number."),
        (collect, {"num_threads": -1}, "num_threads must lie in [0, 1024], got -1."),
        (collect, {"num_threads": 100_000}, "num_threads must lie in [0, 1024], got 100000."),
        (collect, {"exploration_epsilon": "no"}, "exploration_epsilon: got 'no', expected a number."),
        (collect, {"callbacks": print_event}, "callbacks: got <function"),
        (distill, {"num_updates": 0}, "num_updates must be 1 or more, got 0."),
        (distill, {"num_updates": 5.5}, "num_updates: got 5.5, expected a whole number."),
        (distill, {"seed": -1}, "seed must be 0 or more, got -1."),
        (
            distill,
            {"student": 64},
            "student: got 64, expected a network's name such as mlp:64x64, or a torch.nn.Module.",
        ),
        (distill, {"student": "mlp:99999999999999999999"}, "network: got a layer of 99999999999999999999, expected at"),
        (
            distill,
            {"loss": two},
            "loss: tests.verbs.test_arguments.two cannot be called as loss(student, target): too many pos",
        ),
        (distill, {"loss": 5}, "loss: got 5, expected one of nll, "),
        (distill, {"callbacks": print_event}, "callbacks: got <function"),
        (distill, {"max_gradient_norm": math.inf}, "max_gradient_norm must be a finite number > 0, got inf."),
        (distill, {"task_weights": {3: 1.0}}, "key of task_weights: got 3, expected a text."),
        (rd.distill, {"source": rd.Stored(3), "out": out}, "data: got 3, expected a dataset folder, or an open datase"),
        (evaluate, {"num_episodes": 0}, "num_episodes must be 1 or more, got 0."),
        (evaluate, {"num_episodes": 3.5}, "num_episodes: got 3.5, expected a whole number."),
        (evaluate, {"num_envs": 0}, "num_envs must lie in [1, 4096], got 0."),
        (evaluate, {"seed": -1}, "seed must be 0 or more, got -1."),
        (evaluate, {"callbacks": None}, "callbacks: got None, expected a list of functions: callbacks=[f]."),
        (evaluate, {"callbacks": [3]}, "callbacks: got [3], expected a list of functions: callbacks=[f]."),
        (train, {"num_steps": 0.5}, "num_steps: got 0.5, expected a whole number."),
        (train, {"seed": -1}, "seed must be 0 or more, got -1."),
        (train, {"num_envs": 0}, "num_envs must lie in [1, 4096], got 0."),
        (train, {"learning_rate": "fast"}, "learning_rate: got 'fast', expected a number."),
        (train, {"network": "mlp:99999999999999999999"}, "network: got a layer of 99999999999999999999, expected at"),
        (train, {"task": print_event}, "task: got a function, expected an id, or a list of ids"),
        (train, {"task": [3]}, "task: got a list, expected an id, or a list of ids"),
        (train, {"callbacks": print_event}, "callbacks: got <function"),
        (train, {"max_gradient_norm": math.inf}, "max_gradient_norm must be a finite number > 0, got inf."),
        (train, {"repeat_exponent": math.inf}, "repeat_exponent must be a finite number > 1, got inf."),
        (reproduce, {"num_envs": 0}, "num_envs must lie in [1, 4096], got 0."),
        (reproduce, {"seeds": -1}, "seeds must be 0 or more, got -1."),
        (reproduce, {"seed": 1.5}, "seed: got 1.5, expected a whole number."),
    ]
    for call, values, line in cases:
        with pytest.raises(UsageError) as caught:
            call(**values)
        assert str(caught.value).startswith(line)
        assert not out.exists(), (values, "left its folder behind")


def test_a_loss_that_does_not_say_what_it_takes_is_taken(tmp_path):
    """A module of PyTorch takes whatever comes."""
    with pytest.raises(UsageError, match="one value per row"):
        distill_flat(
            teacher=hand_made_teacher(),
            student="mlp:8",
            loss=nn.MSELoss(),
            num_updates=1,
            out=tmp_path / "r",
            collect_steps=100,
        )
