"""The same C under clang, and on a Cortex-M4 that QEMU plays, gives the same numbers."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from rldistill.exports.c.footprint import Footprint
from rldistill.exports.c.plan import make_plan
from rldistill.networks import Architecture, GaussianOptions, InputNormalization
from tests.kit.c_programs import compile_with, written
from tests.kit.small_policies import box_task, image_task, small_policy, vector_task
from tests.kit.states import played

pytestmark = pytest.mark.slow

_BOARD = Path(__file__).parent / "cortex_m4"
_PACKAGES = {
    "arm-none-eabi-gcc": "gcc-arm-none-eabi and libnewlib-arm-none-eabi",
    "qemu-system-arm": "qemu-system-arm",
}
_CORTEX_M4 = ("-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard", "-std=c99", "-ffunction-sections")
# At -icount shift=0 an instruction takes 1 ns, and SysTick counts at 25 MHz.
_INSTRUCTIONS_PER_TICK, _DECISIONS = 40, 10

POLICIES = {
    "mlp": lambda: small_policy(
        vector_task(4, 8), network=Architecture("mlp:64x64", "mlp", (64, 64), activation="tanh"), output_kind="logits"
    ),
    "gaussian": lambda: small_policy(
        box_task(3, mapping="tanh_rescale"), network="mlp:16", output_kind="gaussian", gaussian=GaussianOptions("fixed")
    ),
    "convolution": lambda: small_policy(image_task(), network="conv:4-4-4:16"),
    # A blind four-legged robot's: 45 numbers, 12 joints.
    "gru": lambda: small_policy(
        box_task(12, 45),
        network="gru:12",
        output_kind="actions",
        normalization=InputNormalization([0.0] * 45, [1.0] * 45),
    ),
    "lstm": lambda: small_policy(box_task(12, 45), network="mlp:16+lstm:8", output_kind="actions"),
    "stack": lambda: small_policy(box_task(12, 45), network="stack:4+mlp:12", output_kind="actions"),
}


def calibrated(policy, rows):
    """Return what int8 is made from."""
    remembers = policy.initial_state(1) is not None
    return {"calibration": rows, "state": played(policy, rows, np.zeros(1))[2] if remembers else ()}


def observations(policy):
    fingerprint, rng = policy.tasks[0].fingerprint, np.random.default_rng(0)
    shape = (5, *fingerprint.observation_shape)
    if fingerprint.observation_dtype == "uint8":
        return rng.integers(0, 256, shape, np.uint8)
    return rng.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("is_int8", [False, True])
@pytest.mark.parametrize("name", POLICIES)
def test_clang_compiles_it_without_a_warning_to_the_same_numbers(name, is_int8):
    policy = POLICIES[name]()
    rows = observations(policy)
    made = written(policy, **(calibrated(policy, rows) if is_int8 else {}))
    for own, other in zip(made.run(rows, "-O2"), made.run(rows, "-O2", "-Weverything", compiler="clang"), strict=True):
        np.testing.assert_array_equal(own, other)


@pytest.mark.parametrize("is_int8", [False, True])
@pytest.mark.parametrize("name", POLICIES)
def test_a_cortex_m4_gives_the_same_outputs_within_the_sizes_that_were_said(name, is_int8, record_property):
    for program, package in _PACKAGES.items():
        if shutil.which(program) is None:
            pytest.skip(f"Debian's {package} is not installed")
    policy = POLICIES[name]()
    rows = observations(policy)
    made = written(policy, **(calibrated(policy, rows) if is_int8 else {}))
    outputs, _ = made.run(rows[:1], "-O2")
    kind = "uint8_t" if rows.dtype == np.uint8 else "float"
    values = ",".join(repr(float(value)) if kind == "float" else str(value) for value in rows[0].flatten())
    (made.folder / "observation.h").write_text(f"static const {kind} observation[] = {{{values}}};\n")
    ticks, *said = run_on_board(made.folder)
    assert np.array(said, np.uint32).view(np.float32).tolist() == outputs[0].tolist()
    instructions = ticks * _INSTRUCTIONS_PER_TICK / _DECISIONS
    macs = make_plan(policy).num_macs
    record_property("instructions", instructions)
    print(f"{name}, {'int8' if is_int8 else 'float32'}: {instructions:,.0f} instructions, {macs:,} multiply-adds")
    assert macs < instructions < 20 * macs + 20_000
    footprint = Footprint.of(made.quantized or make_plan(policy), made.source)
    text, data, bss = sizes_of(made.folder / "policy.o")
    assert text + data <= footprint.flash_bytes
    assert data + bss <= footprint.ram_bytes


def run_on_board(folder):
    """Return the numbers that the board says."""
    sources = [_BOARD / "board.c", folder / "policy.c"]
    command = [
        "arm-none-eabi-gcc",
        *_CORTEX_M4,
        "-O2",
        "-I",
        folder,
        "-nostartfiles",
        "-T",
        _BOARD / "board.ld",
        *sources,
    ]
    subprocess.run([*command, "-o", folder / "board.elf", "-lm", "-lc", "-lgcc", "-Wl,--gc-sections"], check=True)
    machine = ["qemu-system-arm", "-M", "mps2-an386", "-nographic", "-semihosting", "-icount", "shift=0"]
    done = subprocess.run(
        [*machine, "-kernel", folder / "board.elf"], capture_output=True, text=True, timeout=120, check=True
    )
    return [int(line, 16) for line in (done.stdout + done.stderr).split()]


def sizes_of(compiled):
    """Return the bytes of code with constants, of data and of zeros that the compiler makes of `policy.c`."""
    compile_with("arm-none-eabi-gcc", compiled.parent, *_CORTEX_M4[:-1], "-O2", "-c", "policy.c")
    shutil.move(compiled.parent / "program", compiled)
    done = subprocess.run(["arm-none-eabi-size", compiled], capture_output=True, text=True, check=True)
    return [int(number) for number in done.stdout.splitlines()[1].split()[:3]]
