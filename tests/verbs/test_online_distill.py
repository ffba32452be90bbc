"""A student of a teacher that is still learning: both curves, both kinds of teacher, stops, refusals."""

import tomllib

import numpy as np
import pytest
import torch

from rldistill.distillation import HeldOut
from rldistill.errors import NumericalError, RldistillError, UsageError
from rldistill.events import ProgressEvent
from rldistill.policies import TorchPolicy, load_policy
from rldistill.reports.curves import online_curves
from rldistill.session.metrics import read_metrics
from rldistill.training.pqn import PQNLearner
from rldistill.training.stream import TrainingStream
from rldistill.verbs.evaluate import evaluate
from tests.kit.flat import distill

PQN = {"network": "mlp:16", "num_envs": 4, "rollout_length": 16, "num_minibatches": 4}
DQN = {"network": "mlp:16", "num_envs": 4, "learning_starts": 100, "replay_capacity": 2000}
SMALL = {
    "task": "CartPole-v1",
    "env_kwargs": {"max_episode_steps": 40},
    "num_steps": 512,
    "student": "mlp:8",
    "num_updates": 40,
    "batch_size": 16,
    "evaluate_period": 10,
    "precision": "float32",
    "judge_period": 200,
    "evaluate_episodes": 5,
    "num_envs": 5,
}


def online(out, *, algorithm="pqn", **settings) -> TorchPolicy:
    learner = settings.pop("learner", PQN if algorithm == "pqn" else DQN)
    return distill(out=out, online=True, algorithm=algorithm, learner=learner, **(SMALL | settings))


def curves(folder) -> list[dict]:
    return read_metrics(folder / "curves.jsonl")


@pytest.mark.learning
@pytest.mark.parametrize("teacher", ["best", "current"])
def test_a_student_of_a_learner_learns_with_it(tmp_path, teacher):
    student = online(
        tmp_path / "r",
        learner={"network": "mlp:64", "learning_rate": 2e-3, "num_envs": 8},
        env_kwargs={"max_episode_steps": 200},
        num_steps=60_000,
        student="mlp:32",
        num_updates=3000,
        batch_size=64,
        evaluate_period=1000,
        learning_rate="1e-3",
        temperature=0.1,
        judge_period=10_000,
        evaluate_episodes=10,
        online_teacher=teacher,
    )
    records = curves(tmp_path / "r")
    first, last = records[0], records[-1]
    # Random play keeps the pole up for 22 of 200 steps.
    assert np.mean(first["learner_scores"]) < 60
    assert np.mean(last["best_scores"]) > 120
    result = evaluate(student, "CartPole-v1", env_kwargs={"max_episode_steps": 200}, num_episodes=30, seed=5)
    assert result.students[0].interval.low > 100


@pytest.mark.parametrize("algorithm", ["pqn", "dqn"])
def test_both_curves_are_recorded_with_every_score(tmp_path, algorithm):
    online(tmp_path / "r", algorithm=algorithm)
    records = curves(tmp_path / "r")
    assert [record["step"] for record in records] == ([0, 256, 448, 512] if algorithm == "pqn" else [0, 512])
    for record in records:
        assert set(record) == {"step", "learner_scores", "best_step", "best_scores", "student_scores"}
        assert all(len(record[f"{name}_scores"]) == 5 for name in ("learner", "best", "student"))
    best = max(records, key=lambda record: np.mean(record["learner_scores"]))
    assert records[-1]["best_step"] == best["step"]


def test_the_best_policys_reported_scores_are_not_those_it_was_chosen_by(tmp_path):
    online(tmp_path / "r", env_kwargs={"max_episode_steps": 200}, evaluate_episodes=20)
    record = curves(tmp_path / "r")[0]
    assert record["best_step"] == record["step"] == 0
    assert record["best_scores"] != record["learner_scores"]


@pytest.mark.parametrize("algorithm", ["pqn", "dqn"])
def test_the_students_file_names_the_policy_that_taught_last(tmp_path, algorithm):
    student = online(tmp_path / "r", algorithm=algorithm)
    made = load_policy(tmp_path / "r" / "student.safetensors").spec.provenance
    best = load_policy(tmp_path / "r" / "best_policy.safetensors")
    assert made["teacher"] == {
        "name": "CartPole-v1",
        "hash": best.hash,
        "path": str(tmp_path / "r" / "best_policy.safetensors"),
    }
    assert made["dataset"]["num_steps"] == 512
    assert made["dataset"]["best_step"] == best.spec.provenance["num_steps"]
    assert (tmp_path / "r" / "last_policy.safetensors").is_file()
    assert student.spec.provenance["num_updates"] == 40
    assert 0 <= made["held_out_agreement"] <= 1


