"""Several teachers of one task: which of them labels a row is data, through the public verbs."""

import tomllib

import numpy as np
import pytest

import rldistill as rd
from rldistill.data import Dataset
from rldistill.errors import MismatchError, UsageError
from rldistill.policies.switched import Choice, SwitchedPolicy
from tests.kit.cart_pole import hand_made_teacher
from tests.kit.commands import run, run_well
from tests.kit.terrain_env import (
    INFO_TASK,
    SPANS,
    TERRAIN_TASK,
    by_last_number,
    terrain_teacher,
    terrain_teachers,
)

SMALL = {"student": "mlp:16", "num_updates": 20, "batch_size": 16, "precision": "float32", "evaluate_episodes": 0}
CHOICES = {
    "a part": (TERRAIN_TASK, {"choose": "terrain", "names": SPANS}),
    "an entry of info": (INFO_TASK, {"choose": "terrain"}),
    "a function": (TERRAIN_TASK, {"choose": by_last_number}),
    "a function that is named": (TERRAIN_TASK, {"choose": "tests.kit.terrain_env:by_last_number"}),
}


def mean_of(result, role):
    return next(row.mean for row in result.policies if row.role == role)


@pytest.mark.parametrize(("task", "said"), CHOICES.values(), ids=CHOICES)
def test_a_dataset_of_two_teachers_says_whose_each_step_is(tmp_path, task, said):
    rd.collect(terrain_teachers(task), task, num_steps=200, out=tmp_path / "d", num_envs=3, **said)
    data = Dataset.open(tmp_path / "d")
    several = data.provenance.teacher.several
    assert several is not None and [own["name"] for own in several["teachers"]] == ["walk", "climb"]
    assert set(np.unique(data.field("teacher"))) == {0, 1}
    assert data.field("reward").mean() == 1  # each acts where it is right


def test_teachers_that_are_chosen_between_by_another_function_are_others():
    members = terrain_teachers(TERRAIN_TASK)
    task = next(iter(members.values())).tasks[0]
    functions = (lambda rows: rows[:, -1] > 0.5, lambda rows: rows[:, -1] <= 0.5, lambda rows: rows[:, -1] > 0.5)
    hashes = [SwitchedPolicy(members, task, Choice(function=function)).hash for function in functions]
    assert hashes[0] == hashes[2] != hashes[1]


def test_a_task_of_several_teachers_stands_beside_one_of_one(tmp_path):
    sources = [
        rd.Live(terrain_teachers(TERRAIN_TASK), TERRAIN_TASK, choose=by_last_number, collect_steps=200),
        rd.Live(hand_made_teacher(), "CartPole-v1", collect_steps=300),
    ]
    student = rd.distill(sources, out=tmp_path / "r", **SMALL | {"student": "mlp:8x8"})
    assert {task.name for task in student.tasks} == {TERRAIN_TASK, "CartPole-v1"}
    assert tomllib.loads((tmp_path / "r" / "config.toml").read_text())["collect_steps"] == {"0": 200, "1": 300}


def test_episodes_of_two_teachers_are_the_same_in_any_number_of_environments(tmp_path):
    for num_envs in (1, 5):
        rd.collect(terrain_teachers(INFO_TASK), INFO_TASK, choose="terrain", num_steps=80, num_envs=num_envs,
                   out=tmp_path / str(num_envs))  # fmt: skip
    one, five = (Dataset.open(tmp_path / name) for name in ("1", "5"))
    for episode in range(5):
        for field in ("teacher", "action", "q_values"):
            rows = [data.field(field)[data.episode_steps(episode)] for data in (one, five)]
            assert np.array_equal(*rows)


def test_a_student_of_two_teachers_that_play_live_is_compared_with_both_as_they_play(tmp_path):
    folder = tmp_path / "teachers"
    folder.mkdir()
    for name, policy in terrain_teachers().items():
        policy.save(folder / f"{name}.safetensors")
    files = {name: folder / f"{name}.safetensors" for name in ("walk", "climb")}
    source = rd.Live(files, TERRAIN_TASK, choose="terrain", collect_steps=200)
    student = rd.distill(source, names=SPANS, out=tmp_path / "r", **SMALL)
    assert mean_of(rd.evaluate(student, TERRAIN_TASK, num_episodes=5), "teacher") == 8.0  # recorded, and found again
    named = rd.evaluate(student, TERRAIN_TASK, teacher=files, choose="terrain", names=SPANS, num_episodes=5)
    assert mean_of(named, "teacher") == 8.0
    again = rd.distill(source, names=SPANS, out=tmp_path / "r", resume=True, **SMALL)
    assert again.hash == student.hash


