# ruff: noqa: ANN001, ANN202, ANN204
"""Make the small files of other libraries that the tests read: a file, and what the library answers to rows.

    python scripts/foreign_fixtures.py rl_games tests/adapters/fixtures

It runs where that library is installed (an environment of its own: none is among this package's extras), and writes
`LIBRARY_NAME.pt` (flax: `.cleanrl_model`) with `LIBRARY_NAME.npz`: `observations` `[B, …]`, `outputs` `[B, O]` as
`PolicyOutput.raw` has them, and the greedy `actions` where the library maps them. The files in the folder were made by
rl_games 1.6.5, skrl 1.4.3 and 2.1.1 (`skrl1_…` and `skrl2_…`), and flax, on the task's box of ±2.
"""

import sys
from pathlib import Path

import numpy as np
import torch

NUM_ACTIONS, NUM_INPUTS, BOUND = 2, 4, 2.0
ROWS = 3 * torch.randn(64, NUM_INPUTS, generator=torch.Generator().manual_seed(0))
STATISTICS = torch.tensor([0.5, -1.0, 0.0, 2.0]), torch.tensor([1.0, 0.25, 4.0, 1e-4])


def write(folder: Path, name: str, content: object, **arrays: torch.Tensor) -> None:
    torch.save(content, folder / f"{name}.pt")
    np.savez_compressed(
        folder / f"{name}.npz", observations=ROWS, **{key: each.detach() for key, each in arrays.items()}
    )


