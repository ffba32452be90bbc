"""What lies beside a zip: its normaliser, the return that was recorded with it, and how its environment was wrapped.

Layouts: RL-Zoo's (`<env>_1/<env>.zip`, `<env>_1/best_model.zip`, `<env>_1/<env>/vecnormalize.pkl`), its
published form (all in one folder), the Hugging Face hub's (`vec_normalize.pkl`, `results.json`), and
`CheckpointCallback`'s (`rl_model_1000_steps.zip`, `rl_model_vecnormalize_1000_steps.pkl`).

RL-Zoo's `config.yml` and `args.yml` say how the environment was wrapped. They hold Python tags
(`!!python/object/apply:collections.OrderedDict`) and Python source (`normalize: dict(norm_obs=True)`). Neither is
executed: that tag is read as a mapping, any other becomes a mark, and source is read only where it is a literal.
"""

import ast
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from rldistill.adapters.arrays import read_npy
from rldistill.adapters.weights import opened_archive
from rldistill.errors import PolicyFileError, first_line, install_hint, printable, shown
from rldistill.limits import YAML, BeyondLimitsError, check_tree, read_file, read_json

_NAMES = ("vecnormalize.pkl", "vec_normalize.pkl")
_CHECKPOINT = re.compile(r"(.+)_(\d+_steps)")
_RUN_NUMBER = re.compile(r"_\d+$")
_MAX_RECORD_BYTES = 16 << 20
_MOST_FRAMES = 1000
_MOST_STEPS = 1 << 40
_PYTHON_TAG = "tag:yaml.org,2002:python/"
_ORDERED_DICT = f"{_PYTHON_TAG}object/apply:collections.OrderedDict"
_TIME_FEATURE = "TimeFeatureWrapper"
ATARI_ID = re.compile(r"([A-Z]\w*)NoFrameskip-v\d")
"""Of the environments that the zoo makes of Atari games."""
ATARI_WRAPPER = "AtariWrapper"
"""What it does to an Atari game is what `atari:` tasks do."""
# What it, and the game itself, may be told, by our name; without one it stands in the zip, or concerns training alone.
_ATARI_OPTIONS = {
    "noop_max": "noop_max",
    "frame_skip": "frame_skip",
    "action_repeat_probability": "sticky_action_probability",
    "screen_size": None,
    "terminal_on_life_loss": None,
    "clip_reward": None,
}
_ATARI_KWARGS = {"repeat_action_probability": "sticky_action_probability", "full_action_space": "full_action_set"}
_MOST_SHOWN = 6
_WITHOUT_IT = "Move it away to load without it."
# What config.yml may say: how the environment was wrapped, which is read here or stands in the zip, and settings of
# training, which are of no concern to a policy: the arguments of all algorithms of Stable-Baselines3 and sb3-contrib.
_SETTING_NAMES = (
    "normalize env_wrapper vec_env_wrapper frame_stack policy policy_kwargs "
    "n_timesteps n_envs callback monitor_kwargs noise_type noise_std n_episodes_rollout create_eval_env "
    "action_noise alive_bonus_offset batch_size buffer_size cg_damping cg_max_steps clip_range clip_range_vf delta_std "
    "device ent_coef exploration_final_eps exploration_fraction exploration_initial_eps gae_lambda gamma "
    "gradient_steps learning_rate learning_starts line_search_max_iter line_search_shrinking_factor max_grad_norm "
    "n_critic_updates n_delta n_epochs n_eval_episodes n_steps n_top normalize_advantage optimize_memory_usage "
    "policy_delay prioritized_replay random_exploration replay_buffer_class replay_buffer_kwargs rms_prop_eps "
    "rollout_buffer_class rollout_buffer_kwargs sde_sample_freq seed stats_window_size sub_sampling_factor "
    "target_entropy target_kl target_noise_clip target_policy_noise target_update_interval tau tensorboard_log "
    "top_quantiles_to_drop_per_net train_freq use_rms_prop use_sde use_sde_at_warmup verbose vf_coef "
    "zero_policy"
)
# The options of the zoo's train.py, which args.yml holds.
_ARGUMENT_NAMES = (
    "algo env env_kwargs eval_env_kwargs tensorboard_log trained_agent truncate_last_trajectory n_timesteps "
    "num_threads log_interval eval_freq optimization_log_path eval_episodes n_eval_envs save_freq save_replay_buffer "
    "log_folder seed vec_env device n_trials max_total_trials optimize_hyperparameters no_optim_plots n_jobs sampler "
    "pruner n_startup_trials n_evaluations n_min_trials storage study_name verbose gym_packages hyperparams conf_file "
    "yaml_file uuid track wandb_project_name wandb_entity wandb_tags progress tags trial_id load_best "
    "load_checkpoint load_last_checkpoint"
)
_SETTINGS, _ARGUMENTS = frozenset(_SETTING_NAMES.split()), frozenset(_ARGUMENT_NAMES.split())


