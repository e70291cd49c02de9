"""``SCRIPTED``: a fake coding agent for tests, which does what its prompt spells out.

One directive a line: ``say TEXT``, ``think TEXT``, ``write FILE TEXT``, ``run COMMAND``, ``sleep SECONDS``,
``print TEXT`` and ``warn TEXT`` (as they are, to stdout and stderr), ``fail REASON``, ``exit CODE``.
Any other line is answered with ``I read: …``. It needs a POSIX ``sh`` and ``awk``, no more.
It keeps sessions in HOME: a follow-up of one that is not there fails, as a real agent's does.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from anyon.agents import entries
from anyon.agents.programs import Options, ProgramAgent
from anyon.agents.readers import EventReader, text, whole

_PROGRAM = r"""
json() {
  printf '%s\n' "$1" | awk 'BEGIN { ORS = ""; print "\"" }
    { gsub(/\\/, "\\\\"); gsub(/"/, "\\\""); gsub(/\t/, "\\t"); gsub(/[[:cntrl:]]/, "?")
      if (NR > 1) print "\\n"; print }
    END { print "\"" }'
}
tell() { printf '{"type":"%s","text":%s}\n' "$1" "$(json "$2")"; }
called() { calls=$((calls + 1)); printf '{"type":"%s","call":"%s","text":%s' "$1" "$calls" "$(json "$2")"; }
ended() { printf '{"type":"ended","call":"%s","code":%s,"text":%s}\n' "$calls" "$1" "$(json "$2")"; }
calls=0
sessions=$HOME/.scripted
mkdir -p "$sessions" || exit 70
session=$1
if [ -z "$session" ]; then
  read -r session </proc/sys/kernel/random/uuid
  : >"$sessions/$session"
elif [ ! -f "$sessions/$session" ]; then
  tell fail "No session $session is here."
  exit 66
fi
printf 'turn\n' >>"$sessions/$session"
printf '{"type":"session","text":%s,"turn":%s}\n' "$(json "$session")" "$(awk 'END { print NR }' "$sessions/$session")"
directives=$(cat)
while IFS= read -r line; do
  rest=${line#* }
  case $line in
    '') ;;
    'say '*) tell say "$rest" ;;
    'think '*) tell think "$rest" ;;
    'write '*' '*)
      file=${rest%% *}
      called write "$file"; printf ',"content":%s}\n' "$(json "${rest#* }")"
      mkdir -p "$(dirname "$file")" && printf '%s\n' "${rest#* }" >"$file"
      ended $? '' ;;
    'run '*)
      called run "$rest"; printf '}\n'
      output=$(sh -c "$rest" </dev/null 2>&1)
      ended $? "$output" ;;
    'sleep '*) sleep "$rest" ;;
    'print '*) printf '%s\n' "$rest" ;;
    'warn '*) printf '%s\n' "$rest" >&2 ;;
    'fail '*) tell fail "$rest"; exit 1 ;;
    'exit '*) exit "$rest" ;;
    *) tell say "I read: $line" ;;
  esac
done <<END
$directives
END
"""


class ScriptedReader(EventReader):
    """Reads the events that the script above prints."""

    def event(self, event: Mapping[str, Any]) -> bool:
        """Take one event; say whether it was understood."""
        words = text(event, "text")
        match event.get("type"):
            case "session":
                self.session = words
            case "say":
                self.conversation.add(entries.message("assistant_message", words))
            case "think":
                self.conversation.add(entries.message("thinking", words))
            case "fail":
                self.conversation.fail(words)
            case "write":
                action = entries.file_edit(words, [entries.write(text(event, "content"))])
                self._open(event, entries.tool_use("write", action, words))
            case "run":
                self._open(event, entries.tool_use("run", entries.command_run(words), words))
            case "ended":
                self._close(text(event, "call"), whole(event.get("code")) or 0, words)
            case _:
                return False
        return True

    def _open(self, event: Mapping[str, Any], entry: entries.Entry) -> None:
        self.conversation.open_tool(text(event, "call"), entry)

    def _close(self, call: str, code: int, output: str) -> None:
        entry = self.conversation.tool(call)
        if entry is None:
            return
        action = entry["entry_type"]["action_type"]
        if action["action"] == "command_run":
            action = entries.command_run(action["command"], output=output, code=code)
        status = entries.FAILED if code else entries.SUCCESS
        self.conversation.close_tool(call, entries.with_status(entry, status, action))


def _arguments(_options: Options, session: str | None) -> Sequence[str]:
    return (session,) if session else ()


SCRIPTED = ProgramAgent(
    name="SCRIPTED",
    program=None,
    takes_title=False,
    capabilities=("SESSION_FORK",),
    variants={"DEFAULT": {}},
    kinds={},
    command=lambda _options: ("sh", "-c", _PROGRAM, "scripted"),
    arguments=_arguments,
    new_reader=ScriptedReader,
)
"""Follows the directives of the prompt."""
