"""Find the verb, let it work, turn every end into an exit code.

0 done; 2 wrong usage; 1 everything else; 130 after Ctrl-C, state saved.
"""

import difflib
import errno
import importlib
import json
import os
import re
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from rldistill.cli.stdout import results_alone, take_place_of_closed
from rldistill.errors import MAX_MESSAGE, RldistillError, TeacherWarning, UsageError, printable

# Verb: module, one line of help. Modules are imported when their verb is called: `--help` stays fast.
VERBS = {
    "quickstart": ("rldistill.cli.quickstart", "a bundled Pong teacher becomes a 28 times smaller student, in minutes"),
    "shrink": ("rldistill.cli.shrink", "find the smallest student that keeps a teacher's skill, and prove it"),
    "train-teacher": ("rldistill.cli.train_teacher", "train a teacher with PQN or DQN"),
    "collect": ("rldistill.cli.collect", "let a teacher play and store what it saw, said and did"),
    "distill": ("rldistill.cli.distill", "train a student on what a teacher said"),
    "evaluate": ("rldistill.cli.evaluate", "compare policies on the same episodes, with intervals"),
    "export": ("rldistill.cli.export", "write a policy as ONNX, C, … and prove that it acts the same"),
    "reproduce": ("rldistill.cli.reproduce", "do one of the paper's experiments, to a table and a plot"),
    "inspect": ("rldistill.cli.inspect", "say what a policy file, a dataset or a preset is"),
}

# A disk behind `>` that is full, or that takes no more; or an output that is closed.
_OF_A_FULL_OUTPUT = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EBADF})
_RESUMABLE = frozenset({"train-teacher", "collect", "distill", "shrink"})
_OF_OTHER_VERBS = frozenset({"quickstart", "reproduce"})
_TRACEBACK_VARIABLE = "RLDISTILL_TRACEBACK"
_EXAMPLE = "rldistill collect zoo/pong.safetensors --num-steps 50000 --out data/pong"


def main(argv: Sequence[str] | None = None) -> None:
    """Run one verb and exit with its code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    take_place_of_closed()
    # Before torch loads: OpenMP's threads spin while they wait, and beside any other busy process
    # that makes two threads twenty times slower than one. Waiting asleep costs nothing measurable.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    with warnings.catch_warnings():
        warnings.filterwarnings("default", category=TeacherWarning)
        warnings.showwarning = _Warnings().show
        code = _exit_code(arguments)
    sys.exit(code)


def _exit_code(arguments: list[str]) -> int:
    """Run one verb and turn every end into a code, with a line that says what went wrong."""
    wants_json = "--json" in arguments
    name = arguments[0] if arguments and arguments[0] in VERBS else ""
    try:
        code = _run(arguments)
        sys.stdout.flush()  # what cannot be written is told here, not by the interpreter as it ends
        return code
    except RldistillError as error:
        if os.environ.get(_TRACEBACK_VARIABLE) and error.__cause__ is not None:
            traceback.print_exception(error)
        return _fail(name, str(error), error.exit_code, wants_json=wants_json, result=error.result)
    except BrokenPipeError:
        # The reader of stdout left (`| head`): not our failure, and nothing more can be said there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get(_TRACEBACK_VARIABLE):
            raise
        if _is_out_of_memory(error):
            what = "out of memory. Choose a smaller network, --batch-size or --num-envs"
            return _fail(name, f"{what} ({error}).", 1, wants_json=wants_json)
        if isinstance(error, OSError) and error.filename is not None:
            message = f"{error.filename} cannot be used: {error.strerror}. Check the path, and what you may do there."
            return _fail(name, message, 1, wants_json=wants_json)
        if isinstance(error, OSError) and error.errno in _OF_A_FULL_OUTPUT:
            message = f"the result cannot be written to standard output: {error.strerror}."
            return _fail(name, message, 1, wants_json=False)
        hint = f"Set {_TRACEBACK_VARIABLE}=1 to see where."
        message = f"unexpected {type(error).__name__}: {error}. {hint}"
        return _fail(name, message, 1, wants_json=wants_json)
    except KeyboardInterrupt as error:
        message = str(error)
        if not message or name in _OF_OTHER_VERBS:  # those do not know what is kept here, and how it goes on
            how = "Add --resume to go on." if name in _RESUMABLE else "Run the same command again."
            message = "interrupted." if name == "inspect" else f"interrupted; what was reported written is there. {how}"
        return _fail(name, message, 130, wants_json=wants_json)


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(_help_text())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from importlib import metadata

        sys.stdout.write(f"rldistill {metadata.version('rldistill')}\n")
        return 0
    verb = arguments[0]
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"Unknown verb: got {verb!r}, expected one of {', '.join(VERBS)}.{hint}")
    module = importlib.import_module(VERBS[verb][0])
    with results_alone():
        module.run(arguments[1:])
    return 0


def _help_text() -> str:
    """Return what `rldistill --help` prints."""
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {text}" for verb, (_, text) in VERBS.items()]
    return "\n".join(
        [
            "usage: rldistill VERB [OPTIONS]",
            "",
            "Distil trained reinforcement-learning policies and prove that the result still plays as well.",
            "",
            *lines,
            "",
            f"Example: {_EXAMPLE}",
            "`rldistill VERB --help` lists a verb's options.",
            "",
        ]
    )


class _Warnings:
    """What an adapter wants known of a policy, without the line of code that says so; each is told once."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def show(self, message: Warning | str, *_: object, **__: object) -> None:
        # Gymnasium colours its warnings, terminal or not.
        text = re.sub(r"\x1b\[[0-9;]*m", "", str(message)).removeprefix("WARN: ")
        line = f"warning: {printable(text, 2 * MAX_MESSAGE)}\n"
        if line not in self._told:
            self._told.add(line)
            sys.stderr.write(line)


def _is_out_of_memory(error: Exception) -> bool:
    """Did an allocation fail? NumPy says so by type, torch on the CPU in words alone."""
    return isinstance(error, MemoryError) or "allocate memory" in str(error) or "out of memory" in str(error)


def _fail(verb: str, message: str, code: int, *, wants_json: bool, result: Mapping[str, Any] | None = None) -> int:
    line = printable(message, MAX_MESSAGE)
    sys.stderr.write(f"rldistill{' ' * bool(verb)}{verb}: {line}\n")
    try:
        if wants_json:
            sys.stdout.write(json.dumps({**(result or {}), "error": line}, allow_nan=False) + "\n")
        sys.stdout.flush()
    except OSError:
        # Nothing more can be said there, and the line on stderr says what happened.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code
