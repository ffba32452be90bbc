"""`rldistill evaluate`."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rldistill.cli.arguments import Flags, parse, repeated, require, resolve_machine, write_configuration, write_result
from rldistill.errors import RldistillError, UsageError
from rldistill.verbs.config import EvaluateConfig, parse_options

if TYPE_CHECKING:
    from rldistill.evaluation.records import Evaluation

_EXAMPLE = "rldistill evaluate runs/pong-net3 --teacher zoo/pong.safetensors --num-episodes 30"


def run(argv: Sequence[str]) -> None:
    """Compare policies."""
    config, flags = parse("evaluate", EvaluateConfig, repeated(argv, "--teacher"), example=_EXAMPLE)
    policies = require(config.policies or None, "at least one policy file or run folder", _EXAMPLE)
    if flags.resume or flags.overwrite:
        raise UsageError("evaluate keeps no state: --resume and --overwrite do not apply. It is repeated as a whole.")
    options = parse_options(config.env_kwargs)
    from rldistill.cli.progress import callbacks
    from rldistill.envs import make_task
    from rldistill.evaluation.file import EvaluationNotWrittenError
    from rldistill.evaluation.gate import NO_STUDENT, check_gated, check_retention
    from rldistill.evaluation.pairing import pair
    from rldistill.loading.named import policy_files
    from rldistill.verbs.evaluate import evaluate_pairing

    is_gated = config.require_retention is not None
    if is_gated and set(policies) <= set(config.teacher):
        raise UsageError(NO_STUDENT)
    for task in () if config.task is None else config.task.split(","):
        make_task(task.strip(), options)  # wrong usage whatever the files say
    config = resolve_machine(config)
    if config.out is None and len(policies) == 1 and policies[0].is_dir():
        config = replace(config, out=policies[0] / "evaluation.json")
    files = policy_files([*policies, *config.teacher], config)
    pairing = pair(
        files[: len(policies)],
        config.tasks,
        files[len(policies) :],
        env_kwargs=options,
        exploration_epsilon=config.exploration_epsilon,
        device=config.device,
    )
    if is_gated:
        check_gated(pairing)
    if flags.dry_run:
        write_configuration(config, flags)
        return
    try:
        with callbacks(quiet=flags.quiet) as listeners:
            result = evaluate_pairing(pairing, config, listeners)
    except EvaluationNotWrittenError as error:
        _print(error.evaluation, flags, error=error)
        raise
    try:
        gate = check_retention(result, config.require_retention) if config.require_retention is not None else ""
    except RldistillError as error:
        _print(result, flags, error=error)
        raise
    _print(result, flags, gate=gate)


def _print(result: "Evaluation", flags: Flags, *, gate: str = "", error: RldistillError | None = None) -> None:
    """Print a result, whatever came of it; its error follows, with `--json` in the same object."""
    if not flags.json:
        sys.stdout.write(f"{result}\n\n{gate}\n" if gate else f"{result}\n")
    elif error is None:
        write_result(flags, result.to_dict(), "")
    else:
        error.result = result.to_dict()
