"""A git in front of git that dies at a chosen call, taking every process of the sandbox along.

It stands for kill -9 of the container at any point between two git commands; ``Killer.smudging``
stands for one in the middle of writing files.
"""

from dataclasses import dataclass

from anyon.domain.errors import AnyonError
from anyon.testing.git_sandboxes import SandboxedCommands
from anyon.testing.git_trials import Trial

_SHIM = """#!/bin/sh
count=$HOME/count
read -r when moment <"$HOME/plan" || when=0
until mkdir "$count.lock" 2>/dev/null; do sleep 0.01; done  # two may run at once
number=$(($(cat "$count") + 1))
echo "$number" >"$count"
rmdir "$count.lock"
die() { kill -9 -1; kill -9 $$; }
if [ "$number" = "$when" ] && [ "$moment" = before ]; then die; fi
/usr/bin/git "$@"
code=$?
if [ "$number" = "$when" ] && [ "$moment" = after ]; then die; fi
exit "$code"
"""
# A smudge filter that kills git itself at the n-th file, after a part of the work is done.
_SMUDGE = """#!/bin/sh
count=$HOME/smudged
number=$(($(cat "$count") + 1))
echo "$number" >"$count"
if [ "$number" = "$(cat "$HOME/smudge-at")" ]; then kill -9 -1; kill -9 $$; fi
cat
"""


@dataclass
class Killer:
    """Kills what runs in a trial's sandbox at a chosen moment."""

    trial: Trial
    sandbox: SandboxedCommands

    async def prepare(self) -> None:
        """Put the shim before git, doing nothing yet."""
        home = self.sandbox.home(self.trial.project)
        for name, text in (("git", _SHIM), ("smudge", _SMUDGE)):
            program = home / "shim" / name
            program.parent.mkdir(exist_ok=True)
            program.write_text(text)
            program.chmod(0o755)
        self.disarm()

    def arm(self, call: int, moment: str = "before") -> None:
        """Die *before* or *after* the given call of git (1 is the first)."""
        self.sandbox.path = "/home/anyon/shim:"
        self._set(plan=f"{call} {moment}", count="0")

    def arm_smudge(self, file: int) -> None:
        """Die while git writes the given file (1 is the first) through the filter."""
        self._set(**{"smudge-at": str(file), "smudged": "0"})

    def disarm(self) -> None:
        """Let git be git."""
        self.sandbox.path = ""
        self._set(**{"plan": "0 never", "count": "0", "smudge-at": "0", "smudged": "0"})

    def _set(self, **files: str) -> None:
        home = self.sandbox.home(self.trial.project)
        for name, text in files.items():
            (home / name).write_text(f"{text}\n")


def was_killed(error: AnyonError) -> bool:
    """Say whether the error tells of an operation that was cut off."""
    return error.code == "git_interrupted"
