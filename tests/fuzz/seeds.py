"""Honest files of every kind, made once at the beginning: what is damaged."""

import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import torch

_YAML = {
    "args.yml": b"!!python/object/apply:collections.OrderedDict\n- - - env\n    - Pendulum-v1\n  - - algo\n    - ppo\n",
    "config.yml": (
        b"!!python/object/apply:collections.OrderedDict\n- - - frame_stack\n    - 1\n  - - normalize\n"
        b"    - 'dict(norm_obs=True)'\n  - - env_wrapper\n    - [sb3_contrib.common.wrappers.TimeFeatureWrapper]\n"
    ),
}


class Seeds:
    """A folder of honest files, `<kind>/<name>`.

    Args:
        folder: empty, or filled by an earlier `make`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._content: dict[str, bytes] = {}
        self._names: dict[str, list[str]] = {}

    def names(self, kind: str) -> list[str]:
        """Return the files of a kind, or the folders of several."""
        if kind not in self._names:
            self._names[kind] = sorted(str(path.relative_to(self.folder)) for path in (self.folder / kind).iterdir())
        return self._names[kind]

    def read(self, name: str) -> bytes:
        """Return a file's bytes."""
        if name not in self._content:
            self._content[name] = (self.folder / name).read_bytes()
        return self._content[name]

    def unpacked(self, data: bytes) -> Path:
        """Return where bytes lie as a file, for readers that want a path."""
        path = self.folder / f"scratch-{os.getpid()}"
        path.write_bytes(data)
        return path

    def beside_sb3(self) -> dict[str, bytes]:
        """Return what the zoo writes beside a zip."""
        return {"vecnormalize.pkl": self.read("normalizer/vecnormalize.pkl"), **_YAML}


def make(folder: Path) -> Seeds:
    """Write honest files of every kind into a folder."""
    for make_kind in (_policies, _checkpoints, _sb3, _normalizers, _datasets):
        make_kind(folder)
    return Seeds(folder)


def _policies(folder: Path) -> None:
    from dataclasses import replace

    from rldistill.networks import Architecture, GaussianOptions, InputNormalization, ValueAtoms
    from rldistill.policies import TorchPolicy
    from tests.kit.small_policies import box_task, image_task, small_policy, vector_task

    folder = folder / "policy"
    folder.mkdir()
    small_policy().save(folder / "mlp.safetensors")
    small_policy(vector_task(name="a"), vector_task(name="b"), network="mlp:8:4").save(folder / "heads.safetensors")
    small_policy(image_task(), network="conv:2-2-2:4").save(folder / "conv.safetensors")
    impala = Architecture("impala:2:4", "impala", (4,), (2,), kernel_sizes=(3,), strides=(8,))
    small_policy(image_task(), network=impala).save(folder / "impala.safetensors")
    for std in ("state", "state_tanh", "parameter", "gsde"):
        policy = small_policy(
            box_task(), output_kind="gaussian", behaviour="sample", gaussian=GaussianOptions(std, 2.0)
        )
        policy.save(folder / f"gaussian_{std}.safetensors")
    squashed = box_task(mapping="tanh_rescale")
    normalization = InputNormalization((0.0, 1.0, 2.0, 3.0), (1.0, 1.0, 0.5, 2.0), untouched=((0, 1),))
    small_policy(squashed, output_kind="actions", normalization=normalization).save(folder / "actions.safetensors")
    spec = replace(small_policy().spec, atoms=ValueAtoms(-1.0, 1.0, 5))
    TorchPolicy.from_spec(spec, [None]).save(folder / "atoms.safetensors")


def _checkpoints(folder: Path) -> None:
    from tests.kit import other_libraries as libraries

    folder = folder / "checkpoint"
    folder.mkdir()
    torch.manual_seed(0)
    for name, module in (
        ("q", libraries.QNetwork()),
        ("q_atari", libraries.QNetwork(atari=True)),
        ("pqn", libraries.QNetwork(norm=True)),
        ("c51", libraries.CategoricalQNetwork()),
        ("ppo", libraries.PPO()),
        ("ppo_atari", libraries.PPOAtari()),
        ("ppo_continuous", libraries.PPOContinuous()),
    ):
        torch.save(module.state_dict(), folder / f"{name}.pt")
    actor = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ELU(), torch.nn.Linear(8, 2))
    rsl_rl = {f"actor.{name}": value for name, value in actor.state_dict().items()}
    rsl_rl |= {f"critic.{name}": value for name, value in actor.state_dict().items()} | {"std": torch.ones(2)}
    optimizer = torch.optim.Adam(actor.parameters()).state_dict()
    torch.save(
        {"model_state_dict": rsl_rl, "optimizer_state_dict": optimizer, "iter": 3, "infos": None}, folder / "rsl_rl.pt"
    )
    for name in ("rl_games_continuous.pt", "skrl2_shared.pt", "flax_c51.cleanrl_model"):
        shutil.copy(Path(__file__).parents[1] / "adapters" / "fixtures" / name, folder / name)


def _sb3(folder: Path) -> None:
    import stable_baselines3 as sb3

    folder = folder / "sb3"
    folder.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"device": "cpu", "seed": 0, "policy_kwargs": {"net_arch": [4]}}
        sb3.A2C("MlpPolicy", "CartPole-v1", **options).save(folder / "a2c.zip")
        sb3.PPO("MlpPolicy", "Pendulum-v1", **options).save(folder / "ppo.zip")
        small = {"buffer_size": 10, **options}
        sb3.DQN("MlpPolicy", "CartPole-v1", **small).save(folder / "dqn.zip")
        sb3.SAC("MlpPolicy", "Pendulum-v1", **small).save(folder / "sac.zip")


def _normalizers(folder: Path) -> None:
    import gymnasium
    from safetensors.numpy import save_file
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    folder = folder / "normalizer"
    folder.mkdir()
    VecNormalize(DummyVecEnv([lambda: gymnasium.make("Pendulum-v1")])).save(str(folder / "vecnormalize.pkl"))
    arrays = {"mean": np.arange(4.0), "var": np.ones(4), "count": np.array(7.0)}
    np.savez(folder / "plain.npz", **arrays)
    np.savez_compressed(folder / "compressed.npz", **arrays)
    save_file(arrays, folder / "plain.safetensors")


def _datasets(folder: Path) -> None:
    from tests.data.made_up import make_provenance, make_provenance_of_parts, write_dataset

    folder = folder / "dataset"
    folder.mkdir()
    for name, options in (("frames", {}), ("vectors", {"vector": 5, "frame_stack": 1})):
        write_dataset(folder / name, make_provenance(**options), lengths=(40, 25, 1))
    write_dataset(folder / "parts", make_provenance_of_parts(), lengths=(40, 25, 1))
