"""Which keys seal and open what is in the store: the settings ``encryption`` and ``key_file``."""

import structlog

from anyon.config import Settings
from anyon.storage import keyfiles
from anyon.storage.keys import FileKeys, Keys, PlainKeys, key_file_missing
from anyon.storage.objects import ObjectStore

log = structlog.get_logger(__name__)
_KEEP = "Copy it to another place than the store and this machine: without it nothing can be read."


def keys(settings: Settings, store: ObjectStore) -> Keys:
    """Return the keys that are set for a server, making the key file at its first start.

    MissingError ``key_missing`` where the store needs another key file than the one that is here:
    then none is made, and nothing is written.
    """
    file = settings.keys_path
    if not settings.is_encrypted:
        # What was sealed before encryption was switched off is opened still.
        return FileKeys(file, seals=False) if file.exists() else PlainKeys()
    if not file.exists():
        needed = keyfiles.needed(store)
        if needed is not None:
            raise keyfiles.key_of_store_missing(needed)
        if settings.key_file:
            raise key_file_missing(file)  # it was said where it is: a new one would be a mistake
        if keyfiles.make(file):
            log.warning("keys.made", file=str(file), hint=_KEEP)
    found = FileKeys(file)
    if not keyfiles.is_private(file):
        log.warning("keys.exposed", file=str(file), hint="Others can read it: chmod 600.")
    keyfiles.agree(store, found)
    return found


def opening_keys(settings: Settings, store: ObjectStore) -> Keys:
    """Return keys that open what is in the store, making and marking nothing; errors as ``keys``."""
    file = settings.keys_path
    needed = keyfiles.needed(store)
    if settings.key_file and not file.exists():
        raise key_file_missing(file)
    if not file.exists():
        if needed is not None:
            raise keyfiles.key_of_store_missing(needed)
        return PlainKeys()
    found = FileKeys(file, seals=settings.is_encrypted)
    if needed is not None and needed not in found.ids:
        raise keyfiles.key_of_store_missing(needed)
    return found
