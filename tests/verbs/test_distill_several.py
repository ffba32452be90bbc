"""Several students at once: what is returned, what lies in the folder, and how they compare with one trained alone."""

import json
import tomllib

import numpy as np
import pytest
import torch

import rldistill as rd
from rldistill.errors import UsageError
from rldistill.events import MessageEvent
from rldistill.policies import load_policy
from rldistill.session.metrics import read_metrics
from rldistill.verbs.evaluate import evaluate
from tests.kit.cart_pole import collect_cart_pole, hand_made_teacher, short_cart_pole
from tests.kit.commands import run, run_well
from tests.kit.interruptions import StopAfter

TINY = {"num_updates": 20, "batch_size": 16, "evaluate_period": 10, "precision": "float32", "num_threads": 1}
STUDENTS = {"students": ["mlp:8", "mlp:4x4"], "seeds": [0, 5]}


def files(out):
    return {path.name: path.read_bytes() for path in (out / "students").iterdir()}


def test_every_network_learns_from_every_seed_and_is_returned_in_that_order(tmp_path, q_data):
    students = rd.distill_several(q_data, out=tmp_path / "r", **STUDENTS, **TINY)
    names = ["mlp-8-seed-0", "mlp-8-seed-5", "mlp-4x4-seed-0", "mlp-4x4-seed-5"]
    saved = [load_policy(tmp_path / "r" / "students" / f"{name}.safetensors") for name in names]
    assert [student.hash for student in students] == [policy.hash for policy in saved]
    made = [policy.spec.provenance["config"] for policy in saved]
    assert [(one["student"], one["student_seed"]) for one in made] == [
        ("mlp:8", 0),
        ("mlp:8", 5),
        ("mlp:4x4", 0),
        ("mlp:4x4", 5),
    ]
    last = read_metrics(tmp_path / "r" / "metrics.jsonl")[-1]
    assert set(last["students"]) == set(names)
    assert last["students"][names[0]]["held_out_agreement"] == saved[0].spec.provenance["held_out_agreement"]


def test_a_student_of_the_runs_seed_equals_the_one_that_distill_makes(tmp_path, q_data):
    students = rd.distill_several(q_data, out=tmp_path / "r", seed=3, students="mlp:8", seeds=[7, 3], **TINY)
    alone = rd.distill(q_data, out=tmp_path / "alone", seed=3, student="mlp:8", evaluate_episodes=0, **TINY)
    weights = alone.network.state_dict()
    torch.testing.assert_close(students[1].network.state_dict(), weights, atol=1e-5, rtol=0)
    assert not torch.allclose(students[0].network.state_dict()["torso.1.weight"], weights["torso.1.weight"])


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path, q_data):
    rd.distill_several(q_data, out=tmp_path / "whole", **STUDENTS, **TINY)
    with pytest.raises(KeyboardInterrupt):
        rd.distill_several(q_data, out=tmp_path / "r", callbacks=[StopAfter(13)], **STUDENTS, **TINY)
    rd.distill_several(q_data, out=tmp_path / "r", resume=True, **STUDENTS, **TINY)
    assert files(tmp_path / "r") == files(tmp_path / "whole")
    assert (tmp_path / "r" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


def test_a_finished_run_stays_as_it_is_and_other_threads_are_told(tmp_path, q_data):
    students = rd.distill_several(q_data, out=tmp_path / "r", **STUDENTS, **TINY)
    before, told = files(tmp_path / "r"), []
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "r" / "students").iterdir()}
    given = STUDENTS | TINY | {"num_threads": 2, "resume": True, "callbacks": [told.append]}
    again = rd.distill_several(q_data, out=tmp_path / "r", **given)
    assert [one.hash for one in again] == [one.hash for one in students]
    assert files(tmp_path / "r") == before
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "r" / "students").iterdir()}
    texts = [event.text for event in told if isinstance(event, MessageEvent)]
    assert texts[-1] == f"{tmp_path / 'r'} is finished"
    assert any("going on from update 20; num_threads was 1, is 2: last bits may differ" in text for text in texts)


def test_a_teacher_that_plays_teaches_several_and_the_first_student_plays_for_all(tmp_path):
    task = short_cart_pole()
    live = rd.Live(hand_made_teacher(task), task, collect_steps=300, collect_period=10, teacher_fraction="linear:1->0")
    students = rd.distill_several(live, out=tmp_path / "several", **STUDENTS, **TINY)
    alone = rd.distill(live, out=tmp_path / "alone", student="mlp:8", evaluate_episodes=0, **TINY)
    torch.testing.assert_close(students[0].network.state_dict(), alone.network.state_dict(), atol=1e-4, rtol=0)


