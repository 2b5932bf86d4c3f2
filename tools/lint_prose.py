"""Report measured-looking numbers typed in prose, and terms in another spelling than book/style.md gives them.

Usage: python tools/lint_prose.py
"""

import re
import sys
from pathlib import Path

# What is no prose, hidden in this order.
HIDDEN = (
    r"\{[{%#]-? [^\n]*? [#%}]\}",
    r"\A---\n.*?^---\n",
    r"^(`{3,})(?:\w+|\{(?:code-cell|math|raw)\}[^\n]*)\n.*?^\1$",
    r"\$\$.*?\$\$",
    r"\{[\w:-]+\}`[^`]*`|`[^`\n]+`|\]\([^)\s]*\)|https?://\S+|</?[a-z][^>]*>",
    r"^\s*(?:(?::[\w-]+|quote|proof|claims):[^\n]*|\([\w-]+\)=)$|\b(?:eq|ex)-[\w-]+",
    r'"[^"\n]*"',
)
FORMULA = r"(?<!\\)\$([^$]+)\$"
TYPED = r"\s*[-=<>]?\s*[\d.,]+\s*|.*\\(?:approx|simeq|sim)\s*\d+\.\d.*"  # a formula, but a number all the same
NUMBER = r"\d[\d,]*(?:\.\d+)?"
MEASURED = "|".join(
    (
        r"(?<![\d.])\d+\.\d+(?!\.?\d)",
        rf"{NUMBER}\s?(?:\\?%|per cent\b|-fold\b|times\b)",
        rf"{NUMBER}\s?(?:[mµn]?s|min|h|seconds?|minutes?|hours?|days?|[kKMGT]i?B|bytes)\b",
        rf"\bfactors? of {NUMBER}",
        r"(?:\b(?:about|around|roughly|nearly|almost|(?:more|less|fewer) than)|[≈~±])\s*\d[\d,]*\d",
        r"\d[eE][+-]?\d",
    )
)
REFERENCE = r"(?:Eq\.|Fig\.|Sections?|Appendix|Theorem|Lemma|Corollary) [A-Z]?\.?\d[\d.]*"
ALLOWED = {
    REFERENCE: "a place in a paper",
    r"\btolerance(?: of|,)? 0\.\d+": "set in the claim beside it",
    r"\b0\.338\b|\b0\.60[45]\b|\b1\.3 billion\b|\bnoise (?:of standard deviation )?0\.02\b": "printed in the papers",
    r"\b0\.02 as standard deviation": "from paper B's code",
    r"\bpixels/255 times": "a setting of paper B",
    r"\b(?:probability at most|fallen to|loss to|mean loss: to) 1 %": "a level that is asked for",
    r"\bfailure in 10 %|\b[Ee]rror of 10 %\s+(?:would )?takes?|\bat 10 % for each": "a level that is asked for",
    r"\bboundary and 10 % on|\band to 10 % for the trained": "a setting of the check",
    r"\bmay have 1 MiB\b": "the limit that `zonb record` keeps",
    r"\bCC BY 4\.0\b": "the licence's name",
}
KIND = (
    r"(?= (?:methods?|steps?|descent|kernels?|optimis\w+|estimat\w+|gradients?|SGD|updates?|terms?|curves?|models?)\b)"
)
SPELLING = {
    "zeroth order": r"(?i:\bzero-?order|\bzero order)",
    "zeroth-order step, first-order step": rf"\b(?i:zeroth|first) order{KIND}",
    "eNTK": r"\b(?!eNTK)(?i:e-?NTK)\b",
    "NTK, NZK, SPSA, ZO-SGD": r"\b(?:[Nn]tk|[Nn]zk|[Ss]psa|[Zz]o-[Ss]gd|ZO SGD|ZOSGD)\b",
    "LoRA": r"\b(?!LoRA)(?i:lora)\b",
    "ReLU": r"\b(?!ReLU)(?i:relu)\b",
    "LeNet": r"\b(?!LeNets?\b)(?i:lenets?)\b",
    "Johnson–Lindenstrauss, Gauss–Hermite": r"Johnson[- —]Lindenstrauss|Gauss[- —]Hermite",
    "Rademacher": r"\brademacher|\bRadema(?!cher\b)\w+",
    "Gaussian, sub-Gaussian, Student-t": r"\bgaussian|\b[Ss]ub(?:-g|g|G| G| g)aussian|\bStudent'?s? t\b|\bstudent-t",
    "finite difference, central difference": r"\b(?i:finite|central)-differences?\b(?! \w)",
    "step size": r"\b[Ss]tep-?sizes?\b",
    "softmax": r"\b[Ss]oft[- ]max|\bSoftMax",
    "fine-tuning": r"\b[Ff]ine ?tun",
    "minibatch": r"\b[Mm]ini[- ]batch",
    "data set": r"\b[Dd]ata-?sets?\b",
    "forward pass": r"\b[Ff]orward-pass",
    "behaviour, colour, neighbour": r"\b\w*(?i:behavi|col|neighb|fav)or(?!ad)(?:s|ed|ing|hoods?|able)?\b",
    "centre, grey, labelled, modelling": r"\b[Cc]enter(?:s|ed|ing)?\b|\b[Gg]ray\b|\b(?i:label|model)(?:ed|ing)\b",
    "optimise, linearisation, analyse": r"\b(?!\w*(?:siz|priz|seiz))\w+[iy]z(?:e[ds]?|ers?|ing|ations?)\b",
}


def prose(text: str) -> str:
    """The text with all that is no prose replaced by a sign, line by line."""

    def hide(found: re.Match) -> str:
        return "¤" + "\n" * found[0].count("\n")

    for pattern in HIDDEN:
        text = re.sub(pattern, hide, text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(FORMULA, lambda found: found[1] if re.fullmatch(TYPED, found[1]) else hide(found), text)


def places(pattern: str, text: str) -> list[tuple[int, str]]:
    """Line and wording of every match."""
    return [(text.count("\n", 0, found.start()) + 1, found[0]) for found in re.finditer(pattern, text)]


def complaints(text: str) -> list[tuple[int, str]]:
    """What is wrong in a page's source, a line number and a sentence each."""
    shown = prose(text)
    numbers = places(MEASURED, re.sub("|".join(ALLOWED), "¤", shown))
    found = [(line, f"{words!r} is typed; a measured number is glued") for line, words in numbers]
    for right, wrong in SPELLING.items():
        found += [(line, f"{words!r} is written {right!r}") for line, words in places(wrong, shown)]
    return sorted(found)


def main() -> int:
    written = [
        *sorted(Path("notebooks").glob("*.md")),
        *sorted(Path("book").glob("*.md")),
        *sorted(Path("book/pages").glob("*.j2")),
    ]
    pages = {path: path.read_text() for path in [*written, Path("book/errata.yml"), Path("tools/00-template.md")]}
    lines = [f"{path}:{line}: {words}" for path, text in pages.items() for line, words in complaints(text)]
    everything = "\n".join(map(prose, pages.values()))
    lines += [f"no page needs {pattern!r} any more" for pattern in ALLOWED if not re.search(pattern, everything)]
    print("\n".join(lines), end="\n" * bool(lines))
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main())
