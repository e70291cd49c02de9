"""``anyon tag``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anyon.cli.printing import say, show_json, show_table
from anyon.cli.sessions import Json, ask
from anyon.cli.tasks import given_text
from anyon.sdk.errors import ApiError

if TYPE_CHECKING:
    from anyon.sdk.clients import Client
    from anyon.sdk.models import Tag

app = typer.Typer(help="Tags: texts kept under a name, to put into prompts.", no_args_is_help=True)

TagName = Annotated[str, typer.Argument(help="The tag's name or id.", show_default=False)]
File = Annotated[Path | None, typer.Option(help="Read the text from a file.", show_default=False)]
SHOWN = 60


@app.command("list")
def list_all(
    ctx: typer.Context,
    search: Annotated[
        str, typer.Argument(help="Only those whose name holds this.", show_default=False)
    ] = "",
    as_json: Json = False,
) -> None:
    """List your tags by name."""
    tags = ask(ctx, lambda client: client.tags.list(search), as_json=as_json)
    if as_json:
        show_json(list(tags))
    else:
        show_table(["id", "name", "text"], [(t.id, t.tag_name, _shown(t.content)) for t in tags])


@app.command()
def add(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="What it is called.", show_default=False)],
    content: Annotated[
        str | None, typer.Argument(help="The text; - reads it from stdin.", show_default=False)
    ] = None,
    file: File = None,
    as_json: Json = False,
) -> None:
    """Keep a text under a name."""
    from anyon.sdk.requests import CreateTag  # noqa: PLC0415 - start-up stays quick

    words = given_text(content, file)
    if words is None:
        raise typer.BadParameter("give the text, or --file")
    new = CreateTag(tag_name=name, content=words)
    tag = ask(ctx, lambda client: client.tags.create(new), as_json=as_json)
    if as_json:
        show_json(tag)
    else:
        say(f"made tag {tag.tag_name}")


@app.command()
def edit(
    *,
    ctx: typer.Context,
    tag: TagName,
    content: Annotated[
        str | None, typer.Argument(help="The new text; - reads it from stdin.", show_default=False)
    ] = None,
    file: File = None,
    name: Annotated[str | None, typer.Option(help="A new name.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Change a tag's text or name."""
    from anyon.sdk.requests import UpdateTag  # noqa: PLC0415 - start-up stays quick

    changes = UpdateTag(tag_name=name, content=given_text(content, file))
    if changes.tag_name is None and changes.content is None:
        raise typer.BadParameter("say what to change: a text, --file or --name")

    async def work(client: "Client") -> "Tag":
        return await client.tags.update((await _find(client, tag)).id, changes)

    changed = ask(ctx, work, as_json=as_json)
    if as_json:
        show_json(changed)
    else:
        say(f"changed tag {changed.tag_name}")


@app.command()
def rm(ctx: typer.Context, tag: TagName, as_json: Json = False) -> None:
    """Delete a tag."""

    async def work(client: "Client") -> "Tag":
        found = await _find(client, tag)
        await client.tags.delete(found.id)
        return found

    gone = ask(ctx, work, as_json=as_json)
    if as_json:
        show_json(gone)
    else:
        say(f"deleted tag {gone.tag_name}")


async def _find(client: "Client", name: str) -> "Tag":
    """Return the tag with that id or name."""
    tags: Sequence[Tag] = await client.tags.list()
    fits = [tag for tag in tags if name.lower() == str(tag.id)] or [
        tag for tag in tags if name == tag.tag_name
    ]
    if len(fits) == 1:
        return fits[0]
    if fits:
        ids = ", ".join(str(tag.id) for tag in fits)
        raise ApiError(409, "ambiguous", f"{name!r} fits several tags", f"Name one: {ids}")
    hint = "`anyon tag list` shows what there is."
    raise ApiError(404, "not_found", f"there is no tag {name!r}", hint)


def _shown(content: str) -> str:
    line = " ".join(content.split())
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 1]}…"
