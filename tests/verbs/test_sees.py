"""Students and teachers that see parts of the observations, through the public verbs."""

import json
import tomllib

import numpy as np
import pytest
import torch

import rldistill as rd
from rldistill.envs import make_task
from rldistill.errors import MismatchError, RldistillError, UsageError
from rldistill.evaluation import parts as part_use
from rldistill.networks import InputNormalization
from rldistill.policies import load_policy
from tests.kit.commands import run as run_command
from tests.kit.seen_env import PARTS_TASK, SPANS, STATE_ONLY, VECTOR_TASK, student_of_hint, teacher_of_state
from tests.kit.shown_env import shown_task
from tests.kit.small_policies import small_policy, vector_task

SMALL = {"student": "mlp:8", "num_updates": 30, "batch_size": 16, "precision": "float32", "evaluate_episodes": 0}
BLIND = {"student_sees": ["noise", "hint"]}


def parts(num_rows=4, seed=0):
    rng = np.random.default_rng(seed)
    sizes = {"hint": 1, "noise": 3, "state": 2}
    return {name: rng.normal(size=(num_rows, size)).astype(np.float32) for name, size in sizes.items()}


def live(out, task=PARTS_TASK, **settings):
    source = rd.Live(teacher_of_state(), task, teacher_sees="state", collect_steps=200)
    return rd.distill(source, out=out, **(SMALL | settings))


def test_a_student_of_live_play_records_its_parts_and_ignores_all_others(tmp_path):
    live(tmp_path / "r", **BLIND)
    student = load_policy(tmp_path / "r" / "student.safetensors")
    assert student.spec.sight is not None and student.spec.sight.parts == ("noise", "hint")
    assert student.network.observation_shape == (4,)
    given = parts()
    before = student(given)[0].raw
    assert torch.equal(student(given | {"state": parts(seed=1)["state"]})[0].raw, before)
    assert not torch.equal(student(given | {"hint": parts(seed=1)["hint"]})[0].raw, before)


def test_a_module_of_the_users_own_sees_the_parts_that_are_chosen(tmp_path):
    student = live(tmp_path / "r", **BLIND, student=torch.nn.Linear(4, 2))
    given = parts()
    assert torch.equal(student(given)[0].raw, student(given | {"state": parts(seed=1)["state"]})[0].raw)


def test_parts_that_the_student_alone_sees_are_measured_where_the_teacher_has_no_statistics_of_them(tmp_path):
    statistics = InputNormalization((0.0, 0.0), (2.0, 2.0))
    teacher = small_policy(STATE_ONLY, network="mlp:2", normalization=statistics)
    source = rd.Live(teacher, PARTS_TASK, teacher_sees="state", collect_steps=200)
    settings = SMALL | {"normalize_inputs": True, "student_sees": ["noise", "hint"]}
    student = rd.distill(source, out=tmp_path / "r", **settings)
    assert student.normalization is not None
    assert 0 not in student.normalization.mean and 1 not in student.normalization.variance
    rd.collect(teacher, PARTS_TASK, teacher_sees="state", num_steps=300, out=tmp_path / "d", num_envs=2)
    assert 0 not in rd.distill(tmp_path / "d", out=tmp_path / "s", **settings).normalization.mean
    # Of what both see, the teacher's statistics are taken over.
    both = rd.distill(source, out=tmp_path / "b", **settings | {"student_sees": ["state", "hint"]})
    assert both.normalization.variance == (2.0, 2.0, 1.0)


def test_a_teacher_of_some_parts_teaches_from_a_dataset_and_is_found_again(tmp_path):
    teacher = tmp_path / "teacher.safetensors"
    teacher_of_state().save(teacher)
    rd.collect(teacher, PARTS_TASK, teacher_sees="state", num_steps=300, out=tmp_path / "d", num_envs=2)
    student = rd.distill(tmp_path / "d", out=tmp_path / "r", **SMALL, student_sees="hint")
    assert student.spec.provenance["teacher"]["reading"] == {"sight": {"parts": ["state"]}}
    result = rd.evaluate(tmp_path / "r", PARTS_TASK, num_episodes=5)
    rows = {row.role: row for row in result.policies}
    assert rows["teacher"].mean == 8.0
    assert rows["student"].agreement is not None


def test_spans_of_a_vector_have_the_names_that_the_user_gives_them(tmp_path):
    student = live(tmp_path / "r", VECTOR_TASK, names=SPANS, student_sees="hint")
    assert student.spec.sight is not None and student.spec.sight.spans["state"] == (4, 6)
    rows = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    others = rows.copy()
    others[:, 1:] = 7
    assert torch.equal(student(rows)[0].raw, student(others)[0].raw)
    result = rd.evaluate(
        student, VECTOR_TASK, teacher=teacher_of_state(), teacher_sees="state", names=SPANS, num_episodes=3
    )
    assert next(row for row in result.policies if row.role == "teacher").mean == 8.0


