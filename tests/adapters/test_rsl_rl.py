"""rsl_rl's checkpoints become Gaussian policies of ours; what a checkpoint does not say is asked for or warned of."""

import pytest
import torch
from torch import nn

from rldistill.adapters.load import load_policy
from rldistill.errors import MismatchError, PolicyFileError, TeacherWarning, UsageError
from rldistill.inspection.describe import describe
from tests.kit.other_libraries import ActorCritic, EmpiricalNormalizer, MLPModel, randomised
from tests.kit.small_policies import box_task, vector_task

ROWS = 10 * torch.randn(1000, 4, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model_1500.pt"


def old(module, **more):
    return {
        "model_state_dict": module.state_dict(),
        "optimizer_state_dict": {"state": {}},
        "iter": 3,
        "infos": None,
        **more,
    }


def new(module):
    critic = nn.Sequential(nn.Linear(4, 1)).state_dict()
    return {"actor_state_dict": module.state_dict(), "critic_state_dict": critic, "iter": 3, "infos": None}


def refusal(path, error=PolicyFileError, **options):
    options = {"task": box_task(), "activation": "elu", **options}
    with pytest.raises(error) as caught:
        load_policy(path, **options)
    line = str(caught.value)
    assert "\n" not in line
    return line.replace(str(path), "FILE")


def assert_parity(policy, reference):
    with torch.no_grad():
        expected = torch.cat([reference(part) for part in ROWS.split(16)])
    torch.testing.assert_close(policy(ROWS)[0].raw, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize(
    ("make", "content"),
    [
        (lambda: ActorCritic(), old),
        (lambda: ActorCritic(log_std=True), old),
        (lambda: ActorCritic(normalised=True), old),
        (MLPModel, new),
    ],
    ids=["std", "log std", "normalised", "version 4 and later"],
)
def test_its_answers_are_those_of_the_library(make, content, path):
    reference = randomised(make())
    torch.save(content(reference), path)
    policy = load_policy(path, task=box_task(), activation="elu")
    assert (policy.output_kind, policy.behaviour) == ("gaussian", "greedy")
    assert policy.tasks[0].fingerprint.action_layout.mapping == "clip"
    assert_parity(policy, reference)


def test_statistics_beside_the_model_are_part_of_the_policy(path, tmp_path):
    reference = randomised(ActorCritic())
    torch.save(old(reference, obs_norm_state_dict=EmpiricalNormalizer().state_dict()), path)
    policy = load_policy(path, task=box_task(), activation="elu")
    reference.actor_obs_normalizer = EmpiricalNormalizer()
    assert_parity(policy, reference)
    policy.save(tmp_path / "p.safetensors")
    assert torch.equal(load_policy(tmp_path / "p.safetensors")(ROWS)[0].raw, policy(ROWS)[0].raw)


@pytest.mark.parametrize("place", ["inside", "beside"])
def test_without_a_normaliser_its_statistics_are_left_out(path, place):
    reference = randomised(ActorCritic(normalised=place == "inside"))
    beside = {} if place == "inside" else {"obs_norm_state_dict": EmpiricalNormalizer().state_dict()}
    torch.save(old(reference, **beside), path)
    policy = load_policy(path, task=box_task(), activation="elu", normalizer="none")
    assert policy.normalization is None
    reference.actor_obs_normalizer = nn.Identity()
    assert_parity(policy, reference)
    assert policy.hash != load_policy(path, task=box_task(), activation="elu").hash


def test_the_activation_is_not_in_the_file_and_a_guess_is_a_warning(path):
    reference = randomised(ActorCritic())
    torch.save(old(reference), path)
    with pytest.warns(TeacherWarning) as caught:
        policy = load_policy(path, task=box_task())
    assert str(caught[0].message) == (
        f"Policy file {path}: rsl_rl's checkpoints do not say their activation: taken is elu, its default. If the "
        "training's configuration says another, name it: --activation relu (in Python activation='relu')."
    )
    assert_parity(policy, reference)


def test_another_activation_is_said_by_the_user(path):
    reference = randomised(ActorCritic(activation=nn.Tanh))
    torch.save(old(reference), path)
    assert_parity(load_policy(path, task=box_task(), activation="tanh"), reference)
    assert refusal(path, UsageError, activation="sine").startswith(
        "activation: got 'sine', expected one of relu, tanh, "
    )


def test_its_task_must_be_named_and_fit(path):
    torch.save(old(ActorCritic()), path)
    assert refusal(path, UsageError, task=None) == (
        "Policy file FILE (rsl_rl ppo) does not say in which range its actions lie. Name its task: --task ID."
    )
    assert refusal(path, MismatchError, task=box_task(3)) == (
        "Policy file FILE (rsl_rl ppo) has actions box [2], task 'made-up' has box [3]. Was it trained on another task?"
    )
    assert "has actions box [2], task 'made-up' has discrete [3]" in refusal(path, MismatchError, task=vector_task())


def distillation_of_version_2(student):
    teacher = ActorCritic().state_dict()
    tensors = {name.replace("actor", "student"): tensor for name, tensor in student.state_dict().items()}
    tensors |= {name.replace("actor", "teacher"): tensor for name, tensor in teacher.items() if "actor" in name}
    return {"model_state_dict": {name: t for name, t in tensors.items() if "critic" not in name}, "iter": 3}


def distillation_of_version_5(student):
    return {"student_state_dict": student.state_dict(), "teacher_state_dict": MLPModel().state_dict(), "iter": 3}


@pytest.mark.parametrize(
    ("make", "content"),
    [
        (lambda: ActorCritic(), distillation_of_version_2),
        (lambda: ActorCritic(normalised=True), distillation_of_version_2),
        (MLPModel, distillation_of_version_5),
    ],
    ids=["version 2", "version 3, normalised", "version 4 and later"],
)
def test_of_a_distillation_the_student_is_loaded_and_said_to_be(make, content, path):
    reference = randomised(make())
    torch.save(content(reference), path)
    with pytest.warns(TeacherWarning) as caught:
        policy = load_policy(path, task=box_task(), activation="elu")
    assert [str(warning.message) for warning in caught] == [
        f"Policy file {path}: it is a checkpoint of rsl_rl's distillation: loaded is its student, not its teacher."
    ]
    assert_parity(policy, reference)
    source = policy.spec.provenance["source"]
    assert source["algorithm"] == "distillation"
    assert source["unused"] and all("teacher" in name for name in source["unused"])
    policy.save(path.with_name("student.safetensors"))
    assert describe(path.with_name("student.safetensors"))["state_value"] is None


def test_a_student_without_a_distribution_answers_actions(path):
    module = randomised(MLPModel())
    del module.distribution
    torch.save(distillation_of_version_5(module), path)
    with pytest.warns(TeacherWarning):
        policy = load_policy(path, task=box_task(), activation="elu")
    assert policy.output_kind == "actions"
    with torch.no_grad():
        expected = module.mlp(module.obs_normalizer(ROWS))
    torch.testing.assert_close(policy(ROWS)[0].actions, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


@pytest.mark.filterwarnings("ignore::rldistill.errors.TeacherWarning")
def test_of_a_distillation_the_students_memory_is_read_and_not_the_teachers(path):
    student, memory = randomised(ActorCritic()), nn.GRU(3, 4)
    content = distillation_of_version_2(student)
    content["model_state_dict"] |= {f"memory_s.rnn.{name}": each for name, each in memory.state_dict().items()}
    content["model_state_dict"] |= {f"memory_t.rnn.{name}": each for name, each in nn.LSTM(9, 4).state_dict().items()}
    torch.save(content, path)
    policy, rows = load_policy(path, task=box_task(num_inputs=3), activation="elu"), ROWS[:5, :3]
    state = hidden = None
    for _ in range(2):
        answers, state = policy(rows, state)
        with torch.no_grad():
            features, hidden = memory(rows[None], hidden)
            torch.testing.assert_close(answers.mean, student(features[0])[:, :2])


def test_a_critic_with_a_memory_is_left_out_like_any_other(path):
    content = new(randomised(MLPModel()))
    content["critic_state_dict"]["rnn.rnn.weight_ih_l0"] = torch.zeros(8, 4)
    torch.save(content, path)
    assert load_policy(path, task=box_task(), activation="elu").output_kind == "gaussian"


def test_a_memory_that_is_not_whole_is_refused_by_what_is_missing(path):
    content = new(MLPModel())
    content["actor_state_dict"]["rnn.rnn.weight_ih_l0"] = torch.zeros(8, 4)
    torch.save(content, path)
    assert refusal(path).startswith(
        "Policy file FILE: its layers are not known: rnn.rnn.weight_ih_l0 without rnn.rnn.weight_hh_l0. Load them"
    )


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda t: t.update(std=torch.ones(3)), "2 outputs and standard deviations of 3"),
        (lambda t: t.update({"cnns.0.weight": torch.ones(3)}), "cnns.0.weight beside its layers"),
        (lambda t: t.pop("actor.4.bias"), "actor.4 has no bias"),
        (
            lambda t: t.update({"actor_obs_normalizer.mean": torch.ones(4)}),
            "a normaliser of mean, expected _mean and _std",
        ),
    ],
)
def test_unknown_layers_are_listed(change, line, path):
    content = old(ActorCritic())
    change(content["model_state_dict"])
    torch.save(content, path)
    assert refusal(path) == (
        f"Policy file FILE: its layers are not known: {line}. Load them into a module of your own, in Python: "
        "rd.load_policy(path, module=…, task=…, outputs=…)."
    )


