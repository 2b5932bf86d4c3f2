"""What the benchmarks share: alternating timings, peak memory in fresh processes, a table that names the machine."""

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "_build" / "benchmarks"


def alternate(work: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each piece of work, one after the other and round again, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(repeats + 1):
        for name, do in work.items():
            start = time.perf_counter()
            do()
            if turn:
                seconds[name].append(time.perf_counter() - start)
        progress(f"round {turn} of {repeats}")
    return seconds


def peak_memory(script: str, name: str) -> float | None:
    """MiB that ``script --memory name`` needed in a process of its own, beyond what stood ready; None off Linux."""
    if sys.platform != "linux":
        return None
    done = subprocess.run(
        [sys.executable, script, "--memory", name], stdout=subprocess.PIPE, text=True, check=True, env=os.environ
    )
    progress(f"memory of {name}")
    return float(done.stdout)


def extra_memory(do: Callable[[], Any]) -> float:
    """MiB of resident memory that the second call of ``do`` needs at its peak."""

    def read(what: str) -> int:
        return int(re.search(rf"{what}:\s+(\d+)", Path("/proc/self/status").read_text())[1])

    do()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = read("VmRSS")
    do()
    return (read("VmHWM") - before) / 1024


def publish(name: str, title: str, rows: Sequence[dict[str, Any]], notes: Sequence[str]) -> None:
    """Print the rows as a table, and keep them with machine, versions and date in ``_build/benchmarks``."""
    about = {
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "versions": {package: version(package) for package in ("torch", "numpy", "numba", "transformers")},
        "python": platform.python_version(),
        "date": date.today().isoformat(),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    part = RESULTS / f"{name}.json.part"
    part.write_text(json.dumps({"title": title, "rows": rows, "notes": notes, **about}, indent=1))
    part.replace(RESULTS / f"{name}.json")
    print(f"\n{title}\n{about['machine']}, torch {about['versions']['torch']}, {about['date']}\n")
    columns = list(rows[0])
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join("" if row[c] is None else str(row[c]) for c in columns) + " |")
    print("\n" + "\n".join(notes))


def spread(seconds: Sequence[float]) -> str:
    """Median with the smallest and the largest."""
    return f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"


def progress(text: str) -> None:
    """A line on a terminal, nothing elsewhere."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr)
