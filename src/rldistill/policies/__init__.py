"""Policies: observations to outputs, outputs to actions, and the file that keeps both."""

from rldistill.policies.behaviour import Behaviour as Behaviour
from rldistill.policies.behaviour import choose_actions as choose_actions
from rldistill.policies.files import load_policy as load_policy
from rldistill.policies.matching import as_played_by as as_played_by
from rldistill.policies.matching import fit_policy as fit_policy
from rldistill.policies.protocol import Policy as Policy
from rldistill.policies.random_policy import RandomPolicy as RandomPolicy
from rldistill.policies.spec import HeadSpec as HeadSpec
from rldistill.policies.spec import PolicySpec as PolicySpec
from rldistill.policies.torch_policy import TorchPolicy as TorchPolicy
