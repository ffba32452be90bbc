# ruff: noqa: ANN001, ANN202, ANN204
"""Make the small files of other libraries that the tests read: a file, and what the library answers to rows.

    python scripts/foreign_fixtures.py rl_games tests/adapters/fixtures

It runs where that library is installed (an environment of its own: none is among this package's extras), and writes
`LIBRARY_NAME.pt` (flax: `.cleanrl_model`) with `LIBRARY_NAME.npz`: `observations` `[B, …]`, `outputs` `[B, O]` as
`PolicyOutput.raw` has them, and the greedy `actions` where the library maps them. The files in the folder were made by
rl_games 1.6.5, skrl 1.4.3 and 2.1.1 (`skrl1_…` and `skrl2_…`), and flax, on the task's box of ±2.

Policies with a memory (rsl_rl 2.3.3, 3.3.0, 4.0.1 and 5.5.0: `rsl_rl2_…` and so on, of 5.5.0 also what it exports) play
steps of several environments, `observations` `[T, B, …]` and `outputs` `[T, B, O]`; `starts` `[T, B]` says where an
episode begins.
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


NUM_STEPS, NUM_ENVS = 10, 3
STEPS = 3 * torch.randn(NUM_STEPS, NUM_ENVS, NUM_INPUTS, generator=torch.Generator().manual_seed(0))
STARTS = torch.zeros(NUM_STEPS, NUM_ENVS, dtype=torch.bool)
STARTS[0], STARTS[4, 1], STARTS[7, :2] = True, True, True


@torch.no_grad()
def play(answer, reset) -> torch.Tensor:
    """Return what a policy with a memory answers, `[T, B, O]`; `reset` gets where episodes end before a step."""
    outputs = []
    for step, (rows, starts) in enumerate(zip(STEPS, STARTS, strict=True)):
        if step:
            reset(starts.long())
        outputs.append(answer(rows.clone()))
    return torch.stack(outputs)


def rsl_rl(folder: Path) -> None:
    import importlib.metadata

    major = importlib.metadata.version("rsl-rl-lib").partition(".")[0]
    for kind, num_layers in (("lstm", 2), ("gru", 1)):
        memory = {"rnn_type": kind, "rnn_hidden_dim": 5, "rnn_num_layers": num_layers}
        if major == "2":
            actor, answer, content = _rsl_rl2(memory)
        else:
            actor, answer, content = _rsl_rl3(memory) if major == "3" else _rsl_rl5(memory, major)
        randomise(actor)
        if normalizer := [each for each in actor.modules() if type(each).__name__ == "EmpiricalNormalization"]:
            mean, variance = (each[None] for each in STATISTICS)
            normalizer[0]._mean[:], normalizer[0]._var[:], normalizer[0]._std[:] = mean, variance, variance.sqrt()
        name, arrays = f"rsl_rl{major}_{kind}", {"observations": STEPS, "starts": STARTS}
        outputs = play(answer, actor.reset)
        np.savez_compressed(folder / f"{name}.npz", outputs=outputs, **arrays)
        torch.save(content(), folder / f"{name}.pt")
        if major == "5":  # its exports act by the mean alone
            np.savez_compressed(folder / f"{name}_export.npz", outputs=outputs[..., :NUM_ACTIONS], **arrays)
            torch.jit.script(actor.as_jit().eval()).save(folder / f"{name}_export.jit")
            exported = actor.as_onnx().eval()
            names = {"input_names": exported.input_names, "output_names": exported.output_names}
            place = folder / f"{name}_export.onnx"
            torch.onnx.export(exported, exported.get_dummy_inputs(), place, opset_version=18, dynamo=False, **names)


def _with_std(mean, std):
    return torch.cat([mean, std.abs().log().expand_as(mean)], dim=1)


def _rsl_rl2(memory):
    from rsl_rl.modules import ActorCriticRecurrent

    hidden = {"actor_hidden_dims": [8, 6], "critic_hidden_dims": [3]}
    actor = ActorCriticRecurrent(NUM_INPUTS, NUM_INPUTS, NUM_ACTIONS, **hidden, **memory).eval()
    content = {"optimizer_state_dict": {"state": {}}, "iter": 3, "infos": None}
    return (
        actor,
        lambda rows: _with_std(actor.act_inference(rows), actor.std),
        lambda: {"model_state_dict": actor.state_dict(), **content},
    )


def _rsl_rl3(memory):
    from rsl_rl.modules import ActorCriticRecurrent
    from tensordict import TensorDict

    seen, groups = TensorDict({"policy": STEPS[0]}, NUM_ENVS), {"policy": ["policy"], "critic": ["policy"]}
    hidden = {"actor_hidden_dims": [8, 6], "critic_hidden_dims": [3]}
    actor = ActorCriticRecurrent(seen, groups, NUM_ACTIONS, actor_obs_normalization=True, **hidden, **memory).eval()
    return (
        actor,
        lambda rows: _with_std(actor.act_inference(TensorDict({"policy": rows}, NUM_ENVS)), actor.std),
        lambda: {"model_state_dict": actor.state_dict(), "iter": 3, "infos": None},
    )


def _rsl_rl5(memory, major):
    from rsl_rl.models import RNNModel
    from tensordict import TensorDict

    seen, groups = TensorDict({"policy": STEPS[0]}, NUM_ENVS), {"actor": ["policy"], "critic": ["policy"]}
    spread = {"stochastic": True} if major == "4" else {"distribution_cfg": {"class_name": "GaussianDistribution"}}
    made = {"hidden_dims": [8, 6], "obs_normalization": True, **memory}
    actor = RNNModel(seen, groups, "actor", NUM_ACTIONS, **spread, **made).eval()
    critic = RNNModel(seen, groups, "critic", 1, **made)
    std = actor.std if major == "4" else actor.distribution.std_param
    return (
        actor,
        lambda rows: _with_std(actor(TensorDict({"policy": rows}, NUM_ENVS)), std),
        lambda: {"actor_state_dict": actor.state_dict(), "critic_state_dict": critic.state_dict(), "iter": 3},
    )


if __name__ == "__main__":
    {"rl_games": rl_games, "skrl": skrl, "flax": flax, "rsl_rl": rsl_rl}[sys.argv[1]](Path(sys.argv[2]))
