"""Slow twins, written as the papers write the formulas; nothing here calls the code it checks."""

import itertools
import math

import torch
from torch.func import functional_call, jacrev


def jacobian(model, x):
    """J(x) by reverse mode over the whole parameter dictionary, (N, V, d)."""
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    blocks = jacrev(lambda p: functional_call(model, p, (x,)))(parameters)
    return torch.cat([block.flatten(2) for block in blocks.values()], dim=2)


def projected_entk(J_o, J_u, directions):
    """Eq. 4 with U U^T formed: only for small d."""
    P = len(directions)
    U = torch.stack(list(directions), dim=1) / math.sqrt(P)
    return J_o @ (U @ U.T) @ J_u.T


def projected_entry(J_o, J_u, directions, i, j):
    """Eq. 6: one entry as an inner product of projected tangents."""
    P = len(directions)
    left = [sum(J_o[i, k] * u[k] for k in range(len(u))) / math.sqrt(P) for u in directions]
    right = [sum(J_u[j, k] * u[k] for k in range(len(u))) / math.sqrt(P) for u in directions]
    return sum(a * b for a, b in zip(left, right, strict=True))


def spsa_gradient(f, theta, directions, mu):
    """Eq. 1, averaged over directions."""
    total = torch.zeros_like(theta)
    for u in directions:
        total += (f(theta + mu * u) - f(theta - mu * u)) / (2 * mu) * u
    return total / len(directions)


def error_law(J_o, J_u, P, kappa):
    """E|K(U) - K|_F^2 for independent entries, by summing E[u_k u_l u_m u_n] over all index quadruples."""
    d = J_o.shape[1]
    second = 0.0
    for k in range(d):
        for m in range(d):  # the only quadruples with a mean: pairs, and all four equal
            a, b = J_o[:, k] @ J_o[:, k], J_u[:, m] @ J_u[:, m]
            cross = (J_o[:, k] @ J_o[:, m]) * (J_u[:, k] @ J_u[:, m])
            second += kappa * a * b if k == m else a * b + 2 * cross
    return (second - (J_o @ J_u.T).square().sum()) / P


def estimated_alignment(Y_o, Y_u):
    """rho^2 from projections, by a loop over pairs of directions p != q."""
    P = len(Y_o)
    total = 0.0
    for p in range(P):
        for q in range(P):
            if p != q:
                total += (torch.outer(Y_o[p], Y_u[p]) * torch.outer(Y_o[q], Y_u[q])).sum()
    sizes = (sum((y * y).sum() for y in Y) / P for Y in (Y_o, Y_u))
    return total / (P * (P - 1)) / math.prod(sizes)


def log_softmax_jacobian(logits):
    """A by automatic differentiation."""
    return jacrev(lambda z: torch.log_softmax(z, -1))(logits)


def nzk(X, zeta, z):
    """Paper B's Eq. 5 for a linear model, draw by draw and entry by entry, with a finite difference of size 1."""
    N = len(X)
    total = torch.zeros(N, N, dtype=X.dtype)
    for a, b in zip(zeta, z, strict=True):
        for i in range(N):
            for j in range(N):
                left = (X[i] @ (X[i] + a) - X[i] @ (X[i] - a)) / 2 * a
                right = (X[j] @ (X[j] + b) - X[j] @ (X[j] - b)) / 2 * b
                total[i, j] += left @ right
    return total / len(z)


def evolve(K, f, y, eta, steps):
    """Eq. 20, one step after the other."""
    outputs = [f]
    for _ in range(steps):
        f = f - eta / len(y) * K @ (f - y)
        outputs.append(f)
    return torch.stack(outputs)


def second_moment_over_signs(C, X, eta, P):
    """E of (I - eta X U U^T X^T / N) C (...)^T over all Rademacher directions, by enumeration."""
    N, d = X.shape
    signs = [torch.tensor(s, dtype=X.dtype) for s in itertools.product((-1.0, 1.0), repeat=d)]
    total, count = torch.zeros_like(C), 0
    for chosen in itertools.product(signs, repeat=P):
        step = torch.eye(N, dtype=X.dtype) - eta / N * sum(torch.outer(X @ u, X @ u) for u in chosen) / P
        total, count = total + step @ C @ step.T, count + 1
    return total / count


