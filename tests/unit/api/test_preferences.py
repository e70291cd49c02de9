"""The front end's preferences."""

from pathlib import Path

import pytest

from anyon.api.preferences import Preferences
from anyon.domain.errors import InvalidInputError
from anyon.domain.ids import LOCAL_USER


def test_they_are_kept_over_a_restart_and_secrets_are_not(tmp_path: Path) -> None:
    """What is set is there for the next server; a secret is never written."""
    kept = Preferences(tmp_path, "SHELL").put(
        LOCAL_USER, {"theme": "DARK", "github": {"pat": "s3cret"}, "unknown": 1}
    )
    assert kept["theme"] == "DARK"
    again = Preferences(tmp_path, "SHELL").get(LOCAL_USER)
    assert again == kept
    assert again["github"]["pat"] is None
    assert "unknown" not in again
    assert all("s3cret" not in file.read_text() for file in tmp_path.iterdir())


@pytest.mark.parametrize(
    "bad",
    [
        {"git_branch_prefix": "a/b"},
        {"git_branch_prefix": 3},
        {"github": 1},
        {"theme": {"a": 1}},
        {"theme": "\ud800"},
        {"theme": "x" * 70_000},
        {"theme": float("nan")},
    ],
)
def test_bad_ones_are_refused_and_nothing_changes(tmp_path: Path, bad: dict[str, object]) -> None:
    """A wrong form is the caller's error; what was kept stays."""
    preferences = Preferences(tmp_path, "SHELL")
    before = preferences.get(LOCAL_USER)
    with pytest.raises(InvalidInputError):
        preferences.put(LOCAL_USER, bad)
    assert preferences.get(LOCAL_USER) == before
