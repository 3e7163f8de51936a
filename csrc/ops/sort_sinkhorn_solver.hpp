// Sinkhorn's iteration on K_ij = exp(-|t_i - t_j| / tau) with t sorted, in O(n) numbers and O(n) time a step.
//
// K is semiseparable: with e_i = exp(-(t_i - t_{i-1}) / tau) and e_0 = 0,
//
//     (K x)_i = f_i + e_{i+1} b_{i+1},     f_i = x_i + e_i f_{i-1},     b_i = x_i + e_{i+1} b_{i+1}
//
// From v = 1, u = 1 / (K v) and v = 1 / (K u) in turn; P = diag(u) K diag(v). K_ii = 1 keeps every sum above its own term, so that no
// logarithms are needed. Adjoints are products with K again; the derivative in t of x^T K y needs the same sums with a sign,
//
//     (S x)_i = sum over t_j < t_i of K_ij x_j  -  sum over t_j > t_i of K_ij x_j
//
// where nodes with equal t have no part, as |.| has derivative 0 at 0. A node behind the length has e = 0 on both sides: P_ii = 1 there,
// and nothing depends on it.
//
// V is a number or a vector of numbers, one sample to a lane; entry i of an array lies at [i * stride]. Math<V> has exp and log.
#pragma once

#include <cstdint>

#include "core/host_device.hpp"

#if defined(__CUDACC__) || defined(ISOTYPIC_EMULATE)
#define ISOTYPIC_SINKHORN_INLINE
#else
#define ISOTYPIC_SINKHORN_INLINE __attribute__((always_inline))
#endif

namespace isotypic {
namespace sinkhorn {

// Arrays of n entries that a solver works in, behind each other; two more for each iteration whose derivative is wanted.
constexpr int kArrays = 9;

HOST_DEVICE ALWAYS_INLINE constexpr int arrays(int iterations, bool gradient) {
    return kArrays + (gradient ? 2 * iterations : 2);
}

template <class V, class T, class Math>
struct Solver {
    int64_t n, stride;
    int iterations;
    T rate;  // 1 / tau
    V *e, *gap, *scratch[4], *t_bar, *u_bar, *v_bar, *kept;

    HOST_DEVICE ALWAYS_INLINE Solver(int64_t n_, int64_t stride_, int iterations_, T tau, V* workspace)
        : n(n_), stride(stride_), iterations(iterations_), rate(T(1) / tau) {
        V** const places[kArrays] = {&e, &gap, &scratch[0], &scratch[1], &scratch[2], &scratch[3], &t_bar, &u_bar, &v_bar};
        for (int i = 0; i < kArrays; ++i) *places[i] = workspace + i * n * stride;
        kept = workspace + kArrays * n * stride;
    }
    HOST_DEVICE ALWAYS_INLINE V* u_of(int step) const { return kept + 2 * step * n * stride; }
    HOST_DEVICE ALWAYS_INLINE V* v_of(int step) const { return kept + (2 * step + 1) * n * stride; }

    static HOST_DEVICE ALWAYS_INLINE V number(T value) { return value - V{}; }

    // Entry i of the scores, with t_{i-1} and whether i is below the length, as a number 0 or 1.
    HOST_DEVICE ALWAYS_INLINE void set(int64_t i, V t, V before, V inside) const {
        const V step = t - before;
        const bool first = i == 0;
        gap[i * stride] = first ? V{} : inside > V{} ? step : V{};
        const V link = first ? V{} : inside > V{} ? Math::exp(-step * rate) : V{};
        // Links this weak add nothing to numbers of size 1, and products of subnormal numbers take long.
        e[i * stride] = link > number(sizeof(T) == 8 ? T(1e-150) : T(1e-18)) ? link : V{};
    }

    // y = 1 / (K x)
    HOST_DEVICE ALWAYS_INLINE void inverse_product(const V* x, V* y) const {
        V* const behind = scratch[0];
        V b = V{}, link = V{};
        for (int64_t i = n - 1; i >= 0; --i) {
            behind[i * stride] = link * b;
            b = x[i * stride] + link * b;
            link = e[i * stride];
        }
        V f = V{};
        for (int64_t i = 0; i < n; ++i) {
            f = x[i * stride] + e[i * stride] * f;
            y[i * stride] = T(1) / (f + behind[i * stride]);
        }
    }

