// A frame of a binary form p of degree 2 d: a matrix h of determinant about 1 that takes the directions in which p is small as far from
// the real line as SL(2) can. With nodes z_s = (cos, sin)(pi s / m) and
//
//     S(p) = sum_s z_s z_s^T p(z_s)^(-1 / d),        S(p o h) = h^-1 S(p) h^-T up to the error of the sum,
//
// h is multiplied by S^(1/2) / det(S)^(1/4) until S is nearly a multiple of I. Any h will do that is good enough; what has to be exact is
// the form in it, (p o h)(x, y) = sum_k p_k (a x + b y)^k (c x + e y)^(2 d - k), by Horner's rule in double-word arithmetic: 5 (2 d)^2 / 2
// operations on double words, where a plain one would lose cond(h)^(2 d).
#pragma once

#include "ops/max_det_solver.hpp"

namespace isotypic::max_det {

constexpr int kFrames = 6;           // how often h is corrected at most
constexpr double kRound = 1.0 / 16;  // S counts as round where its anisotropy, 1 - 4 det / trace^2, is below

// The arrays of a frame in units of Wide: p o h and the powers of c x + e y.
HOST_DEVICE inline int frame_numbers(const Tables& t) {
    return 2 * t.m;
}

// result = p o h and h = (a, b, c, e), entries of Real; p (m) is scaled to about 1. `work` has frame_numbers() entries of Wide.
template <class Team, class Wide, class Real, class T>
HOST_DEVICE ALWAYS_INLINE void frame(const Tables& t, const T* tables, const Real* p, Wide* work, Real* result, Real (&h)[4]) {
    const T *samples = tables + t.samples, *quadratics = tables + t.moments;
    Wide *form = work, *power = work + t.m;
    const Real zero{}, one = zero + T(1);
    h[0] = h[3] = one, h[1] = h[2] = zero;
    for (int k = 0; k < t.m; ++k) result[k] = p[k];
    Real active = one;
    for (int round = 0; round < kFrames; ++round) {
        Real largest = zero;
        for (int k = 0; k < t.m; ++k) {
            const Real size = select(result[k] < zero, -result[k], result[k]);
            largest = select(size > largest, size, largest);
        }
        const Real floor = select(largest > zero, largest, one) * Tolerance::epsilon;
        // With phi = 2 theta: z z^T = (I + [[cos phi, sin phi], [sin phi, -cos phi]]) / 2.
        Real sum = zero, cosine = zero, sine = zero;
        for (int s = 0; s < t.m; ++s) {
            Real value = zero;
            for (int k = 0; k < t.m; ++k) value += samples[s * t.m + k] * result[k];
            const Real weight = Team::inverse_root(select(value > floor, value, floor), t.d);
            sum += weight, cosine += quadratics[t.m + s] * weight, sine += quadratics[2 * t.m + s] * weight;
        }
        const Real spread = cosine * cosine + sine * sine;
        active = select(spread > sum * sum * T(kRound), active, zero);
        if (!Team().any(active)) return;
        // S^(1/2) = (S + r I) / sqrt(trace + 2 r) with r = sqrt(det), by the theorem of Cayley and Hamilton; trace = sum.
        const Real square = sum * sum - spread, least = sum * sum * Tolerance::epsilon;
        const Real r = Team::root(select(square > least, square, least)) * T(0.5), scale = one / Team::root(r * (sum + r * T(2)));
        const Real xx = ((sum + cosine) * T(0.5) + r) * scale, yy = ((sum - cosine) * T(0.5) + r) * scale, xy = sine * T(0.5) * scale;
        const Real next[4] = {h[0] * xx + h[1] * xy, h[0] * xy + h[1] * yy, h[2] * xx + h[3] * xy, h[2] * xy + h[3] * yy};
        for (int i = 0; i < 4; ++i) h[i] = select(active > zero, next[i], h[i]);
        // form = form (a x + b y) + p_k power, power = (c x + e y)^(2 d - k), coefficients by powers of x.
        form[0] = Wide::of(p[t.m - 1]), power[0] = Wide::of(one);
        for (int k = t.m - 2, length = 1; k >= 0; --k, ++length) {
            form[length] = form[length - 1] * Wide::of(h[0]), power[length] = power[length - 1] * Wide::of(h[2]);
            for (int i = length - 1; i > 0; --i) {
                form[i] = form[i] * Wide::of(h[1]) + form[i - 1] * Wide::of(h[0]);
                power[i] = power[i] * Wide::of(h[3]) + power[i - 1] * Wide::of(h[2]);
            }
            form[0] = form[0] * Wide::of(h[1]), power[0] = power[0] * Wide::of(h[3]);
            for (int i = 0; i <= length; ++i) form[i] += power[i] * Wide::of(p[k]);
        }
        for (int k = 0; k < t.m; ++k) result[k] = select(active > zero, form[k].high, result[k]);
    }
}

}  // namespace isotypic::max_det
