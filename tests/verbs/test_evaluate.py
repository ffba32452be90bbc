"""What an evaluation says, worked out by hand on an environment whose scores are known."""

import errno
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats

from rldistill.envs import make_task
from rldistill.errors import (
    DiskFullError,
    MismatchError,
    OutputExistsError,
    PolicyFileError,
    RldistillError,
    UsageError,
)
from rldistill.evaluation.file import EvaluationNotWrittenError
from rldistill.evaluation.gate import check_gated
from rldistill.evaluation.pairing import pair
from rldistill.evaluation.records import stratum
from rldistill.evaluation.table import evaluation_table
from rldistill.events import MessageEvent, ProgressEvent
from rldistill.policies import load_policy
from rldistill.rollout.evaluate import EpisodeScore, PlayedEpisodes
from rldistill.seeding import episode_seed, stream_generator
from rldistill.statistics import bootstrap_interval, iqm
from rldistill.verbs.evaluate import evaluate
from tests.kit.cart_pole import hand_made_teacher, short_cart_pole
from tests.kit.commands import run
from tests.kit.evaluations import compare, rows_of
from tests.kit.interruptions import StopAfter, full_disk
from tests.kit.payout import constant_policy, payout_task
from tests.kit.small_policies import image_task, small_policy

POLICY_KEYS = [
    "name",
    "role",
    "policy_hash",
    "behaviour",
    "exploration_epsilon",
    "episodes",
    "num_distinct",
    "census",
    "mean",
    "median",
    "iqm",
    "interval",
    "iqm_interval",
    "degenerate",
    "relative_score",
    "relative_score_interval",
    "retention",
    "retention_interval",
    "retention_lower_bound",
    "normalised_score",
    "agreement",
    "agreement_interval",
    "action_gap",
    "action_gap_interval",
    "network",
    "num_parameters",
    "num_bytes",
    "num_macs",
    "latency_seconds",
    "decisions_per_second",
]


@pytest.fixture(scope="module")
def task():
    """Payouts 2, 6 and 10; random play scores 2."""
    return payout_task()


# The numbers.


def test_scores_and_ratios_are_those_worked_out_by_hand(task):
    teacher, student, random = compare(task, student=1).to_dict()["policies"]
    assert [policy["role"] for policy in (teacher, student, random)] == ["teacher", "student", "random"]
    assert [policy["mean"] for policy in (teacher, student, random)] == [10, 6, 2]
    assert [policy["median"] for policy in (teacher, student, random)] == [10, 6, 2]
    assert [policy["iqm"] for policy in (teacher, student, random)] == [10, 6, 2]
    assert student["relative_score"] == 6 / 10
    assert student["retention"] == (6 - 2) / (10 - 2)
    assert student["retention_interval"] == [0.5, 0.5]
    assert student["retention_lower_bound"] == 0.5
    assert student["agreement"] == 0.0, "it never does what the teacher does"


def test_constant_scores_give_an_interval_that_says_it_is_degenerate(task):
    student = compare(task, student=1).to_dict()["policies"][1]
    assert student["interval"] == student["iqm_interval"] == [6, 6]
    assert student["degenerate"] is True


def test_scores_with_spread_give_an_interval_around_their_mean():
    task = payout_task(noise=1.0)
    student = compare(task, student=1, num_episodes=40).to_dict()["policies"][1]
    scores = np.array([episode["return"] for episode in student["episodes"]])
    low, high = student["interval"]
    assert student["mean"] == pytest.approx(scores.mean())
    assert low < student["mean"] < high
    # The percentile bootstrap of a mean is close to the normal interval.
    assert high - low == pytest.approx(2 * 1.96 * scores.std() / math.sqrt(40), rel=0.1)
    assert student["degenerate"] is False
    low, high = student["retention_interval"]
    assert low < student["retention_lower_bound"] < student["retention"] < high
    assert student["retention"] == pytest.approx(0.5, abs=0.1)


