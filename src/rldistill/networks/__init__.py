"""Networks: a torso that all tasks share and one head per task."""

from rldistill.networks.architecture import Architecture as Architecture
from rldistill.networks.architecture import parse_architecture as parse_architecture
from rldistill.networks.input_layer import InputNormalization as InputNormalization
from rldistill.networks.input_layer import NormalizeInput as NormalizeInput
from rldistill.networks.module_network import ModuleNetwork as ModuleNetwork
from rldistill.networks.module_network import module_name as module_name
from rldistill.networks.output_layer import GaussianOptions as GaussianOptions
from rldistill.networks.output_layer import OutputLayer as OutputLayer
from rldistill.networks.output_layer import ValueAtoms as ValueAtoms
from rldistill.networks.policy_network import PolicyNetwork as PolicyNetwork
from rldistill.networks.size import NetworkSize as NetworkSize
from rldistill.networks.size import measure_size as measure_size
from rldistill.networks.stemmed import Network as Network
from rldistill.networks.stemmed import StemmedNetwork as StemmedNetwork
from rldistill.networks.stemmed import network_of as network_of
