"""`rldistill inspect`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rldistill.cli.options import Flags, read_options
from rldistill.cli.output import plain_line, write_options, write_result
from rldistill.cli.stdout import write_out
from rldistill.errors import GateError, UsageError
from rldistill.options.declaration import option_types
from rldistill.options.inspect import InspectOptions, VerifyOptions
from rldistill.options.shared import recorded

_EXAMPLE = "rldistill inspect zoo/pong.safetensors"


def run(argv: Sequence[str]) -> None:
    """Say what something is."""
    given = read_options(
        "inspect",
        [InspectOptions, VerifyOptions],
        argv,
        example=_EXAMPLE,
        positional="target",
        expected="a policy file, a dataset folder, a run folder or a preset",
        left_out=("policy",),
    )
    options, flags = given.make(InspectOptions), given.flags
    if flags.dry_run and not options.verify:
        raise UsageError("--dry-run belongs with --verify, which plays the policy.")
    of_play = option_types(VerifyOptions).keys() - option_types(InspectOptions).keys()
    for name in () if options.verify else sorted(of_play & given.values.keys()):
        raise UsageError(f"{name} belongs with --verify, which plays the policy.")
    if options.against is not None:
        _compare(options, flags)
        return
    from rldistill.inspection.describe import describe
    from rldistill.loading.named import as_named

    file = as_named(Path(options.target), options)
    verified = given.make(VerifyOptions, policy=file)
    if flags.dry_run:
        from rldistill.session.machine import resolve_machine

        write_options({**recorded(resolve_machine(verified)), **recorded(options), "policy": None}, flags)
        return
    description = describe(
        options.target,
        heads=options.head_sizes,
        reading=options.as_reading(),
        task=options.task,
        env_kwargs=options.env_kwargs or {},
        sees=verified.teacher_sees,
        names=verified.names,
    )
    if options.verify:
        _verify(verified, options.target, flags, description)
    elif flags.json:
        write_result(flags, description, "")
    else:
        # What was asked for is the result, not progress: it belongs on stdout in words, too.
        from rldistill.cli.description import description_text  # tables need torch, which --help has no time for

        write_out(description_text(description, full=options.full))


def _compare(options: InspectOptions, flags: Flags) -> None:
    """Print how two contracts differ; what was asked for stands on stdout, also where it becomes an error."""
    from rldistill.inspection.against import compare_contracts

    assert options.against is not None, "asked for where it is given"
    found = compare_contracts(Path(options.target), Path(options.against), options.as_reading(), options.task)
    lines: list[str] = found["differences"]
    if not flags.json:
        write_out("".join(f"{plain_line(line)}\n" for line in lines) or "no difference\n")
    if lines:
        error = GateError(f"{options.target} and {options.against} differ in {len(lines)} places.")
        error.result = found
        raise error
    if flags.json:
        write_result(flags, found, "")


def _verify(options: VerifyOptions, target: str, flags: Flags, description: dict[str, Any]) -> None:
    """Play the policy; the result is printed before a gap becomes an error."""
    from rldistill.cli.description import verification_text
    from rldistill.cli.progress import callbacks
    from rldistill.verbs.verification import check_verified, verify

    if description["kind"] not in ("policy", "program"):
        raise UsageError(f"--verify plays a policy: {target} is a {description['kind']}.")
    with callbacks(quiet=flags.quiet) as listeners:
        result = verify.of(replace(options, callbacks=listeners))
    found = description | {"verification": result.to_dict()}
    if not flags.json:
        write_out(verification_text(result))
    try:
        check_verified(result)
    except GateError as error:
        error.result = found  # one object with --json, the error in it
        raise
    if flags.json:
        write_result(flags, found, "")
