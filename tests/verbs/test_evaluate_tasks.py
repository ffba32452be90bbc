"""An evaluation on several tasks: what it says of each, what of all, and who is whose teacher."""

import json
import math
from dataclasses import replace

import pytest

from rldistill.envs import make_task
from rldistill.errors import MismatchError, PolicyFileError, RldistillError, UsageError
from rldistill.evaluation.records import Evaluation, PolicyEvaluation
from rldistill.events import MessageEvent, ProgressEvent
from rldistill.policies import load_policy
from rldistill.rollout.evaluate import EpisodeScore, PlayedEpisodes
from rldistill.statistics import mean
from rldistill.verbs.evaluate import evaluate
from tests.kit.cart_pole import collect_cart_pole, hand_made_teacher, mirrored_teacher
from tests.kit.flat import distill
from tests.kit.interruptions import StopAfter
from tests.kit.payout import constant_heads, constant_policy, payout_tasks
from tests.kit.small_policies import image_task, small_policy, vector_task

A, B, C = (f"tests.kit.payout:Payout{letter}-v0" for letter in "ABC")


def without_speed(data):
    for policy in data["policies"]:
        del policy["latency_seconds"], policy["decisions_per_second"]
    return data


def refusal(error, *arguments, **settings):
    events = []
    with pytest.raises(error) as caught:
        evaluate(*arguments, num_episodes=5, callbacks=[events.append], **settings)
    assert events == [], "nothing is played first"
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The numbers.


def test_every_task_is_played_and_the_aggregates_are_those_worked_out_by_hand(result_of_three):
    assert list(result_of_three.tasks) == [A, B, C]
    assert [[row.mean for row in task.policies] for task in result_of_three.tasks.values()] == [
        [10, 6, 2],
        [21, 5, 1],
        [12, 3, 0],
    ]
    (policy,) = result_of_three.overall
    assert (policy.name, policy.num_tasks, policy.num_relative_scores, policy.num_retentions) == ("student", 3, 3, 3)
    assert policy.geometric_mean == pytest.approx((3 / 5 * 5 / 21 / 4) ** (1 / 3))
    assert policy.mean_retention == pytest.approx((1 / 2 + 1 / 5 + 1 / 4) / 3)
    # Constant scores: every resample is the same.
    assert policy.geometric_mean_interval.to_list() == pytest.approx([policy.geometric_mean] * 2)
    assert policy.mean_retention_interval.to_list() == pytest.approx([policy.mean_retention] * 2)
    assert policy.mean_retention_lower_bound == pytest.approx(policy.mean_retention)


def test_the_json_has_exactly_the_documented_keys(result_of_three):
    data = result_of_three.to_dict()
    json.dumps(data, allow_nan=False)
    assert list(data) == ["schema_version", "seed", "tasks", "policies"]
    assert (data["schema_version"], data["seed"]) == (1, 0)
    assert {name: evaluation["task"] for name, evaluation in data["tasks"].items()} == {A: A, B: B, C: C}
    assert [list(policy) for policy in data["policies"]] == [
        [
            "name",
            "policy_hash",
            "num_tasks",
            "geometric_mean",
            "geometric_mean_interval",
            "num_relative_scores",
            "mean_retention",
            "mean_retention_interval",
            "mean_retention_lower_bound",
            "num_retentions",
        ]
    ]


def test_each_task_is_what_an_evaluation_of_it_alone_gives():
    tasks = payout_tasks(a={"noise": 1.0}, b={"noise": 2.0, "payouts": [1, 5]})
    student, teacher = constant_heads(tasks, (1, 0)), constant_heads(tasks, (2, 1), "teacher")
    together = evaluate(student, teacher=teacher, num_episodes=7, seed=3, exploration_epsilon=0.01)
    for name, evaluation in together.tasks.items():
        for task in (name, student.for_task(name).tasks[0]):
            alone = evaluate(student, task, teacher=teacher, num_episodes=7, seed=3, exploration_epsilon=0.01)
            assert without_speed(alone.to_dict()) == without_speed(evaluation.to_dict())


