// The weight-space operators of csrc/ops/weight_linear.hpp on a device.
//
// Launches, all on the caller's stream; nothing is allocated and nothing waited for, and every sum has one order:
//     linear, transpose    pool_rows, multiply_nodes (all labels and the global vector at once), affine_tiles: three for a layer
//     gradient             pool_rows twice, outer_tiles (partial sums over runs of networks), sum_partials
//     pool, affine, basis_gradient, select     one each
//     mix_gradient, scatter                    two each
//
// pool_rows: a block owns one row of the pooled tensor of one network and 32 channels, one a lane; its four warps share the entries. Rows,
// columns and totals read x three times, the second and third time from L2, where a network of 152 kB is. multiply_nodes, affine_tiles,
// outer_tiles: tiles of 32 x 32 outputs, 256 threads of four outputs each, 32 inner indices at a time through 2 x 4.1 KB of shared memory;
// fused multiply-adds in float32, or float64. An output costs half a shared load a multiply-add (one broadcast and one value for four).
//
// Count for [2, 32, 32, 1], batch 64, 32 channels in and out: 246 Mflop and 19.4 MB at the least, 4.5 us on an H200 at 4.3 TB/s and 3.7 us
// at 67 Tflop/s in float32; three launches alone take about as long. Nothing here uses tensor cores.
// These figures are counted: nothing here has been measured on a device yet.
#include "cuda/weight_linear_kernels.cuh"

