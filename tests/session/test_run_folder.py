"""A run folder: what is deleted in it, what never is, and what happens when two processes want it."""

import json
from pathlib import Path

import pytest

from rldistill.errors import OutputExistsError
from rldistill.events import MessageEvent
from rldistill.options.quickstart import QuickstartOptions
from rldistill.paper.reproduce import reproduce
from rldistill.reports.quickstart import quickstart
from rldistill.session import run_folder as module
from rldistill.session.metrics import MetricsFile, read_metrics
from rldistill.session.run_folder import begun_precision, keep_inputs, run_folder, write_config
from rldistill.storage import write_json
from rldistill.verbs.collect import collect
from rldistill.verbs.train_teacher import train_teacher
from tests.kit.cart_pole import hand_made_teacher
from tests.kit.commands import REPOSITORY, options, run, run_well
from tests.kit.flat import distill

PONG = REPOSITORY / "zoo" / "pong.safetensors"


@pytest.fixture
def finished(tmp_path) -> Path:
    """A run folder with a policy in it, as runs leave it."""
    with run_folder(tmp_path / "r", resume=False, overwrite=False):
        write_config(tmp_path / "r", "train-teacher", {"task": "CartPole-v1"})
        hand_made_teacher().save(tmp_path / "r" / "last_policy.safetensors")
    return tmp_path / "r"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_no_verb_overwrites_what_it_reads(tmp_path, finished):
    policy = finished / "last_policy.safetensors"
    before = contents(finished)
    small = {"student": "mlp:8", "num_updates": 5}
    calls = [
        lambda: collect(policy, num_steps=50, out=finished, overwrite=True),
        lambda: distill(teacher=finished, out=finished, overwrite=True, **small),
        lambda: distill(teacher=policy, out=finished, overwrite=True, **small),
        lambda: distill(teacher=hand_made_teacher(), init_from=policy, out=finished, overwrite=True, **small),
        lambda: distill(
            online=True, task="CartPole-v1", learner={"init_from": str(policy)}, out=finished, overwrite=True, **small
        ),
        lambda: train_teacher("CartPole-v1", network="mlp:8", init_from=policy, out=finished, overwrite=True),
        lambda: quickstart(QuickstartOptions(teacher=policy, out=finished, overwrite=True)),
        lambda: reproduce("losses", budget="smoke", games=["pong"], teacher=PONG, out=PONG.parent, overwrite=True),
    ]
    for call in calls:
        with pytest.raises(
            OutputExistsError, match=r"^--overwrite would delete .*, which this command reads: it lies "
        ):
            call()
        assert contents(finished) == before


def test_a_dataset_and_a_configuration_are_inputs_too(tmp_path, finished):
    collect(hand_made_teacher(), num_steps=50, out=tmp_path / "d")
    with pytest.raises(OutputExistsError, match=r"^--out .*/d/r lies in .*/d, which this command reads\. Choose anoth"):
        distill(tmp_path / "d", out=tmp_path / "d" / "r", overwrite=True)
    with pytest.raises(OutputExistsError, match=r"^--overwrite would delete .*/d, which this command reads"):
        distill(tmp_path / "d", out=tmp_path / "d", overwrite=True)
    before = contents(finished)
    result = run("train-teacher", "--config", finished / "config.toml", "--out", finished, "--overwrite")
    assert (result.code, result.line) == (
        1,
        f"rldistill train-teacher: --overwrite would delete {finished / 'config.toml'}, which this command reads: it "
        f"lies in --out {finished}. Choose another --out.",
    )
    assert contents(finished) == before


def test_the_teacher_that_a_dataset_names_is_an_input_too(tmp_path, finished):
    collect(finished, num_steps=600, num_envs=4, out=tmp_path / "d")
    before = contents(finished)
    small = ("--num-updates", 5, "--overwrite")
    for more in ((), ("--dry-run",)):
        result = run("distill", tmp_path / "d", "--out", finished, *small, *more)
        assert result.code == 1 and result.line.startswith("rldistill distill: --overwrite would delete "), result.line
        assert f"which this command reads: it lies in --out {finished}. Choose another --out." in result.line
        assert contents(finished) == before


@pytest.mark.parametrize("here", ["float32", "bfloat16"])
def test_a_run_that_goes_on_keeps_the_precision_that_auto_stood_for(tmp_path, here):
    assert begun_precision(tmp_path, "auto") == "auto", "there is no run"
    write_config(tmp_path, "distill", {"precision": here})
    assert begun_precision(tmp_path, "auto") == here
    assert begun_precision(tmp_path, "float32") == "float32", "what was typed stays"


