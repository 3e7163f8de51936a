// Driver of the CPU kernels of transvectants: sizes, workspace, and tiles of samples to the threads.
#include "ops/transvectants.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include "core/parallel.hpp"
#include "cpu/isa.hpp"
#include "cpu/transvectants_kernel.hpp"

namespace isotypic::cpu {
namespace {

constexpr int64_t kPanelBytes = 384 << 10;  // products of a block of channels: in L2 beside the sums

const TransvectantsKernels& kernel_set() {
    switch (isa()) {
#if defined(__x86_64__)
        case Isa::avx512:
            return avx512::transvectants_kernels();
        case Isa::avx2:
            return avx2::transvectants_kernels();
#elif defined(__aarch64__)
        case Isa::neon:
            return neon::transvectants_kernels();
#endif
        default:
            return scalar::transvectants_kernels();
    }
}

struct FreeDeleter {
    void operator()(void* p) const { std::free(p); }
};
using Buffer = std::unique_ptr<void, FreeDeleter>;

Buffer allocate(int64_t bytes) {
    void* p = std::aligned_alloc(64, static_cast<size_t>(std::max<int64_t>((bytes + 63) / 64 * 64, 64)));
    if (!p) throw std::bad_alloc();
    return Buffer(p);
}

struct Prepared {
    TransvectantsProblem problem{};
    const TransvectantsKernel* kernel;
    int64_t itemsize, tiles;
    int threads;

    Prepared(const TransvectantsPlan& plan, const View& f, const View& h, const View& weight, const View& z, const View& result,
             int64_t out_channels) {
        const bool wide = f.dtype == DType::float64;
        kernel = wide ? &kernel_set().float64 : &kernel_set().float32;
        itemsize = wide ? 8 : 4;
        TransvectantsProblem& p = problem;
        p.in_size = plan.in_size, p.out_size = plan.out_size, p.paths = plan.paths, p.out_slots = plan.out_slots;
        p.pair_count = static_cast<int>(plan.pairs.size()), p.row_count = static_cast<int>(plan.rows.size()),
        p.outer_size = plan.outer_size;
        p.path_begin = plan.path_begin.data(), p.out_begin = plan.out_begin.data(), p.slot = plan.slot.data();
        p.rows_before = plan.rows_before.data(), p.term_begin = plan.term_begin.data();
        p.pairs = plan.pairs.data(), p.rows = plan.rows.data(), p.terms = plan.terms.data();
        p.coefficients = wide ? static_cast<const void*>(plan.coefficients.data()) : plan.coefficients32.data();
        p.batch = f.sizes[0], p.in_channels = f.sizes[1], p.out_channels = out_channels;
        p.f = f.data, p.h = h.defined() ? h.data : nullptr, p.weight = weight.data, p.z = z.data, p.result = result.data;
        const int64_t channel_bytes = std::max<int64_t>(1, p.row_count * kernel->tile * itemsize);
        p.channel_block = std::clamp<int64_t>(kPanelBytes / channel_bytes, 1, std::max<int64_t>(p.in_channels, 1));
        const int64_t blocks = (p.in_channels + p.channel_block - 1) / p.channel_block;
        p.channel_block = blocks ? (p.in_channels + blocks - 1) / blocks : 1;
        tiles = (p.batch + kernel->tile - 1) / kernel->tile;
        threads = static_cast<int>(std::clamp<int64_t>(tiles, 1, max_threads()));
    }

    // work(tile, workspace, thread) for all tiles.
    template <class Work>
    void for_each_tile(int64_t size, const Work& work) const {
        const int64_t bytes = (size * itemsize + 63) / 64 * 64;
        const Buffer workspace = allocate(bytes * threads);
        parallel_for(tiles, threads,
                     [&](int64_t tile, int thread) { work(tile, static_cast<char*>(workspace.get()) + bytes * thread, thread); });
    }
};

bool fill_zero(const View& view) {
    std::memset(view.data, 0, static_cast<size_t>(view.numel() * itemsize(view.dtype)));
    return true;
}

}  // namespace

void transvectants(const TransvectantsPlan& plan, const View& f, const View& h, const View& weight, const View& y) {
    if (y.numel() == 0 || f.sizes[1] == 0) return static_cast<void>(y.numel() && fill_zero(y));
    const Prepared prepared(plan, f, h, weight, View{}, y, y.sizes[1]);
    prepared.for_each_tile(prepared.kernel->forward_workspace(prepared.problem),
                           [&](int64_t tile, void* workspace, int) { prepared.kernel->forward(prepared.problem, tile, workspace); });
}

void transvectants_input(const TransvectantsPlan& plan, const View& f, const View& weight, const View& z, const View& x) {
    if (x.numel() == 0 || z.sizes[1] == 0) return static_cast<void>(x.numel() && fill_zero(x));
    const Prepared prepared(plan, f, View{}, weight, z, x, z.sizes[1]);
    prepared.for_each_tile(prepared.kernel->input_workspace(prepared.problem),
                           [&](int64_t tile, void* workspace, int) { prepared.kernel->input(prepared.problem, tile, workspace); });
}

void transvectants_weight(const TransvectantsPlan& plan, const View& f, const View& h, const View& z, const View& weight) {
    if (weight.numel() == 0 || f.sizes[0] == 0) return static_cast<void>(weight.numel() && fill_zero(weight));
    const Prepared prepared(plan, f, h, View{}, z, weight, z.sizes[1]);
    const int64_t sums = (prepared.kernel->weight_sums(prepared.problem) * prepared.itemsize + 63) / 64 * 64;
    const Buffer partial = allocate(sums * prepared.threads);
    std::memset(partial.get(), 0, static_cast<size_t>(sums * prepared.threads));
    prepared.for_each_tile(prepared.kernel->weight_workspace(prepared.problem), [&](int64_t tile, void* workspace, int thread) {
        prepared.kernel->weight(prepared.problem, tile, static_cast<char*>(partial.get()) + sums * thread, workspace);
    });
    prepared.kernel->finish_weight(prepared.problem, partial.get(), prepared.threads, sums / prepared.itemsize);
}

}  // namespace isotypic::cpu
