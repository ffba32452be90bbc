"""Datasets: what a teacher saw and said, stored once, read at random, never half-written."""

from rldistill.data.layout import FieldSpec as FieldSpec
from rldistill.data.layout import StepLayout as StepLayout
from rldistill.data.layout import as_targets as as_targets
from rldistill.data.layout import step_fields as step_fields
from rldistill.data.manifest import Provenance as Provenance
from rldistill.data.manifest import TeacherEntry as TeacherEntry
from rldistill.data.manifest import is_dataset_folder as is_dataset_folder
from rldistill.data.manifest import load_manifest as load_manifest
from rldistill.data.reader import Dataset as Dataset
from rldistill.data.replay import Replay as Replay
from rldistill.data.replay import Transitions as Transitions
from rldistill.data.replay import is_replay_folder as is_replay_folder
from rldistill.data.sampler import UniformSampler as UniformSampler
from rldistill.data.sampler import prefetch as prefetch
from rldistill.data.sampler import split_episodes as split_episodes
from rldistill.data.store import StepStore as StepStore
from rldistill.data.writer import DatasetWriter as DatasetWriter
from rldistill.data.writer import is_dataset_file as is_dataset_file
