// max_det, in lockstep: each lane of a vector has a polynomial of its own, so that the recursions of a Cholesky factorisation, which no
// single small matrix can vectorise, run at full width. Constants of the degree are broadcast from the tables.
//
// A lane that has converged keeps its weights while the others go on: a result does not depend on what else is in the batch. With 8 lanes
// of float64 the working set is 64 bytes times about 4 n^2 + 2 n^2 + n^2: 7 KB at degree 6, 54 KB at degree 20, 200 KB at degree 40 (in
// L2). Floor at one 512-bit multiply-add a cycle, 6 steps: 330 x 6 / 8 = 250 cycles a polynomial at degree 6, 0.07 us at 3.7 GHz, and 1.6
// us at degree 20. Measured on one Zen 4 core: 0.42 us and 4.6 us. Forms whose Hessian is too badly conditioned for that are solved once
// more in double-word arithmetic (core/double_word.hpp), from the weights that the first pass has left, at 20 times the operations. Sums with 4 rows at a time need 5 loads for 4 multiply-adds at one
// 512-bit load a cycle, factor and substitutions are chains of a division and a root for each of 3 n pivots.
#include "cpu/max_det_kernel.hpp"

#include "cpu/vec.hpp"
#include "ops/max_det_frame.hpp"
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
        for (int l = 0; l < kLanes<T>; ++l) value[l] = __builtin_sqrt(value[l]);
        return x;
    }
    // Rounded to float32. Lane by lane, GCC 12's vectoriser loses the rounding.
    static ISOTYPIC_INLINE Vec<T> in_single(Vec<T> x) {
#if ISOTYPIC_VECTOR_BYTES > 0
        typedef float Single __attribute__((vector_size(4 * kLanes<T>)));
        return __builtin_convertvector(__builtin_convertvector(x, Single), Vec<T>);
#else
        return static_cast<T>(static_cast<float>(x));
#endif
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

// What no compiler may rearrange of double-word arithmetic.
template <class T>
struct Exact {
    using Number = T;
    static ISOTYPIC_INLINE Vec<T> product(Vec<T> a, Vec<T> b, Vec<T>& error) {
        Vec<T> p = a * b;
#if defined(ISOTYPIC_ISA_AVX512)
        asm("" : "+v"(p));
        error = _mm512_fmsub_pd(a, b, p);
#elif defined(ISOTYPIC_ISA_AVX2)
        asm("" : "+x"(p));
        error = _mm256_fmsub_pd(a, b, p);
#else
        const T *left = reinterpret_cast<const T*>(&a), *right = reinterpret_cast<const T*>(&b), *taken = reinterpret_cast<const T*>(&p);
        T* rest = reinterpret_cast<T*>(&error);
        for (int l = 0; l < kLanes<T>; ++l) rest[l] = __builtin_fma(left[l], right[l], -taken[l]);
#endif
        return p;
    }
    static ISOTYPIC_INLINE Vec<T> root(Vec<T> x) { return Lanes<T>::root(x); }
};
template <class T>
using Wide = DoubleWord<Vec<T>, Exact<T>>;

// Lanes in double-word arithmetic.
template <class T>
struct WideLanes : Lanes<T> {
    static constexpr int kRows = 2;
    bool any(const Wide<T>& flags) const { return Lanes<T>::any(flags.high); }
    using Lanes<T>::any;
    static ISOTYPIC_INLINE Wide<T> root(const Wide<T>& x) { return square_root(x); }
    static ISOTYPIC_INLINE Wide<T> inverse_root(const Wide<T>& x, int d) { return Wide<T>::of(Lanes<T>::inverse_root(x.high, d)); }
    static ISOTYPIC_INLINE Wide<T> in_single(const Wide<T>& x) { return Wide<T>::of(Lanes<T>::in_single(x.high)); }
};

// Lane l of a number, its high word.
template <class T, class Real>
ISOTYPIC_INLINE T lane(const Real& a, int64_t l) {
    return reinterpret_cast<const T*>(&a)[l];
}
template <class T, class Real>
ISOTYPIC_INLINE void set_lane(Real& a, int64_t l, T value) {
    reinterpret_cast<T*>(&a)[l] = value;
    if (sizeof(Real) > sizeof(Vec<T>)) reinterpret_cast<T*>(&a)[l + kLanes<T>] = 0;
}

template <class T, class Team, class Real, int N>
ISOTYPIC_INLINE void solve_degree(const MaxDetCall& call, int64_t block, void* workspace) {
    constexpr int L = kLanes<T>;
    constexpr bool again = sizeof(Real) > sizeof(Vec<T>);
    const max_det::Tables t(N ? N - 1 : call.d);
    const max_det::Layout<Team> at(t);
    Real *work = static_cast<Real*>(workspace), *form = work + at.size;
    const T* p = static_cast<const T*>(call.p);
    T* solution = static_cast<T*>(call.out);
    const int64_t width = t.n * t.n + 5;
    Real valid{};
    T up[L];
    const int64_t first = block * L, count = call.batch - first < L ? call.batch - first : L;
    auto row_of = [&](int64_t l) { return again ? call.rows[first + l] : first + l; };
    for (int64_t l = 0; l < L; ++l) {
        const T* row = p + row_of(l < count ? l : 0) * t.m;
        const PowerOfTwo<T> power = largest_power(row, t.m, 1);
        const T* weights = solution + row_of(l < count ? l : 0) * width;
        for (int k = 0; k < t.m; ++k) {
            set_lane(form[k], l, power.finite ? row[k] * power.down : T(0));
            set_lane(work[at.w + k], l, again ? weights[k] : T(0));
        }
        set_lane(valid, l, T(power.finite));
        up[l] = power.up;
    }
    for (int k = 0; k < t.m; ++k) work[at.p + k] = form[k];
    const Team team;
    const T* tables = static_cast<const T*>(call.tables);
    const max_det::Report<Real> report = max_det::solve(t, tables, work, team, valid);
    Real positive = Real{} + 1, exact = positive, rounding{};
    const Real* gram = max_det::gram(t, tables, work, form, call.single, team, positive, exact, rounding);
    const Real error = max_det::error_estimate<Team, T>(report.condition, again);
    for (int64_t l = 0; l < count; ++l) {
        T *out = solution + row_of(l) * width, *tail = out + t.n * t.n;
        T status = lane<T>(report.status, l);
        const bool solved = status == max_det::kSolved && lane<T>(positive, l) > 0;
        if (status == max_det::kSolved || status == max_det::kUndecided || (again && status == max_det::kNotPositive)) {
            const bool accurate = lane<T>(error, l) <= (again ? max_det::Tolerance::solved : max_det::Tolerance::refine) &&
                                  lane<T>(exact, l) > 0 && lane<T>(rounding, l) <= T(max_det::SingleTolerance::solved);
            if (again)
                status = T(!solved ? max_det::kUndecided : accurate ? max_det::kSolved : max_det::kInaccurate);
            else
                status = T(solved && accurate ? max_det::kSolved : max_det::kRefine);
        }
        tail[0] = status;
        tail[1] = lane<T>(report.iterations, l) + (again ? tail[1] : T(0));
        // The driver turns the number of the node into a point, and asks for one where there is no Gram.
        if (!again) tail[2] = lane<T>(report.where, l), tail[3] = T(solved);
        const bool wanted = status == max_det::kSolved || (again && call.candidates);
        const T most = lane<T>(error, l) > lane<T>(rounding, l) ? lane<T>(error, l) : lane<T>(rounding, l);
        tail[4] = wanted || status == max_det::kInaccurate ? most : T(0);
        // Where the second pass begins, if the first one came that far.
        const bool start = !call.quick && status == max_det::kRefine && lane<T>(report.status, l) == max_det::kSolved;
        for (int i = 0; i < t.n * t.n; ++i) out[i] = wanted ? lane<T>(gram[i], l) * up[l] : T(0);
        for (int k = 0; k < t.m && start; ++k) out[k] = lane<T>(work[at.w + k], l);
    }
}

template <class T, class Team, class Real, int N>
ISOTYPIC_INLINE void adjoint_degree(const MaxDetCall& call, int64_t block, void* workspace) {
    constexpr int L = kLanes<T>;
    constexpr bool again = sizeof(Real) > sizeof(Vec<T>);
    const max_det::Tables t(N ? N - 1 : call.d);
    const max_det::Layout<Team> at(t);
    const int size = t.n * t.n;
    Real *work = static_cast<Real*>(workspace), *gram = work + at.size, *matrix = gram + size, *result = matrix + size;
    T down[L];
    const T* source = static_cast<const T*>(call.matrix ? call.matrix : call.form);
    const int length = call.matrix ? size : t.m;
    const int64_t first = block * L, count = call.batch - first < L ? call.batch - first : L;
    auto row_of = [&](int64_t l) { return again ? call.rows[first + l] : first + l; };
    for (int64_t l = 0; l < L; ++l) {
        const int64_t row = row_of(l < count ? l : 0);
        const T* q = static_cast<const T*>(call.gram) + row * size;
        const PowerOfTwo<T> power = largest_power(q, t.n, t.n + 1);  // of the diagonal
        down[l] = power.down;
        for (int i = 0; i < t.n; ++i)
            for (int j = 0; j < t.n; ++j)
                set_lane(gram[i * t.n + j], l, T(0.5) * (q[i * t.n + j] * power.down + q[j * t.n + i] * power.down));
        for (int i = 0; i < length; ++i) set_lane(matrix[i], l, source[row * length + i]);
    }
    const Real condition =
        max_det::adjoint(t, static_cast<const T*>(call.tables), work, gram, call.matrix ? matrix : nullptr, matrix, result, Team());
    const Real error = max_det::error_estimate<Team, T>(condition, false);
    for (int64_t l = 0; l < count; ++l) {
        T* out = static_cast<T*>(call.out) + row_of(l) * t.m;
        for (int k = 0; k < t.m; ++k) {
            const T value = lane<T>(result[k], l);
            out[k] = call.matrix ? value : value * down[l] * down[l];  // Hess^-1 has degree -2 in the Gram
        }
        if (!again && lane<T>(error, l) > max_det::Tolerance::refine) out[0] = static_cast<T>(__builtin_nan(""));
    }
}

// Sizes that the compiler knows up to degree 14, where short loops would be mostly counters.
template <class T>
void solve(const MaxDetCall& call, int64_t block, void* workspace) {
    switch (call.d + 1) {
        case 3:
            return solve_degree<T, Lanes<T>, Vec<T>, 3>(call, block, workspace);
        case 4:
            return solve_degree<T, Lanes<T>, Vec<T>, 4>(call, block, workspace);
        case 5:
            return solve_degree<T, Lanes<T>, Vec<T>, 5>(call, block, workspace);
        case 6:
            return solve_degree<T, Lanes<T>, Vec<T>, 6>(call, block, workspace);
        case 7:
            return solve_degree<T, Lanes<T>, Vec<T>, 7>(call, block, workspace);
        case 8:
            return solve_degree<T, Lanes<T>, Vec<T>, 8>(call, block, workspace);
        default:
            return solve_degree<T, Lanes<T>, Vec<T>, 0>(call, block, workspace);
    }
}
template <class T>
void adjoint(const MaxDetCall& call, int64_t block, void* workspace) {
    switch (call.d + 1) {
        case 4:
            return adjoint_degree<T, Lanes<T>, Vec<T>, 4>(call, block, workspace);
        case 6:
            return adjoint_degree<T, Lanes<T>, Vec<T>, 6>(call, block, workspace);
        default:
            return adjoint_degree<T, Lanes<T>, Vec<T>, 0>(call, block, workspace);
    }
}

template <class T>
void solve_again(const MaxDetCall& call, int64_t block, void* workspace) {
    solve_degree<T, WideLanes<T>, Wide<T>, 0>(call, block, workspace);
}
template <class T>
void adjoint_again(const MaxDetCall& call, int64_t block, void* workspace) {
    adjoint_degree<T, WideLanes<T>, Wide<T>, 0>(call, block, workspace);
}

// p o h and h, row by row of the result.
template <class T>
void frame(const MaxDetCall& call, int64_t block, void* workspace) {
    constexpr int L = kLanes<T>;
    const max_det::Tables t(call.d);
    Wide<T>* work = static_cast<Wide<T>*>(workspace);
    Vec<T>*p = reinterpret_cast<Vec<T>*>(work + max_det::frame_numbers(t)), *result = p + t.m;
    const int64_t first = block * L, count = call.batch - first < L ? call.batch - first : L;
    T up[L];
    for (int64_t l = 0; l < L; ++l) {
        const T* row = static_cast<const T*>(call.p) + (first + (l < count ? l : 0)) * t.m;
        const PowerOfTwo<T> power = largest_power(row, t.m, 1);
        up[l] = power.finite ? power.up : T(__builtin_nan(""));
        for (int k = 0; k < t.m; ++k) set_lane(p[k], l, power.finite ? row[k] * power.down : T(0));
    }
    Vec<T> h[4];
    max_det::frame<Lanes<T>>(t, static_cast<const T*>(call.tables), p, work, result, h);
    T* out = static_cast<T*>(call.out) + first * (t.m + 4);
    for (int64_t l = 0; l < count; ++l, out += t.m + 4) {
        for (int k = 0; k < t.m; ++k) out[k] = lane<T>(result[k], l) * up[l];
        for (int i = 0; i < 4; ++i) out[t.m + i] = lane<T>(h[i], l);
    }
}

template <class T>
int64_t workspace_bytes(int d) {
    const max_det::Tables t(d);
    const int more = 2 * t.n * t.n + t.m;
    const int64_t single = max_det::Layout<Lanes<T>>(t).size + more, wide = max_det::Layout<WideLanes<T>>(t).size + more;
    return larger(single * static_cast<int64_t>(sizeof(Vec<T>)), wide * static_cast<int64_t>(sizeof(Wide<T>)));
}

template <class T>
constexpr MaxDetKernels kKernels = {kLanes<T>, workspace_bytes<T>, solve<T>, adjoint<T>, solve_again<T>, adjoint_again<T>, frame<T>};

}  // namespace

const MaxDetKernels& max_det_kernels() {
    return kKernels<double>;
}

}  // namespace isotypic::cpu::ISOTYPIC_ISA
