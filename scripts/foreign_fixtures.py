"""Make the small files of other libraries that the tests read: a checkpoint, and what the library answers to rows.

    python scripts/foreign_fixtures.py rl_games tests/adapters/fixtures

It runs where that library is installed (an environment of its own: none is among this package's extras), and writes
`LIBRARY_NAME.pt` with `LIBRARY_NAME.npz`: `observations` `[B, D]`, `outputs` `[B, O]` as `PolicyOutput.raw` has them,
and the greedy `actions` where the library maps them. The files in the folder were made with rl_games 1.6.5, skrl 1.4.3
and skrl 2.1.1 (`skrl1_…` and `skrl2_…`), on the task's box of ±2.
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


if __name__ == "__main__":
    {"rl_games": rl_games, "skrl": skrl}[sys.argv[1]](Path(sys.argv[2]))