def test_a_teacher_is_refused_where_it_takes_something_else_than_the_parts_it_is_to_see(tmp_path):
    source = rd.Live(teacher_of_state(), PARTS_TASK, teacher_sees="noise")
    with pytest.raises(MismatchError, match=r"does not fit noise of task .*observation_shape: \[2\] against \[3\]"):
        rd.distill(source, out=tmp_path / "r", **SMALL)


@pytest.mark.parametrize("verb", ["evaluate", "evaluate --teacher", "collect", "distill --teacher"])
def test_a_policy_whose_file_says_what_it_sees_takes_no_other_word_of_it(verb, tmp_path):
    student_of_hint().save(tmp_path / "hint.safetensors")
    student_of_hint().save(tmp_path / "other.safetensors")
    said = ["--task", PARTS_TASK, "--teacher-sees", "hint,noise", "--out", str(tmp_path / "o")]
    first, *words = verb.split()
    policies = [str(tmp_path / "other.safetensors")] if verb == "evaluate --teacher" else []
    done = run_command(first, *policies, *words, str(tmp_path / "hint.safetensors"), *said)
    assert (done.code, done.line.partition("hint.safetensors ")[2]) == (
        2,
        "says itself that it sees hint, noise: got teacher_sees hint, noise. Leave it out.",
    )
    assert not (tmp_path / "o").exists()


def test_a_loaded_policy_sees_the_parts_that_are_said(tmp_path):
    teacher_of_state().save(tmp_path / "state.safetensors")
    teacher = rd.load_policy(tmp_path / "state.safetensors", task=PARTS_TASK, teacher_sees="state")
    assert rd.evaluate(teacher, PARTS_TASK, num_episodes=2).students[0].mean == 8.0
    named = rd.load_policy(tmp_path / "state.safetensors", task=VECTOR_TASK, teacher_sees="state", names=SPANS)
    assert rd.evaluate(named, VECTOR_TASK, num_episodes=2).students[0].mean == 8.0
    module = rd.load_policy(torch.nn.Linear(2, 2), task=PARTS_TASK, teacher_sees="state", outputs="logits")
    assert module(parts())[0].logits.shape == (4, 2)
    with pytest.raises(UsageError, match=r"says itself that it sees state: got teacher_sees hint\. Leave it out\.$"):
        rd.evaluate(teacher, PARTS_TASK, teacher_sees="hint", num_episodes=1)
    with pytest.raises(RldistillError, match=r"sees parts of .* by teacher_sees, and an export would not say which"):
        rd.export(teacher, tmp_path / "a.onnx")
    with pytest.raises(UsageError, match=r"^load_policy: teacher_sees chooses parts of the observations of task, whic"):
        rd.load_policy(tmp_path / "state.safetensors", teacher_sees="state")
    student_of_hint().save(tmp_path / "hint.safetensors")
    with pytest.raises(UsageError, match=r"hint\.safetensors says itself that it sees hint, noise: got teacher_sees"):
        rd.load_policy(tmp_path / "hint.safetensors", task=PARTS_TASK, teacher_sees=("hint", "noise"))


def test_a_policy_that_says_what_it_sees_takes_no_other_word_of_it_as_an_object_either():
    with pytest.raises(UsageError, match=r"^Policy 'mlp:2' says itself that it sees hint, noise: got teacher_sees"):
        rd.evaluate(student_of_hint(), PARTS_TASK, teacher_sees="noise", num_episodes=1)


def test_a_run_goes_on_with_the_same_parts_alone(tmp_path):
    live(tmp_path / "r", **BLIND)
    with pytest.raises(RldistillError, match=r"student_sees was \['noise', 'hint'\], is hint\. Use the same"):
        live(tmp_path / "r", student_sees="hint", resume=True)
    with pytest.raises(MismatchError, match=r"sees noise,hint, --student-sees says hint: its weights would see"):
        live(tmp_path / "s", student_sees="hint", init_from=tmp_path / "r" / "student.safetensors")


def test_names_that_nobody_sees_by_are_refused(tmp_path):
    with pytest.raises(UsageError, match="names belong with student_sees, which says"):
        rd.distill(tmp_path / "d", names=SPANS, out=tmp_path / "r", **SMALL)
    with pytest.raises(UsageError, match="names belong with teacher_sees, which says"):
        rd.load_policy(tmp_path / "d", names=SPANS)


