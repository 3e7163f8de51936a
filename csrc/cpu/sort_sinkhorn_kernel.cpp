// sort_sinkhorn on the CPU: one sample to a lane of a vector, its recursions along the nodes in lockstep.
//
// A half step of the iteration is two recursions of one multiply-add with a latency of 4 cycles, and a division: at 16 lanes of float32
// about 20 cycles for a node of 16 samples, so that 20 iterations take 50 cycles for a node of one sample. Its adjoint has four recursions
// and no division. Memory: 9 + 2 arrays of n vectors, and two more for each iteration in the adjoint: 176 KB at n = 64, in L2. Of x and y
// blocks of kBlock channels are transposed into lanes at a time.
#include "cpu/sort_sinkhorn_kernel.hpp"

#include "cpu/tile_copy.hpp"
#include "cpu/vec.hpp"
#include "ops/sort_sinkhorn_solver.hpp"

namespace isotypic::cpu::ISOTYPIC_ISA {
namespace {

constexpr int64_t kBlock = 8;

template <class T>
struct Lanes {
    static Vec<T> exp(Vec<T> x) {
        T* value = reinterpret_cast<T*>(&x);
        for (int l = 0; l < kLanes<T>; ++l)
            value[l] = sizeof(T) == 8 ? static_cast<T>(__builtin_exp(value[l])) : static_cast<T>(__builtin_expf(value[l]));
        return x;
    }
    static Vec<T> log(Vec<T> x) {
        T* value = reinterpret_cast<T*>(&x);
        for (int l = 0; l < kLanes<T>; ++l)
            value[l] = sizeof(T) == 8 ? static_cast<T>(__builtin_log(value[l])) : static_cast<T>(__builtin_logf(value[l]));
        return x;
    }
};

template <class T>
using Solver = sinkhorn::Solver<Vec<T>, T, Lanes<T>>;

// A solver with the samples of the call in its lanes; behind the workspace of the solver lie two blocks of channels.
template <class T>
Solver<T> prepare(const SinkhornCall<T>& call) {
    constexpr int L = kLanes<T>;
    Vec<T>* const arrays = reinterpret_cast<Vec<T>*>(call.workspace);
    const Solver<T> solver(call.n, 1, call.iterations, call.tau, arrays);
    T* const tile = reinterpret_cast<T*>(solver.t_bar);
    load_tile(call.t, call.n, call.rows, call.n, tile, L);
    alignas(64) T length[L];
    for (int l = 0; l < L; ++l) length[l] = l >= call.rows ? T(0) : call.lengths ? static_cast<T>(call.lengths[l]) : static_cast<T>(call.n);
    const Vec<T> lengths = load(length);
    for (int64_t i = 0; i < call.n; ++i) {
        const Vec<T> inside = lengths > broadcast<T>(static_cast<T>(i)) ? broadcast<T>(1) : zero<T>();
        const Vec<T> t = inside > zero<T>() ? load(tile + i * L) : zero<T>();
        solver.set(i, t, i > 0 ? load(tile + (i - 1) * L) : zero<T>(), inside);
    }
    return solver;
}

template <class T>
int64_t workspace(int64_t n, int iterations, bool gradient) {
    const int64_t vectors = n * (sinkhorn::arrays(iterations, gradient) + (gradient ? 2 * kBlock : 0));
    return (vectors + 1) * static_cast<int64_t>(sizeof(Vec<T>));
}

template <class T>
void entropy(const SinkhornCall<T>& call) {
    const Solver<T> solver = prepare(call);
    solver.solve(false);
    const Vec<T> sum = solver.negative_entropy(solver.u_of(0), solver.v_of(0));
    alignas(64) T sums[kLanes<T>];
    store(sums, sum);
    for (int64_t l = 0; l < call.rows; ++l) {
        const int64_t n = call.lengths ? call.lengths[l] : call.n;
        call.out[l] = n > 0 ? -sums[l] / static_cast<T>(n) : T(0);
    }
}

// Channels first ... first + count - 1 of x (rows, n, channels), as (n, count, lanes), zero behind the lengths.
template <class T>
void load_channels(const SinkhornCall<T>& call, const T* x, int64_t first, int64_t count, T* tile) {
    constexpr int L = kLanes<T>;
    for (int64_t i = 0; i < call.n; ++i)
        load_tile(x + i * call.channels + first, call.n * call.channels, call.rows, count, tile + i * count * L, L);
    if (!call.lengths) return;
    for (int64_t l = 0; l < call.rows; ++l)
        for (int64_t at = call.lengths[l] * count; at < call.n * count; ++at) tile[at * L + l] = 0;
}

template <class T>
void gradient(const SinkhornCall<T>& call) {
    constexpr int L = kLanes<T>;
    const Solver<T> solver = prepare(call);
    solver.solve(true);
    solver.clear_gradient();
    if (call.w) {
        alignas(64) T scale[L] = {};
        for (int64_t l = 0; l < call.rows; ++l) {
            const int64_t n = call.lengths ? call.lengths[l] : call.n;
            scale[l] = n > 0 ? -call.w[l] / static_cast<T>(n) : T(0);
        }
        solver.add_negative_entropy(load(scale));
    }
    T* const tile_x = reinterpret_cast<T*>(solver.kept + 2 * call.iterations * call.n);
    T* const tile_y = tile_x + kBlock * call.n * L;
    for (int64_t first = 0; call.x && first < call.channels; first += kBlock) {
        const int64_t count = smaller(kBlock, call.channels - first);
        load_channels(call, call.x, first, count, tile_x);
        load_channels(call, call.y, first, count, tile_y);
        for (int64_t c = 0; c < count; ++c)
            solver.add_bilinear([&](int64_t i) ISOTYPIC_LAMBDA { return load(tile_x + (i * count + c) * L); },
                                [&](int64_t i) ISOTYPIC_LAMBDA { return load(tile_y + (i * count + c) * L); });
    }
    solver.reverse();
    store_tile(reinterpret_cast<const T*>(solver.t_bar), L, call.rows, call.n, call.out, call.n);
}

template <class T>
constexpr SinkhornKernel<T> kernel() {
    return {kLanes<T>, &workspace<T>, &entropy<T>, &gradient<T>};
}

const SinkhornKernels kKernels = {kernel<float>(), kernel<double>()};

}  // namespace

const SinkhornKernels& sort_sinkhorn_kernels() {
    return kKernels;
}

}  // namespace isotypic::cpu::ISOTYPIC_ISA
