"""TorchScript and torch.export files: programs, run only when trusted; with a memory that their buffers hold."""

import pickle
import warnings
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from rldistill.adapters.load import load_policy
from rldistill.errors import MismatchError, PolicyFileError, TeacherWarning, UsageError
from rldistill.testing import Reference, check_policy
from rldistill.testing.parity import parity_findings
from tests.kit.small_policies import box_task, image_task, vector_task

ROWS = torch.randn(1000, 4, generator=torch.Generator().manual_seed(1))


class Actor(nn.Module):
    """As rsl_rl exports one: a normaliser and an MLP, from observations to the mean of the actions."""

    def __init__(self, num_outputs: int = 3):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("mean", torch.randn(4, generator=generator))
        self.mlp = nn.Sequential(nn.Linear(4, 8), nn.ELU(), nn.Dropout(0.5), nn.Linear(8, num_outputs))
        for parameter in self.mlp.parameters():
            nn.init.normal_(parameter, generator=generator)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return self.mlp(observations - self.mean)


class TwoOutputs(Actor):
    def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.mlp(observations - self.mean)
        return logits, logits.sum(dim=1)


class Counter(Actor):
    """Remembers how often it was called, under a name that says nothing."""

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        self.mean += 1
        return self.mlp(observations - self.mean)


