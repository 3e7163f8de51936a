// group_conv on a device: the convolution of csrc/ops/group_conv.hpp as one implicit GEMM; no array of taps ever reaches device memory.
//
//     V_{t,c}(rho)[r, k] = sum_h analysis[(rho, r, k), h] f[c, source(h)](stride x - padding + dilation tap_t(h))     in registers
//     OUT_o(rho)[r, j]   = sum_{t, c, k} V_{t,c}(rho)[r, k] W_{o,t,c}(rho)[j, k]                                      on tensor cores
//     out[o, h](x)       = bias[o] + sum_{rho, r, j} synthesis[(rho, r, j), h] OUT_o(rho)[r, j]                       in registers
//
// Every (rho, r, k) is a slot, |G| of them, and the products are sums over slots of matrix products of one shape, (positions, pairs (t, c))
// times (pairs, fields). So one kernel serves every group: tables say which slots make which, dealt to warps so that each has the same
// work, and only the transforms differ. p4, p4m, p6m, O and Oh take straight-line transforms (ops/group_conv_fourier.hpp) in regular fields, on
// tiles that are staged in shared memory; every other group, every lift, float64 and tiles that find no room there the plan's matrices.
//
// Kernels in launch order, all on the caller's stream; nothing is allocated and nothing waited for:
//     forward, transpose   pack_weights (psi -> W, rounded, in the order of the mma fragments), convolve
//     weight               pack_weights (the offsets of the taps only), weight_gradient (partial sums), sum_splits (in a fixed order),
//                          unpack_weights (W -> psi)
// The adjoint in x is `convolve` on the second section of the tables, a gather (group_conv_tables.hpp). With a stride it reads zeros
// between the values of the gradient, and does the work of stride 1.
//
// convolve: a block owns 128 (p4), 64 (p4m, p6m) or 32 (O, Oh) positions and up to 32 (p4, p4m) or 16 fields, with all |G| slots.
//     registers   accumulators, 64 (p4, p4m), 48 (p6m, O) or 96 (Oh) a thread; the |G| values of a pair while they are transformed; where a
//                 thread reads and writes in every step, which the compiler would compute anew in each (keep)
//     shared      A [slot][position][32 bytes of pairs], twice; B [field / 8][(rho, j, k)][256 bytes], twice; the input with its halo
//                 for a chunk of fields; where each pair, each position and each tap lies in it. In 16 bits two fields lie side by side, so that
//                 one load brings both values of a word. p4m 3x3, bfloat16, 32 fields: 49 + 16 + 36 KB and 3 of tables, two blocks on a
//                 multiprocessor of an H200
//     a step      of 32 bytes of pairs gathers and transforms step i into one A and multiplies step i - 1 from the other; B comes
//                 asynchronously
// Where the last axis is a multiple of four values, the rows of a tile begin and end at a multiple of four, and are copied four values at a
// time (stage_runs): in 16 bits eight loads in flight, in 32 bits asynchronously. Results leave as pairs of neighbours where these lie in
// one word. Both are chosen by sizes and alignment; sums are the same either way.
// weight_gradient: a block owns up to 64 pairs (c, t) and 32 fields and runs through its share of the tiles of positions; both operands are
// transformed into shared memory. About 528 blocks, so that partial sums are few.
//
// Count for p4m 3x3 with C fields in and out: per output value 2 x 12 x 9 C / 8 = 27 C flops (144 C with the dense bank), one value read
// and one written. Batch 64 of 64x64, 32 fields (67 M values) on an H200 at 4.3 TB/s, 67 Tflop/s in float32 and 700 in bfloat16 would take
//                 memory             arithmetic         (dense bank)
//     bfloat16    268 MB,  62 us     58 Gflop,  83 us       440 us
//     float32     537 MB, 125 us     58 Gflop, 865 us       4.6 ms
// but instructions decide. A warp executes a step (tools/count_sass.py, sm_90a), and besides, divided by its steps, what a tile of positions
// takes to be staged, begun and finished; at 4 instructions a cycle and multiprocessor and 1.98 GHz that is a floor:
//                 gather and transform    products    rest    staging and ends    steps of 8 warps    floor      expected
//     bfloat16    2 x 107                 3 x 25      111     122                 74 k                0.29 ms    0.4 to 0.55 ms
//     TF32        2 x 79                  3 x 25      111      67                 147 k               0.46 ms    0.6 to 0.8 ms
//     float32     2 x 54                  3 x 305     113      67                 147 k               1.36 ms    1.7 to 2.0 ms
// cuDNN on the expanded bank: 0.44 to 0.56, 0.8 to 1.0 and 5.6 to 6.9 ms (estimates), 1.5 to 1.9, 1.7 to 2.1 and 4.1 to 5.1 times these floors.
// Oh 3x3x3 in float32, 16 fields: 375 + 16 x 158 + 145 + 120 instructions a warp and step of 32 positions, 65 % of them products. The dense bank
// has 18 times the products, so that a dense kernel at 67 to 82 % of the peak, as cuDNN's is taken to be above, is 13 times the floor or more.
//
// What the count says of what is not done:
//     the transform on tensor cores   81 instructions for 214 in bfloat16, but its fragments gather from 32 scattered places: at three
//                                     wavefronts a load, with the 48 of the products, shared memory would be busy for some 120 cycles a
//                                     step; the 522 instructions of now take 130, and their wavefronts 85. Less than a tenth, if all else were free
//     64 columns a block              nothing for 32 fields. From 64 on the transform, staging and 60 of the rest are shared by twice the products:
//                                     650 instructions for 2 x 522, at 128 accumulators a thread, so with one block of 8 warps on a multiprocessor
//     float32 B by 16 bytes           16 loads less of 305 instructions a product: 4 % of a step
//     staging one chunk ahead         no instruction less: it hides the latency of four round trips a tile, which the second block on the
//                                     multiprocessor hides too, and takes another 36 KB, which that second block needs
// In bfloat16 40 of the 107 are additions, 16 widen, 8 round, and 19 are loads and stores of shared memory.
// Each block reads all of its B, 0.6 GB from L2.
//
// float16: an operand is a sum of up to |G| values, which may leave the range that the values and the result are in. All operands are
// multiplied by powers of two (Section::analysis_scale and the others) that take the largest sum back, and results divided by them in
// float32: no finite value overflows on the way, and numbers lose digits only within a factor |G| of the smallest normal one, 6e-5.
//
// Registers on sm_90a (ptxas 13.0): at most 128, so that two blocks of 256 threads fit, and 255 for Oh; stack and spills at most 24 bytes.
// tests/test_count_sass.py reads them from the build.
// These figures are counted and compiled: nothing here has been measured on a device yet.
#include "cuda/group_conv_launch.cuh"