def test_a_run_goes_on_where_auto_means_another_precision(tmp_path, monkeypatch):
    collect(hand_made_teacher(), num_steps=600, num_envs=4, out=tmp_path / "d")
    small = {"student": "mlp:4", "batch_size": 16, "evaluate_period": 5, "evaluate_episodes": 0}
    for computes_bfloat16, resume in ((False, False), (True, True)):
        monkeypatch.setattr("rldistill.networks.precision._computes_bfloat16", lambda here=computes_bfloat16: here)
        distill(tmp_path / "d", out=tmp_path / "r", num_updates=10, device="cpu", resume=resume, **small)
    result = run("distill", tmp_path / "d", "--resume", *options(out=tmp_path / "r", num_updates=10, **small))
    assert result.code == 0 and "is finished" in result.stderr


def test_links_hide_no_input(tmp_path, finished):
    (tmp_path / "alias").symlink_to(finished)
    (tmp_path / "policy").symlink_to(finished / "last_policy.safetensors")
    (tmp_path / "elsewhere").write_text("")
    (finished / "student.safetensors").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "student.safetensors").symlink_to(finished / "last_policy.safetensors")
    cases = [
        (tmp_path / "alias", finished / "last_policy.safetensors"),
        (finished, tmp_path / "policy"),
        (finished, tmp_path / "alias"),
        (finished, finished / "student.safetensors"),
        (finished, tmp_path / "d"),
    ]
    for out, given in cases:
        with pytest.raises(OutputExistsError, match="which this command reads"):
            keep_inputs(out, [given], overwrite=True)
        keep_inputs(out, [given], overwrite=False)
    keep_inputs(finished, [None, tmp_path / "elsewhere", finished / "no such file", tmp_path / "none"], overwrite=True)
    keep_inputs(tmp_path / "r2", [finished, finished / "last_policy.safetensors"], overwrite=True)


def test_a_run_that_was_finished_while_another_waited_to_begin_is_not_replaced(tmp_path, monkeypatch):
    def another_process_is_quicker() -> None:
        (tmp_path / "r").mkdir()
        (tmp_path / "r" / "config.toml").write_text("# rldistill distill\nseed = 1\n")

    monkeypatch.setattr(module, "_commit", another_process_is_quicker)
    with (
        pytest.raises(OutputExistsError, match=r"already holds a run\. Add --resume"),
        run_folder(tmp_path / "r", resume=False, overwrite=False),
    ):
        pass
    assert (tmp_path / "r" / "config.toml").read_text() == "# rldistill distill\nseed = 1\n"


LEFT = (".best_policy.safetensors.tmp", ".checkpoint.ckpt.tmp", ".metrics.jsonl.tmp", ".config.toml.tmp")


def test_what_a_kill_left_of_half_written_files_goes_with_the_next_start(finished):
    for name in LEFT:
        (finished / name).write_bytes(b"half")
    (finished / ".evaluation.json.tmp").write_text("an evaluation is writing")
    (finished / ".mine.tmp").write_text("a stranger's")
    with run_folder(finished, resume=True, overwrite=False) as continues:
        assert continues
    names = {path.name for path in finished.iterdir()}
    assert names == {
        ".lock",
        ".mine.tmp",
        ".evaluation.json.tmp",
        "config.toml",
        "last_policy.safetensors",
    }


def test_what_a_kill_left_does_not_stop_an_overwrite(finished):
    for name in (*LEFT, ".evaluation.json.tmp"):
        (finished / name).write_bytes(b"half")
    with run_folder(finished, resume=False, overwrite=True):
        assert [path.name for path in finished.iterdir()] == [".lock"]


@pytest.fixture
def reproduced(tmp_path) -> Path:
    """A folder with what `reproduce`, `shrink` and `distill --students` leave in theirs."""
    folder = tmp_path / "r"
    with run_folder(folder, resume=False, overwrite=False):
        write_config(folder, "reproduce", {"games": ["pong"]})
    collect(hand_made_teacher(), num_steps=50, out=folder / "data" / "pong")
    with run_folder(folder / "students" / "net3-pong-seed0", resume=False, overwrite=False):
        write_config(folder / "students" / "net3-pong-seed0", "distill", {"seed": 0})
    for name in ("teachers/pong", "students/mlp-8-seed-0", "students/net3", "students/conv-4-4-4-16"):
        hand_made_teacher().save(folder / f"{name}.safetensors")
    for name in ("teachers/pong", "data/pong", "students/net3-pong-seed0", "evaluations/pong-seed0"):
        write_json(folder / f"{name}.json", {"job": name, "settings": {}, "seconds": 1.0, "result": {}})
    return folder


def test_a_run_of_any_verb_is_overwritten_by_one_of_any_other(reproduced):
    with run_folder(reproduced, resume=False, overwrite=True) as continues:
        assert not continues
        assert [path.name for path in reproduced.iterdir()] == [".lock"]