def randomise(module: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / 2


def rl_games(folder: Path) -> None:
    from rl_games.algos_torch import model_builder, players

    spaces = {
        "continuous": {
            "mu_activation": "None",
            "sigma_activation": "None",
            "mu_init": {"name": "default"},
            "sigma_init": {"name": "const_initializer", "val": 0},
            "fixed_sigma": True,
        },
        "discrete": {},
    }
    for kind, model in (("continuous", "continuous_a2c_logstd"), ("discrete", "discrete_a2c")):
        mlp = {"units": [8, 6], "activation": "elu", "initializer": {"name": "default"}}
        network = {"name": "actor_critic", "separate": kind == "discrete", "space": {kind: spaces[kind]}, "mlp": mlp}
        builder = model_builder.ModelBuilder().load({"model": {"name": model}, "network": network})
        sizes = {"actions_num": NUM_ACTIONS, "input_shape": (NUM_INPUTS,), "num_seqs": 1, "value_size": 1}
        net = builder.build({**sizes, "normalize_value": True, "normalize_input": True}).eval()
        randomise(net)
        net.running_mean_std.running_mean[:], net.running_mean_std.running_var[:] = STATISTICS
        content = {"model": net.state_dict(), "epoch": 3, "optimizer": {"state": {}}}
        content["last_mean_rewards"] = np.float32(1.5)
        answer = net({"is_train": False, "obs": ROWS.clone()})
        if kind == "discrete":
            # The model itself gives the logarithms of the chances.
            logits = net.a2c_network({"obs": net.norm_obs(ROWS.clone())})[0]
            assert torch.allclose(logits.log_softmax(1), answer["logits"], atol=1e-5)
            write(folder, "rl_games_discrete", content, outputs=logits)
            continue
        low, high = torch.full((NUM_ACTIONS,), -BOUND), torch.full((NUM_ACTIONS,), BOUND)
        actions = players.rescale_actions(low, high, answer["mus"].clamp(-1, 1))
        # In the task's units, as the player's actions are.
        outputs = torch.cat([BOUND * answer["mus"], (BOUND * answer["sigmas"]).log()], dim=1)
        write(folder, "rl_games_continuous", content, outputs=outputs, actions=actions)


def skrl(folder: Path) -> None:
    import gymnasium
    from skrl import __version__ as version
    from skrl.resources.preprocessors.torch import RunningStandardScaler
    from skrl.utils.model_instantiators.torch import categorical_model, gaussian_model, shared_model

    is_new = not version.startswith("1.")
    name = f"skrl{version[0]}"
    seen = gymnasium.spaces.Box(-np.inf, np.inf, (NUM_INPUTS,))
    box = gymnasium.spaces.Box(-BOUND, BOUND, (NUM_ACTIONS,))
    network = [{"name": "net", "input": "OBSERVATIONS" if is_new else "STATES", "layers": [8, 6], "activations": "elu"}]
    more = {"state_space": seen} if is_new else {}
    shared = {"observation_space": seen, "device": "cpu", **more}
    one = {"network": network, "clip_actions": False}
    kwargs = {"structure": ["GaussianMixin", "DeterministicMixin"], "roles": ["policy", "value"]}
    policies = {
        "gaussian": gaussian_model(action_space=box, network=network, output="ACTIONS", **shared),
        "shared": shared_model(
            action_space=box, parameters=[{**one, "output": "ACTIONS"}, {**one, "output": "ONE"}], **kwargs, **shared
        ),
        "categorical": categorical_model(
            action_space=gymnasium.spaces.Discrete(NUM_ACTIONS), network=network, output="ACTIONS", **shared
        ),
    }
    scaler = RunningStandardScaler(size=NUM_INPUTS, device="cpu")
    scaler.running_mean[:], scaler.running_variance[:] = STATISTICS
    rows = scaler(ROWS)
    for kind, policy in policies.items():
        for role in ("policy", "value")[: 1 + (kind == "shared")]:
            policy.init_state_dict(role=role)
        randomise(policy)
        place = "observation_preprocessor" if is_new else "state_preprocessor"
        content = {"policy": policy.state_dict(), "value": policy.state_dict(), place: scaler.state_dict()}
        answer = policy.compute({"observations" if is_new else "states": rows}, role="policy")[0]
        if kind != "categorical":
            answer = torch.cat([answer, policy.log_std_parameter.expand_as(answer)], dim=1)
        write(folder, f"{name}_{kind}", {**content, "optimizer": {"state": {}}}, outputs=answer)


def flax(folder: Path) -> None:
    import flax.linen as nn
    import jax
    from flax.serialization import to_bytes

    rng = np.random.default_rng(0)

    class Dense(nn.Module):
        sizes: tuple[int, ...]

        @nn.compact
        def __call__(self, x):
            for size in self.sizes[:-1]:
                x = nn.relu(nn.Dense(size)(x))
            return nn.Dense(self.sizes[-1])(x)

    class Convolutions(nn.Module):
        """Thinner than CleanRL's."""

        @nn.compact
        def __call__(self, x):
            x = jax.numpy.transpose(x, (0, 2, 3, 1)) / 255.0
            for size, kernel, stride in ((4, 8, 4), (8, 4, 2), (6, 3, 1)):
                x = nn.relu(nn.Conv(size, (kernel, kernel), (stride, stride), padding="VALID")(x))
            return nn.relu(nn.Dense(10)(x.reshape((x.shape[0], -1))))

    def made(module, rows):
        parameters = module.init(jax.random.PRNGKey(0), rows)
        return jax.tree.map(lambda each: rng.normal(size=each.shape).astype(np.float32) / 4, parameters)

    def save(name, content, outputs, observations):
        (folder / f"{name}.cleanrl_model").write_bytes(to_bytes(content))
        arrays = {"observations": observations, "outputs": np.asarray(outputs)}
        np.savez_compressed(folder / f"{name}.npz", **arrays)

    rows = ROWS.numpy()
    module = Dense((8, 6, NUM_ACTIONS))
    q = made(module, rows)
    save("flax_dqn", q, module.apply(q, rows), rows)
    save("flax_td3", [q, q, q], BOUND * np.tanh(module.apply(q, rows)), rows)
    wide, atoms = Dense((8, 6, NUM_ACTIONS * 5)), np.linspace(-3, 3, 5)
    weights = made(wide, rows)
    chances = jax.nn.softmax(wide.apply(weights, rows).reshape(len(rows), NUM_ACTIONS, 5), axis=-1)
    args = {"n_atoms": 5, "v_min": -3.0, "v_max": 3.0, "env_id": "CartPole-v1"}
    save("flax_c51", {"model_weights": weights, "args": args}, (chances * atoms).sum(-1), rows)
    images = np.where(rng.random((8, 4, 84, 84)) < 0.02, 200, 0).astype(np.uint8)
    torso, actor = Convolutions(), Dense((NUM_ACTIONS,))
    base = made(torso, images)
    features = torso.apply(base, images)
    head, critic = made(actor, features), made(Dense((1,)), features)
    save("flax_ppo_atari", [{"seed": 1}, [base, head, critic]], actor.apply(head, features), images)


if __name__ == "__main__":
    {"rl_games": rl_games, "skrl": skrl, "flax": flax}[sys.argv[1]](Path(sys.argv[2]))