def test_fewer_than_five_episodes_give_no_interval(task):
    for num_episodes, expected in ((4, None), (5, [6, 6])):
        student = compare(task, student=1, num_episodes=num_episodes).to_dict()["policies"][1]
        assert student["interval"] == student["iqm_interval"] == expected
        assert (student["retention_interval"] is None) == (student["retention_lower_bound"] is None) == (not expected)
        assert student["retention"] == 0.5
        assert student["degenerate"] is bool(expected)


def test_a_teacher_with_a_negative_score_has_retention_and_no_relative_score():
    task = payout_task(payouts=[-9, -5, -1], otherwise=-9)
    student = compare(task, student=1).to_dict()["policies"][1]
    assert student["mean"] == -5
    assert student["relative_score"] is None
    assert student["retention"] == 0.5


def test_a_teacher_no_better_than_random_play_leaves_retention_undefined():
    task = payout_task(payouts=[3, 3, 3], otherwise=3)
    student = compare(task, student=1).to_dict()["policies"][1]
    assert student["retention"] is student["retention_interval"] is student["retention_lower_bound"] is None
    assert student["relative_score"] == 1.0


def test_without_a_teacher_all_that_needs_one_is_null(task):
    student, random = compare(task, student=1, teacher=None).to_dict()["policies"]
    for policy in (student, random):
        for key in ("relative_score", "retention", "retention_interval", "retention_lower_bound", "agreement"):
            assert policy[key] is None


def test_every_policy_plays_the_same_episodes_by_the_seed(task):
    result = compare(task, student=1, seed=7).to_dict()
    expected = [episode_seed(7, index) for index in range(8)]
    for policy in result["policies"]:
        assert [episode["seed"] for episode in policy["episodes"]] == expected
        assert [episode["length"] for episode in policy["episodes"]] == [40] * 8
    # The environment shows the same whatever its seed: those who always do the same play eight copies of one episode.
    assert [policy["num_distinct"] for policy in result["policies"]] == [1, 1, 8]


def test_the_number_of_environments_changes_no_result():
    teacher = hand_made_teacher()
    student = small_policy(short_cart_pole().task, network="mlp:8")
    results = []
    for num_envs in (1, 4, 7, 50):
        result = evaluate(
            student, teacher=teacher, num_episodes=9, num_envs=num_envs, exploration_epsilon=0.2, seed=1
        ).to_dict()
        for policy in result["policies"]:
            del policy["latency_seconds"], policy["decisions_per_second"]
        results.append(result)
    assert results[0] == results[1] == results[2] == results[3]


def test_exploration_makes_a_constant_policy_change_its_mind(task):
    student = compare(task, student=1, exploration_epsilon=1.0).to_dict()["policies"][1]
    assert (student["mean"], student["exploration_epsilon"]) == (2, 1.0)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_exploration_of_the_data_is_not_that_of_the_evaluation(order):
    """Two students of one teacher, one of data with ε 0.2: they and their order decide nothing."""
    task = payout_task()
    students = [constant_policy(task.with_exploration(epsilon), 1, f"data at {epsilon}") for epsilon in (0.2, 0.0)]
    result = evaluate([students[index] for index in order], teacher=constant_policy(task, 2), num_episodes=5)
    assert [row.mean for row in result.policies] == [10, 6, 6, 2]
    assert [row.exploration_epsilon for row in result.policies] == [0, 0, 0, 1]
    assert result.task.protocol.exploration_epsilon == 0
    assert "exploration ε 0," in evaluation_table(result)
    asked = evaluate([students[index] for index in order], num_episodes=5, exploration_epsilon=0.5)
    assert [row.exploration_epsilon for row in asked.policies] == [0.5, 0.5, 1]
    assert "exploration ε 0.5," in evaluation_table(asked)


def test_several_students_are_compared_and_told_apart(task):
    students = [constant_policy(task, action, "twin") for action in (0, 1)]
    result = evaluate(students, task, teacher=constant_policy(task, 2), num_episodes=5).to_dict()
    assert [policy["name"] for policy in result["policies"]] == ["always 2", "twin", "twin (2)", "random"]
    assert [policy["retention"] for policy in result["policies"]] == [None, 0.0, 0.5, None]