def zo_sgd(X, y, theta, eta, directions, rows, mu):
    """One run of Eq. 1 with the given directions (T, P, d) on the given inputs (T, B), by differences of losses."""
    path = [theta]
    for us, chosen in zip(directions, rows, strict=True):

        def loss(t, chosen=chosen):
            return sum((X[i] @ t - y[i]) ** 2 for i in chosen) / (2 * len(chosen))

        theta = theta - eta * spsa_gradient(loss, theta, us, mu)
        path.append(theta)
    return torch.stack(path)


def batch_moments_over_signs(X, y, theta, eta, batch):
    """Mean and second moment of a step's parameters, by enumeration of all subsets of inputs and sign vectors."""
    N, d = X.shape
    ends = []
    for rows in itertools.combinations(range(N), batch):
        gradient = sum((X[i] @ theta - y[i]) * X[i] for i in rows) / batch
        for signs in itertools.product((-1.0, 1.0), repeat=d):
            u = torch.tensor(signs, dtype=X.dtype)
            ends.append(theta - eta * (u @ gradient) * u)
    ends = torch.stack(ends)
    return ends.mean(0), ends.T @ ends / len(ends)


def stable_step(values, P):
    """The root of the secular equation for the eigenvalues of K/N, by bisection."""
    values = values[values > 1e-12 * values.max()]
    low, high = 0.0, (2 / (values.max() * (1 + 1 / P))).item()
    for _ in range(200):
        middle = (low + high) / 2
        room = 2 - middle * values * (1 + 1 / P)
        above = (room <= 0).any() or middle / P * (values / room).sum() >= 1
        low, high = (low, middle) if above else (middle, high)
    return low


def slopes(loss, theta):
    """The gradient of a function of weights by name."""
    where = {name: value.clone().requires_grad_() for name, value in theta.items()}
    return dict(zip(where, torch.autograd.grad(loss(where), list(where.values())), strict=True))


def sgd(model, x, labels, batches, *, rate=1e-3, momentum=0.9, decay=5e-4):
    """Paper A's training of the LeNet, written out: cross-entropy, velocity, weights."""
    theta = {name: value.detach().clone() for name, value in model.named_parameters()}
    velocity = {name: torch.zeros_like(value) for name, value in theta.items()}
    for batch in batches:

        def loss(where, batch=batch):
            log_pi = torch.log_softmax(functional_call(model, where, (x[batch],)), 1)
            return -log_pi[range(len(batch)), labels[batch]].mean()

        for name, slope in slopes(loss, theta).items():
            velocity[name] = momentum * velocity[name] + slope + decay * theta[name]
            theta[name] = theta[name] - rate * velocity[name]
    return theta


def adamw(model, batches, rate, *, answer=10.0, warm=0.1, betas=(0.9, 0.98), decay=0.01, clip=1.0, rest=0.0):
    """The training of the OPT family, written out: the loss token by token, the rate, the clipping, Adam's means."""
    theta = {name: value.detach().clone() for name, value in model.named_parameters()}
    first, second = ({name: torch.zeros_like(value) for name, value in theta.items()} for _ in range(2))
    for t, batch in enumerate(batches):
        ids, mask = batch["input_ids"], batch["attention_mask"]

        def loss(where, batch=batch, ids=ids, mask=mask):
            log_pi = torch.log_softmax(functional_call(model, where, (), {**batch, "use_cache": False}).logits, 2)
            rows, places = mask[:, 1:].nonzero(as_tuple=True)
            every = [-log_pi[n, k, ids[n, k + 1]] for n, k in zip(rows, places, strict=True)]
            last = [-log_pi[n, -2, ids[n, -1]] for n in range(len(ids))]
            return sum(every) / len(every) + answer * sum(last) / len(last)

        slope = slopes(loss, theta)
        length = math.sqrt(sum(value.square().sum().item() for value in slope.values()))
        share = t / len(batches)
        eta = rate * min(1, (t + 1) / (warm * len(batches)), rest + (1 - rest) * (1 + math.cos(math.pi * share)) / 2)
        for name, g in slope.items():
            g = g * min(1, clip / (length + 1e-6))  # as torch does
            first[name] = betas[0] * first[name] + (1 - betas[0]) * g
            second[name] = betas[1] * second[name] + (1 - betas[1]) * g**2
            mean, square = first[name] / (1 - betas[0] ** (t + 1)), second[name] / (1 - betas[1] ** (t + 1))
            theta[name] = (1 - eta * decay) * theta[name] - eta * mean / (square.sqrt() + 1e-8)
    return theta
