"""What the documents ask a reader to type, and what they show of it.

Tests run it; `docs/generate.py` writes the output below each command of `quick-start.md`.
"""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.request import urlopen

ROOT: Final = Path(__file__).resolve().parents[1]
PAGES: Final = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks/README.md"]
)
FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CONSOLE: Final = re.compile(r"(?<=^```console\n)(.*?)(?=^```$)", re.MULTILINE | re.DOTALL)
_VARIABLES: Final = r"(?:[A-Z_]+=\S+ )*"
BASH: Final = "/bin/bash"
TOOLS: Final = f"""
holdfast() {{ exec "{sys.executable}" -m flows.cli "$@"; }}
python() {{ exec "{sys.executable}" "$@"; }}
"""
"""Functions of bash for the programs of this environment; each replaces its shell."""


def name_of(page: Path) -> str:
    """Path of a page as it is written in links."""
    return str(page.relative_to(ROOT))


def commands() -> dict[str, str]:
    """Lines that a reader may type, each with the first page that shows it.

    Variables before a command belong to it. Usage lines of the program itself are left out.
    """
    found: dict[str, str] = {}
    for page in sorted(PAGES, key=lambda one: one.name == "CHANGELOG.md"):  # others come first
        text = page.read_text(encoding="utf-8")
        if "<!-- Written by" in text:
            continue
        for line in typed(text):
            found.setdefault(line, name_of(page))
    return found


def typed(text: str) -> list[str]:
    """Lines of the code blocks of a page, and what stands in backticks, also over two lines.

    Lines of `console` blocks are left out, because they hold output as well: `replayed` runs those
    of `quick-start.md`, and those of other pages were copied by hand.
    """
    blocks = [block for language, block in FENCE.findall(text) if language != "console"]
    lines = [line for block in blocks for line in block.splitlines()]
    for paragraph in FENCE.sub("", text).split("\n\n"):
        lines += [" ".join(one.split()) for one in re.findall(r"`([^`]+)`", paragraph)]
    bare = [line.strip().removeprefix("$ ").removeprefix("export ") for line in lines]
    return [line.split("  #")[0].strip() for line in bare]


def without_variables(line: str) -> str:
    """A command without the variables that are set for it."""
    return re.sub(f"^{_VARIABLES}", "", line)


def replayed(text: str, run: Callable[[str], str]) -> str:
    """A page with what `run` printed for each command of its `console` blocks.

    Parameters
    ----------
    text : str
        The page. A command begins with ``$ ``; the lines below it, up to the next one, are its
        output.
    run : callable
        Runs one command, in the order of the page, and returns what it printed.
    """

    def written(block: re.Match[str]) -> str:
        typed = re.findall(r"^\$ (.*)$", block[1], re.MULTILINE)
        return "".join(f"$ {line}\n{_lines(run(line))}" for line in typed)

    return _CONSOLE.sub(written, text)


def _lines(printed: str) -> str:
    """What was printed, without what differs by run and machine: ids, seconds, last digits."""
    printed = re.sub(r"\b[0-9a-f]{32}\b", "...", printed)
    printed = re.sub(r"(\d\.\d{3})\d{5,}", r"\1...", printed)
    printed = re.sub(r"about [\d.]+ s(?= on this machine)", "about 1 s", printed)
    return "".join(f"{line.rstrip()}\n" for line in printed.splitlines())


def run(line: str, folder: Path) -> str:
    """What a command prints on stdout in a folder that has no other state.

    `holdfast` and `python` are those of this environment, and `curl` asks the model that was
    exported to the folder `model`.
    """
    if line.startswith("curl "):
        return answer(line, folder / "model")
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HOLDFAST")}
    return subprocess.run(  # noqa: S603 -- the project's own documents
        [BASH, "-c", TOOLS + line],
        cwd=folder,
        env=kept | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    ).stdout


def answer(line: str, model: Path) -> str:
    """What an exported model answers to a `curl` command that is written for port 8000."""
    port = free_port()
    options = {"MODEL_DIR": str(model), "HOLDFAST__SERVING__PORT": str(port)}
    served = [sys.executable, "-m", "pipeline.serving"]
    log = subprocess.DEVNULL
    environment = os.environ | options
    with subprocess.Popen(served, env=environment, cwd=ROOT, stderr=log) as server:  # noqa: S603 -- our own server
        try:
            wait_for(f"http://127.0.0.1:{port}/ready")
            asked = line.replace("localhost:8000", f"127.0.0.1:{port}")
            return subprocess.run(  # noqa: S603 -- the same documents
                [BASH, "-c", asked], stdout=subprocess.PIPE, check=True, text=True
            ).stdout
        finally:
            server.terminate()


def free_port() -> int:
    """Find a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def wait_for(url: str) -> None:
    """Wait for a server to answer, a minute at most."""
    for _ in range(600):
        with suppress(OSError), urlopen(url):  # noqa: S310 -- on this host
            return
        time.sleep(0.1)
    message = f"{url} must answer within a minute."
    raise TimeoutError(message)