def test_scores_with_spread_give_intervals_that_are_the_same_for_the_same_seed():
    tasks = payout_tasks(a={"noise": 1.0}, b={"noise": 1.0, "payouts": [1, 5, 21], "otherwise": 1})
    student, teacher = constant_heads(tasks, (1, 1)), constant_heads(tasks, (2, 2), "teacher")
    first, again, other = (
        evaluate(student, teacher=teacher, num_episodes=30, seed=seed).overall[0] for seed in (1, 1, 2)
    )
    assert first == again != other
    low, high = first.mean_retention_interval.to_list()
    assert low < first.mean_retention_lower_bound < first.mean_retention < high
    assert first.mean_retention == pytest.approx(0.35, abs=0.1)
    low, high = first.geometric_mean_interval.to_list()
    assert low < first.geometric_mean < high
    assert first.geometric_mean == pytest.approx(math.sqrt(3 / 5 * 5 / 21), abs=0.1)


@pytest.mark.parametrize(
    ("payouts", "student_action"),
    [([-9, 0, 8], 1), ([-9, -5, 8], 1), ([-9, -5, -1], 1), ([-9, -5, 0], 1)],
    ids=["student 0", "student below 0", "teacher below 0", "teacher 0"],
)
def test_one_task_without_a_positive_ratio_leaves_no_geometric_mean_and_says_how_many_there_are(
    payouts, student_action
):
    tasks = payout_tasks(a={}, b={"payouts": payouts, "otherwise": -9})
    student, teacher = constant_heads(tasks, (1, student_action)), constant_heads(tasks, (2, 2), "teacher")
    data = evaluate(student, teacher=teacher, num_episodes=5).to_dict()
    json.dumps(data, allow_nan=False)
    (policy,) = data["policies"]
    assert policy["geometric_mean"] is policy["geometric_mean_interval"] is None
    assert (policy["num_relative_scores"], policy["num_retentions"], policy["num_tasks"]) == (1, 2, 2)
    share = (payouts[1] + 9) / (payouts[2] + 9)
    assert policy["mean_retention"] == pytest.approx((0.5 + share) / 2)
    assert policy["mean_retention_lower_bound"] == pytest.approx((0.5 + share) / 2)


def test_one_teacher_no_better_than_random_play_leaves_no_mean_retention():
    tasks = payout_tasks(a={}, b={"payouts": [3, 3, 3], "otherwise": 3})
    student, teacher = constant_heads(tasks, (1, 1)), constant_heads(tasks, (2, 2), "teacher")
    (policy,) = evaluate(student, teacher=teacher, num_episodes=5).to_dict()["policies"]
    keys = ("mean_retention", "mean_retention_interval", "mean_retention_lower_bound")
    assert [policy[key] for key in keys] == [None] * 3
    assert (policy["num_retentions"], policy["num_relative_scores"]) == (1, 2)
    assert policy["geometric_mean"] == pytest.approx(math.sqrt(0.6))


def test_fewer_than_five_episodes_give_no_intervals(student_of_three, three_teachers):
    (policy,) = evaluate(student_of_three, teacher=three_teachers, num_episodes=4).overall
    assert policy.geometric_mean is not None
    assert policy.mean_retention is not None
    assert policy.geometric_mean_interval is policy.mean_retention_interval is policy.mean_retention_lower_bound is None


def test_without_a_teacher_on_one_task_nothing_is_said_of_all(student_of_three, three_teachers):
    result = evaluate(student_of_three, teacher=three_teachers[:2], num_episodes=5)
    (policy,) = result.overall
    assert (policy.mean_retention, policy.geometric_mean, policy.mean_retention_interval) == (None, None, None)
    assert (policy.num_retentions, policy.num_relative_scores, policy.num_tasks) == (2, 2, 3)
    assert [task.teacher is not None for task in result.tasks.values()] == [True, True, False]


def hand_made(name, **scores):
    """Return the rows of a task with these scores; all but random play's are known exactly."""
    rows = []
    for role, values in scores.items():
        played = PlayedEpisodes(tuple(EpisodeScore(value, 1, 0, 0) for value in values), is_census=role != "random")
        average = float(mean(played.scores))
        row = PolicyEvaluation(vector_task(name=name), role, role, role, "greedy", 0.0, played, average, None, None)
        rows.append(replace(row, relative_score=0.5, retention=0.5))
    return tuple(rows)