class Recurrent(nn.Module):
    """As rsl_rl exports a recurrent policy: the memory is a buffer."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(4, 8)
        self.register_buffer("hidden_state", torch.zeros(1, 1, 8))
        self.register_buffer("cell_state", torch.zeros(1, 1, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, (h, c) = self.rnn(x.unsqueeze(0), (self.hidden_state, self.cell_state))
        self.hidden_state[:] = h
        self.cell_state[:] = c
        return x.squeeze(0)


def scripted(module, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would rather have its makers export them differently
        torch.jit.script(module.eval()).save(path)
    return path


def loaded(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.load(path)


def exported(module, path, *, batch=None, shape=(4,), dtype=torch.float32):
    """Export a module for a batch of any size, or of a fixed one."""
    dynamic = {0: torch.export.Dim.DYNAMIC} if batch is None else None
    rows = torch.zeros(batch or 2, *shape, dtype=dtype)
    torch.export.save(torch.export.export(module.eval(), (rows,), dynamic_shapes=(dynamic,)), path)
    return path


@pytest.fixture
def jit_path(tmp_path):
    return tmp_path / "policy.pt"


@pytest.fixture
def pt2_path(tmp_path):
    return tmp_path / "policy.pt2"


def refusal(path, error=PolicyFileError, **options):
    options = {"task": box_task(3), "outputs": "actions", "trust": True, **options}
    with pytest.raises(error) as caught:
        load_policy(path, **options)
    line = str(caught.value)
    assert "\n" not in line
    return line.replace(str(path), "FILE")


@pytest.mark.parametrize("write", [scripted, exported])
def test_actions_may_be_declared_as_parts_of_the_box(jit_path, write):
    write(Actor(), jit_path)
    task = box_task(3, low=0.0, high=10.0)
    parts = load_policy(jit_path, task=task, outputs="actions", trust=True)(ROWS[:9])[0].actions
    scaled = load_policy(jit_path, task=task, outputs="actions=rescale", trust=True)(ROWS[:9])[0].actions
    torch.testing.assert_close(scaled, 5 * (parts + 1))


def test_programs_are_not_run_unless_trusted_and_the_message_says_why(jit_path, pt2_path):
    for path, kind in ((scripted(Actor(), jit_path), "TorchScript"), (exported(Actor(), pt2_path), "torch.export")):
        assert refusal(path, trust=False) == (
            f"{kind} file FILE is a program, not data: loading it runs code that its maker wrote, with all your "
            "rights. If you trust where it came from, add --trust (Python: trust=True). A state dict, an ONNX or a "
            ".safetensors file needs no trust."
        )


@pytest.mark.parametrize("save", [scripted, exported])
def test_its_answers_are_those_of_the_module_in_evaluation(save, jit_path):
    policy = load_policy(save(Actor(), jit_path), task=box_task(3), outputs="actions", trust=True)
    with torch.no_grad():
        torch.testing.assert_close(policy(ROWS)[0].actions, Actor().eval()(ROWS))
    assert (policy.name, policy.tasks[0].name) == ("policy", "made-up")
    actions, _ = policy.act(ROWS.numpy())
    assert actions.dtype == np.float32
    assert abs(actions).max() <= 1


@pytest.mark.parametrize("save", [scripted, exported, lambda *args: exported(*args, batch=1)], ids=range(3))
def test_an_observations_answer_does_not_depend_on_its_batch_nor_on_the_call(save, jit_path):
    policy = load_policy(save(Actor(), jit_path), task=vector_task(), outputs="q_values", trust=True)
    whole = policy(ROWS[:50])[0].q_values
    assert torch.equal(policy(ROWS[9:20])[0].q_values, whole[9:20])
    assert torch.equal(policy(ROWS[:50])[0].q_values, whole)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_floats_than_float32_are_fed_what_they_take(dtype, jit_path):
    path = scripted(Actor().to(dtype), jit_path)
    policy = load_policy(path, task=vector_task(), outputs="q_values", trust=True)
    with torch.no_grad():
        expected = Actor().eval()(ROWS)
    torch.testing.assert_close(policy(ROWS)[0].q_values, expected, atol=3e-2, rtol=1e-2)


def test_several_outputs_go_by_their_positions(jit_path):
    path = scripted(TwoOutputs(), jit_path)
    assert refusal(path, UsageError, task=vector_task(), outputs="logits") == (
        "TorchScript file FILE has 2 outputs: 0 [B, 3], 1 [B]. Say which of them are its logits: --outputs logits=NAME."
    )
    policy = load_policy(path, task=vector_task(), outputs="logits=0", trust=True)
    with torch.no_grad():
        torch.testing.assert_close(policy(ROWS)[0].logits, Actor().eval()(ROWS))


def test_an_exported_program_knows_what_it_observes(pt2_path):
    policy = load_policy(exported(Actor(), pt2_path), outputs="q_values", trust=True)
    assert policy.tasks[0].fingerprint.observation_shape == (4,)
    assert refusal(pt2_path, MismatchError, task=vector_task(num_inputs=5), outputs="q_values").startswith(
        "torch.export file FILE takes observations [4], task 'made-up' gives [5]."
    )


def test_torchscript_does_not_know_what_it_observes(jit_path):
    scripted(Actor(), jit_path)
    assert refusal(jit_path, UsageError, task=None, outputs="q_values") == (
        "TorchScript file FILE does not say what it observes. Name its task: --task ID."
    )
    assert refusal(jit_path, task=vector_task(num_inputs=5)).startswith(
        "TorchScript file FILE cannot be run on observations [16, 5]: "
    )
    assert refusal(jit_path, UsageError, task=image_task()).endswith("or wants them scaled (--input-scale 1/255).")


RESETS = (
    "Export it as TorchScript with its memory in buffers, and a method reset that sets them to where an episode begins."
)


class Resettable(Recurrent):
    """Counts its steps in a buffer of whole numbers that is made anew at each, beside one that is no memory."""

    def __init__(self):
        super().__init__()
        self.register_buffer("steps", torch.zeros(1, dtype=torch.long))
        self.register_buffer("shift", torch.tensor([1.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, (h, c) = self.rnn(x.unsqueeze(0), (self.hidden_state, self.cell_state))
        self.hidden_state, self.cell_state, self.steps = h, c, self.steps + 1
        return x.squeeze(0) + self.shift / self.steps

    @torch.jit.export
    def reset_memory(self):
        self.hidden_state[:], self.cell_state[:] = 0.0, 0.0
        self.steps[:] = 0


def test_buffers_that_reset_sets_are_a_memory_of_each_environment(jit_path):
    module = Resettable()
    with torch.no_grad():
        module(torch.ones(1, 4))  # a file may hold whatever it remembered when it was saved
    policy = load_policy(scripted(module, jit_path), task=box_task(8), trust=True, outputs="actions")
    assert policy.program.num_parameters == sum(weight.numel() for weight in module.rnn.parameters()) + 1
    assert [list(part.shape) for part in policy.initial_state(3)] == [[3, 1, 1, 8], [3, 1, 1, 8], [3, 1]]
    rows = torch.randn(6, 2, 4, generator=torch.Generator().manual_seed(0))
    starts = np.zeros((6, 2), bool)
    starts[0], starts[3, 1] = True, True
    alone = [loaded(jit_path) for _ in range(2)]
    answers = []
    for seen, begins in zip(rows, starts, strict=True):
        with torch.no_grad():
            for each, begin in zip(alone, begins, strict=True):
                if begin:
                    each.reset_memory()
            answers.append(torch.cat([each(row[None]) for each, row in zip(alone, seen, strict=True)]))
    reference = Reference(rows.numpy(), torch.stack(answers).numpy(), starts=starts)
    check_policy(lambda: load_policy(jit_path, task=box_task(8), trust=True, outputs="actions"), reference=reference)


def test_the_published_humanoid_remembers(shared_teachers):
    path = shared_teachers / "robots" / "g1_motion.pt"
    if not path.exists():
        pytest.skip("the folder has no robots")
    policy = load_policy(path, task=box_task(12, 47), trust=True, outputs="actions")
    rows = torch.randn(5, 1, 47, generator=torch.Generator().manual_seed(0))
    module = loaded(path)
    with torch.no_grad():
        answers = torch.stack([module(row) for row in rows]).numpy()
    starts = np.eye(5, 1, dtype=bool)
    assert list(parity_findings(policy, Reference(rows.numpy(), answers, starts=starts))) == []
    assert policy.program.num_parameters == 31_404


def test_a_memory_that_grows_is_told_in_a_line(jit_path):
    class Growing(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", torch.zeros(1, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen = torch.cat([self.seen, x])
            return self.seen.sum(0, keepdim=True)

        @torch.jit.export
        def reset(self):
            self.seen = torch.zeros(1, 4)

    with pytest.raises(MismatchError, match=r"is to give its next state seen as \[1, 4\] .* and gave \[2, 4\]\."):
        load_policy(scripted(Growing(), jit_path), task=box_task(4), trust=True, outputs="actions")


class IsaacLab(Recurrent):
    """As Isaac Lab exports a recurrent policy: its `reset` does nothing, the real one is no method of the file."""

    @torch.jit.export
    def reset(self):
        pass


@pytest.mark.parametrize("make", [Recurrent, IsaacLab])
def test_a_memory_without_a_usable_reset_begins_as_the_file_holds_it_and_is_warned_of(make, jit_path):
    module = make()
    with torch.no_grad():
        module(torch.ones(1, 4))
    scripted(module, jit_path)
    with pytest.warns(
        TeacherWarning,
        match=r"file .* has no method reset that sets what its calls change \(hidden_state, cell_state\): each episode",
    ):
        policy = load_policy(jit_path, task=box_task(8), trust=True, outputs="actions")
    rows = torch.randn(4, 2, 4, generator=torch.Generator().manual_seed(0))
    starts = np.zeros((4, 2), bool)
    starts[0], starts[2, 1] = True, True
    alone, answers = [loaded(jit_path), loaded(jit_path)], []
    for seen, begins in zip(rows, starts, strict=True):
        alone = [loaded(jit_path) if begin else each for each, begin in zip(alone, begins, strict=True)]
        with torch.no_grad():
            answers.append(torch.cat([each(row[None]) for each, row in zip(alone, seen, strict=True)]))
    assert list(parity_findings(policy, Reference(rows.numpy(), torch.stack(answers).numpy(), starts=starts))) == []


def test_a_reset_that_does_nothing_hides_no_other(jit_path):
    class Both(Resettable):
        @torch.jit.export
        def reset(self):
            pass

    policy = load_policy(scripted(Both(), jit_path), task=box_task(8), trust=True, outputs="actions")
    assert [own.output for own in policy.program.states] == ["hidden_state", "cell_state", "steps"]


def test_without_a_task_a_program_with_a_memory_asks_for_it(jit_path):
    assert "does not say what it observes. Name its task" in refusal(
        scripted(Recurrent(), jit_path), UsageError, task=None
    )


def test_a_reset_that_takes_arguments_is_refused(jit_path):
    class Picky(Resettable):
        @torch.jit.export
        def reset_memory(self, dones: torch.Tensor):
            self.hidden_state[:] = 0.0

    assert "has a method reset or reset_memory that cannot be called: " in refusal(
        scripted(Picky(), jit_path), task=box_task(8)
    )


class Forgetful(nn.Module):
    """Recurrent, and exported without its memory: every call begins anew."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rnn(x.unsqueeze(0))[0].squeeze(0)


