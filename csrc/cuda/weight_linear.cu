// The weight-space operators of csrc/ops/weight_linear.hpp on a device.
//
// Launches, all on the caller's stream; nothing is allocated and nothing waited for, and every sum has one order, whatever the device:
//     linear, transpose    pool_matrices, multiply_nodes (all labels and the global vector at once), affine_tiles: three for a layer
//     gradient             pool_matrices twice, outer_tiles (partial sums over runs of positions), sum_partials
//     pool, affine, basis_gradient, select     one each
//     mix_gradient, scatter                    two each
//
// pool_matrices    a block owns a matrix of a network and 32 channels and reads it once (weight_linear_pool.cuh).
// multiply_nodes, affine_tiles    128 x 32 outputs to a block, 4 x 4 to a thread in registers; 32 inner indices at a time through shared
//                  memory, 21.5 KB in float32 and 42 KB in float64, k outside, so that operands are read 16 bytes at a time: 2 loads for 16
//                  multiply-adds (weight_linear_product.cuh). Where a channel count is a multiple of 4, terms are read and outputs written
//                  16 bytes at a time.
// outer_tiles      32 x 32 outputs to a block and a run of positions, which are those of all networks one after the other; 64 positions
//                  at a time, a quarter of them for each 64 threads. Up to 512 blocks a matrix of parameters, so that a small matrix fills
//                  the device too; their tiles lie in the workspace, 4 KB (8 KB in float64) a block. The bias is a row of ones.
//
// Count for [2, 32, 32, 1], batch 512, 32 channels in and out in float32, where x has 78 MB, on an H200 at 4.3 TB/s, 67 Tflop/s and about
// 900 G instructions of a warp a second; "expected" adds what instructions and the wait for loads cost:
//                          bytes                       flops              floor     expected
//     pool_matrices        78 MB + 13 MB               20 M               21 us     30 us
//     multiply_nodes       13 MB + 13 MB               640 M              10 us     25 us    shared memory
//     affine_tiles         78 MB + 13 MB + 78 MB       1.07 G             39 us     55 us    34 us of instructions
//     outer_tiles          134 MB + 26 MB              1.7 G              37 us     60 us
//     sum_partials         7 MB                                           2 us      8 us     latency of 64 loads in eights
// A layer must move 156 MB, 36 us; its gradient in the parameters the same. Nothing here uses tensor cores.
// Registers on sm_90a (ptxas 13.0), float32 / bfloat16 / float64: pool_matrices 64/64/100, multiply_nodes 68/68/106, affine_tiles
// 76/80/118, outer_tiles 80/80/124, sum_partials 28/28/32. No spills but for 4 bytes of outer_tiles in the types of 16 bits.
// These figures are counted: nothing here has been measured on a device yet.
#include <algorithm>

#include "cuda/weight_linear_kernels.cuh"
#include "cuda/weight_linear_pool.cuh"
#include "cuda/weight_linear_rows.cuh"

namespace isotypic {
namespace cuda {
namespace {

int64_t aligned(int64_t bytes) {
    return (bytes + 255) / 256 * 256;
}
int64_t blocks_of(int64_t threads) {
    return (threads + kThreads - 1) / kThreads;
}

template <class T, class Out>
void run_pool(const char* name, const WeightPlan& plan, const T* x, const T* basis, const int64_t* sizes, bool mean, Out* pooled,
              int64_t batch, int C, void* stream) {
    const int lanes_log2 = line_log2(C), lanes = 1 << lanes_log2, row_bytes = lanes * static_cast<int>(sizeof(Compute<T>));
    PoolParts parts{};
    int rows = 0;
    for (int i = 0; i < 2 * plan.layers; ++i) {
        const PooledMatrix m = pooled_matrix(plan, i);
        parts.first[i + 1] = parts.first[i] + pool_parts(m, row_bytes);
        rows = std::max(rows, rows_kept(m, row_bytes));
    }
    const int64_t blocks = batch * parts.first[2 * plan.layers] * parts_of(C, lanes);
    launch(name, pool_matrices<T, Out>, blocks, kThreads, pool_bytes<Compute<T>>(rows, row_bytes), stream, plan, parts, x, basis, sizes,
           mean, pooled, C, lanes_log2);
}

template <class T, class Terms>
void run_affine(const char* name, const WeightPlan& plan, const T* x, const T* mix, const Terms* terms, const T* basis,
                const int64_t* sizes, bool mean, bool transposed, T* y, int64_t batch, int C, int N, void* stream) {
    EntryTiles tiles{};
    for (int i = 0; i < plan.layers; ++i)
        tiles.first[i + 1] = tiles.first[i] + parts_of(plan.layer[i].rows * (plan.layer[i].columns + 1), kTileRows);
    launch(name, affine_tiles<T, Terms>, batch * tiles.first[plan.layers] * parts_of(N, kSide), kThreads, tile_bytes<Compute<T>>(), stream,
           plan, tiles, x, mix, terms, basis, sizes, mean, transposed, y, C, N);
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
            const int slots = l < plan.node_count ? plan.nodes[l].slots : plan.global_slots,
                      width = l < plan.node_count ? plan.nodes[l].width : 1;
            tiles.first[l + 1] = tiles.first[l] + (batch * width + kTileRows - 1) / kTileRows * parts_of(slots * N, kSide);
        }
        launch(name, multiply_nodes<T>, tiles.first[plan.node_count + 1], kThreads, tile_bytes<A>() + kTileRows * sizeof(int64_t),
               context.stream, plan, tiles, static_cast<const A*>(pooled), matrices, static_cast<const T*>(bias.data), transposed, terms,
               batch, C, N);
        run_affine<T, A>(name, plan, x, matrices, terms, static_cast<const T*>(expand.data), sizes, affine_mean, transposed,
                         static_cast<T*>(out.data), batch, C, N, context.stream);
    });
}

