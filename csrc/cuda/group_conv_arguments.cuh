// What the kernels of group_conv are told, and how they find their way in it.
#pragma once

#include "cuda/group_conv_policy.cuh"
#include "cuda/group_conv_tables.hpp"

namespace isotypic {
namespace cuda {

// ----------------------------------------------------------------------------------------------------------------

// A field (B, C, sources, s0, s1, s2) with strides in elements.
struct Field {
    void* data;
    int64_t batch, field, source, axis[3];
    int size[3];
};

constexpr int kRun = 4;  // neighbours on the last axis of a field that are copied at once

// Where a tile of positions reads. Position p of an axis reads at the coordinates stride p + low + tap_scale tap + tap_shift of the
// gathered field upsampled by `up` with zeros between (the adjoint of a stride); a tile of positions covers `extent` of them.
struct Geometry {
    int positions[3];  // of the whole result
    int tile_log2[3];  // positions of a tile
    int tiles[3];
    int stride[3], up[3], low[3], tap_scale[3], tap_shift[3], extent[3];
    int pixels;          // product of extent
    int tile_positions;  // product of the tile
    int channel_pitch;   // pixels between channels of a staged tile; a group channel takes `pixels`
    bool staged;         // a tile with its halo is copied to shared memory; otherwise taps are read from device memory
    // The rows of a tile begin and end at whole runs of kRun values of the field: each run lies inside of it or outside. `runs`: and all
    // strides are multiples of a run, so that runs are read by one load each.
    bool whole_runs, runs;
    unsigned channels_together;  // channels that the threads of a block copy at a time
    unsigned item_reciprocal;    // 2^20 / runs of a channel, rounded up: divides the index of a thread
};

struct Common {
    const char* tables;
    int section;
    int job_list;  // which of kSlotsPerWarp
    int slots, weight_slots, orbits, length, outputs, sources;
    int groups, in_fields, out_fields;  // fields: of one group
    int batch;
    int warps;  // that share the slots; the block has `warps * row_warps`
    int row_warps;
    int column_tiles;  // tiles of 8 columns of a block
    int column_blocks;
    int buffers;  // of operand A: with two, one step is transformed while the previous one is multiplied
    int offsets_in_shared;
    Geometry geometry;
    Field in;
    const void* offsets;  // staged: int (orbits, length) into the tile; otherwise int (orbits, length, 4)
    // Byte offsets into shared memory; A starts at 0.
    int shared_b, shared_jobs, shared_offsets, shared_positions, shared_pairs, shared_pixels, shared_tile;
};

struct Convolution : Common {
    Field out;
    bool out_pairs;  // two neighbours of the last axis lie in one aligned word, in every row of the result
    const void* bias;
    const char* weights;  // packed, see pack_weights
    int chunk;            // fields whose taps form a run of the inner index, a multiple of Configuration::kTogether
    int chunks, steps_of_chunk, steps;
    int a_other, b_bytes;                  // from one buffer of A to the other, or 0; of B in a step
    int64_t weights_step;                  // bytes of B that all column blocks have in a step
    int fetch_step;                        // bytes of B that the threads copy at once
    int next_row;                          // from one position that a thread transforms to the next
    uint64_t reciprocal, last_reciprocal;  // 2^32 / fields of a chunk and of the last, rounded up: exact while pairs x fields < 2^32
};

// Where a straight-line transform finds the taps of a (field, tap orbit) pair, in bytes: its channel of the tile, or -1 where there is no
// such pair, and its orbit's list of offsets.
struct alignas(8) Pair {
    int channel, list;
};

struct WeightGradient : Common {
    Field gradient;  // of the result
    void* partial;   // (splits, groups, weight_slots, rows, columns)
    int splits, row_blocks, rows, columns;
    int tile_fields;  // fields that a block's rows can touch
};

struct Packing {
    const char* tables;
    int section;
    const void* psi;
    char* weights;
    int* offsets;
    int groups, in_fields, out_fields;
    int64_t column_stride, inner_stride, group_stride;  // of psi, in elements
    int column_tiles, chunk, together, steps_of_chunk, steps;
    int64_t total;
    Geometry geometry;
};

struct Unpacking {
    const char* tables;
    const void* partial;
    void* blocks;
    void* psi;
    int splits, groups, weight_slots, rows, columns, in_fields, out_fields;
    int64_t total;
};

template <class Policy_, class Program_, int SlotsPerWarp, int RowTiles, int ColumnTiles, int MaxThreads, int MinBlocks>
struct Configuration {
    using Policy = Policy_;
    using Program = Program_;  // a straight-line transform, or Generic
    static constexpr int kSlots = SlotsPerWarp, kRowTiles = RowTiles, kColumnTiles = ColumnTiles, kMaxThreads = MaxThreads,
                         kMinBlocks = MinBlocks;
    static constexpr bool kStraightLine = Program::order > 0;
    static constexpr bool kPairs = kStraightLine;  // results may be written two neighbours at a time
    // Fields that lie side by side in a pixel of the convolution's tile: those of one word of A.
    static constexpr int kTogether = kStraightLine ? Policy::kPerWord : 1;
    // Rows of A from one slot to the next, where every launch has as many: the most that its warps share.
    static constexpr int kSlotRows = kStraightLine ? kMaxThreads / 32 * kSlots / (kStraightLine ? Program::order : 1) * kRowTiles * 16 : 0;

    static DEVICE int slot_bytes(int rows) { return (kStraightLine ? kSlotRows : rows) * kRowBytes; }
};

// Transforms by the matrices of the plan.
struct Generic {
    static constexpr int order = 0;
};

DEVICE const Section& section_of(const char* tables, int section) {
    return reinterpret_cast<const Section*>(tables)[section];
}

template <class T>
DEVICE const T* table(const char* tables, int64_t offset) {
    return reinterpret_cast<const T*>(tables + offset);
}

template <class T>
DEVICE const T* matrix(const char* tables, const int64_t (&offsets)[2]) {
    return reinterpret_cast<const T*>(tables + offsets[sizeof(T) == 8]);
}

}  // namespace cuda
}  // namespace isotypic
