"""A writer is killed at twenty moments: nothing it reported is lost, nothing is written twice."""

import time

from rldistill.data import Dataset, DatasetWriter
from rldistill.seeding import stream_generator
from tests.data.made_up import Player, check_dataset, make_provenance, process_context

NUM_KILLS = 20


def _collect_until_killed(path, reports) -> None:
    provenance = make_provenance()
    options = {"target_num_steps": 10**9, "steps_per_shard": 50}
    is_new = not (path / "manifest.json").exists()
    writer = (DatasetWriter.create if is_new else DatasetWriter.resume)(path, provenance, **options)
    player = Player(writer, num_slots=3)
    while True:
        player.step()
        reports.send(writer.num_listed_steps)


def test_killed_at_twenty_random_moments_nothing_that_was_reported_is_lost_or_doubled(tmp_path):
    context = process_context()
    rng = stream_generator(0, "kills")
    path = tmp_path / "d"
    num_listed = 0
    for num_steps in rng.integers(0, 200, NUM_KILLS).tolist():
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_collect_until_killed, args=(path, sender))
        process.start()
        sender.close()
        reported = receiver.recv()  # it is up, and has appended a step
        while reported < num_listed + num_steps:
            reported = receiver.recv()
        time.sleep(rng.uniform(0, 0.01))  # the moment between two shards is left to chance
        process.kill()
        process.join()
        while receiver.poll():
            try:
                reported = receiver.recv()
            except (EOFError, OSError):
                break
        dataset = Dataset.open(path, allow_empty=True)
        assert dataset.num_steps >= max(reported, num_listed)
        check_dataset(dataset)
        num_listed = dataset.num_steps
    assert num_listed > 1000
    with DatasetWriter.resume(path, make_provenance(), target_num_steps=num_listed + 300) as writer:
        player = Player(writer, num_slots=3)
        while writer.num_steps < num_listed + 300:
            player.step()
        writer.finish()
    dataset = Dataset.open(path)
    check_dataset(dataset)
    assert dataset.num_steps == num_listed + 300
    assert dataset.episode_numbers.tolist() == list(range(dataset.manifest.next_episode))
    assert len(list(path.glob("shard-*"))) == len(dataset.manifest.shards)


def test_shards_the_manifest_does_not_list_are_deleted_by_the_next_writer(tmp_path):
    provenance = make_provenance()
    with DatasetWriter.create(tmp_path / "d", provenance, target_num_steps=100) as writer:
        Player(writer, num_slots=2).step()
    (tmp_path / "d" / "shard-000001.safetensors").write_bytes(b"killed before the manifest")
    (tmp_path / "d" / ".shard-000002.safetensors.tmp").write_bytes(b"half")
    check_dataset(Dataset.open(tmp_path / "d"))
    with DatasetWriter.resume(tmp_path / "d", provenance, target_num_steps=100):
        names = sorted(path.name for path in (tmp_path / "d").iterdir())
    assert names == [".lock", "manifest.json", "shard-000000.safetensors"]
