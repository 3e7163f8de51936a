// group_conv: convolution from a field into a regular field of a finite group G, computed irrep by irrep.
//
// The input is a regular field f (B, C, |G|, *spatial), or a scalar field f (B, C, *spatial) for the lifting convolution.
// The taps of the kernel fall into orbits. An orbit with representative t and stabiliser H (H is trivial in a regular field)
// reads `length` = |G/H| values around an output position x, one for each coset h,
//
//     v_{t,c}(h) = f[c, source(h)](stride x - padding + dilation tap(h)),          tap(h) = h t as an index into the kernel box
//
// and is transformed by the orbit's `analysis` matrix into the blocks V_{t,c}(rho) of the irreps. The weight psi goes the same way,
//
//     W_{o,t,c}(rho)[j, k] = sum_u weight_matrix[(rho, j, k), u] psi[o, c].flat[weight_index(u)]
//
// so that the convolution is one matrix product for each irrep, followed by the inverse transform (`synthesis`, transposed):
//
//     OUT_o(rho)[r, j] = sum_{t, c, k} V_{t,c}(rho)[r, k] W_{o,t,c}(rho)[j, k]
//     out[o, h](x)     = bias[o] + sum_{rho, r, j} synthesis[(rho, r, j), h] OUT_o(rho)[r, j]
//
// An irrep of real dimension d and real, complex or quaternionic type (m = 1, 2, 4) keeps only r < d / m: the other rows repeat these.
// k runs over the q(t, rho) <= d columns that the stabiliser leaves (all d of them when H is trivial). All scale factors are in
// weight_matrix. In a regular field every orbit has analysis = synthesis = F, the orthogonality relations making F^T diag F = 1.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/kept.hpp"
#include "core/view.hpp"

namespace isotypic {

struct IrrepBlock {
    int dim;   // d, the real dimension: columns j of OUT
    int rows;  // d / m, the rows r of OUT that are kept
};

// Compressed sparse rows.
struct SparseRows {
    std::vector<int> row_begin, column;
    std::vector<double> value;
};

// A matrix in both compute types, with room for a vector to be read at its last element.
struct Rounded {
    std::vector<double> wide;
    std::vector<float> single;
};

struct TapOrbit {
    int length = 0;                      // values read per channel, |G/H|
    std::vector<int> source;             // (length): group channel of the input
    std::vector<int> tap;                // (length, 3): index into the kernel box; (row, 0, column) in 2-D
    std::vector<int> inner;              // (irreps): q, the columns k of V that are kept
    std::vector<double> analysis;        // (analysis_rows, length), rows ordered (rho, r, k)
    std::vector<int64_t> weight_index;   // (weight_length): flat index into psi[o, c]
    std::vector<double> weight_matrix;   // (weight_rows, weight_length), rows ordered (rho, j, k)
    std::vector<int64_t> adjoint_index;  // (weight_length): where psi~[c, o, u](u t) = psi[o, c, u^-1](-t) lies; empty in a lift

    // Derived by finalize().
    int analysis_rows = 0;                              // sum over rho of rows * q
    int weight_rows = 0;                                // sum over rho of dim * q
    std::vector<int> row_irrep, row_r, row_k;           // analysis rows (rho, r, k); k counts from the irrep's first column in the channel
    std::vector<int> weight_irrep, weight_j, weight_k;  // weight rows (rho, j, k), k likewise
    Rounded weight_rounded, weight_columns;             // weight_matrix as the kernels read it, and transposed
    SparseRows sparse_analysis, sparse_adjoint;
};

// Everything that depends on the group, the field type and the kernel box, and not on the size of the tensors.
struct GroupConvPlan {
    std::string fourier;      // name of the straight-line transform in ops/group_conv_fourier.hpp, or "" for the generic one
    int order = 0;            // |G|
    int sources = 0;          // group channels of the input: |G| (regular) or 1 (lift)
    int64_t weight_size = 0;  // elements of psi[o, c]
    std::vector<IrrepBlock> irreps;
    std::vector<double> synthesis;  // (order, order), rows ordered (rho, r, j), columns h
    std::vector<TapOrbit> orbits;

    // Derived by finalize().
    std::vector<int> row_irrep, row_r, row_j;  // rows of synthesis (rho, r, j)
    int last_tap[3] = {};                      // the largest index into the kernel box on each axis
    SparseRows sparse_synthesis, sparse_synthesis_adjoint;

