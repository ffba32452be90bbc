"""A distillation that was stopped anywhere and taken up again is bit-equal to one that never stopped."""

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from rldistill.errors import DiskFullError, RldistillError
from rldistill.events import MessageEvent
from rldistill.seeding import stream_generator
from rldistill.session.metrics import MetricsFile, read_metrics
from rldistill.storage import load_checkpoint, save_checkpoint
from tests.kit.commands import options, run_alone, start
from tests.kit.flat import distill
from tests.kit.interruptions import StopAfter, full_disk

SETTINGS = {"student": "mlp:16", "num_updates": 400, "batch_size": 32, "evaluate_period": 50, "precision": "float32"}


@pytest.fixture(scope="module", params=["adam", "rmsprop"])
def optimizer(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, q_data, optimizer) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted") / "r"
    distill(q_data, out=out, optimizer=optimizer, num_threads=1, **SETTINGS)
    return out


def command_for(q_data: Path, out: Path, optimizer: str) -> list[object]:
    settings = options(out=out, optimizer=optimizer, num_threads=1, **SETTINGS)
    return ["distill", q_data, "--resume", "--quiet", *settings]


def assert_equal(out: Path, expected: Path) -> None:
    for name in ("student.safetensors", "metrics.jsonl"):
        assert (out / name).read_bytes() == (expected / name).read_bytes(), name


def num_measured(out: Path) -> int:
    return len(read_metrics(out / "metrics.jsonl"))


def test_killed_again_and_again_a_run_ends_as_if_it_had_not_been(tmp_path, q_data, optimizer, uninterrupted):
    out = tmp_path / "r"
    command = command_for(q_data, out, optimizer)
    rng = stream_generator(0, "kills")
    for num_before in (0, 1, 3, 5, 7):
        run = start(*command, prepare="tests.kit.commands:distill_almost_to_the_end")
        run.wait_until(lambda least=num_before: num_measured(out) >= least)
        time.sleep(rng.uniform(0, 0.05))  # the moment between two measurements is left to chance
        run.kill()
        assert not (out / "student.safetensors").exists()
    assert run_alone(*command).code == 0
    assert_equal(out, uninterrupted)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_exits_with_130_and_the_rest_can_be_trained_later(tmp_path, q_data, optimizer, uninterrupted, number):
    out = tmp_path / "r"
    run = start(*command_for(q_data, out, optimizer), prepare="tests.kit.commands:distill_almost_to_the_end")
    run.wait_until(lambda: num_measured(out) >= 2)
    result = run.interrupt(number)
    assert result.code == 130
    assert result.stdout == ""
    assert re.fullmatch(r"rldistill distill: stopped after update \d+; saved\. Go on with --resume\.", result.line)
    assert not (out / "student.safetensors").exists()
    assert run_alone(*command_for(q_data, out, optimizer)).code == 0
    assert_equal(out, uninterrupted)


def test_stopped_by_a_callback_between_any_two_updates(tmp_path, q_data, optimizer, uninterrupted):
    out = tmp_path / "r"
    # In the middle of a period, right before, at and after a measurement, twice in one period, and at the very end.
    at = 0
    for stop in (1, 49, 50, 51, 60, 173, 399, 400):
        with pytest.raises(KeyboardInterrupt):
            distill(
                q_data,
                out=out,
                optimizer=optimizer,
                num_threads=1,
                resume=True,
                callbacks=[StopAfter(stop - at)],
                **SETTINGS,
            )
        at = stop
        assert not (out / "student.safetensors").exists()
    distill(q_data, out=out, optimizer=optimizer, num_threads=1, resume=True, **SETTINGS)
    assert_equal(out, uninterrupted)


def test_resuming_a_finished_run_gives_the_same_file_again(tmp_path, q_data, optimizer, uninterrupted):
    out = tmp_path / "r"
    distill(q_data, out=out, optimizer=optimizer, num_threads=1, **SETTINGS)
    student = distill(q_data, out=out, optimizer=optimizer, num_threads=1, resume=True, **SETTINGS)
    assert_equal(out, uninterrupted)
    (out / "student.safetensors").unlink()
    assert distill(q_data, out=out, optimizer=optimizer, num_threads=1, resume=True, **SETTINGS).hash == student.hash
    assert_equal(out, uninterrupted)


def test_resuming_where_nothing_is_begins_a_run(tmp_path, q_data, optimizer, uninterrupted):
    distill(q_data, out=tmp_path / "r", optimizer=optimizer, num_threads=1, resume=True, **SETTINGS)
    assert_equal(tmp_path / "r", uninterrupted)


def test_a_full_disk_is_one_line_and_the_run_can_go_on(tmp_path, q_data, optimizer, uninterrupted):
    out = tmp_path / "r"
    with full_disk(2500), pytest.raises(DiskFullError) as caught:
        distill(q_data, out=out, optimizer=optimizer, num_threads=1, **SETTINGS)
    assert str(caught.value) == (
        f"Writing {out}/checkpoint.ckpt failed: File too large. What was reported written before is intact. "
        "Free some space and run the same command again, with --resume if it has that option."
    )
    assert not list(out.glob(".*.tmp"))
    distill(q_data, out=out, optimizer=optimizer, num_threads=1, resume=True, **SETTINGS)
    assert_equal(out, uninterrupted)


