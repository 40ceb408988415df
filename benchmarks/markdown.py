"""Tables of markdown, and their places in a file. Knows no measurement."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

README = Path(__file__).parent / "README.md"


def number(value: float, digits: int) -> str:
    """A number as it stands in a table."""
    return f"{value:,.{digits}f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table: names at the left, numbers at the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def replace_part(path: Path, name: str, text: str) -> None:
    """Put a text between the two markers of a part of a file.

    Raises:
        ValueError: there are no such markers.
    """
    start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, found, rest = path.read_text(encoding="utf-8").partition(start)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise ValueError(f"{path} has no part {start.strip()} ... {end}")
    path.write_text(f"{before}{start}\n{text.strip()}\n\n{end}{after}", encoding="utf-8")
