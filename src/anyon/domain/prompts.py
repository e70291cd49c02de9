"""What an agent is told, and what a commit of its work says."""

import re
from collections.abc import Sequence

from anyon.domain.pictures import FOLDER, MOST_OF_TASK

_PICTURE = re.compile(
    r"(!\[[^\]\n]{0,4096}\]\()" + re.escape(FOLDER) + r"/([^()\s/]{1,255})(?=[)\s])"
)


def of_task(title: str, description: str | None, *, takes_title: bool = True) -> str:
    """Return the prompt of a task: its title, and its description if there is one.

    Where the agent's prompt is a script (not *takes_title*) the description stands alone.
    """
    if description is None or not description.strip():
        return title
    return f"{title}\n\n{description}" if takes_title else description


def commit_message(title: str, description: str | None = None) -> str:
    """Return a commit's message: the title cut to one line of 72 characters, then the description."""
    line = title if len(title) <= 72 else title[:71] + "…"
    rest = (description or "").strip()
    if not rest or rest == title:
        return line
    return f"{line}\n\n{rest[:10_000]}"


def pictures_in(prompt: str) -> Sequence[str]:
    """Return the files that a prompt shows (``![name](.vibe-images/file)``), each once; the first 100."""
    found = dict.fromkeys(match[2] for match in _PICTURE.finditer(prompt))
    return list(found)[:MOST_OF_TASK]


def with_pictures_of(prompt: str, worktree: str) -> str:
    """Return a prompt whose pictures are named by their whole paths: agents look from anywhere."""
    return _PICTURE.sub(lambda match: f"{match[1]}{worktree}/{FOLDER}/{match[2]}", prompt)
