// The Gram matrix of largest determinant of a positive binary form: Newton's method on the dual, in samples on the circle. See
// csrc/ops/max_det.hpp for the formulas. One source for both backends: `Real` is a vector of lanes (one polynomial each) on a CPU and a
// number on a device, `Team` is who works on one polynomial: a vector or a thread by itself, or the lanes of a warp with the arrays in
// shared memory.
// Sizes: degree 2 d, n = d + 1 (side of the Gram), m = 2 d + 1 (coefficients, nodes). Operations of one step, in multiply-adds: moments
// m^2, Cholesky of H n^3 / 6, X m n^2 / 2, K m^2 n / 2, Cholesky of K o K m^3 / 6, two substitutions m^2; about 5.5 n^3 in all: 330 at
// degree 6, 1,200 at degree 10, 8,100 at degree 20, 5e4 at degree 40. Moments instead of sums of v v^T make H quadratic in n.
#pragma once

#include <cstdint>

#include "core/double_word.hpp"
#include "core/host_device.hpp"

#if defined(__CUDACC__)
#define ISOTYPIC_UNROLL _Pragma("unroll")
#else
#define ISOTYPIC_UNROLL _Pragma("GCC unroll 8")
#endif

namespace isotypic::max_det {

// Where each table of a degree lies in the one array that holds them (ops/forms/circle.py writes it). Constants of the degree, shared by all
// polynomials.
struct Tables {
    int d, n, m;
    int samples;    // (m, m): monomials x^k y^(2d - k) at node s
    int monomials;  // (m, n): monomials x^i y^(d - i) at node s
    int basis;      // (m, n): the orthonormal trigonometric forms of degree d at node s
    int moments;    // (m, m): 1, cos(j phi), sin(j phi) at node s, phi = 2 theta
    int products;   // (n (n + 1) / 2, 4): H[i, j] = c1 y[i1] + c2 y[i2] as i1, c1, i2, c2
    int change;     // (n, n): row i holds the coefficients of form i of the basis
    int spread;     // (n, n): C(d, i) C(d, j) / C(2 d, i + j), which sum to 1 over each antidiagonal
    int size;