@pytest.mark.parametrize(
    ("std", "read", "said"),
    [
        ([-1.0, 1.0], [1.0, 1.0], "-1 for action 0"),
        ([-0.02, 0.0], [0.02, 1e-6], "-0.02 for action 0, 0 for action 1"),
    ],
)
def test_a_standard_deviation_that_fell_to_0_or_below_is_said_and_read_by_its_size(std, read, said, path):
    module = ActorCritic()
    module.std.data = torch.tensor(std)
    torch.save(old(module), path)
    with pytest.warns(TeacherWarning) as caught:
        policy = load_policy(path, task=box_task(), activation="elu")
    assert str(caught[0].message) == (
        f"Policy file {path}: its std fell to 0 or below in training: got {said}, read by size, 1e-06 at least. Its "
        "mean acts as it did; distil it by its mean alone, as the default loss does (--loss mean_mse), or take an "
        "earlier checkpoint."
    )
    torch.testing.assert_close(policy(ROWS[:1])[0].log_std, torch.tensor([read]).log())


TWO_DISTRIBUTIONS = (
    "With two outputs for each action it is a Gaussian whose std depends on the state, or a Beta distribution: rsl_rl "
    "writes both alike. Of the Gaussian say --outputs actions (its mean) or, with std_type log, --outputs gaussian; of "
    "the Beta --outputs actions=beta (its mean)."
)


