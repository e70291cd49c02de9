"""The judgement of leaks: a small leak in much noise is seen, noise alone is not one; readings are real."""

import os
import random
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from anyon.testing.leaks import QUANTITIES, Reading, Subject, read, trends


def series(leak: dict[str, float], *, spikes: bool = False) -> list[Reading]:
    """Return readings of 10,000 tasks, each quantity noisy and growing by *leak* for each task."""
    noise = random.Random(1)
    base = dict.fromkeys(QUANTITIES, 50.0) | {"memory_bytes": 115e6, "disk_bytes": 40e6}
    readings = []
    for tasks in range(100, 10_001, 100):
        values = {}
        for name, value in base.items():
            wander = noise.gauss(0, 1e6 if name.endswith("bytes") else 0.4)
            spike = 30e6 if spikes and name == "memory_bytes" and noise.random() < 0.1 else 0
            values[name] = value + wander + spike + leak.get(name, 0) * tasks
        readings.append(Reading(tasks=tasks, values=values))
    return readings


def test_noise_is_not_a_leak() -> None:
    """A megabyte of wander and passing spikes make no trend."""
    assert all(one.is_flat for one in trends(series({}, spikes=True)))


@pytest.mark.parametrize(
    ("quantity", "per_task"),
    [
        ("memory_bytes", 2000.0),
        ("file_descriptors", 0.002),
        ("threads", 0.002),
        ("zombies", 0.001),
        ("rows", 0.02),
        ("disk_bytes", 4096.0),
    ],
)
def test_a_small_leak_is_seen(quantity: str, per_task: float) -> None:
    """A descriptor for every five hundredth task, two kilobytes a task: that quantity grows, no other."""
    found = trends(series({quantity: per_task}, spikes=True))
    assert [one.quantity for one in found if not one.is_flat] == [quantity]


def test_a_start_that_fills_caches_is_no_leak() -> None:
    """What grows at the beginning only is left out with the warm-up."""
    readings = series({})
    for number, reading in enumerate(readings[:25]):
        values = dict(reading.values)
        values["memory_bytes"] -= (25 - number) * 1e6
        readings[number] = Reading(tasks=reading.tasks, values=values)
    assert all(one.is_flat for one in trends(readings))


def test_too_few_readings_say_nothing() -> None:
    """A trend of four points is refused rather than guessed."""
    with pytest.raises(ValueError, match="say nothing"):
        trends(series({})[:5])


def test_readings_are_of_the_process(tmp_path: Path) -> None:
    """A descriptor, a zombie, a row and a file more are seen as one more each."""
    with sqlite3.connect(tmp_path / "anyon.db") as database:
        database.execute("CREATE TABLE thing (id INTEGER)")
    subject = Subject(pid=os.getpid(), home=tmp_path, marks=frozenset())
    before = read(subject, 0).values
    with (tmp_path / "kept").open("wb") as kept:
        kept.write(b"x" * 100_000)
        (tmp_path / "litestream").mkdir()
        (tmp_path / "litestream" / "changes").write_bytes(b"x" * 500_000)
        kept.flush()
        os.fsync(kept.fileno())
        with sqlite3.connect(tmp_path / "anyon.db") as database:
            database.execute("INSERT INTO thing VALUES (1)")
        database.close()
        child = subprocess.Popen(["true"])
        deadline = time.monotonic() + 30
        while Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        after = read(subject, 1).values
        child.wait()
    assert after["zombies"] == before["zombies"] + 1
    assert after["rows"] == before["rows"] + 1
    assert after["file_descriptors"] > before["file_descriptors"]
    assert 100_000 <= after["disk_bytes"] - before["disk_bytes"] < 500_000
