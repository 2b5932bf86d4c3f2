"""zonb: zeroth-order optimisation seen through tangent kernels.

The package is thin and its imports go down only; each module may use those above it:

    directions   laws of a perturbation direction u with E[u u^T] = I
    streams      directions made again from a seed, entry by entry
    tangents     Jacobians and directional derivatives of a network
    differences  finite differences along a direction, and the gradient estimate of them
    kernels      the empirical NTK, its random projections, the neural zeroth-order kernel
    theory       closed forms the experiments are held against
    simulate     many runs of zeroth-order SGD on a linear(ised) model
    perturbed    a model's parameters seen moved along a direction, the stored ones untouched
    optim        zeroth-order SGD as a torch optimiser, in the memory of inference
    data         real data sets, a small sample of each embedded
    models       the networks of the papers
    language     language models as classifiers: a small OPT family, prompts
    plots        arrays in, axes out
    claims       a check that can fail, and the numbers it leaves
    press        what executes the chapters and prints the book

Nothing is imported here, so that the command line answers without loading torch.
"""

__version__ = "0.1.0"