def folders_beside(path: Path) -> list[Path]:
    """Return the folders in which the zoo keeps what belongs to a zip, nearest first."""
    folder = path.parent
    names = dict.fromkeys((path.stem, folder.name, _RUN_NUMBER.sub("", folder.resolve().name)))
    return [folder, *(folder / name for name in names if name)]


def find_normalizer(path: Path) -> Path | None:
    """Return the normaliser that belongs to a zip, or None."""
    checkpoint = _CHECKPOINT.fullmatch(path.stem)
    own = [path.with_name(f"{path.stem}.vecnormalize.pkl")]  # of an export of ours
    if checkpoint:
        own.append(path.with_name(f"{checkpoint[1]}_vecnormalize_{checkpoint[2]}.pkl"))
    candidates = own + [folder / name for folder in folders_beside(path) for name in _NAMES]
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def recorded_return(path: Path) -> dict[str, Any] | None:
    """Return the return that was measured with a zip, where a file beside it says so, as plain JSON.

    `best_model.zip` is the best of its evaluations, any other zip is taken for the last. None where there is no such
    file or it cannot be read: the record is a hint, and never a reason to refuse a policy.
    """
    for folder in folders_beside(path):
        for name, read in (("evaluations.npz", _from_evaluations), ("results.json", _from_results)):
            file = folder / name
            if file.is_file() and file.stat().st_size <= _MAX_RECORD_BYTES:
                try:
                    record = read(file.read_bytes(), is_best=path.stem == "best_model")
                except (PolicyFileError, ValueError, SyntaxError, KeyError, TypeError, OSError, OverflowError):
                    continue
                return {**record, "file": name}
    return None


def _from_evaluations(content: bytes, *, is_best: bool) -> dict[str, Any]:
    with opened_archive(io.BytesIO(content), source="evaluations.npz") as archive:
        results = read_npy(archive.read("results.npy", most=_MAX_RECORD_BYTES)).astype(np.float64)
    if results.ndim != 2 or not results.size or not np.isfinite(results).all():
        raise ValueError("no table of returns")
    means = results.mean(axis=1)
    row = results[int(means.argmax()) if is_best else -1]
    return {
        "mean": float(row.mean()),
        "standard_deviation": float(row.std()),
        "episodes": len(row),
        "chosen": f"{'best' if is_best else 'last'} of {len(results)} evaluations",
    }


def _from_results(content: bytes, *, is_best: bool) -> dict[str, Any]:
    values: object = read_json(content)
    if not isinstance(values, Mapping):
        raise ValueError("no record")
    record = cast(Mapping[str, Any], values)
    mean, deviation = float(record["mean_reward"]), float(record["std_reward"])
    if not np.isfinite([mean, deviation]).all():
        raise ValueError("no numbers")
    return {
        "mean": mean,
        "standard_deviation": deviation,
        "episodes": int(record["n_eval_episodes"]),
        "chosen": "as its publisher reported it",
        **({"is_deterministic": greedy} if isinstance(greedy := record.get("is_deterministic"), bool) else {}),
    }


# config.yml and args.yml