def test_a_census_enters_with_its_mean_and_random_play_alone_is_resampled():
    one = hand_made("one", teacher=[20.0, 0.0], student=[9.0, 1.0], random=[0.0] * 5)
    two = hand_made("two", teacher=[9.0, 11.0], student=[1.0, 9.0], random=[-1.0, 1.0] * 5)
    (policy,) = Evaluation(0, one + two).overall
    assert policy.geometric_mean_interval.to_list() == pytest.approx([0.5, 0.5])
    assert policy.mean_retention_interval.low < 0.5 < policy.mean_retention_interval.high
    sampled = [replace(row, played=replace(row.played, is_census=False)) for row in one]
    (policy,) = Evaluation(0, (*sampled, *two)).overall
    assert policy.geometric_mean_interval is None, "two episodes are too few to resample"


# Which policies.


def test_several_students_are_told_apart_in_every_task_and_over_all(three_tasks, three_teachers):
    students = [constant_heads(three_tasks, (1, 1, 1), "twin"), constant_heads(three_tasks, (0, 1, 2), "twin")]
    result = evaluate([*students, students[0]], teacher=three_teachers, num_episodes=5)
    assert [policy.name for policy in result.overall] == ["twin", "twin (2)", "twin (3)"]
    shares = [policy.mean_retention for policy in result.overall]
    assert shares == pytest.approx([0.95 / 3, (0 + 1 / 5 + 1 / 3) / 3, 0.95 / 3])
    assert [row.name for row in result.tasks[B].policies] == ["teacher B", "twin", "twin (2)", "twin (3)", "random"]


def test_a_teacher_of_all_tasks_that_is_also_named_is_no_student(three_tasks, student_of_three):
    teacher = constant_heads(three_tasks, (2, 2, 3), "teacher")
    result = evaluate([teacher, student_of_three], teacher=teacher, num_episodes=5)
    assert [policy.name for policy in result.overall] == ["student"]
    assert [len(task.students) for task in result.tasks.values()] == [1, 1, 1]


def test_a_teacher_of_one_task_is_not_counted_as_a_student_of_all(
    three_tasks, three_teachers, student_of_three, tmp_path
):
    whole = constant_heads(three_tasks, (2, 0, 0), "whole")
    whole.save(tmp_path / "whole.safetensors")
    record = {"task": A, "hash": whole.hash, "path": str(tmp_path / "whole.safetensors")}
    naming = student_of_three.with_provenance({"teachers": [record]})
    result = evaluate([naming, whole], teacher=three_teachers[1:], num_episodes=5)
    of_file = f"{tmp_path.name}/whole"  # told apart from the policy in memory that has the same name
    assert [task.teacher.name for task in result.tasks.values()] == [of_file, "teacher B", "teacher C"]
    assert [len(task.students) for task in result.tasks.values()] == [1, 2, 2]
    assert [policy.name for policy in result.overall] == ["student"]


def test_a_policy_without_a_head_for_a_task_is_refused(student_of_three, three_teachers, three_tasks):
    message = refusal(MismatchError, [student_of_three, three_teachers[0]])
    assert message == f"Policy 'teacher A' has no head for '{B}', only for {A}."
    assert refusal(MismatchError, student_of_three, [A, "CartPole-v1"]) == (
        f"Policy 'student' has no head for 'CartPole-v1', only for {A}, {B}, {C}."
    )
    assert "has no head for 'CartPole-v1'" in refusal(MismatchError, student_of_three, "CartPole-v1")


def test_a_head_for_other_actions_than_the_tasks_is_refused(student_of_three, three_tasks):
    others = [three_tasks[0], make_task(B, {"payouts": [1, 2]})]
    message = refusal(MismatchError, student_of_three, others)
    assert f"Policy 'student' (made for {B}) does not fit task '{B}'" in message
    assert "discrete [3] against discrete [2]" in message


# Which tasks.


def test_one_head_alone_is_an_evaluation_of_one_task(student_of_three, three_teachers):
    result = evaluate(student_of_three, B, teacher=three_teachers[1], num_episodes=5)
    assert list(result.tasks) == [B]
    # The head's task as it was recorded, not the default payouts of that name.
    assert [row.mean for row in result.policies] == [21, 5, 1]
    alone = evaluate(student_of_three.single_task(B), teacher=three_teachers[1], num_episodes=5)
    assert [row.mean for row in alone.policies] == [21, 5, 1]