@pytest.mark.parametrize("save", [scripted, lambda *args: exported(*args, batch=2)], ids=["scripted", "exported"])
@pytest.mark.filterwarnings("ignore:The tensor attributes")  # torch's, of its own layer
def test_a_recurrent_layer_is_recognised_by_its_weights(save, jit_path):
    assert refusal(save(Forgetful(), jit_path)).endswith(f"file FILE is recurrent: it has rnn.weight_ih_l0. {RESETS}")


def test_a_memory_is_recognised_by_its_changing(jit_path):
    assert refusal(exported(Counter(), jit_path)).endswith(
        f"is recurrent: it carries mean from one call to the next. {RESETS}"
    )
    with pytest.warns(TeacherWarning, match=r"what its calls change \(mean\)"):
        policy = load_policy(scripted(Counter(), jit_path), task=vector_task(), trust=True, outputs="logits")
    torch.testing.assert_close(policy(ROWS[:8])[0].logits, policy(ROWS[:8])[0].logits)


@pytest.mark.parametrize("save", [scripted, exported])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_weight_that_is_no_number(save, value, jit_path):
    module = Actor()
    module.mlp[0].weight.data[0, 0] = float(value)
    assert refusal(save(module, jit_path)).endswith("weight mlp.0.weight holds NaN or infinity. Its training diverged.")


