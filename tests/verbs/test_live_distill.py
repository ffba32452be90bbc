"""A teacher that plays while the student learns, from the public verb: files, records, stops, refusals."""

import tomllib

import gymnasium
import pytest

import rldistill as rd
from rldistill.distillation.live import num_collections
from rldistill.envs import make_task
from rldistill.errors import MismatchError, PolicyFileError, RldistillError, UsageError
from rldistill.events import MessageEvent, ProgressEvent
from rldistill.options.distill import Live, Online
from rldistill.policies import TorchPolicy, load_policy
from rldistill.session.metrics import read_metrics
from rldistill.verbs.evaluate import evaluate
from tests.kit.cart_pole import (
    MIRRORED_TASK,
    hand_made_teacher,
    mirrored_teacher,
    short_cart_pole,
    short_mirrored_cart_pole,
)
from tests.kit.commands import run as run_command
from tests.kit.flat import distill

SMALL = {
    "student": "mlp:8",
    "num_updates": 30,
    "batch_size": 16,
    "evaluate_period": 10,
    "precision": "float32",
    "collect_steps": 300,
    "collect_period": 12,
    "replay_capacity": 600,
    "exploration_epsilon": 0.3,
    "num_envs": 4,
}


def live(out, **settings) -> TorchPolicy:
    given = {"teacher": hand_made_teacher(), "task": short_cart_pole()} | SMALL | settings
    return distill(out=out, **given)


@pytest.mark.parametrize(
    ("num_updates", "expected"), [(1, 1), (12_000, 1), (14_999, 1), (15_000, 2), (20_000, 2), (50_000, 5)]
)
def test_a_last_collection_for_less_than_half_a_period_is_left_out(num_updates, expected):
    assert num_collections(num_updates, 10_000) == expected


def test_the_last_period_takes_the_updates_of_a_collection_that_is_left_out(tmp_path):
    student = live(tmp_path / "r", num_updates=29, collect_period=12, evaluate_period=29)
    assert student.spec.provenance["num_updates"] == 29
    assert student.spec.provenance["dataset"]["num_steps"] == 600


@pytest.mark.learning
def test_a_student_of_live_play_plays_as_well_as_its_teacher(tmp_path):
    task = short_cart_pole(200)
    teacher = hand_made_teacher(task)
    student = live(
        tmp_path / "r",
        teacher=teacher,
        task=task,
        student="mlp:16",
        num_updates=600,
        batch_size=64,
        collect_steps=1500,
        collect_period=150,
        replay_capacity=4000,
        evaluate_period=200,
        learning_rate="one_cycle:5e-3",
    )
    result = evaluate(student, task, teacher=teacher, num_episodes=20, seed=100, exploration_epsilon=0.1)
    assert result.students[0].retention_lower_bound > 0.9


def test_the_file_says_who_taught_and_how_much_was_played(tmp_path, teacher_file):
    live(tmp_path / "r", teacher=teacher_file, task="CartPole-v1", env_kwargs={"max_episode_steps": 40})
    made = load_policy(tmp_path / "r" / "student.safetensors").spec.provenance
    assert made["teacher"] == {"name": "hand-made", "hash": hand_made_teacher().hash, "path": str(teacher_file)}
    assert made["dataset"] == {"num_steps": 900, "exploration_epsilon": 0.3}
    config = tomllib.loads((tmp_path / "r" / "config.toml").read_text())
    assert (config["teacher"], config["task"]) == ([str(teacher_file)], "CartPole-v1")
    assert [record["update"] for record in read_metrics(tmp_path / "r" / "metrics.jsonl")] == [10, 20, 30]
    assert len(list((tmp_path / "r" / "replay").glob("*/chunk-*.safetensors"))) > 0


def test_several_teachers_play_their_own_tasks(tmp_path):
    student = live(
        tmp_path / "r",
        teacher=[hand_made_teacher(), mirrored_teacher()],
        task=[short_cart_pole(), short_mirrored_cart_pole()],
    )
    assert list(student.spec.head_sizes) == ["CartPole-v1", MIRRORED_TASK]
    tasks = student.spec.provenance["tasks"]
    assert [record["dataset"]["num_steps"] for record in tasks.values()] == [900, 900]


def test_the_same_call_gives_the_same_student(tmp_path):
    assert live(tmp_path / "a").hash == live(tmp_path / "b").hash != live(tmp_path / "c", seed=1).hash


