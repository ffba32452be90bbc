"""Find the smallest student that keeps its teacher's skill."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from rldistill.envs.make import options_of
from rldistill.errors import UsageError
from rldistill.events import StopRequestedError
from rldistill.loading.named import PolicyLike, as_named, files_of, path_of, policy_name, task_name
from rldistill.loading.several import choose_text
from rldistill.options.declaration import verb
from rldistill.options.shared import recorded
from rldistill.options.shrink import ShrinkOptions
from rldistill.rollout.threads import use_threads
from rldistill.session.interrupts import stop_on_interrupt
from rldistill.session.machine import resolve_machine
from rldistill.session.run_folder import check_configured, configured_run, earlier_run, keep_inputs
from rldistill.verbs.shrink_records import RECORDS_FILE, Shrunk
from rldistill.verbs.shrink_search import Search


@verb(ShrinkOptions)
def shrink(options: ShrinkOptions) -> Shrunk:
    """Find the smallest student that keeps a share of its teacher's skill, prove it on fresh episodes, and write it.

    Returns:
        What the search found: `student`, `held` (whether it was proved to keep the share), `verdict`, `keep`, `trials`,
        `proofs`, `out`; `print` shows the table, `to_dict()` is the JSON.

    Raises:
        UsageError: an option is out of range.
        MismatchError: teacher and task do not fit, or the teacher plays no better than random play.
        OutputExistsError: `out` holds something and neither `resume` nor `overwrite` was given.
        KeyboardInterrupt: stopped; what was tried is kept, and `resume` goes on.
    """
    options, named, out = _resolved(options)
    begun = earlier_run(out, resume=options.resume, overwrite=options.overwrite)
    # Playing with every size is cheap beside learning it: nothing is lost by a stop but the size at hand.
    with stop_on_interrupt(options.callbacks) as listeners, use_threads(options.num_threads):
        # Before there is a folder: a teacher that cannot be read, or does not fit, leaves none behind.
        search = Search(options, named, out, listeners)
        try:
            if not (options.resume and begun):
                search.check_teacher()  # likewise
            config = _config(options, named, out)
            with configured_run(out, options, "shrink", config, may_differ=_MAY_DIFFER) as continues:
                if continues:
                    search.take_up()
                    search.check_teacher()
                return search.run()
        except StopRequestedError:
            kept = (
                "what was tried is kept. Go on with --resume." if (out / RECORDS_FILE).is_file() else "nothing is kept."
            )
            raise KeyboardInterrupt(f"stopped; {kept}") from None


def check_shrink(options: ShrinkOptions) -> ShrinkOptions:
    """Check all of a search that can be checked without playing: its teacher, its task and its folder.

    Returns:
        The options with what was left open.

    Raises:
        RldistillError: as `shrink`.
    """
    options, named, out = _resolved(options)
    check_configured(out, options, _config(options, named, out), may_differ=_MAY_DIFFER)
    search = Search(options, named, out, ())
    return replace(options, out=out, **(options_of(search.task) if options.task is None else {}))


# The teacher and the task are compared by content (`Search`).
_MAY_DIFFER = frozenset({"teacher", "task", "out", "keep", "within", "num_episodes", "num_threads", "device", "trust"})


def _resolved(options: ShrinkOptions) -> tuple[ShrinkOptions, PolicyLike, Path]:
    """Fill in what depends on the machine, and name the teacher and the folder, which must not hold the teacher."""
    options = resolve_machine(options)
    named = as_named(options.teacher, options, options.choose)
    out = Path(options.out) if options.out is not None else _default_out(named)
    keep_inputs(out, files_of([named]), overwrite=options.overwrite)
    return options, named, out


def _config(options: ShrinkOptions, named: PolicyLike, out: Path) -> dict[str, Any]:
    task = None if options.task is None else task_name(options.task)
    said = {"teacher": policy_name(named), "out": str(out), "task": task, "choose": choose_text(options.choose)}
    return recorded(options) | said


def _default_out(named: PolicyLike) -> Path:
    path = path_of(named)
    if path is None:
        raise UsageError("out: expected a folder: only the file of a single teacher has a name for one.")
    name = path.resolve().stem if path.suffix else path.resolve().name
    out = Path("runs") / name
    if out.resolve() in (path.resolve(), path.resolve().parent):
        raise UsageError(f"--out is missing: {out}, the default, is the teacher's own folder. Name another one.")
    return out
