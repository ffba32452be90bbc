"""An ONNX file runs in a process of its own: it cannot hang, fill the memory, or bring down whoever loads it."""

import gc
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("onnx", reason="needs the extra `onnx`")
pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")

from onnx import TensorProto, helper, numpy_helper

from rldistill.adapters import onnx_program
from rldistill.adapters.load import load_policy
from rldistill.errors import PolicyFileError
from tests.kit.onnx_files import FLOAT, mlp_model, model_of, saved
from tests.kit.small_policies import vector_task

ROWS = np.random.default_rng(1).random((5, 4), np.float32)
LIFTS = "If you trust where it came from, --trust (Python: trust=True) lifts the limits of time and memory."
ENDLESS = (
    "did not answer within 0.3 s of processor time. It repeats something without end, or is no policy to play with. "
    + LIFTS
)


@pytest.fixture
def onnx_path(tmp_path):
    return tmp_path / "policy.onnx"


@pytest.fixture
def hurry(monkeypatch):
    monkeypatch.setattr(onnx_program, "SECONDS_PER_CALL", 0.3)


def load(path, **options):
    return load_policy(path, task=vector_task(), outputs="q_values", **options)


def refusal(path, **options):
    with pytest.raises(PolicyFileError) as caught:
        load(path, **options)
    line = str(caught.value)
    assert "\n" not in line
    return line.replace(str(path), "FILE")


def children():
    """Return the processes that were started here and have not been waited for."""
    return set(Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split())


def with_nodes(*nodes, stored=(), functions=()):
    """Return a linear policy whose answer goes through further nodes, from `l` to `q`."""
    values = [
        helper.make_tensor_value_info("obs", FLOAT, ["b", 4]),
        helper.make_tensor_value_info("q", FLOAT, ["b", 3]),
    ]
    weights = numpy_helper.from_array(np.ones((4, 3), np.float32), "w")
    first = helper.make_node("MatMul", ["obs", "w"], ["l"])
    domains = sorted({function.domain for function in functions})
    return model_of([first, *nodes], values[:1], values[1:], [weights, *stored], domains=domains, functions=functions)


def int64(name, *values):
    return numpy_helper.from_array(np.array(values, np.int64), name)


def loop(trips="trips"):
    """Return a Loop that adds 1 to `l` so many times."""
    infos = [
        helper.make_tensor_value_info(name, dtype, [])
        for name, dtype in (("i", TensorProto.INT64), ("go", TensorProto.BOOL))
    ]
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("Constant", [], ["one"], value_float=1.0),
            helper.make_node("Add", ["x", "one"], ["y"]),
        ],
        "body",
        [*infos, helper.make_tensor_value_info("x", FLOAT, None)],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []), helper.make_tensor_value_info("y", FLOAT, None)],
    )
    return helper.make_node("Loop", [trips, "", "l"], ["q"], body=body)


def test_a_loop_that_ends_is_no_reason_to_refuse(onnx_path):
    policy = load(saved(with_nodes(loop(), stored=[int64("trips", 3)]), onnx_path))
    np.testing.assert_allclose(policy(ROWS)[0].q_values, np.repeat(ROWS.sum(1, keepdims=True), 3, 1) + 3, rtol=1e-5)


def test_a_loop_without_end_ends(onnx_path, hurry):
    assert refusal(saved(with_nodes(loop(), stored=[int64("trips", 2**62)]), onnx_path)) == f"ONNX file FILE {ENDLESS}"


def test_functions_that_double_thirty_times_end(onnx_path, hurry):
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("mine", 1)]
    bodies = [[helper.make_node("Identity", ["x"], ["y"])]] + [
        [helper.make_node(f"f{k}", ["x"], ["m"], domain="mine"), helper.make_node(f"f{k}", ["m"], ["y"], domain="mine")]
        for k in range(29)
    ]
    functions = [helper.make_function("mine", f"f{k}", ["x"], ["y"], body, opsets) for k, body in enumerate(bodies)]
    model = with_nodes(helper.make_node("f29", ["l"], ["q"], domain="mine"), functions=functions)
    assert refusal(saved(model, onnx_path)) == f"ONNX file FILE {ENDLESS}"


@pytest.mark.parametrize("operator", ["ConstantOfShape", "Expand"])
def test_results_that_fill_the_memory_are_refused(onnx_path, operator):
    inputs = ["size"] if operator == "ConstantOfShape" else ["one", "size"]
    nodes = [
        helper.make_node(operator, inputs, ["big"]),
        helper.make_node("ReduceSum", ["big", "axis"], ["sum"], keepdims=0),
        helper.make_node("Add", ["l", "sum"], ["q"]),
    ]
    one = numpy_helper.from_array(np.ones(1, np.float32), "one")
    model = with_nodes(*nodes, stored=[int64("size", 2_000_000_000), int64("axis", 0), one])
    assert refusal(saved(model, onnx_path)) == (
        "ONNX file FILE cannot be run on observations [16, 4]: one of its results takes 8,000,000,000 bytes, more "
        "memory than a policy should need. --trust (Python: trust=True) lifts this limit."
    )


