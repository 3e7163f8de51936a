// Driver of the CPU kernels of transvectants: sizes, workspace, and tiles of samples to the threads.
#include "ops/transvectants.hpp"

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "core/large_pages.hpp"
#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "cpu/isa.hpp"
#include "cpu/transvectants_kernel.hpp"

namespace isotypic::cpu {
namespace {

constexpr int64_t kPanelBytes = 384 << 10;  // products of a block of channels: in L2 beside the sums

const TransvectantsKernels& kernel_set() {
    return ISOTYPIC_SELECT_ISA(transvectants_kernels);
}

struct PreparedCall {
    TransvectantsCall call{};
    const TransvectantsKernel* kernel;
    int64_t itemsize, tiles, singles = 0;
    int threads;

    // Samples behind the last whole tile come one by one, unless they are so many that a tile with empty lanes takes less: by itself a
    // sample costs `shares` times its share of a tile (50 channels, AVX-512).
    PreparedCall(const TransvectantsPlan& plan, const View& f, const View& h, const View& weight, const View& z, const View& result,
                 int64_t out_channels, double shares) {
        const bool wide = f.dtype == DType::float64;
        kernel = wide ? &kernel_set().float64 : &kernel_set().float32;
        itemsize = wide ? 8 : 4;
        TransvectantsCall& p = call;
        p.in_size = plan.in_size, p.out_size = plan.out_size, p.paths = plan.paths, p.out_slots = plan.out_slots;
        p.row_count = static_cast<int>(plan.rows.size());
        p.antidiagonal_count = static_cast<int>(plan.antidiagonals.size()), p.antidiagonals = plan.antidiagonals.data();
        p.path_begin = plan.path_begin.data(), p.out_begin = plan.out_begin.data(), p.slot = plan.slot.data();
        p.rows_before = plan.rows_before.data(), p.rows = plan.rows.data();
        p.coefficients = wide ? static_cast<const void*>(plan.coefficients.data()) : plan.coefficients32.data();
        p.batch = f.sizes[0], p.in_channels = f.sizes[1], p.out_channels = out_channels;
        p.f = f.data, p.h = h.defined() ? h.data : nullptr, p.weight = weight.data, p.z = z.data, p.result = result.data;
        const int64_t channel_bytes = std::max<int64_t>(1, p.row_count * kernel->tile * itemsize);
        p.channel_block = std::clamp<int64_t>(kPanelBytes / channel_bytes, 1, std::max<int64_t>(p.in_channels, 1));
        const int64_t blocks = (p.in_channels + p.channel_block - 1) / p.channel_block;
        p.channel_block = blocks ? (p.in_channels + blocks - 1) / blocks : 1;
        tiles = p.batch / kernel->tile;
        const int64_t rest = p.batch % kernel->tile;
        if (static_cast<double>(rest) * shares > static_cast<double>(kernel->tile))
            ++tiles;
        else
            singles = rest;
        threads = static_cast<int>(std::clamp<int64_t>(tiles + singles, 1, max_threads()));
    }

    // tile(first, count, workspace, thread) and sample(index, workspace, thread) for all samples.
    template <class Tile, class Sample>
    void run(const Tile& tile, const Sample& sample) const {
        const Scratch memory(kernel->workspace(call) * itemsize, threads);
        parallel_for(tiles + singles, threads, [&](int64_t item, int thread) {
            void* workspace = memory.part(thread);
            if (item >= tiles) return sample(tiles * kernel->tile + item - tiles, workspace, thread);
            const int64_t first = item * kernel->tile;
            tile(first, std::min<int64_t>(kernel->tile, call.batch - first), workspace, thread);
        });
    }
};

bool fill_zero(const View& view) {
    std::memset(view.data, 0, static_cast<size_t>(view.numel() * itemsize(view.dtype)));
    return true;
}

}  // namespace

void transvectants(const TransvectantsPlan& plan, const View& f, const View& h, const View& weight, const View& y) {
    ask_for_large_pages(y);
    if (y.numel() == 0 || f.sizes[1] == 0) return static_cast<void>(y.numel() && fill_zero(y));
    const PreparedCall prepared(plan, f, h, weight, View{}, y, y.sizes[1], 1.4);
    const TransvectantsKernel& kernel = *prepared.kernel;
    prepared.run([&](int64_t first, int64_t count, void* workspace, int) { kernel.forward(prepared.call, first, count, workspace); },
                 [&](int64_t sample, void* workspace, int) { kernel.forward_sample(prepared.call, sample, workspace); });
}

void transvectants_input(const TransvectantsPlan& plan, const View& f, const View& weight, const View& z, const View& x) {
    ask_for_large_pages(x);
    if (x.numel() == 0 || z.sizes[1] == 0) return static_cast<void>(x.numel() && fill_zero(x));
    const PreparedCall prepared(plan, f, View{}, weight, z, x, z.sizes[1], 2.6);
    const TransvectantsKernel& kernel = *prepared.kernel;
    prepared.run([&](int64_t first, int64_t count, void* workspace, int) { kernel.input(prepared.call, first, count, workspace); },
                 [&](int64_t sample, void* workspace, int) { kernel.input_sample(prepared.call, sample, workspace); });
}

void transvectants_weight(const TransvectantsPlan& plan, const View& f, const View& h, const View& z, const View& weight) {
    if (weight.numel() == 0 || f.sizes[0] == 0) return static_cast<void>(weight.numel() && fill_zero(weight));
    const PreparedCall prepared(plan, f, h, View{}, z, weight, z.sizes[1], 2.2);
    const TransvectantsKernel& kernel = *prepared.kernel;
    const Scratch partial(weight.numel() * prepared.itemsize, prepared.threads);
    const std::unique_ptr<bool[]> begun(new bool[prepared.threads]());
    prepared.run(
        [&](int64_t first, int64_t count, void* workspace, int thread) {
            kernel.weight(prepared.call, first, count, std::exchange(begun[thread], true), partial.part(thread), workspace);
        },
        [&](int64_t sample, void* workspace, int thread) {
            kernel.weight_sample(prepared.call, sample, std::exchange(begun[thread], true), partial.part(thread), workspace);
        });
    const int used = static_cast<int>(std::count(begun.get(), begun.get() + prepared.threads, true));  // the first ones
    kernel.finish_weight(prepared.call, partial.get(), used, partial.stride() / prepared.itemsize);
}

}  // namespace isotypic::cpu
