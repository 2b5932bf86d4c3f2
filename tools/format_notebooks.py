"""Format the code cells of the chapters and of their template with ruff, or check that they are, and lint them.

Usage: python tools/format_notebooks.py [--check]
"""

import subprocess
import sys
from pathlib import Path

import jupytext

RUFF = [sys.executable, "-m", "ruff"]
WIDTH = "--line-length=75"  # what fits the page's column
PARAMETERS = "--line-length=320"  # a parameter and its range stand on one line
# Imports stand in one cell; loops over pairs of equal length and lines of prose need no comment.
LINT = ["check", "--quiet", "--ignore=E402,E501,B905,D100,D103,RUF001,SIM300", "-"]


def ruff(arguments: list[str], code: str) -> str:
    done = subprocess.run([*RUFF, *arguments], input=code, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return done.stdout


def main(check: bool) -> int:
    unformatted = []
    for path in [*sorted(Path("notebooks").glob("*.md")), Path("tools/00-template.md")]:
        notebook = jupytext.read(path)
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        ruff([*LINT, f"--stdin-filename={path.stem}.py"], "\n\n".join(cell.source for cell in cells) + "\n")
        for cell in cells:
            width = PARAMETERS if "parameters" in cell.metadata.get("tags", []) else WIDTH
            cell.source = ruff(["format", width, "--quiet", "-"], cell.source).rstrip("\n")
        text = jupytext.writes(notebook, fmt="md:myst")
        if text != path.read_text():
            unformatted.append(str(path))
            if not check:
                path.write_text(text)
    if check and unformatted:
        print(f"not formatted: {', '.join(unformatted)}; run 'make format'")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] == ["--check"]))
