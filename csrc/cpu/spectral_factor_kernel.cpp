// spectral_factor in lockstep: each lane of a vector has a row of its own, because the recursions over the degree are chains in one row. Five
// arrays of n + 1 vectors, 20 KB at n = 63 with 8 lanes. A step of Newton's method takes, for each of n^2 / 2 pairs, one multiply-add for the
// autocorrelation (four lags at once, so that five loads serve four of them), two operations to reduce h, two to reduce b, one on the way
// back: 6 n^2 / 2 / 8 = 1,500 a row at n = 63, and 10 to 20 steps. Measured on one Xeon core with AVX-512: 12 us a row at n = 63, 3 us at n = 15.
// A lane that has converged keeps its result, and results do not depend on what else is in the batch.
#include "cpu/spectral_factor_kernel.hpp"

#include "cpu/vec.hpp"

namespace isotypic::cpu::ISOTYPIC_ISA {
namespace {

using Real = Vec<double>;
constexpr int L = kLanes<double>;
constexpr int kSteps = 100;
constexpr double kEpsilon = 2.220446049250313e-16;

ISOTYPIC_INLINE double lane(const Real& a, int64_t l) {
    return reinterpret_cast<const double*>(&a)[l];
}
ISOTYPIC_INLINE void set_lane(Real& a, int64_t l, double value) {
    reinterpret_cast<double*>(&a)[l] = value;
}
ISOTYPIC_INLINE bool any(const Real& flags) {
    bool found = false;
    for (int l = 0; l < L; ++l) found = found || lane(flags, l) > 0;
    return found;
}
ISOTYPIC_INLINE Real magnitude(Real a) {
    return a < Real{} ? -a : a;
}

// Rows of the block into lanes; lanes without one get the first.
ISOTYPIC_INLINE void gather(const double* rows, const SpectralCall& call, int64_t block, Real* a) {
    for (int l = 0; l < L; ++l) {
        const int64_t row = block * L + l < call.batch ? block * L + l : block * L;
        for (int64_t k = 0; k < call.taps; ++k) set_lane(a[k], l, rows[row * call.taps + k]);
    }
}
ISOTYPIC_INLINE void scatter(const Real* a, const SpectralCall& call, int64_t block, double* rows) {
    for (int64_t l = 0; l < L && block * L + l < call.batch; ++l)
        for (int64_t k = 0; k < call.taps; ++k) rows[(block * L + l) * call.taps + k] = lane(a[k], l);
}

// h of degree m to degree m - 1, in place; the last entry of h becomes the reflection k. Returns 1 / (1 - k^2).
ISOTYPIC_INLINE Real reduce(Real* h, int64_t m) {
    const Real one = Real{} + 1.0, k = h[m] / h[0], spare = one / (one - k * k);
    h[0] = (h[0] - k * h[m]) * spare;
    for (int64_t i = 1, j = m - 1; i <= j; ++i, --j) {
        const Real low = h[i], high = h[j];
        h[i] = (low - k * high) * spare, h[j] = (high - k * low) * spare;
    }
    h[m] = k;
    return spare;
}
// Back from degree m - 1, with k in h[m].
ISOTYPIC_INLINE void extend(Real* h, int64_t m) {
    const Real k = h[m];
    for (int64_t i = 1, j = m - 1; i <= j; ++i, --j) {
        const Real low = h[i], high = h[j];
        h[i] = low + k * high, h[j] = high + k * low;
    }
    h[m] = k * h[0];
}
// x = x - k rev x over the entries 0 .. m.
ISOTYPIC_INLINE void reflect(Real* x, Real k, int64_t m) {
    for (int64_t i = 0, j = m; i <= j; ++i, --j) {
        const Real low = x[i], high = x[j];
        x[i] = low - k * high, x[j] = high - k * low;
    }
}

// b becomes A(h)^-1 b; h is left reduced. Lanes of the result are 1 where h is minimum-phase.
ISOTYPIC_INLINE Real solve(Real* h, Real* b, int64_t n) {
    const Real one = Real{} + 1.0;
    Real stable = h[0] > Real{} ? one : Real{};
    for (int64_t m = n; m > 0; --m) {
        const Real spare = reduce(h, m);
        stable = magnitude(h[m]) < one ? stable : Real{};
        const Real last = b[m] * spare / h[0];
        b[0] *= spare;
        for (int64_t i = 1; i < m; ++i) b[i] = b[i] * spare - last * h[m - i];
        b[m] = last;
    }
    b[0] = b[0] / (h[0] + h[0]);
    for (int64_t m = 1; m <= n; ++m) reflect(b, h[m], m);
    return stable;
}

// g becomes A(h)^-T g: the steps of solve() transposed, the last one first. h is reduced on the way and extended again.
ISOTYPIC_INLINE void solve_transposed(Real* h, Real* g, int64_t n) {
    const Real one = Real{} + 1.0;
    for (int64_t m = n; m > 0; --m) {
        reduce(h, m);
        reflect(g, h[m], m);
    }
    g[0] = g[0] / (h[0] + h[0]);
    for (int64_t m = 1; m <= n; ++m) {
        const Real k = h[m], spare = one / (one - k * k);
        Real sum = g[m];
        for (int64_t i = 1; i < m; ++i) sum -= g[i] * h[m - i];
        g[m] = sum * spare / h[0];
        for (int64_t i = 0; i < m; ++i) g[i] *= spare;
        extend(h, m);
    }
}

// b = r + the autocorrelation of h; the largest difference of the two.
ISOTYPIC_INLINE Real right_side(const Real* h, const Real* r, int64_t taps, Real* b) {
    Real error{};
    for (int64_t k = 0; k < taps; k += 4) {
        Real sum[4] = {};
        int64_t j = 0;
        for (; j + k + 3 < taps; ++j) {
            const Real value = h[j];
            for (int i = 0; i < 4; ++i) sum[i] += value * h[j + k + i];
        }
        for (; j + k < taps; ++j)
            for (int i = 0; i < 4 && j + k + i < taps; ++i) sum[i] += h[j] * h[j + k + i];
        for (int i = 0; i < 4 && k + i < taps; ++i) {
            const Real size = magnitude(sum[i] - r[k + i]);
            error = size > error ? size : error;
            b[k + i] = r[k + i] + sum[i];
        }
    }
    return error;
}

void factor(const SpectralCall& call, int64_t block, void* workspace) {
    const int64_t taps = call.taps;
    Real *r = static_cast<Real*>(workspace), *h = r + taps, *x = h + taps, *reduced = x + taps, *best = reduced + taps;
    const Real zero{}, one = zero + 1.0;
    gather(call.r, call, block, r);
    for (int64_t k = 0; k < taps; ++k) h[k] = best[k] = k == 0 ? one : zero;
    Real active = one, least = one * 1e300;
    for (int step = 0; step < kSteps && any(active); ++step) {
        const Real error = right_side(h, r, taps, x);
        for (int64_t k = 0; k < taps; ++k) reduced[k] = h[k];
        const Real stable = solve(reduced, x, taps - 1);
        const Real better = stable > zero ? (error < least ? active : zero) : zero;
        // Where the error no longer falls, rounding has the last word.
        const Real going = error < least * 0.9 ? active : (least < zero + 1e-7 ? zero : active);
        active = stable > zero ? (error > zero + 2 * kEpsilon ? going : zero) : zero;
        least = better > zero ? error : least;
        for (int64_t k = 0; k < taps; ++k) {
            best[k] = better > zero ? h[k] : best[k];
            h[k] = active > zero ? x[k] : h[k];
        }
    }
    scatter(best, call, block, call.out);
    for (int64_t l = 0; l < L && block * L + l < call.batch; ++l) call.error[block * L + l] = lane(least, l);
}

void apply_inverse(const SpectralCall& call, int64_t block, void* workspace) {
    const int64_t taps = call.taps;
    Real *h = static_cast<Real*>(workspace), *b = h + taps;
    gather(call.h, call, block, h);
    gather(call.b, call, block, b);
    call.transposed ? solve_transposed(h, b, taps - 1) : static_cast<void>(solve(h, b, taps - 1));
    scatter(b, call, block, call.out);
}

int64_t workspace_bytes(int64_t taps) {
    return 5 * taps * static_cast<int64_t>(sizeof(Real));
}

constexpr SpectralKernels kKernels = {L, workspace_bytes, factor, apply_inverse};

}  // namespace

const SpectralKernels& spectral_factor_kernels() {
    return kKernels;
}

}  // namespace isotypic::cpu::ISOTYPIC_ISA
