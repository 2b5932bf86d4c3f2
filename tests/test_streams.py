import copy
import hashlib
import math

import numpy as np
import pytest
import torch
from scipy import stats

from zonb import directions, streams
from zonb.streams import Stream

LAWS = [directions.gaussian, directions.rademacher]


def entries(law, size, *, seed=3, step=5, p=2, parameter=1):
    zeros = torch.zeros(size)
    Stream(law, seed, step).add(zeros, zeros, [1.0], first=p, parameter=parameter)
    return zeros


def philox(counter, key):
    c, k = list(counter), list(key)
    for _ in range(10):
        low, high = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [high >> 32 ^ c[1] ^ k[0], high & 0xFFFFFFFF, low >> 32 ^ c[3] ^ k[1], low & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def naive(law, size, *, seed, step, p, parameter):
    """One entry at a time, in Python's integers and doubles."""
    key, rest, out = (seed & 0xFFFFFFFF, seed >> 32), (parameter, step, p), []
    for k in range(size):
        block, r = divmod(k, 1024)
        if law == directions.rademacher:
            word, shift = r % 32, r // 32
            bits = philox((8 * block + word % 8, *rest), key)[word // 8]
            out.append(1 - 2 * (bits >> shift & 1))
        else:
            j, second = r % 512, r // 512
            counter = (256 * block + j % 256, *rest)
            a, b = philox(counter, key)[j // 256], philox(counter, key)[2 + j // 256]
            radius = math.sqrt(-2 * math.log(min(1, (a + 0.5) / 2**32)))
            angle = (b % 2**30 + 0.5) / 2**30 * math.pi / 2
            x, sign = (math.sin(angle), b >> 30 & 1) if second else (math.cos(angle), b >> 31)
            out.append(radius * x * (1 - 2 * sign))
    return torch.tensor(out)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_the_generator_gives_the_published_answers_of_philox(counter, key, expected):
    assert tuple(philox(counter, key)) == expected
    bits = np.empty(4, np.uint32)
    streams._bits(bits, counter[0], *map(np.uint32, key), *map(np.uint32, counter[1:]))  # one counter, four words
    assert tuple(bits.tolist()) == expected


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_entries_equal_the_naive_twin(law):
    where = {"seed": 2**40 + 7, "step": 11, "p": 4, "parameter": 9}
    size = 2100
    zeros = torch.zeros(size, dtype=torch.float64)
    Stream(law, where["seed"], where["step"]).add(zeros, zeros, [1.0], first=4, parameter=9)
    expected = naive(law, size, **where).double()
    assert torch.allclose(zeros, expected, rtol=2e-6, atol=3e-6)
    # Negative control: the next direction is another one.
    assert not torch.allclose(naive(law, size, **(where | {"p": 5})).double(), zeros, atol=0.1)


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_moments_are_those_of_the_law(law):
    n = 1 << 22
    u = entries(law, n).double()
    for power, expected, variance in ((1, 0, 1), (2, 1, law.kappa - 1), (4, law.kappa, {3: 96, 1: 0}[law.kappa])):
        assert abs(u.pow(power).mean().item() - expected) <= 5 * math.sqrt(variance / n) + 1e-7
    for other in (entries(law, n, seed=4), entries(law, n, step=6), entries(law, n, p=3), entries(law, n, parameter=2)):
        assert abs((u * other).mean().item()) < 5 / math.sqrt(n)
    for lag in (1, 32, 256, 512, 1024):
        assert abs((u[lag:] * u[:-lag]).mean().item()) < 5 / math.sqrt(n)
    assert abs((u * entries(law, n)).mean().item() - 1) < 0.01  # negative control: the same place, the same direction


def test_gaussian_entries_follow_the_normal_distribution_into_the_tails():
    u = entries(directions.gaussian, 1 << 22).numpy()
    assert stats.kstest(u, "norm").pvalue > 1e-6
    assert stats.kstest(u * np.float32(1.005), "norm").pvalue < 1e-6  # negative control
    beyond = (np.abs(u) > 4).sum()
    expected = 2 * stats.norm.sf(4) * len(u)
    assert abs(beyond - expected) < 5 * math.sqrt(expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gaussian_rows_follow_from_the_generator_and_are_others_each_time(dtype):
    generator = directions.generator(5)
    one, other = (streams.gaussian_rows(400, 101, generator, dtype) for _ in range(2))
    assert one.shape == (400, 101) and one.dtype == dtype
    assert torch.equal(one, streams.gaussian_rows(400, 101, directions.generator(5), dtype))
    one, other = one.double(), other.double()
    if dtype != torch.bfloat16:
        assert stats.kstest(one.flatten().numpy(), "norm").pvalue > 1e-4
        assert stats.kstest(1.06 * one.flatten().numpy(), "norm").pvalue < 1e-4  # negative control
    n = one.numel()
    for a, b in ((one, other), (one[1:], one[:-1]), (one[:, 1:], one[:, :-1])):  # of another call, row and column
        assert abs((a * b).sum().item()) < 5 * math.sqrt(n)
    assert abs((one * one).sum().item() - n) < 5 * math.sqrt(2 * n)


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_any_piece_on_any_number_of_threads_is_the_same(law, set_threads):
    size, stream = 300_001, Stream(law, 1, 2)
    base = entries(directions.gaussian, size, seed=9)
    whole, shared = torch.empty_like(base), torch.empty_like(base)
    stream.add(whole, base, [0.3, -0.2], first=1, parameter=4, keep=0.9)
    for threads in (1, 2, 3):
        set_threads(threads)
        changed = stream.add(shared.zero_(), base, [0.3, -0.2], first=1, parameter=4, keep=0.9)
        assert torch.equal(whole, shared) and changed == int((whole != base).sum())
        assert torch.get_num_threads() == threads
    rows = torch.tensor([0, 3, 4, 99])
    some, changed = stream.add_to_rows(base[:300_000].view(100, 3000), rows, 0.3, first=1, parameter=4)
    stream.add(whole, base, [0.3], first=1, parameter=4)
    assert torch.equal(some, whole[:300_000].view(100, 3000)[rows]) and changed == some.numel()
    in_place = base.clone()
    stream.add(in_place, in_place, [0.3], first=1, parameter=4)
    assert torch.equal(in_place, whole)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_the_float32_sum_once(dtype):
    size = (1 << 20) + 5  # more than one stage
    base = entries(directions.gaussian, size, seed=9).to(dtype)
    stream, out, exact = Stream(directions.gaussian, 1, 2), torch.empty_like(base), torch.empty(size)
    changed = stream.add(out, base, [1e-2], first=0, parameter=0)
    stream.add(exact, base.float(), [1e-2], first=0, parameter=0)
    assert torch.equal(out, exact.to(dtype)) and changed == int((out != base).sum()) < size


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_rows_are_those_of_the_whole_in_every_precision(dtype):
    table = entries(directions.gaussian, 5000, seed=9).to(dtype).view(500, 10).T.contiguous().T  # rows not contiguous
    stream, rows = Stream(directions.gaussian, 1, 2), torch.tensor([0, 7, 499])
    whole = torch.empty(500, 10, dtype=dtype)
    stream.add(whole, table, [0.3], first=1, parameter=4)
    assert torch.equal(stream.add_to_rows(table, rows, 0.3, first=1, parameter=4)[0], whole[rows])


@pytest.mark.parametrize("law", [directions.laplace, directions.sphere], ids=str)
def test_a_law_without_a_stream_is_refused(law):
    with pytest.raises(ValueError, match=f"no stream of {law.name} directions; choose one of Gaussian, Rademacher$"):
        Stream(law, 0, 0)


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_a_copied_law_has_the_same_stream(law):
    assert torch.equal(entries(copy.deepcopy(law), 3000), entries(law, 3000))


def test_the_squared_norm_is_that_of_the_entries():
    u = entries(directions.gaussian, 200_000).double()
    found = Stream(directions.gaussian, 3, 5).square_norm(200_000, first=2, parameter=1)
    assert found == pytest.approx(u.square().sum().item(), rel=1e-12)


def test_a_saved_run_resumes_on_any_machine_with_the_same_directions():
    digests = [hashlib.sha256(entries(law, 4096).numpy().tobytes()).hexdigest()[:16] for law in LAWS]
    assert digests == ["f6e26650aba78f18", "24158ed480311f9d"]


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_a_part_and_several_parameters_together_are_made_as_each_whole(law):
    stream, sizes, numbers = Stream(law, 5, 6), [7, 3000, 1024], [4, 0, 9]
    base = torch.linspace(-1, 1, sum(sizes))
    whole = [torch.empty(size) for size in sizes]
    counts = [
        stream.add(out, piece, [0.3], first=2, parameter=number)
        for out, piece, number in zip(whole, base.split(sizes), numbers, strict=True)
    ]
    together = torch.empty_like(base)
    assert stream.add_to_each(together, base, sizes, 0.3, first=2, parameters=numbers) == counts
    assert torch.equal(together, torch.cat(whole))
    rest = torch.empty(3000 - 1024)
    stream.add(rest, base.split(sizes)[1][1024:], [0.3], first=2, parameter=0, start=1024)
    assert torch.equal(rest, whole[1][1024:])
    stream.add(rest, base.split(sizes)[1][1024:], [0.3], first=2, parameter=0)  # negative control: another part
    assert not torch.equal(rest, whole[1][1024:])
