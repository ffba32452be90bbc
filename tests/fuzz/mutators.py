"""Ways to damage a file: its bytes, members of an archive, a value somewhere in its JSON, an instruction of a pickle.

Every function takes a generator of random numbers and returns something new; none changes its argument.
"""

import copy
import io
import json
import pickletools
import random
import zipfile
from collections.abc import Callable, Mapping

NUMBERS = (0, 1, -1, 2, 3, 7, 255, 2**31 - 1, 2**31, 2**40, 2**63, 10**30, 10**400, 0.5, -0.0, 1e-300, 1e300, 1e39)
TEXTS = (
    "",
    "a",
    "relu",
    "q_values",
    "gaussian",
    "box",
    "tanh_rescale",
    "\x1b[31mred\x1b[0m",
    "a\nb",
    "\u202e",
    "x" * 5000,
)
OTHERS = (None, True, False, [], {}, [[]], [0], [1, 2, 3], {"a": 1}, float("nan"), float("inf"))


def any_value(rng: random.Random) -> object:
    """Return a value that is often wrong where it is put."""
    return copy.deepcopy(rng.choice((rng.choice(NUMBERS), rng.choice(TEXTS), rng.choice(OTHERS))))


def damage_bytes(rng: random.Random, data: bytes) -> bytes:
    """Return bytes with a few of them flipped, cut off, overwritten, repeated or taken from elsewhere."""
    result = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        place = rng.randrange(len(result)) if result else 0
        match rng.randrange(6):
            case 0:
                result[place : place + 1] = bytes([(result[place] if result else 0) ^ (1 << rng.randrange(8))])
            case 1:
                del result[place:]
            case 2:
                result[place : place + 8] = rng.choice((0, 1, 2**31 - 1, 2**63 - 1, 2**64 - 1)).to_bytes(8, "little")
            case 3:
                result[place:place] = result[place : place + rng.randrange(1, 64)]
            case 4:
                result[place : place + 4] = rng.randbytes(4)
            case _:
                del result[place : place + rng.randrange(1, 64)]
    return bytes(result)


def damage_value(rng: random.Random, value: object) -> object:
    """Return JSON with one to three of its values replaced, left out, repeated or exchanged."""
    changed = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2))):
        places = list(_places(changed))
        if not places:
            return any_value(rng)
        holder, key = rng.choice(places)
        match rng.randrange(6):
            case 0:
                del holder[key]
            case 1:
                other_holder, other_key = rng.choice(places)
                holder[key] = copy.deepcopy(other_holder[other_key])
            case 2 if isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
                holder[key] = rng.choice(NUMBERS)
            case 3 if isinstance(holder[key], list):
                holder[key] = holder[key] * rng.choice((2, 3, 500))
            case 4 if isinstance(holder, dict):
                holder[rng.choice(("extra", "", "x" * 300, "\x1b[31m"))] = holder.pop(key)
            case _:
                holder[key] = any_value(rng)
    return changed


def damage_json(rng: random.Random, data: bytes) -> bytes:
    """Return JSON text with damaged values."""
    return json.dumps(damage_value(rng, json.loads(data))).encode()


def damage_pickle(rng: random.Random, data: bytes) -> bytes:
    """Return a pickle with instructions left out, repeated, put elsewhere or inserted."""
    starts = [position for _, _, position in pickletools.genops(data) if position is not None]
    steps = [data[begin:end] for begin, end in zip(starts, [*starts[1:], len(data)], strict=True)]
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(1, len(steps))
        match rng.randrange(5):
            case 0:
                del steps[place]
            case 1:
                steps.insert(place, steps[rng.randrange(1, len(steps))])
            case 2:
                steps[place] = steps[rng.randrange(1, len(steps))]
            case 3:
                steps.insert(
                    place,
                    rng.choice(
                        (b"N", b"]", b"}", b")", b"(", b"t", b"u", b"e", b"0", b"2", b"K\xff", b"R", b"b", b"\x85")
                    ),
                )
            case _:
                steps[place] = damage_bytes(rng, steps[place])
        if len(steps) < 2:
            break
    return b"".join(steps)


def damage_archive(
    rng: random.Random, data: bytes, damage: Mapping[str, Callable[[random.Random, bytes], bytes]]
) -> bytes:
    """Return a zip with one member damaged, left out, renamed or repeated; checksums are right.

    Args:
        rng: draws.
        data: the archive.
        damage: how members whose names end so are damaged; all others: in their bytes.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    place = rng.randrange(len(members))
    # A member that something is known of is where the interesting faults are.
    known = [index for index, (name, _) in enumerate(members) if any(name.endswith(end) for end in damage)]
    if known and rng.random() < 0.7:
        place = rng.choice(known)
    name, content = members[place]
    match rng.randrange(8):
        case 0:
            del members[place]
        case 1:
            members[place] = (rng.choice(("a", "../a", "x" * 300, "\x1b[31m", f"{name}/")), content)
        case 2:
            members.append((rng.choice(("more", "data.pkl", "a/data.pkl")), content))
        case 3:
            members[place] = (name, damage_bytes(rng, content))
        case _:
            how = next((function for end, function in damage.items() if name.endswith(end)), damage_bytes)
            members[place] = (name, how(rng, content))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for member, content in members:
            archive.writestr(member, content)
    return buffer.getvalue()


def _places(value: object):
    """Yield every container in JSON with each of its keys."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])
