"""Jobs and who does them: records, what is not done again, failures that stop nobody else, stops."""

import json
import os
import signal
from contextlib import closing
from multiprocessing.context import SpawnProcess

import pytest

from rldistill.errors import RldistillError
from rldistill.events import MessageEvent, ProgressEvent
from rldistill.paper.jobs import Backend, Job, finished_result, run_stage
from tests.paper import jobs_for_tests as work


@pytest.fixture(params=[1, 2], ids=["serial", "processes"])
def backend(request):
    backend = Backend(request.param)
    yield backend
    backend.close()


def squares(folder, numbers) -> list[Job]:
    return [
        Job(f"square of {number}", work.square, {"number": number}, {"folder": str(folder)}, folder / f"{number}.json")
        for number in numbers
    ]


def job(function, folder) -> Job:
    return Job(function.__name__, function, {}, {}, folder / f"{function.__name__}.json")


def test_every_result_comes_back_and_is_recorded(tmp_path, backend):
    results = run_stage(squares(tmp_path, [2, 3, 4]), backend, num_threads=3)
    assert {name: result["square"] for name, result in results.items()} == {
        "square of 2": 4,
        "square of 3": 9,
        "square of 4": 16,
    }
    assert {result["num_threads"] for result in results.values()} == {3}
    processes = {result["process"] for result in results.values()}
    assert (os.getpid() in processes) is (backend.num_workers == 1)
    record = json.loads((tmp_path / "3.json").read_text())
    assert (record["job"], record["settings"], record["num_threads"]) == ("square of 3", {"number": 3}, 3)
    assert record["result"] == results["square of 3"]
    # The next job may be done by another machine, or by another version.
    assert record["made"]["versions"]["rldistill"]
    assert record["made"]["machine"]["device"] == "cpu"


def test_what_is_done_is_not_done_again(tmp_path):
    run_stage(squares(tmp_path, [2, 3]), Backend(1))
    results = run_stage(squares(tmp_path, [2, 3, 4]), Backend(1))
    assert (tmp_path / "calls").read_text().split() == ["2", "3", "4"]
    assert results["square of 2"]["square"] == 4


def test_processors_are_shared_by_the_jobs_of_a_stage_whatever_is_done(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    run_stage(squares(tmp_path, [2]), Backend(1))
    results = run_stage(squares(tmp_path, [2, 3]), Backend(1))
    assert results["square of 3"]["num_threads"] == 8
    with closing(Backend(4)) as backend:
        results = run_stage(squares(tmp_path, [2, 3, 5]), backend)
    assert results["square of 5"]["num_threads"] == 8 // 3


def test_a_job_that_was_done_with_other_settings_says_which(tmp_path):
    place = {"folder": str(tmp_path)}
    before = Job("a", work.square, {"number": 2, "table": {"depth": 1, "width": 3}}, place, tmp_path / "a.json")
    (tmp_path / "a.json").write_text(json.dumps({"settings": before.settings, "result": {}}))
    now = Job("a", work.square, {"number": 5, "table": {"depth": 2, "width": 3}}, place, tmp_path / "a.json")
    expected = r"^a was done with other settings: number was 2, is 5; table\.depth was 1, is 2\. Use the same, choose"
    with pytest.raises(RldistillError, match=expected):
        finished_result(now)
    assert finished_result(before) == {}


@pytest.mark.parametrize("text", ["", "[]", '{"settings": {}}', '{"result": {}, "settings": 3}'])
def test_a_record_that_is_none_is_named(tmp_path, text):
    (tmp_path / "2.json").write_text(text)
    with pytest.raises(RldistillError, match=r"2\.json is no record of a job\. Delete it"):
        finished_result(squares(tmp_path, [2])[0])


def test_a_failure_is_told_by_name_and_the_others_are_done(tmp_path, backend):
    jobs = [job(work.refuse, tmp_path), *squares(tmp_path, [2, 3]), job(work.break_down, tmp_path)]
    with pytest.raises(RldistillError) as failure:
        run_stage(jobs, backend)
    text = str(failure.value)
    assert text.startswith("2 of 4 jobs failed: ")
    assert "refuse: got this, expected that." in text
    assert "break_down: unexpected KeyError in break_down, line " in text
    assert text.endswith("What the others made is kept; the same command does only what is missing.")
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["2.json", "3.json"]


def test_a_process_that_is_killed_fails_its_job_alone(tmp_path):
    backend = Backend(2)
    try:
        with pytest.raises(RldistillError, match=r"die: its process was killed by signal 9; was memory short\?"):
            run_stage([job(work.die, tmp_path), *squares(tmp_path, [2, 3])], backend)
    finally:
        backend.close()
    assert (tmp_path / "2.json").exists()
    assert (tmp_path / "3.json").exists()


def test_a_process_that_died_while_it_had_nothing_to_do_is_replaced(tmp_path):
    backend = Backend(2)
    try:
        first = run_stage(squares(tmp_path, [2, 3]), backend)
        for number in {result["process"] for result in first.values()}:
            os.kill(number, signal.SIGKILL)
        assert run_stage(squares(tmp_path, [4, 5]), backend)["square of 5"]["square"] == 25
    finally:
        backend.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_process_starts_is_left_to_the_parent(tmp_path, monkeypatch, number):
    start = SpawnProcess.start

    def start_and_signal(process):
        start(process)
        os.kill(process.pid, number)

    monkeypatch.setattr(SpawnProcess, "start", start_and_signal)
    with closing(Backend(2)) as backend:
        assert run_stage(squares(tmp_path, [2, 3]), backend)["square of 3"]["square"] == 9


def test_a_stop_reaches_every_job_and_leaves_nothing_running(tmp_path):
    begun: list[str] = []

    def stop_when_both_work(event) -> bool:
        if isinstance(event, MessageEvent):
            begun.append(event.text)
        return len(begun) == 2

    jobs = [
        Job(name, work.work_until_stopped, {}, {"folder": str(tmp_path)}, tmp_path / f"{name}.json") for name in "ab"
    ]
    backend = Backend(2)
    try:
        with pytest.raises(KeyboardInterrupt, match="the jobs that are done are kept"):
            run_stage(jobs, backend, callbacks=[stop_when_both_work])
        assert len(list(tmp_path.glob("saved-*"))) == 2
        assert not list(tmp_path.glob("*.json"))
        # Nothing is broken by it.
        assert run_stage(squares(tmp_path, [7]), backend)["square of 7"]["square"] == 49
    finally:
        backend.close()
    assert sorted(begun) == ["a: begins", "b: begins"]


def test_a_stop_in_this_process_ends_the_job_that_asks(tmp_path):
    with pytest.raises(KeyboardInterrupt, match="the jobs that are done are kept"):
        run_stage(
            [Job("a", work.work_until_stopped, {}, {"folder": str(tmp_path)}, tmp_path / "a.json")],
            Backend(1),
            callbacks=[lambda event: isinstance(event, ProgressEvent)],
        )
    assert not list(tmp_path.glob("*.json"))


def test_events_say_which_job_they_are_about(tmp_path, backend):
    heard: list[str] = []

    def hear(event) -> None:
        heard.append(event.phase if isinstance(event, ProgressEvent) else event.text.split(" in ")[0])

    run_stage(squares(tmp_path, [2]), backend, callbacks=[hear])
    assert "square of 2: square" in heard
    assert "done: square of 2" in heard
