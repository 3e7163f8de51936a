// group_conv on a device: the convolution of csrc/ops/group_conv.hpp as one implicit GEMM; no array of taps ever reaches device memory.
//
//     V_{t,c}(rho)[r, k] = sum_h analysis[(rho, r, k), h] f[c, source(h)](stride x - padding + dilation tap_t(h))     in registers
//     OUT_o(rho)[r, j]   = sum_{t, c, k} V_{t,c}(rho)[r, k] W_{o,t,c}(rho)[j, k]                                      on tensor cores
//     out[o, h](x)       = bias[o] + sum_{rho, r, j} synthesis[(rho, r, j), h] OUT_o(rho)[r, j]                       in registers
//
// Every (rho, r, k) is a slot, |G| of them, and the products are sums over slots of matrix products of one shape, (positions, pairs (t, c))
// times (pairs, fields). So one kernel serves every group: tables say which slots make which, dealt to warps so that each has the same
// work, and only the transforms differ. p4, p4m, p6m, O and Oh take straight-line transforms (ops/group_conv_fourier.hpp) in regular fields; every
// other group, every lift and float64 the plan's matrices.
//
// Kernels in launch order, all on the caller's stream; nothing is allocated and nothing waited for:
//     forward, transpose   pack_weights (psi -> W, rounded, in the order of the mma fragments), convolve
//     weight               pack_weights (the offsets of the taps only), weight_gradient (partial sums), sum_splits (in a fixed order),
//                          unpack_weights (W -> psi)
// The adjoint in x is `convolve` on the second section of the tables, a gather (group_conv_tables.hpp). With a stride it reads zeros
// between the values of the gradient, and does the work of stride 1.
//
// convolve: a block owns 128 (p4), 64 (p4m, p6m) or 32 (O, Oh) positions and up to 32 (p4, p4m) or 16 fields, with all |G| slots.
//     registers   accumulators, 64 (p4, p4m), 48 (p6m, O) or 96 (Oh) a thread; the |G| values of a pair while they are transformed
//     shared      A [slot][position][32 bytes of pairs], twice; B [field / 8][(rho, j, k)][256 bytes], twice; the input with its halo
//                 for a chunk of fields. p4m 3x3, bfloat16, 32 fields: 49 + 16 + 28 KB, two blocks on a multiprocessor of an H200
//     a step      of 32 bytes of pairs gathers and transforms step i into one A and multiplies step i - 1 from the other; B comes
//                 asynchronously
// weight_gradient: a block owns up to 64 pairs (c, t) and 32 fields and runs through its share of the tiles of positions; both operands are
// transformed into shared memory. About 528 blocks, so that partial sums are few.
//
// Count for p4m 3x3 with C fields in and out: per output value 2 x 12 x 9 C / 8 = 27 C flops (144 C with the dense bank), one value read
// and one written. Batch 64 of 64x64, 32 fields (67 M values) on an H200 at 4.3 TB/s, 67 Tflop/s in float32 and 700 in bfloat16 would take
//                 memory             arithmetic         (dense bank)
//     bfloat16    268 MB,  62 us     58 Gflop,  83 us       440 us
//     float32     537 MB, 125 us     58 Gflop, 865 us       4.6 ms
// but the instructions of the transform decide: in bfloat16 a warp executes some 850 a step, 590 of them to gather and transform and 136 for
// the products. 74 k steps of 8 warps at 4 instructions a cycle and multiprocessor and 1.98 GHz (counted in sm_90a code):
//                 floor by instructions    expected
//     bfloat16    0.66 ms                  1.0 to 1.2 ms
//     TF32        0.92 ms                  1.2 to 1.5 ms
//     float32     1.81 ms                  2.3 to 2.6 ms
// Each block reads all of its B, 0.6 GB from L2.
//
// float16: an operand is a sum of up to |G| values, which may leave the range that the values and the result are in. All operands are
// multiplied by powers of two (Section::analysis_scale and the others) that take the largest sum back, and results divided by them in
// float32: no finite value overflows on the way, and numbers lose digits only within a factor |G| of the smallest normal one, 6e-5.
//
// Registers on sm_90a (ptxas 13.0), convolve / weight_gradient. No spills but for at most 24 bytes in float32 (p4, p4m, p6m) and 32 bytes
// in float64 (groups of order above 24); a test reads them from the build.
//                p4         p4m        p6m        O          Oh
//     bfloat16   120/126    122/128    114/122    122/128    245/254
//     TF32       120/126    121/123    112/122    128/118    239/232
//     float32    128/128    128/128    128/128    128/128    243/235
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
