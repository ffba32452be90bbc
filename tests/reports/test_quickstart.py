"""`quickstart` with any teacher and task: from its file to a figure in one call, and what later calls say."""

import json
import shutil
import tomllib
from dataclasses import replace

import pytest

from rldistill.envs import make_task
from rldistill.errors import UsageError
from rldistill.events import MessageEvent
from rldistill.networks import Architecture
from rldistill.options.quickstart import QuickstartOptions
from rldistill.policies import TorchPolicy, load_policy
from rldistill.reports.quickstart import load_teacher, quickstart
from tests.kit.cart_pole import hand_made_teacher, short_cart_pole
from tests.kit.commands import run, run_well
from tests.kit.terrain_env import TERRAIN_TASK, terrain_teachers

pytest.importorskip("matplotlib")

TASK = "tests.kit.targets:Targets-box-v0"
SMALL = ("--student", "auto", "--num-steps", 300, "--num-updates", 20, "--num-episodes", 5, "--num-envs", 4)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A teacher of 1,250 parameters that gives Gaussians."""
    path = tmp_path_factory.mktemp("teacher") / "gaussian teacher.safetensors"
    TorchPolicy.create(Architecture("own", "mlp", (32, 32)), [make_task(TASK).task], output_kind="gaussian").save(path)
    return path


@pytest.fixture(scope="module")
def made(teacher, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "q"
    return out, run_well("quickstart", "--teacher", teacher, "--task", TASK, *SMALL, "--out", out)


def test_a_teacher_of_vectors_becomes_a_student_a_table_and_a_figure(made, teacher):
    out, result = made
    assert tomllib.loads((out / "run" / "config.toml").read_text())["student"] == "mlp:16x16"
    assert (out / "learning_curve.png").is_file()
    played = json.loads((out / "run" / "evaluation.json").read_text())["policies"]
    assert [(row["role"], len(row["episodes"])) for row in played] == [("teacher", 5), ("student", 5), ("random", 5)]
    large, small = (row["num_parameters"] for row in played[:2])
    assert f"{large / small:.2g} times fewer parameters; retention " in result.stderr
    assert f"rldistill quickstart --teacher '{teacher}' --task {TASK} --student auto --num-steps" in result.stderr


def test_a_student_of_some_parts_of_two_teachers_is_made_in_one_call(tmp_path):
    named = []
    for name, policy in terrain_teachers().items():
        policy.save(tmp_path / f"{name}.safetensors")
        named.append(f"{name}={tmp_path / name}.safetensors")
    sees = ("--choose", "terrain", "--names", "state=0:2,terrain=2:", "--student-sees", "state")
    out = tmp_path / "q"
    result = run_well("quickstart", "--teacher", *named, "--task", TERRAIN_TASK, *sees, *SMALL, "--out", out)
    student = load_policy(out / "run" / "student.safetensors")
    assert student.spec.sight.parts == ("state",)
    files = " ".join(f"--teacher {file}" for file in named)
    again = f"--choose terrain --names state=0:2,terrain=2: --task {TERRAIN_TASK} --student-sees state --student auto"
    assert f"rldistill quickstart {files} {again} --num-steps 200000" in result.stderr
    assert f"rldistill evaluate {out}/run/student.safetensors --task {TERRAIN_TASK} --num-episodes" in result.stderr


@pytest.mark.parametrize("behaviour", ["greedy", "sample"])
def test_a_teacher_given_as_an_object_acts_as_is_said(tmp_path, behaviour):
    policy = hand_made_teacher(kind="logits")
    options = QuickstartOptions(teacher=policy, behaviour=behaviour, out=tmp_path / "q")
    assert load_teacher(options)[0].behaviour == behaviour


def test_what_cannot_be_filmed_is_left_out_in_one_line(made):
    out, result = made
    assert f"no film: Task '{TASK}' cannot be filmed: it renders as nothing, expected 'rgb_array'\n" in result.stderr
    assert not (out / "teacher_and_student.mp4").exists() and "video" not in result.stderr


def test_a_second_call_shows_the_same_table(made, teacher):
    out, first = made
    again = run_well("quickstart", "--teacher", teacher, "--task", TASK, *SMALL, "--out", out)
    table = (out / "evaluation.txt").read_text()
    assert table.strip() and table in first.stderr and table in again.stderr
    assert "already holds this student's evaluation" in again.stderr


def test_the_table_is_that_of_the_evaluation_and_the_film_that_of_the_student_whatever_was_stopped(
    made, teacher, tmp_path, monkeypatch
):
    out, filmed = tmp_path / "q", []
    shutil.copytree(made[0], out)
    values = {"student": "auto", "num_steps": 300, "num_updates": 20, "num_episodes": 6, "num_envs": 4}
    config = QuickstartOptions(teacher=teacher, task=TASK, out=out, **values)

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("rldistill.reports.quickstart._film", stopped)
    with pytest.raises(KeyboardInterrupt):
        quickstart(config)
    assert (out / "evaluation.txt").read_text() != (made[0] / "evaluation.txt").read_text()

    def film(_teacher, student, _playable, video, _options):
        filmed.append(student.hash)
        video.write_text("film")
        return True

    monkeypatch.setattr("rldistill.reports.quickstart._film", film)
    (out / "teacher_and_student.mp4").write_text("of an earlier student")
    assert [quickstart(config).video for _ in range(2)] == [out / "teacher_and_student.mp4"] * 2
    assert filmed == [load_policy(out / "run" / "student.safetensors").hash]


def test_what_draws_is_missed_before_anything_is_played(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    result = run("quickstart", "--teacher", teacher, "--task", TASK, *SMALL, "--out", tmp_path / "q")
    assert result.line.startswith("rldistill quickstart: The figure of a quickstart needs matplotlib, which is not")
    assert not (tmp_path / "q").exists()


def test_a_call_with_other_settings_is_refused_without_a_word_of_options_that_it_has_not(made, teacher):
    out, _ = made
    result = run("quickstart", "--teacher", teacher, "--task", TASK, *SMALL, "--num-steps", 400, "--out", out)
    assert (result.code, result.line) == (
        1,
        f"rldistill quickstart: quickstart goes on with what {out} holds, which began with other settings: num_steps "
        "was 300, is 400. Use the same, name another --out, or delete the earlier run with --overwrite.",
    )


def test_a_second_call_does_not_offer_another_network(made, teacher):
    out, first = made
    again = run_well("quickstart", "--teacher", teacher, "--task", TASK, *SMALL, "--out", out)
    assert "--student names another" in first.stderr and "--student names another" not in again.stderr


@pytest.mark.parametrize("flags", [(), ("--overwrite",), ("--dry-run",)])
@pytest.mark.parametrize("name", ["evaluation.txt", "learning_curve.png", "quickstart.toml"])
def test_a_folder_that_is_not_a_quickstarts_is_refused_and_keeps_what_it_holds(tmp_path, teacher, name, flags):
    out = tmp_path / "q"
    (out / "data").mkdir(parents=True)
    (out / name).write_text("# my own")
    result = run("quickstart", "--teacher", teacher, "--task", TASK, *SMALL, "--out", out, *flags)
    assert (result.code, result.line) == (
        1,
        f"rldistill quickstart: --out {out} exists and is not a quickstart's: found {name}. Choose another --out.",
    )
    assert sorted(path.name for path in out.iterdir()) == sorted(["data", name])
    assert (out / name).read_text() == "# my own"


def test_a_users_file_among_the_runs_is_refused_before_anything_is_played(made, teacher, tmp_path):
    out = tmp_path / "q"
    shutil.copytree(made[0], out)
    (out / "run" / "notes.txt").write_text("mine")
    before = (out / "data" / "manifest.json").read_bytes()
    result = run("quickstart", "--teacher", teacher, "--task", TASK, *SMALL, "--out", out, "--overwrite")
    assert result.line == (
        f"rldistill quickstart: --overwrite would delete notes.txt in {out}/run, which no run of rldistill wrote. "
        "Move it away, or choose another --out."
    )
    assert (out / "data" / "manifest.json").read_bytes() == before and (out / "quickstart.toml").read_text()


def test_a_file_in_place_of_the_folder_is_refused(tmp_path, teacher):
    out = tmp_path / "q"
    out.touch()
    result = run("quickstart", "--teacher", teacher, "--task", TASK, *SMALL, "--out", out)
    assert result.line == f"rldistill quickstart: --out {out} is a file, expected a folder. Choose another --out."


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_call_that_was_stopped_while_it_collected_is_followed_by_another(
    made, teacher, tmp_path, monkeypatch, overwrite
):
    def stopped(*_, out, **__):
        out.mkdir(parents=True, exist_ok=True)
        raise KeyboardInterrupt

    out = tmp_path / "q"
    if overwrite:
        shutil.copytree(made[0], out)
    config = QuickstartOptions(teacher=teacher, task=TASK, out=out, student="auto", num_steps=200)
    monkeypatch.setattr("rldistill.reports.quickstart.collect", stopped)
    with pytest.raises(KeyboardInterrupt):
        quickstart(replace(config, overwrite=overwrite))
    assert (out / "quickstart.toml").exists() == overwrite
    with pytest.raises(KeyboardInterrupt):  # it gets as far as the first
        quickstart(config)


@pytest.fixture
def pole_teacher(tmp_path):
    path = tmp_path / "pole.safetensors"
    hand_made_teacher(short_cart_pole(60)).save(path)
    return path


def test_without_a_network_the_smallest_student_is_looked_for_and_a_second_call_goes_on(
    pole_teacher, tmp_path, monkeypatch
):
    monkeypatch.setattr("rldistill.verbs.shrink_search.ladder", lambda _seen, remembers: ("mlp:2", "mlp:4"))
    monkeypatch.setattr("rldistill.reports.quickstart._film", lambda *_: True)
    options = QuickstartOptions(
        teacher=pole_teacher, task="CartPole-v1", out=tmp_path / "q", within=60.0, num_episodes=5, num_envs=8
    )
    told = []
    made = quickstart(replace(options, callbacks=[told.append]))
    search = json.loads((tmp_path / "q" / "run" / "shrink.json").read_text())
    assert search["verdict"] in [event.text for event in told if isinstance(event, MessageEvent)]
    assert made.figure.is_file() and made.figure.name == "sizes.png"
    student, row = load_policy(made.student), made.evaluation["policies"][1]
    assert row["policy_hash"] == student.hash == search["policy_hash"]
    again = quickstart(replace(options, num_episodes=6))
    assert (again.evaluation["policies"][1]["policy_hash"], len(again.evaluation["policies"][1]["episodes"])) == (
        student.hash,
        6,
    )


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"num_steps": 10}, "num_steps belongs with student, which names a network"),
        ({"num_updates": 10}, "num_updates belongs with student, which names a network"),
        (
            {"student": "mlp:2", "within": 5.0},
            "within is the time to look for the smallest student, and mlp:2 is named",
        ),
    ],
)
def test_options_of_the_other_way_are_refused(given, line):
    with pytest.raises(UsageError, match=line):
        QuickstartOptions(teacher="t.safetensors", **given)