def test_settings_make_the_named_tasks_anew(student_of_three):
    result = evaluate(student_of_three, [A, B], env_kwargs={"payouts": [7, 8, 9]}, num_episodes=1)
    assert [task.students[0].mean for task in result.tasks.values()] == [8, 8]
    assert "belong with a task's name" in refusal(UsageError, student_of_three, env_kwargs={"payouts": [7, 8, 9]})


def test_several_tasks_are_played_in_the_order_they_are_named(student_of_three, three_tasks):
    assert list(evaluate(student_of_three, [C, A], num_episodes=1).tasks) == [C, A]
    assert list(evaluate(student_of_three, (three_tasks[1], three_tasks[2].task), num_episodes=1).tasks) == [B, C]
    assert list(evaluate(student_of_three.for_task(B), num_episodes=1).tasks) == [B, A, C]


def test_a_sequence_of_one_task_is_that_task(student_of_three):
    one, alone = (evaluate(student_of_three, task, num_episodes=1).to_dict() for task in ([B], B))
    assert without_speed(one) == without_speed(alone)


def test_what_is_of_one_task_is_not_said_of_several(result_of_three):
    with pytest.raises(UsageError, match=rf"^This evaluation is of 3 tasks: take one of them: \.tasks\['{A}'\]\.$"):
        _ = result_of_three.teacher


def test_a_policy_of_one_task_is_evaluated_as_ever(three_teachers):
    assert evaluate(three_teachers[0], num_episodes=1).to_dict()["task"] == A


def test_no_task_and_a_task_named_twice_are_wrong_usage(student_of_three):
    assert refusal(UsageError, student_of_three, []) == "task: got an empty sequence, expected at least one task."
    assert refusal(UsageError, student_of_three, [A, B, A]) == (
        f"task: got {A} more than once. An evaluation plays each task once."
    )


@pytest.mark.parametrize("name", ["python:make_my_env", "NoSuchEnv-v0", "no_such_module:Env-v0"])
def test_a_head_whose_task_cannot_be_made_here_is_named_with_those_that_can(tmp_path, three_tasks, name):
    strange = replace(three_tasks[1].task, name=name, environment_kwargs={})
    small_policy(three_tasks[0].task, strange, three_tasks[2].task, name="three").save(tmp_path / "three.safetensors")
    message = refusal(RldistillError, tmp_path / "three.safetensors")
    assert message.startswith(f"Policy 'three' has a head for '{name}', which cannot be played here: Task '{name}'")
    assert message.endswith(f"Name the tasks to play instead, such as --task {A},{C}.")
    assert list(evaluate(tmp_path / "three.safetensors", [A, C], num_episodes=1).tasks) == [A, C]


def test_an_atari_head_for_a_game_or_actions_that_do_not_exist_is_refused_before_anything_is_played():
    for other, reason in (
        (image_task(name="atari:no_such_game"), "Unknown Atari game: got 'no_such_game'"),
        (image_task(5, name="atari:breakout"), "but the game knows NOOP/FIRE/RIGHT/LEFT"),
        (image_task(name="atari:combat"), "needs two players"),
    ):
        policy = small_policy(image_task(), other, network="conv:4:4")
        message = refusal(RldistillError, policy)
        assert f"has a head for '{other.name}', which cannot be played here: " in message
        assert reason in message


# Which teachers.


def names_of_teachers(result):
    return [None if task.teacher is None else task.teacher.name for task in result.tasks.values()]


def test_teachers_are_matched_by_their_tasks_in_any_order(student_of_three, three_teachers):
    result = evaluate(student_of_three, teacher=three_teachers[::-1], num_episodes=1)
    assert names_of_teachers(result) == ["teacher A", "teacher B", "teacher C"]
    result = evaluate(student_of_three, [B, A], teacher=three_teachers[1], num_episodes=1)
    assert names_of_teachers(result) == ["teacher B", None]


def test_one_teacher_may_be_for_several_tasks(three_tasks, student_of_three, three_teachers):
    pair = constant_heads(three_tasks[:2], (2, 2), "pair")
    assert names_of_teachers(evaluate(student_of_three, teacher=[three_teachers[2], pair], num_episodes=1)) == [
        "pair",
        "pair",
        "teacher C",
    ]


