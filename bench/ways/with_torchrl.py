"""torchrl: `BCLoss` on a replay buffer in memory; it learns the teacher's actions, not its distribution."""

from collections.abc import Iterator

import torch
from sb3_teacher import Labelling, load
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.modules import MLP
from torchrl.objectives import BCLoss
from way import BATCH_SIZE, BUDGETS, HIDDEN, LEARNING_RATE, Trained, make, serve, stored


def network_of(num_inputs: int, num_outputs: int) -> MLP:
    return MLP(num_inputs, num_outputs, num_cells=list(HIDDEN), activation_class=torch.nn.ReLU)


def training(
    network: MLP, observations: torch.Tensor, actions: torch.Tensor, batch_size: int, *, is_box: bool
) -> Iterator[None]:
    actor = TensorDictModule(network, ["observation"], ["action"])
    loss = BCLoss(actor, loss_function="l2" if is_box else "cross_entropy")
    replay = TensorDictReplayBuffer(storage=LazyTensorStorage(len(observations)), batch_size=batch_size)
    replay.extend(TensorDict({"observation": observations, "action": actions}, batch_size=[len(observations)]))
    optimizer = torch.optim.Adam(loss.parameters(), lr=LEARNING_RATE)
    while True:
        optimizer.zero_grad()
        loss(replay.sample())["loss_bc"].backward()
        optimizer.step()
        yield


def updates(batch_size: int) -> Iterator[None]:
    arrays = stored()
    observations, actions = torch.from_numpy(arrays["observations"]), torch.from_numpy(arrays["actions"])
    return training(network_of(8, 4), observations, actions, batch_size, is_box=False)


def student(task: str, seed: int) -> Trained:
    labelling, is_box = Labelling(load(task), task, seed), task == "Pendulum-v1"
    for num_steps, num_updates in BUDGETS:
        observations, labels = labelling.until(num_steps)
        torch.manual_seed(seed)
        network = network_of(observations.shape[1], labels.shape[1])
        loop = training(network, observations, labels if is_box else labels.argmax(dim=1), BATCH_SIZE, is_box=is_box)
        for _ in range(num_updates):
            next(loop)

        @torch.no_grad()
        def decide(observations, network=network):
            outputs = network(torch.from_numpy(observations)).numpy()
            return outputs.clip(-2, 2) if is_box else outputs.argmax(axis=1)

        yield len(observations), decide


def decide_once():
    actor = TensorDictModule(network_of(8, 4), ["observation"], ["logits"])
    observation, _ = make("LunarLander-v3").reset(seed=0)

    @torch.no_grad()
    def decide():
        return actor(TensorDict({"observation": torch.from_numpy(observation)}, batch_size=[]))["logits"].argmax()

    return decide


if __name__ == "__main__":
    serve(updates=updates, decide_once=decide_once, student=student)
