// max_det: of all Gram matrices of a positive binary form, the one of largest determinant, and the derivative of that map.
//
// p(x, y) = sum_k p_k x^k y^(2d - k) > 0, n = d + 1, m = 2 d + 1, v = (x^i y^(d - i))_i, A(Q)_k = sum_{i + j = k} Q_ij, so that p = v^T Q v
// for A(Q) = p:
//     Q(p) = argmax { log det Q : Q symmetric, positive semidefinite, A(Q) = p }
//
// The dual in samples, with nodes theta_s = pi s / m on the circle (J. Löfberg, P. Parrilo, "From coefficients to samples", 2004) and
// u(theta) the orthonormal trigonometric basis of forms of degree d:
//
//     minimise over w    sum_s w_s p(theta_s) - log det H(w),    H(w) = sum_s w_s u(theta_s) u(theta_s)^T
//     gradient           p(theta_s) - K_ss                       K = U H^-1 U^T
//     Hessian            K_st^2                                  the entries of K, squared
//
// and Q = H^-1 in the basis u. Samples on the circle are an orthogonal change of the coefficients of e^{i k phi}, so that one method serves
// every degree: in monomials, where H is a Hankel matrix, float64 fails at degree 40. The Newton step has length 1 where the decrement is
// below 1/4 and 1 / (1 + decrement) elsewhere, which self-concordance makes a line search. It starts at w_s ~ p(theta_s)^(-(d + 1) / d),
// the SL(2)-equivariant contour integral of p^(-(d + 1) / d) u u^T; five to seven steps from there, 8 at most in 600 random forms of degree
// 6 to 40.
// Derivative: with Hess(Q) y = A(Q Hankel(y) Q),   dQ = Q Hankel(Hess^-1 dp) Q   and   grad_p = Hess^-1 A(Q G Q).
#pragma once

#include "core/view.hpp"

namespace isotypic {

namespace cpu {

// tables: those of ops/max_det_solver.hpp for this degree, (size), float64 as all the others. All contiguous, and overwritten.
// p (B, m) -> solution (B, n n + 5): the Gram, status, iterations, x and y of a witness, an estimate of the relative error of the Gram; the
// Gram is zero where status is not 0, but with `candidates` that of the last step where it is 2 or 4.
// `single`: the result will be rounded to float32; the witness must stay one, and the Gram positive definite.
// `quick`: what needs more than one pass in float64, or a search for a witness, is left, with status 5.
void max_det(const View& p, const View& tables, bool single, bool candidates, bool quick, const View& solution);

// p (B, m) -> framed (B, m + 4): p o h and h of ops/max_det_frame.hpp, for d > 0.
void max_det_frame(const View& p, const View& tables, const View& framed);

// gram (B, n, n), and either matrix (B, n, n) or form (B, m), the other undefined -> result (B, m):
// Hess(gram)^-1 A(gram sym(matrix) gram), or Hess(gram)^-1 form, of the symmetric part of gram; zeros where the Gram is zero.
void max_det_adjoint(const View& gram, const View& matrix, const View& form, const View& tables, const View& result);

}  // namespace cpu

namespace cuda {

void max_det(const View& p, const View& tables, bool single, bool candidates, bool quick, const View& solution, void* stream);
void max_det_frame(const View& p, const View& tables, const View& framed, void* stream);
void max_det_adjoint(const View& gram, const View& matrix, const View& form, const View& tables, const View& result, void* stream);

}  // namespace cuda

}  // namespace isotypic
