"""The host directories that a container is given."""

import os

from anyon.domain.errors import MissingError
from anyon.engines.engine import Mount


def prepare(mount: Mount, *, uid: int, gid: int) -> None:
    """Make a mount's directory if it is not there, and give it to the container's user.

    Only as root, and only one that is root's own at the top: what lies in it is the project's.
    Raises MissingError (code ``mount_missing``) when it can be neither found nor made.
    """
    try:
        mount.source.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0 and not mount.read_only and mount.source.stat().st_uid == 0:
            os.chown(mount.source, uid, gid, follow_symlinks=False)
    except OSError as error:
        raise MissingError(
            f"the directory {mount.source} cannot be given to the container: {error}",
            code="mount_missing",
            hint="make it, writable for the server's user",
        ) from error
