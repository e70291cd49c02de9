"""Whatever is to be run is written so that a shell reads exactly that."""

import os
import subprocess
from datetime import timedelta
from pathlib import PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyon.domain.errors import InvalidInputError
from anyon.domain.ids import ProcessId
from anyon.processes.commands import check_id, check_spec, command_text, secret_lines
from anyon.processes.processes import ProcessSpec
from anyon.processes.records import Record, parse_record

WORDS = st.binary(max_size=20).filter(lambda b: b"\0" not in b).map(os.fsdecode)


@settings(max_examples=30, deadline=None)
@given(st.lists(WORDS, max_size=4), WORDS)
def test_a_shell_reads_back_every_byte(words, value):
    """Any words and values come out of a shell as they went in."""
    spec = ProcessSpec(
        id=ProcessId("p"), argv=["x", *words], cwd=PurePosixPath("/"), env={"V": value}
    )
    script = command_text(spec) + b"\n".join(secret_lines({"S": value}))
    script += b'\nprintf \'%s\\0\' "$V" "$S" "$@"'
    got = subprocess.run(["sh", "-s"], input=script, capture_output=True, check=True).stdout
    assert [os.fsdecode(part) for part in got.split(b"\0")] == [value, value, "x", *words, ""]


@pytest.mark.parametrize("bad", ["", ".", "..", "a/b", "-x", ".x", "a\nb", "가", "x" * 65])
def test_an_id_can_name_nothing_but_a_directory(bad):
    """No id is a path, hidden, an option or too long."""
    with pytest.raises(InvalidInputError):
        check_id(bad)


@pytest.mark.parametrize(
    "changes",
    [
        {"argv": []},
        {"argv": [""]},
        {"argv": ["a\0"]},
        {"env": {"A B": ""}},
        {"secrets": {"": ""}},
        {"secrets": {"A": "\0"}},
        {"cwd": PurePosixPath("relative")},
        {"timeout": timedelta(0)},
        {"output_cap_bytes": 0},
    ],
)
def test_what_no_program_can_be_given_is_refused(changes):
    """Each is the caller's error, before anything was done. Control: without the change it is none."""
    good = {"id": ProcessId("p"), "argv": ["true"]}
    check_spec(ProcessSpec(**good))
    with pytest.raises(InvalidInputError):
        check_spec(ProcessSpec(**{**good, **changes}))


@given(st.integers(1, 1 << 50), st.integers(0, 1 << 30), st.text(max_size=40))
def test_a_record_is_read_back(cap, oom, boot):
    """What one server notes the next one knows, whatever stands below it."""
    record = Record(output_cap_bytes=cap, timeout=timedelta(seconds=3), boot=boot, oom_kills=oom)
    assert parse_record(record.to_bytes() + b"cd /\n") == record


@given(st.binary(max_size=200))
def test_a_record_that_is_none_gives_the_defaults(content):
    """Whoever runs inside may overwrite it, and gains nothing."""
    assert parse_record(content) == Record()
    assert parse_record(b"# anyon " + content).output_cap_bytes > 0