def test_the_command_line_reads_parts_and_spans_and_a_file_of_them(tmp_path):
    teacher = tmp_path / "teacher.safetensors"
    teacher_of_state().save(teacher)
    spans = tmp_path / "names.json"
    spans.write_text('{"observation": ["hint", {"name": "noise", "size": 3}, {"name": "state", "size": 2}]}')
    shared = ["--task", VECTOR_TASK, "--teacher-sees", "state", "--num-envs", "2", "--num-steps", "300"]
    for names, out in (("hint=:1,noise=1:4,state=4:", "a"), (str(spans), "b")):
        done = run_command("collect", str(teacher), *shared, "--names", names, "--out", str(tmp_path / out))
        assert done.code == 0, done.stderr
    manifests = [json.loads((tmp_path / out / "manifest.json").read_text()) for out in ("a", "b")]
    assert manifests[0]["shards"] == manifests[1]["shards"]
    done = run_command("collect", str(teacher), *shared, "--names", "hint=x", "--out", str(tmp_path / "c"))
    assert (done.code, "got 'hint=x', expected NAME=FIRST:END such as velocity=0:3." in done.stderr) == (2, True)
    done = run_command(
        "collect", str(teacher), *shared, "--names", "state=4:", "--teacher-sees", "stat", "--out", str(tmp_path / "c")
    )
    assert done.code == 2 and "expected some of state [2]. Did you mean 'state'?" in done.stderr
    assert make_task(VECTOR_TASK).task.fingerprint.observation_parts == ()


def test_the_end_of_a_run_and_an_evaluation_say_which_parts_a_student_uses():
    student = student_of_hint()
    result = rd.evaluate(student, PARTS_TASK, num_episodes=20)
    row = next(row for row in result.to_dict()["policies"] if row["role"] == "student")
    parts = {part["name"]: part for part in row["parts"]}
    assert list(parts) == ["hint", "noise"]
    assert row["mean"] == parts["noise"]["mean"] == 8.0
    assert parts["noise"]["agreement"] == 1.0
    assert 3.0 < parts["hint"]["mean"] < 5.0
    assert 0.3 < parts["hint"]["agreement"] < 0.7
    assert "with one part of its observations from another episode:\n  hint " in str(result)
    assert "parts" not in next(row for row in result.to_dict()["policies"] if row["role"] == "random")


def test_parts_that_a_student_uses_are_told_at_the_end_of_its_run(tmp_path):
    told = []
    live(tmp_path / "r", student_sees="hint", evaluate_episodes=5, callbacks=[lambda event: told.append(str(event))])
    assert any("score with a part of another episode: hint " in text for text in told)


@pytest.mark.parametrize("verb", ["collect", "export"])
def test_a_name_without_its_span_is_told_how_spans_are_written(verb, tmp_path):
    student_of_hint().save(tmp_path / "p.safetensors")
    sees = ["--teacher-sees", "hint"] if verb == "collect" else []
    out = ["--out", str(tmp_path / "o.onnx"), "--task", VECTOR_TASK, *sees]
    done = run_command(verb, str(tmp_path / "p.safetensors"), *out, "--names", "hint")
    assert (done.code, done.line.partition(": ")[2]) == (
        2,
        "--names hint cannot be read: No such file or directory. Expected a JSON file, or NAME=FIRST:END such as "
        "velocity=0:3.",
    )


def test_a_student_of_the_vector_beside_a_picture_learns_as_students_of_vectors_do(tmp_path):
    task, names = shown_task("Camera"), {"student_sees": "state", "evaluate_episodes": 0, "num_updates": 2}
    teacher = small_policy(vector_task(num_actions=3, num_inputs=4))
    source = rd.Live(teacher, task, teacher_sees="state", collect_steps=60, collect_period=2)
    student = rd.distill(source, out=tmp_path / "r", normalize_inputs=True, **names)
    assert student.normalization is not None and student.network.observation_shape == (4,)
    config = tomllib.loads((tmp_path / "r" / "config.toml").read_text())
    assert (config["batch_size"], config["precision"]) == (256, "float32")  # of images 64, and bfloat16 where it pays


def test_the_part_of_another_episode_comes_from_none_of_those_played(monkeypatch):
    seeds, player = [], part_use.EpisodePlayer
    watched = lambda *a, seed, **k: seeds.append(seed) or player(*a, seed=seed, **k)  # noqa: E731
    monkeypatch.setattr(part_use, "EpisodePlayer", watched)
    rd.evaluate(student_of_hint(), PARTS_TASK, num_episodes=5, seed=3)
    assert seeds and 3 not in seeds
