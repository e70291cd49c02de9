"""Records of containers: written whole, read as they were, never half."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import pytest

from anyon.domain.errors import EngineFailedError
from anyon.domain.ids import ProjectId, new_id
from anyon.engines.bubblewrap_records import Record, Records, from_json, to_json
from anyon.engines.engine import ContainerSpec, Limits, Mount
from anyon.engines.sandbox_processes import Identity


def _record() -> Record:
    return Record(
        id=new_id(),
        spec=ContainerSpec(
            project=ProjectId(new_id()),
            mounts=(
                Mount(source=Path("/a b"), target=PurePosixPath("/workspace"), read_only=True),
            ),
            system=Path("/s"),
            limits=Limits(cpus=1.5, memory_bytes=10, pids=None),
            env={"K": "한글\n"},
            labels={"a": "b"},
        ),
    )


def test_a_record_is_read_as_it_was_written():
    """Stopped and running records pass unchanged."""
    record = _record()
    assert from_json(to_json(record)) == record
    running = replace(
        record,
        first=Identity(1, 2, "boot"),
        group_version=2,
        groups={"freezer": Path("/g")},
        suspended=True,
        started_at=datetime.now(UTC),
        exit_code=7,
    )
    assert from_json(to_json(running)) == running


def test_records_are_listed_and_forgotten(tmp_path):
    """Only records are listed: no locks, no drafts, no strangers' files."""
    records = Records(tmp_path / "state")
    assert list(records.projects()) == []
    record = _record()
    records.write(record)
    (tmp_path / "state" / f"{record.spec.project}.lock").touch()
    (tmp_path / "state" / f"{new_id()}.new").write_text("half")
    (tmp_path / "state" / "notes.json").write_text("{}")
    assert list(records.projects()) == [record.spec.project]
    assert records.read(record.spec.project) == record
    records.remove(record.spec.project)
    records.remove(record.spec.project)
    assert records.read(record.spec.project) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 99}', "null"])
def test_a_record_that_is_none_is_an_error(tmp_path, text):
    """It is never taken for an absent container, which would make a second one."""
    project = ProjectId(new_id())
    (tmp_path / f"{project}.json").write_text(text)
    with pytest.raises(EngineFailedError) as refused:
        Records(tmp_path).read(project)
    assert refused.value.code == "record_unreadable"
