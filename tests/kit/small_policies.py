"""Tasks and policies that need no environment: made in a millisecond, the same every time."""

import torch

from rldistill.networks import Architecture, parse_architecture
from rldistill.policies import TorchPolicy
from rldistill.tasks import ObservationFingerprint, Protocol, Task
from rldistill.types import ActionLayout


def vector_task(num_actions: int = 3, num_inputs: int = 4, name: str = "made-up") -> Task:
    """Return a task with float vectors."""
    return Task(name, ObservationFingerprint((num_inputs,), "float32", ActionLayout.discrete(num_actions)))


def box_task(
    num_actions: int = 2,
    num_inputs: int = 4,
    name: str = "made-up",
    *,
    mapping: str = "clip",
    low: float = -1.0,
    high: float = 1.0,
) -> Task:
    """Return a task with float vectors whose actions lie in [-1, 1], or between other bounds."""
    layout = ActionLayout("box", (num_actions,), (low,) * num_actions, (high,) * num_actions, mapping)
    return Task(name, ObservationFingerprint((num_inputs,), "float32", layout))


def image_task(num_actions: int = 6, *, frame_skip: int = 4, name: str = "atari:pong") -> Task:
    """Return a task that looks like Atari, without starting an emulator."""
    fingerprint = ObservationFingerprint(
        observation_shape=(4, 84, 84),
        observation_dtype="uint8",
        action_layout=ActionLayout.discrete(num_actions),
        action_set=("NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE")[:num_actions],
        grayscale=True,
        frame_stack=4,
        stack_padding="zero",
        frame_skip=frame_skip,
        max_pool=True,
    )
    return Task(name, fingerprint, Protocol(noop_max=30, max_frames=108_000, fire_at_reset=False))


def small_policy(
    *tasks: Task, network: str | Architecture = "mlp:8", seed: int = 0, layer_norm: bool = False, **options
) -> TorchPolicy:
    """Return a policy with non-zero weights everywhere; by default for `vector_task`."""
    architecture = parse_architecture(network, layer_norm=layer_norm) if isinstance(network, str) else network
    return TorchPolicy.create(
        architecture,
        tasks or [vector_task()],
        zero_output=False,
        generator=torch.Generator().manual_seed(seed),
        **options,
    )


def beta_policy() -> TorchPolicy:
    """Return a policy whose actions are the means of Beta distributions."""
    spec = small_policy(box_task(2), output_kind="actions").with_spec(is_beta=True).spec
    return TorchPolicy.from_spec(spec, [None], zero_output=False)