namespace isotypic {
namespace cuda {
namespace {

template <class Visit>
void with_policy(DType dtype, bool allow_tf32, const Visit& visit) {
    switch (dtype) {
        case DType::float32:
            return allow_tf32 ? visit(TensorFloat32{}) : visit(Float32{});
        case DType::float64:
            return visit(Float64{});
        case DType::bfloat16:
            return visit(BFloat16{});
        case DType::float16:
            return visit(Float16{});
    }
}

}  // namespace

int64_t group_conv_workspace(const GroupConvPlan& plan, const GroupConvSizes& sizes, DType dtype, Pass pass) {
    int64_t bytes = 0;
    with_policy(dtype, false, [&](auto policy) { bytes = workspace_bytes<decltype(policy)>(plan, sizes, pass); });
    return bytes;
}

void group_conv(const GroupConvPlan& plan, const GroupConvSizes& sizes, const View& x, const View& weight, const View& bias, const View& y,
                const Context& context) {
    with_policy(x.dtype, context.allow_tf32,
                [&](auto policy) { run_convolution<decltype(policy)>(plan, sizes, false, x, weight, bias, y, context, "group_conv"); });
}

void group_conv_transpose(const GroupConvPlan& plan, const GroupConvSizes& sizes, const View& y, const View& weight, const View& x,
                          const Context& context) {
    with_policy(y.dtype, context.allow_tf32, [&](auto policy) {
        run_convolution<decltype(policy)>(plan, sizes, true, y, weight, View{}, x, context, "group_conv_transpose");
    });
}

void group_conv_weight(const GroupConvPlan& plan, const GroupConvSizes& sizes, const View& x, const View& y, const View& weight,
                       const Context& context) {
    with_policy(x.dtype, context.allow_tf32,
                [&](auto policy) { run_weight_gradient<decltype(policy)>(plan, sizes, x, y, weight, context, "group_conv_weight"); });
}

}  // namespace cuda
}  // namespace isotypic