    // All iterations; every u and v is kept where `gradient`, the last ones otherwise.
    HOST_DEVICE ALWAYS_INLINE void solve(bool gradient) const {
        V* const ones = v_bar;
        for (int64_t i = 0; i < n; ++i) ones[i * stride] = number(1);
        const V* v = ones;
        for (int step = 0; step < iterations; ++step) {
            const int at = gradient ? step : 0;
            inverse_product(v, u_of(at));
            inverse_product(u_of(at), v_of(at));
            v = v_of(at);
        }
    }

    // sum_ij P_ij log P_ij = sum_i u_i log u_i (K v)_i + sum_j log v_j - sum_ij u_i v_j K_ij |t_i - t_j| / tau; the last v is 1 / (K u).
    HOST_DEVICE ALWAYS_INLINE V negative_entropy(const V* u, const V* v) const {
        V* const behind = scratch[0];
        V b = V{}, link = V{};
        for (int64_t i = n - 1; i >= 0; --i) {
            behind[i * stride] = link * b;
            b = v[i * stride] + link * b;
            link = e[i * stride];
        }
        V sum = V{}, f_v = V{}, f_u = V{}, d_v = V{}, d_u = V{};
        for (int64_t i = 0; i < n; ++i) {
            const V a = e[i * stride], step = gap[i * stride], x = v[i * stride], w = u[i * stride];
            d_v = a * (d_v + step * f_v);
            d_u = a * (d_u + step * f_u);
            f_v = x + a * f_v;
            f_u = w + a * f_u;
            sum += w * Math::log(w) * (f_v + behind[i * stride]) + Math::log(x) - rate * (w * d_v + x * d_u);
        }
        return sum;
    }

    // use(i, (K p)_i, (K q)_i, (S p)_i, (S q)_i) for ascending i; p(i) and q(i) give the entries, which `use` may overwrite behind it.
    template <class First, class Second, class Use>
    HOST_DEVICE ALWAYS_INLINE void pair(const First& p, const Second& q, const Use& use) const {
        V b_p = V{}, b_q = V{}, after_p = V{}, after_q = V{}, link = V{}, step = V{};
        for (int64_t i = n - 1; i >= 0; --i) {
            const V next_p = link * b_p, next_q = link * b_q;
            // Nodes in a row with equal t have the same nodes behind them.
            const auto tied = tie(step, link);
            after_p = tied ? after_p : next_p;
            after_q = tied ? after_q : next_q;
            scratch[0][i * stride] = next_p;
            scratch[1][i * stride] = next_q;
            scratch[2][i * stride] = after_p;
            scratch[3][i * stride] = after_q;
            b_p = p(i) + next_p;
            b_q = q(i) + next_q;
            link = e[i * stride];
            step = gap[i * stride];
        }
        V f_p = V{}, f_q = V{}, before_p = V{}, before_q = V{};
        for (int64_t i = 0; i < n; ++i) {
            const V a = e[i * stride], d = gap[i * stride];
            const V last_p = a * f_p, last_q = a * f_q;
            const auto tied = tie(d, a);
            before_p = tied ? before_p : last_p;
            before_q = tied ? before_q : last_q;
            f_p = p(i) + last_p;
            f_q = q(i) + last_q;
            use(i, f_p + scratch[0][i * stride], f_q + scratch[1][i * stride], before_p - scratch[2][i * stride],
                before_q - scratch[3][i * stride]);
        }
    }
    static HOST_DEVICE ALWAYS_INLINE auto tie(V step, V link) { return (step == V{}) & (link > V{}); }

    HOST_DEVICE ALWAYS_INLINE void clear_gradient() const {
        for (int64_t i = 0; i < n; ++i) t_bar[i * stride] = u_bar[i * stride] = v_bar[i * stride] = V{};
    }

    // Adds the derivatives of sum_ij x_i P_ij y_j, in u, v and K.
    template <class First, class Second>
    HOST_DEVICE ALWAYS_INLINE void add_bilinear(const First& x, const Second& y) const {
        const V *u = u_of(iterations - 1), *v = v_of(iterations - 1);
        const auto p = [&](int64_t i) ISOTYPIC_SINKHORN_INLINE { return u[i * stride] * x(i); };
        const auto q = [&](int64_t i) ISOTYPIC_SINKHORN_INLINE { return v[i * stride] * y(i); };
        pair(p, q, [&](int64_t i, V k_p, V k_q, V s_p, V s_q) ISOTYPIC_SINKHORN_INLINE {
            u_bar[i * stride] += x(i) * k_q;
            v_bar[i * stride] += y(i) * k_p;
            t_bar[i * stride] -= rate * (p(i) * s_q + q(i) * s_p);
        });
    }