@dataclass(frozen=True)
class ZooFiles:
    """What the files beside a zip say; empty where there are none."""

    environment: str | None = None  # its id
    algorithm: str | None = None  # as the zoo calls it: `ppo`
    # Given to the environment's constructor.
    environment_kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    observations_normalised: bool | None = None  # whether the teacher saw normalised observations; None: not said
    time_feature: bool = False  # whether the last input is the share of the episode that is left
    time_feature_steps: int | None = None  # the T of that feature, where it is said
    wrappers: tuple[str, ...] = ()  # other wrappers of the environment, by class name
    # How AtariWrapper and the game's own arguments set a game up, as settings of an `atari:` task.
    atari_options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    frame_stack: int = 1  # consecutive observations stacked into one
    not_understood: tuple[str, ...] = ()  # options of the files that are not known here, as `name (file)`

    @property
    def is_atari(self) -> bool:
        """Whether the teacher played Atari as the zoo wraps it."""
        return ATARI_ID.fullmatch(self.environment or "") is not None and ATARI_WRAPPER in self.wrappers


class _Opaque(str):
    """Stands for a value that only Python could have made; its text says which."""

    __slots__ = ()


def read_zoo_files(folders: list[Path]) -> ZooFiles:
    """Read `config.yml` and `args.yml` from the first folders that have them. Raises PolicyFileError: no plain YAML."""
    config, arguments = (
        next((_read_yaml(folder / name) for folder in folders if (folder / name).is_file()), None)
        for name in ("config.yml", "args.yml")
    )
    if config is None and arguments is None:
        return ZooFiles()
    config, arguments = config or {}, arguments or {}
    wrappers = _wrappers(config.get("env_wrapper")) | _wrappers(config.get("vec_env_wrapper"))
    time_options = wrappers.get(_TIME_FEATURE)
    steps = (time_options or {}).get("max_steps")
    files = ZooFiles(
        environment=_text(arguments.get("env")),
        algorithm=_text(arguments.get("algo")),
        environment_kwargs=_plain_kwargs(arguments.get("env_kwargs")),
        observations_normalised=_observations_normalised(config.get("normalize")) if config else None,
        time_feature=time_options is not None,
        time_feature_steps=steps if isinstance(steps, int) and 0 < steps < _MOST_STEPS else None,
        wrappers=tuple(name for name in wrappers if name != _TIME_FEATURE),
        frame_stack=_frame_stack(config.get("frame_stack")),
        not_understood=(*_not_understood_config(config, time_options or {}), *_not_understood_arguments(arguments)),
    )
    return _with_atari_options(files, wrappers[ATARI_WRAPPER]) if files.is_atari else files


def _with_atari_options(files: ZooFiles, of_wrapper: Mapping[str, Any]) -> ZooFiles:
    """Return the files of a game with what its arguments and its wrapper were told."""
    options, unknown = dict[str, Any](), list[str]()
    for file, what, given, names in (
        ("args.yml", "env_kwargs", files.environment_kwargs, _ATARI_KWARGS),
        ("config.yml", ATARI_WRAPPER, of_wrapper, _ATARI_OPTIONS),
    ):
        options |= {own: given[name] for name, own in names.items() if own is not None and name in given}
        unknown += _listed([f"{name} of {what}" for name in given if name not in names], file)
    return replace(files, atari_options=options, not_understood=(*files.not_understood, *unknown))


def _not_understood_config(config: Mapping[str, Any], time_options: Mapping[str, Any]) -> list[str]:
    names = [str(name) for name in config if name not in _SETTINGS]
    frame_stack, steps = config.get("frame_stack"), time_options.get("max_steps")
    if frame_stack is not None and not (isinstance(frame_stack, int) and frame_stack > 0):
        names.append("frame_stack")
    wrong_options = [str(name) for name in time_options if name not in ("max_steps", "test_mode")]
    if steps is not None and not isinstance(steps, int):
        wrong_options.append("max_steps")
    return _listed([*names, *(f"{name} of {_TIME_FEATURE}" for name in wrong_options)], "config.yml")


def _not_understood_arguments(arguments: Mapping[str, Any]) -> list[str]:
    names = [str(name) for name in arguments if name not in _ARGUMENTS]
    names += [name for name in ("env", "algo") if arguments.get(name) is not None and _text(arguments[name]) is None]
    kwargs = arguments.get("env_kwargs")
    if kwargs and not _plain_kwargs(kwargs):
        names.append("env_kwargs")
    return _listed(names, "args.yml")


