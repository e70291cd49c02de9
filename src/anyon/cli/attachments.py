"""``anyon task attach``, ``images`` and ``detach``: the images of a task."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anyon.cli.printing import byte_size, say, show_json, show_table
from anyon.cli.sessions import Json, TaskId, ask
from anyon.cli.tasks import find
from anyon.sdk.errors import ApiError

if TYPE_CHECKING:
    from anyon.sdk.clients import Client
    from anyon.sdk.models import Image


def add_to(app: typer.Typer) -> None:
    """Add these commands to ``anyon task``."""
    app.command()(attach)
    app.command("images")(list_images)
    app.command()(detach)


def attach(
    *,
    ctx: typer.Context,
    task: TaskId,
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Images: png, jpg, gif, webp, bmp or svg.",
            exists=True,
            dir_okay=False,
            readable=True,
            show_default=False,
        ),
    ],
    describe: Annotated[
        bool, typer.Option("--describe", help="Show them in the task's description too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Attach images to a task; print for each the Markdown by which a description shows it to the agent.

    The agent's next run finds them in its worktree, but is told of those only that its prompt shows.
    One that cannot be attached ends it; those before it are attached.
    """
    from anyon.sdk.requests import UpdateTask  # noqa: PLC0415 - start-up stays quick

    async def work(client: "Client") -> "list[Image]":
        found = await find(client, task)
        made = []
        for file in files:
            made.append(await client.images.upload(file.name, _read(file), task=found.id))
            if not as_json:
                say(_shown(made[-1]))
        if describe:
            words = "\n".join(map(_shown, made))
            words = f"{found.description.rstrip()}\n\n{words}" if found.description else words
            await client.tasks.update(found.id, UpdateTask(description=words))
        return made

    made = ask(ctx, work, as_json=as_json)
    if as_json:
        show_json(made)


def list_images(ctx: typer.Context, task: TaskId, as_json: Json = False) -> None:
    """List the images that are attached to a task."""

    async def work(client: "Client") -> "list[Image]":
        return list(await client.images.of_task((await find(client, task)).id))

    found = ask(ctx, work, as_json=as_json)
    if as_json:
        show_json(found)
    else:
        rows = [
            (one.id, one.original_name, one.mime_type, byte_size(one.size_bytes), one.file_path)
            for one in found
        ]
        show_table(["id", "name", "type", "size", "file"], rows)


def detach(
    *,
    ctx: typer.Context,
    task: TaskId,
    image: Annotated[str, typer.Argument(help="The image's id, or its name.", show_default=False)],
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete it too, and so from all tasks.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Take an image from a task."""
    from anyon.sdk.requests import UpdateTask  # noqa: PLC0415 - start-up stays quick

    async def work(client: "Client") -> "Image":
        found = await find(client, task)
        attached = await client.images.of_task(found.id)
        chosen = _chosen(attached, image)
        kept = [one.id for one in attached if one.id != chosen.id]
        await client.tasks.update(found.id, UpdateTask(image_ids=kept))
        if delete:
            await client.images.delete(chosen.id)
        return chosen

    gone = ask(ctx, work, as_json=as_json)
    if as_json:
        show_json(gone)
    else:
        say(f"{'deleted' if delete else 'detached'} image {gone.id}: {gone.original_name}")


def _shown(image: "Image") -> str:
    name = image.original_name.replace("[", "(").replace("]", ")")  # they end the name in Markdown
    return f"![{name}]({image.file_path})"


def _chosen(attached: "Sequence[Image]", name: str) -> "Image":
    fits = [one for one in attached if name in {str(one.id), one.original_name}]
    if len(fits) == 1:
        return fits[0]
    hint = "`anyon task images <task>` shows what there is."
    if fits:
        ids = ", ".join(str(one.id) for one in fits)
        raise ApiError(409, "ambiguous", f"{name!r} fits several images", f"Name one: {ids}")
    raise ApiError(404, "not_found", f"there is no image {name!r} at the task", hint)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be read: {error}") from None
