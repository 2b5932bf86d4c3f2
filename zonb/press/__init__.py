"""The press: it executes the chapters and prints the book. It uses the mathematics, which knows nothing of it.

Its imports go down only; each module may use those above it:

    chapters      a notebook as source: its parameters and its content key
    book          a book: every path, each chapter, and the run of each
    execute       chapters executed, each once, on this machine or a cluster
    ledger        every claim of the executed book, compared with a published ledger
    records       what is published of runs: claims and figures at full scale, and what they took
    sweep         the claims of a chapter over a grid, as a table and a picture
    end_matter    errata, ledger, map, benchmarks, reproducibility, notation
    chapter_page  the page of a chapter, from its source and its run
    site          all pages, rendered by Jupyter Book
    commands      what each command does
    cli           the command ``zonb``

Nothing is imported here, so that the command line answers without loading torch, and says what to install where the
packages of the extra ``book`` are missing.
"""
