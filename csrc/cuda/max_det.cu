// max_det on a device: the source of ops/max_det_solver.hpp, with a polynomial to each thread up to n = 6 and to each warp above.
//
//     thread   up to degree 10: all arrays in local memory, as long as the degree asks for; the threads of a warp run in lockstep, as the
//              lanes of a vector do, and iterate as often as the slowest of them
//     warp     arrays in shared memory, 8 KB at degree 20 and 28 KB at degree 40 in float64: rows of X, K and of the columns of a
//              factor are dealt to the lanes, with two barriers of the warp for each column
//
// Local memory: at the first launch the driver reserves the stack of a thread for every thread that can be resident, 270,336 on an H200.
// Kernels are compiled for each n, in float64 (float32 takes half):
//     degree        2        4        6        8        10
//     stack         416 B    800 B    1,328 B  1,968 B  2,752 B
//     reserved      112 MB   216 MB   359 MB   532 MB   744 MB
//
// No workspace, no synchronisation of the device: the search for a witness runs in the kernel too. Flops as counted in ops/max_det_solver.hpp; a
// batch of 10,000 of degree 6 in float64 is 20 Mflop and 2 MB, so that the launch and the latency of the serial chains of divisions and
// roots decide. No spills; on sm_90 in float64 94 registers for a thread, 104 for a warp.
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

struct Problem {
    int d;
    int64_t batch;
    const void *tables, *p, *gram, *matrix, *form;
    void* out;
    bool single;
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
    const int limit = sizeof(T) == 8 ? 1020 : 124;
    exponent = exponent > limit ? limit : exponent < -limit ? -limit : exponent;
    power.down = ldexp(T(1), -exponent), power.up = ldexp(T(1), exponent);
    return power;
}

// The polynomial of this team, or -1, and its arrays.
template <class T, class Team>
struct Place {
    int64_t row;
    T* work;
};
template <class T>
DEVICE Place<T, ThreadTeam> place(T* local, ThreadTeam) {
    return {static_cast<int64_t>(block_index()) * thread_count() + thread_index(), local};
}
template <class T>
DEVICE Place<T, WarpTeam> place(T*, WarpTeam) {
    return {static_cast<int64_t>(block_index()), reinterpret_cast<T*>(shared_memory())};
}

// Numbers of the arrays of one polynomial: those of Layout, and behind them the form, or the Gram and the result.
template <class Team>
HOST_DEVICE constexpr int numbers(int d) {
    const max_det::Tables t(d);
    return max_det::Layout<Team>(t).size + t.n * t.n + t.m;
}

// N: the side of the Gram where a thread holds the arrays, else 0.
template <class T, class Team, int N>
__global__ void solve(Problem problem) {
    T local[N ? numbers<ThreadTeam>(N - 1) : 1];
    const Team team;
    const auto [row, work] = place(local, team);
    if (row >= problem.batch) return;
    const max_det::Tables t(problem.d);
    const max_det::Layout<Team> at(t);
    const T *tables = static_cast<const T*>(problem.tables), *p = static_cast<const T*>(problem.p) + row * t.m;
    const PowerOfTwo<T> power = largest_power(p, t.m, 1);
    T* form = work + at.size;
    for (int k = team.rank(); k < t.m; k += team.size()) form[k] = work[at.p + k] = power.finite ? p[k] * power.down : T(0);
    team.sync();
    const max_det::Report<T> report = max_det::solve(t, tables, work, team, T(power.finite));
    T positive = 1;
    const T* gram = max_det::gram(t, tables, work, form, team, positive);
    const bool solved = report.status == max_det::kSolved && positive > 0;
    T* out = static_cast<T*>(problem.out) + row * (t.n * t.n + 4);
    for (int i = team.rank(); i < t.n * t.n; i += team.size()) out[i] = solved ? gram[i] * power.up : T(0);
    if (team.rank() != 0) return;
    T status = report.status == max_det::kSolved && !solved ? T(max_det::kUndecided) : report.status;
    double point[2] = {0, 0};
    if (status == max_det::kNotPositive || status == max_det::kUndecided) {
        const double theta = 3.14159265358979323846 * static_cast<double>(report.where) / t.m;
        status = T(max_det::witness(p, 2 * t.d, status == max_det::kNotPositive, theta, problem.single, point) ? max_det::kNotPositive
                                                                                                               : max_det::kUndecided);
    }
    T* tail = out + t.n * t.n;
    tail[0] = status, tail[1] = report.iterations, tail[2] = static_cast<T>(point[0]), tail[3] = static_cast<T>(point[1]);
}

