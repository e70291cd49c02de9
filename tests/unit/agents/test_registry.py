"""Which agents there are, and how each is started."""

import subprocess
from pathlib import Path

import pytest

from anyon.agents.registry import find, registry
from anyon.domain.errors import InvalidInputError


@pytest.mark.parametrize(
    ("name", "wire"),
    [
        ("CLAUDE_CODE", "CLAUDE_CODE"),
        ("claude-code", "CLAUDE_CODE"),
        ("qwen_code", "QWEN_CODE"),
        ("CURSOR", "CURSOR_AGENT"),
        ("cursor", "CURSOR_AGENT"),
        ("shell", "SHELL"),
    ],
)
def test_names_are_forgiving(name: str, wire: str) -> None:
    """The wire's names are found in any case, with dashes, and Cursor by its short name."""
    assert find(name).name == wire


def test_an_unknown_agent_is_refused() -> None:
    """The refusal has a stable code and lists what is known."""
    with pytest.raises(InvalidInputError) as caught:
        find("nobody")
    assert caught.value.code == "agent_unknown"
    assert "CLAUDE_CODE" in caught.value.hint


@pytest.mark.parametrize("agent", registry().values(), ids=lambda agent: agent.name)
def test_every_variant_can_be_launched(agent) -> None:
    """Each has a DEFAULT; each variant gives a command; the prompt is in stdin, never in argv."""
    assert "DEFAULT" in agent.variants
    for variant in agent.variants.values():
        launch = agent.launch("--secret prompt", variant=variant, session_id="a-session")
        assert launch.argv[0]
        assert not any("secret prompt" in word for word in launch.argv)
        assert launch.stdin == b"--secret prompt"


def test_the_wire_s_variants_are_there() -> None:
    """The names and settings of the built-in variants are an interface that clients know."""
    agents = registry()
    assert agents["CLAUDE_CODE"].variants["PLAN"] == {"plan": True}
    assert agents["CODEX"].variants["HIGH"]["model_reasoning_effort"] == "high"
    assert set(agents["CURSOR_AGENT"].variants) == {
        "DEFAULT",
        "SONNET_4_5",
        "SONNET_4_5_THINKING",
        "OPUS_4_1",
        "GPT_5",
        "GROK",
    }
    assert agents["COPILOT"].variants["CLAUDE_SONNET_4_5"]["model"] == "claude-sonnet-4.5"
    assert agents["CURSOR_AGENT"].capabilities == ("SETUP_HELPER",)
    assert agents["OPENCODE"].capabilities == ()


def test_settings_shape_the_command() -> None:
    """Model, permissions, override, additional words and the prompt's appendix all take effect."""
    variant = {
        "plan": True,
        "model": "opus",
        "base_command_override": "npx -y 'some package'",
        "additional_params": ["--x", "y"],
        "append_prompt": " PLEASE",
        "unknown": 1,
    }
    launch = find("claude-code").launch("do it", variant=variant, session_id="s")
    assert launch.argv[:4] == ["npx", "-y", "some package", "-p"]
    assert launch.argv[-2:] == ["--x", "y"]
    joined = " ".join(launch.argv)
    assert "--permission-mode plan" in joined
    assert "--model opus" in joined
    assert "--resume s" in joined
    assert "--dangerously-skip-permissions" not in joined
    assert launch.stdin == b"do it PLEASE"


def test_a_word_that_codex_gave_up_is_replaced() -> None:
    """The wire's strictest approval is one that Codex refuses to start with; it gets its next."""
    codex = find("codex")
    launch = codex.launch("x", variant=codex.variants["APPROVALS"])
    assert 'approval_policy="on-request"' in launch.argv


@pytest.mark.parametrize(
    ("agent", "variant"),
    [
        ("claude-code", {"plan": "yes"}),
        ("codex", {"sandbox": "everything"}),
        ("codex", {"additional_params": "--x"}),
        ("amp", {"base_command_override": "'"}),
        ("amp", {"base_command_override": " "}),
        ("copilot", {"model": "a\0b"}),
    ],
)
def test_a_wrong_setting_is_refused(agent: str, variant: dict[str, object]) -> None:
    """A setting of the wrong type, or a word that is none of the choices, is a clear error."""
    with pytest.raises(InvalidInputError) as caught:
        find(agent).launch("x", variant=variant)
    assert caught.value.code == "agent_setting_invalid"


def run(
    name: str, prompt: str, home: Path, session: str | None = None
) -> tuple[int, str, str | None]:
    """Run an agent that needs no program; return its code, what it showed and its session."""
    agent = find(name)
    launch = agent.launch(prompt, variant={}, session_id=session)
    env = {"PATH": "/usr/bin:/bin", "HOME": str(home), **launch.env}
    done = subprocess.run(
        launch.argv, input=launch.stdin, capture_output=True, cwd=home, env=env, check=False
    )
    reader = agent.reader()
    reader.feed(done.stdout)
    reader.feed(done.stderr, stderr=True)
    reader.finish(done.returncode)
    return done.returncode, done.stdout.decode(), reader.session_id


def test_shell_runs_the_prompt_as_a_script(tmp_path: Path) -> None:
    """A command that reads stdin does not eat the script, its exit code is the script's, length is free."""
    script = f"cat; echo 안녕 >out\n# {'x' * 300_000}\ncat out\nexit 7"
    code, output, _ = run("shell", script, tmp_path)
    assert (code, output) == (7, "안녕\n")


def test_scripted_follows_its_directives(tmp_path: Path) -> None:
    """It writes, runs, speaks and ends as told, and takes up only a session that is there."""
    prompt = 'say hi "x"\nwrite d/a.txt one two\nrun cat d/a.txt\nexit 3'
    code, _, session = run("scripted", prompt, tmp_path)
    assert code == 3
    assert (tmp_path / "d" / "a.txt").read_text() == "one two\n"
    assert session
    code, output, again = run("scripted", "say more", tmp_path, session)
    assert (code, again) == (0, session)
    assert '"turn":2' in output
    assert run("scripted", "say more", tmp_path, "unknown")[0] != 0