def test_a_teacher_that_is_for_none_of_the_tasks_is_refused_though_observations_and_actions_fit(
    student_of_three, three_teachers
):
    assert refusal(MismatchError, student_of_three, [A, C], teacher=three_teachers) == (
        f"Teacher 'teacher B' (made for {B}) cannot be told to be for one of the tasks: {A}, {C}. "
        "See `rldistill inspect FILE`, or evaluate one task at a time."
    )
    assert evaluate(student_of_three, A, teacher=three_teachers[1], num_episodes=1).teacher.name == "teacher B"


def test_two_teachers_for_one_task_are_refused(student_of_three, three_teachers, three_tasks):
    other = constant_policy(three_tasks[0], 0, "other")
    assert refusal(MismatchError, student_of_three, teacher=[*three_teachers, other]) == (
        f"Two teachers for task '{A}': 'teacher A' and 'other'. A task is compared with one: leave the other out."
    )
    assert "Two teachers for task" in refusal(MismatchError, student_of_three, A, teacher=[three_teachers[0], other])


def test_the_same_teacher_twice_is_one_teacher(student_of_three, three_teachers):
    result = evaluate(student_of_three, teacher=[*three_teachers, three_teachers[0]], num_episodes=1)
    assert names_of_teachers(result) == ["teacher A", "teacher B", "teacher C"]


def test_a_teacher_of_another_name_is_matched_where_its_fingerprint_fits_one_task_alone(
    three_tasks, student_of_three, three_teachers
):
    unnamed = small_policy(replace(three_tasks[2].task, name="python:four_actions"), name="unnamed")
    result = evaluate(student_of_three, teacher=[*three_teachers[:2], unnamed], num_episodes=1)
    assert names_of_teachers(result) == ["teacher A", "teacher B", "unnamed"]
    three = small_policy(replace(three_tasks[0].task, name="python:three_actions"), name="three")
    assert "cannot be told to be for one of the tasks" in refusal(MismatchError, student_of_three, teacher=[three])


def test_games_that_share_all_actions_are_told_apart_by_name():
    tasks = [make_task(f"atari:{game}", {"max_frames": 40}).task for game in ("seaquest", "pong")]
    student = small_policy(*tasks, network="conv:4:4")
    river = small_policy(replace(tasks[0], name="atari:riverraid"), network="conv:4:4", name="river")
    message = refusal(MismatchError, student, teacher=[river])
    assert message.startswith("Teacher 'river' (made for atari:riverraid) cannot be told to be for one of the tasks: ")


def test_a_teacher_of_the_right_name_with_other_actions_is_refused(student_of_three, three_teachers):
    wrong = constant_policy(make_task(A, {"payouts": [1, 2]}), 1, "wrong")
    assert "Policy 'wrong'" in refusal(MismatchError, student_of_three, teacher=[wrong, *three_teachers[1:]])


@pytest.fixture
def recorded(tmp_path, student_of_three, three_teachers):
    """A student whose file names its teachers, and their files."""
    files = [tmp_path / f"{letter}.safetensors" for letter in "abc"]
    for teacher, file in zip(three_teachers, files, strict=True):
        teacher.save(file)
    records = [
        {"task": teacher.tasks[0].name, "name": teacher.name, "hash": teacher.hash, "path": str(file)}
        for teacher, file in zip(three_teachers, files, strict=True)
    ]
    student_of_three.with_provenance({"teachers": records}).save(tmp_path / "student.safetensors")
    return tmp_path / "student.safetensors", files


def test_the_teachers_that_a_student_names_are_found_task_by_task(recorded, three_teachers):
    student, files = recorded
    assert names_of_teachers(evaluate(student, num_episodes=1)) == ["a", "b", "c"]
    assert evaluate(student, B, num_episodes=1).teacher.name == "b"
    three_teachers[0].save(files[1])
    files[2].unlink()
    assert names_of_teachers(evaluate(student, num_episodes=1)) == ["a", None, None]


