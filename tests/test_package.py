"""The package as a whole: what importing it does, what it costs, and which names it gives."""

import importlib
import inspect
import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import rldistill

ZOO = Path(__file__).parents[1] / "zoo"
VERBS = ["quickstart", "shrink", "train-teacher", "collect", "distill", "evaluate", "export", "reproduce", "inspect"]
# Each of these costs tenths of a second or more; `--help` has half a second for everything.
HEAVY_MODULES = {"torch", "scipy", "gymnasium", "ale_py", "blosc2", "matplotlib", "av"}

# Prints what an import changed. The libraries we build on come first, their habits are not ours.
WORLD_SCRIPT = """
import json, logging, os, random, signal, sys, threading, warnings
for name in sys.argv[2:]:
    __import__(name)

def world():
    state = {f"variable {name}": value for name, value in os.environ.items()}
    state |= {
        "directory": os.getcwd(), "files": os.listdir(), "random": random.getstate(),
        "threads": threading.active_count(), "filters": list(map(str, warnings.filters)), "path": list(sys.path),
        "log handlers": list(map(str, logging.getLogger().handlers)), "log level": logging.getLogger().level,
        "interrupt": str(signal.getsignal(signal.SIGINT)), "terminate": str(signal.getsignal(signal.SIGTERM)),
        "hook": str(sys.excepthook),
    }
    if "torch" in sys.argv:
        import numpy, torch
        state |= {
            "torch threads": torch.get_num_threads(), "torch dtype": str(torch.get_default_dtype()),
            "torch random": torch.get_rng_state().tolist(), "numpy random": str(numpy.random.get_state()),
            "gradients": torch.is_grad_enabled(), "deterministic": torch.are_deterministic_algorithms_enabled(),
        }
    return state

before = world()
import rldistill
if sys.argv[1] == "everything":
    import importlib, pkgutil
    for module in pkgutil.walk_packages(rldistill.__path__, "rldistill."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
after = world()
changed = [key for key in before | after if key not in before or key not in after or before[key] != after[key]]
print(json.dumps({"changed": changed, "modules": sorted(name.partition(".")[0] for name in sys.modules)}))
"""


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    # A bare environment: this process has imported the package, and may have caught from it what we look for.
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "OMP_NUM_THREADS") if name in os.environ}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)


def import_everything() -> list[ModuleType]:
    names = [module.name for module in pkgutil.walk_packages(rldistill.__path__, "rldistill.")]
    return [importlib.import_module(name) for name in names if not name.endswith("__main__")]


def public_functions() -> dict[str, object]:
    public = {name: getattr(rldistill, name) for name in rldistill.__all__}
    return {name: value for name, value in public.items() if inspect.isfunction(value)}


def test_importing_the_package_is_cheap_and_changes_nothing():
    completed = run_python("-W", "error", "-c", WORLD_SCRIPT, "package")
    assert (completed.returncode, completed.stderr) == (0, "")
    world = json.loads(completed.stdout)  # would fail if the import printed anything
    assert world["changed"] == []
    assert HEAVY_MODULES.isdisjoint(world["modules"])


def test_importing_every_module_changes_nothing():
    libraries = ["torch", "numpy", "scipy.stats", "gymnasium", "ale_py", "blosc2", "rich.progress", "tyro"]
    completed = run_python("-W", "error", "-c", WORLD_SCRIPT, "everything", *libraries)
    assert (completed.returncode, completed.stderr) == (0, "")
    assert json.loads(completed.stdout)["changed"] == []


@pytest.mark.parametrize("verb", [None, *VERBS])
def test_help_answers_without_importing_a_heavy_library(verb):
    completed = run_python("-X", "importtime", "-m", "rldistill", *([verb] if verb else []), "--help")
    assert completed.returncode == 0, completed.stderr[-2000:]
    assert "usage: rldistill" in completed.stdout
    # Lines of -X importtime: `import time: self [us] | cumulative | imported package`.
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in completed.stderr.splitlines()}
    assert "rldistill" in imported, "no import times on stderr: this test would see nothing"
    assert HEAVY_MODULES.isdisjoint(imported)


def test_help_lists_every_verb():
    completed = run_python("-m", "rldistill", "--help")
    assert [verb for verb in VERBS if verb not in completed.stdout] == []


def test_the_public_face_has_the_names_of_the_contract():
    assert {
        "load_policy",
        "train_teacher",
        "collect",
        "distill",
        "evaluate",
        "export",
        "reproduce",
    } <= public_functions().keys()


def test_public_names_survive_the_import_of_every_module():
    before = {name: getattr(rldistill, name) for name in rldistill.__all__}
    import_everything()
    after = {name: getattr(rldistill, name) for name in rldistill.__all__}
    assert before == after


def test_no_module_bears_a_public_name():
    # `import rldistill.collect` would put the module where the function was.
    modules = {module.__name__.partition(".")[2] for module in import_everything()}
    assert modules & set(rldistill.__all__) == set()


@pytest.mark.parametrize("name", rldistill.__all__)
def test_a_public_function_can_be_called_twice_after_every_import(name):
    import_everything()
    for _ in range(2):
        public = getattr(rldistill, name)
        assert callable(public)
        if inspect.isfunction(public):
            # Each needs at least one argument, and says so only if it is still a function.
            with pytest.raises(TypeError, match="missing a required"):
                inspect.signature(public).bind()
            with pytest.raises(TypeError, match=rf"{name}\(\) missing \d+ required"):
                public()


@pytest.mark.parametrize("name", [name for name in rldistill.__all__ if name.islower()])
def test_the_docstring_of_a_public_function_names_its_own_arguments_first_and_what_it_returns(name):
    function = public_functions()[name]
    first, *_ = inspect.signature(function).parameters
    text = inspect.getdoc(function)
    assert f"\n\nArgs:\n    {first}: " in text
    assert text.index("\n\nArgs:") < text.index("\n\nReturns:") < text.index("\n\nRaises:")


def test_a_signature_shows_what_python_takes_besides_what_can_be_typed():
    parameters = inspect.signature(rldistill.load_policy).parameters
    assert (parameters["source"].annotation, parameters["task"].annotation) == ("PolicySource", "TaskLike | None")
    assert inspect.signature(rldistill.distill).parameters["source"].annotation == "Source | Several"


@pytest.mark.parametrize("work", ["rldistill.load_policy(sys.argv[1])", "describe(sys.argv[1])"])
def test_reading_a_policy_does_not_pay_for_the_compiler_of_torch(work):
    # A second of every verb: torch._dynamo comes with numbers drawn on the meta device, and with torch's own counter.
    script = "import sys, rldistill; from rldistill.inspection.describe import describe; "
    script += f"{work}; print('torch._dynamo' in sys.modules)"
    ran = run_python("-c", script, str(ZOO / "pong.safetensors"))
    assert (ran.returncode, ran.stdout.strip()) == (0, "False"), ran.stderr


def test_loading_a_policy_pays_neither_for_blocks_nor_for_draws():
    modules = {"blosc2", "scipy.special"}
    script = f"import sys, rldistill; rldistill.load_policy(sys.argv[1]); print({modules} & set(sys.modules))"
    ran = run_python("-c", script, str(ZOO / "pong.safetensors"))
    assert (ran.returncode, ran.stdout.strip()) == (0, "set()"), ran.stderr
