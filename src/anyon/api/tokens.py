"""Routes of tokens, and the key that this machine's own command line finds."""

from pathlib import Path
from uuid import UUID

from fastapi import APIRouter, Depends

from anyon.api import shapes
from anyon.api.contexts import ActorOf, ContextOf, actor_of
from anyon.domain.actors import ALL, LOCAL_ACTOR, Actor
from anyon.domain.errors import InvalidInputError, NotAllowedError, UnauthenticatedError
from anyon.domain.ids import TokenId
from anyon.sdk import models, requests
from anyon.sdk.models import Envelope
from anyon.services import Services

router = APIRouter(prefix="/api/tokens", tags=["tokens"], dependencies=[Depends(actor_of)])

SCOPES = frozenset({ALL, "read", "write"})
"""``read`` looks, ``write`` changes, ``*`` does both and makes tokens."""


KEY_FILE = "token"
"""The file in the server's home that holds the key of this machine's own command line."""


async def keep_local_token(services: Services, home: Path) -> None:
    """Keep a good token in the home, readable for its owner alone.

    Without it nobody could make the first token of a server that asks for tokens: who can read
    the home could read the database too.
    """
    file = home / KEY_FILE
    try:
        await services.tokens.authenticate(file.read_text(encoding="ascii").strip())
    except (OSError, ValueError, UnauthenticatedError):
        _, secret = await services.tokens.create(LOCAL_ACTOR, "this machine's command line")
        new = file.with_suffix(".new")
        new.unlink(missing_ok=True)
        new.touch(mode=0o600)
        new.write_text(secret + "\n", encoding="ascii")
        new.rename(file)


@router.get("")
async def list_tokens(context: ContextOf, actor: ActorOf) -> Envelope[list[models.Token]]:
    """Return the caller's tokens, never their secrets."""
    _may_manage(actor)
    found = await context.services.tokens.list(actor)
    return Envelope.of([shapes.token(token) for token in found])


@router.post("")
async def create_token(
    context: ContextOf, actor: ActorOf, asked: requests.CreateToken
) -> Envelope[models.NewToken]:
    """Make a token; its secret is in this answer and never again."""
    _may_manage(actor)
    scopes = frozenset(asked.scopes or {ALL})
    if not scopes <= SCOPES:
        raise InvalidInputError(
            "a scope is not known", code="scope_unknown", hint="Known: read, write, *."
        )
    token, secret = await context.services.tokens.create(
        actor, asked.name, expires_at=asked.expires_at, scopes=scopes
    )
    return Envelope.of(models.NewToken(token=shapes.token(token), secret=secret))


@router.delete("/{token_id}")
async def revoke_token(context: ContextOf, actor: ActorOf, token_id: UUID) -> Envelope[None]:
    """End a token at once."""
    _may_manage(actor)
    await context.services.tokens.revoke(actor, TokenId(str(token_id)))
    return Envelope.of(None)


def _may_manage(actor: Actor) -> None:
    """A limited token must not make itself an unlimited one."""
    if not actor.may(ALL):
        raise NotAllowedError("this token may not manage tokens", code="scope_missing")
