// What passes between the driver (group_conv.cpp, compiled once) and the kernels (group_conv_kernel.cpp, compiled per instruction set):
// plain structs and raw pointers, so that no standard-library code is instantiated under an instruction set the machine may lack.
#pragma once

#include <cstdint>

#include "core/view.hpp"
#include "cpu/per_isa.hpp"
#include "ops/group_conv_fourier.hpp"

namespace isotypic::cpu {

// The straight-line transforms, numbered.
enum FourierIndex : int {
    kFourierGeneric = -1,
#define ISOTYPIC_ENUMERATOR(Program) kFourier##Program,
    ISOTYPIC_FOR_EACH_FOURIER(ISOTYPIC_ENUMERATOR)
#undef ISOTYPIC_ENUMERATOR
};

// Compressed sparse rows.
struct SparseMatrix {
    int rows;
    const int* row_begin;
    const int* column;
    const double* value;
};

struct KernelIrrep {
    int dim, rows;
    int inner;  // columns k of V per channel, summed over the orbits
};

struct KernelOrbit {
    int length, analysis_rows;
    const int* source;     // (length)
    const int* tap;        // (length, 3)
    const int* row_irrep;  // analysis rows (rho, r, k): rho
    const int* row_r;      //   r
    const int* row_k;      //   k, counted from the irrep's first column in the channel
    SparseMatrix analysis, adjoint;

    int weight_rows, weight_length;
    const int64_t* weight_index;  // (weight_length)
    const void* weight_matrix;    // (weight_rows, weight_length) in the compute type; a vector may be read at the last element
    const void* weight_columns;   // its transpose
    const int* weight_irrep;      // weight rows (rho, j, k)
    const int* weight_j;
    const int* weight_k;
};

// Values of one tile of positions in the Fourier domain: [irrep][row r][field, column k][positions of the tile].
struct Panel {
    int fields = 0;
    const int64_t* base = nullptr;  // (irreps): first element of an irrep's block
    const int* inner = nullptr;     // (irreps): columns per field
    int64_t size = 0;               // elements of a tile
};

// The matrix of one irrep, (rows, columns), in column blocks of `width`: [column block][row][width], the last block narrower.
struct PackedMatrix {
    int64_t base;  // first element
    int64_t rows, columns, width;
};

// A sample's channels copied into (channel, source, axis 0, axis 1, phase, position): the last axis is split into its `stride` phases, so
// that neighbouring output positions read neighbouring elements.
struct PaddedLayout {
    int64_t pitch0, pitch1, phase_pitch, plane;
};

struct GroupConvCall {
    int order, sources, rows, irrep_count, orbit_count, fourier;  // rows of synthesis: order, or more with three products; a FourierIndex
    const KernelIrrep* irreps;
    const KernelOrbit* orbits;
    SparseMatrix synthesis, synthesis_adjoint;  // rows h; rows (rho, r, j)
    const int* synthesis_irrep;                 // (rows): (rho, r, j)
    const int* synthesis_r;
    const int* synthesis_j;

    int64_t batch, groups, in_fields, out_fields;  // fields per channel group
    int64_t in_size[3], out_size[3], kernel[3], stride[3], padding[3], dilation[3];
    int64_t positions;
    bool column;  // kernel 1, stride 1 and no padding on (positions, 1, 1)
    int64_t weight_group_stride, weight_field_stride, weight_channel_stride;

    int64_t channel_block;  // input channels transformed before a product
    int64_t band_rows;      // output rows of axis 0 that share one padded copy
    PaddedLayout padded;
    Panel x_panel, y_panel;      // x_panel for channel_block channels
    const PackedMatrix* blocks;  // (irreps), matrix (channel, k) x (out field, j), or its transpose
    int64_t blocks_size;         // elements of all irreps, one channel group
    int64_t strip_tiles;         // tiles per step of the weight gradient

    View x, y, weight, bias;
    void* packed;       // (groups, blocks_size) in the compute type
    void* weight_sums;  // the weight gradient in the compute type, zeroed (the weight itself where the types agree)
};

// Sizes in elements of the compute type, except where noted.
struct Kernels {
    int lanes, tile, max_width, gradient_width;

    void (*pack)(const GroupConvCall&, int64_t group, int64_t outer, bool transposed);  // outer: out field, or channel where transposed
    int64_t (*forward_workspace)(const GroupConvCall&);
    void (*forward)(const GroupConvCall&, int64_t sample, int64_t group, int64_t band, void* workspace);
    int64_t (*transpose_workspace)(const GroupConvCall&);
    void (*transpose)(const GroupConvCall&, int64_t sample, int64_t group, int64_t block, void* workspace);
    int64_t (*weight_workspace)(const GroupConvCall&);
    void (*weight)(const GroupConvCall&, int64_t sample, int64_t group, int64_t band, void* sums, void* workspace);
    void (*unpack)(const GroupConvCall&, int64_t group, int64_t out_field);  // weight gradient from its blocks in `packed`
};

struct KernelSet {
    Kernels float32, float64;
};

ISOTYPIC_DECLARE_PER_ISA(const KernelSet& group_conv_kernels())

}  // namespace isotypic::cpu
