"""`rldistill inspect`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rldistill.cli.arguments import Flags, parse, require, resolve_machine, write_configuration, write_result
from rldistill.errors import GateError, UsageError
from rldistill.verbs.config import InspectConfig, parse_options

if TYPE_CHECKING:
    from rldistill.loading.named import PolicyFile

_EXAMPLE = "rldistill inspect zoo/pong.safetensors"


def run(argv: Sequence[str]) -> None:
    """Say what something is."""
    config, flags = parse("inspect", InspectConfig, argv, example=_EXAMPLE)
    if flags.resume or flags.overwrite or (flags.dry_run and not config.verify):
        raise UsageError("inspect only reads: --resume, --overwrite and --dry-run do not apply.")
    target = require(config.target, "a policy file, a dataset folder, a run folder or a preset", _EXAMPLE)
    if flags.dry_run:
        write_configuration(resolve_machine(config), flags)
        return
    from rldistill.inspection.describe import describe
    from rldistill.loading.named import policy_file

    if config.verify and config.heads is not None:
        raise UsageError("--verify plays a policy: --heads belongs with a preset.")
    file = policy_file(Path(target), config)
    options = parse_options(config.env_kwargs)
    description = describe(target, heads=config.head_sizes, reading=file.reading, task=config.task, env_kwargs=options)
    if config.verify:
        _verify(file, config, flags, description)
    elif flags.json:
        write_result(flags, description, "")
    else:
        # What was asked for is the result, not progress: it belongs on stdout in words, too.
        from rldistill.cli.description import description_text  # tables need torch, which --help has no time for

        sys.stdout.write(description_text(description, full=config.full))


def _verify(file: "PolicyFile", config: InspectConfig, flags: Flags, description: dict[str, Any]) -> None:
    """Play the policy; the result is printed before a gap becomes an error."""
    from rldistill.cli.progress import callbacks
    from rldistill.cli.verification import verification_text
    from rldistill.verbs.verification import check_verified, verify

    if description["kind"] not in ("policy", "program"):
        raise UsageError(f"--verify plays a policy: {config.target} is a {description['kind']}.")
    config = resolve_machine(config)
    with callbacks(quiet=flags.quiet) as listeners:
        result = verify(
            file,
            config.task,
            num_episodes=config.num_episodes,
            expected_return=config.expected_return,
            expected_standard_error=config.expected_standard_error,
            seed=config.seed,
            env_kwargs=parse_options(config.env_kwargs),
            num_envs=config.num_envs,
            num_threads=config.num_threads,
            device=config.device,
            callbacks=listeners,
        )
    found = description | {"verification": result.to_dict()}
    if not flags.json:
        sys.stdout.write(verification_text(result))
    try:
        check_verified(result)
    except GateError as error:
        error.result = found  # one object with --json, the error in it
        raise
    if flags.json:
        write_result(flags, found, "")