@pytest.mark.learning
def test_a_student_learns_what_each_teacher_does_from_their_dataset(tmp_path):
    task, said = CHOICES["a part"]
    rd.collect(terrain_teachers(task), task, num_steps=2000, out=tmp_path / "d", **said)
    settings = SMALL | {"num_updates": 400, "batch_size": 64, "learning_rate": 0.01}
    student = rd.distill(tmp_path / "d", out=tmp_path / "r", **settings)
    assert mean_of(rd.evaluate(student, TERRAIN_TASK, num_episodes=20), "student") > 7


def test_the_command_line_names_each_teacher(tmp_path):
    files = []
    for name, policy in terrain_teachers(INFO_TASK).items():
        policy.save(tmp_path / f"{name}.safetensors")
        files.append(f"{name}={tmp_path / name}.safetensors")
    chosen = ("--task", INFO_TASK, "--choose", "terrain")
    run_well("collect", *files, *chosen, "--num-steps", 300, "--out", tmp_path / "d")
    small = ("--student", "mlp:4", "--num-updates", 10, "--evaluate-episodes", 0, "--precision", "float32")
    run_well("distill", tmp_path / "d", *small, "--out", tmp_path / "stored")
    teachers = [word for file in files for word in ("--teacher", file)]
    live = (*teachers, *chosen, "--collect-steps", 100)
    run_well("distill", *live, *small, "--out", tmp_path / "live")
    again = ("--config", tmp_path / "live" / "config.toml", "--out", tmp_path / "again")
    run_well("distill", *again)
    shown = run_well("evaluate", tmp_path / "stored", *teachers, *chosen, "--num-episodes", 5, "--json")
    rows = {row["role"]: row for row in shown.json["policies"]}
    assert rows["teacher"]["mean"] == 8.0


def test_a_value_that_no_teacher_has_stops_the_play_in_one_line(tmp_path):
    with pytest.raises(MismatchError, match=r"choose: terrain says 2\.0 of a row, expected 0 \(walk\), 1 \(climb\)"):
        rd.collect(terrain_teachers(), TERRAIN_TASK, choose="terrain", names=SPANS, env_kwargs={"kinds": 3},
                   num_steps=300, out=tmp_path / "d")  # fmt: skip


@pytest.mark.parametrize(
    ("teachers", "said", "line"),
    [
        ({"walk": 1, "climb": 1}, {}, "choose is missing: of walk, climb, what says which teacher"),
        ({"walk": 1}, {"choose": "terrain"}, "choose is for several teachers of one task, got walk"),
        (None, {"choose": "terrain"}, "each with a name of its own: got <TorchPolicy walk"),
        ({"walk": 1, "climb": 1}, {"choose": "nowhere:at_all"}, "'nowhere:at_all' is no function that can be imported"),
    ],
)
def test_teachers_that_are_not_told_apart_are_refused_in_one_line(tmp_path, teachers, said, line):
    given = terrain_teacher("walk") if teachers is None else {name: terrain_teacher(name) for name in teachers}
    with pytest.raises(UsageError, match=line):
        rd.collect(given, TERRAIN_TASK, num_steps=100, out=tmp_path / "d", **said)


@pytest.mark.parametrize(
    ("teachers", "said"),
    [(["a.zip"], "list of 1"), (("a.zip",), "tuple of 1"), ({"a": "a.zip"}, "dict of 1")],
)
def test_a_list_or_a_mapping_of_one_teacher_is_refused_as_what_it_is(tmp_path, teachers, said):
    for verb in (rd.shrink, rd.collect):
        with pytest.raises(UsageError) as refused:
            verb(teachers, TERRAIN_TASK, out=tmp_path / "d")
        assert str(refused.value) == (
            f"teacher: got a {said}, expected one teacher by itself, or several with choose, which says whose a row "
            "is. Pass the one itself."
        )


def test_no_teacher_at_all_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"^teacher: got an empty list, expected a teacher\.$"):
        rd.collect([], TERRAIN_TASK, num_steps=100, out=tmp_path / "d")


@pytest.mark.parametrize(
    ("names", "said"), [(None, ""), ({"ground": (0, 1), "rest": (1,)}, " The observation has the parts ground, rest.")]
)
def test_an_entry_that_no_environment_tells_is_refused_with_those_it_tells_and_the_parts(tmp_path, names, said):
    settings = {"choose": "terain", "names": names, "num_steps": 100, "out": tmp_path / "d"}
    with pytest.raises(MismatchError, match=r"^choose: .* told nothing of 'terain', .* got terrain\.") as refused:
        rd.collect(terrain_teachers(INFO_TASK), INFO_TASK, **settings)
    assert str(refused.value).endswith(f"by --names.{said}")


def test_two_files_without_a_choice_are_refused_on_the_command_line(tmp_path):
    result = run("collect", "a.zip", "b.zip", "--out", tmp_path / "d")
    assert (result.code, result.line) == (
        2,
        "rldistill collect: choose is missing: got several teachers, a.zip b.zip, and nothing says which labels a row. "
        "To record or play each by itself, give the command one at a time.",
    )
