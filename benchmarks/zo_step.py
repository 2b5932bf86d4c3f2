"""A zeroth-order step of a model with 135 M parameters, beside its forward passes and the published algorithm.

Usage: python benchmarks/zo_step.py [--repeats N] [--batch N]
The architecture is SmolLM2-135M's with random weights: times do not depend on their values. A batch holds 8 sequences
of 32 tokens unless said otherwise; the more tokens, the smaller the share of everything that is not a forward pass.
"""

from importlib.metadata import version

import harness
import torch
from published import four_draws
from transformers import LlamaConfig, LlamaForCausalLM

from zonb import directions
from zonb.optim import ZOSGD
from zonb.streams import Stream

VOCABULARY, LENGTH, MU = 49152, 32, 1e-3


def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


def agree(network: torch.nn.Module, closure) -> None:
    """The optimiser's slope is that of two losses at copies of the parameters moved along the same direction."""
    stored = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    losses = []
    for sign in (1, -1):
        for number, name in enumerate(sorted(stored)):
            target = network.get_parameter(name)
            target.data = torch.empty_like(stored[name])
            stream = Stream(directions.gaussian, 0, 0)
            stream.add(target, stored[name], [sign * MU], first=0, parameter=number)
        with torch.no_grad():
            losses.append(closure().item())
    for name, value in stored.items():
        network.get_parameter(name).data = value
    seen = []
    ZOSGD(network.named_parameters(), 0.0, mu=MU).step(lambda: seen.append(closure().item()) or seen[-1])
    assert torch.allclose(torch.tensor(seen), torch.tensor(losses), rtol=1e-6), (seen, losses)
    assert all(torch.equal(network.get_parameter(name), value) for name, value in stored.items())


def methods(batch: int):
    network = model()
    ids = torch.randint(VOCABULARY, (batch, LENGTH), generator=torch.Generator().manual_seed(1))

    def closure():
        return network(input_ids=ids, labels=ids, use_cache=False).loss

    def forward(count: int = 2) -> None:
        with torch.no_grad():
            for _ in range(count):
                closure()

    def zo(law, P: int = 1):
        optimizer = ZOSGD(network.named_parameters(), 1e-7, mu=MU, law=law, P=P)
        return lambda: optimizer.step(closure)

    def backward() -> None:
        optimizer = torch.optim.SGD(network.parameters(), 1e-7)
        closure().backward()
        optimizer.step()
        optimizer.zero_grad()

    parameters = list(network.parameters())
    place = torch.empty(max(q.numel() for q in parameters))

    def sweeps(law) -> None:
        """What a step does to parameters: perturbed twice, updated once."""
        stream = Stream(law, 0, 0)
        for number, q in enumerate(parameters):
            for out, coefficient in ((place[: q.numel()].view_as(q), 1e-3),) * 2 + ((q.detach(), 0.0),):
                stream.add(out, q, [coefficient], first=0, parameter=number)

    seeds = iter(range(10**6))
    work = {
        "two forward passes": (forward, 1),
        "two perturbations and an update alone, Rademacher": (lambda: sweeps(directions.rademacher), 1),
        "two perturbations and an update alone, Gaussian": (lambda: sweeps(directions.gaussian), 1),
        "ZOSGD, P = 1, Rademacher": (zo(directions.rademacher), 1),
        "ZOSGD, P = 1, Gaussian": (zo(directions.gaussian), 1),
        "ZOSGD, P = 10, Rademacher": (zo(directions.rademacher, 10), 10),
        "ZOSGD, P = 10, Gaussian": (zo(directions.gaussian, 10), 10),
        "published, P = 1, Gaussian": (lambda: four_draws(network, closure, [next(seeds)], lr=1e-7, mu=MU), 1),
        "SGD by backpropagation": (backward, 1),
    }
    return network, closure, work


def main() -> None:
    parser = harness.parser(repeats=3)
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    network, closure, work = methods(options.batch)
    if options.memory:
        print(harness.extra_memory(work[options.memory][0]))
        return
    agree(network, closure)
    seconds = harness.alternate({name: do for name, (do, _) in work.items()}, options.repeats)
    passes, published = seconds["two forward passes"], seconds["published, P = 1, Gaussian"]
    steps = {name: P for name, (_, P) in work.items()}
    columns = {
        "of its 2P forward passes": lambda name: f"{harness.ratio(seconds[name], passes) / steps[name]:.2f}",
        "published takes": lambda name: f"{steps[name] * harness.ratio(published, seconds[name]):.1f} times as long",
    }
    rows = harness.table(
        seconds, lambda name: harness.peak_memory(__file__, name, "--batch", str(options.batch)), columns
    )
    count = sum(parameter.numel() for parameter in network.parameters())
    largest = max(parameter.nbytes for parameter in network.parameters()) / 2**20
    title = f"Zeroth-order step, {count / 1e6:.1f} M parameters, {options.batch} x {LENGTH} tokens, float32"
    notes = [
        f"{torch.get_num_threads()} threads. Memory: what a step needs at its peak beyond the model at rest, in a",
        f"process of its own. The largest parameter tensor has {largest:.0f} MiB.",
    ]
    harness.publish(f"zo_step-{options.batch}", title, rows, notes, versions={"transformers": version("transformers")})


if __name__ == "__main__":
    main()