namespace isotypic {
namespace cuda {
namespace {

int64_t aligned(int64_t bytes) {
    return (bytes + 255) / 256 * 256;
}
int tiles_of(int64_t count) {
    return static_cast<int>((count + kSide - 1) / kSide);
}
int64_t blocks_of(int64_t threads) {
    return (threads + kThreads - 1) / kThreads;
}

template <class T, class Out>
void run_pool(const char* name, const WeightPlan& plan, const T* x, const T* basis, const int64_t* sizes, bool mean, Out* pooled,
              int64_t batch, int C, void* stream) {
    const int64_t blocks = batch * plan.rows * ((C + kLanesOfBlock - 1) / kLanesOfBlock);
    launch(name, pool_rows<T, Out>, blocks, kLanesOfBlock * kGroups, kLanesOfBlock * kGroups * sizeof(Compute<T>), stream, plan, x, basis,
           sizes, mean, pooled, C);
}

template <class T, class Terms>
void run_affine(const char* name, const WeightPlan& plan, const T* x, const T* mix, const Terms* terms, const T* basis,
                const int64_t* sizes, bool mean, bool transposed, T* y, int64_t batch, int C, int N, void* stream) {
    EntryTiles tiles{};
    for (int i = 0; i < plan.layers; ++i) {
        tiles.first[2 * i + 1] = tiles.first[2 * i] + tiles_of(static_cast<int64_t>(plan.layer[i].rows) * plan.layer[i].columns);
        tiles.first[2 * i + 2] = tiles.first[2 * i + 1] + tiles_of(plan.layer[i].rows);
    }
    const int64_t blocks = batch * tiles.first[2 * plan.layers] * tiles_of(N);
    launch(name, affine_tiles<T, Terms>, blocks, kThreads, 2 * kSide * kPitch * sizeof(Compute<T>), stream, plan, tiles, x, mix, terms,
           basis, sizes, mean, transposed, y, C, N);
}

void run_linear(const char* name, const WeightPlan& plan, const View& in, const View& weight, const View& bias, const View& project,
                const View& expand, const int64_t* sizes, bool pool_mean, bool affine_mean, bool transposed, const View& out,
                const WeightContext& context) {
    with_type(in.dtype, [&](auto zero) {
        using T = decltype(zero);
        using A = Compute<T>;
        const int64_t batch = in.sizes[0];
        const int C = static_cast<int>(in.sizes[2]), N = static_cast<int>(out.sizes[2]);
        A* pooled = static_cast<A*>(context.workspace);
        A* terms =
            reinterpret_cast<A*>(static_cast<char*>(context.workspace) + aligned(batch * plan.rows * C * static_cast<int64_t>(sizeof(A))));
        const T *x = static_cast<const T*>(in.data), *matrices = static_cast<const T*>(weight.data);
        run_pool<T, A>(name, plan, x, static_cast<const T*>(project.data), sizes, pool_mean, pooled, batch, C, context.stream);
        NodeTiles tiles{};
        for (int l = 0; l <= plan.node_count; ++l) {
            const int64_t slots = l < plan.node_count ? plan.nodes[l].slots : plan.global_slots,
                          width = l < plan.node_count ? plan.nodes[l].width : 1;
            tiles.first[l + 1] = tiles.first[l] + tiles_of(batch * width) * tiles_of(slots * N);
        }
        const int blocks = tiles.first[plan.node_count + 1];
        if (blocks > 0)
            launch(name, multiply_nodes<T>, static_cast<unsigned>(blocks), kThreads, 2 * kSide * kPitch * sizeof(A), context.stream, plan,
                   tiles, static_cast<const A*>(pooled), matrices, static_cast<const T*>(bias.data), transposed, terms, batch, C, N);
        run_affine<T, A>(name, plan, x, matrices, terms, static_cast<const T*>(expand.data), sizes, affine_mean, transposed,
                         static_cast<T*>(out.data), batch, C, N, context.stream);
    });
}

int runs_of(int64_t batch) {
    return static_cast<int>(batch < kSplits ? batch : kSplits);
}

// Of the mixed layers alone, or of all parameters.
void run_outer(const char* name, const WeightPlan& plan, const View& x, const View& y, const int64_t* sizes, bool mean, bool all,
               const View& out, const WeightContext& context) {
    with_type(x.dtype, [&](auto zero) {
        using T = decltype(zero);
        using A = Compute<T>;
        const int64_t batch = x.sizes[0];
        const int C = static_cast<int>(x.sizes[2]), N = static_cast<int>(y.sizes[2]), runs = runs_of(batch);
        const int64_t elements = static_cast<int64_t>(all ? plan.parameters() : plan.mixed) * C * N;
        char* free = static_cast<char*>(context.workspace);
        auto take = [&](int64_t count) {
            A* taken = reinterpret_cast<A*>(free);
            free += aligned(count * static_cast<int64_t>(sizeof(A)));
            return taken;
        };
        A* partial = take(elements * runs);
        A *pooled = nullptr, *summed = nullptr;
        const T *in = static_cast<const T*>(x.data), *gradient = static_cast<const T*>(y.data);
        if (all) {
            pooled = take(batch * plan.rows * C), summed = take(batch * plan.rows * N);
            run_pool<T, A>(name, plan, in, nullptr, sizes, mean, pooled, batch, C, context.stream);
            run_pool<T, A>(name, plan, gradient, nullptr, sizes, false, summed, batch, N, context.stream);
        }
        OuterTiles tiles{};
        const int parts = plan.mixed + (all ? plan.node_count + 1 : 0);
        for (int part = 0; part < parts; ++part) {
            const int label = part - plan.mixed;
            const int64_t slots = label < 0 ? 1 : label < plan.node_count ? plan.nodes[label].slots : plan.global_slots;
            tiles.first[part + 1] = tiles.first[part] + tiles_of(slots * C) * tiles_of(slots * N);
        }
        const int64_t blocks = static_cast<int64_t>(runs) * tiles.first[parts];
        if (blocks > 0)
            launch(name, outer_tiles<T>, static_cast<unsigned>(blocks), kThreads, 2 * kSide * kPitch * sizeof(A), context.stream, plan,
                   tiles, in, gradient, static_cast<const A*>(pooled), static_cast<const A*>(summed), sizes, partial, elements, batch, runs,
                   C, N);
        const unsigned sums = blocks_of(elements + (all ? static_cast<int64_t>(plan.global_slots) * N : 0));
        if (sums > 0)
            launch(name, sum_partials<T>, sums, kThreads, 0, context.stream, plan, static_cast<const A*>(partial), elements, runs,
                   static_cast<const A*>(summed), batch, N, static_cast<T*>(out.data));
    });
}

}  // namespace

int64_t weight_linear_workspace(const WeightPlan& plan, WeightPass pass, int64_t batch, int64_t in_channels, int64_t out_channels,
                                DType dtype) {
    const int64_t size = dtype == DType::float64 ? 8 : 4, rows = batch * plan.rows, matrix = in_channels * out_channels * runs_of(batch);
    const int64_t pooled = aligned(rows * in_channels * size) + aligned(rows * out_channels * size);
    switch (pass) {
        case WeightPass::linear:
            return pooled;
        case WeightPass::gradient:
            return pooled + aligned(plan.parameters() * matrix * size);
        case WeightPass::mix_gradient:
            return aligned(plan.mixed * matrix * size);
        case WeightPass::scatter:
            return aligned(rows * in_channels * static_cast<int64_t>(sizeof(int)));
    }
    return 0;
}

void weight_pool(const WeightPlan& plan, const View& x, const View& basis, const int64_t* sizes, bool mean, const View& pooled,
                 const WeightContext& context) {
    with_type(x.dtype, [&](auto zero) {
        using T = decltype(zero);
        run_pool<T, T>("weight_pool", plan, static_cast<const T*>(x.data), static_cast<const T*>(basis.data), sizes, mean,
                       static_cast<T*>(pooled.data), x.sizes[0], static_cast<int>(x.sizes[2]), context.stream);
    });
}

void weight_affine(const WeightPlan& plan, const View& x, const View& mix, const View& terms, const View& basis, const int64_t* sizes,
                   bool mean, const View& y, const WeightContext& context) {
    with_type(y.dtype, [&](auto zero) {
        using T = decltype(zero);
        const int C = x.defined() ? static_cast<int>(x.sizes[2]) : 0;
        run_affine<T, T>("weight_affine", plan, x.defined() ? static_cast<const T*>(x.data) : nullptr, static_cast<const T*>(mix.data),
                         static_cast<const T*>(terms.data), static_cast<const T*>(basis.data), sizes, mean, false, static_cast<T*>(y.data),
                         y.sizes[0], C, static_cast<int>(y.sizes[2]), context.stream);
    });
}

void weight_linear(const WeightPlan& plan, const View& x, const View& weight, const View& bias, const View& project, const View& expand,
                   const int64_t* sizes, bool mean, const View& y, const WeightContext& context) {
    run_linear("weight_linear", plan, x, weight, bias, project, expand, sizes, mean, false, false, y, context);
}

void weight_linear_transpose(const WeightPlan& plan, const View& y, const View& weight, const int64_t* sizes, bool mean, const View& x,
                             const WeightContext& context) {
    run_linear("weight_linear_transpose", plan, y, weight, View{}, View{}, View{}, sizes, false, mean, true, x, context);
}

void weight_linear_gradient(const WeightPlan& plan, const View& x, const View& y, const int64_t* sizes, bool mean, const View& gradient,
                            const WeightContext& context) {
    run_outer("weight_linear_gradient", plan, x, y, sizes, mean, true, gradient, context);
}

void weight_mix_gradient(const WeightPlan& plan, const View& x, const View& y, const int64_t* sizes, const View& mix,
                         const WeightContext& context) {
    run_outer("weight_mix_gradient", plan, x, y, sizes, false, false, mix, context);
}

void weight_basis_gradient(const WeightPlan& plan, const View& x, const View& terms, const int64_t* sizes, bool mean, const View& basis,
                           const WeightContext& context) {
    with_type(x.dtype, [&](auto zero) {
        using T = decltype(zero);
        launch("weight_basis_gradient", basis_sums<T>, static_cast<int64_t>(plan.rank) * plan.layer[0].columns, kThreads,
               kThreads * sizeof(Compute<T>), context.stream, plan, static_cast<const T*>(x.data), static_cast<const T*>(terms.data), sizes,
               mean, static_cast<T*>(basis.data), x.sizes[0], static_cast<int>(x.sizes[2]));
    });
}

void weight_select(const WeightPlan& plan, const View& values, const View& x, const int64_t* sizes, const View& pooled,
                   const WeightContext& context) {
    with_type(x.dtype, [&](auto zero) {
        using T = decltype(zero);
        const int64_t count = pooled.numel();
        launch("weight_select", locate<T>, blocks_of(count), kThreads, 0, context.stream, plan, static_cast<const T*>(values.data),
               static_cast<const T*>(x.data), sizes, static_cast<int*>(nullptr), static_cast<T*>(pooled.data), count,
               static_cast<int>(x.sizes[2]));
    });
}

void weight_scatter(const WeightPlan& plan, const View& pooled, const View& x, const int64_t* sizes, const View& values,
                    const WeightContext& context) {
    with_type(x.dtype, [&](auto zero) {
        using T = decltype(zero);
        const int C = static_cast<int>(x.sizes[2]);
        int* index = static_cast<int*>(context.workspace);
        launch("weight_scatter", locate<T>, blocks_of(pooled.numel()), kThreads, 0, context.stream, plan, static_cast<const T*>(nullptr),
               static_cast<const T*>(x.data), sizes, index, static_cast<T*>(nullptr), pooled.numel(), C);
        launch("weight_scatter", gather_maxima<T>, blocks_of(values.numel()), kThreads, 0, context.stream, plan,
               static_cast<const T*>(pooled.data), static_cast<const int*>(index), sizes, static_cast<T*>(values.data), values.numel(), C);
    });
}

}  // namespace cuda
}  // namespace isotypic