def test_a_name_that_is_told_apart_takes_none_that_another_has(task):
    students = [constant_policy(task, action, name) for action, name in ((0, "a"), (2, "a"), (1, "a (2)"))]
    result = evaluate(students, task, teacher=constant_policy(task, 2, "t"), num_episodes=5).to_dict()
    agreements = {policy["name"]: policy["agreement"] for policy in result["policies"]}
    # The second is not the teacher itself, but chooses as it does.
    assert agreements == {"t": None, "a": 0.0, "a (3)": 1.0, "a (2)": 0.0, "random": None}


def test_the_teacher_named_among_the_policies_is_played_once(task):
    teacher = constant_policy(task, 2)
    result = evaluate([teacher, constant_policy(task, 1)], task, teacher=teacher, num_episodes=5).to_dict()
    assert [policy["role"] for policy in result["policies"]] == ["teacher", "student", "random"]


def test_a_policy_that_is_the_teacher_itself_is_not_dropped_without_a_word(task):
    events = []
    teacher = constant_policy(task, 2)
    evaluate([teacher, constant_policy(task, 1)], task, teacher=teacher, num_episodes=1, callbacks=[events.append])
    (note,) = [event.text for event in events if isinstance(event, MessageEvent) and "teacher" in event.text]
    assert note == "always 2 is the teacher itself: it is played once, and its row is the teacher's"


def test_atari_scores_are_put_between_random_and_human_play():
    task = make_task("atari:pong", {"max_frames": 40, "noop_max": 2})
    student, random = evaluate(small_policy(task.task, network="conv:4:4"), task, num_episodes=2).to_dict()["policies"]
    # DQN Zoo's table: random play −20.7, a human tester 14.6. Ten decisions are too few for a point.
    assert student["mean"] == random["mean"] == 0
    assert student["normalised_score"] == random["normalised_score"] == pytest.approx(20.7 / (14.6 + 20.7))


# The JSON.


def test_the_json_has_exactly_the_documented_keys(task):
    result = compare(task, student=1).to_dict()
    assert list(result) == [
        *("schema_version", "task", "fingerprint", "protocol", "environment_kwargs", "seed", "policies")
    ]
    assert result["schema_version"] == 1
    assert result["task"] == "tests.kit.payout:Payout-v0"
    for policy in result["policies"]:
        assert list(policy) == POLICY_KEYS
        assert [set(episode) for episode in policy["episodes"]] == [{"return", "length", "seed"}] * 8
    assert [policy["num_parameters"] for policy in result["policies"]] == [8, 8, None]
    # One weight and one bias, then three of each; four bytes a number; without the biases, 1 + 3 products.
    assert [policy["num_bytes"] for policy in result["policies"]] == [32, 32, None]
    assert [policy["num_macs"] for policy in result["policies"]] == [4, 4, None]
    assert all(policy["latency_seconds"] > 0 for policy in result["policies"][:2])
    assert all(policy["decisions_per_second"] > 0 for policy in result["policies"][:2])
    assert result["policies"][2]["exploration_epsilon"] == 1.0


@pytest.mark.parametrize("settings", [{"payouts": [3, 3, 3], "otherwise": 3}, {"payouts": [1, 1, 2], "noise": 5.0}, {}])
def test_the_json_never_holds_a_nan(settings):
    for num_episodes in (1, 6):
        result = compare(payout_task(**settings), student=1, num_episodes=num_episodes).to_dict()
        assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_a_file_of_half_precision_weighs_half_here_as_in_inspect(tmp_path, task):
    policy = constant_policy(task, 1).with_spec(weights_dtype="float16")
    policy.save(tmp_path / "half.safetensors")
    row = evaluate(tmp_path / "half.safetensors", num_episodes=1).to_dict()["policies"][0]
    assert row["num_bytes"] == run("inspect", tmp_path / "half.safetensors", "--json").json["num_bytes"] == 16


