"""Ctrl-C in Python: every verb saves and stops, and leaves the handlers as they were."""

import signal
import sys
import threading
from importlib import import_module
from pathlib import Path

import pytest

import rldistill as rd
from rldistill.data import load_manifest
from rldistill.events import ProgressEvent
from rldistill.session.interrupts import stop_on_interrupt
from rldistill.storage import load_checkpoint
from tests.kit.cart_pole import collect_cart_pole, saved_teacher
from tests.kit.commands import report_slowly, start_function
from tests.kit.tiny_envs import CHAIN_TASK

EVENT = ProgressEvent("distill", 1, 2, "updates")
DISTILL = {"student": "mlp:4", "num_updates": 40, "evaluate_period": 10, "precision": "float32", "num_threads": 1}


@pytest.fixture(autouse=True)
def _default_handlers():
    """Python's own, whatever the shell that started the tests has chosen."""
    before = [signal.signal(signal.SIGINT, signal.default_int_handler), signal.signal(signal.SIGTERM, signal.SIG_DFL)]
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
        signal.signal(number, handler)


# Each verb in a process of its own, called as in a notebook: from its first report of progress on, it waits for Ctrl-C.


def _wait_at_the_first_report(module: str) -> None:
    def say_so(_event: ProgressEvent) -> bool:
        sys.stdout.write("at work\n")
        sys.stdout.flush()
        return True

    report_slowly(import_module(f"rldistill.{module}"), seconds=0.005, until=say_so)


def train_teacher() -> None:
    _wait_at_the_first_report("verbs.training_run")
    rd.train_teacher(CHAIN_TASK, out="run", num_steps=320, network="mlp:4", num_envs=2, rollout_length=8)


def collect() -> None:
    _wait_at_the_first_report("verbs.collect")
    rd.collect("teacher.safetensors", num_steps=400, out="stopped", num_envs=4)


def distill() -> None:
    _wait_at_the_first_report("verbs.distillation_run")
    rd.distill("data", out="run", **DISTILL)


def evaluate() -> None:
    _wait_at_the_first_report("evaluation.play")
    rd.evaluate("teacher.safetensors", out="e.json")


@pytest.mark.parametrize(
    ("function", "last_words"),
    [
        (train_teacher, ": stopped at step 16; saved. Go on with --resume."),
        (collect, ": stopped; 4 steps are written. Go on with --resume."),
        (distill, ": stopped after update 1; saved. Go on with --resume."),
        (evaluate, ": stopped; no evaluation is written."),
    ],
)
def test_ctrl_c_stops_a_verb_that_was_called_without_callbacks_and_what_was_done_is_saved(
    tmp_path, monkeypatch, function, last_words
):
    monkeypatch.chdir(tmp_path)
    collect_cart_pole(Path("data"), saved_teacher(tmp_path), num_steps=400)
    verb = start_function(f"{__name__}:{function.__name__}")
    verb.wait_until(lambda: "at work" in verb.stdout)
    assert verb.interrupt().stderr.splitlines()[-1] == f"KeyboardInterrupt{last_words}"
    if function is train_teacher:
        assert load_checkpoint(Path("run/checkpoint.ckpt"))["step"] == 16
    elif function is collect:
        assert load_manifest(Path("stopped")).num_steps == 4
    elif function is distill:
        rd.distill("data", out="whole", **DISTILL)
        rd.distill("data", out="run", resume=True, **DISTILL)
        assert Path("run/student.safetensors").read_bytes() == Path("whole/student.safetensors").read_bytes()
    else:
        assert not Path("e.json").exists()


# The handlers.


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_the_run_to_stop_and_the_second_stops_it_at_once(number):
    with pytest.raises(KeyboardInterrupt), stop_on_interrupt([]) as (stop,):
        assert stop(EVENT) is False
        signal.raise_signal(number)
        assert stop(EVENT) is True
        signal.raise_signal(number)
        pytest.fail("the second did not stop it")


def test_a_signal_in_the_last_moment_of_a_run_that_reports_nothing_more_is_not_lost():
    with pytest.raises(KeyboardInterrupt), stop_on_interrupt([]):
        signal.raise_signal(signal.SIGINT)


def test_the_callers_callbacks_come_first():
    with stop_on_interrupt([print]) as (first, _stop):
        assert first is print


def test_a_run_within_another_hears_the_same_signals():
    with pytest.raises(KeyboardInterrupt), stop_on_interrupt([]) as (outer,):
        with pytest.raises(KeyboardInterrupt), stop_on_interrupt([]) as (inner,):
            signal.raise_signal(signal.SIGINT)
            assert inner(EVENT) is outer(EVENT) is True
        assert outer(EVENT) is True


def test_a_handler_of_the_callers_own_stays_in_charge():
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append("mine"))
    with stop_on_interrupt([]) as (stop,):
        signal.raise_signal(signal.SIGINT)
        assert stop(EVENT) is False
    assert heard == ["mine"]
    signal.signal(signal.SIGINT, before)


def test_a_run_in_another_thread_leaves_the_signals_to_the_main_one():
    given = []

    def run() -> None:
        with stop_on_interrupt([print]) as listeners:
            given.append(listeners)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert given == [[print]]