template <class T, class Team, int N>
__global__ void adjoint(Problem problem) {
    T local[N ? numbers<ThreadTeam>(N - 1) : 1];
    const Team team;
    const auto [row, work] = place(local, team);
    if (row >= problem.batch) return;
    const max_det::Tables t(problem.d);
    const max_det::Layout<Team> at(t);
    const int size = t.n * t.n, length = problem.matrix ? size : t.m;
    const T* q = static_cast<const T*>(problem.gram) + row * size;
    const T* source = static_cast<const T*>(problem.matrix ? problem.matrix : problem.form) + row * length;
    T *gram = work + at.size, *result = gram + size;
    const PowerOfTwo<T> power = largest_power(q, t.n, t.n + 1);  // of the diagonal
    for (int i = team.rank(); i < size; i += team.size()) gram[i] = T(0.5) * (q[i] * power.down + q[i % t.n * t.n + i / t.n] * power.down);
    team.sync();
    max_det::adjoint(t, static_cast<const T*>(problem.tables), work, gram, problem.matrix ? source : nullptr, source, result, team);
    T* out = static_cast<T*>(problem.out) + row * t.m;
    for (int k = team.rank(); k < t.m; k += team.size())
        out[k] = problem.matrix ? result[k] : result[k] * power.down * power.down;  // Hess^-1 has degree -2 in the Gram
}

template <class T, int N = 1>
void run(const char* name, bool derivative, const Problem& problem, void* stream) {
    if constexpr (N > kThreadSide) {
        const size_t bytes = static_cast<size_t>(numbers<WarpTeam>(problem.d)) * sizeof(T);
        launch(name, derivative ? adjoint<T, WarpTeam, 0> : solve<T, WarpTeam, 0>, problem.batch, 32, bytes, stream, problem);
    } else if (problem.d + 1 == N) {
        const int64_t grid = (problem.batch + kThreadsPerBlock - 1) / kThreadsPerBlock;
        launch(name, derivative ? adjoint<T, ThreadTeam, N> : solve<T, ThreadTeam, N>, grid, kThreadsPerBlock, 0, stream, problem);
    } else {
        run<T, N + 1>(name, derivative, problem, stream);
    }
}

}  // namespace

void max_det(const View& p, const View& tables, bool single, const View& solution, void* stream) {
    Problem problem{};
    problem.d = static_cast<int>(p.sizes[1] / 2), problem.batch = p.sizes[0];
    problem.p = p.data, problem.tables = tables.data, problem.out = solution.data;
    problem.single = single || p.dtype == DType::float32;
    p.dtype == DType::float64 ? run<double>("max_det", false, problem, stream) : run<float>("max_det", false, problem, stream);
}

void max_det_adjoint(const View& gram, const View& matrix, const View& form, const View& tables, const View& result, void* stream) {
    Problem problem{};
    problem.d = static_cast<int>(gram.sizes[1] - 1), problem.batch = gram.sizes[0];
    problem.gram = gram.data, problem.tables = tables.data, problem.out = result.data;
    problem.matrix = matrix.defined() ? matrix.data : nullptr;
    problem.form = form.defined() ? form.data : nullptr;
    gram.dtype == DType::float64 ? run<double>("max_det_adjoint", true, problem, stream)
                                 : run<float>("max_det_adjoint", true, problem, stream);
}

}  // namespace cuda
}  // namespace isotypic