@pytest.mark.parametrize(
    "foreign",
    [
        "students/notes.txt",
        "students/my_best.safetensors",
        "students/mine/student.safetensors",
        "students/net3-pong-seed0/plot.py",
        "teachers/mine.safetensors",
        "data/own.json",
        "data/pong/raw.npz",
        "evaluations/plots/a.png",
    ],
)
def test_overwriting_refuses_a_users_file_in_any_folder_of_a_run(reproduced, foreign):
    (reproduced / foreign).parent.mkdir(exist_ok=True)
    (reproduced / foreign).write_text("[1]")
    before = contents(reproduced)
    with (
        pytest.raises(OutputExistsError, match=f"^--overwrite would delete {foreign} in .*, which no run of rldistill"),
        run_folder(reproduced, resume=False, overwrite=True),
    ):
        pass
    assert contents(reproduced) == before


@pytest.mark.parametrize("flags", [{"resume": True}, {"overwrite": True}])
def test_a_configuration_of_somebody_elses_makes_no_folder_ours(tmp_path, flags):
    (tmp_path / "config.toml").write_text("[server]\n")
    (tmp_path / "metrics.jsonl").write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(OutputExistsError, match=r"is not an rldistill run: .* config.toml that begins with '#"):
        train_teacher("CartPole-v1", network="mlp:8", out=tmp_path, **flags)
    assert contents(tmp_path) == before


def test_damaged_records_are_left_out_with_a_warning_that_counts_them(tmp_path):
    path = tmp_path / "metrics.jsonl"
    good = [{"update": number, "loss": 0.5} for number in (10, 20, 30, 40)]
    bad = [b'{"update": 15, "loss": 0,5}', b"\xff\xfe", b'{"uqdate": 16}', b'{"update": 17, "loss": 1e999}', b"[1]"]
    lines = [*(json.dumps(record).encode() for record in good), *bad, b'{"update": 18, "lo']
    path.write_bytes(b"\n".join(lines))
    told = []
    with MetricsFile(path, counter="update", resume_at=30, callbacks=[told.append]) as metrics:
        metrics.write({"update": 40, "loss": 0.25})
    assert read_metrics(path) == [*good[:3], {"update": 40, "loss": 0.25}]
    text = f"{path}: 5 of 9 lines are damaged and are left out; the run itself is whole."
    assert told == [MessageEvent(text, "warning")]
    with MetricsFile(path, counter="update", resume_at=40, callbacks=[told.append]):
        assert len(told) == 1
    path.write_bytes(bytes(path.stat().st_size))
    with MetricsFile(path, counter="update", resume_at=40, callbacks=[told.append]):
        assert told[1].text.startswith(f"{path}: 1 of 1 lines are damaged")


def test_a_kill_while_a_run_is_deleted_can_be_followed_by_another_overwrite(reproduced, monkeypatch):
    unlink, deleted = Path.unlink, []

    def killed_at_the_configuration(path, missing_ok=False):
        if path == reproduced / "config.toml":
            raise KeyboardInterrupt
        deleted.append(path)
        unlink(path, missing_ok)

    write_json(reproduced / "results.json", {})
    monkeypatch.setattr(Path, "unlink", killed_at_the_configuration)
    with pytest.raises(KeyboardInterrupt), run_folder(reproduced, resume=False, overwrite=True):
        pass
    monkeypatch.undo()
    assert {path.name for path in reproduced.iterdir()} == {"config.toml", ".lock"} and deleted
    with run_folder(reproduced, resume=False, overwrite=True):
        assert [path.name for path in reproduced.iterdir()] == [".lock"]


def test_a_teacher_whose_record_is_missing_or_damaged_does_not_stop_an_overwrite(reproduced):
    (reproduced / "teachers" / "pong.json").write_bytes(b"half")
    with run_folder(reproduced, resume=False, overwrite=True):
        assert [path.name for path in reproduced.iterdir()] == [".lock"]


def test_a_setting_of_none_stands_in_the_configuration(tmp_path):
    settings = {"map_name": None, "is_slippery": False}  # FrozenLake then draws a map of its own
    small = ("--network", "mlp:2", "--num-steps", 8, "--num-envs", 2, "--rollout-length", 4, "--num-minibatches", 1)
    words = ("train-teacher", "--task", "FrozenLake-v1", "--env-kwargs", json.dumps(settings), *small)
    run_well(*words, "--out", tmp_path / "r")
    again = run_well(
        "train-teacher", "--config", tmp_path / "r/config.toml", "--out", tmp_path / "s", "--dry-run", "--json"
    )
    assert again.json["env_kwargs"] == settings
    turned = json.dumps(dict(reversed(settings.items())))
    assert run(*words, "--env-kwargs", turned, "--out", tmp_path / "r", "--resume").code == 0
    without = run(*words, "--env-kwargs", '{"is_slippery": false}', "--out", tmp_path / "r", "--resume")
    assert without.code == 1
    assert "env_kwargs was" in without.line
