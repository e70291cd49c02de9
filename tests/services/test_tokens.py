"""Tokens: shown once, kept as a hash, worthless when revoked or expired."""

from datetime import timedelta

import pytest

from anyon.clock import SystemClock
from anyon.domain.actors import LOCAL_ACTOR, Actor
from anyon.domain.errors import AnyonError, InvalidInputError, UnauthenticatedError
from anyon.domain.ids import UserId, new_id
from anyon.services.tokens import Tokens
from anyon.testing.worlds import World


@pytest.fixture
async def tokens(world: World) -> Tokens:
    """The use cases of a server on which nothing was done before."""
    return world.services.tokens


async def test_a_token_speaks_for_its_user(world: World, tokens: Tokens) -> None:
    """A secret authenticates its user with its scopes, and stands nowhere in the database."""
    token, secret = await tokens.create(LOCAL_ACTOR, "ci", scopes=frozenset({"read"}))
    assert secret.startswith("anyon_")
    actor = await tokens.authenticate(secret)
    assert actor == Actor(LOCAL_ACTOR.user_id, token.id, frozenset({"read"}))
    assert actor.may("read")
    assert not actor.may("write")
    for file in world.home.glob("anyon.db*"):
        assert secret.encode() not in file.read_bytes()
    (listed,) = await tokens.list(LOCAL_ACTOR)
    assert listed.last_used_at is not None


@pytest.mark.parametrize(
    "secret", ["", "anyon_", "x", "anyon_" + "x" * 43, "anyon_\ud800", "a" * 10**6]
)
async def test_bad_secrets(tokens: Tokens, secret: str) -> None:
    """What is no token's secret is refused, whatever it is."""
    with pytest.raises(UnauthenticatedError) as caught:
        await tokens.authenticate(secret)
    assert caught.value.code == "bad_token"


async def test_revoked_tokens(tokens: Tokens) -> None:
    """A revoked token is worthless at once; only its user can revoke it."""
    token, secret = await tokens.create(LOCAL_ACTOR, "ci")
    with pytest.raises(AnyonError) as caught:
        await tokens.revoke(Actor(UserId(new_id())), token.id)
    assert caught.value.code == "token_unknown"
    await tokens.revoke(LOCAL_ACTOR, token.id)
    with pytest.raises(UnauthenticatedError):
        await tokens.authenticate(secret)


async def test_expiry(world: World, tokens: Tokens) -> None:
    """A token is refused once its time and a minute of clock skew are over; it cannot be born expired."""
    now = SystemClock().now()
    with pytest.raises(InvalidInputError):
        await tokens.create(LOCAL_ACTOR, "late", expires_at=now)
    _, secret = await tokens.create(LOCAL_ACTOR, "soon", expires_at=now + timedelta(hours=1))
    later = Tokens(world.db, _Later(timedelta(hours=1, seconds=30)))
    assert await later.authenticate(secret)
    with pytest.raises(UnauthenticatedError) as caught:
        await Tokens(world.db, _Later(timedelta(hours=1, seconds=90))).authenticate(secret)
    assert caught.value.code == "token_expired"


class _Later(SystemClock):
    """A clock that is ahead."""

    def __init__(self, ahead: timedelta) -> None:
        self._ahead = ahead

    def now(self):
        """Return the time, ahead."""
        return super().now() + self._ahead
