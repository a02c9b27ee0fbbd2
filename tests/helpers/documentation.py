"""The pages of the documentation and their code blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"(?P<before>(?:^(?! *```)[^\n]+\n)*)"  # the paragraph right above the block, or nothing
    r"(?P<gap>\n?)"
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
NOT_RUN = re.compile(r"<!-- not run: (.+) -->\s*\Z")
FILE_NAME = re.compile(r"`([\w/-]+\.(?:yaml|json))`")
INLINE = re.compile(r"`(?:\.venv/bin/)?(skillweave [a-z]+(?: [^`]+)?)`")


@dataclass(frozen=True)
class Block:
    """A code block.

    `file`: the file that the line above the block names, such as "`photos.yaml`:"; empty if none.
    `reason`: why the block cannot run in a test, from `<!-- not run: REASON -->` above it.
    """

    page: Path
    line: int
    language: str
    text: str
    file: str = ""
    reason: str = ""

    @property
    def place(self) -> str:
        """Page and line, for messages."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """The commands of a shell block, each in one line."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def read_blocks(page: Path) -> list[Block]:
    """The code blocks of a page in order."""
    text = page.read_text("utf-8")
    blocks = []
    for match in FENCE.finditer(text):
        before = match["before"]
        reason = NOT_RUN.search(before)
        files = FILE_NAME.findall(before) if before.rstrip().endswith(":") else []
        blocks.append(
            Block(
                page,
                text.count("\n", 0, match.start("text")) + 1,
                match["language"],
                dedent(match["text"]),
                files[-1] if files else "",
                reason[1] if reason else "",
            )
        )
    return blocks


def inline_commands(page: Path) -> list[str]:
    """The `skillweave` commands in the text and the tables of a page."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [" ".join(command.split()) for command in INLINE.findall(text)]
