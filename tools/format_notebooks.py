"""Format the code cells of the chapters and of their template with ruff, or check that they are, and lint them.

Usage: python tools/format_notebooks.py [--check]
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import jupytext

RUFF = [sys.executable, "-m", "ruff"]
FORMAT = ["format", "--quiet", "--line-length=75"]  # what fits the page's column
# Loops over pairs of equal length and lines of prose need no comment.
LINT = ["check", "--quiet", "--config=pyproject.toml", "--ignore=E501,B905,D100,D103,RUF001,SIM300"]


def main(check: bool) -> int:
    notebooks = {
        path: jupytext.read(path) for path in [*sorted(Path("notebooks").glob("*.md")), Path("tools/00-template.md")]
    }
    with tempfile.TemporaryDirectory() as folder:
        copies = {path: Path(folder) / f"{path.stem}.ipynb" for path in notebooks}
        for path, notebook in notebooks.items():
            jupytext.write(notebook, copies[path])
        for arguments in (LINT, FORMAT):
            if subprocess.run([*RUFF, *arguments, folder]).returncode:
                return 1
        for path, notebook in notebooks.items():
            for cell, formatted in zip(notebook.cells, jupytext.read(copies[path]).cells, strict=True):
                # A parameter and its range stand on one line, however long it is.
                if cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", []):
                    cell.source = formatted.source
    texts = {path: jupytext.writes(notebook, fmt="md:myst") for path, notebook in notebooks.items()}
    unformatted = [path for path, text in texts.items() if text != path.read_text()]
    if unformatted and check:
        print(f"not formatted: {', '.join(map(str, unformatted))}; run 'make format'")
        return 1
    for path in unformatted:
        path.write_text(texts[path])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] == ["--check"]))
