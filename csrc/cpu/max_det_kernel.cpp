// max_det, in lockstep: each lane of a vector has a polynomial of its own, so that the recursions of a Cholesky factorisation, which no
// single small matrix can vectorise, run at full width. Constants of the degree are broadcast from the tables.
//
// A lane that has converged keeps its weights while the others go on: a result does not depend on what else is in the batch. With 8 lanes
// of float64 the working set is 64 bytes times about 4 n^2 + 2 n^2 + n^2: 7 KB at degree 6, 54 KB at degree 20, 200 KB at degree 40 (in
// L2). Floor at one 512-bit multiply-add a cycle, 6 steps: 330 x 6 / 8 = 250 cycles a polynomial at degree 6, 0.07 us at 3.7 GHz, and 1.6
// us at degree 20. Measured on one Zen 4 core: 0.42 us and 4.6 us. Sums with 4 rows at a time need 5 loads for 4 multiply-adds at one
// 512-bit load a cycle, factor and substitutions are chains of a division and a root for each of 3 n pivots.
#include "cpu/max_det_kernel.hpp"

#include "cpu/vec.hpp"
#include "ops/max_det_solver.hpp"

namespace isotypic::cpu::ISOTYPIC_ISA {
namespace {

template <class T>
struct Bits;
template <>
struct Bits<double> {
    using type = int64_t;
    static constexpr int mantissa = 52, bias = 1023;
};
template <>
struct Bits<float> {
    using type = int32_t;
    static constexpr int mantissa = 23, bias = 127;
};

// The team that is one vector.
template <class T>
struct Lanes {
    static constexpr int kRows = 4;
    int rank() const { return 0; }
    int size() const { return 1; }
    void sync() const {}
    bool any(const Vec<T>& flags) const {
        const T* flag = reinterpret_cast<const T*>(&flags);
        bool found = false;
        for (int l = 0; l < kLanes<T>; ++l) found = found || flag[l] > 0;
        return found;
    }
    static ISOTYPIC_INLINE Vec<T> root(Vec<T> x) {
        T* value = reinterpret_cast<T*>(&x);
        for (int l = 0; l < kLanes<T>; ++l)
            value[l] = sizeof(T) == 8 ? static_cast<T>(__builtin_sqrt(value[l])) : static_cast<T>(__builtin_sqrtf(value[l]));
        return x;
    }
    // x^(-1 / d) to about 1%, for the start: log2 and exp2 of a number in [1, 2) as parabolas through their ends.
    static ISOTYPIC_INLINE Vec<T> inverse_root(Vec<T> x, int d) {
        using I = typename Bits<T>::type;
        constexpr int mantissa = Bits<T>::mantissa, bias = Bits<T>::bias;
        constexpr T curve = T(0.344);
        const T exponent_scale = -T(1) / static_cast<T>(d > 0 ? d : 1);
        T* value = reinterpret_cast<T*>(&x);
        for (int l = 0; l < kLanes<T>; ++l) {
            I bits;
            __builtin_memcpy(&bits, value + l, sizeof(T));
            const I exponent = (bits >> mantissa) - bias;
            bits = (bits & ((I(1) << mantissa) - 1)) | (I(bias) << mantissa);
            T f;
            __builtin_memcpy(&f, &bits, sizeof(T));
            f -= 1;
            const T wanted = exponent_scale * (static_cast<T>(exponent) + f + curve * f * (1 - f));
            I whole = static_cast<I>(wanted);
            whole -= static_cast<T>(whole) > wanted;
            const T rest = wanted - static_cast<T>(whole);
            const I power = (whole + bias) << mantissa;
            T scale;
            __builtin_memcpy(&scale, &power, sizeof(T));
            value[l] = d > 0 ? scale * (1 + rest - curve * rest * (1 - rest)) : T(1);
        }
        return x;
    }
};

// 2^-e for the largest exponent e among the numbers, and 2^e; `finite` becomes false for infinities and NaN. Exact, so that f(2^k p) = 2^k
// f(p).
template <class T>
struct PowerOfTwo {
    T down, up;
    bool finite;
};
template <class T>
ISOTYPIC_INLINE PowerOfTwo<T> largest_power(const T* values, int64_t count, int64_t stride) {
    using I = typename Bits<T>::type;
    constexpr int mantissa = Bits<T>::mantissa, bias = Bits<T>::bias;
    I largest = 0;
    for (int64_t i = 0; i < count; ++i) {
        I bits;
        __builtin_memcpy(&bits, values + i * stride, sizeof(T));
        bits = (bits >> mantissa) & (2 * bias + 1);
        largest = bits > largest ? bits : largest;
    }
    I exponent = largest - bias;
    const I limit = bias - 1;
    exponent = exponent > limit ? limit : exponent < -limit ? -limit : exponent;
    const I down = (bias - exponent) << mantissa, up = (bias + exponent) << mantissa;
    PowerOfTwo<T> power{1, 1, largest != 2 * bias + 1};
    __builtin_memcpy(&power.down, &down, sizeof(T));
    __builtin_memcpy(&power.up, &up, sizeof(T));
    return power;
}

template <class T, int N>
ISOTYPIC_INLINE void solve_degree(const MaxDetCall& call, int64_t block, void* workspace) {
    using Real = Vec<T>;
    constexpr int L = kLanes<T>;
    const max_det::Tables t(N ? N - 1 : call.d);
    const max_det::Layout<Lanes<T>> at(t);
    Real *work = static_cast<Real*>(workspace), *form = work + at.size;
    const T* p = static_cast<const T*>(call.p);
    T* coefficient = reinterpret_cast<T*>(form);
    Real valid{}, up{};
    const int64_t first = block * L, count = call.batch - first < L ? call.batch - first : L;
    for (int l = 0; l < L; ++l) {
        const T* row = p + (first + (l < count ? l : 0)) * t.m;
        const PowerOfTwo<T> power = largest_power(row, t.m, 1);
        for (int k = 0; k < t.m; ++k) coefficient[k * L + l] = power.finite ? row[k] * power.down : T(0);
        reinterpret_cast<T*>(&valid)[l] = power.finite;
        reinterpret_cast<T*>(&up)[l] = power.up;
    }
    for (int k = 0; k < t.m; ++k) work[at.p + k] = form[k];
    const Lanes<T> team;
    const T* tables = static_cast<const T*>(call.tables);
    const max_det::Report<Real> report = max_det::solve(t, tables, work, team, valid);
    Real positive = Real{} + 1;
    const Real* gram = max_det::gram(t, tables, work, form, team, positive);
    const int64_t width = t.n * t.n + 4;
    T* out = static_cast<T*>(call.out) + first * width;
    for (int64_t l = 0; l < count; ++l, out += width) {
        const T found = reinterpret_cast<const T*>(&report.status)[l], factor = reinterpret_cast<const T*>(&up)[l];
        const bool solved = found == max_det::kSolved && reinterpret_cast<const T*>(&positive)[l] > 0;
        const T status = found == max_det::kSolved && !solved ? T(max_det::kUndecided) : found;
        const T* entry = reinterpret_cast<const T*>(gram) + l;
        for (int i = 0; i < t.n * t.n; ++i) out[i] = solved ? entry[i * L] * factor : T(0);
        T* tail = out + t.n * t.n;
        tail[0] = status;
        tail[1] = reinterpret_cast<const T*>(&report.iterations)[l];
        // The driver turns the number of the node into a point.
        tail[2] = reinterpret_cast<const T*>(&report.where)[l], tail[3] = 0;
    }
}

template <class T, int N>
ISOTYPIC_INLINE void adjoint_degree(const MaxDetCall& call, int64_t block, void* workspace) {
    using Real = Vec<T>;
    constexpr int L = kLanes<T>;
    const max_det::Tables t(N ? N - 1 : call.d);
    const max_det::Layout<Lanes<T>> at(t);
    const int size = t.n * t.n;
    Real *work = static_cast<Real*>(workspace), *gram = work + at.size, *matrix = gram + size, *result = matrix + size;
    T down[L];
    const T* source = static_cast<const T*>(call.matrix ? call.matrix : call.form);
    const int length = call.matrix ? size : t.m;
    const int64_t first = block * L, count = call.batch - first < L ? call.batch - first : L;
    for (int l = 0; l < L; ++l) {
        const int64_t row = first + (l < count ? l : 0);
        const T* q = static_cast<const T*>(call.gram) + row * size;
        const PowerOfTwo<T> power = largest_power(q, t.n, t.n + 1);  // of the diagonal
        down[l] = power.down;
        for (int i = 0; i < t.n; ++i)
            for (int j = 0; j < t.n; ++j)
                reinterpret_cast<T*>(gram)[(i * t.n + j) * L + l] = T(0.5) * (q[i * t.n + j] * power.down + q[j * t.n + i] * power.down);
        for (int i = 0; i < length; ++i) reinterpret_cast<T*>(matrix)[i * L + l] = source[row * length + i];
    }
    max_det::adjoint(t, static_cast<const T*>(call.tables), work, gram, call.matrix ? matrix : nullptr, matrix, result, Lanes<T>());
    T* out = static_cast<T*>(call.out) + first * t.m;
    for (int64_t l = 0; l < count; ++l)
        for (int k = 0; k < t.m; ++k) {
            const T value = reinterpret_cast<const T*>(result)[k * L + l];
            out[l * t.m + k] = call.matrix ? value : value * down[l] * down[l];  // Hess^-1 has degree -2 in the Gram
        }
}

// Sizes that the compiler knows up to degree 14, where short loops would be mostly counters.
template <class T>
void solve(const MaxDetCall& call, int64_t block, void* workspace) {
    switch (call.d + 1) {
        case 3:
            return solve_degree<T, 3>(call, block, workspace);
        case 4:
            return solve_degree<T, 4>(call, block, workspace);
        case 5:
            return solve_degree<T, 5>(call, block, workspace);
        case 6:
            return solve_degree<T, 6>(call, block, workspace);
        case 7:
            return solve_degree<T, 7>(call, block, workspace);
        case 8:
            return solve_degree<T, 8>(call, block, workspace);
        default:
            return solve_degree<T, 0>(call, block, workspace);
    }
}
template <class T>
void adjoint(const MaxDetCall& call, int64_t block, void* workspace) {
    switch (call.d + 1) {
        case 4:
            return adjoint_degree<T, 4>(call, block, workspace);
        case 6:
            return adjoint_degree<T, 6>(call, block, workspace);
        default:
            return adjoint_degree<T, 0>(call, block, workspace);
    }
}

template <class T>
int64_t workspace_bytes(int d) {
    const max_det::Tables t(d);
    return (max_det::Layout<Lanes<T>>(t).size + 2 * t.n * t.n + t.m) * static_cast<int64_t>(sizeof(Vec<T>));
}

template <class T>
constexpr MaxDetKernels kKernels = {kLanes<T>, workspace_bytes<T>, solve<T>, adjoint<T>};

}  // namespace

const MaxDetKernelSet& max_det_kernels() {
    static constexpr MaxDetKernelSet set = {kKernels<float>, kKernels<double>};
    return set;
}

}  // namespace isotypic::cpu::ISOTYPIC_ISA
