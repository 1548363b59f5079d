"""What a shell is told completes a command line, asked of a real shell."""

import subprocess
from pathlib import Path

import pytest

from llava_pose.cli import main


def test_a_shell_completes_commands_options_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["completion", "bash"])
    (tmp_path / "complete").write_text(capsys.readouterr().out)
    (tmp_path / "photo.png").touch()

    def completed(*words: str) -> set[str]:
        line = " ".join(f"'{word}'" for word in words)
        commands = f"""
            source complete; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}
            function=$(complete -p llava-pose | sed 's/.*-F \\([^ ]*\\).*/\\1/'); $function llava-pose
            printf '%s\\n' "${{COMPREPLY[@]}}" """
        done = subprocess.run(["bash", "-c", commands], cwd=tmp_path, capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    assert {"predict", "chat", "serve", "info"} <= completed("llava-pose", "")
    assert completed("llava-pose", "pr") == {"predict"}
    assert completed("llava-pose", "chat", "--s") == {"--save"}
    assert "photo.png" in completed("llava-pose", "predict", "pho")
    for shell in ("zsh", "tcsh"):
        main(["completion", shell])
        assert "llava-pose" in capsys.readouterr().out