def test_the_result_is_written_where_it_is_to_go(tmp_path, task):
    result = compare(task, student=1, out=tmp_path / "results" / "e.json")
    assert json.loads((tmp_path / "results" / "e.json").read_text()) == result.to_dict()
    compare(task, student=0, out=tmp_path / "results" / "e.json")
    assert json.loads((tmp_path / "results" / "e.json").read_text())["policies"][1]["mean"] == 2


@pytest.mark.parametrize("content", ["three years", "[1, 2]", '{"name": "a web page"}', "3"])
def test_a_file_that_is_no_evaluation_is_not_written_over(tmp_path, task, content):
    (tmp_path / "thesis.tex").write_text(content)
    events = []
    with pytest.raises(OutputExistsError, match=r"exists and is not an evaluation. Choose another --out\.$"):
        compare(task, student=1, out=tmp_path / "thesis.tex", callbacks=[events.append])
    assert events == [], "nothing is played first"
    assert (tmp_path / "thesis.tex").read_text() == content
    with pytest.raises(OutputExistsError):
        compare(task, student=1, out=tmp_path)
    with pytest.raises(OutputExistsError, match=r"^--out \. is a folder, expected a file such as evaluation\.json\.$"):
        compare(task, student=1, out=".")


# Which teacher.


@pytest.fixture
def files(tmp_path, task):
    """A teacher's file, and a student's that names it."""
    teacher = constant_policy(task, 2, "teacher")
    teacher.save(tmp_path / "teacher.safetensors")
    record = {"name": "teacher", "hash": teacher.hash, "path": str(tmp_path / "teacher.safetensors")}
    student = constant_policy(task, 1, "student").with_provenance({"teacher": record})
    student.save(tmp_path / "student.safetensors")
    return tmp_path / "teacher.safetensors", tmp_path / "student.safetensors"


def test_the_teacher_that_a_student_names_is_found(files):
    teacher, student = files
    assert [policy.role for policy in evaluate(student, num_episodes=5).policies] == ["teacher", "student", "random"]
    check_gated(pair([student]))
    assert evaluate(student, num_episodes=1).teacher.policy_hash == load_policy(teacher).hash


def test_a_teacher_that_is_gone_or_is_another_by_now_is_not_taken_for_the_one_named(files, task):
    teacher, student = files

    def told() -> str:
        events = []
        assert [policy.role for policy in evaluate(student, num_episodes=1, callbacks=[events.append]).policies] == [
            "student",
            "random",
        ]
        (warning,) = [event.text for event in events if isinstance(event, MessageEvent) and event.level == "warning"]
        with pytest.raises(UsageError) as caught:
            check_gated(pair([student]))
        reason = warning.removeprefix("no retention: ")
        assert str(caught.value) == f"--require-retention compares with a teacher: {reason}."
        return reason

    other = (
        f"teacher recorded at {teacher} is another policy now, or cannot play this task; name it with --teacher FILE"
    )
    constant_policy(task, 0, "teacher").save(teacher)
    assert told() == other
    teacher.write_bytes(b"no policy")
    assert told() == other
    teacher.unlink()
    assert told() == f"teacher recorded at {teacher} is not there; name it with --teacher FILE"


def test_a_teacher_that_had_no_file_is_told_of(task):
    record = {"name": "teacher", "hash": "of an object", "path": None}
    events = []
    student = constant_policy(task, 1).with_provenance({"teacher": record})
    evaluate(student, num_episodes=1, callbacks=[events.append])
    assert "no retention: the recorded teacher was given as an object in Python and has no file; name it with " in str(
        events[0]
    )