// As many runs over the positions of all networks as make kOuterBlocks blocks of a matrix, none shorter than kLeastPositions.
OuterTiles outer_tiles_of(const WeightPlan& plan, int64_t batch, int C, int N, bool all) {
    OuterTiles tiles{};
    tiles.parts = plan.mixed + (all ? plan.node_count + 1 : 0);
    for (int part = 0; part < tiles.parts; ++part) {
        const OuterMatrix m = outer_matrix(plan, part, C, N);
        const int64_t most = (batch * m.positions + kLeastPositions - 1) / kLeastPositions;
        const int runs = static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(most, kOuterBlocks / std::max(m.tiles, 1))));
        tiles.first[part + 1] = tiles.first[part] + m.tiles * runs;
    }
    return tiles;
}

// Of the mixed layers alone, or of all parameters.
void run_outer(const char* name, const WeightPlan& plan, const View& x, const View& y, const int64_t* sizes, bool mean, bool all,
               const View& out, const WeightContext& context) {
    with_type(x.dtype, [&](auto zero) {
        using T = decltype(zero);
        using A = Compute<T>;
        const int64_t batch = x.sizes[0];
        const int C = static_cast<int>(x.sizes[2]), N = static_cast<int>(y.sizes[2]);
        const OuterTiles tiles = outer_tiles_of(plan, batch, C, N, all);
        char* free = static_cast<char*>(context.workspace);
        auto take = [&](int64_t count) {
            A* taken = reinterpret_cast<A*>(free);
            free += aligned(count * static_cast<int64_t>(sizeof(A)));
            return taken;
        };
        A* partial = take(int64_t{tiles.first[tiles.parts]} * kSide * kSide);
        A *pooled = nullptr, *summed = nullptr;
        const T *in = static_cast<const T*>(x.data), *gradient = static_cast<const T*>(y.data);
        if (all) {
            pooled = take(batch * plan.rows * C), summed = take(batch * plan.rows * N);
            run_pool<T, A>(name, plan, in, nullptr, sizes, mean, pooled, batch, C, context.stream);
            run_pool<T, A>(name, plan, gradient, nullptr, sizes, false, summed, batch, N, context.stream);
        }
        int64_t sums = 0;
        for (int part = 0; part < tiles.parts; ++part) sums += outer_matrix(plan, part, C, N).tiles;
        launch(name, outer_tiles<T>, tiles.first[tiles.parts], kThreads, outer_bytes<A>(), context.stream, plan, tiles, in, gradient,
               static_cast<const A*>(pooled), static_cast<const A*>(summed), sizes, partial, batch, C, N);
        launch(name, sum_partials<T>, sums * kSide, kThreads, kThreads * sizeof(A), context.stream, plan, tiles,
               static_cast<const A*>(partial), C, N, static_cast<T*>(out.data));
    });
}

}  // namespace

int64_t weight_linear_workspace(const WeightPlan& plan, WeightPass pass, int64_t batch, int64_t in_channels, int64_t out_channels,
                                DType dtype) {
    const int64_t size = dtype == DType::float64 ? 8 : 4, rows = batch * plan.rows;
    const int C = static_cast<int>(in_channels), N = static_cast<int>(out_channels);
    const int64_t pooled = aligned(rows * in_channels * size) + aligned(rows * out_channels * size);
    const auto partial = [&](bool all) {
        const OuterTiles tiles = outer_tiles_of(plan, batch, C, N, all);
        return aligned(int64_t{tiles.first[tiles.parts]} * kSide * kSide * size);
    };
    switch (pass) {
        case WeightPass::linear:
            return pooled;
        case WeightPass::gradient:
            return pooled + partial(true);
        case WeightPass::mix_gradient:
            return partial(false);
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
