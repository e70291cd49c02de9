"""The front end's own preferences (the interface's ``Config``), one file per user."""

import json
import os
from pathlib import Path
from typing import Any

from anyon.domain.errors import InvalidInputError
from anyon.domain.ids import UserId

VERSION = "v7"
MAX_BYTES = 64 * 1024
_SECRETS = ("pat", "oauth_token")


def defaults(agent: str) -> dict[str, Any]:
    """Return the preferences of a user who has set none.

    The four acknowledgements are true: their dialogs belong to another product.
    """
    return {
        "config_version": VERSION,
        "theme": "SYSTEM",
        "executor_profile": {"executor": agent},
        "disclaimer_acknowledged": True,
        "onboarding_acknowledged": True,
        "github_login_acknowledged": True,
        "telemetry_acknowledged": True,
        "notifications": {
            "sound_enabled": True,
            "push_enabled": True,
            "sound_file": "COW_MOOING",
        },
        "editor": {
            "editor_type": "VS_CODE",
            "custom_command": None,
            "remote_ssh_host": None,
            "remote_ssh_user": None,
        },
        "github": {
            "pat": None,
            "oauth_token": None,
            "username": None,
            "primary_email": None,
            "default_pr_base": "main",
        },
        "analytics_enabled": None,
        "workspace_dir": None,
        "last_app_version": None,
        "show_release_notes": False,
        "language": "BROWSER",
        "git_branch_prefix": "vk",
        "showcases": {"seen_features": []},
    }


def merged(stored: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return *stored* with the known keys of *given*; secrets are never kept here."""
    unlike = [
        key
        for key, value in stored.items()
        if key in given and isinstance(value, dict) != isinstance(given[key], dict)
    ]
    prefix = given.get("git_branch_prefix", "")
    if unlike:
        raise InvalidInputError(f"{', '.join(unlike)}: not of the right form", code="bad_config")
    if not isinstance(prefix, str) or "/" in prefix or len(prefix) > 64 or prefix != prefix.strip():
        raise InvalidInputError(
            "Invalid git branch prefix. Must be a valid git branch name component without slashes.",
            code="bad_branch_prefix",
        )
    result = {key: given.get(key, value) for key, value in stored.items()}
    result["github"] = {**stored["github"], **result["github"], **dict.fromkeys(_SECRETS)}
    return {**result, "config_version": VERSION}


class Preferences:
    """Keeps them below the server's home."""

    def __init__(self, directory: Path, agent: str) -> None:
        self._directory = directory
        self._agent = agent

    def get(self, user: UserId) -> dict[str, Any]:
        """Return a user's preferences."""
        try:
            stored = json.loads(self._file(user).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return defaults(self._agent)
        return merged(defaults(self._agent), stored)

    def put(self, user: UserId, given: dict[str, Any]) -> dict[str, Any]:
        """Keep a user's preferences and return them as kept."""
        try:
            size = len(json.dumps(given, ensure_ascii=False, allow_nan=False).encode())
        except (UnicodeEncodeError, ValueError, RecursionError) as error:
            raise InvalidInputError("the preferences cannot be kept", code="bad_config") from error
        if size > MAX_BYTES:
            raise InvalidInputError("the preferences are too large", code="too_long")
        kept = merged(self.get(user), given)
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = self._file(user).with_suffix(".new")
        new.write_text(json.dumps(kept, indent=1), encoding="utf-8")
        os.replace(new, self._file(user))  # noqa: PTH105 - the atomic one, by its name
        return kept

    def _file(self, user: UserId) -> Path:
        return self._directory / f"{user}.json"
