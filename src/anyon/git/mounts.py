"""Settings that git needs on a mounted bucket, and their undoing on a local disk.

A bucket keeps no modes, no inode numbers and no change times, and knows no hard links; its
directories' times do not tell of new files; every loose object is a request.
"""

from anyon.git.commands import Commands

_SETTINGS = {
    # Every file has the mount's mode: what it says is no change.
    "core.fileMode": "false",
    # Only size and modification time outlive a new mount: else each would make git read every file.
    "core.checkStat": "minimal",
    "core.trustctime": "false",
    # A link is refused each time before the rename is tried.
    "core.createObject": "rename",
    "core.untrackedCache": "false",
    "core.fsmonitor": "false",
    "core.preloadIndex": "true",
    # Collection rewrites and deletes by the thousand, and would do so in the middle of a task.
    "gc.auto": "0",
    "maintenance.auto": "false",
}
_SET = 'repository\nwhile [ $# -gt 0 ]; do git config --local "$1" "$2"; shift 2; done\n'
# fileMode is git's own word, so it gets the value that `git init` would find; the rest goes.
_UNSET = (
    "repository\ngit config --local core.fileMode true\n"
    'for name; do git config --local --unset-all "$name" || [ $? -eq 5 ]; done\n'
)
# The index knows what git was told to be executable; a bucket could not keep it.
_RESTORE_MODES = (
    "repository\n"
    'git worktree list --porcelain | sed -n "s/^worktree //p" | while IFS= read -r tree; do\n'
    '  [ -d "$tree" ] || continue\n'
    '  (cd -- "$tree" && git ls-files -s -z | sed -z -n "s/^100755 [^\t]*\t//p" |\n'
    '    xargs -0 -r sh -c \'for file; do [ -L "$file" ] || [ ! -f "$file" ] || chmod +x -- "$file"; done\' sh)\n'
    "done\n"
)


async def fit_to_mount(commands: Commands) -> None:
    """Set what git needs on a mounted bucket; the repository's own settings file keeps it."""
    pairs = [word for pair in _SETTINGS.items() for word in pair]
    async with commands.writing:
        await commands.write(_SET, *pairs)


async def fit_to_disk(commands: Commands) -> None:
    """Undo ``fit_to_mount``, and make executable again what the index says is so."""
    names = [name for name in _SETTINGS if name != "core.fileMode"]
    async with commands.writing:
        await commands.write(_UNSET, *names)
        await commands.write(_RESTORE_MODES)
