// Binary forms: the substitution of two linear forms by Horner's rule, for numbers and for vectors of numbers.
#pragma once

#include "core/host_device.hpp"

namespace isotypic::forms {

// result(x, y) = p(a x + b y, c x + e y) for p = sum_i p_i x^i y^(degree-i). Horner in the first linear form with the powers of the second
// kept beside it, two steps in one pass so that each value is loaded and stored once for ten multiply-adds:
//
//     r <- r (a x + b y) + p_i u,     u <- u (c x + e y)          from r = p_degree, u = 1
//
// r and u are (degree + 1) and do not overlap p; u is scratch.
template <class V>
HOST_DEVICE ALWAYS_INLINE void horner(int degree, const V* p, V a, V b, V c, V e, V* r, V* u) {
    r[0] = p[degree];
    u[0] = V{} + 1;
    int size = 1;  // r and u have `size` coefficients
    if (degree % 2) {
        const V next = p[degree - 1];
        r[1] = a * r[0] + next * c;
        r[0] = b * r[0] + next * e;
        u[1] = c;
        u[0] = e;
        size = 2;
    }
    for (; size <= degree; size += 2) {
        const V p1 = p[degree - size], p2 = p[degree - size - 1];
        V r_before = V{}, u_before = V{}, r1_before = V{}, u1_before = V{};
        for (int k = 0; k < size; ++k) {
            const V r_old = r[k], u_old = u[k];
            const V u1 = c * u_before + e * u_old, r1 = a * r_before + b * r_old + p1 * u1;
            const V u2 = c * u1_before + e * u1;
            r[k] = a * r1_before + b * r1 + p2 * u2;
            u[k] = u2;
            r_before = r_old, u_before = u_old, r1_before = r1, u1_before = u1;
        }
        const V u1 = c * u_before, r1 = a * r_before + p1 * u1;
        const V u2 = c * u1_before + e * u1, u3 = c * u1;
        r[size] = a * r1_before + b * r1 + p2 * u2;
        u[size] = u2;
        r[size + 1] = a * r1 + p2 * u3;
        u[size + 1] = u3;
    }
}

// binomial(degree, i) over the middle one, i <= degree, so that none overflows.
template <class T>
inline void binomials(int degree, T* result) {
    const int middle = degree / 2;
    double value = 1;
    for (int i = middle; i >= 0; --i) {
        result[i] = result[degree - i] = static_cast<T>(value);
        value *= static_cast<double>(i) / (degree - i + 1);
    }
}

}  // namespace isotypic::forms
