"""The streams' frames, made purely."""

import hypothesis.strategies as st
from hypothesis import given

from anyon.agents.agent import Patch
from anyon.api.frames import diff_frames
from anyon.api.shapes import frames_of, pointer
from anyon.git.repository import ChangeKind, FileDiff

INDICES = st.lists(st.integers(0, 5), max_size=30)


def patch(index: int, *, is_new: bool = False) -> Patch:
    """Return a patch at *index*."""
    return Patch(index=index, entry={"content": str(index)}, is_new=is_new)


def change(path: str, content: str = "x") -> FileDiff:
    """Return a file's change."""
    return FileDiff(
        kind=ChangeKind.MODIFIED,
        old_path=path,
        new_path=path,
        old_content="",
        new_content=content,
        content_omitted=False,
        additions=1,
        deletions=0,
    )


@given(INDICES)
def test_a_frame_has_one_operation_per_path_and_none_is_lost(indices: list[int]) -> None:
    """Clients keep the last operation per path of a frame; so each frame has each path once, in order."""
    frames = frames_of([patch(index) for index in indices])
    for frame in frames:
        paths = [op["path"] for op in frame]
        assert len(paths) == len(set(paths))
    flat = [op["path"] for frame in frames for op in frame]
    assert flat == [f"/entries/{index}" for index in indices]


def test_a_new_entry_is_added_and_a_known_one_replaced() -> None:
    """``add`` and ``replace`` say what the patch says."""
    frames = frames_of([patch(0, is_new=True), patch(0)])
    assert [[op["op"] for op in frame] for frame in frames] == [["add"], ["replace"]]


def test_only_what_changed_is_sent_again() -> None:
    """A second look sends changed files and removes those whose change is gone."""
    seen: dict[str, bytes] = {}
    first = diff_frames([change("a/b"), change("c")], seen, stats_only=False)
    assert [op["path"] for frame in first for op in frame] == ["/entries/a~1b", "/entries/c"]
    assert diff_frames([change("a/b"), change("c")], seen, stats_only=False) == []
    third = diff_frames([change("c", "y")], seen, stats_only=False)
    assert [(op["op"], op["path"]) for frame in third for op in frame] == [
        ("add", "/entries/c"),
        ("remove", "/entries/a~1b"),
    ]


def test_stats_leave_contents_out_and_keys_are_camel_case() -> None:
    """With stats_only the contents are null and said to be omitted; the numbers stay."""
    [[op]] = diff_frames([change("a")], {}, stats_only=True)
    content = op["value"]["content"]
    assert content["newContent"] is None
    assert content["contentOmitted"] is True
    assert content["additions"] == 1


def test_a_path_is_one_part_of_a_pointer() -> None:
    """Slashes and tildes are escaped, tildes first."""
    assert pointer("a/~b") == "a~1~0b"
