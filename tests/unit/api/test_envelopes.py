"""How errors are told on the wire."""

import json

import pytest

from anyon.api.envelopes import error_of
from anyon.domain.errors import ConflictError

FORMS = [
    (
        "merge_conflict",
        "/merge",
        {"type": "merge_conflicts", "message": "they conflict", "op": "merge"},
    ),
    (
        "merge_conflict",
        "/rebase",
        {"type": "merge_conflicts", "message": "they conflict", "op": "rebase"},
    ),
    ("rebase_in_progress", "/rebase", {"type": "rebase_in_progress"}),
    ("target_dirty", "/merge", {}),
]


@pytest.mark.parametrize(("code", "route", "more"), FORMS)
def test_a_conflict_is_told_in_the_form_the_front_end_reads(
    code: str, route: str, more: dict[str, str]
) -> None:
    """A conflict of branches is a 409 whose details are beside its code and hint, never a mistake."""
    response = error_of(
        ConflictError("they conflict", code=code, hint="Solve it."), f"/api/task-attempts/1{route}"
    )
    assert response.status_code == 409
    assert json.loads(bytes(response.body)) == {
        "success": False,
        "data": None,
        "error_data": {"code": code, "hint": "Solve it.", **more},
        "message": "they conflict",
    }
