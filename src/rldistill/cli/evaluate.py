"""`rldistill evaluate`."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rldistill.cli.options import Flags, read_options, repeated_teachers
from rldistill.cli.output import write_options, write_result
from rldistill.cli.stdout import write_out
from rldistill.errors import MAX_MESSAGE, RldistillError, printable
from rldistill.options.evaluate import EvaluateOptions

if TYPE_CHECKING:
    from rldistill.evaluation.records import Evaluation
    from rldistill.tasks import Task

_EXAMPLE = "rldistill evaluate runs/pong-net3 --teacher zoo/pong.safetensors --num-episodes 30"


def run(argv: Sequence[str]) -> None:
    """Compare policies."""
    given = read_options(
        "evaluate",
        [EvaluateOptions],
        repeated_teachers(argv),
        example=_EXAMPLE,
        positional="policies",
        expected="at least one policy file or run folder",
    )
    options, flags = given.make(EvaluateOptions), given.flags
    from rldistill.cli.progress import callbacks
    from rldistill.evaluation.file import EvaluationNotWrittenError, keep_evaluation
    from rldistill.evaluation.gate import check_retention
    from rldistill.session.machine import resolve_machine
    from rldistill.session.own_files import CONFIG_FILE
    from rldistill.verbs.evaluate import evaluate_pairing, load_pairing

    options, policies = resolve_machine(options), given.values["policies"]
    is_run = options.out is None and len(policies) == 1 and (policies[0] / CONFIG_FILE).is_file()
    pairing = load_pairing(options)
    if flags.dry_run:
        write_options(_resolved(options, [playable.task for playable in pairing.playables]), flags)
        return
    try:
        with callbacks(quiet=flags.quiet) as listeners:
            result = evaluate_pairing(pairing, replace(options, callbacks=listeners))
    except EvaluationNotWrittenError as error:
        _print(error.evaluation, flags, error=error)
        raise
    if is_run and (problem := keep_evaluation(policies[0] / "evaluation.json", result)):
        sys.stderr.write(f"warning: {printable(problem, MAX_MESSAGE)}\n")
    try:
        gate = check_retention(result, options.require_retention) if options.require_retention is not None else ""
    except RldistillError as error:
        _print(result, flags, error=error)
        raise
    _print(result, flags, gate=gate)


def _resolved(options: EvaluateOptions, tasks: "Sequence[Task]") -> EvaluateOptions:
    """Return the options with the task that the files name; of several, options cannot say how each is played."""
    from rldistill.envs.make import options_of  # here: --help needs no environments

    return replace(options, **options_of(tasks[0])) if options.task is None and len(tasks) == 1 else options


def _print(result: "Evaluation", flags: Flags, *, gate: str = "", error: RldistillError | None = None) -> None:
    """Print a result, whatever came of it; its error follows, with `--json` in the same object."""
    if not flags.json:
        write_out(f"{result}\n\n{gate}\n" if gate else f"{result}\n")
    elif error is None:
        write_result(flags, result.to_dict(), "")
        sys.stderr.write(f"{gate}\n" if gate else "")
    else:
        error.result = result.to_dict()