def test_what_is_measured_of_the_inputs_is_the_same_for_all(tmp_path, q_data):
    students = rd.distill_several(q_data, out=tmp_path / "r", normalize_inputs=True, **STUDENTS, **TINY)
    first = students[0].normalization
    assert first.mean != tuple(np.zeros(len(first.mean)))
    assert all(student.normalization == first for student in students)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"students": ["mlp:8", "mlp:8"]}, r"^students: got \['mlp:8', 'mlp:8'\], expected networks .* each once\.$"),
        ({"seeds": [1]}, r"^seeds: got \[1\] without students, the networks that they are for: mlp:8,mlp:16\.$"),
        ({"students": "mlp:8", "seeds": [1, -1]}, r"^seeds: got \[1, -1\], expected whole numbers, 0 or more, each on"),
        ({"students": "mlp:8", "student": "mlp:4"}, r"^student is of one student and does not go with students\."),
        ({"students": "mpl:8"}, r"^Unknown network: got 'mpl:8'"),
    ],
)
def test_what_names_no_students_is_refused_in_one_line(tmp_path, q_data, given, message):
    with pytest.raises(UsageError, match=message):
        rd.distill_several(q_data, out=tmp_path / "r", **given, **TINY)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("students", [["mlp:4", "gru:4"], ["gru:4", "mlp:4"], ["mlp:4", "stack:2+mlp:4"], ["net3"]])
def test_networks_that_do_not_learn_at_once_are_refused_before_anything_is_loaded(students):
    network = next(name for name in students if name != "mlp:4")
    for source in ("nowhere", rd.Online("CartPole-v1")):
        with pytest.raises(UsageError) as caught:
            rd.distill_several(source, out="r", students=students)
        assert str(caught.value) == (
            f"students: got {network!r}, expected networks of vectors alone, such as mlp:8. Others are trained one by "
            f"one, by distill: --student {network} (in Python student={network!r})."
        )


def test_the_command_line_trains_several_and_its_configuration_does_it_again(tmp_path, q_data):
    words = ["--students", "mlp:8,mlp:4", "--seeds", "0,5", "--num-updates", 20, "--num-threads", 1]
    shown = run_well("distill", q_data, *words, "--out", tmp_path / "r", "--json", "--quiet").json
    assert [entry["policy_hash"] for entry in shown["students"]]
    assert len(shown["students"]) == 4
    config = tomllib.loads((tmp_path / "r" / "config.toml").read_text())
    assert (config["students"], config["seeds"]) == (["mlp:8", "mlp:4"], [0, 5])
    again = ["--config", tmp_path / "r" / "config.toml", "--out", tmp_path / "again", "--json", "--quiet"]
    repeated = run_well("distill", *again).json
    assert [entry["policy_hash"] for entry in repeated["students"]] == [e["policy_hash"] for e in shown["students"]]
    dry = run_well("distill", q_data, *words, "--out", tmp_path / "dry", "--dry-run", "--json").json
    assert json.loads(json.dumps(dry))["students"] == ["mlp:8", "mlp:4"]
    assert run("distill", q_data, "--seeds", "0,1", "--out", tmp_path / "s").code == 2


@pytest.mark.learning
def test_over_a_whole_run_they_score_as_students_that_were_trained_alone(tmp_path):
    task = short_cart_pole(200)
    teacher = hand_made_teacher(task)
    collect_cart_pole(tmp_path / "d", teacher, num_steps=4000)
    shared = {"num_updates": 400, "batch_size": 64, "learning_rate": "one_cycle:5e-3", "precision": "float32"}
    several = rd.distill_several(
        tmp_path / "d", out=tmp_path / "several", students=["mlp:16", "mlp:8x8"], seeds=[0, 1, 2], **shared
    )
    scores = []
    for student in several:
        result = evaluate(student, teacher=teacher, num_episodes=20, seed=100, exploration_epsilon=0.1)
        scores.append(result.students[0].retention)
    # A student alone keeps 0.95 and more of it (test_distill.py); random play keeps nothing.
    assert np.min(scores) > 0.9
