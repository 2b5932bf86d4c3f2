"""What the benchmarks share: alternating timings, peak memory in fresh processes, a table that names the machine."""

import argparse
import ctypes
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

_TURN = 0.1  # seconds that a turn lasts at least
ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "_build" / "benchmarks"


def parser(repeats: int) -> argparse.ArgumentParser:
    """What every benchmark can be told; with ``--memory`` it is a process of `peak_memory`."""
    options = argparse.ArgumentParser()
    options.add_argument("--repeats", type=int, default=repeats)
    options.add_argument("--memory", help=argparse.SUPPRESS)
    return options


def alternate(work: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each piece of work in each of ``repeats`` rounds; a round does one piece after the other.

    Two rounds before them do not count. Short work is done several times within a round, for a tenth of a second.
    """
    seconds: dict[str, list[float]] = {name: [] for name in work}
    counts = dict.fromkeys(work, 1)
    for turn in range(-1, repeats + 1):
        for name, do in work.items():
            start = time.perf_counter()
            for _ in range(counts[name]):
                do()
            spent = (time.perf_counter() - start) / counts[name]
            if turn > 0:
                seconds[name].append(spent)
            elif turn == 0:
                counts[name] = max(1, round(_TURN / spent))
        progress(f"round {max(turn, 0)} of {repeats}")
    return seconds


def peak_memory(script: str, name: str, *arguments: str, python: str = sys.executable) -> float | None:
    """MiB that ``script --memory name`` needed in a process of its own, beyond what stood ready; None off Linux."""
    if sys.platform != "linux":
        return None
    command = [python, script, "--memory", name, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    progress(f"memory of {name}")
    return float(done.stdout)


def extra_memory(do: Callable[[], Any]) -> float:
    """MiB of resident memory that the second call of ``do`` needs at its peak."""

    def read(what: str) -> int:
        return int(re.search(rf"{what}:\s+(\d+)", Path("/proc/self/status").read_text())[1])

    do()
    ctypes.CDLL(None).malloc_trim(0)  # what the first call freed would hide what the second needs
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = read("VmRSS")
    do()
    return (read("VmHWM") - before) / 1024


def table(
    seconds: dict[str, list[float]], memory: Callable[[str], float | None], columns: dict[str, Callable[[str], str]]
) -> list[dict[str, Any]]:
    """A row for each way: its time, the columns made from its name, and its memory."""
    rows = []
    for name, times in seconds.items():
        row = {"way": name, "time": spread(times), **{head: text(name) for head, text in columns.items()}}
        needed = memory(name)
        rows.append({**row, "extra memory, MiB": None if needed is None else f"{needed:.1f}"})
    return rows


def publish(
    name: str,
    title: str,
    rows: Sequence[dict[str, Any]],
    notes: Sequence[str],
    *,
    versions: dict[str, str] | None = None,
    figure: dict[str, str] | None = None,
) -> None:
    """Print the rows as a table, and keep them with machine, versions and date in ``_build/benchmarks``.

    A ``figure`` is the caption and the alt text of the picture ``name.svg`` beside it.
    """
    about = {
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()}",
        "versions": {package: version(package) for package in ("torch", "numpy", "numba")} | (versions or {}),
        "python": platform.python_version(),
        "date": date.today().isoformat(),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    part = RESULTS / f"{name}.json.part"
    part.write_text(json.dumps({"title": title, "rows": rows, "notes": notes, "figure": figure, **about}, indent=1))
    part.replace(RESULTS / f"{name}.json")
    print(f"\n{title}\n{about['machine']}, torch {about['versions']['torch']}, {about['date']}\n")
    columns = list(rows[0])
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join("" if row[c] is None else str(row[c]) for c in columns) + " |")
    print("\n" + "\n".join(notes))


def spread(seconds: Sequence[float]) -> str:
    """Median with the smallest and the largest, in seconds or milliseconds."""
    scale, unit = (1, "s") if statistics.median(seconds) >= 1 else (1e3, "ms")
    middle, low, high = (f"{scale * x:.3g}" for x in (statistics.median(seconds), min(seconds), max(seconds)))
    return f"{middle} {unit} ({low} to {high})"


def ratio(seconds: Sequence[float], to: Sequence[float]) -> float:
    """Median over the rounds of one time over the other's in the same round: what slows both cancels."""
    return statistics.median(a / b for a, b in zip(seconds, to, strict=True))


def _processor() -> str:
    found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text()) if sys.platform == "linux" else None
    return found[1] if found else platform.machine()


def progress(text: str) -> None:
    """A line on a terminal, nothing elsewhere."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr)