def test_the_run_folder_of_a_student_of_several_datasets_is_all_an_evaluation_needs(tmp_path):
    data = []
    for name, teacher in (("one", hand_made_teacher()), ("other", mirrored_teacher())):
        teacher.save(tmp_path / f"{name}.safetensors")
        data.append(collect_cart_pole(tmp_path / name, tmp_path / f"{name}.safetensors", num_steps=400))
    settings = {"student": "mlp:8:4", "num_updates": 20, "evaluate_period": 10, "precision": "float32"}
    student = distill(data, out=tmp_path / "run", **settings)
    result = evaluate(tmp_path / "run", num_episodes=5)
    assert list(result.tasks) == list(student.spec.head_sizes)
    assert [task.teacher.policy_hash for task in result.tasks.values()] == [
        load_policy(tmp_path / f"{name}.safetensors").hash for name in ("one", "other")
    ]
    assert result.overall[0].mean_retention is not None


def test_a_teacher_that_is_named_stands_before_the_one_that_is_recorded(recorded, three_tasks):
    student, files = recorded
    other = constant_policy(three_tasks[1], 0, "other")
    assert names_of_teachers(evaluate(student, teacher=other, num_episodes=1)) == ["a", "other", "c"]
    with pytest.raises(PolicyFileError):
        evaluate(student, teacher=[other, files[0].with_name("no.safetensors")], num_episodes=1)


def test_the_student_of_one_head_still_finds_its_teacher(recorded):
    student, _ = recorded
    assert evaluate(load_policy(student).single_task(C), num_episodes=1).teacher.name == "c"


def test_one_recorded_teacher_is_that_of_the_tasks_it_has_heads_for(tmp_path, three_tasks, student_of_three):
    teacher = constant_heads(three_tasks[1:], (2, 3), "pair")
    teacher.save(tmp_path / "pair.safetensors")
    record = {"name": "pair", "hash": teacher.hash, "path": str(tmp_path / "pair.safetensors")}
    assert names_of_teachers(evaluate(student_of_three.with_provenance({"teacher": record}), num_episodes=1)) == [
        None,
        "pair",
        "pair",
    ]


@pytest.mark.parametrize(
    "teachers", [None, 3, "text", {}, [3, None, "x", [], {}], [{"task": A}], [{"task": A, "path": 3}]]
)
def test_a_record_of_teachers_that_makes_no_sense_names_none(student_of_three, teachers):
    for provenance in ({"teachers": teachers}, {"teacher": teachers}, {"teachers": teachers, "teacher": teachers}):
        assert names_of_teachers(evaluate(student_of_three.with_provenance(provenance), num_episodes=1)) == [None] * 3


# Callbacks.


def test_events_say_which_task_they_are_about(student_of_three):
    events = []
    evaluate(student_of_three, num_episodes=2, callbacks=[events.append])
    phases = {event.phase for event in events if isinstance(event, ProgressEvent)}
    assert phases == {f"evaluate {name} on {task}" for name in ("random", "student") for task in (A, B, C)}


def test_messages_say_which_task_they_are_about():
    options = {"max_frames": 40, "noop_max": 1}
    tasks = [make_task(f"atari:{game}", options) for game in ("pong", "breakout")]
    events = []
    student = small_policy(*(task.task for task in tasks), network="conv:4:4", name="student")
    settings = {"num_episodes": 1, "num_envs": 1, "num_threads": 1, "exploration_epsilon": 0.0}
    evaluate(student, callbacks=[events.append], **settings)
    texts = [event.text for event in events if isinstance(event, MessageEvent)]
    assert [text.partition(" plays")[0] for text in texts] == ["atari:pong: student", "atari:breakout: student"]


def test_a_callback_stops_an_evaluation_on_its_second_task_and_nothing_is_written(tmp_path, student_of_three):
    with pytest.raises(KeyboardInterrupt):
        evaluate(student_of_three, num_episodes=2, out=tmp_path / "e.json", callbacks=[StopAfter(100)])
    assert list(tmp_path.iterdir()) == []


def test_the_result_is_written_and_may_be_written_over(tmp_path, student_of_three):
    for num_episodes in (1, 2):
        result = evaluate(student_of_three, num_episodes=num_episodes, out=tmp_path / "e.json")
    assert json.loads((tmp_path / "e.json").read_text()) == result.to_dict()
