"""neural-tangents on JAX, in an environment of its own (requirements-jax.txt): the eNTK of the LeNet, three ways.

Reads weights and inputs from an .npz file; answers each line of standard input, a way's name, with "done" after one
evaluation, and the line "save" with the kernels in the file named by the second argument. See entk.py.
"""

import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import harness
import jax
import jax.numpy as jnp
import neural_tangents as nt
import numpy as np
from jax import lax


def lenet(weights, x):
    def convolved(x, k, padding):
        kernel, bias = weights[2 * k : 2 * k + 2]
        numbers = ("NCHW", "OIHW", "NCHW")
        y = lax.conv_general_dilated(x, kernel, (1, 1), [(padding, padding)] * 2, dimension_numbers=numbers)
        y = jnp.tanh(y + bias[None, :, None, None])
        return lax.reduce_window(y, 0.0, lax.add, (1, 1, 2, 2), (1, 1, 2, 2), "VALID") / 4

    x = convolved(convolved(x, 0, 2), 1, 0).reshape(len(x), -1)
    for k in (2, 3):
        x = jnp.tanh(x @ weights[2 * k].T + weights[2 * k + 1])
    return x @ weights[8].T + weights[9]


def ways(path):
    stored = np.load(path)
    weights = [jnp.asarray(stored[f"w{k}"]) for k in range(10)]
    x = jnp.asarray(stored["x"])
    work = {}
    for implementation in nt.NtkImplementation:
        if implementation.name != "AUTO":
            kernel = nt.empirical_ntk_fn(lenet, trace_axes=(), vmap_axes=0, implementation=implementation)
            compiled = jax.jit(lambda w, x, kernel=kernel: kernel(x, None, w))
            work[implementation.name] = lambda compiled=compiled: compiled(weights, x).block_until_ready()
    return work


if __name__ == "__main__":
    if sys.argv[1] == "--memory":
        print(harness.extra_memory(ways(sys.argv[3])[sys.argv[2]]))
        sys.exit()
    work = ways(sys.argv[1])
    for line in sys.stdin:
        name = line.strip()
        if name == "save":
            np.savez(sys.argv[2], **{way: np.asarray(do()) for way, do in work.items()})
        else:
            work[name]()
        print("done", flush=True)
