"""Students that remember, through the public verbs: stored and live, played, saved, gone on with."""

import pytest

import rldistill as rd
from rldistill.envs import make_task
from rldistill.errors import UsageError
from rldistill.policies import load_policy
from tests.kit.cue_env import CUE_TASK, PICTURE_TASK, teacher_of_cue
from tests.kit.small_policies import small_policy

SMALL = {
    "num_updates": 150,
    "batch_size": 128,
    "learning_rate": 0.01,
    "precision": "float32",
    "evaluate_episodes": 0,
    "evaluate_period": 100,
    "student_sees": "shown",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cue") / "data"
    rd.collect(teacher_of_cue(), CUE_TASK, teacher_sees="always", num_steps=2000, out=folder, exploration_epsilon=0.2)
    return folder


def score(policy, task=CUE_TASK):
    rows = rd.evaluate(policy, task, num_episodes=40).policies
    return next(row.mean for row in rows if row.role == "student")


@pytest.mark.learning
@pytest.mark.parametrize(
    ("student", "least", "most"),
    [("gru:6", 0.98, 1.0), ("mlp:4+lstm:6", 0.98, 1.0), ("stack:9+mlp:8", 0.98, 1.0), ("mlp:8", 0.0, 0.75)],
)
def test_a_student_that_remembers_keeps_what_only_the_first_step_shows(data, tmp_path, student, least, most):
    made = rd.distill(
        data,
        student=student,
        window=9 if "stack" not in student and student != "mlp:8" else None,
        out=tmp_path / "r",
        **SMALL,
    )
    assert least <= score(made) <= most
    loaded = load_policy(tmp_path / "r" / "student.safetensors")
    assert loaded.hash == made.hash
    assert score(loaded) == score(made)


@pytest.mark.learning
@pytest.mark.parametrize(("student", "least", "most"), [("conv:8-8:16+gru:8", 0.95, 1.0), ("conv:8-8:16", 0.0, 0.75)])
def test_a_student_of_pictures_remembers_what_only_the_first_shows(tmp_path, student, least, most):
    source = rd.Live(teacher_of_cue(), PICTURE_TASK, teacher_sees="always", collect_steps=1000, teacher_fraction=0.5)
    window = {"window": 9, "burn_in": 0} if "gru" in student else {}
    settings = SMALL | window | {"num_updates": 300, "learning_rate": 0.003}
    made = rd.distill(source, student=student, out=tmp_path / "r", **settings)
    assert least <= score(made, PICTURE_TASK) <= most
    for name in ("a.onnx", "a.c") if "gru" in student else ():
        left = rd.export(made, tmp_path / name, task=PICTURE_TASK, num_episodes=5, num_envs=2, num_threads=1)
        assert left.parity.agreement == 1


@pytest.mark.learning
def test_a_student_of_live_play_learns_from_windows_that_begin_within_episodes(tmp_path):
    source = rd.Live(teacher_of_cue(), CUE_TASK, teacher_sees="always", collect_steps=1000, teacher_fraction=0.5)
    made = rd.distill(source, student="gru:6", window=4, burn_in=8, out=tmp_path / "r", **SMALL)
    assert score(made) >= 0.95


def test_a_run_of_a_student_that_remembers_goes_on_where_it_stopped(data, tmp_path):
    small = SMALL | {"num_updates": 20, "evaluate_period": 5, "student": "gru:4", "window": 5, "burn_in": 2}
    whole = rd.distill(data, out=tmp_path / "whole", **small)

    def stop(event):
        return getattr(event, "done", 0) == 10

    with pytest.raises(KeyboardInterrupt):
        rd.distill(data, out=tmp_path / "cut", callbacks=[stop], **small)
    assert rd.distill(data, out=tmp_path / "cut", resume=True, **small).hash == whole.hash


def test_the_last_bits_of_an_answer_do_not_depend_on_the_number_of_environments(data, tmp_path):
    student = rd.distill(data, student="gru:5", out=tmp_path / "r", window=9, **(SMALL | {"num_updates": 30}))
    few, many = (rd.evaluate(student, CUE_TASK, num_episodes=7, num_envs=n).to_dict()["policies"] for n in (1, 7))
    assert [row["episodes"] for row in few] == [row["episodes"] for row in many]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"student": "mlp:8", "window": 4},
            r"^window belongs with a student that remembers, .* got mlp:8\.",
        ),
        ({"burn_in": 4}, r"^burn_in belongs with a student that remembers, .* got auto\. Leave it out"),
        ({"student": "gru:4", "window": 50}, r"^window: got 50 steps, the longest episode of .* has 9\. Choose fewer"),
    ],
)
def test_windows_that_cannot_be_are_refused(data, tmp_path, settings, message):
    with pytest.raises(UsageError, match=message):
        rd.distill(data, out=tmp_path / "r", **(SMALL | settings))


def test_a_learner_online_teaches_no_student_that_remembers(tmp_path):
    with pytest.raises(UsageError, match=r"student: got 'gru:4', which remembers, with --online"):
        rd.distill(rd.Online("CartPole-v1"), student="gru:4", out=tmp_path / "r")


def test_burnt_in_steps_fill_the_memory_of_a_student(data, tmp_path):
    settings = SMALL | {"num_updates": 1, "student": "gru:4"}
    first = rd.distill(data, out=tmp_path / "a", window=1, burn_in=8, **settings)
    other = rd.distill(data, out=tmp_path / "b", window=1, burn_in=0, **settings)
    assert first.hash != other.hash


def test_a_window_beyond_the_tasks_own_limit_is_refused_before_anything_is_played(tmp_path):
    teacher = small_policy(make_task("CartPole-v1").task)
    with pytest.raises(
        UsageError, match=r"^window: got 501 steps, the longest episode of CartPole-v1 has 500\. Choose"
    ):
        rd.distill(rd.Live(teacher, "CartPole-v1"), student="gru:4", window=501, out=tmp_path / "r")
