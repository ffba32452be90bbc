"""Evaluate policies side by side: the same episodes for all, random play beside them, task by task."""

from collections.abc import Mapping
from pathlib import Path

from rldistill.envs import make_task
from rldistill.errors import UsageError
from rldistill.evaluation.file import check_out, write_evaluation
from rldistill.evaluation.gate import NO_STUDENT, check_gated, check_retention
from rldistill.evaluation.pairing import Pairing, listed, pair
from rldistill.evaluation.play import TaskPlay
from rldistill.evaluation.records import Evaluation, PolicyEvaluation
from rldistill.events import StopRequestedError, renamed, tell
from rldistill.loading.named import as_all_named, as_named
from rldistill.options.declaration import verb
from rldistill.options.evaluate import EvaluateOptions
from rldistill.rollout.threads import use_threads
from rldistill.session.interrupts import stop_on_interrupt


@verb(EvaluateOptions)
def evaluate(options: EvaluateOptions) -> Evaluation:
    """Play the same episodes with every policy, and with random play, and compare.

    A policy of several tasks is played on each of them, unless one is named: `tasks` of the result are the evaluations
    of each, as it would be alone, and `overall` are the students over all of them.

    A greedy policy on Atari without sticky actions and with ε = 0 meets at most `noop_max` different starts: each is
    then played once and reported as a census, without interval.

    Returns:
        The evaluation; `print` shows its tables. `policies` has a row for each policy, `students`, `teacher` and
        `random` are some of them: `mean`, `interval`, `retention`, `retention_interval`, `agreement`. `to_dict()` is
        the JSON.

    Raises:
        MismatchError: a policy does not fit a task, or has no head for it; a teacher fits none of them, or two fit one.
        OutputExistsError: `out` holds something other than an evaluation.
        EvaluationNotWrittenError: `out` could not be written after all; its `evaluation` is the result.
        GateError: `require_retention` is not reached; its `result` is the evaluation as JSON data.
        KeyboardInterrupt: stopped; nothing is written.
    """
    result = evaluate_pairing(load_pairing(options), options)
    if options.require_retention is not None:
        check_retention(result, options.require_retention)
    return result


def load_pairing(options: EvaluateOptions) -> Pairing:
    """Load the policies and their teachers, and make the tasks: all that is checked before anything is played.

    Raises:
        RldistillError: as `evaluate`.
    """
    given, teachers = listed(options.policies), listed(options.teacher)
    if options.choose is not None or isinstance(options.teacher, Mapping):
        teachers = [as_named(options.teacher or (), options, options.choose)]
    if options.require_retention is not None and given and set(map(_identity, given)) <= set(map(_identity, teachers)):
        raise UsageError(NO_STUDENT)
    for task in listed(options.task):
        if isinstance(task, str):
            make_task(task, options.env_kwargs)  # wrong usage whatever the files say
    files = as_all_named([*given, *teachers], options)
    pairing = pair(
        files[: len(given)],
        options.task,
        files[len(given) :],
        env_kwargs=options.env_kwargs,
        exploration_epsilon=options.exploration_epsilon,
        device=options.device,
        teacher_sees=options.teacher_sees,
        names=options.names,
    )
    if options.require_retention is not None:
        check_gated(pairing)
    return pairing


def evaluate_pairing(pairing: Pairing, options: EvaluateOptions) -> Evaluation:
    """Play what was loaded, task by task, and write the file.

    Args:
        pairing: policies, tasks and teachers.
        options: episodes, seed, environments, threads, file and callbacks.

    Raises:
        RldistillError: as `evaluate`.
    """
    out = None if options.out is None else Path(options.out)
    if out is not None:
        check_out(out)  # before an hour's play, not after it
    rows: list[PolicyEvaluation] = []
    with use_threads(options.num_threads), stop_on_interrupt(options.callbacks) as listeners:
        for reason in dict.fromkeys(filter(None, pairing.missing_teachers.values())):
            tell(listeners, f"no retention: {reason}", "warning")
        for playable in pairing.playables:
            name = playable.task.name
            # Where there are several tasks, an event names the one that it is about.
            about = {"phase": f"{{}} on {name}", "text": f"{name}: {{}}"}
            heard = [renamed(each, **about) for each in listeners] if len(pairing.playables) > 1 else listeners
            num_envs = playable.num_envs(options.num_envs, options.num_episodes)
            play = TaskPlay(playable, options.num_episodes, options.seed, num_envs, options.num_threads, heard)
            try:
                rows += play.compare(pairing.policies, pairing.teachers.get(name))
            except StopRequestedError:
                raise KeyboardInterrupt("stopped; no evaluation is written.") from None
    result = Evaluation(options.seed, tuple(rows))
    if out is not None:
        write_evaluation(out, result)
    return result


def _identity(policy: object) -> object:
    """Return what tells policies apart before they are loaded: different ones may look alike as text."""
    return str(policy) if isinstance(policy, str | Path) else id(policy)
