"""The kit of adapters: all that we load passes it, and whatever a policy may get wrong is found."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rldistill.adapters.load import load_policy
from rldistill.adapters.sb3.load import load_sb3
from rldistill.errors import MismatchError, UsageError
from rldistill.networks import InputNormalization
from rldistill.policies import files
from rldistill.tasks import ObservationFingerprint, Task
from rldistill.testing import ConformanceError, Reference, check_policy
from rldistill.types import ActionLayout, PolicyOutput
from tests.kit.other_libraries import ActorCritic, PPOContinuous, QNetwork, randomised
from tests.kit.small_policies import box_task, image_task, small_policy, vector_task

NORMALIZATION = InputNormalization((1.0, 0.0, -1.0, 5.0), (1.0, 4.0, 0.1, 9.0))


def findings(*args, **kwargs):
    with pytest.raises(ConformanceError) as caught:
        check_policy(*args, **kwargs)
    return str(caught.value).split("\n")


def choices_task(kind, *sizes):
    return Task("made-up", ObservationFingerprint((4,), "float32", ActionLayout(kind, sizes)))


# What passes

NATIVE = {
    "q_values": lambda: small_policy(),
    "logits, sampling": lambda: small_policy(output_kind="logits", behaviour="sample"),
    "images": lambda: small_policy(image_task(), network="conv:2-2-2:4"),
    "several tasks": lambda: small_policy(vector_task(3, name="a"), vector_task(2, name="b")),
    "multi_discrete": lambda: small_policy(choices_task("multi_discrete", 3, 2), output_kind="logits"),
    "multi_binary": lambda: small_policy(choices_task("multi_binary", 3), output_kind="logits", behaviour="sample"),
    "gaussian, sampling": lambda: small_policy(box_task(), output_kind="gaussian", behaviour="sample"),
    "squashed gaussian": lambda: small_policy(box_task(mapping="tanh_rescale"), output_kind="gaussian"),
    "actions": lambda: small_policy(box_task(mapping="tanh_rescale"), output_kind="actions"),
    "normalised": lambda: small_policy(normalization=NORMALIZATION),
    "a module": lambda: load_policy(randomised(QNetwork()), task=vector_task(), outputs="q_values"),
    "a function": lambda: load_policy(lambda rows: rows[:, :3], task=vector_task(), outputs="logits"),
}


@pytest.mark.parametrize("name", NATIVE)
def test_policies_of_our_own_pass(name):
    check_policy(NATIVE[name])


@pytest.mark.parametrize("count", [1, 2])
def test_few_observations_are_enough_for_a_policy_that_remembers(count):
    check_policy(lambda: small_policy(network="gru:4"), observations=np.ones((count, 4), np.float32))


def rows(count=1000):
    return np.random.default_rng(3).normal(size=(count, 4)).astype(np.float32)


CHECKPOINTS = {
    "CleanRL dqn": (QNetwork, vector_task(), None),
    "CleanRL ppo_continuous_action": (PPOContinuous, box_task(), None),
    "rsl_rl": (lambda: ActorCritic(normalised=True), box_task(), "elu"),
}


@pytest.mark.filterwarnings("ignore::rldistill.errors.TeacherWarning")
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints_pass_with_the_answers_of_their_library(tmp_path, name):
    make, task, activation = CHECKPOINTS[name]
    network, path = randomised(make()), tmp_path / "model_1.pt"
    weights = network.state_dict()
    torch.save(weights if activation is None else {"model_state_dict": weights}, path)
    with torch.inference_mode():
        reference = Reference(rows(), network(torch.from_numpy(rows())).numpy())
    check_policy(lambda: load_policy(path, task=task, activation=activation), reference=reference)


def test_an_onnx_file_passes(tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")
    pytest.importorskip("onnx", reason="needs the extra `onnx`")
    from tests.kit.onnx_files import expected, layers, mlp_model, saved

    path = saved(mlp_model(), tmp_path / "p.onnx")
    answers = expected(layers(), rows())
    reference = Reference(rows(), answers, answers.argmax(axis=1))
    check_policy(lambda: load_policy(path, task=vector_task(), outputs="q_values"), reference=reference)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_and_torch_export_pass(tmp_path):
    network = randomised(QNetwork())
    torch.jit.save(torch.jit.script(network), tmp_path / "p.pt")
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    torch.export.save(torch.export.export(network, (torch.zeros(2, 4),), dynamic_shapes=dynamic), tmp_path / "p.pt2")
    with torch.inference_mode():
        reference = Reference(rows(), network(torch.from_numpy(rows())).numpy())
    for name in ("p.pt", "p.pt2"):
        path = tmp_path / name
        options = {"task": vector_task(), "outputs": "q_values", "trust": True}
        check_policy(lambda path=path, options=options: load_policy(path, **options), reference=reference)


SHARED = [
    "a2c/Pendulum-v1/Pendulum-v1.zip",
    "ars/Walker2d-v3/Walker2d-v3.zip",
    "ddpg/LunarLanderContinuous-v2/LunarLanderContinuous-v2.zip",
    "ppo/Ant-v3/Ant-v3.zip",
    "qrdqn/Acrobot-v1/Acrobot-v1.zip",
    "tqc/MountainCarContinuous-v0/MountainCarContinuous-v0.zip",
]


@pytest.mark.parametrize("name", SHARED)
def test_published_teachers_pass(shared_teachers, name):
    check_policy(lambda: load_sb3(shared_teachers / "sb3" / name))


@pytest.mark.parametrize("algorithm", ["PPO", "SAC", "DQN"])
def test_models_of_the_real_library_pass_with_its_answers(tmp_path, algorithm):
    sb3 = pytest.importorskip("stable_baselines3")
    from tests.adapters.sb3.small_models import BOX, TORQUES, samples, train

    space = TORQUES if algorithm != "DQN" else spaces.Discrete(4)
    on_policy = {"n_steps": 12, "batch_size": 12, "n_epochs": 1}
    options = on_policy if algorithm == "PPO" else {"buffer_size": 50, "learning_starts": 5, "batch_size": 8}
    model = train(getattr(sb3, algorithm), "MlpPolicy", BOX, space, policy_kwargs={"net_arch": [16]}, **options)
    model.save(tmp_path / "model.zip")
    observations = samples(BOX, 1000)
    actions, _ = model.predict(observations, deterministic=True)
    check_policy(lambda: load_sb3(tmp_path / "model.zip"), reference=Reference(observations, actions=actions))


# What does not


class Wrapped:
    """A policy of ours, of which a test breaks one thing."""

    def __init__(self, policy=None):
        self.inner = policy or small_policy(output_kind="logits", behaviour="sample")

    name = property(lambda self: self.inner.name)
    tasks = property(lambda self: self.inner.tasks)
    output_kind = property(lambda self: self.inner.output_kind)
    behaviour = property(lambda self: self.inner.behaviour)
    hash = property(lambda self: self.inner.hash)

    def __call__(self, observations, state=None):
        return self.inner(observations, state)

    def act(self, observations, **options):
        return self.inner.act(observations, **options)

    def initial_state(self, num_envs):
        return None

    def for_task(self, name):
        self.inner.for_task(name)
        return self

    def save(self, path):
        self.inner.save(path)


class ScalesInPlace(Wrapped):
    def __call__(self, observations, state=None):
        observations *= 0.5
        return self.inner(observations, state)


class NormalisesOverTheBatch(Wrapped):
    def __call__(self, observations, state=None):
        observations = torch.as_tensor(observations)
        return self.inner(observations - observations.mean(0), state)


class DropsOut(Wrapped):
    count = 0

    def __call__(self, observations, state=None):
        DropsOut.count += 1
        output, state = self.inner(observations, state)
        return replace(output, logits=output.logits + 1e-6 * DropsOut.count), state


class ActsOnItsOwn(Wrapped):
    def act(self, observations, **options):
        return np.zeros(len(observations), np.int64), None


class ActsInFloats(Wrapped):
    def act(self, observations, **options):
        return np.zeros((len(observations), 1), np.float32), None


class ActsOutside(Wrapped):
    def act(self, observations, **options):
        return np.full(len(observations), 3), None


class DrawsGlobally(Wrapped):
    def act(self, observations, **options):
        torch.rand(1)
        return self.inner.act(observations, **options)


class DrawsTooMuch(Wrapped):
    def act(self, observations, **options):
        result = self.inner.act(observations, **options)
        if isinstance(options.get("rng"), np.random.Generator):
            options["rng"].random()
        return result


class HashOfItsAddress(Wrapped):
    count = 0

    def __init__(self):
        super().__init__()
        HashOfItsAddress.count += 1
        self.own = f"{HashOfItsAddress.count:064x}"

    hash = property(lambda self: self.own)


class ShortHash(Wrapped):
    hash = property(lambda self: "walker")


class PlaysAnything(Wrapped):
    def for_task(self, name):
        return self


class Broadcasts(Wrapped):
    def __call__(self, observations, state=None):
        return self.inner(observations[..., :4], state)


class CrashesOnShapes(Wrapped):
    def __call__(self, observations, state=None):
        if observations.shape[-1] != 4:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
        return self.inner(observations, state)


class SavesNothing(Wrapped):
    def save(self, path):
        pass


class SavesAnother(Wrapped):
    def save(self, path):
        small_policy(output_kind="logits", seed=1).save(path)


class LeavesAFile(Wrapped):
    def save(self, path):
        Path(path).write_text("half")
        raise UsageError("cannot be saved")


class CarriesGradients(Wrapped):
    def __call__(self, observations, state=None):
        output, state = self.inner(observations, state)
        return replace(output, logits=output.logits.clone().requires_grad_()), state


class AnswersInDoubles(Wrapped):
    def __call__(self, observations, state=None):
        output, state = self.inner(observations, state)
        return replace(output, logits=output.logits.double()), state


class AnswersNaN(Wrapped):
    def __call__(self, observations, state=None):
        output, state = self.inner(observations, state)
        return replace(output, logits=output.logits / 0 * 0), state


class CallsThemQValues(Wrapped):
    def __call__(self, observations, state=None):
        output, state = self.inner(observations, state)
        return PolicyOutput(output.action_layout, q_values=output.logits), state


class SaysNothing(Wrapped):
    tasks = ()


class GivesMeansOfChoices(Wrapped):
    output_kind = "gaussian"


FAULTS = {
    ScalesInPlace: "observations: they were changed in place",
    NormalisesOverTheBatch: "batches: rows answered alone differ by",
    DropsOut: "repetition: the same observations gave outputs",
    ActsOnItsOwn: "are not those that 'sample' chooses from the outputs. Use policies.choose_actions.",
    ActsInFloats: "act with ε 0: got float32 [33, 1], expected int64 [33].",
    ActsOutside: "act with ε 0: 100% of the actions lie outside their space.",
    DrawsGlobally: "randomness: global random numbers were drawn",
    DrawsTooMuch: "randomness: expected 3 uniforms drawn for each row, got another number.",
    HashOfItsAddress: "hash: loading it again gave another one",
    ShortHash: "hash: got 'walker', expected a SHA-256 in hexadecimal.",
    PlaysAnything: "for_task('a task that no policy has'): nothing was raised, expected a MismatchError.",
    Broadcasts: "observations of another shape: they were accepted, expected a MismatchError.",
    CrashesOnShapes: "observations of another shape: got RuntimeError, expected a MismatchError.",
    SavesNothing: "save: it wrote no file and raised nothing",
    SavesAnother: "save: what was saved has another hash",
    LeavesAFile: "save: it refused and left a file behind",
    CarriesGradients: "outputs: they carry a gradient",
    AnswersInDoubles: "outputs: got torch.float64, expected torch.float32.",
    AnswersNaN: "outputs: got NaN or infinity",
    CallsThemQValues: "outputs: got q_values, expected logits, which output_kind says.",
    SaysNothing: "tasks: got none, expected at least one.",
    GivesMeansOfChoices: "output_kind: got 'gaussian', expected q_values or logits of discrete actions.",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_found_and_told_in_one_line(fault):
    found = findings(fault)
    assert any(FAULTS[fault] in line for line in found), found
    assert not any("\n" in line for line in found)


def test_a_wrapped_policy_without_a_fault_passes():
    check_policy(Wrapped)


def test_all_findings_are_raised_at_once():
    class Both(PlaysAnything, ShortHash):
        pass

    with pytest.raises(ConformanceError) as caught:
        check_policy(Both)
    assert len(str(caught.value).splitlines()) >= 2


def test_loading_must_give_another_object():
    policy = small_policy()
    assert findings(lambda: policy) == ["load: it returned the same object twice, expected another one."]


def test_outputs_that_are_not_the_references_are_found():
    policy = small_policy()
    right = policy(rows())[0].raw.numpy()
    wrong = right.copy()
    wrong[::4] += 0.01
    check_policy(small_policy, reference=Reference(rows(), right))
    (line,) = findings(small_policy, reference=Reference(rows(), wrong))
    assert line.startswith("parity: 25.0% of the rows differ from the reference, by up to ")
    (line,) = findings(small_policy, reference=Reference(rows(), right[:, :2]))
    assert line == "parity: got outputs [1000, 3], expected [1000, 2]."


class AnswersNaNToTheRowsAfterTheFirst(Wrapped):
    def __call__(self, observations, state=None):
        output, state = self.inner(observations, state)
        later = torch.arange(len(observations))[:, None] >= 40
        return replace(output, logits=output.logits.masked_fill(later, torch.nan)), state


def with_one(values, number):
    changed = values.copy()
    changed[7, 1] = number
    return changed


def test_infinities_of_a_reference_are_compared_and_excuse_nothing():
    right = Wrapped()(rows())[0].raw.numpy()
    (line,) = findings(Wrapped, reference=Reference(rows(), with_one(right, -np.inf)))
    assert line.startswith("parity: 0.1% of the rows differ from the reference, by up to inf where the largest")
    (line,) = findings(Wrapped, reference=Reference(rows(), with_one(right + 1, -np.inf)))
    assert line.startswith("parity: 100.0% of the rows differ from the reference")
    (line,) = findings(Wrapped, reference=Reference(rows(), with_one(right, np.nan)))
    assert line == "parity: the reference's outputs hold NaN, expected numbers."


def test_an_action_that_is_masked_counts_as_what_it_is():
    class Masks(Wrapped):
        def __call__(self, observations, state=None):
            output, state = self.inner(observations, state)
            late = (torch.arange(len(observations)) >= 40)[:, None] & torch.tensor([False, True, False])
            return replace(output, logits=output.logits.masked_fill(late, -torch.inf)), state

    right = Masks()(rows())[0].raw.numpy()
    actions = right.argmax(axis=1)
    check_policy(Masks, reference=Reference(rows(), right, actions))
    (line,) = findings(Masks, reference=Reference(rows(), actions=(actions + 1) % 3))
    assert line == "parity: 99.9% of the greedy actions are not those of the reference, expected all."  # one is a tie


def test_answers_of_nan_to_any_row_are_found():
    right = Wrapped()(rows())[0].raw.numpy()
    for reference in (Reference(rows(), right), Reference(rows(), actions=right.argmax(axis=1))):
        (line,) = findings(AnswersNaNToTheRowsAfterTheFirst, reference=reference)
        assert line == "parity: 96.0% of the rows are answered with NaN, expected numbers."


def test_answers_of_nan_to_rows_alone_are_found():
    class AnswersNaNAlone(Wrapped):
        def __call__(self, observations, state=None):
            output, state = self.inner(observations, state)
            return replace(output, logits=output.logits * (1.0 if len(observations) > 1 else torch.nan)), state

    assert any(line.startswith("batches: rows answered alone differ by nan") for line in findings(AnswersNaNAlone))


def test_a_reference_that_compares_nothing_is_no_reference():
    (line,) = findings(small_policy, reference=Reference(rows()))
    assert line.startswith("parity: the reference has nothing to compare")
    empty = Reference(rows(0), np.zeros((0, 3), np.float32))
    assert findings(small_policy, reference=empty) == [
        "observations: got none, expected at least one row to ask about."
    ]
    (line,) = findings(small_policy, reference=empty, observations=rows(5))
    assert line.startswith("parity: the reference has nothing to compare")


@pytest.mark.parametrize("fault", [AnswersNaN, NormalisesOverTheBatch, ActsOutside])
def test_every_task_of_a_policy_is_asked(fault):
    tasks = vector_task(3, name="a"), vector_task(2, name="b")

    class OneFaultyHead(Wrapped):
        def for_task(self, name):
            chosen = self.inner.for_task(name)
            return fault(chosen) if name == "b" else Wrapped(chosen)

    def load():
        return OneFaultyHead(small_policy(*tasks, output_kind="logits", behaviour="sample"))

    found = findings(load)
    assert found
    assert all(line.startswith("b: ") for line in found), found
    assert any(FAULTS[fault] in line for line in found), found


def test_greedy_actions_count_where_the_best_two_differ():
    actions, _ = small_policy().act(rows())
    wrong = actions.copy()
    wrong[:10] = (wrong[:10] + 1) % 3
    check_policy(small_policy, reference=Reference(rows(), actions=actions))
    assert findings(small_policy, reference=Reference(rows(), actions=wrong)) == [
        "parity: 1.0% of the greedy actions are not those of the reference, expected all."
    ]


def test_equal_outputs_leave_the_choice_open():
    def undecided():
        return load_policy(lambda rows: rows[:, :3] * 0, task=vector_task(), outputs="logits")

    check_policy(undecided, reference=Reference(rows(20), actions=np.full(20, 2)))


def test_a_module_is_reloaded_where_it_is_said_how(tmp_path):
    def load():
        return load_policy(randomised(QNetwork()), task=vector_task(), outputs="q_values")

    check_policy(load, reload=lambda path: files.load_policy(path, module=QNetwork()))
    with pytest.raises(MismatchError):
        load().for_task("another")
