"""The networks of CleanRL's scripts and of rsl_rl, small and random, written from their layouts.

Each answers as its library's does; the tests compare ours with them.
"""

from itertools import pairwise

import torch
from torch import nn


def dense(*sizes: int, activation: type[nn.Module] = nn.ReLU, norm: bool = False) -> list[nn.Module]:
    """Return linear layers with an activation (and a norm before it) after each but the last."""
    layers: list[nn.Module] = []
    for num_inputs, num_outputs in pairwise(sizes[:-1]):
        layers += [nn.Linear(num_inputs, num_outputs), *([nn.LayerNorm(num_outputs)] if norm else []), activation()]
    return [*layers, nn.Linear(sizes[-2], sizes[-1])]


def convolutions(*, norm: bool = False) -> list[nn.Module]:
    """Return the convolutions of Mnih et al. 2015, thinner, on 84x84."""
    layers: list[nn.Module] = []
    for num_inputs, num_outputs, kernel, stride, size in ((4, 4, 8, 4, 20), (4, 8, 4, 2, 9), (8, 8, 3, 1, 7)):
        layers.append(nn.Conv2d(num_inputs, num_outputs, kernel, stride=stride))
        layers += [*([nn.LayerNorm([num_outputs, size, size])] if norm else []), nn.ReLU()]
    return [*layers, nn.Flatten()]


class QNetwork(nn.Module):
    """dqn, pqn, and their Atari versions."""

    def __init__(self, *, atari: bool = False, norm: bool = False):
        super().__init__()
        layers = [*convolutions(norm=norm), *dense(392, 16, 6, norm=norm)] if atari else dense(4, 12, 10, 3, norm=norm)
        self.network = nn.Sequential(*layers)
        self.divisor = 255.0 if atari else 1.0

    def forward(self, x):
        return self.network(x / self.divisor)


class CategoricalQNetwork(nn.Module):
    """c51 and c51_atari."""

    def __init__(self, *, atari: bool = False):
        super().__init__()
        self.register_buffer("atoms", torch.linspace(-10, 10, 51))
        num_actions = 6 if atari else 3
        layers = [*convolutions(), *dense(392, 16, 6 * 51)] if atari else dense(4, 12, 10, 3 * 51)
        self.network = nn.Sequential(*layers)
        self.shape, self.divisor = (num_actions, 51), 255.0 if atari else 1.0

    def forward(self, x):
        logits = self.network(x / self.divisor).view(len(x), *self.shape)
        return (logits.softmax(dim=2) * self.atoms).sum(2)


class Residual(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv0 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return x + self.conv1(self.conv0(x.relu()).relu())


class Stage(nn.Module):
    def __init__(self, num_inputs: int, num_outputs: int):
        super().__init__()
        self.conv = nn.Conv2d(num_inputs, num_outputs, 3, padding=1)
        self.res_block0 = Residual(num_outputs)
        self.res_block1 = Residual(num_outputs)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.conv(x), kernel_size=3, stride=2, padding=1)
        return self.res_block1(self.res_block0(x))


class QDagger(nn.Module):
    """The student of qdagger_dqn_atari_impalacnn."""

    def __init__(self):
        super().__init__()
        stages = [Stage(4, 2), Stage(2, 4), Stage(4, 4)]
        self.network = nn.Sequential(
            *stages, nn.Flatten(), nn.ReLU(), nn.Linear(4 * 11 * 11, 16), nn.ReLU(), nn.Linear(16, 6)
        )

    def forward(self, x):
        return self.network(x / 255.0)


class PPO(nn.Module):
    def __init__(self):
        super().__init__()
        self.critic = nn.Sequential(*dense(4, 8, 8, 1, activation=nn.Tanh))
        self.actor = nn.Sequential(*dense(4, 8, 8, 3, activation=nn.Tanh))

    def forward(self, x):
        return self.actor(x)


