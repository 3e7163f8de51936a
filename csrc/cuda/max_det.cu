// max_det on a device: the source of ops/max_det_solver.hpp, with a polynomial to each thread up to n = 6 and to each warp above.
//
//     thread   up to degree 10: all arrays in local memory, as long as the degree asks for; the threads of a warp run in lockstep, as the
//              lanes of a vector do, and iterate as often as the slowest of them
//     warp     arrays in shared memory, 8 KB at degree 20 and 28 KB at degree 40 in float64: rows of X, K and of the columns of a
//              factor are dealt to the lanes, with two barriers of the warp for each column
//     again    a second launch in double-word arithmetic, always by warps, twice the memory: what the first has not marked returns at once
//
// Local memory: at the first launch the driver reserves the stack of a thread for every thread that can be resident, 270,336 on an H200.
// Kernels are compiled for each n:
//     degree        2        4        6        8        10
//     stack         416 B    800 B    1,328 B  1,968 B  2,752 B
//     reserved      112 MB   216 MB   359 MB   532 MB   744 MB
// and 624 B up to degree 12 and 1,968 B above, 169 and 532 MB, where a form is brought into its frame.
//
// No workspace, no synchronisation of the device: the search for a witness runs in the kernel too. Flops as counted in ops/max_det_solver.hpp; a
// batch of 10,000 of degree 6 in float64 is 20 Mflop and 2 MB, so that the launch and the latency of the serial chains of divisions and
// roots decide. On sm_90a in float64 a thread of degree 6 takes 126 registers (tools/count_sass.py).
//
// Expected by count on an H200 (132 multiprocessors at 1.7 GHz) in large batches, float64. Degree 6: seven factorisations of 330
// multiply-adds with two operands each are 45 KB through L1; what does not fit there comes from L2, at 5 TB/s 100 M forms a second, and
// some 100 us of latency a form hide behind 80,000 threads: more than 20 M a second. Degree 20: 0.9 MB through shared memory at 128 bytes a
// cycle, less than half of the lanes busy, and 200,000 cycles of barriers and serial chains behind 25 warps a multiprocessor: some 10 M a
// second. Nothing here has been measured on a device yet; the emulation checks the arithmetic.
#include "ops/max_det.hpp"

#include <cmath>
#include <string>
#include <type_traits>

#include "cuda/launch.cuh"
#include "ops/max_det_frame.hpp"
#include "ops/max_det_solver.hpp"
#include "ops/max_det_witness.hpp"

