"""What an agent is told, and what a commit of its work says."""


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