def test_a_behaviour_is_of_the_policies_that_are_named_and_a_recorded_teacher_keeps_its_own(tmp_path):
    teacher = hand_made_teacher(kind="logits", behaviour="sample")
    teacher.save(tmp_path / "teacher.safetensors")
    record = {"name": "t", "hash": teacher.hash, "path": str(tmp_path / "teacher.safetensors")}
    student = teacher.with_spec(name="s", provenance={"teacher": record})
    student.save(tmp_path / "student.safetensors")
    options = ("--behaviour", "greedy", "--num-episodes", "5")
    alone = run("evaluate", tmp_path / "student.safetensors", *options).stdout
    assert [row[:2] for row in rows_of(alone.split("\n\n")[1])[1:3]] == [
        ["teacher (teacher)", "sample"],
        ["student", "greedy"],
    ]
    named = run("evaluate", tmp_path / "student.safetensors", "--teacher", tmp_path / "teacher.safetensors", *options)
    assert "all greedy" in named.stdout


def test_a_student_that_names_no_teacher_is_evaluated_without_a_word(task):
    events = []
    evaluate(constant_policy(task, 1), num_episodes=1, callbacks=[events.append])
    assert not [event for event in events if isinstance(event, MessageEvent) and "retention" in event.text]


def test_a_teacher_that_is_named_must_be_there(files):
    _, student = files
    with pytest.raises(PolicyFileError, match="found nothing there"):
        evaluate(student, teacher=student.with_name("no.safetensors"), num_episodes=5)


def test_the_student_of_a_run_folder_is_evaluated_and_its_teacher_found_in_another(tmp_path, files, task):
    teacher, _ = files
    (tmp_path / "teacher run").mkdir()
    teacher.rename(tmp_path / "teacher run" / "last_policy.safetensors")
    record = {"hash": constant_policy(task, 2, "teacher").hash, "path": str(tmp_path / "teacher run")}
    (tmp_path / "run").mkdir()
    constant_policy(task, 1).with_provenance({"teacher": record}).save(tmp_path / "run" / "student.safetensors")
    assert [policy.mean for policy in evaluate(tmp_path / "run", num_episodes=5).policies] == [10, 6, 2]
    (tmp_path / "empty").mkdir()
    with pytest.raises(PolicyFileError, match="not a run folder"):
        evaluate(tmp_path / "empty", num_episodes=5)


# What does not fit.


def test_a_policy_with_other_actions_or_other_preprocessing_is_refused_with_both_sides_named(task):
    with pytest.raises(MismatchError) as caught:
        evaluate(constant_policy(task, 1), payout_task(payouts=[1, 2]), num_episodes=5)
    assert str(caught.value) == (
        "Policy 'always 1' (made for tests.kit.payout:Payout-v0) does not fit task 'tests.kit.payout:Payout-v0': "
        "action_layout: discrete [3] against discrete [2]. Was it trained on another game, or with other "
        "preprocessing? See `rldistill inspect FILE`."
    )
    pong = small_policy(image_task(frame_skip=5), network="conv:4:4")
    with pytest.raises(MismatchError, match="frame_skip: 5 against 4"):
        evaluate(pong, "atari:pong", num_episodes=5)
    with pytest.raises(MismatchError, match=r"6 actions NOOP/FIRE/RIGHT/.* against 4 actions NOOP/FIRE/RIGHT/LEFT"):
        evaluate(small_policy(image_task(), network="conv:4:4"), "atari:breakout", num_episodes=5)


def test_a_teacher_that_does_not_fit_is_refused_too(task):
    with pytest.raises(MismatchError, match="Policy 'hand-made'"):
        evaluate(constant_policy(task, 1), task, teacher=hand_made_teacher(), num_episodes=5)


def test_numbers_out_of_range_are_wrong_usage(task, files):
    with pytest.raises(UsageError, match="num_episodes must be 1 or more, got 0"):
        compare(task, student=1, num_episodes=0)
    with pytest.raises(UsageError, match=r"exploration_epsilon must lie in \[0, 1\], got 1\.5"):
        compare(task, student=1, exploration_epsilon=1.5)
    with pytest.raises(UsageError, match="evaluate needs at least one policy"):
        evaluate([], task)
    with pytest.raises(UsageError, match="device: got 'tpu', expected auto, cpu or cuda"):
        evaluate(files[1], device="tpu")


# Callbacks.