    HOST_DEVICE explicit Tables(int d_) : d(d_), n(d_ + 1), m(2 * d_ + 1) {
        samples = 0;
        monomials = samples + m * m;
        basis = monomials + m * n;
        moments = basis + m * n;
        products = moments + m * m;
        change = products + 2 * n * (n + 1);
        spread = change + n * n;
        size = spread + n * n;
    }
};

// kInaccurate: positive for certain, with a Gram that is less accurate than kSolved promises. kRefine stands between two passes: the form
// is to be solved again in double-word arithmetic.
enum Status { kSolved = 0, kNotPositive = 1, kUndecided = 2, kInvalid = 3, kInaccurate = 4, kRefine = 5 };

constexpr int kMaxIterations = 100;

// Tolerances: the Newton decrement at which the last step is taken, below which rounding may end the iteration, and the
// largest relative residual p(theta_s) - A(Q)(theta_s) that counts as solved; `epsilon` is the spacing of numbers at 1. Estimates of the
// error: from `refine` on a form is solved again in double-word arithmetic, up to `solved` its status is kSolved.
struct Tolerance {
    static constexpr double decrement = 1e-7, rounding = 1e-3, residual = 1e-8, epsilon = 2.2e-16, refine = 1e-8, solved = 1e-6;
};
struct SingleTolerance {  // of a result that is rounded to float32
    static constexpr double epsilon = 1.2e-7, solved = 1e-2;
};

// The arrays of one solve, in units of Real. Rows of X and K are padded, so that blocks of rows may run past the end.
template <class Team>
struct Layout {
    int w, p, y, g, H, X, K, size;
    HOST_DEVICE explicit Layout(const Tables& t) {
        const int rows = t.m + Team::kRows;
        w = 0, p = w + t.m, y = p + t.m, g = y + t.m;
        H = g + rows;
        X = H + (t.n + Team::kRows) * t.n;
        K = X + rows * t.n;
        size = K + rows * t.m;
    }
};

// dots[r] = <a row r, b> for Team::kRows rows at once: as many independent sums as hide the latency of a multiply-add.
template <class Team, class Real, class Other>
HOST_DEVICE ALWAYS_INLINE void dots(Real (&sum)[Team::kRows], const Real* a, int stride, const Other* b, int length) {
    for (int k = 0; k < length; ++k) {
        const Other right = b[k];
        ISOTYPIC_UNROLL
        for (int r = 0; r < Team::kRows; ++r) sum[r] += a[r * stride + k] * right;
    }
}

// Lower Cholesky factor in place of the lower triangle of a (size, size); the diagonal holds the reciprocals of the factor's. Lanes of `ok`
// become 0 where a pivot is not positive; their factor is finite and means nothing. Returns the largest quotient of a diagonal entry and
// what elimination leaves of it, the pivot: about the condition of the matrix with its diagonal scaled to 1.
template <class Team, class Real>
HOST_DEVICE ALWAYS_INLINE Real cholesky(Real* a, int stride, int size, const Team& team, Real& ok) {
    constexpr int R = Team::kRows;
    const Real zero{}, one = zero + 1;
    Real condition = one;
    for (int j = 0; j < size; ++j) {
        const Real diagonal = a[j * stride + j];
        team.sync();
        for (int i = j + R * team.rank(); i < size; i += R * team.size()) {
            Real sum[R] = {};
            dots<Team>(sum, a + i * stride, stride, a + j * stride, j);
            ISOTYPIC_UNROLL
            for (int r = 0; r < R; ++r) a[(i + r) * stride + j] -= sum[r];
        }
        team.sync();
        const Real pivot = a[j * stride + j];
        ok = select(pivot > zero, ok, zero);
        const Real inverse = one / Team::root(select(pivot > zero, pivot, one)), quotient = diagonal * inverse * inverse;
        condition = select(quotient > condition, quotient, condition);
        team.sync();
        for (int i = j + team.rank(); i < size; i += team.size()) a[i * stride + j] = i == j ? inverse : a[i * stride + j] * inverse;
        team.sync();
    }
    return condition;
}

// z = A^-1 z with the factor of `cholesky`. Column by column, so that a team shares the rows.
template <class Team, class Real>
HOST_DEVICE ALWAYS_INLINE void forward_substitution(const Real* a, int stride, int size, Real* z, const Team& team) {
    for (int j = 0; j < size; ++j) {
        const Real value = z[j] * a[j * stride + j];
        team.sync();
        if (team.rank() == 0) z[j] = value;
        for (int i = j + 1 + team.rank(); i < size; i += team.size()) z[i] -= a[i * stride + j] * value;
        team.sync();
    }
}
template <class Team, class Real>
HOST_DEVICE ALWAYS_INLINE void backward_substitution(const Real* a, int stride, int size, Real* z, const Team& team) {
    for (int j = size - 1; j >= 0; --j) {
        const Real value = z[j] * a[j * stride + j];
        team.sync();
        if (team.rank() == 0) z[j] = value;
        for (int i = team.rank(); i < j; i += team.size()) z[i] -= a[j * stride + i] * value;
        team.sync();
    }
}

// out[s] = sum_k table[s, k] in[k], for the tables of constants.
template <class Team, class Real, class Other, class T>
HOST_DEVICE ALWAYS_INLINE void apply(const T* table, int rows, int columns, const Other* in, Real* out, const Team& team) {
    for (int s = team.rank(); s < rows; s += team.size()) {
        Real sum[2] = {};
        int k = 0;
        for (; k + 1 < columns; k += 2) sum[0] += table[s * columns + k] * in[k], sum[1] += table[s * columns + k + 1] * in[k + 1];
        if (k < columns) sum[0] += table[s * columns + k] * in[k];
        out[s] = sum[0] + sum[1];
    }
    team.sync();
}

// Factor of H(w) in work[H], and X with rows L^-1 u(theta_s).
template <class Team, class Real, class T>
HOST_DEVICE ALWAYS_INLINE void factor(const Tables& t, const T* tables, Real* work, const Layout<Team>& at, const Team& team, Real& ok) {
    constexpr int R = Team::kRows;
    apply(tables + t.moments, t.m, t.m, work + at.w, work + at.y, team);
    const T* products = tables + t.products;
    const Real* y = work + at.y;
    Real* H = work + at.H;
    for (int i = 0; i < t.n; ++i)
        for (int j = team.rank(); j <= i; j += team.size()) {
            const T* entry = products + 2 * i * (i + 1) + 4 * j;
            H[i * t.n + j] = entry[1] * y[static_cast<int>(entry[0])] + entry[3] * y[static_cast<int>(entry[2])];
        }
    team.sync();
    cholesky(H, t.n, t.n, team, ok);
    const T* basis = tables + t.basis;
    for (int s = R * team.rank(); s < t.m; s += R * team.size()) {
        Real* X = work + at.X + s * t.n;
        for (int i = 0; i < t.n; ++i) {
            Real sum[R] = {};
            dots<Team>(sum, X, t.n, H + i * t.n, i);
            ISOTYPIC_UNROLL
            for (int r = 0; r < R; ++r) {
                const int row = s + r < t.m ? s + r : t.m - 1;
                X[r * t.n + i] = (basis[row * t.n + i] - sum[r]) * H[i * t.n + i];
            }
        }
    }
    team.sync();
}

template <class Team, class Real>
HOST_DEVICE ALWAYS_INLINE Real square_norm(const Real* a, int length) {
    Real sum{};
    for (int k = 0; k < length; ++k) sum += a[k] * a[k];
    return sum;
}

// What a solve tells beside the weights of H, as numbers so that lanes are lanes. `least` is the smallest sample, at node `where`;
// `condition` that of the last Hessian, as cholesky() tells it, and kHuge where Newton's method ended otherwise than by converging.
constexpr float kHuge = 1e30f;
template <class Real>
struct Report {
    Real status, iterations, least, where, condition;
};

// From the coefficients in work[p] (scaled by a power of two, finite or zero where `valid` is 0) to the optimum: X and the factor of H at
// the end, and the weights in work[w]. Lanes whose first weight is not 0 on entry begin with the weights that are there.
template <class Team, class Real, class T>
HOST_DEVICE ALWAYS_INLINE Report<Real> solve(const Tables& t, const T* tables, Real* work, const Team& team, Real valid) {
    constexpr int R = Team::kRows;
    const Layout<Team> at(t);
    const Real zero{}, one = zero + T(1);
    Real *w = work + at.w, *p = work + at.p, *y = work + at.y, *g = work + at.g, *K = work + at.K;
    const Real* X = work + at.X;

    // Samples of p; the moment layer's Gram, by the trapezoidal rule on the same nodes, is where Newton starts.
    apply(tables + t.samples, t.m, t.m, p, y, team);
    Real least = y[0], where = zero;
    for (int s = 1; s < t.m; ++s) {
        where = select(y[s] < least, zero + static_cast<T>(s), where);
        least = select(y[s] < least, y[s], least);
    }
    const Real positive = select(least > zero, valid, zero), given = select(w[0] < zero, one, w[0]);
    team.sync();
    for (int s = team.rank(); s < t.m; s += team.size()) {
        p[s] = select(positive > zero, y[s], one);
        w[s] = select(given > zero, w[s], Team::inverse_root(p[s], t.d) / p[s]);
    }
    team.sync();
    Real total{};
    for (int s = 0; s < t.m; ++s) total += w[s] * p[s];
    team.sync();
    const Real normal = select(given > zero, one, (zero + static_cast<T>(t.n)) / total);
    for (int s = team.rank(); s < t.m; s += team.size()) w[s] *= normal;
    team.sync();

    Real ok = one, active = positive, iterations = zero, previous = one / Tolerance::decrement, condition = one;
    for (int iteration = 0; iteration < kMaxIterations && team.any(active); ++iteration) {
        factor(t, tables, work, at, team, ok);
        for (int s = R * team.rank(); s < t.m; s += R * team.size())
            for (int c = 0; c < s + R && c < t.m; ++c) {
                Real sum[R] = {};
                dots<Team>(sum, X + s * t.n, t.n, X + c * t.n, t.n);
                ISOTYPIC_UNROLL
                for (int r = 0; r < R; ++r) {
                    if (c == s + r) g[c] = p[c] - sum[r];
                    K[(s + r) * t.m + c] = sum[r] * sum[r];
                }
            }
        team.sync();
        const Real quotient = cholesky(K, t.m, t.m, team, ok);
        forward_substitution(K, t.m, t.m, g, team);
        const Real decrement = square_norm<Team>(g, t.m);
        team.sync();
        backward_substitution(K, t.m, t.m, g, team);
        // Self-concordance: this step keeps H positive and lowers the objective, without a line search.
        const Real step = select(decrement < zero + T(1) / 16, one, one / (one + Team::root(decrement)));
        const Real finite = select(decrement < one / Tolerance::decrement / Tolerance::decrement, ok, zero);
        condition = select(active > zero, select(finite > zero, quotient, zero + T(kHuge)), condition);
        active = select(finite > zero, active, zero);
        for (int s = team.rank(); s < t.m; s += team.size()) w[s] = select(active > zero, w[s] - step * g[s], w[s]);
        iterations += active;
        const Real small = select(decrement < zero + Tolerance::rounding * Tolerance::rounding, zero, active);
        const Real rounding = select(previous > zero, select(decrement * T(4) > previous, small, active), active);
        active = select(decrement < zero + Tolerance::decrement * Tolerance::decrement, zero, rounding);
        previous = decrement;
        team.sync();
    }
    condition = select(active > zero, zero + T(kHuge), condition);
    ok = one;
    factor(t, tables, work, at, team, ok);
    for (int s = 0; s < t.m; ++s) {
        const Real residual = p[s] - square_norm<Team>(X + s * t.n, t.n), size = select(residual < zero, zero - residual, residual);
        ok = select(size < p[s] * Tolerance::residual, ok, zero);
    }
    const Real outcome = select(ok > zero, zero + T(kSolved), zero + T(kUndecided));
    const Real status = select(positive > zero, outcome, select(valid > zero, zero + T(kNotPositive), zero + T(kInvalid)));
    team.sync();
    return {status, iterations, least, where, condition};
}

// What is left of a diagonal when all that rounding can do is taken off. With q = sqrt(diag Q) and u half the spacing of numbers at 1,
// Cholesky's rule factorises a matrix within (n + 2) u q q^T of Q, and the antidiagonal sums of Q miss the form by at most 2 n u of those
// of q q^T; as matrices these are below n (n + 2) u and 2 n^2 u times diag Q. Where Q less 2 n (n + 2) epsilon diag Q has a factor, Q is
// positive definite, and the form positive, for certain (S. M. Rump, "Verification of positive definiteness", 2006).
template <class T>
HOST_DEVICE inline T one_less_rounding(int n) {
    return T(1) - T(2 * n * (n + 2)) * Tolerance::epsilon;
}

// The Gram in monomials, gram (n, n) = change^T H^-1 change, corrected to A(gram) = `form` (the coefficients) along the one subspace of
// Grams that SL(2) maps to itself. Lanes of `ok` become 0 where it is not certain to be positive after the correction, which happens next
// to the boundary. Y overwrites work[X]; the Gram is written to work[K], and work[H] is used. Where the Gram will be rounded to float32,
// `single`, lanes of `exact` become 0 where the rounded matrix is not certain to be positive definite, and `rounding` is the relative error
// of rounding: a matrix D R D with D = sqrt(diag Q) and numbers of at most u = epsilon / 2 in R, at most |R| times the trace of D Q^-1 D.
// |R| is about sqrt(n) u; the trace is above the norm, so that epsilon times the trace was never below what was found, nor ten times above.
template <class Team, class Real, class T>
HOST_DEVICE ALWAYS_INLINE Real* gram(const Tables& t, const T* tables, Real* work, const Real* form, bool single, const Team& team,
                                     Real& ok, Real& exact, Real& rounding) {
    const Layout<Team> at(t);
    Real* H = work + at.H;
    Real *Y = work + at.X, *Q = work + at.K;
    const T *change = tables + t.change, *spread = tables + t.spread;
    for (int k = team.rank(); k < t.n; k += team.size())  // row k of Y: L^-1 (column k of change)
        for (int i = 0; i < t.n; ++i) {
            Real sum{};
            for (int j = 0; j < i; ++j) sum += H[i * t.n + j] * Y[k * t.n + j];
            Y[k * t.n + i] = (change[i * t.n + k] - sum) * H[i * t.n + i];
        }
    team.sync();
    for (int i = team.rank(); i < t.n; i += team.size())
        for (int j = 0; j < t.n; ++j) {
            Real sum{};
            for (int k = 0; k < t.n; ++k) sum += Y[i * t.n + k] * Y[j * t.n + k];
            Q[i * t.n + j] = sum;
        }
    team.sync();
    for (int k = team.rank(); k < t.m; k += team.size()) {
        const int first = k < t.n ? 0 : k - t.d, last = k < t.n ? k : t.d;
        Real residual = form[k];
        for (int i = first; i <= last; ++i) residual -= Q[i * t.n + k - i];
        for (int i = first; i <= last; ++i) Q[i * t.n + k - i] += spread[i * t.n + k - i] * residual;
    }
    team.sync();
    const T certain = one_less_rounding<T>(t.n);
    for (int i = team.rank(); i < t.n * t.n; i += team.size()) H[i] = i % (t.n + 1) == 0 ? Q[i] * certain : Q[i];
    team.sync();
    cholesky(H, t.n, t.n, team, ok);
    if (!single) return Q;
    for (int i = team.rank(); i < t.n * t.n; i += team.size()) {
        const Real entry = Team::in_single(Q[i]);
        H[i] = i % (t.n + 1) == 0 ? entry * certain : entry;
    }
    team.sync();
    cholesky(H, t.n, t.n, team, exact);
    for (int i = team.rank(); i < t.n; i += team.size()) {  // column i of L^-1 in row i of Y; then Q_ii (Q^-1)_ii in front
        Real *column = Y + i * t.n, sum{};
        for (int k = i; k < t.n; ++k) {
            Real value{};
            for (int j = i; j < k; ++j) value -= H[k * t.n + j] * column[j];
            column[k] = k == i ? H[k * t.n + k] : value * H[k * t.n + k];
            sum += column[k] * column[k];
        }
        Y[i * t.n] = sum * Q[i * t.n + i];
    }
    team.sync();
    Real trace{};
    for (int i = 0; i < t.n; ++i) trace += Y[i * t.n];
    const Real zero{};
    rounding = select(exact > zero, trace * T(SingleTolerance::epsilon), zero + T(1));
    return Q;
}

// The relative error of the Gram (as (1 - e) Q <= Q' <= (1 + e) Q) and of its derivative from the condition of the Hessian: the Hessian is
// quadratic in the Gram, so that in double-word arithmetic its factor is as good as exact, and what is left is what rounding of the
// samples does to a Gram whose condition is the root.
template <class Team, class T, class Real>
HOST_DEVICE ALWAYS_INLINE Real error_estimate(Real condition, bool double_word) {
    return (double_word ? Team::root(condition) : condition) * (T(8) * Tolerance::epsilon);
}

// result (m) = Hess(Q)^-1 A(Q G Q), or Hess(Q)^-1 r where G is null; Hess(Q) y = A(Q Hankel(y) Q), all in monomials. Q and G (n, n) in
// units of Real; G is symmetrised. `work` has Layout's arrays; lanes whose Hessian is not positive (a Gram of zeros) get zeros. Returns the
// condition of the Hessian, as cholesky() tells it, huge where it is not positive and the Gram is not zero.
template <class Team, class Real, class T, class Other>
HOST_DEVICE ALWAYS_INLINE Real adjoint(const Tables& t, const T* tables, Real* work, const Real* Q, const Other* G, const Other* r,
                                       Real* result, const Team& team) {
    constexpr int R = Team::kRows;
    const Layout<Team> at(t);
    const T* monomials = tables + t.monomials;
    Real *P = work + at.X, *K = work + at.K, *g = work + at.g;
    const Real zero{}, one = zero + 1;
    for (int s = team.rank(); s < t.m + R; s += team.size()) {  // P = monomials Q, with rows of zeros behind
        for (int i = 0; i < t.n; ++i) {
            Real sum{};
            if (s < t.m)
                for (int k = 0; k < t.n; ++k) sum += monomials[s * t.n + k] * Q[k * t.n + i];
            P[s * t.n + i] = sum;
        }
        if (s < t.m && G) {
            Real value{};
            for (int i = 0; i < t.n; ++i) {
                Real sum{};
                for (int k = 0; k < t.n; ++k) sum += G[i * t.n + k] * P[s * t.n + k];
                value += sum * P[s * t.n + i];
            }
            g[s] = value;
        }
    }
    team.sync();
    if (!G) apply(tables + t.samples, t.m, t.m, r, g, team);
    for (int s = R * team.rank(); s < t.m; s += R * team.size())
        for (int c = 0; c < s + R && c < t.m; ++c) {
            Real sum[R] = {};
            dots<Team>(sum, P + s * t.n, t.n, monomials + c * t.n, t.n);
            ISOTYPIC_UNROLL
            for (int i = 0; i < R; ++i) K[(s + i) * t.m + c] = sum[i] * sum[i];
        }
    team.sync();
    Real ok = one;
    const Real condition = cholesky(K, t.m, t.m, team, ok);
    forward_substitution(K, t.m, t.m, g, team);
    backward_substitution(K, t.m, t.m, g, team);
    const T* samples = tables + t.samples;
    for (int k = team.rank(); k < t.m; k += team.size()) {
        Real sum{};
        for (int s = 0; s < t.m; ++s) sum += samples[s * t.m + k] * g[s];
        result[k] = select(ok > zero, sum, zero);
    }
    team.sync();
    return select(ok > zero, condition, select(Q[0] > zero, zero + T(kHuge), zero));
}

}  // namespace isotypic::max_det