def test_the_first_steps_of_many_environments_teach_although_none_makes_a_transition_yet(tmp_path):
    # 512 decisions are eight of each environment, and a return takes twenty.
    learner = DQN | {"num_envs": 64, "num_return_steps": 20}
    student = online(tmp_path / "r", algorithm="dqn", learner=learner, num_updates=4, evaluate_period=2)
    assert student.spec.provenance["num_updates"] == 4


def test_a_measurement_decodes_and_labels_what_it_measures_on_once(tmp_path, monkeypatch):
    labelled = []
    of = HeldOut.of
    monkeypatch.setattr(HeldOut, "of", lambda *arguments: labelled.append(arguments[1]) or of(*arguments))
    online(tmp_path / "r")
    # Four measurements, and the one for the student's file, after the last judgement has chosen the teacher.
    assert len(labelled) in (4, 5)
    assert labelled == sorted(labelled)


def test_the_curves_are_drawn(tmp_path):
    online(tmp_path / "r")
    path = online_curves(tmp_path / "r", tmp_path / "curves.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(RldistillError, match=r"holds no curves\.jsonl: it is not a run of `distill --online`"):
        online_curves(tmp_path, tmp_path / "none.png")


def test_learner_and_student_advance_in_step(tmp_path):
    events = []
    online(tmp_path / "r", callbacks=[lambda e: isinstance(e, ProgressEvent) and events.append((e.phase, e.done))])
    steps = 0
    for phase, done in events:
        if phase == "learn":
            steps = done
        if phase == "distill":
            # A rollout is 64 steps, an update is due for each 12.8.
            assert 12.8 * done <= steps < 12.8 * done + 64


def test_the_current_policy_teaches_where_that_is_asked_for(tmp_path):
    best, current = (online(tmp_path / name, online_teacher=name) for name in ("best", "current"))
    assert best.hash != current.hash


def test_the_same_call_gives_the_same_student(tmp_path):
    first, again, other = (
        online(tmp_path / name, seed=seed).stored_weights() for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    assert curves(tmp_path / "a") == curves(tmp_path / "b")


@pytest.mark.parametrize("algorithm", ["pqn", "dqn"])
@pytest.mark.parametrize(("phase", "count"), [("learn", 5), ("distill", 17), ("evaluate student", 30)])
def test_a_stopped_run_goes_on_to_its_end(tmp_path, algorithm, phase, count):
    counts = {}

    def stop(event) -> bool:
        if not isinstance(event, ProgressEvent):
            return False
        counts[event.phase] = counts.get(event.phase, 0) + 1
        return event.phase == phase and counts[phase] == min(count, 5 if algorithm == "dqn" else count)

    if not (algorithm == "dqn" and phase == "learn"):
        with pytest.raises(KeyboardInterrupt):
            online(tmp_path / "r", algorithm=algorithm, callbacks=[stop])
        assert not (tmp_path / "r" / "student.safetensors").exists()
    student = online(tmp_path / "r", algorithm=algorithm, resume=True)
    assert student.spec.provenance["num_updates"] == 40
    assert student.spec.provenance["dataset"]["num_steps"] == 512
    steps = [record["step"] for record in curves(tmp_path / "r")]
    assert steps == sorted(set(steps))
    assert steps[-1] == 512


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"task": None}, "task: got None, expected a text"),
        ({"task": ["a", "b"]}, r"task: got \['a', 'b'\], expected a text"),
        ({"task_order": "mixed"}, "task_order belongs with a dataset and --teacher, got it with online"),
        ({"learner": {"num_step": 3}}, "learner: got 'num_step', expected some of batch_size, "),
        ({"learner": {"target_network_update_period": 3}}, "target_network_update_period belongs to dqn; pqn takes"),
        ({"online_teacher": "last"}, "online_teacher: got 'last', expected best or current"),
        ({"evaluate_episodes": 0}, "evaluate_episodes: got 0 with online, expected 1 or more: they choose the best"),
        ({"judge_period": 0}, "judge_period must be 1 or more, got 0"),
        ({"algorithm": "ppo"}, "algorithm: got 'ppo', expected pqn or dqn"),
    ],
)
def test_what_cannot_be_is_refused_at_once(tmp_path, settings, line):
    with pytest.raises(UsageError, match=line):
        online(tmp_path / "r", **settings)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("learner", "line"),
    [
        ({"num_envs": "8"}, "learner: num_envs: got '8', expected a whole number"),
        ({"network": 5}, "learner: network: got 5, expected a text"),
        ({"learning_rate": "abc"}, "learner: learning_rate: got 'abc', expected a number"),
        ({"seed": True}, "learner: seed: got True, expected a whole number"),
        ({"start_step": 3}, "learner: got 'start_step', expected some of"),
    ],
)
def test_a_learners_option_of_a_wrong_type_is_named(tmp_path, learner, line):
    with pytest.raises(UsageError, match=line):
        online(tmp_path / "r", learner=learner)


