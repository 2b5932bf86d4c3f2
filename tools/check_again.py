"""Execute chapters again and hold their claims against the stored results: once more as they ran, and on other threads.

Usage: python tools/check_again.py [--seed N] [--cache] [CHAPTER ...]

Every chapter runs alone and in a random order, twice: with the number of threads that its stored result has, where each
claim must be identical (but for those about memory), and with another number, where `zonb verify` must accept it. No
result is stored, and no trained network is taken from the stored runs, unless --cache asks for it.
"""

import argparse
import os
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

import nbformat

from zonb.press.book import Book, RunnerError
from zonb.press.execute import execute_alone
from zonb.press.ledger import OUTCOMES, collect, compare, worded, wording

MEMORY = "A.memory-"  # claims about megabytes, which no two runs share
COLUMNS = "{:<24} {:>7} {:>9} {:>6} {:>16} {:>6} {:>7} {:>7}"


def main(options: argparse.Namespace) -> int:
    book = Book.find(Path.cwd())
    entries = wording(book)
    runs = [item for item in book.runs if not options.chapter or item.chapter.slug.split("-")[0] in options.chapter]
    if not runs or not all(item.done for item in runs):
        raise RunnerError("a chapter has no result to compare with, or its number is unknown; run 'zonb book' first")
    jobs = [(item, as_before) for item in runs for as_before in (True, False)]
    random.Random(options.seed).shuffle(jobs)
    print(f"seed {options.seed}\n" + COLUMNS.format("chapter", "threads", "identical", *OUTCOMES), flush=True)
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        for item, as_before in jobs:
            stored = item.result()
            own = int(stored.metadata["zonb"]["threads"] or 1)
            threads = own if as_before else 1 if own > 1 else max(2, os.cpu_count() or 1)
            os.environ["ZONB_CACHE"] = str(book.cache) if options.cache else f"{folder}/{threads}"
            slug, outcome = item.chapter.slug, execute_alone(item, threads)
            again = nbformat.reads(outcome.notebook, as_version=4)
            old, new = (worded(collect(notebook.cells, slug), entries) for notebook in (stored, again))
            identical = {row["id"] for row in new if row in old}
            rows = compare(old, new)
            counts = Counter(row["outcome"] for row in rows)
            print(COLUMNS.format(slug, threads, len(identical), *(counts[name] for name in OUTCOMES)), flush=True)
            wrong += [f"{slug}, {threads} threads: {outcome.error}"] if outcome.error else []
            for row in rows:
                must_be_identical = as_before and not row["id"].startswith(MEMORY)
                accepted = row["outcome"] in ("same", "within tolerance")
                if not (row["id"] in identical if must_be_identical else accepted):
                    wrong.append(f"{slug}, {threads} threads: {row['said']}" + ", but not identical" * accepted)
    print("\n".join(wrong) if wrong else "as stored")
    return bool(wrong)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chapter", nargs="*", help="numbers, such as 01 05; all if none")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="of the order; drawn if not given")
    parser.add_argument("--cache", action="store_true", help="take trained networks from _build/cache")
    try:
        sys.exit(main(parser.parse_args()))
    except RunnerError as error:
        sys.exit(f"check_again: {error}")
