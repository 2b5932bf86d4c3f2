"""The command ``zonb``: list, run, sweep, book, record, times, verify, ledger, fetch."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, 2 if a package is missing."""
    options = _parser().parse_args(arguments)
    try:
        from zonb.press import commands

        status = commands.perform(options)
        sys.stdout.flush()
        return status
    except ModuleNotFoundError as error:  # installed for its mathematics alone
        if (error.name or "zonb").split(".")[0] == "zonb":
            raise
        print(f"zonb: there is no package {error.name}; pip install 'zonb[book]' brings it", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("zonb: interrupted; what had finished is kept", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="zonb", description="Execute the chapters and build the book.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(command=name)
        if name != "fetch":
            command.add_argument(
                "--profile", default="quick", help="quick (the notebooks' defaults) or the name of a file in profiles/"
            )
        if name in ("run", "sweep", "book", "record"):
            command.add_argument("--scheduler", metavar="ADDRESS", help="a Dask scheduler, such as tcp://host:8786")
            command.add_argument("--workers", type=int, help="chapters executed at a time on this machine")
        if name in ("run", "sweep", "record"):
            many = "+" if name == "run" else None
            command.add_argument("chapter", nargs=many, help="number, name or file, such as 02 or 02-projected-kernel")
            command.add_argument("-p", "--parameter", action="append", default=[], metavar="NAME=VALUE")
        return command

    add("list", "The chapters and their parameters.")
    add("run", "Execute chapters, with other parameters if given.")
    sweep = add("sweep", "Execute one chapter at every point of a grid, and collect its claims in a table.")
    sweep.add_argument("-g", "--grid", action="append", required=True, metavar="NAME=V1,V2,...")
    sweep.add_argument("--plot", metavar="CLAIM", help="draw this claim over the grid")
    add("book", "Execute what has changed, then build the site in _build/html.")
    add("record", "Publish a full-scale run of a chapter in book/records, as a page of the site.")
    add("times", "Publish what the chapters took under a profile in book/records, for their pages.")
    check = add("verify", "Compare this machine's ledger with a published one, and write a receipt.")
    check.add_argument("ledger", nargs="?", help="what 'zonb ledger --json' wrote; by default the one in book/records")
    check.add_argument("--all", action="store_true", help="list claims with the same numbers, too")
    add("ledger", "Print every claim with what came of it.").add_argument("--json", action="store_true")
    fetch = add("fetch", "Put pretrained weights into the folder ZONB_DATA.")
    fetch.add_argument("name", help="smollm2-135m or gemma3-270m")
    fetch.add_argument("--accept-licence", action="store_true", help="agree to the terms that it shows without this")
    return parser


if __name__ == "__main__":
    sys.exit(main())