def test_dimensions_that_are_not_fixed_are_named(pt2_path):
    class Mean(nn.Module):
        def forward(self, x):
            return x.mean(dim=2)

    dims = ({0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(Mean(), (torch.zeros(2, 3, 5),), dynamic_shapes=dims)
    torch.export.save(program, pt2_path)
    assert refusal(pt2_path) == (
        "torch.export file FILE: dimension 2 of its input x is not fixed; only the batch, dimension 0, may be. Export "
        "it with the shape of the observations."
    )


def test_several_inputs_are_refused(pt2_path):
    class Sum(nn.Module):
        def forward(self, x, goal):
            return x + goal

    torch.export.save(torch.export.export(Sum(), (torch.zeros(2, 3), torch.zeros(2, 3))), pt2_path)
    assert refusal(pt2_path) == (
        "torch.export file FILE takes 2 inputs (x, goal). Policies take one: export it with its observations alone."
    )


@pytest.mark.parametrize("save", [scripted, exported])
def test_damaged_archives_are_one_line(save, jit_path):
    data = save(Actor(), jit_path).read_bytes()
    jit_path.write_bytes(data[:-100])
    assert "FILE" in refusal(jit_path)
    jit_path.write_bytes(data)
    damaged = jit_path.with_name("damaged.pt")
    with zipfile.ZipFile(jit_path) as whole, zipfile.ZipFile(damaged, "w") as part:
        for name in whole.namelist():
            if "/code/" in name or not name.endswith((".py", "model.json", "data.pkl")):
                part.writestr(name, whole.read(name))
    assert "FILE" in refusal(damaged)


class Payload:
    """What a hostile file would do when it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_hostile_pickles_in_such_archives_are_not_opened_without_trust(jit_path, tmp_path):
    victim = tmp_path / "executed"
    whole = scripted(Actor(), tmp_path / "whole.pt")
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(jit_path, "w") as hostile:
        for name in source.namelist():
            is_pickle = name.endswith("data.pkl") or name.endswith("constants.pkl")
            hostile.writestr(name, pickle.dumps(Payload(victim)) if is_pickle else source.read(name))
    assert "is a program, not data" in refusal(jit_path, trust=False)
    assert not victim.exists()