    // The same convolution with every irrep of complex type and real dimension 2 as three real products (Karatsuba), where that is worth it
    // (p3, p4, p6, C4), else null: x rows (a, b) -> (a, b, a + b), weight rows (c, d) -> (c, d, c - d), and with m1 = a c, m2 = b d,
    // m3 = (a + b)(c - d) the y rows are (m1 + m2, m3 - m1 + m2). Five multiplications for p4 instead of six. Used by the CPU kernels.
    std::shared_ptr<const GroupConvPlan> three_products;

    std::shared_ptr<const int> identity;  // of this plan, as long as anyone holds it

    void finalize();  // checks that the arrays fit together (std::invalid_argument) and derives the rest

  private:
    void derive(int rows);  // rows of synthesis
};

namespace cpu {
struct PreparedGroupConv;
struct TransformedWeight;
// What a repeated call need not derive again, for each kind of pass.
struct GroupConvPrepared {
    Kept<PreparedGroupConv> forward, adjoint, transpose, weight;
};
}  // namespace cpu

// Sizes of one call. Spatial arrays have three entries; a 2-D problem is (H, 1, W): axis 1 has size 1, stride 1, padding 0.
struct GroupConvSizes {
    int64_t batch = 0;
    int64_t in_fields = 0, out_fields = 0;  // totals over all `groups`
    int64_t groups = 1;                     // channel groups (depthwise: groups = in_fields)
    int64_t in_size[3] = {}, out_size[3] = {};
    int64_t kernel[3] = {}, stride[3] = {}, padding[3] = {}, dilation[3] = {};
    // Whoever holds sizes from call to call, holds what the CPU driver derived from them.
    std::shared_ptr<cpu::GroupConvPrepared> prepared = std::make_shared<cpu::GroupConvPrepared>();
};

// Layouts: x (B, C, sources, s0, s1, s2), y (B, O, |G|, s0, s1, s2), read with any strides (the CPU kernels: x; y contiguous) and with
// dtype float32, float64, bfloat16 or float16; weight (O, C / groups, weight_size) contiguous; bias (O) contiguous or undefined.
// Accumulation is in float32 (float64 for float64). Outputs are contiguous and fully overwritten.
namespace cpu {

// The blocks W of a weight, kept from call to call by a caller whose weight seldom changes. The weight they were made of is kept beside
// them and compared, so that they are right however it was changed; fields, dtype and instruction set are compared too.
using GroupConvBlocks = Kept<TransformedWeight>;

// y = correlation of x with weight, plus bias. `kept`, if not null, saves the transform of a weight that is still the same.
void group_conv(const GroupConvPlan& plan, const GroupConvSizes& sizes, const View& x, const View& weight, const View& bias, const View& y,
                GroupConvBlocks* kept = nullptr);

// x = adjoint of the map x -> y above, applied to y: the data gradient, and the transposed convolution.
void group_conv_transpose(const GroupConvPlan& plan, const GroupConvSizes& sizes, const View& y, const View& weight, const View& x);

// weight = adjoint of the map weight -> y, applied to y: the weight gradient.
void group_conv_weight(const GroupConvPlan& plan, const GroupConvSizes& sizes, const View& x, const View& y, const View& weight);

}  // namespace cpu

// The same three on the current device, queued on the caller's stream and not waited for; all results are deterministic. std::runtime_error
// when a launch fails, when the workspace is too small, or when the group is too large for the device's shared memory.
namespace cuda {

enum class Pass { forward, transpose, weight };

// What a call needs on the device beside its tensors; both buffers are aligned to 256 bytes.
struct Context {
    const void* tables = nullptr;  // plan_tables(plan), uploaded once for each device by the caller
    void* workspace = nullptr;     // scratch of at least group_conv_workspace(...) bytes
    int64_t workspace_bytes = 0;
    void* stream = nullptr;   // cudaStream_t
    bool allow_tf32 = false;  // products of float32 tensors may be TF32
};

std::vector<std::byte> plan_tables(const GroupConvPlan& plan);

int64_t group_conv_workspace(const GroupConvPlan& plan, const GroupConvSizes& sizes, DType dtype, Pass pass);

void group_conv(const GroupConvPlan& plan, const GroupConvSizes& sizes, const View& x, const View& weight, const View& bias, const View& y,
                const Context& context);

void group_conv_transpose(const GroupConvPlan& plan, const GroupConvSizes& sizes, const View& y, const View& weight, const View& x,
                          const Context& context);

void group_conv_weight(const GroupConvPlan& plan, const GroupConvSizes& sizes, const View& x, const View& y, const View& weight,
                       const Context& context);

}  // namespace cuda

}  // namespace isotypic