    // Adds those of scale * sum_ij P_ij log P_ij: weights scale (log u_i + log v_j + 1 - |t_i - t_j| / tau).
    HOST_DEVICE ALWAYS_INLINE void add_negative_entropy(V scale) const {
        const V *u = u_of(iterations - 1), *v = v_of(iterations - 1);
        add_bilinear([&](int64_t i) ISOTYPIC_SINKHORN_INLINE { return scale * (Math::log(u[i * stride]) + T(1)); },
                     [&](int64_t) ISOTYPIC_SINKHORN_INLINE { return number(1); });
        add_bilinear([&](int64_t) ISOTYPIC_SINKHORN_INLINE { return scale; },
                     [&](int64_t i) ISOTYPIC_SINKHORN_INLINE { return Math::log(v[i * stride]); });
        // The part with |t_i - t_j|: sums of K_ij |t_i - t_j| x_j on either side.
        V b_u = V{}, b_v = V{}, d_u = V{}, d_v = V{}, link = V{}, step = V{};
        for (int64_t i = n - 1; i >= 0; --i) {
            d_u = link * (d_u + step * b_u);
            d_v = link * (d_v + step * b_v);
            scratch[0][i * stride] = d_u;
            scratch[1][i * stride] = d_v;
            b_u = u[i * stride] + link * b_u;
            b_v = v[i * stride] + link * b_v;
            link = e[i * stride];
            step = gap[i * stride];
        }
        const V weight = -scale * rate;
        V f_u = V{}, f_v = V{};
        d_u = d_v = V{};
        for (int64_t i = 0; i < n; ++i) {
            const V a = e[i * stride], d = gap[i * stride], w = u[i * stride], x = v[i * stride];
            d_u = a * (d_u + d * f_u);
            d_v = a * (d_v + d * f_v);
            f_u = w + a * f_u;
            f_v = x + a * f_v;
            const V after_u = scratch[0][i * stride], after_v = scratch[1][i * stride];
            u_bar[i * stride] += weight * (d_v + after_v);
            v_bar[i * stride] += weight * (d_u + after_u);
            t_bar[i * stride] -= rate * weight * (w * (d_v - after_v) + x * (d_u - after_u));
        }
    }

    // From the derivatives in the last u and v to that in t.
    HOST_DEVICE ALWAYS_INLINE void reverse() const {
        for (int step = iterations - 1; step >= 0; --step) {
            const V *u = u_of(step), *v = v_of(step), *previous = step > 0 ? v_of(step - 1) : nullptr;
            // v = 1 / (K u)
            pair([&](int64_t i) ISOTYPIC_SINKHORN_INLINE { return -v_bar[i * stride] * v[i * stride] * v[i * stride]; },
                 [&](int64_t i) ISOTYPIC_SINKHORN_INLINE { return u[i * stride]; },
                 [&](int64_t i, V k_p, V, V s_p, V s_q) ISOTYPIC_SINKHORN_INLINE {
                     const V p = -v_bar[i * stride] * v[i * stride] * v[i * stride];
                     t_bar[i * stride] -= rate * (p * s_q + u[i * stride] * s_p);
                     u_bar[i * stride] += k_p;
                 });
            // u = 1 / (K v) with the v of the step before
            pair([&](int64_t i) ISOTYPIC_SINKHORN_INLINE { return -u_bar[i * stride] * u[i * stride] * u[i * stride]; },
                 [&](int64_t i) ISOTYPIC_SINKHORN_INLINE { return previous ? previous[i * stride] : number(1); },
                 [&](int64_t i, V k_p, V, V s_p, V s_q) ISOTYPIC_SINKHORN_INLINE {
                     const V p = -u_bar[i * stride] * u[i * stride] * u[i * stride];
                     t_bar[i * stride] -= rate * (p * s_q + (previous ? previous[i * stride] : number(1)) * s_p);
                     u_bar[i * stride] = V{};
                     v_bar[i * stride] = k_p;
                 });
        }
    }
};

}  // namespace sinkhorn
}  // namespace isotypic