class PPOAtari(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(*convolutions(), nn.Linear(392, 16), nn.ReLU())
        self.actor = nn.Linear(16, 6)
        self.critic = nn.Linear(16, 1)

    def forward(self, x):
        return self.actor(self.network(x / 255.0))


class PPOContinuous(nn.Module):
    def __init__(self):
        super().__init__()
        self.critic = nn.Sequential(*dense(4, 8, 8, 1, activation=nn.Tanh))
        self.actor_mean = nn.Sequential(*dense(4, 8, 8, 2, activation=nn.Tanh))
        self.actor_logstd = nn.Parameter(torch.tensor([[-0.5, 0.25]]))

    def forward(self, x):
        mean = self.actor_mean(x)
        return torch.cat([mean, self.actor_logstd.expand_as(mean)], dim=1)


class SACActor(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(4, 8), nn.Linear(8, 8)
        self.fc_mean, self.fc_logstd = nn.Linear(8, 2), nn.Linear(8, 2)
        self.register_buffer("action_scale", torch.tensor([2.0, 0.5]))
        self.register_buffer("action_bias", torch.tensor([1.0, -0.5]))

    def forward(self, x):
        x = self.fc2(self.fc1(x).relu()).relu()
        return torch.cat([self.fc_mean(x), -5 + 3.5 * (self.fc_logstd(x).tanh() + 1)], dim=1)

    def greedy(self, x):
        return self(x)[:, :2].tanh() * self.action_scale + self.action_bias


class TD3Actor(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.fc_mu = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)
        self.register_buffer("action_scale", torch.tensor([2.0, 0.5]))
        self.register_buffer("action_bias", torch.tensor([1.0, -0.5]))

    def forward(self, x):
        x = self.fc2(self.fc1(x).relu()).relu()
        return self.fc_mu(x).tanh() * self.action_scale + self.action_bias


class EmpiricalNormalizer(nn.Module):
    """rsl_rl's: the epsilon is added to the standard deviation."""

    def __init__(self):
        super().__init__()
        self.register_buffer("_mean", torch.tensor([[1.0, -2.0, 0.0, 30.0]]))
        self.register_buffer("_var", torch.tensor([[4.0, 0.25, 0.0, 100.0]]))
        self.register_buffer("_std", self._var.sqrt())
        self.register_buffer("count", torch.tensor(1000))

    def forward(self, x):
        return (x - self._mean) / (self._std + 1e-2)


class ActorCritic(nn.Module):
    """rsl_rl 1 to 3."""

    def __init__(self, *, log_std: bool = False, normalised: bool = False, activation: type[nn.Module] = nn.ELU):
        super().__init__()
        self.actor = nn.Sequential(*dense(4, 12, 8, 2, activation=activation))
        self.critic = nn.Sequential(*dense(6, 8, 1, activation=activation))
        std = torch.tensor([0.5, 2.0])
        if log_std:
            self.log_std = nn.Parameter(std.log())
        else:
            self.std = nn.Parameter(std)
        self.actor_obs_normalizer = EmpiricalNormalizer() if normalised else nn.Identity()

    def forward(self, x):
        mean = self.actor(self.actor_obs_normalizer(x))
        return torch.cat([mean, torch.tensor([0.5, 2.0]).log().expand_as(mean)], dim=1)


class GaussianParameters(nn.Module):
    def __init__(self):
        super().__init__()
        self.std_param = nn.Parameter(torch.tensor([0.5, 2.0]))


class MLPModel(nn.Module):
    """rsl_rl 4 and later: the actor alone."""

    def __init__(self):
        super().__init__()
        self.obs_normalizer = EmpiricalNormalizer()
        self.distribution = GaussianParameters()
        self.mlp = nn.Sequential(*dense(4, 12, 8, 2, activation=nn.ELU))

    def forward(self, x):
        mean = self.mlp(self.obs_normalizer(x))
        return torch.cat([mean, self.distribution.std_param.log().expand_as(mean)], dim=1)


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """Return a module with weights that are far from those it began with, biases and norms too."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        if "std" not in name:
            scale = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.5
            parameter.data = torch.randn(parameter.shape, generator=generator) * scale
    return module.eval()