namespace isotypic {
namespace cuda {
namespace {

constexpr int kThreadSide = 6;  // the largest n of a thread
constexpr int kThreadsPerBlock = 64;

struct Arithmetic {
    static constexpr int kRows = 1;
    template <class T>
    static DEVICE T root(T x) {
        return sqrt(x);
    }
    template <class T>
    static DEVICE T inverse_root(T x, int d) {
        return d > 0 ? pow(x, T(-1) / static_cast<T>(d)) : T(1);
    }
    template <class T>
    DEVICE bool any(T flag) const {
        return flag > 0;
    }
    template <class T>
    static DEVICE T in_single(T x) {
        return static_cast<T>(static_cast<float>(x));
    }
};

// What no compiler may rearrange of double-word arithmetic.
template <class T>
struct Exact {
    using Number = T;
    static DEVICE T product(T a, T b, T& error) {
#if defined(ISOTYPIC_EMULATE)
        const volatile T p = a * b;
#else
        const T p = __dmul_rn(a, b);
#endif
        error = fma(a, b, -p);
        return p;
    }
    static DEVICE T root(T x) { return sqrt(x); }
};
template <class T>
using Wide = DoubleWord<T, Exact<T>>;
template <class Real>
struct Words {
    static constexpr bool two = false;
    static DEVICE Real high(Real x) { return x; }
    static DEVICE Real from(Real x) { return x; }
};
template <class T>
struct Words<Wide<T>> {
    static constexpr bool two = true;
    static DEVICE T high(const Wide<T>& x) { return x.high; }
    static DEVICE Wide<T> from(T x) { return Wide<T>::of(x); }
};

struct ThreadTeam : Arithmetic {
    DEVICE int rank() const { return 0; }
    DEVICE int size() const { return 1; }
    DEVICE void sync() const {}
};

struct WarpTeam : Arithmetic {
    DEVICE int rank() const { return thread_index() % 32; }
    DEVICE int size() const { return 32; }
    DEVICE void sync() const { sync_warp(); }
};

struct WideWarpTeam : WarpTeam {
    template <class T>
    DEVICE bool any(const Wide<T>& flag) const {
        return flag.high > 0;
    }
    template <class T>
    static DEVICE Wide<T> root(const Wide<T>& x) {
        return square_root(x);
    }
    template <class T>
    static DEVICE Wide<T> inverse_root(const Wide<T>& x, int d) {
        return Wide<T>::of(Arithmetic::inverse_root(x.high, d));
    }
    template <class T>
    static DEVICE Wide<T> in_single(const Wide<T>& x) {
        return Wide<T>::of(Arithmetic::in_single(x.high));
    }
};

struct MaxDetCall {
    int d;
    int64_t batch;
    const void *tables, *p, *gram, *matrix, *form;
    void* out;
    bool single, candidates, quick;
};

// 2^-e and 2^e for the largest exponent e; `finite` is false for infinities and NaN.
template <class T>
struct PowerOfTwo {
    T down = 1, up = 1;
    bool finite = true;
};
template <class T>
DEVICE PowerOfTwo<T> largest_power(const T* values, int count, int stride) {
    PowerOfTwo<T> power;
    T largest = 0;
    for (int i = 0; i < count; ++i) {
        const T size = fabs(values[i * stride]);
        power.finite = power.finite && size < T(INFINITY);
        largest = size > largest ? size : largest;
    }
    if (!power.finite || largest == 0) return power;
    int exponent = 0;
    frexp(largest, &exponent);
    const int limit = 1020;
    exponent = exponent > limit ? limit : exponent < -limit ? -limit : exponent;
    power.down = ldexp(T(1), -exponent), power.up = ldexp(T(1), exponent);
    return power;
}

// The polynomial of this team and its arrays.
template <class Real, class Team>
DEVICE Real* arrays(Real* local, Team) {
    return std::is_same<Team, ThreadTeam>::value ? local : reinterpret_cast<Real*>(shared_memory());
}
template <class Team>
DEVICE int64_t row_of(Team) {
    return std::is_same<Team, ThreadTeam>::value ? static_cast<int64_t>(block_index()) * thread_count() + thread_index()
                                                 : static_cast<int64_t>(block_index());
}

// Numbers of the arrays of one polynomial: those of Layout, and behind them the form, or the Gram and the result.
template <class Team>
int numbers(int d) {
    const max_det::Tables t(d);
    return max_det::Layout<Team>(t).size + t.n * t.n + t.m;
}
// The same of a thread, at compile time: run_first compares the two.
constexpr int numbers_of_thread(int n) {
    const int m = 2 * n - 1, rows = m + ThreadTeam::kRows;
    return 3 * m + rows + (n + ThreadTeam::kRows) * n + rows * n + rows * m + n * n + m;
}

// Kept: numbers of the arrays that a thread holds, or 1.
template <class T, class Team, class Real, int Kept>
__global__ void solve(MaxDetCall call) {
    constexpr bool again = Words<Real>::two;
    Real local[Kept];
    const Team team;
    Real* const work = arrays(local, team);
    const int64_t row = row_of(team);
    if (row >= call.batch) return;
    const max_det::Tables t(call.d);
    const max_det::Layout<Team> at(t);
    const T *tables = static_cast<const T*>(call.tables), *p = static_cast<const T*>(call.p) + row * t.m;
    T *out = static_cast<T*>(call.out) + row * (t.n * t.n + 5), *tail = out + t.n * t.n;
    if (again && tail[0] != max_det::kRefine) return;
    const PowerOfTwo<T> power = largest_power(p, t.m, 1);
    Real* form = work + at.size;
    for (int k = team.rank(); k < t.m; k += team.size()) {
        form[k] = work[at.p + k] = Words<Real>::from(power.finite ? p[k] * power.down : T(0));
        work[at.w + k] = Words<Real>::from(again ? out[k] : T(0));
    }
    team.sync();
    const max_det::Report<Real> report = max_det::solve(t, tables, work, team, Words<Real>::from(T(power.finite)));
    Real positive = Words<Real>::from(T(1)), exact = positive, rounding{};
    const Real* gram = max_det::gram(t, tables, work, form, call.single, team, positive, exact, rounding);
    const T found = Words<Real>::high(report.status), error = Words<Real>::high(max_det::error_estimate<Team, T>(report.condition, again));
    const bool solved = found == max_det::kSolved && Words<Real>::high(positive) > 0;
    const T rounded = Words<Real>::high(rounding);
    const bool accurate = error <= (again ? max_det::Tolerance::solved : max_det::Tolerance::refine) && Words<Real>::high(exact) > 0 &&
                          rounded <= T(max_det::SingleTolerance::solved);
    T status = found;
    double point[2] = {0, 0};
    if (found == max_det::kSolved || found == max_det::kUndecided)
        status = T(solved && accurate ? max_det::kSolved : !again ? max_det::kRefine : solved ? max_det::kInaccurate : max_det::kUndecided);
    if (again && found == max_det::kNotPositive) status = max_det::kUndecided;
    const bool seen = found == max_det::kNotPositive, open = status == max_det::kRefine && !solved;
    if (!again && (seen || (open && !call.quick))) {
        const double theta = 3.14159265358979323846 * static_cast<double>(Words<Real>::high(report.where)) / t.m;
        const bool has = call.quick ? max_det::witness_at(p, 2 * t.d, theta, call.single, point)
                                    : max_det::witness(p, 2 * t.d, seen, theta, call.single, point);
        if (has || seen) status = T(has ? max_det::kNotPositive : call.quick ? max_det::kRefine : max_det::kUndecided);
        if (!has) point[0] = point[1] = 0;
    }
    const bool wanted = status == max_det::kSolved || (again && call.candidates),
               start = !call.quick && status == max_det::kRefine && found == max_det::kSolved;
    const T before = again ? tail[1] : T(0);
    team.sync();
    for (int i = team.rank(); i < t.n * t.n; i += team.size()) {
        out[i] = wanted ? Words<Real>::high(gram[i]) * power.up : T(0);
        if (start && i < t.m) out[i] = Words<Real>::high(work[at.w + i]);
    }
    if (team.rank() != 0) return;
    tail[0] = status, tail[1] = before + Words<Real>::high(report.iterations);
    tail[2] = static_cast<T>(point[0]), tail[3] = static_cast<T>(point[1]);
    tail[4] = !wanted && status != max_det::kInaccurate ? T(0) : error > rounded ? error : rounded;
}

template <class T, class Team, class Real, int Kept>
__global__ void adjoint(MaxDetCall call) {
    constexpr bool again = Words<Real>::two;
    Real local[Kept];
    const Team team;
    Real* const work = arrays(local, team);
    const int64_t row = row_of(team);
    if (row >= call.batch) return;
    const max_det::Tables t(call.d);
    const max_det::Layout<Team> at(t);
    const int size = t.n * t.n, length = call.matrix ? size : t.m;
    const T* q = static_cast<const T*>(call.gram) + row * size;
    const T* source = static_cast<const T*>(call.matrix ? call.matrix : call.form) + row * length;
    T* out = static_cast<T*>(call.out) + row * t.m;
    if (again && out[0] == out[0]) return;
    team.sync();
    Real *gram = work + at.size, *result = gram + size;
    const PowerOfTwo<T> power = largest_power(q, t.n, t.n + 1);  // of the diagonal
    for (int i = team.rank(); i < size; i += team.size())
        gram[i] = Words<Real>::from(T(0.5) * (q[i] * power.down + q[i % t.n * t.n + i / t.n] * power.down));
    team.sync();
    const Real condition =
        max_det::adjoint(t, static_cast<const T*>(call.tables), work, gram, call.matrix ? source : nullptr, source, result, team);
    const bool marked = !again && Words<Real>::high(max_det::error_estimate<Team, T>(condition, false)) > max_det::Tolerance::refine;
    for (int k = team.rank(); k < t.m; k += team.size()) {
        const T value = Words<Real>::high(result[k]);
        out[k] = call.matrix ? value : value * power.down * power.down;  // Hess^-1 has degree -2 in the Gram
        if (k == 0 && marked) out[0] = T(NAN);
    }
}

// Of forms of at most kLargest coefficients.
template <class T, int kLargest>
__global__ void frame(MaxDetCall call) {
    const int64_t row = static_cast<int64_t>(block_index()) * thread_count() + thread_index();
    if (row >= call.batch) return;
    const max_det::Tables t(call.d);
    const T* given = static_cast<const T*>(call.p) + row * t.m;
    const PowerOfTwo<T> power = largest_power(given, t.m, 1);
    Wide<T> work[2 * kLargest];
    T p[kLargest], result[kLargest], h[4];
    for (int k = 0; k < t.m; ++k) p[k] = power.finite ? given[k] * power.down : T(0);
    max_det::frame<ThreadTeam>(t, static_cast<const T*>(call.tables), p, work, result, h);
    T* out = static_cast<T*>(call.out) + row * (t.m + 4);
    for (int k = 0; k < t.m; ++k) out[k] = power.finite ? result[k] * power.up : T(NAN);
    for (int i = 0; i < 4; ++i) out[t.m + i] = h[i];
}

// The first launch, by the side of the Gram.
template <class T, int N = 1>
void run_first(const char* name, bool derivative, const MaxDetCall& call, void* stream) {
    if constexpr (N > kThreadSide) {
        const size_t bytes = static_cast<size_t>(numbers<WarpTeam>(call.d)) * sizeof(T);
        launch(name, derivative ? adjoint<T, WarpTeam, T, 1> : solve<T, WarpTeam, T, 1>, call.batch, 32, bytes, stream, call);
    } else if (call.d + 1 == N) {
        constexpr int kKept = numbers_of_thread(N);
        if (numbers<ThreadTeam>(call.d) != kKept) throw std::runtime_error(std::string(name) + ": arrays of another size than planned");
        const int64_t grid = (call.batch + kThreadsPerBlock - 1) / kThreadsPerBlock;
        const auto kernel = derivative ? adjoint<T, ThreadTeam, T, kKept> : solve<T, ThreadTeam, T, kKept>;
        launch(name, kernel, grid, kThreadsPerBlock, 0, stream, call);
    } else {
        run_first<T, N + 1>(name, derivative, call, stream);
    }
}

template <class T>
void run(const char* name, bool derivative, const MaxDetCall& call, void* stream) {
    run_first<T>(name, derivative, call, stream);
    if (call.quick) return;
    const size_t bytes = static_cast<size_t>(numbers<WideWarpTeam>(call.d)) * sizeof(Wide<T>);
    launch(name, derivative ? adjoint<T, WideWarpTeam, Wide<T>, 1> : solve<T, WideWarpTeam, Wide<T>, 1>, call.batch, 32, bytes, stream,
           call);
}

}  // namespace

void max_det(const View& p, const View& tables, bool single, bool candidates, bool quick, const View& solution, void* stream) {
    MaxDetCall call{};
    call.d = static_cast<int>(p.sizes[1] / 2), call.batch = p.sizes[0];
    call.p = p.data, call.tables = tables.data, call.out = solution.data;
    call.single = single, call.candidates = candidates, call.quick = quick;
    run<double>("max_det", false, call, stream);
}

void max_det_frame(const View& p, const View& tables, const View& framed, void* stream) {
    MaxDetCall call{};
    call.d = static_cast<int>(p.sizes[1] / 2), call.batch = p.sizes[0];
    call.p = p.data, call.tables = tables.data, call.out = framed.data;
    const int64_t grid = (call.batch + kThreadsPerBlock - 1) / kThreadsPerBlock;
    launch("max_det_frame", call.d <= 6 ? frame<double, 13> : frame<double, 41>, grid, kThreadsPerBlock, 0, stream, call);
}

void max_det_adjoint(const View& gram, const View& matrix, const View& form, const View& tables, const View& result, void* stream) {
    MaxDetCall call{};
    call.d = static_cast<int>(gram.sizes[1] - 1), call.batch = gram.sizes[0];
    call.gram = gram.data, call.tables = tables.data, call.out = result.data;
    call.matrix = matrix.defined() ? matrix.data : nullptr;
    call.form = form.defined() ? form.data : nullptr;
    run<double>("max_det_adjoint", true, call, stream);
}

}  // namespace cuda
}  // namespace isotypic
