"""Other people's files and objects, as policies.

From the outside in:

- `load`: `load_policy`; `detect`: the table of formats; `formats`: what a format declares.
- One module for each format: `checkpoints` (tables of libraries: `rsl_rl`, `cleanrl`), `sb3`, `onnx_program` (with
  `onnx_worker` and `onnx_file`, in a process of its own), `torch_programs`; of objects in Python, `functions`.
- What they become: `found` (a network in a checkpoint, as `networks.layers`, then as a policy of ours), `program` (a
  policy whose inside is not ours).
- What they share: `sequential` (layers by their names), `containers` (what lies in a checkpoint), `normalizer_file`
  (running statistics), `memory` (recurrent networks, which are refused), `notices` (warnings), `extras` (packages).
- Reading a stranger's bytes as data: `weights` (tensors), `archive` (zips), `unpickle` and `arrays` (pickles).

`minari_data` converts datasets.
"""
