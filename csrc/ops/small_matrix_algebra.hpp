// Frames, eigenvectors and polar factors of D x D matrices, D = 2, 3, 4, row by row in V m[D * D]. V is a number or a vector of numbers,
// one matrix to a lane: no step depends on what is in other lanes, so that a result does not depend on what else is in a batch.
//
//     frame       Gram-Schmidt, each column projected twice; 2 D^3 multiply-adds, D roots
//     eigen       Jacobi's rotations in a fixed number of sweeps, each of D (D - 1) / 2 rotations of 2 roots and 2 divisions. Closed
//                 formulas (Cardano) lose half of the digits of the vectors where values come close; this loses none
//     polar       the same rotations from one side (Hestenes), which keeps small singular values accurate
//
// Arithmetic<V, T> has root(V) and any(condition).
#pragma once

#include "core/host_device.hpp"

#if defined(__CUDACC__)
#define ISOTYPIC_UNROLL _Pragma("unroll")
#else
#define ISOTYPIC_UNROLL _Pragma("GCC unroll 16")
#endif

namespace isotypic {
namespace small_matrix {

// What of the largest number rounding leaves of an exact zero, with room.
template <class T>
constexpr T kTolerance = T(64) * (sizeof(T) == 8 ? T(2.220446049250313e-16) : T(1.1920929e-7));

// Quadratic convergence: after 4 (D = 3) and 5 (D = 4) sweeps random matrices are diagonal to float64's rounding, one more is for bad ones.
template <class T, int D>
constexpr int kSweeps = D == 2 ? 1 : D + (sizeof(T) == 8 ? 2 : 1);

template <class V>
HOST_DEVICE ALWAYS_INLINE V absolute(V x) {
    return x < V{} ? -x : x;
}
template <class V>
HOST_DEVICE ALWAYS_INLINE V larger(V a, V b) {
    return a > b ? a : b;
}
template <class V>
HOST_DEVICE ALWAYS_INLINE V constant(double value) {
    return V{} + static_cast<decltype(V{}[0])>(value);
}
template <>
HOST_DEVICE ALWAYS_INLINE float constant<float>(double value) {
    return static_cast<float>(value);
}
template <>
HOST_DEVICE ALWAYS_INLINE double constant<double>(double value) {
    return value;
}

// A power of two, `lift`, that brings numbers as large as `size` to where reciprocals, squares and sums of a few are normal numbers, and
// `back`, its inverse; 1 where they are there, and for 0. Multiplying by it is exact, so that subnormal numbers and the largest ones are
// no worse than others. Results come back by a multiplication at the very end: what is too large for the type is then infinite, and never
// inf - inf or 0 inf.
template <class V>
struct Lift {
    V lift, back;
};
template <class V, class T>
HOST_DEVICE ALWAYS_INLINE Lift<V> lift_of(V size) {
    constexpr double far = sizeof(T) == 8 ? 0x1p600 : 0x1p96, bound = sizeof(T) == 8 ? 0x1p480 : 0x1p60;
    const V one = constant<V>(1), up = constant<V>(far), down = constant<V>(1 / far), given = size > V{} ? size : one;
    const auto small = given < constant<V>(1 / bound);
    const auto large = given > constant<V>(bound);
    return {small ? up : (large ? down : one), small ? down : (large ? up : one)};
}

template <class V, int N>
HOST_DEVICE ALWAYS_INLINE V largest(const V* m) {
    V size = absolute(m[0]);
    ISOTYPIC_UNROLL
    for (int i = 1; i < N; ++i) size = larger(size, absolute(m[i]));
    return size;
}

// c = a b, a^T b or a b^T
template <class V, int D>
HOST_DEVICE ALWAYS_INLINE void product(const V* a, const V* b, V* c) {
    ISOTYPIC_UNROLL
    for (int i = 0; i < D; ++i) ISOTYPIC_UNROLL
    for (int j = 0; j < D; ++j) {
        V sum = a[i * D] * b[j];
        ISOTYPIC_UNROLL
        for (int k = 1; k < D; ++k) sum += a[i * D + k] * b[k * D + j];
        c[i * D + j] = sum;
    }
}
template <class V, int D>
HOST_DEVICE ALWAYS_INLINE void product_tn(const V* a, const V* b, V* c) {
    ISOTYPIC_UNROLL
    for (int i = 0; i < D; ++i) ISOTYPIC_UNROLL
    for (int j = 0; j < D; ++j) {
        V sum = a[i] * b[j];
        ISOTYPIC_UNROLL
        for (int k = 1; k < D; ++k) sum += a[k * D + i] * b[k * D + j];
        c[i * D + j] = sum;
    }
}
template <class V, int D>
HOST_DEVICE ALWAYS_INLINE void product_nt(const V* a, const V* b, V* c) {
    ISOTYPIC_UNROLL
    for (int i = 0; i < D; ++i) ISOTYPIC_UNROLL
    for (int j = 0; j < D; ++j) {
        V sum = a[i * D] * b[j * D];
        ISOTYPIC_UNROLL
        for (int k = 1; k < D; ++k) sum += a[i * D + k] * b[j * D + k];
        c[i * D + j] = sum;
    }
}
template <class V, int D>
HOST_DEVICE ALWAYS_INLINE void symmetrize(const V* a, V* c) {
    const V half = constant<V>(0.5);
    ISOTYPIC_UNROLL
    for (int i = 0; i < D; ++i) ISOTYPIC_UNROLL
    for (int j = 0; j < D; ++j) c[i * D + j] = half * (a[i * D + j] + a[j * D + i]);
}

template <class V, int D>
HOST_DEVICE ALWAYS_INLINE V determinant(const V* m) {
    if constexpr (D == 2) {
        return m[0] * m[3] - m[1] * m[2];
    } else if constexpr (D == 3) {
        return m[0] * (m[4] * m[8] - m[5] * m[7]) - m[1] * (m[3] * m[8] - m[5] * m[6]) + m[2] * (m[3] * m[7] - m[4] * m[6]);
    } else {
        // Products of 2 x 2 minors of the first and of the last two rows.
        const V a = m[0] * m[5] - m[1] * m[4], b = m[0] * m[6] - m[2] * m[4], c = m[0] * m[7] - m[3] * m[4];
        const V d = m[1] * m[6] - m[2] * m[5], e = m[1] * m[7] - m[3] * m[5], f = m[2] * m[7] - m[3] * m[6];
        const V u = m[8] * m[13] - m[9] * m[12], v = m[8] * m[14] - m[10] * m[12], w = m[8] * m[15] - m[11] * m[12];
        const V x = m[9] * m[14] - m[10] * m[13], y = m[9] * m[15] - m[11] * m[13], z = m[10] * m[15] - m[11] * m[14];
        return a * z - b * y + c * x + d * w - e * v + f * u;
    }
}

// r <- r minus its part along columns 0 ... j - 1 of q, twice; returns |r|^2
template <class V, int D>
HOST_DEVICE ALWAYS_INLINE V project(const V* q, int j, V* r) {
    ISOTYPIC_UNROLL
    for (int pass = 0; pass < 2; ++pass) ISOTYPIC_UNROLL
    for (int p = 0; p < j; ++p) {
        V dot = q[p] * r[0];
        ISOTYPIC_UNROLL
        for (int i = 1; i < D; ++i) dot += q[i * D + p] * r[i];
        ISOTYPIC_UNROLL
        for (int i = 0; i < D; ++i) r[i] -= dot * q[i * D + p];
    }
    V square = r[0] * r[0];
    ISOTYPIC_UNROLL
    for (int i = 1; i < D; ++i) square += r[i] * r[i];
    return square;
}

// A vector orthogonal to columns 0 ... j - 1 of q, from the axis that is farthest from them; returns its squared length, at least 1 / D.
template <class V, int D>
HOST_DEVICE ALWAYS_INLINE V spare(const V* q, int j, V* s) {
    const V one = constant<V>(1);
    V least = V{};
    for (int p = 0; p < j; ++p) least += q[p] * q[p];
    for (int i = 0; i < D; ++i) s[i] = i == 0 ? one : V{};
    for (int i = 1; i < D; ++i) {
        V overlap = V{};
        for (int p = 0; p < j; ++p) overlap += q[i * D + p] * q[i * D + p];
        const auto better = overlap < least;
        least = better ? overlap : least;
        for (int l = 0; l < D; ++l) s[l] = better ? (l == i ? one : V{}) : s[l];
    }
    return project<V, D>(q, j, s);
}

// Column j of q from r, or from an axis where bad.
template <class V, int D, class Arithmetic, class Condition>
HOST_DEVICE ALWAYS_INLINE void set_column(V* q, int j, V* r, V square, Condition bad) {
    if (Arithmetic::any(bad)) {
        V s[D];
        const V other = spare<V, D>(q, j, s);
        ISOTYPIC_UNROLL
        for (int i = 0; i < D; ++i) r[i] = bad ? s[i] : r[i];
        square = bad ? other : square;
    }
    const V scale = constant<V>(1) / Arithmetic::root(square);
    ISOTYPIC_UNROLL
    for (int i = 0; i < D; ++i) q[i * D + j] = r[i] * scale;
}

// v = q r with r upper triangular; u = r^-1, or 0 where the columns are dependent. Entries of u beyond the largest number are that.
template <class V, class T, int D, class Arithmetic>
HOST_DEVICE ALWAYS_INLINE void frame(const V* v, bool proper, V* q, V* u) {
    const V zero = V{}, one = constant<V>(1), bound = constant<V>(static_cast<double>(kTolerance<T>) * static_cast<double>(kTolerance<T>));
    const V most = constant<V>(sizeof(T) == 8 ? 1.7976931348623157e308 : 3.4028234663852886e38);
    V keep = one, columns[D * D], scale[D], lift[D];  // columns: of v, times lift and scale
    ISOTYPIC_UNROLL
    for (int j = 0; j < D; ++j) {
        V r[D], size = absolute(v[j]), length = zero;
        ISOTYPIC_UNROLL
        for (int i = 1; i < D; ++i) size = larger(size, absolute(v[i * D + j]));
        lift[j] = lift_of<V, T>(size).lift;
        scale[j] = one / (size > zero ? size * lift[j] : one);
        ISOTYPIC_UNROLL
        for (int i = 0; i < D; ++i) {
            r[i] = columns[i * D + j] = v[i * D + j] * lift[j] * scale[j];
            length += r[i] * r[i];
        }
        const V square = project<V, D>(q, j, r);
        const auto bad = square <= bound * length;
        set_column<V, D, Arithmetic>(q, j, r, square, bad);
        keep = bad ? zero : keep;
    }
    if (proper) {
        const auto turned = determinant<V, D>(q) < zero;
        ISOTYPIC_UNROLL
        for (int i = 0; i < D; ++i) q[i * D + D - 1] = turned ? -q[i * D + D - 1] : q[i * D + D - 1];
    }
    V r[D * D];
    product_tn<V, D>(q, columns, r);
    ISOTYPIC_UNROLL
    for (int j = 0; j < D; ++j) {
        const V diagonal = keep > zero ? r[j * D + j] : one;
        const V inverse = one / diagonal;
        ISOTYPIC_UNROLL
        for (int i = 0; i < D; ++i) u[i * D + j] = i == j ? inverse : zero;
        ISOTYPIC_UNROLL
        for (int i = 0; i < j; ++i) {
            V sum = zero;
            ISOTYPIC_UNROLL
            for (int k = i; k < j; ++k) sum += u[i * D + k] * r[k * D + j];
            u[i * D + j] = -sum * inverse;
        }
    }
    ISOTYPIC_UNROLL
    for (int i = 0; i < D * D; ++i) {
        V entry = u[i] * scale[i / D] * lift[i / D];
        entry = entry > most ? most : (entry < -most ? -most : entry);
        u[i] = keep > zero ? entry : zero;
    }
}

// The adjoint of the frame: q L u^T with L the strictly lower part of q^T g - g^T q.
template <class V, class T, int D>
HOST_DEVICE ALWAYS_INLINE void frame_backward(const V* g, const V* q, const V* u, V* result) {
    V m[D * D], t[D * D];
    product_tn<V, D>(q, g, m);
    ISOTYPIC_UNROLL
    for (int i = 0; i < D; ++i) ISOTYPIC_UNROLL
    for (int j = 0; j < D; ++j) {
        V sum = V{};
        ISOTYPIC_UNROLL
        for (int k = j + 1; k < D; ++k) sum += q[i * D + k] * (m[k * D + j] - m[j * D + k]);
        t[i * D + j] = sum;
    }
    ISOTYPIC_UNROLL
    for (int j = 0; j < D; ++j) {
        V size = absolute(u[j * D + j]), row[D];
        ISOTYPIC_UNROLL
        for (int k = j + 1; k < D; ++k) size = larger(size, absolute(u[j * D + k]));
        const Lift<V> scale = lift_of<V, T>(size);
        ISOTYPIC_UNROLL
        for (int k = j; k < D; ++k) row[k] = u[j * D + k] * scale.lift;
        ISOTYPIC_UNROLL
        for (int i = 0; i < D; ++i) {
            V sum = V{};
            ISOTYPIC_UNROLL
            for (int k = j; k < D; ++k) sum += t[i * D + k] * row[k];
            result[i * D + j] = sum * scale.back;
        }
    }
}

// Beside numbers of size 1 this changes nothing, and its square is no subnormal number, at which processors stumble.
template <class V, class T>
HOST_DEVICE ALWAYS_INLINE V without_dust(V x) {
    return absolute(x) < constant<V>(sizeof(T) == 8 ? 1e-150 : 1e-18) ? V{} : x;
}

// The rotation (c, s) that makes [[p, r], [r, q]] diagonal.
template <class V, class T, class Arithmetic>
HOST_DEVICE ALWAYS_INLINE void rotation(V p, V q, V r, V& c, V& s) {
    const V zero = V{}, one = constant<V>(1), d = q - p, twice = without_dust<V, T>(r + r);
    const V size = absolute(d) + Arithmetic::root(d * d + twice * twice);
    const auto some = size > zero;
    V t = (d < zero ? -twice : twice) / (some ? size : one);
    t = some ? t : zero;
    c = one / Arithmetic::root(one + t * t);
    s = t * c;
}

template <class V, int D>
HOST_DEVICE ALWAYS_INLINE void rotate_columns(V* m, int p, int q, V c, V s) {
    ISOTYPIC_UNROLL
    for (int i = 0; i < D; ++i) {
        const V a = m[i * D + p], b = m[i * D + q];
        m[i * D + p] = c * a - s * b;
        m[i * D + q] = s * a + c * b;
    }
}

// Columns p and q of m, and their keys, exchanged.
template <class V, int D, class Condition>
HOST_DEVICE ALWAYS_INLINE void exchange(V* key, V* m, V* other, int p, int q, Condition wrong) {
    const V a = key[p], b = key[q];
    key[p] = wrong ? b : a;
    key[q] = wrong ? a : b;
    ISOTYPIC_UNROLL
    for (int i = 0; i < D; ++i) {
        const V x = m[i * D + p], y = m[i * D + q];
        m[i * D + p] = wrong ? y : x;
        m[i * D + q] = wrong ? x : y;
        if (other) {
            const V z = other[i * D + p], w = other[i * D + q];
            other[i * D + p] = wrong ? w : z;
            other[i * D + q] = wrong ? z : w;
        }
    }
}

// values ascending, vectors in columns, of the symmetric part of m
template <class V, class T, int D, class Arithmetic>
HOST_DEVICE ALWAYS_INLINE void eigen(const V* m, V* values, V* vectors) {
    const V zero = V{}, one = constant<V>(1);
    V a[D * D], lifted[D * D];
    const Lift<V> sum = lift_of<V, T>(largest<V, D * D>(m));
    ISOTYPIC_UNROLL
    for (int i = 0; i < D * D; ++i) lifted[i] = m[i] * sum.lift;
    symmetrize<V, D>(lifted, a);
    // Once more: the symmetric part may be much smaller than the matrix.
    const V size = largest<V, D * D>(a);
    const Lift<V> part = lift_of<V, T>(size);
    const V up = size > zero ? size * part.lift : one, down = one / up;
    ISOTYPIC_UNROLL
    for (int i = 0; i < D * D; ++i) {
        a[i] = a[i] * part.lift * down;
        vectors[i] = i % (D + 1) == 0 ? one : zero;
    }
    for (int sweep = 0; sweep < kSweeps<T, D>; ++sweep) ISOTYPIC_UNROLL
    for (int p = 0; p < D; ++p) ISOTYPIC_UNROLL
    for (int q = p + 1; q < D; ++q) {
        V c, s;
        const V r = a[p * D + q], pp = a[p * D + p], qq = a[q * D + q];
        rotation<V, T, Arithmetic>(pp, qq, r, c, s);
        rotate_columns<V, D>(vectors, p, q, c, s);
        ISOTYPIC_UNROLL
        for (int i = 0; i < D; ++i) {
            if (i == p || i == q) continue;
            const V x = a[i * D + p], y = a[i * D + q];
            a[i * D + p] = a[p * D + i] = without_dust<V, T>(c * x - s * y);
            a[i * D + q] = a[q * D + i] = without_dust<V, T>(s * x + c * y);
        }
        const V mixed = (c * s) * (r + r);
        a[p * D + p] = c * c * pp - mixed + s * s * qq;
        a[q * D + q] = s * s * pp + mixed + c * c * qq;
        a[p * D + q] = a[q * D + p] = zero;
    }
    ISOTYPIC_UNROLL
    for (int i = 0; i < D; ++i) values[i] = a[i * D + i];
    ISOTYPIC_UNROLL
    for (int last = D - 1; last > 0; --last) ISOTYPIC_UNROLL
    for (int i = 0; i < last; ++i) exchange<V, D>(values, vectors, static_cast<V*>(nullptr), i, i + 1, values[i] > values[i + 1]);
    ISOTYPIC_UNROLL
    for (int j = 0; j < D; ++j) {
        V most = absolute(vectors[j]);
        ISOTYPIC_UNROLL
        for (int i = 1; i < D; ++i) most = larger(most, absolute(vectors[i * D + j]));
        V first = vectors[(D - 1) * D + j];
        ISOTYPIC_UNROLL
        for (int i = D - 2; i >= 0; --i) first = absolute(vectors[i * D + j]) >= constant<V>(0.3) * most ? vectors[i * D + j] : first;
        ISOTYPIC_UNROLL
        for (int i = 0; i < D; ++i) vectors[i * D + j] = first < zero ? -vectors[i * D + j] : vectors[i * D + j];
        values[j] *= up * part.back;
        values[j] *= sum.back;
    }
}

// The adjoint of eigen: v (diag(g_values) + S) v^T with S_ij = (m_ij - m_ji) / (2 (l_j - l_i)), m = v^T g_vectors, where the gap is one.
template <class V, class T, int D, class Arithmetic>
HOST_DEVICE ALWAYS_INLINE void eigen_backward(const V* g_values, const V* g_vectors, const V* l, const V* v, V* result) {
    const V zero = V{}, half = constant<V>(0.5), one = constant<V>(1);
    V m[D * D], t[D * D];
    product_tn<V, D>(v, g_vectors, m);
    const V size = larger(absolute(l[0]), absolute(l[D - 1])), lift = lift_of<V, T>(size).lift;
    const V bound = constant<V>(kTolerance<T>) * (size * lift);
    ISOTYPIC_UNROLL
    for (int i = 0; i < D; ++i) {
        ISOTYPIC_UNROLL
        for (int j = 0; j < i; ++j) {
            const V gap = l[i] * lift - l[j] * lift;
            const auto apart = gap > bound;
            const V s = half * (m[j * D + i] - m[i * D + j]) / (apart ? gap : one);
            m[i * D + j] = m[j * D + i] = apart ? s : zero;
        }
    }
    // What is divided by a gap and what is not in one product, or in two where the first is to be multiplied by `lift`.
    const auto two = lift != one;
    ISOTYPIC_UNROLL
    for (int i = 0; i < D; ++i) m[i * D + i] = two ? zero : g_values[i];
    product<V, D>(v, m, t);
    product_nt<V, D>(t, v, result);
    if (Arithmetic::any(two)) {
        ISOTYPIC_UNROLL
        for (int i = 0; i < D; ++i) ISOTYPIC_UNROLL
        for (int j = 0; j < D; ++j) t[i * D + j] = v[i * D + j] * g_values[j];
        product_nt<V, D>(t, v, m);
        ISOTYPIC_UNROLL
        for (int i = 0; i < D * D; ++i) result[i] = two ? result[i] * lift + m[i] : result[i];
    }
}

// a = r s, r orthogonal and s symmetric; r is proper where a is singular
template <class V, class T, int D, class Arithmetic>
HOST_DEVICE ALWAYS_INLINE void polar(const V* a, V* r, V* s) {
    const V zero = V{}, one = constant<V>(1);
    const V size = largest<V, D * D>(a);
    const Lift<V> scale = lift_of<V, T>(size);
    const V up = size > zero ? size * scale.lift : one, down = one / up;
    V b[D * D], v[D * D], sigma[D], u[D * D];
    ISOTYPIC_UNROLL
    for (int i = 0; i < D * D; ++i) {
        b[i] = a[i] * scale.lift * down;
        v[i] = i % (D + 1) == 0 ? one : zero;
    }
    for (int sweep = 0; sweep < kSweeps<T, D>; ++sweep) ISOTYPIC_UNROLL
    for (int p = 0; p < D; ++p) ISOTYPIC_UNROLL
    for (int q = p + 1; q < D; ++q) {
        V pp = zero, qq = zero, pq = zero, c, t;
        ISOTYPIC_UNROLL
        for (int i = 0; i < D; ++i) {
            pp += b[i * D + p] * b[i * D + p];
            qq += b[i * D + q] * b[i * D + q];
            pq += b[i * D + p] * b[i * D + q];
        }
        rotation<V, T, Arithmetic>(pp, qq, pq, c, t);
        rotate_columns<V, D>(b, p, q, c, t);
        rotate_columns<V, D>(v, p, q, c, t);
    }
    ISOTYPIC_UNROLL
    for (int j = 0; j < D; ++j) {
        V square = zero;
        ISOTYPIC_UNROLL
        for (int i = 0; i < D; ++i) square += b[i * D + j] * b[i * D + j];
        sigma[j] = Arithmetic::root(square);
    }
    ISOTYPIC_UNROLL
    for (int last = D - 1; last > 0; --last) ISOTYPIC_UNROLL
    for (int i = 0; i < last; ++i) exchange<V, D>(sigma, b, v, i, i + 1, sigma[i] < sigma[i + 1]);
    const V bound = constant<V>(kTolerance<T>) * sigma[0];
    // Descending: what is projected on is more accurate than what is projected.
    ISOTYPIC_UNROLL
    for (int j = 0; j < D; ++j) {
        V column[D];
        const auto bad = sigma[j] <= bound;
        const V inverse = one / (bad ? one : sigma[j]);
        ISOTYPIC_UNROLL
        for (int i = 0; i < D; ++i) column[i] = b[i * D + j] * inverse;
        const V square = project<V, D>(u, j, column);
        set_column<V, D, Arithmetic>(u, j, column, square, bad);
    }
    const auto singular = sigma[D - 1] <= bound;
    const V sign = determinant<V, D>(u) * determinant<V, D>(v);
    ISOTYPIC_UNROLL
    for (int i = 0; i < D; ++i) {
        const V last = u[i * D + D - 1];
        u[i * D + D - 1] = singular ? (sign < zero ? -last : last) : last;
    }
    product_nt<V, D>(u, v, r);
    ISOTYPIC_UNROLL
    for (int i = 0; i < D; ++i) ISOTYPIC_UNROLL
    for (int j = 0; j < D; ++j) u[i * D + j] = v[i * D + j] * (sigma[j] * up);
    product_nt<V, D>(u, v, s);
    ISOTYPIC_UNROLL
    for (int i = 0; i < D * D; ++i) s[i] *= scale.back;
}

// The antisymmetric x with s x + x s = w, of the symmetric part of s and the antisymmetric part of w; 0 in planes where s vanishes. The
// numbers of s are neither very small nor very large.
template <class V, class T, int D, class Arithmetic>
HOST_DEVICE ALWAYS_INLINE void solve(const V* s, const V* w, V* x) {
    const V zero = V{}, one = constant<V>(1), half = constant<V>(0.5);
    V l[D], v[D * D], t[D * D], m[D * D];
    eigen<V, T, D, Arithmetic>(s, l, v);
    product<V, D>(w, v, t);
    product_tn<V, D>(v, t, m);
    const V bound = constant<V>(kTolerance<T>) * larger(absolute(l[0]), absolute(l[D - 1]));
    ISOTYPIC_UNROLL
    for (int i = 0; i < D; ++i) {
        ISOTYPIC_UNROLL
        for (int j = 0; j < i; ++j) {
            const V sum = l[i] + l[j];
            const auto some = absolute(sum) > bound;
            const V y = half * (m[i * D + j] - m[j * D + i]) / (some ? sum : one);
            m[i * D + j] = some ? y : zero;
            m[j * D + i] = some ? -y : zero;
        }
        m[i * D + i] = zero;
    }
    product<V, D>(v, m, t);
    product_nt<V, D>(t, v, x);
}

// The same with any s.
template <class V, class T, int D, class Arithmetic>
HOST_DEVICE ALWAYS_INLINE void sylvester(const V* s, const V* w, V* x) {
    const V lift = lift_of<V, T>(largest<V, D * D>(s)).lift;
    V lifted[D * D];
    ISOTYPIC_UNROLL
    for (int i = 0; i < D * D; ++i) lifted[i] = s[i] * lift;
    solve<V, T, D, Arithmetic>(lifted, w, x);
    ISOTYPIC_UNROLL
    for (int i = 0; i < D * D; ++i) x[i] *= lift;
}

// The adjoint of polar: with g the symmetric part of g_s and X the solution of s X + X s = r^T g_r - g s, it is r (2 X + g). Where s is
// very small, what r^T g_r adds to X is solved for by itself.
template <class V, class T, int D, class Arithmetic>
HOST_DEVICE ALWAYS_INLINE void polar_backward(const V* g_r, const V* g_s, const V* r, const V* s, V* result) {
    V g[D * D], w[D * D], t[D * D], turn[D * D], lifted[D * D];
    const V lift = lift_of<V, T>(largest<V, D * D>(s)).lift;
    const auto small = lift > constant<V>(1);
    ISOTYPIC_UNROLL
    for (int i = 0; i < D * D; ++i) lifted[i] = s[i] * lift;
    symmetrize<V, D>(g_s, g);
    product_tn<V, D>(r, g_r, turn);
    product<V, D>(g, lifted, t);
    ISOTYPIC_UNROLL
    for (int i = 0; i < D * D; ++i) w[i] = (small ? V{} : turn[i] * lift) - t[i];
    solve<V, T, D, Arithmetic>(lifted, w, t);
    ISOTYPIC_UNROLL
    for (int i = 0; i < D * D; ++i) t[i] = t[i] + t[i] + g[i];
    product<V, D>(r, t, result);
    if (Arithmetic::any(small)) {
        solve<V, T, D, Arithmetic>(lifted, turn, t);
        product<V, D>(r, t, w);
        ISOTYPIC_UNROLL
        for (int i = 0; i < D * D; ++i) result[i] = small ? result[i] + (w[i] + w[i]) * lift : result[i];
    }
}

// What a call computes. Inputs and outputs in order, each D * D numbers a matrix but for the values, of which there are D.
enum class Operation : int { frame, frame_backward, eigen, eigen_backward, polar, polar_backward, sylvester };

struct Signature {
    int inputs, outputs;
    bool values_in[4], values_out[2];  // which of them are values
};

HOST_DEVICE ALWAYS_INLINE constexpr Signature signature_of(Operation operation) {
    switch (operation) {
        case Operation::frame:
            return {1, 2, {}, {}};
        case Operation::frame_backward:
            return {3, 1, {}, {}};
        case Operation::eigen:
            return {1, 2, {}, {true, false}};
        case Operation::eigen_backward:
            return {4, 1, {true, false, true, false}, {}};
        case Operation::polar:
            return {1, 2, {}, {}};
        case Operation::polar_backward:
            return {4, 1, {}, {}};
        default:
            return {2, 1, {}, {}};
    }
}

template <Operation operation, class V, class T, int D, class Arithmetic>
HOST_DEVICE ALWAYS_INLINE void compute(const V (*in)[D * D], bool proper, V (*out)[D * D]) {
    if constexpr (operation == Operation::frame) {
        frame<V, T, D, Arithmetic>(in[0], proper, out[0], out[1]);
    } else if constexpr (operation == Operation::frame_backward) {
        frame_backward<V, T, D>(in[0], in[1], in[2], out[0]);
    } else if constexpr (operation == Operation::eigen) {
        eigen<V, T, D, Arithmetic>(in[0], out[0], out[1]);
    } else if constexpr (operation == Operation::eigen_backward) {
        eigen_backward<V, T, D, Arithmetic>(in[0], in[1], in[2], in[3], out[0]);
    } else if constexpr (operation == Operation::polar) {
        polar<V, T, D, Arithmetic>(in[0], out[0], out[1]);
    } else if constexpr (operation == Operation::polar_backward) {
        polar_backward<V, T, D, Arithmetic>(in[0], in[1], in[2], in[3], out[0]);
    } else {
        sylvester<V, T, D, Arithmetic>(in[0], in[1], out[0]);
    }
}

}  // namespace small_matrix
}  // namespace isotypic