@pytest.mark.parametrize("content", [old, new])
def test_a_policy_without_a_std_is_refused_by_the_two_distributions_that_it_may_be(content, path):
    module = MLPModel() if content is new else ActorCritic()
    saved = content(module)
    tensors = saved["actor_state_dict" if content is new else "model_state_dict"]
    del tensors["distribution.std_param" if content is new else "std"]
    torch.save(saved, path)
    assert refusal(path) == f"Policy file FILE (rsl_rl ppo) has 2 outputs and no std. {TWO_DISTRIBUTIONS}"


@pytest.mark.filterwarnings("ignore::rldistill.errors.TeacherWarning")
def test_a_student_of_two_outputs_for_each_action_is_not_taken_for_one_of_twice_as_many_actions(path):
    module = randomised(MLPModel())
    del module.distribution
    torch.save(distillation_of_version_5(module), path)
    assert refusal(path, task=box_task(1)) == (
        f"Policy file FILE (rsl_rl distillation) has 2 outputs and no std, task 'made-up' has 1 actions. "
        f"{TWO_DISTRIBUTIONS}"
    )
    assert "Was it trained on another task?" in refusal(path, MismatchError, task=box_task(3))


@pytest.mark.filterwarnings("ignore::rldistill.errors.TeacherWarning")
@pytest.mark.parametrize("outputs", ["gaussian", "actions"])
def test_a_std_that_depends_on_the_state_is_read_as_its_user_says(outputs, path):
    module = randomised(MLPModel())
    del module.distribution
    torch.save(new(module), path)
    policy = load_policy(path, task=box_task(1), activation="elu", outputs=outputs)
    with torch.no_grad():
        mean, log_std = module.mlp(module.obs_normalizer(ROWS)).chunk(2, dim=1)
    output, _ = policy(ROWS)
    assert policy.output_kind == outputs
    if outputs == "gaussian":
        torch.testing.assert_close(output.log_std, log_std.clamp(-20, 2), rtol=1e-5, atol=1e-4)
        output_mean = output.mean
    else:
        output_mean = output.actions
    torch.testing.assert_close(output_mean, mean, rtol=1e-5, atol=1e-4)


@pytest.mark.filterwarnings("ignore::rldistill.errors.TeacherWarning")
def test_the_means_of_beta_distributions_are_read_as_their_user_says(path):
    module = randomised(MLPModel())
    del module.distribution
    torch.save(new(module), path)
    policy = load_policy(path, task=box_task(1), activation="elu", outputs="actions=beta")
    with torch.no_grad():
        alpha, beta = (torch.nn.functional.softplus(module.mlp(module.obs_normalizer(ROWS))) + 1).chunk(2, dim=1)
    expected = 2 * torch.distributions.Beta(alpha, beta).mean - 1
    torch.testing.assert_close(policy(ROWS)[0].actions, expected, rtol=1e-5, atol=1e-5)
    again = path.with_suffix(".safetensors")
    policy.save(again)
    loaded = load_policy(again)
    assert loaded.spec.is_beta and loaded.hash == policy.hash
    assert torch.equal(loaded(ROWS)[0].actions, policy(ROWS)[0].actions)
    with pytest.raises(MismatchError, match=r"has actions box \[1\], task 'made-up' has box \[2\]"):
        load_policy(path, task=box_task(2), activation="elu", outputs="actions=beta")


@pytest.mark.filterwarnings("ignore::rldistill.errors.TeacherWarning")
@pytest.mark.parametrize("has_std", [True, False])
def test_what_is_no_beta_distribution_is_refused_as_one(has_std, path):
    module = MLPModel()
    content = new(module)
    if not has_std:
        del content["actor_state_dict"]["distribution.std_param"]
        for name in ("weight", "bias"):  # three outputs: no pairs
            last = content["actor_state_dict"].pop(f"mlp.4.{name}")
            content["actor_state_dict"][f"mlp.4.{name}"] = torch.cat([last, last[:1]])
    torch.save(content, path)
    line = refusal(path, outputs="actions=beta")
    assert (
        f"got {2 if has_std else 3} outputs and {'a' if has_std else 'no'} std, --outputs actions=beta expects" in line
    )
