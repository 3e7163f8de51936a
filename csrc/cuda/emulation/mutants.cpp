// Small kernels with one planted fault each, which the checker must find, and the same without it.
#include "cuda/emulation/module.hpp"

#include <cstring>
#include <string>

#include "cuda/launch.cuh"

namespace isotypic {
using namespace emulation;
namespace {

constexpr int kThreadsOfMutants = 64;

enum class Fault {
    none,
    no_barrier,
    no_barrier_before_reuse,
    no_warp_barrier,
    late_wait,
    unwritten,
    shared_bound,
    read_bound,
    write_bound,
    misaligned,
    blocks_write_one,
    threads_read_early,
    lanes_write_early,
    unwritten_scratch,
    bank_conflicts,
};
constexpr const char* kNames[] = {"none",
                                  "no_barrier",
                                  "no_barrier_before_reuse",
                                  "no_warp_barrier",
                                  "late_wait",
                                  "unwritten",
                                  "shared_bound",
                                  "read_bound",
                                  "write_bound",
                                  "misaligned",
                                  "blocks_write_one",
                                  "threads_read_early",
                                  "lanes_write_early",
                                  "unwritten_scratch",
                                  "bank_conflicts"};

// Every block reverses 64 numbers of x into y, twice, by way of shared memory and of scratch.
__global__ void reverse(const float* x, float* y, float* scratch, Fault fault) {
    float* shared = reinterpret_cast<float*>(cuda::shared_memory());
    const int t = cuda::thread_index(), mirrored = kThreadsOfMutants - 1 - t;
    const float* from = x + cuda::block_index() * kThreadsOfMutants;
    float* to = y + cuda::block_index() * kThreadsOfMutants;
    copy_async(shared + t, from + t, 4, true);
    if (fault != Fault::late_wait) wait_for_copies();
    if (fault == Fault::late_wait) shared[t] += 1;
    if (fault == Fault::late_wait) wait_for_copies();
    if (fault != Fault::no_barrier) __syncthreads();
    float value = shared[mirrored];
    if (fault == Fault::shared_bound) value += shared[t + 2 * kThreadsOfMutants + 1];
    if (fault == Fault::unwritten) value += shared[2 * kThreadsOfMutants - 1];
    if (fault != Fault::no_barrier_before_reuse) __syncthreads();
    shared[t] = value;
    if (fault != Fault::no_warp_barrier) cuda::sync_warp();
    value = shared[t ^ 1];
    __syncthreads();
    shared[t] = value;
    __syncthreads();
    value = shared[t ^ 1];
    if (fault == Fault::bank_conflicts) {
        __syncthreads();
        if (t % 32 < 4) shared[t % 32 * 32 + t / 32] = 1;
    }
    float* mine = scratch + cuda::block_index() * kThreadsOfMutants;
    if (fault != Fault::unwritten_scratch || t) mine[t] = value;
    if (fault != Fault::threads_read_early) __syncthreads();
    to[t] = mine[mirrored];
    __syncthreads();
    value = mine[t ^ 1];
    if (fault != Fault::lanes_write_early) cuda::sync_warp();
    mine[t] = value;
    if (fault == Fault::read_bound) to[t] += x[cuda::block_count() * kThreadsOfMutants + (t == 0 ? 0 : -1)];
    if (fault == Fault::write_bound && t == 0 && cuda::block_index() == 0) y[-1] = 0;
    if (fault == Fault::misaligned && t == 0) {
        int64_t pair;
        std::memcpy(&pair, from + 1, 8);
        to[t] += static_cast<float>(pair) * 0;
        to[t] += static_cast<float>(*reinterpret_cast<const volatile int64_t*>(from + 1)) * 0;
    }
    if (fault == Fault::blocks_write_one && t == 0) y[0] = 1;
}

void reverse_with(const std::string& name, const Tensor& x, const Tensor& y) {
    int fault = 0;
    while (name != kNames[fault]) ++fault;
    const View in = to_view(x), out = to_view(y);
    const Workspace scratch(in.numel() * 4);
    cuda::launch("reverse", reverse, in.numel() / kThreadsOfMutants, kThreadsOfMutants, 2 * kThreadsOfMutants * sizeof(float), nullptr,
                 static_cast<const float*>(in.data), static_cast<float*>(out.data), reinterpret_cast<float*>(scratch.data),
                 static_cast<Fault>(fault));
    scratch.check();
}

}  // namespace

PYBIND11_MODULE(emulated_mutants, m) {
    m.def("faults", [] { return std::vector<std::string>(std::begin(kNames), std::end(kNames)); });
    m.def("run", &reverse_with);
    define_configure(m);
}

}  // namespace isotypic
