"""Other people's files and objects, as policies.

From the outside in:

- `load`: `load_policy` and the table of formats; `formats`: what a format declares, and the network that it finds.
- One module for each format: `checkpoints` (tables of libraries: `rsl_rl`, `rl_games`, `skrl`,
  `cleanrl`, and `flax_file` for its scripts in JAX), `sb3`, `onnx_program` (with
  `onnx_worker` and `onnx_file`, in a process of its own), `torch_programs`.
- `program`: policies whose inside is not ours, with a state or without; `in_process`: functions and modules of a user.
- What they share: `contents` (what lies in a checkpoint), `normalizer_file` (running statistics), `contract` (what an
  export of ours says of itself).
- Reading a stranger's bytes as data: `weights` (zips and tensors), `unpickle` and `arrays` (pickles).

`minari_data` converts datasets.
"""
