"""Reading git's lists of changes, and choosing what to show."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anyon.git import changes, diffs
from anyon.git.branches import parse_status
from anyon.git.changes import Change
from anyon.git.refusals import Refusal, error_of
from anyon.git.repository import ChangeKind

# A loaded machine is slow now and then: that is no failure.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
A, B, ZERO = "a" * 40, "b" * 40, "0" * 40


def _change(**over: object) -> Change:
    fields: dict[str, object] = {
        "status": "M",
        "old_mode": "100644",
        "new_mode": "100644",
        "old_object": A,
        "new_object": B,
        "old_path": b"f",
        "new_path": b"f",
        "additions": 1,
        "deletions": 0,
    }
    return Change(**{**fields, **over})  # type: ignore[arg-type]


def test_renames_and_odd_names_are_read() -> None:
    """Paths are bytes up to the NUL, whatever they hold; a rename has two."""
    listing = (
        f":100644 100644 {A} {B} M\0:x\n1\t2\t\0"
        f":100644 100755 {A} {A} R100\0old\0new\0"
        f":000000 120000 {ZERO} {B} A\0link\0"
        "1\t2\t:x\n1\t2\t\0" + "0\t0\t\0old\0new\0" + "-\t-\tlink\0"
    ).encode()
    first, second, third = changes.parse_changes(listing)
    assert (first.new_path, first.additions, first.deletions) == (b":x\n1\t2\t", 1, 2)
    assert (second.status, second.old_path, second.new_path) == ("R", b"old", b"new")
    assert third.is_binary
    assert third.objects == (B,)
    assert changes.parse_changes(b"") == []


def test_kinds() -> None:
    """A change of mode alone is a permission change; a change of type is a modification."""
    only_mode = _change(new_object=A, new_mode="100755")
    assert changes.file_diff(only_mode, {A: b"x"}).kind is ChangeKind.PERMISSION
    assert changes.file_diff(_change(new_mode="100755"), {}).kind is ChangeKind.MODIFIED
    assert changes.file_diff(_change(status="T"), {}).kind is ChangeKind.MODIFIED
    deleted = _change(status="D", new_mode="000000", new_object=ZERO)
    diff = changes.file_diff(deleted, {A: b"x"})
    assert (diff.old_path, diff.new_path, diff.old_content, diff.new_content) == (
        "f",
        None,
        "x",
        None,
    )


def test_big_files_and_what_is_past_the_total_are_left_out() -> None:
    """Over 2 MB a file's contents are left out, and so is what comes after 200 MB."""
    big = changes.MAX_FILE_BYTES + 1
    names = [f"{n:040x}" for n in range(120)]
    each = [_change(status="A", old_mode="000000", new_object=name) for name in names]
    assert changes.wanted(each[:2], {names[0]: big, names[1]: 1}) == {names[1]: 1}
    chosen = changes.wanted(each, dict.fromkeys(names, changes.MAX_FILE_BYTES))
    assert len(chosen) == 100
    assert changes.wanted([_change(additions=None)], {A: 1, B: 1}) == {}
    assert changes.wanted([_change()], {A: 1}) == {}


@UNHURRIED
@given(st.dictionaries(st.text("0123456789abcdef", min_size=40, max_size=40), st.binary()))
def test_objects_are_read_as_they_were_printed(objects: dict[str, bytes]) -> None:
    """Contents may hold anything, newlines and what looks like a heading too."""
    printed = b"".join(
        f"{name} blob {len(data)}\n".encode() + data + b"\n" for name, data in objects.items()
    )
    assert changes.parse_objects(printed + b"feed missing\n") == objects


@UNHURRIED
@given(st.dictionaries(st.text(min_size=1), st.integers(0, 50)), st.integers(1, 60))
def test_batches_hold_each_name_once_within_the_limit(sizes: dict[str, int], limit: int) -> None:
    """Nothing is lost or doubled, and only a single big one passes the limit."""
    groups = diffs.batches(sizes, limit)
    assert [name for group in groups for name in group] == list(sizes)
    for group in groups:
        assert len(group) == 1 or sum(sizes[name] for name in group) <= limit


def test_status_is_read() -> None:
    """Entries of every kind are counted; unmerged ones are named."""
    output = (
        f"{A} 1 3\t2\n1 M. N... 1 1 1 {A} {B} x y\0? new\0? other\0"
        f"u UU N... 1 1 1 1 {A} {A} {A} both here\0"
    ).encode()
    found = parse_status(output)
    assert (found.behind, found.ahead, found.uncommitted, found.untracked) == (3, 2, 2, 2)
    assert found.is_rebase_in_progress
    assert found.conflicted_files == ["both here"]


def test_refusals_become_errors_with_codes() -> None:
    """Each refusal has an error; files are named; what git says carries no control bytes."""
    for refusal in Refusal:
        assert error_of(refusal, b"", b"").code != "git_failed"
    many = b"".join(b"f%d\0" % n for n in range(30))
    conflict = error_of(Refusal.MERGE_CONFLICT, many, b"")
    assert "f0, f1," in conflict.message
    assert "and 10 more" in conflict.message
    failed = error_of(128, b"", b"fatal: \x1b[31mhttps://u:p@h/x\x07")
    assert failed.code == "git_failed"
    assert "u:p" not in failed.message
    assert "\x1b" not in failed.message
    assert error_of(127, b"", b"sh: 1: git: not found").code == "git_missing"
    assert error_of(1, b"", b"error: No space left on device").code == "disk_full"
