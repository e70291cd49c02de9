"""Named points at which a server can be told to die, as by a power cut: for tests of what it leaves.

Every step that changes something outside the process ends with ``reached(name)``. That does
nothing, unless the setting ``failpoint`` names the point: then the process kills itself there.
A new point needs its line here and a scenario in the sweep; tests compare the three.
"""

import os
import signal
from collections.abc import Mapping

from anyon.domain.errors import InvalidInputError

POINTS: Mapping[str, str] = {
    "create.recorded": "the record of a new project is there, nothing else",
    "create.directories_made": "its directories are made",
    "create.files_copied": "an imported repository is copied",
    "create.container_up": "its container runs, the repository is not begun",
    "create.repository_made": "its repository is made, cloned or prepared",
    "create.confirmed": "its phase is recorded; the caller has no answer yet",
    "create_undo.container_removed": "a creation is taken back: the container is gone",
    "create_undo.files_discarded": "… its files are in the trash",
    "create_undo.record_removed": "… its record is gone",
    "start.directories_made": "a start has made what was missing of the directories",
    "start.container_made": "the engine has the container",
    "start.container_started": "it runs",
    "start.processes_adopted": "what ran in an earlier life of it has its exit",
    "wake.thawed": "a frozen container runs again",
    "wake.recorded": "a start or thaw is recorded",
    "wake.restoring_recorded": "a wake has recorded that files are brought back first",
    "wake.files_back": "they are back, the container is not started",
    "freeze.foreseen": "what a frozen project may be asked is kept, it is not frozen yet",
    "freeze.frozen": "the container is frozen, the record says otherwise",
    "freeze.recorded": "the freeze is recorded",
    "stop.recorded": "a stop is begun and recorded",
    "stop.thawed": "the container is thawed for it",
    "stop.processes_ended": "what ran in it has ended",
    "stop.foreseen": "what a stopped project may be asked is kept",
    "stop.state_saved": "what they left is in the store (if it answers), the container stands",
    "stop.container_stopped": "the container is stopped, its own end is not saved",
    "stop.exits_given": "every process has its exit",
    "stop.unsaved_recorded": "it is recorded as stopped and unsaved",
    "stop.checkpoint_confirmed": "the store has the checkpoint, the record does not say so",
    "stop.confirmed": "the stop is recorded as saved",
    "archive.state_confirmed": "the store has all of a project that is to be archived",
    "archive.recorded": "the archiving is recorded as begun",
    "archive.container_removed": "its container is gone",
    "archive.files_released": "its files are gone",
    "archive.confirmed": "it is recorded as archived",
    "delete.tombstoned": "a deletion is recorded",
    "delete.processes_abandoned": "its runs are given up",
    "delete.container_stopped": "its container is stopped",
    "delete.state_confirmed": "its last state is in the store",
    "delete.container_removed": "its container is gone",
    "delete.files_discarded": "its files are in the trash",
    "delete.confirmed": "the deletion is recorded as done",
    "undelete.revived": "a deleted project is one again; the caller has no answer yet",
    "purge.checkpoints_removed": "a deleted project is forgotten: nothing of it is in the store",
    "purge.record_removed": "… its record is gone",
    "adopt.processes_read": "a new life of the server has read what ran and what ended",
    "adopt.project_taken_up": "… and has taken up one project",
    "repair.exits_given": "a container was lost: its processes have their exits",
    "repair.recorded": "a phase that was not what was seen is corrected",
    "homes.tree_released": "one tree of an archived project is in the trash",
    "homes.tree_cleared": "a restore has moved one old tree out of the way",
    "homes.tree_replaced": "… and put the new one in its place",
    "homes.trash_emptied": "one entry of the trash is deleted",
    "restore.halted": "a restore that was asked for has stopped the container",
    "restore.saved": "… saved what was there",
    "restore.recorded": "… and recorded what it brings back",
    "restore.files_back": "… put its files in place; they are not the last state in the store",
    "restore.staged": "a checkpoint's files are beside their places, whole",
    "restore.confirmed": "a restore that was asked for is recorded as done",
    "restore.planned": "one tree's directories are made in a staging place",
    "restore.filled": "all contents are written in the staging places",
    "restore.synced": "one staged tree has its attributes and is durable",
    "restore.settled": "one staged tree is renamed to its target",
    "path_restore.saved": "before one path is put back, what is there is in the store",
    "path_restore.recorded": "a project at rest is recorded as unsaved until that is done",
    "path_restore.staged": "what is put back lies beside the tree, whole",
    "path_restore.exchanged": "it is in its place, what was there is beside the tree",
    "path_restore.put_in": "… and in the trash",
    "path_restore.put_back": "nothing is left beside the tree",
    "path_restore.confirmed": "a project at rest is saved with it",
    "worktree_restore.tree_back": "a worktree's files are back",
    "worktree_restore.files_back": "what git knows of it is, too",
    "worktree_restore.recorded": "it is recorded as there",
    "system.looked_at_again": "a save has read what is installed, its container is the same",
    "system.fetched": "what is installed is brought from the store, beside its place",
    "system.cleared": "what was in its place is in the trash",
    "system.put": "it is in its place",
    "system.noted": "it is noted that the next container is to have it",
    "system.container_removed": "the container that is without it is gone",
    "system.container_made": "a new one is made, empty",
    "system.replayed": "what is installed is in it",
    "system.note_removed": "it is noted that nothing waits any more",
    "system.emptied": "its place is empty again",
    "fork.recorded": "the record of a fork is there, nothing else",
    "fork.borrows_written": "the store has the list of those it borrows from",
    "fork.lent": "one of them knows of it",
    "fork.checkpoint_written": "its first checkpoint is written",
    "fork.head_made": "its head names that: it can be restored",
    "fork.claimed": "it is this server's",
    "fork.confirmed": "its phase is recorded; the caller has no answer yet",
    "fork.repaid": "a fork has given back what it borrowed of one project",
    "fork.lender_swept": "… one pack that a deleted project kept for it is deleted",
    "move.halted": "a project that is to be moved is saved and stopped",
    "move.noted": "the move is noted as begun",
    "move.copied": "all files are at the new place, nothing is proven",
    "move.copy_started": "a container runs over the copy",
    "move.proven": "every object in it was read",
    "move.end_noted": "what the copy is, and where the former files go, is noted",
    "move.recorded": "the copy is the project",
    "move.unsaved_recorded": "… and recorded as unsaved",
    "move.source_put_away": "the former files are away",
    "move.readdressed": "an archived project will come back at the new place",
    "rollback.noted": "the way back from a migration is noted as begun",
    "rollback.project_undone": "one project is where it was, its move is forgotten",
    "rollback.unmounted": "… all are, the bucket is not mounted any more",
    "rollback.storage_put_back": "new projects go where they went before the migration",
    "replica.file_put": "one file of the server's replica is in the store",
    "replica.file_dropped": "one that was compacted into another is deleted there",
    "replica.former_dropped": "one file of a former replica is, too",
    "snapshot.copied": "a whole copy of the server's database is made here",
    "snapshot.part_put": "one part of it is in the store",
    "snapshot.written": "its manifest is, too: it counts",
    "snapshot.part_dropped": "one object of an old copy is deleted",
    "recover.fetched": "a lost server's replica is fetched",
    "recover.staged": "its database is made of it, beside its place",
    "recover.taken_up": "all projects are claimed and taken up in it",
    "recover.placed": "it is in its place",
    "recover.succeeded": "the store knows who took the lost server's state up",
    "checkpoint.precopied": "a round of copying is done while the project runs",
    "checkpoint.still": "the project stands still and is read",
    "checkpoint.pack_put": "one pack is in the store",
    "checkpoint.packs_durable": "all packs of a checkpoint are in the store",
    "checkpoint.record_written": "the checkpoint's record is, too",
    "checkpoint.head_moved": "the head names it: it is confirmed",
    "checkpoint.known": "what this machine knows of the store is written down",
    "collection.leased": "a collection has its lease",
    "collection.checkpoint_deleted": "one old checkpoint is deleted",
    "collection.pack_deleted": "one pack that nothing needs is deleted",
    "collection.swept": "all of them are",
    "bubblewrap.recorded": "the embedded engine has recorded a container, nothing runs",
    "bubblewrap.group_made": "… and made its control group",
    "bubblewrap.first_recorded": "its first process is recorded and waits for the word to go on",
    "bubblewrap.launched": "its first process goes on",
    "bubblewrap.ended": "what ran in it has ended, the record says that it runs",
    "bubblewrap.group_removed": "… its control group is gone",
    "bubblewrap.end_recorded": "its end is recorded",
    "bubblewrap.system_removed": "what was installed in a removed container is gone",
    "bubblewrap.forgotten": "… its record is gone",
    "docker.network_ready": "the network of a container is there, the container is not",
    "docker.container_created": "the container is made, not started",
    "docker.container_removed": "a container is removed, its own network (if any) is not",
    "claim.owner_written": "a claim is written, the head does not carry its epoch",
    "claim.head_moved": "the head carries it: the former owner is shut out",
    "claim.released": "a claim is given up",
    "forget.head_deleted": "a project is removed from the store: its head is gone",
    "forget.object_deleted": "… one object of it is gone",
    "takeover.claimed": "a recovery has claimed a project of another server",
    "takeover.recorded": "… and recorded its rows here",
}
"""Every point and what has just happened there, in the past tense of ``noun.past_verb``."""


class _Armed:
    def __init__(self, name: str, hits: int) -> None:
        self.name = name
        self.hits = hits


_armed: _Armed | None = None


def arm(wish: str) -> None:
    """Let this process die at the point *wish*, or at its n-th passing (``name:n``); empty: nowhere.

    InvalidInputError ``unknown_failpoint``.
    """
    global _armed  # noqa: PLW0603 - a process dies once: this is the process's own state
    name, _, count = wish.partition(":")
    if wish and (name not in POINTS or not (count or "1").isdecimal() or int(count or "1") < 1):
        raise InvalidInputError(
            f"there is no failpoint {wish!r}",
            code="unknown_failpoint",
            hint="Give one of anyon.failpoints.POINTS, or NAME:N for its N-th passing.",
        )
    _armed = _Armed(name, int(count or "1")) if wish else None


def reached(name: str) -> None:
    """Note that the step *name* is done; kills this process (KILL) if that is wanted here."""
    if _armed is None or _armed.name != name:
        return
    _armed.hits -= 1
    if _armed.hits == 0:
        os.kill(os.getpid(), signal.SIGKILL)