@pytest.mark.parametrize(
    ("num_threads", "note"),
    [
        (1, ""),
        (2, "; num_threads was 1, is 2: last bits may differ from those of a run that never stopped"),
    ],
)
def test_going_on_with_other_threads_is_said_to_move_the_last_bits(tmp_path, q_data, num_threads, note):
    told = []
    with pytest.raises(KeyboardInterrupt):
        distill(q_data, out=tmp_path / "r", num_threads=1, callbacks=[StopAfter(7)], **SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        distill(
            q_data,
            out=tmp_path / "r",
            num_threads=num_threads,
            resume=True,
            callbacks=[told.append, StopAfter(1)],
            **SETTINGS,
        )
    assert told[0] == MessageEvent(f"going on from update 7{note}")


def test_a_command_line_that_an_earlier_version_kept_does_not_reach_the_student(
    tmp_path, q_data, optimizer, uninterrupted
):
    out = tmp_path / "r"
    settings = SETTINGS | {"optimizer": optimizer, "num_threads": 1}
    with pytest.raises(KeyboardInterrupt):
        distill(q_data, out=out, callbacks=[StopAfter(73)], **settings)
    file = out / "checkpoint.ckpt"
    state = load_checkpoint(file)
    versions = json.loads(state["versions"]) | {"command": "rldistill distill --out /home/alice/r"}
    save_checkpoint(file, state | {"versions": json.dumps(versions)})
    distill(q_data, out=out, resume=True, **settings)
    assert_equal(out, uninterrupted)


def test_scores_of_students_that_play_while_they_train_are_the_same_after_a_resume(tmp_path, q_data):
    settings = SETTINGS | {"num_updates": 100, "evaluate_period": 10, "evaluate_episodes": 3}
    distill(q_data, out=tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        distill(q_data, out=tmp_path / "r", callbacks=[StopAfter(73)], **settings)
    distill(q_data, out=tmp_path / "r", resume=True, num_envs=2, **settings)
    assert_equal(tmp_path / "r", tmp_path / "whole")
    assert [record["update"] for record in read_metrics(tmp_path / "r" / "metrics.jsonl") if "scores" in record] == [
        50,
        100,
    ]


def test_a_run_that_said_it_learned_nothing_says_so_again_at_its_end_only_also_after_a_resume(tmp_path, q_data):
    settings = SETTINGS | {"learning_rate": 1e-46, "evaluate_period": 20, "num_updates": 100}
    told = []
    with pytest.raises(KeyboardInterrupt):
        distill(q_data, out=tmp_path / "r", callbacks=[told.append, StopAfter(30)], **settings)
    distill(q_data, out=tmp_path / "r", resume=True, callbacks=[told.append], **settings)
    warnings = [event.text for event in told if isinstance(event, MessageEvent) and event.level == "warning"]
    assert [text.partition(" updates")[0] for text in warnings] == ["after 20", "after 100"]


def module_with_dropout() -> nn.Module:
    module = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.5), nn.ReLU(), nn.Linear(16, 2))
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return module


class KilledAt:
    """A callback that fails at an update, as a kill does: nothing more is saved."""

    def __init__(self, update: int) -> None:
        self._update = update

    def __call__(self, event) -> None:
        if getattr(event, "done", None) == self._update:
            raise RuntimeError("killed")


def test_a_module_with_dropout_that_was_killed_and_resumed_is_the_one_that_was_not(tmp_path, q_data):
    def run(name: str, **options) -> None:
        settings = SETTINGS | {"num_updates": 60, "evaluate_period": 20, "student": module_with_dropout()}
        distill(q_data, out=tmp_path / name, num_threads=1, **settings, **options)

    run("whole")
    for killed_at in (10, 20, 35, 59):
        with pytest.raises(RuntimeError, match="killed"):
            run("parts", resume=True, callbacks=[KilledAt(killed_at)])
    run("parts", resume=True)
    assert_equal(tmp_path / "parts", tmp_path / "whole")


# metrics.jsonl.


def test_metrics_after_the_checkpoint_are_dropped_and_a_cut_line_is_no_record(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsFile(path, counter="update", resume_at=None) as metrics:
        for update in (10, 20, 30):
            metrics.write({"update": update, "loss": update / 7})
    with path.open("a") as file:
        file.write('{"update": 40, "lo')
    assert [record["update"] for record in read_metrics(path)] == [10, 20, 30]
    with MetricsFile(path, counter="update", resume_at=20) as metrics:
        metrics.write({"update": 30, "loss": 1.5})
    assert path.read_text() == (
        f'{{"loss":{10 / 7!r},"update":10}}\n{{"loss":{20 / 7!r},"update":20}}\n{{"loss":1.5,"update":30}}\n'
    )
    with MetricsFile(path, counter="update", resume_at=None):
        pass
    assert path.read_text() == ""


def test_records_are_safe_on_disk_before_the_checkpoint_that_stands_behind_them(tmp_path, q_data, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(Path(f"/proc/self/fd/{number}").resolve().name))
    distill(q_data, out=tmp_path / "r", **SETTINGS | {"num_updates": 40, "evaluate_period": 20})
    files = [name for name in synced if name in ("metrics.jsonl", ".checkpoint.ckpt.tmp")]
    assert files == ["metrics.jsonl", ".checkpoint.ckpt.tmp"] * 2


def test_a_disk_that_fills_under_the_metrics_is_one_error(tmp_path):
    with (
        full_disk(4000),
        pytest.raises(DiskFullError, match=r"Writing .*metrics\.jsonl failed: File too large"),
        MetricsFile(tmp_path / "metrics.jsonl", counter="update", resume_at=None) as metrics,
    ):
        for update in range(1000):
            metrics.write({"update": update})
    records = read_metrics(tmp_path / "metrics.jsonl")
    assert [record["update"] for record in records] == list(range(len(records)))
    assert len(records) > 200


def test_a_folder_that_may_not_be_written_is_one_line(tmp_path, q_data):
    (tmp_path / "file").write_text("")
    with pytest.raises(RldistillError, match="file is a file"):
        distill(q_data, out=tmp_path / "file" / "r", **SETTINGS)