def test_progress_counts_the_episodes_of_each_policy(task):
    events = []
    compare(task, student=1, num_episodes=3, num_envs=1, callbacks=[events.append])
    progress = [event for event in events if isinstance(event, ProgressEvent)]
    assert {event.phase for event in progress} == {"evaluate teacher", "evaluate student", "evaluate random"}
    assert {event.done for event in progress if event.phase == "evaluate student"} == {0, 1, 2, 3}
    assert all((event.total, event.unit) == (3, "episodes") for event in progress)


def test_a_callback_stops_an_evaluation_within_an_episode_and_nothing_is_written(tmp_path, task):
    with pytest.raises(KeyboardInterrupt, match=r"^stopped; no evaluation is written\.$"):
        compare(task, student=1, out=tmp_path / "e.json", callbacks=[StopAfter(10)])
    assert list(tmp_path.iterdir()) == []


# Nothing is lost.


def test_a_file_that_cannot_be_written_is_told_before_anything_is_played(tmp_path, task):
    (tmp_path / "file").touch()
    events = []
    for out, reason in ((tmp_path / "file" / "e.json", "Not a directory"), (tmp_path / "e.json", "File too large")):
        with full_disk(100), pytest.raises(RldistillError) as caught:
            compare(task, student=1, out=out, callbacks=[events.append])
        assert str(caught.value) == (
            f"--out {out} cannot be written: {reason}. Nothing was played. Make room there, or choose another --out."
        )
    with pytest.raises(RldistillError, match=r"out: got a name of 300 bytes, expected at most 255"):
        compare(task, student=1, out=tmp_path / ("e" * 300), callbacks=[events.append])
    assert events == []
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_disk_that_fills_up_while_it_plays_does_not_cost_the_result(tmp_path, task, monkeypatch):
    def full(_path, _data):
        raise DiskFullError("Writing failed: …") from OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("rldistill.evaluation.file.write_json", full)
    with pytest.raises(EvaluationNotWrittenError) as caught:
        compare(task, student=1, out=tmp_path / "e.json")
    assert str(caught.value) == (
        f"--out {tmp_path / 'e.json'} could not be written: No space left on device. What was found is not lost: it "
        "is printed, and in Python this error's `evaluation`."
    )
    assert [row.mean for row in caught.value.evaluation.policies] == [10, 6, 2]


def test_median_and_interquartile_mean_are_those_of_the_scores():
    row = compare(payout_task(noise=5.0), student=1, num_episodes=20).students[0]
    scores, data = row.played.scores, row.to_dict()
    assert data["median"] == np.median(scores) != data["mean"]
    assert data["iqm"] == pytest.approx(scipy.stats.trim_mean(scores, 0.25)) != data["mean"]
    assert data["iqm_interval"] == bootstrap_interval(scores, iqm, rng=stream_generator(0, "bootstrap iqm")).to_list()


def test_the_same_episodes_are_resampled_together_and_a_census_is_not_resampled():
    def arm(role, *seeds, is_census=False):
        episodes = tuple(EpisodeScore(1.0, 1, seed, 0) for seed in seeds)
        return SimpleNamespace(role=role, played=PlayedEpisodes(episodes, is_census))

    found = stratum(arm("student", 1, 2), arm("teacher", 1, 2), arm("random", 3, 4))
    assert (found.together, found.fixed) == (["student", "teacher"], [])
    assert stratum(arm("student", 1, is_census=True), arm("teacher", 2), arm("random", 3)).fixed == ["student"]


def test_a_student_that_only_looks_like_its_teacher_is_one():
    task = payout_task()
    policies = [constant_policy(task, action, name="same") for action in (1, 2)]
    assert str(policies[0]) == str(policies[1])
    result = evaluate(policies[0], task, teacher=policies[1], require_retention=0.2, num_episodes=5)
    assert [row.mean for row in result.policies if row.role != "random"] == [10.0, 6.0]
    with pytest.raises(UsageError, match="got no student"):
        evaluate(policies[0], task, teacher=policies[0], require_retention=0.2, num_episodes=5)
