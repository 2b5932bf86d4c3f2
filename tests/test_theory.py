import pytest
import reference
import torch
from test_kernels import J_o, J_u, d

from zonb import directions as D
from zonb import theory
from zonb.kernels import alignment, entk

LOGITS = torch.tensor([0.3, -1.2, 2.0, 0.1], dtype=torch.float64)


def test_a_is_the_derivative_of_log_softmax_and_a_projection():
    A = theory.log_softmax_jacobian(LOGITS)
    torch.testing.assert_close(A, reference.log_softmax_jacobian(LOGITS))
    torch.testing.assert_close(A @ A, A)


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
def test_norm_of_a_is_root_v_times_norm_of_pi(scale):
    pi = torch.softmax(scale * LOGITS, -1)
    norm = torch.linalg.matrix_norm(theory.log_softmax_jacobian(scale * LOGITS), ord=2)
    torch.testing.assert_close(norm, 2 * pi.norm())
    assert norm <= 1 + 1e-12 if scale == 0 else norm > 1.1  # the paper's "at most 1" holds for uniform pi only


def test_batched_a_is_a_of_each():
    torch.testing.assert_close(
        theory.log_softmax_jacobian(torch.stack([LOGITS, 2 * LOGITS]))[1], theory.log_softmax_jacobian(2 * LOGITS)
    )


@pytest.mark.parametrize("label", range(4))
def test_g_is_the_gradient_of_the_cross_entropy(label):
    z = LOGITS.clone().requires_grad_()
    torch.nn.functional.cross_entropy(z, torch.tensor(label)).backward()
    torch.testing.assert_close(theory.cross_entropy_gradient(LOGITS, label), z.grad)


@pytest.mark.parametrize("label", [-1, 4])
def test_labels_out_of_range_are_refused(label):
    with pytest.raises(ValueError, match=r"must be in 0\.\.3"):
        theory.cross_entropy_gradient(LOGITS, label)


@pytest.mark.parametrize("law", [D.gaussian, D.rademacher, D.uniform, D.laplace], ids=lambda law: law.name)
@pytest.mark.parametrize("P", [1, 4])
def test_error_law_equals_the_sum_over_index_quadruples(law, P):
    torch.testing.assert_close(theory.error_law(J_o, J_u, P, law), reference.error_law(J_o, J_u, P, law.kappa))


def test_error_law_of_orthonormal_directions_vanishes_at_full_dimension():
    assert abs(theory.error_law(J_o, J_u, d, D.orthonormal)) < 1e-9 * entk(J_o, J_u).square().sum()
    assert theory.error_law(J_o, J_u, d - 1, D.orthonormal) > 0


def test_one_orthonormal_direction_is_one_on_the_sphere():
    torch.testing.assert_close(theory.error_law(J_o, J_u, 1, D.orthonormal), theory.error_law(J_o, J_u, 1, D.sphere))


def test_relative_error_is_the_gaussian_law_over_the_kernel():
    law = theory.error_law(J_o, J_u, 7, D.gaussian).sqrt() / entk(J_o, J_u).norm()
    torch.testing.assert_close(theory.relative_rms_error(alignment(J_o, J_u), torch.tensor(7)), law)


def test_error_law_is_refused_where_none_is_known():
    with pytest.raises(ValueError, match="at least 1"):
        theory.error_law(J_o, J_u, 0, D.gaussian)
    with pytest.raises(ValueError, match="no error law is known for odd"):
        theory.error_law(J_o, J_u, 1, D.Law("odd", None, True, D.gaussian._draw))
