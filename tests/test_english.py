import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BANNED = {
    r'"""(The same|Those|That|Of) ': "says nothing when it is read alone",
    r"\btold\b": "name who says what",
    r"\bis no (number|label|mistake|text)\b": "say what it is",
    r"must be there\b|must answer\.": "start with the fact: it does not exist, it does not answer",
    r"\b[Cc]ome again\b": "retry",
    r"\bIt has not\.|\bIt is not\.": "start with the fact",
}
"""Phrases that readers stumbled over, and what to write in their place."""


def tracked(*patterns):
    command = ["git", "ls-files", "--", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def test_words_are_spelled_right():
    texts = [str(path) for path in tracked("*.py", "*.md", "*.yaml", "*.j2", "*.toml", "Makefile")]
    done = subprocess.run(
        [sys.executable, "-m", "codespell_lib", *texts],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout


def test_no_text_holds_a_phrase_that_readers_stumbled_over():
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]} ({instead})"
        for path in tracked(
            "pipeline/*", "flows/*", "docs/*", "README.md", "*.md", "benchmarks/*.py"
        )
        if path.suffix in {".py", ".md", ".j2"}
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        for phrase, instead in BANNED.items()
        if re.search(phrase, line)
    ]

    assert found == []