def test_no_steps_are_no_default(tmp_path):
    with pytest.raises(UsageError, match="num_steps must be 1 or more, got 0"):
        online(tmp_path / "r", num_steps=0)


def test_the_configuration_says_what_was_left_open(tmp_path):
    distill(out=tmp_path / "r", online=True, learner=PQN, **SMALL)
    config = tomllib.loads((tmp_path / "r" / "config.toml").read_text())
    assert (config["algorithm"], config["num_steps"]) == ("pqn", 512)


def test_a_kill_after_a_judgement_does_not_make_the_run_believe_that_it_was_heeded(tmp_path):
    """The checkpoint before the judgement stands, the record of the judgement is in the curves already."""
    settings = {"judge_period": 128, "env_kwargs": {"max_episode_steps": 200}, "seed": 0}
    saved = {}

    def remember(event) -> bool:
        # A checkpoint stands at update 30, step 384; the run is "killed" at update 35, after the judgement there.
        if isinstance(event, ProgressEvent) and event.phase == "distill":
            if event.done == 31:
                saved["checkpoint"] = (tmp_path / "r" / "checkpoint.ckpt").read_bytes()
            return event.done == 35
        return False

    with pytest.raises(KeyboardInterrupt):
        online(tmp_path / "r", callbacks=[remember], **settings)
    assert curves(tmp_path / "r")[-1]["step"] == 384
    (tmp_path / "r" / "checkpoint.ckpt").write_bytes(saved["checkpoint"])
    online(tmp_path / "r", resume=True, **settings)
    records = curves(tmp_path / "r")
    best = load_policy(tmp_path / "r" / "best_policy.safetensors").spec.provenance["num_steps"]
    assert best == records[-1]["best_step"]
    assert best == max(records, key=lambda record: np.mean(record["learner_scores"]))["step"]


@pytest.mark.parametrize("phase", ["evaluate best policy", "evaluate student"])
def test_a_judgement_that_was_stopped_half_way_is_made_again(tmp_path, phase):
    settings = {"judge_period": 128, "env_kwargs": {"max_episode_steps": 200}, "seed": 0}
    steps = [0]

    def stop(event) -> bool:
        if isinstance(event, ProgressEvent) and event.phase == "learn":
            steps.append(event.done)
        return isinstance(event, ProgressEvent) and event.phase == phase and steps[-1] >= 128

    with pytest.raises(KeyboardInterrupt):
        online(tmp_path / "r", callbacks=[stop], **settings)
    online(tmp_path / "r", resume=True, **settings)
    records = curves(tmp_path / "r")
    best = load_policy(tmp_path / "r" / "best_policy.safetensors").spec.provenance["num_steps"]
    assert best == records[-1]["best_step"]
    assert best == max(records, key=lambda record: np.mean(record["learner_scores"]))["step"]


def test_a_learner_that_diverges_leaves_the_checkpoint_before_it(tmp_path, monkeypatch):
    learn, counts = PQNLearner.learn, {"calls": 0}

    def diverge(self, rollout, **settings):
        counts["calls"] += 1
        if counts["calls"] == 6:
            for parameter in self.network.parameters():
                parameter.data.fill_(np.nan)
            raise NumericalError("PQN diverged")
        return learn(self, rollout, **settings)

    monkeypatch.setattr(PQNLearner, "learn", diverge)
    with pytest.raises(NumericalError, match="PQN diverged"):
        online(tmp_path / "r", judge_period=10_000)
    monkeypatch.undo()
    assert online(tmp_path / "r", judge_period=10_000, resume=True).spec.provenance["num_updates"] == 40


def test_taking_up_a_finished_run_leaves_no_environment_open(tmp_path, monkeypatch):
    online(tmp_path / "r")
    counts = {"made": 0, "closed": 0}
    init, close = TrainingStream.__init__, TrainingStream.close

    def counted_init(self, *arguments, **settings):
        counts["made"] += 1
        init(self, *arguments, **settings)

    def counted_close(self):
        counts["closed"] += 1
        close(self)

    monkeypatch.setattr(TrainingStream, "__init__", counted_init)
    monkeypatch.setattr(TrainingStream, "close", counted_close)
    online(tmp_path / "r", resume=True)
    assert counts["made"] == counts["closed"]