def _listed(names: list[str], file: str) -> list[str]:
    shown = [f"{printable(name, 40)} ({file})" for name in names[:_MOST_SHOWN]]
    return [*shown, f"{len(names) - _MOST_SHOWN} more ({file})"] if len(names) > _MOST_SHOWN else shown


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = read_file(path, YAML.num_bytes)
    except BeyondLimitsError as error:
        raise PolicyFileError(f"{path} is refused: it {error}. {_WITHOUT_IT}") from error
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise PolicyFileError(
            f"{path} says how the teacher's environment was wrapped, and reading it needs pyyaml, which is not "
            f"installed: {install_hint('sb3')}."
        ) from error
    try:
        content = yaml.load(text, _make_loader())
        check_tree(content, YAML)  # aliases multiply
    except Exception as error:  # yaml raises almost anything for a value that its tag does not fit
        reason = f"it {error}" if isinstance(error, BeyondLimitsError) else first_line(error)
        if isinstance(error, KeyError):
            reason = f"{reason} is no value of its tag"
        raise PolicyFileError(f"{path} is not YAML of plain data: {reason}. {_WITHOUT_IT}") from error
    if not isinstance(content, dict):
        raise PolicyFileError(f"{path} holds a {type(content).__name__}, expected settings by name. {_WITHOUT_IT}")
    return cast(dict[str, Any], content)


def _make_loader() -> Any:  # noqa: ANN401 (a class that exists only where pyyaml does)
    """Return a safe loader that also reads the tags of Python, without Python."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Constructs plain data; merge keys, which can multiply, are not followed."""

        def flatten_mapping(self, node: Any) -> None:  # noqa: ANN401
            """Leave merge keys as they are: they then count as unknown."""

    def ordered_dict(loader: Any, node: Any) -> dict[Any, Any]:  # noqa: ANN401
        (pairs,) = loader.construct_sequence(node, deep=True) or ([],)
        return dict(pairs)

    def opaque(loader: Any, suffix: str, node: Any) -> _Opaque:  # noqa: ANN401
        return _Opaque(suffix)

    Loader.add_constructor(_ORDERED_DICT, ordered_dict)
    Loader.add_multi_constructor(_PYTHON_TAG, opaque)
    return Loader


def _frame_stack(value: object) -> int:
    """Return the frames in one observation; what is no number of frames stands for one."""
    if not isinstance(value, int) or value < 1:
        return 1
    if value > _MOST_FRAMES:
        raise PolicyFileError(f"config.yml: frame_stack is {shown(value)}, expected at most {_MOST_FRAMES:,}.")
    return value


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and not isinstance(value, _Opaque) and value else None


def _plain_kwargs(value: object) -> dict[str, Any]:
    """Return keyword arguments that JSON can hold; anything else is left out."""
    if not isinstance(value, dict):
        return {}
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        return {}


def _observations_normalised(value: object) -> bool:
    """Read `normalize`: a truth value, keyword arguments, or the source of either."""
    settings = _literal(value) if isinstance(value, str) else value
    if isinstance(settings, dict):
        return cast(dict[str, Any], settings).get("norm_obs", True) is not False
    return settings not in (None, False)


def _literal(text: str) -> object:
    """Return the value of a literal, of `dict(name=literal, …)`, or the text itself where it is neither."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        match tree:
            case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords):
                return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in keywords}
            case _:
                return ast.literal_eval(tree)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _wrappers(value: object) -> dict[str, dict[str, Any]]:
    """Return wrappers by class name, with their options: a path, a mapping of one path, or a list of those."""
    items = cast(list[Any], value) if isinstance(value, list) else [value]
    wrappers: dict[str, dict[str, Any]] = {}
    for item in items:
        if isinstance(item, dict):
            for path, options in cast(dict[Any, Any], item).items():
                wrappers[str(path).rpartition(".")[2]] = options if isinstance(options, dict) else {}
        elif isinstance(item, str):
            wrappers[item.rpartition(".")[2]] = {}
    return wrappers