@pytest.mark.parametrize("phase", ["play CartPole-v1", "distill"])
def test_a_stopped_run_goes_on_to_its_end_and_plays_no_more_than_was_asked_for(tmp_path, phase):
    counts = {"play CartPole-v1": 0, "distill": 0}

    def stop(event) -> bool:
        if isinstance(event, ProgressEvent):
            counts[event.phase] += 1
            return event.phase == phase and counts[phase] == 17
        return False

    with pytest.raises(KeyboardInterrupt):
        live(tmp_path / "r", callbacks=[stop])
    told = []
    student = live(
        tmp_path / "r", resume=True, callbacks=[lambda e: isinstance(e, MessageEvent) and told.append(e.text)]
    )
    assert student.spec.provenance["num_updates"] == 30
    assert student.spec.provenance["dataset"]["num_steps"] == 900
    assert any(text.startswith("going on from update ") for text in told)
    assert [record["update"] for record in read_metrics(tmp_path / "r" / "metrics.jsonl")] == [10, 20, 30]


def test_a_finished_run_plays_no_more(tmp_path):
    first = live(tmp_path / "r")
    phases = set()
    again = live(
        tmp_path / "r", resume=True, callbacks=[lambda e: isinstance(e, ProgressEvent) and phases.add(e.phase)]
    )
    assert again.hash == first.hash
    assert phases == set()


def test_another_teacher_is_not_the_one_a_run_began_with(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        live(
            tmp_path / "r", callbacks=[lambda e: isinstance(e, ProgressEvent) and e.phase == "distill" and e.done == 9]
        )
    with pytest.raises(MismatchError, match="is not what the run began with"):
        live(tmp_path / "r", teacher=hand_made_teacher(scale=2.0), resume=True)


@pytest.mark.parametrize(
    ("settings", "error", "line"),
    [
        ({"collect_steps": 0}, UsageError, "collect_steps must be 1 or more, got 0"),
        ({"teacher": "no.safetensors"}, PolicyFileError, "no.safetensors"),
        ({"task": short_mirrored_cart_pole()}, MismatchError, "does not fit task"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_played(tmp_path, settings, error, line):
    with pytest.raises(error, match=line):
        live(tmp_path / "r", **settings)
    assert not (tmp_path / "r").exists()


def test_a_python_task_is_played_while_its_student_is_trained(tmp_path):
    playable = make_task(lambda: gymnasium.make("CartPole-v1", max_episode_steps=40))
    live(tmp_path / "r", teacher=hand_made_teacher(playable), task=playable, evaluate_period=6, evaluate_episodes=2)
    records = read_metrics(tmp_path / "r" / "metrics.jsonl")
    assert [len(record["scores"]) for record in records if "scores" in record] == [2]


def test_very_little_play_is_enough_to_be_measured_on(tmp_path):
    live(tmp_path / "r", collect_steps=4)
    assert read_metrics(tmp_path / "r" / "metrics.jsonl")[-1]["update"] == 30


def test_another_number_of_environments_makes_another_run(tmp_path):
    def stop(event) -> bool:
        return isinstance(event, ProgressEvent) and event.phase == "distill" and event.done == 9

    with pytest.raises(KeyboardInterrupt):
        live(tmp_path / "r", callbacks=[stop])
    with pytest.raises(RldistillError, match="num_envs was 4, is 5"):
        live(tmp_path / "r", num_envs=5, resume=True)


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ([], "source: got nothing, expected dataset folders, Stored, Live or Online."),
        (3, "source: got int, expected dataset folders, Stored, Live or Online."),
        (["d", Live("t")], "source: got 2 of Live and Stored, expected one kind: datasets, teachers that play "),
        ([Online("CartPole-v1")] * 2, "source: got 2 of Online, expected one kind"),
    ],
)
def test_sources_of_one_kind_are_learned_from(tmp_path, source, line):
    with pytest.raises(UsageError, match=line):
        rd.distill(source, out=tmp_path / "r")


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["d", "--collect-steps", "54000"], "collect_steps belongs with --teacher, got it with data."),
        (
            ["d", "--exploration-epsilon", "0.1"],
            "exploration_epsilon belongs with --teacher and --online, got it with data",
        ),
        (["d", "--learner", "{}"], "learner belongs with --online, got it with data."),
        (["d", "--env-kwargs", '{"x": 1}'], "env_kwargs belongs with --teacher and --online, got it with data."),
        (["--teacher", "t", "--judge-period", "3"], "judge_period belongs with --online, got it with teacher."),
        (
            ["d", "--teacher", "t"],
            "distill takes one of datasets, --teacher and --online, got data and teacher",
        ),
        (["d", "--online"], "distill takes one of datasets, --teacher and --online, got data and online."),
        (["--online"], "--online needs one task: --task atari:pong, got None."),
        (["--online", "--task", "a,b"], "--online needs one task: --task atari:pong, got a, b."),
        (
            ["--teacher", "t", "--teacher", "u", "--task", "a,b,c"],
            "--task names 3 tasks for 2 teachers, expected one for each.",
        ),
    ],
)
def test_no_option_of_another_source_is_ignored(argv, line):
    result = run_command("distill", *argv, "--out", "out")
    assert result.code == 2
    assert result.line.startswith(f"rldistill distill: {line}")