def test_answers_that_are_no_policys_are_refused_before_they_travel(onnx_path):
    nodes = [helper.make_node("Tile", ["l", "times"], ["q"])]
    model = with_nodes(*nodes, stored=[int64("times", 1, 500_000)])
    assert refusal(saved(model, onnx_path)) == (
        "ONNX file FILE answers 92 MiB to one batch of observations, expected at most 64 MiB. Is it a policy?"
    )


def test_what_an_observation_makes_endless_ends_too_and_says_so_at_every_call(onnx_path, hurry):
    # As often as the largest observation says: not at all for those with which a file is tried.
    nodes = [
        helper.make_node("ReduceMax", ["obs"], ["most"], keepdims=0),
        helper.make_node("Cast", ["most"], ["trips"], to=TensorProto.INT64),
        loop(),
    ]
    policy = load(saved(with_nodes(*nodes), onnx_path))
    with pytest.raises(PolicyFileError) as caught:
        policy(np.full((1, 4), 2.0**50, np.float32))
    assert str(caught.value) == f"ONNX file {onnx_path} {ENDLESS}"
    with pytest.raises(PolicyFileError, match=r"was stopped while it answered\. Load it again\.$"):
        policy(ROWS)


def test_an_error_at_one_observation_is_no_end(onnx_path):
    nodes = [
        helper.make_node("ReduceMax", ["obs"], ["most"], keepdims=0),
        helper.make_node("Cast", ["most"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["w", "index"], ["row"]),
        helper.make_node("Add", ["l", "row"], ["q"]),
    ]
    policy = load(saved(with_nodes(*nodes), onnx_path))
    before = policy(ROWS)[0].q_values
    with pytest.raises(PolicyFileError, match=r"cannot be run on observations \[16, 4\]: .*Gather"):
        policy(np.full((1, 4), 9, np.float32))
    np.testing.assert_array_equal(policy(ROWS)[0].q_values, before)


def test_a_crash_inside_onnxruntime_is_an_error_here(onnx_path):
    before = children()
    policy = load(saved(mlp_model(), onnx_path))
    (process,) = children() - before
    os.kill(int(process), signal.SIGSEGV)
    with pytest.raises(PolicyFileError) as caught:
        policy(ROWS)
    assert str(caught.value) == (
        f"ONNX file {onnx_path} made onnxruntime end its process (signal SIGSEGV): the file is damaged, made to do so, "
        f"or takes too much memory. Fetch it again. {LIFTS}"
    )


def test_its_process_ends_with_it(onnx_path):
    before = children()
    policy = load(saved(mlp_model(), onnx_path))
    assert len(children() - before) == 1
    del policy
    gc.collect()
    assert children() <= before
    assert "NoSuchOperator" in refusal(saved(with_nodes(helper.make_node("NoSuchOperator", ["l"], ["q"])), onnx_path))
    gc.collect()
    assert children() <= before


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_fork_leaves_it_to_the_process_that_loaded_it(onnx_path):
    policy = load(saved(mlp_model(), onnx_path))
    if (child := os.fork()) == 0:
        try:
            policy(ROWS)
            os._exit(1)
        except PolicyFileError as error:
            said = "was loaded by the process that this one was forked from. Load it here." in str(error)
            policy.program.run.__self__._end()
            os._exit(0 if said else 2)
    assert os.waitpid(child, 0)[1] == 0
    assert policy(ROWS)[0].q_values.shape == (5, 3)


@pytest.mark.parametrize("trust", [False, True])
def test_only_trust_lifts_the_limits(onnx_path, trust):
    before = children()
    policy = load(saved(mlp_model(), onnx_path), trust=trust)
    (process,) = children() - before
    limit, own = address_space(process), address_space("self")
    assert limit == own if trust else int(limit) < 2 * 2**30
    np.testing.assert_allclose(policy(ROWS)[0].q_values, load(onnx_path)(ROWS)[0].q_values)


def address_space(process):
    limits = Path(f"/proc/{process}/limits").read_text().splitlines()
    return next(line.split()[3] for line in limits if line.startswith("Max address space"))


def test_ctrl_c_stops_waiting_for_a_file_that_does_not_answer(onnx_path):
    program = onnx_program.load_onnx(saved(with_nodes(loop(), stored=[int64("trips", 2**62)]), onnx_path), trust=True)
    previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            program.run(torch.zeros(16, 4))
    finally:
        signal.signal(signal.SIGALRM, previous)
    with pytest.raises(PolicyFileError, match=r"was stopped while it answered\. Load it again\.$"):
        program.run(torch.zeros(16, 4))


def test_ctrl_c_in_the_terminal_does_not_reach_it(onnx_path):
    before = children()
    policy = load(saved(mlp_model(), onnx_path))
    (process,) = children() - before
    assert os.getpgid(int(process)) != os.getpgid(0)
    os.kill(int(process), signal.SIGINT)
    time.sleep(0.05)
    assert policy(ROWS)[0].q_values.shape == (5, 3)


def test_a_schedulers_sigterm_is_for_the_process_that_asks(onnx_path):
    before = children()
    policy = load(saved(mlp_model(), onnx_path))
    (process,) = children() - before
    os.kill(int(process), signal.SIGTERM)
    time.sleep(0.05)
    assert policy(ROWS)[0].q_values.shape == (5, 3)
