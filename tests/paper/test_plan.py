"""Which jobs an experiment takes, who the teachers are, and what is refused before anything is done."""

from dataclasses import replace

import pytest

from rldistill.envs import make_task
from rldistill.errors import MismatchError, RldistillError, TaskError, UsageError
from rldistill.loading.bundled import find_bundled_teacher
from rldistill.options.reproduce import ReproduceOptions
from rldistill.paper.jobs import finished_result
from rldistill.paper.plan import make_plan
from rldistill.paper.reproduce import reproduce
from rldistill.session.run_folder import write_config
from rldistill.storage import write_json
from tests.kit.small_policies import small_policy
from tests.paper.small_experiment import write_experiment


@pytest.fixture
def plan_of(tmp_path, monkeypatch):
    # Whatever the zoo holds by now, in these tests it has one teacher.
    monkeypatch.setattr(
        "rldistill.paper.plan.find_bundled_teacher",
        lambda game: find_bundled_teacher(game) if game == "pong" else None,
    )

    def plan(*changes, **options):
        path = write_experiment(tmp_path, *changes)
        return make_plan(ReproduceOptions(experiment=str(path), budget="tiny", out=tmp_path / "out", **options))

    return plan


def saved_teacher(folder, game, **settings):
    path = folder / f"{game}-teacher.safetensors"
    small_policy(make_task(f"atari:{game}").task, network="conv:4-4:8", name=game, **settings).save(path)
    return path


def names(plan) -> dict[str, list[str]]:
    return {stage: [job.name for job in jobs] for stage, jobs in plan.stages.items()}


def test_a_student_for_each_arm_game_and_seed(plan_of):
    assert names(plan_of()) == {
        "teachers": ["teacher of pong", "teacher of breakout"],
        "data": ["data of pong", "data of breakout"],
        "students": [
            f"{arm} of {game}, seed {n}" for arm in ("kl", "nll") for game in ("pong", "breakout") for n in (0, 1)
        ],
        "evaluations": [f"evaluation of {game}, seed {seed}" for game in ("pong", "breakout") for seed in (0, 1)],
    }


def test_games_and_seeds_are_those_asked_for(plan_of):
    plan = plan_of(games="qbert", seeds=1, seed=7)
    assert names(plan)["students"] == ["kl of qbert, seed 7", "nll of qbert, seed 7"]
    assert [job.settings["seed"] for job in plan.stages["evaluations"]] == [1007]


def test_one_student_of_all_games(plan_of):
    plan = plan_of(('kind = "single_task"', 'kind = "multi_task"'), seeds=1)
    assert names(plan)["students"] == ["kl of 2 games, seed 0", "nll of 2 games, seed 0"]
    assert len(plan.stages["students"][0].places["data_paths"]) == 2
    evaluated = [job.places["student_paths"] for job in plan.stages["evaluations"]]
    assert evaluated[0] == evaluated[1]


def test_evaluations_of_students_of_other_games_are_others(plan_of):
    several = ('kind = "single_task"', 'kind = "multi_task"')
    of = {games: plan_of(several, games=games, seeds=1) for games in ("pong,breakout", "breakout,pong", "pong,qbert")}
    records = {games: evaluation_of(plan, "pong").record.name for games, plan in of.items()}
    assert records == {
        "pong,breakout": "pong-of-pong-breakout-seed0.json",
        "breakout,pong": "pong-of-breakout-pong-seed0.json",
        "pong,qbert": "pong-of-pong-qbert-seed0.json",
    }
    assert evaluation_of(plan_of(seeds=1), "pong").record.name == "pong-seed0.json"


def evaluation_of(plan, game):
    """Return a job of the plan, decided by what lies there now."""
    return next(job for job in replace(plan).stages["evaluations"] if job.settings["game"] == game)


def test_evaluations_of_an_older_version_count_where_they_are_of_the_same_students(plan_of):
    several = ('kind = "single_task"', 'kind = "multi_task"')
    plan, other = plan_of(several, seeds=1), plan_of(several, games="pong,qbert", seeds=1)
    for one in (plan, other):
        for job in one.stages["students"]:
            write_json(job.record, {"settings": job.settings, "result": {"policy_hash": str(job.record)}})
    job = evaluation_of(plan, "pong")
    old = job.record.with_name("pong-seed0.json")
    students = zip(plan.experiment.arms, plan.stages["students"], strict=True)
    arms = {arm.name: {"policy_hash": str(student.record)} for arm, student in students}
    write_json(old, {"settings": job.settings, "result": {"arms": arms}})
    assert evaluation_of(plan, "pong").record == old
    assert finished_result(evaluation_of(plan, "pong")) == {"arms": arms}
    assert finished_result(evaluation_of(other, "pong")) is None
    old.write_text("[]")
    assert finished_result(evaluation_of(plan, "pong")) is None


def test_a_joint_arm_is_one_training_on_all_games(plan_of):
    joint = ('loss = "nll"', 'method = "joint"\nnetwork = "conv:4-4:8:4"')
    section = ("evaluate = {", "joint = { num_steps = 64 }\nevaluate = {")
    plan = plan_of(('kind = "single_task"', 'kind = "multi_task"'), joint, section, seeds=1)
    distilled, trained = plan.stages["students"]
    assert "distill_settings" in distilled.settings
    assert trained.settings["joint_settings"] == {"num_steps": 64, "network": "conv:4-4:8:4"}


