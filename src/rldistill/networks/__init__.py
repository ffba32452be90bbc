"""Networks: a torso that all tasks share and one head per task."""

from rldistill.networks.architecture import Architecture as Architecture
from rldistill.networks.architecture import parse_architecture as parse_architecture
from rldistill.networks.module_network import ModuleNetwork as ModuleNetwork
from rldistill.networks.module_network import Network as Network
from rldistill.networks.module_network import module_name as module_name
from rldistill.networks.policy_network import PolicyNetwork as PolicyNetwork
from rldistill.networks.size import NetworkSize as NetworkSize
from rldistill.networks.size import measure_size as measure_size
