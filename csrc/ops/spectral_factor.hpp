// spectral_factor: the minimum-phase factor h of a nonnegative trigonometric polynomial, R(s) = r_0 + 2 sum_k r_k cos(k s) = |h(e^(-is))|^2,
//
//     sum_j h_j h_(j + k) = r_k,    h_0 > 0,    no zeros of h_0 + h_1 z + ... + h_n z^n inside of the unit circle,
//
// and the linear maps of its derivatives, with (A(h) x)_k = sum_j h_j x_(j + k) + x_j h_(j + k):
//
//     dh = A(h)^-1 dr,        grad_r = A(h)^-T grad_h
//
// Newton's method for that equation (G. Wilson 1969) solves A(h) x = r + h * h, from h = (1, 0, ...), and stays minimum-phase. Each solution
// takes O(n^2) by Schur's reduction of the degree (C. Demeure, C. Mullis 1990): with k = h_n / h_0 and h' = (h - k rev h) / (1 - k^2), of
// degree n - 1, x = y - k rev y turns A(h) x = b into A(h') y = b / (1 - k^2), whose last entry is y_n and leaves an equation of degree n - 1.
// |k| < 1 at each degree says that h is minimum-phase. The transpose runs the same steps backwards. CPU only: on a device
// ops/forms/spectral_factor.py takes the same steps with torch.
#pragma once

#include "core/view.hpp"

namespace isotypic::cpu {

// All (B, n + 1) but error (B), float64, contiguous; outputs are overwritten. r_0 = 1. error: the largest |sum_j h_j h_(j + k) - r_k|.
void spectral_factor(const View& r, const View& h, const View& error);
// x = A(h)^-1 b, or A(h)^-T b for `transposed`.
void spectral_solve(const View& h, const View& b, bool transposed, const View& x);

}  // namespace isotypic::cpu
