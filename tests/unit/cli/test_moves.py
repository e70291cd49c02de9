"""Which projects ``anyon migrate to-mount --project`` means, where several users have one of that name."""

from uuid import UUID, uuid4

import pytest

from anyon.cli.migrations import _named
from anyon.sdk.errors import ApiError
from anyon.sdk.lives import Movable


def movable(name: str, user: UUID) -> Movable:
    """Return one that may be moved."""
    return Movable(id=uuid4(), name=name, user_id=user, place="disk")


def test_of_two_with_one_name_none_is_guessed() -> None:
    """A name that two users have is refused with both ids and owners; an id, and a name of its own, are taken."""
    anna, bert = uuid4(), uuid4()
    found = [movable("demo", anna), movable("demo", bert), movable("사이트", bert)]
    with pytest.raises(ApiError) as refused:
        _named(found, "demo")
    assert refused.value.code == "ambiguous"
    for one in found[:2]:
        assert f"{one.id} (of user {one.user_id})" in refused.value.hint
    assert _named(found, str(found[1].id).upper()) is found[1]
    assert _named(found, "사이트") is found[2]
    with pytest.raises(ApiError) as unknown:
        _named(found, "nothing")
    assert unknown.value.code == "not_found"
