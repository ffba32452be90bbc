"""A Gaussian teacher that acts by its mean is sampled while it is recorded, and in nothing else."""

import importlib
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from rldistill.data import Dataset
from rldistill.envs import make_task
from rldistill.errors import MismatchError, UsageError
from rldistill.events import MessageEvent
from rldistill.networks import Architecture
from rldistill.policies import TorchPolicy, load_policy
from rldistill.verbs.collect import collect
from rldistill.verbs.evaluate import evaluate
from tests.kit.cart_pole import hand_made_teacher
from tests.kit.commands import run, run_well
from tests.kit.flat import distill
from tests.kit.interruptions import StopAfter

TASK = "tests.kit.targets:Targets-box-v0"
TINY = {"student": "mlp:4", "num_updates": 20, "evaluate_period": 10, "batch_size": 16, "precision": "float32"}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    TorchPolicy.create(Architecture("linear", "mlp", ()), [make_task(TASK).task], output_kind="gaussian").save(path)
    return path


def test_its_actions_are_drawn_and_its_targets_and_identity_stay(teacher, tmp_path):
    heard: list[str] = []
    for name, said in (("default", {}), ("greedy", {"behaviour": "greedy"}), ("sample", {"behaviour": "sample"})):
        collect(
            teacher, num_steps=200, num_envs=4, out=tmp_path / name, **said,
            callbacks=[lambda event: heard.append(event.text) if isinstance(event, MessageEvent) else None],
        )  # fmt: skip
    assert heard == [
        f"{load_policy(teacher).name} acts greedily, but while it is recorded its actions are sampled so that the data "
        "cover more states. --behaviour greedy turns this off."
    ]
    by_name = {name: Dataset.open(tmp_path / name) for name in ("default", "greedy", "sample")}
    greedy, default = by_name["greedy"], by_name["default"]
    means = {name: data.field("mean")[:200] for name, data in by_name.items()}
    assert np.allclose(greedy.field("action"), np.clip(means["greedy"], [-1, 0], [1, 10]))
    assert np.abs(default.field("action") - means["default"]).max() > 0.5
    own = load_policy(teacher).hash
    assert default.provenance.teacher.hash == greedy.provenance.teacher.hash == own
    assert (default.provenance.behaviour, default.provenance.teacher.behaviour) == ("sample", "greedy")
    assert (greedy.provenance.behaviour, greedy.provenance.teacher.behaviour) == ("greedy", None)
    # Who says that the teacher samples means another policy, whose student samples too.
    assert by_name["sample"].provenance.teacher.hash != own


@pytest.mark.parametrize("source", ["stored", "live"])
def test_the_student_acts_by_its_mean_and_evaluation_finds_the_teacher_as_it_acts(teacher, tmp_path, source):
    if source == "stored":
        collect(teacher, num_steps=200, num_envs=4, out=tmp_path / "data")
        student = distill(tmp_path / "data", out=tmp_path / "run", **TINY)
    else:
        student = distill(teacher=teacher, task=TASK, collect_steps=200, num_envs=4, out=tmp_path / "run", **TINY)
    assert student.behaviour == "greedy"
    result = evaluate(student, TASK, num_episodes=5)
    assert [(row.role, row.behaviour) for row in result.policies[:2]] == [("teacher", "greedy"), ("student", "greedy")]
    assert result.teacher is not None and result.teacher.policy_hash == load_policy(teacher).hash


def test_live_play_says_so_and_can_be_told_otherwise(teacher, tmp_path):
    small = ("--num-updates", 20, "--evaluate-period", 10, "--collect-steps", 100, "--precision", "float32")
    command = ("distill", "--teacher", teacher, "--task", TASK, *small, "--student", "mlp:4")
    assert "its actions are sampled" in run_well(*command, "--out", tmp_path / "a").stderr
    assert "sampled" not in run_well(*command, "--behaviour", "greedy", "--out", tmp_path / "b").stderr


def before_sampling(monkeypatch, module):
    """Let a module record as versions did that knew no sampling while recorded."""
    monkeypatch.setattr(module, "while_recorded", lambda policy, behaviour: policy)


def test_a_greedy_dataset_of_an_earlier_version_is_gone_on_with(teacher, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        before_sampling(patch, importlib.import_module("rldistill.verbs.collect"))
        collect(teacher, num_steps=100, num_envs=4, out=tmp_path / "data")
    collect(teacher, num_steps=200, num_envs=4, out=tmp_path / "data", resume=True)
    collect(teacher, num_steps=200, num_envs=4, out=tmp_path / "greedy", behaviour="greedy")
    data, greedy = (Dataset.open(tmp_path / name) for name in ("data", "greedy"))
    # Only what was said of the file differs.
    said = replace(greedy.provenance.teacher, reading=None)
    assert data.provenance == replace(greedy.provenance, teacher=said)
    assert np.array_equal(data.field("action"), greedy.field("action"))


def test_a_live_run_of_an_earlier_version_is_gone_on_with(teacher, tmp_path):
    settings = {"teacher": teacher, "task": TASK, "collect_steps": 100, "num_envs": 4, "evaluate_episodes": 0} | TINY
    out = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        before_sampling(patch, importlib.import_module("rldistill.verbs.sources"))
        with pytest.raises(KeyboardInterrupt):
            distill(out=out, callbacks=[StopAfter(12)], **settings)
    name = f"{teacher} playing {TASK}"
    line = (
        f"--resume {out}: {name} was played greedily when the run began, and would now be sampled while it is "
        "recorded. Add --behaviour greedy, or --overwrite."
    )
    with pytest.raises(MismatchError, match=f"^{re.escape(line)}$"):
        distill(out=out, resume=True, **settings)
    distill(out=out, resume=True, behaviour="greedy", **settings)
    distill(out=tmp_path / "at_once", behaviour="greedy", **settings)
    metrics = [(folder / "metrics.jsonl").read_bytes() for folder in (out, tmp_path / "at_once")]
    assert metrics[0] == metrics[1]


def test_choices_are_recorded_as_their_teacher_acts(tmp_path):
    teacher = hand_made_teacher(kind="logits")
    collect(teacher, num_steps=100, out=tmp_path / "data", num_envs=4)
    manifest = json.loads((tmp_path / "data" / "manifest.json").read_text())
    assert manifest["behaviour"] == "greedy" and "behaviour" not in manifest["teacher"]


def test_a_behaviour_that_nobody_knows_or_that_cannot_be_is_refused(teacher, tmp_path):
    with pytest.raises(UsageError, match="behaviour: got 'best', expected greedy or sample"):
        collect(teacher, num_steps=100, out=tmp_path / "data", behaviour="best")
    actions = TorchPolicy.create(Architecture("linear", "mlp", ()), [make_task(TASK).task], output_kind="actions")
    with pytest.raises(UsageError, match="whose answers are its actions"):
        collect(actions, num_steps=100, out=tmp_path / "data", behaviour="sample")
    assert run("collect", teacher, "--behaviour", "best", "--out", tmp_path / "data").code == 2
