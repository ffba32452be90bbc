"""Tasks as a policy sees them: with the zeros and the clock that it was trained with, whoever names the task."""

from dataclasses import replace

import pytest

from rldistill.data import Dataset
from rldistill.envs import make_task
from rldistill.errors import MismatchError
from rldistill.loading.named import played_by
from rldistill.verbs.collect import collect
from rldistill.verbs.evaluate import evaluate
from tests.kit.commands import run
from tests.kit.flat import distill
from tests.kit.small_policies import small_policy

BOTH = {"zero_padding": 3, "time_feature": 500}


def clocked_policy(name="CartPole-v1"):
    """Return a policy made for 3 zeros and a clock beside the environment's own observation."""
    return small_policy(make_task(name, BOTH).task)


def test_a_task_is_seen_with_zeros_and_a_clock_by_a_policy_that_needs_them():
    policy = clocked_policy()
    for playable in (make_task("CartPole-v1"), make_task(policy.tasks[0])):
        assert played_by(policy, playable).task.fingerprint == policy.tasks[0].fingerprint
    kept = played_by(policy, make_task("CartPole-v1", {"max_episode_steps": 7})).task
    assert kept.environment_kwargs == {"max_episode_steps": 7}


def test_a_task_stays_as_it_is_for_a_policy_that_needs_nothing_or_another_environment():
    plain = make_task("CartPole-v1")
    assert played_by(small_policy(plain.task), plain) is plain
    assert played_by(clocked_policy("Acrobot-v1"), plain) is plain


def test_of_several_heads_the_one_of_the_tasks_name_decides():
    head = make_task("CartPole-v1", BOTH).task
    other = replace(head, name="another", fingerprint=make_task("CartPole-v1", {"zero_padding": 4}).task.fingerprint)
    policy = small_policy(other, head)
    assert played_by(policy, make_task("CartPole-v1")).task.fingerprint == head.fingerprint


def test_such_a_teacher_is_collected_from_distilled_and_evaluated_on_the_plain_name_of_its_task(tmp_path):
    teacher = clocked_policy()
    collect(teacher, "CartPole-v1", num_steps=200, num_envs=2, out=tmp_path / "data")
    dataset = Dataset.open(tmp_path / "data")
    assert dataset.provenance.task.fingerprint == teacher.tasks[0].fingerprint
    student = distill(tmp_path / "data", student="mlp:8", num_updates=5, evaluate_period=5, out=tmp_path / "run")
    assert student.tasks[0].fingerprint == teacher.tasks[0].fingerprint
    evaluation = evaluate(student, teacher=teacher, task="CartPole-v1", num_episodes=5)
    assert evaluation.task.fingerprint == teacher.tasks[0].fingerprint


def test_a_task_that_does_not_fit_is_refused_with_what_differs():
    with pytest.raises(MismatchError, match=r"zero_padding: 3 against 0; time_feature: 500 against None"):
        evaluate(clocked_policy("Acrobot-v1"), task="CartPole-v1", num_episodes=5)


@pytest.mark.parametrize(
    "options", [{"zero_padding": 4}, {"time_feature": 100}, {"zero_padding": 3, "time_feature": 9}]
)
@pytest.mark.parametrize("needs", [{}, BOTH], ids=["plain", "with a clock"])
def test_zeros_and_a_clock_that_a_policy_was_not_trained_with_are_never_dropped(tmp_path, needs, options):
    policy = small_policy(make_task("CartPole-v1", needs).task)
    said, own = ({"zero_padding": 0, "time_feature": None} | each for each in (options, needs))
    verbs = {
        "collect": lambda: collect(policy, "CartPole-v1", env_kwargs=options, num_steps=9, out=tmp_path / "out"),
        "evaluate": lambda: evaluate(policy, "CartPole-v1", env_kwargs=options, num_episodes=2),
        "distill": lambda: distill(
            teacher=policy, task="CartPole-v1", env_kwargs=options, student="mlp:4", num_updates=2, out=tmp_path / "out"
        ),
    }
    for verb, call in verbs.items():
        with pytest.raises(MismatchError) as caught:
            call()
        assert str(caught.value) == (
            f"Task 'CartPole-v1': got zero_padding {said['zero_padding']} and time_feature {said['time_feature']}, "
            f"policy 'mlp:8' was trained with {own['zero_padding']} and {own['time_feature']}. Leave both out: what a "
            "policy sees beside its environment is appended without being told."
        ), verb
    assert not (tmp_path / "out").exists()


def test_zeros_and_a_clock_that_a_policy_was_trained_with_may_be_said(tmp_path):
    collect(clocked_policy(), "CartPole-v1", env_kwargs=BOTH, num_steps=9, num_envs=1, out=tmp_path / "data")
    assert Dataset.open(tmp_path / "data").provenance.task == make_task("CartPole-v1", BOTH).task


@pytest.mark.parametrize("verb", [("collect", "--out", "out"), ("evaluate",), ("inspect",)], ids=lambda verb: verb[0])
def test_a_zip_of_stable_baselines3_is_not_given_zeros_that_it_never_saw(shared_teachers, verb):
    zip_file = shared_teachers / "sb3/dqn/CartPole-v1/CartPole-v1.zip"
    options = ("--task", "CartPole-v1", "--env-kwargs", '{"zero_padding": 4}')
    result = run(verb[0], zip_file, *verb[1:], *options)
    assert result.code == 1
    assert result.stderr.splitlines()[-1].startswith(
        f"rldistill {verb[0]}: Task 'CartPole-v1': got zero_padding 4 and time_feature None, policy "
    )