def test_a_budget_without_joint_leaves_such_an_arm_out(plan_of):
    joint = ('loss = "nll"', 'method = "joint"')
    plan = plan_of(('kind = "single_task"', 'kind = "multi_task"'), joint, seeds=1)
    assert names(plan)["students"] == ["kl of 2 games, seed 0"]
    assert [arm.name for arm in plan.left_out] == ["nll"]
    with pytest.raises(UsageError, match="budget tiny has no section joint, and no other arm is left"):
        alone = ('loss = "sharpened_kl"\ntemperature = 0.1', 'method = "joint"')
        plan_of(('kind = "single_task"', 'kind = "multi_task"'), joint, alone)


def test_without_collection_teachers_play_while_students_learn(plan_of):
    plan = plan_of(("collect = { num_steps = 160 }", ""), seeds=1)
    assert "data" not in plan.stages
    student = plan.stages["students"][0]
    assert student.places["data_paths"] == []
    assert student.places["teacher_paths"] == [str(plan.teacher_file("pong"))]


def test_a_budget_may_leave_the_zoo_out_or_want_every_teacher_named(plan_of, tmp_path):
    def among(teachers):
        return ("evaluate = {", f'teachers = "{teachers}"\nevaluate = {{')

    file = saved_teacher(tmp_path, "pong")
    assert {source.origin for source in plan_of(among("trained")).teachers.values()} == {"trained"}
    found = {game: source.origin for game, source in plan_of(among("trained"), teacher=(file,)).teachers.items()}
    assert found == {"pong": "file", "breakout": "trained"}
    with pytest.raises(UsageError, match=r"budget tiny is for teachers of yours, got none of breakout\. Name a file"):
        plan_of(among("named"), teacher=(file,))
    named = plan_of(among("named"), teacher=(file, saved_teacher(tmp_path, "breakout")))
    assert {source.origin for source in named.teachers.values()} == {"file"}
    with pytest.raises(UsageError, match="teachers: got 'zoo', expected trained or named"):
        plan_of(among("zoo"))


def test_a_named_teacher_comes_before_the_zoos_and_a_missing_one_is_trained(plan_of, tmp_path):
    file = saved_teacher(tmp_path, "pong")
    found = {game: source.origin for game, source in plan_of(teacher=(file,)).teachers.items()}
    assert found == {"pong": "file", "breakout": "trained"}
    assert plan_of().teachers["pong"].origin == "zoo"
    named, trained = plan_of(teacher=(file,)).stages["teachers"]
    assert named.settings["training"] == {}
    assert named.settings["policy_hash"] is not None
    assert trained.settings["training"]["num_steps"] == 32


def test_teachers_that_belong_to_no_game_or_to_one_twice_are_refused(plan_of, tmp_path):
    qbert, pong = saved_teacher(tmp_path, "qbert"), saved_teacher(tmp_path, "pong")
    with pytest.raises(MismatchError, match=r"qbert-teacher\.safetensors is for qbert, expected pong, breakout\.$"):
        plan_of(teacher=(qbert,))
    with pytest.raises(MismatchError, match=r"^Two teachers for pong: .* Leave one out\.$"):
        plan_of(teacher=(pong, pong))


@pytest.mark.parametrize(
    ("options", "error", "complaint"),
    [
        ({"games": "pong,ping"}, TaskError, "ping"),
        ({"games": "pong,pong"}, UsageError, "games: got pong more than once"),
        ({"games": ""}, TaskError, "Unknown Atari game: got ''"),
        ({"device": "tpu"}, UsageError, "tpu"),
    ],
)
def test_wrong_options_are_refused(plan_of, options, error, complaint):
    with pytest.raises(error, match=complaint):
        plan_of(**options)


def test_an_unknown_budget_is_answered_with_those_there_are(tmp_path):
    with pytest.raises(UsageError, match=r"^budget: got 'huge', small has tiny\.$"):
        make_plan(ReproduceOptions(experiment=str(write_experiment(tmp_path)), budget="huge"))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('loss = "nll"', 'loss = "null"', "loss: got 'null'"),
        ("learning_rate = 1e-3", "learning_rate = -1.0", "learning_rate"),
        ("num_updates = 2", "num_updates = 0", "num_updates must be 1 or more"),
        ("rollout_length = 8", "rollout_length = 0", "rollout_length"),
    ],
)
def test_what_a_verb_would_refuse_is_refused_before_anything_is_done(plan_of, old, new, complaint):
    with pytest.raises(UsageError, match=complaint):
        plan_of((old, new))


def test_play_without_chance_is_refused_unless_actions_stick(plan_of):
    with pytest.raises(UsageError, match="env: without chance in play a game has 30 episodes at most"):
        plan_of(("noop_max = 2", "exploration_epsilon = 0.0"))
    plan_of(("noop_max = 2", "exploration_epsilon = 0.0, sticky_action_probability = 0.25"))


def test_a_loss_must_fit_what_the_teacher_gives(plan_of, tmp_path):
    file = saved_teacher(tmp_path, "pong", output_kind="logits")
    with pytest.raises(MismatchError, match="'q_mse' fits q_values, the teacher gives logits"):
        plan_of(('loss = "nll"', 'loss = "q_mse"'), teacher=(file,))


def test_jobs_that_were_done_with_other_settings_are_refused_before_anything_is_written(tmp_path):
    path, out = write_experiment(tmp_path), tmp_path / "out"
    write_config(out, "reproduce", {"seed": 7})
    write_json(out / "teachers" / "pong.json", {"job": "teacher of pong", "settings": {"seed": 7}, "result": {}})
    before = (out / "config.toml").read_bytes()
    with pytest.raises(RldistillError, match=r"^teacher of pong was done with other settings: .*seed was 7, is 0"):
        reproduce(str(path), budget="tiny", out=out)
    assert (out / "config.toml").read_bytes() == before
