// The kernels of group_conv: one that serves the forward convolution and its adjoint in x, one for the weight gradient, and three small
// ones that take psi to blocks, sum partial results, and take blocks back to psi. See group_conv.cu for how they fit together.
#pragma once

#include "core/fourier.hpp"
#include "cuda/group_conv_tables.hpp"
#include "cuda/policy.cuh"

namespace isotypic {
namespace cuda {

// ---- what the kernels are told
// ----------------------------------------------------------------------------------------------------------------

// A field (B, C, sources, s0, s1, s2) with strides in elements.
struct Field {
    void* data;
    int64_t batch, field, source, axis[3];
    int size[3];
};

// Where a tile of positions reads. Position p of an axis reads at the coordinates stride p + low + tap_scale tap + tap_shift of the
// gathered field upsampled by `up` with zeros between (the adjoint of a stride); a tile of positions covers `extent` of them.
struct Geometry {
    int positions[3];  // of the whole result
    int tile_log2[3];  // positions of a tile
    int tiles[3];
    int stride[3], up[3], low[3], tap_scale[3], tap_shift[3], extent[3];
    int pixels;          // product of extent
    int tile_positions;  // product of the tile
    int channel_pitch;   // elements between channels of a staged tile; a group channel takes `pixels`
    bool staged;         // a tile with its halo is copied to shared memory; otherwise taps are read from device memory
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
    const void* offsets;                                    // staged: int (orbits, length) into the tile; otherwise int (orbits, length, 4)
    int shared_b, shared_jobs, shared_pixels, shared_tile;  // byte offsets into shared memory; A starts at 0
};

struct Convolution : Common {
    Field out;
    const void* bias;
    const char* weights;  // packed, see pack_weights
    int chunk;            // fields whose taps form a run of the inner index
    int chunks, steps_of_chunk, steps;
    uint64_t reciprocal, last_reciprocal;  // 2^32 / fields of a chunk and of the last, rounded up: exact while pairs x fields < 2^32
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
    int column_tiles, chunk, chunks, steps_of_chunk, steps;
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

// ---- reading a field at the taps of an orbit
// ---------------------------------------------------------------------------------------------------

constexpr int64_t kOutside = INT64_MIN;

// First position of a tile along each axis.
struct Origin {
    int batch;
    int position[3];
};

DEVICE Origin tile_origin(const Geometry& geometry, unsigned tile) {
    Origin origin;
    const unsigned t2 = tile % geometry.tiles[2], t1 = tile / geometry.tiles[2] % geometry.tiles[1],
                   rest = tile / geometry.tiles[2] / geometry.tiles[1];
    origin.position[2] = static_cast<int>(t2) << geometry.tile_log2[2];
    origin.position[1] = static_cast<int>(t1) << geometry.tile_log2[1];
    origin.position[0] = static_cast<int>(rest % geometry.tiles[0]) << geometry.tile_log2[0];
    origin.batch = static_cast<int>(rest / geometry.tiles[0]);
    return origin;
}

// Position p of a tile along an axis, from its start.
DEVICE int position_in_tile(const Geometry& geometry, int p, int axis) {
    const int below = axis == 2 ? 0 : axis == 1 ? geometry.tile_log2[2] : geometry.tile_log2[2] + geometry.tile_log2[1];
    return (p >> below) & ((1 << geometry.tile_log2[axis]) - 1);
}

DEVICE bool position_exists(const Geometry& geometry, const Origin& origin, int p) {
    bool exists = true;
#pragma unroll
    for (int i = 0; i < 3; ++i) exists = exists && origin.position[i] + position_in_tile(geometry, p, i) < geometry.positions[i];
    return exists;
}

// Element offset of an upsampled coordinate of the gathered field from its batch entry, or kOutside.
DEVICE int64_t element_offset(const Geometry& geometry, const Field& field, const int (&coordinate)[3]) {
    int64_t offset = 0;
    bool inside = true;
#pragma unroll
    for (int i = 0; i < 3; ++i) {
        int index = coordinate[i];
        inside = inside && index >= 0;
        if (geometry.up[i] > 1) {
            inside = inside && index % geometry.up[i] == 0;
            index /= geometry.up[i];
        }
        inside = inside && index < field.size[i];
        offset += index * field.axis[i];
    }
    return inside ? offset : kOutside;
}

// Offsets of the pixels of a tile, the same for every channel.
DEVICE void fill_pixel_offsets(const Geometry& geometry, const Field& field, const Origin& origin, int64_t* offsets) {
    for (int pixel = thread_index(); pixel < geometry.pixels; pixel += thread_count()) {
        const int e2 = geometry.extent[2], e1 = geometry.extent[1];
        const int within[3] = {pixel / e2 / e1, pixel / e2 % e1, pixel % e2};
        int coordinate[3];
#pragma unroll
        for (int i = 0; i < 3; ++i) coordinate[i] = origin.position[i] * geometry.stride[i] + geometry.low[i] + within[i];
        offsets[pixel] = element_offset(geometry, field, coordinate);
    }
}

// Copies `fields` fields with their halo to [field][source][pixel], zeros outside; a warp takes a channel. Asynchronous for 4 and 8 byte
// elements.
template <class T>
DEVICE void stage_tile(const Common& p, const Origin& origin, int first_field, int fields, const int64_t* pixel_offsets, T* tile) {
    const T* source = static_cast<const T*>(p.in.data) + origin.batch * p.in.batch + first_field * p.in.field;
    const int warp = thread_index() / 32, lane = thread_index() % 32, warps = thread_count() / 32;
    for (int row = warp; row < fields * p.sources; row += warps) {
        const int field = row / p.sources, group_channel = row % p.sources;
        const T* from = source + field * p.in.field + group_channel * p.in.source;
        T* to = tile + field * p.geometry.channel_pitch + group_channel * p.geometry.pixels;
#pragma unroll 4
        for (int pixel = lane; pixel < p.geometry.pixels; pixel += 32) {
            const int64_t offset = pixel_offsets[pixel];
            if constexpr (sizeof(T) >= 4)
                copy_async<sizeof(T)>(to + pixel, offset == kOutside ? from : from + offset, offset != kOutside);
            else
                to[pixel] = offset == kOutside ? T{} : from[offset];
        }
    }
}

// The values one position reads at the taps of one orbit, for one field.
template <class Policy>
struct Reader {
    using Storage = typename Policy::Storage;
    using Accumulator = typename Policy::Accumulator;
    const Common& p;
    const Storage* tile;      // staged: at the position's pixel, in the field's channel
    const int* tile_offsets;  // staged: of the orbit
    const Storage* field;     // otherwise: the field in device memory
    int coordinate[3];
    const int* tap_coordinates;

    DEVICE Accumulator staged(int h) const { return widen(tile[tile_offsets[h]]); }

    // Offsets four at a time: each orbit's list starts at a multiple of 16 bytes.
    template <int Order>
    DEVICE void staged_all(Accumulator (&v)[Order]) const {
        static_assert(Order % 4 == 0);
        struct alignas(16) Four {
            int offset[4];
        };
#pragma unroll
        for (int h = 0; h < Order; h += 4) {
            const Four four = *reinterpret_cast<const Four*>(tile_offsets + h);
#pragma unroll
            for (int i = 0; i < 4; ++i) v[h + i] = widen(tile[four.offset[i]]);
        }
    }

    DEVICE Accumulator direct(int h) const {
        const int* tap = tap_coordinates + 4 * h;
        const int at[3] = {coordinate[0] + tap[0], coordinate[1] + tap[1], coordinate[2] + tap[2]};
        const int64_t offset = element_offset(p.geometry, p.in, at);
        return offset == kOutside ? Accumulator(0) : widen(field[tap[3] * p.in.source + offset]);
    }
};

template <class Policy>
DEVICE Reader<Policy> make_reader(const Common& p, const Origin& origin, int position, int orbit, int field, int first_field,
                                  const typename Policy::Storage* tile, const int* offsets) {
    const Geometry& g = p.geometry;
    Reader<Policy> reader{p, nullptr, nullptr, nullptr, {0, 0, 0}, nullptr};
    int within[3];
#pragma unroll
    for (int i = 0; i < 3; ++i) within[i] = position_in_tile(g, position, i) * g.stride[i];
    if (g.staged) {
        reader.tile = tile + (field - first_field) * g.channel_pitch + (within[0] * g.extent[1] + within[1]) * g.extent[2] + within[2];
        reader.tile_offsets = offsets + orbit * p.length;
    } else {
        reader.field = static_cast<const typename Policy::Storage*>(p.in.data) + origin.batch * p.in.batch + field * p.in.field;
#pragma unroll
        for (int i = 0; i < 3; ++i) reader.coordinate[i] = origin.position[i] * g.stride[i] + g.low[i] + within[i];
        reader.tap_coordinates = offsets + orbit * p.length * 4;
    }
    return reader;
}

// ---- the Fourier transform on the way into operand A
// -------------------------------------------------------------------------------------------

// The words of all slots from the values of each of their operands: values(half, v) fills v, store(slot, word) takes a word. Of a word with
// two operands the first is kept packed while the second is computed, so that few registers are live.
template <class Policy, int Slots, class Values, class Store>
DEVICE void pack_slots(const Values& values, const Store& store) {
    using Accumulator = typename Policy::Accumulator;
    using Word = typename Policy::Word;
    Accumulator v[Slots];
    values(0, v);
    if constexpr (Policy::kPerWord == 1) {
#pragma unroll
        for (int s = 0; s < Slots; ++s) store(s, Policy::pack(v + s));
    } else {
        static_assert(Slots % 2 == 0);
        Word first[Slots / 2];
#pragma unroll
        for (int s = 0; s < Slots; s += 2) first[s / 2] = Policy::pack(v + s);
        values(1, v);
#pragma unroll
        for (int s = 0; s < Slots; s += 2) {
            Word low, high;
            interleave(first[s / 2], Policy::pack(v + s), low, high);
            store(s, low);
            store(s + 1, high);
        }
    }
}

// Gathers and transforms the operands of one word by a straight-line program in registers: the word of slot s goes to store(s, word).
// `item(half)` gives the reader of each operand of the word, `exists(half)` whether there is one; a missing operand is zero.
template <class Policy, class Program, class Exists, class Item, class Store>
DEVICE void transform_word(const Common& p, const Exists& exists, const Item& item, const Store& store) {
    using Accumulator = typename Policy::Accumulator;
    const auto values = [&](int half, Accumulator(&v)[Program::order]) {
        if (!exists(half)) {
#pragma unroll
            for (int h = 0; h < Program::order; ++h) v[h] = 0;
            return;
        }
        const auto reader = item(half);
        if (p.geometry.staged) {
            reader.template staged_all<Program::order>(v);
        } else {
#pragma unroll 1
            for (int h = 0; h < Program::order; ++h) {
                const Accumulator value = reader.direct(h);
#pragma unroll
                for (int i = 0; i < Program::order; ++i) v[i] = i == h ? value : v[i];
            }
        }
        Program::template analysis<Accumulator, Accumulator>(v);
    };
    pack_slots<Policy, Program::order>(values, store);
}

// The same by the orbit's matrix, four slots at a time.
template <class Policy, class Exists, class Item, class Orbit, class Store>
DEVICE void transform_word_generic(const Common& p, const Section& section, const Exists& exists, const Item& item, const Orbit& orbit,
                                   const Store& store) {
    using Accumulator = typename Policy::Accumulator;
    constexpr int kBlock = 4;
    const Accumulator* analysis = matrix<Accumulator>(p.tables, section.analysis);
    const int* index = table<int>(p.tables, section.analysis_index);
    const int* orbit_length = table<int>(p.tables, section.orbit_length);
    for (int first = 0; first < p.slots; first += kBlock) {
        Accumulator sums[kBlock][Policy::kPerWord] = {};
#pragma unroll
        for (int half = 0; half < Policy::kPerWord; ++half) {
            if (!exists(half)) continue;
            const auto reader = item(half);
            const int t = orbit(half), length = orbit_length[t];
            const Accumulator* rows = analysis + static_cast<int64_t>(index[t]) * p.slots * p.length;
            for (int h = 0; h < length; ++h) {
                const Accumulator value = p.geometry.staged ? reader.staged(h) : reader.direct(h);
#pragma unroll
                for (int i = 0; i < kBlock; ++i)
                    if (first + i < p.slots) sums[i][half] += rows[(first + i) * p.length + h] * value;
            }
        }
#pragma unroll
        for (int i = 0; i < kBlock; ++i)
            if (first + i < p.slots) store(first + i, Policy::pack(sums[i]));
    }
}

// ---- products
// ----------------------------------------------------------------------------------------------------------------------------------

template <class C>
using Accumulators = typename C::Policy::Accumulator[C::kSlots][C::kRowTiles][C::kColumnTiles][4];

template <class C>
DEVICE void clear(Accumulators<C>& acc) {
#pragma unroll
    for (int s = 0; s < C::kSlots; ++s)
#pragma unroll
        for (int m = 0; m < C::kRowTiles; ++m)
#pragma unroll
            for (int n = 0; n < C::kColumnTiles; ++n)
#pragma unroll
                for (int i = 0; i < 4; ++i) acc[s][m][n][i] = 0;
}

template <class C, int N>
DEVICE void multiply_columns(const Common& p, const Job* jobs, const char* a, const char* b, int rows, Accumulators<C>& acc) {
#pragma unroll
    for (int s = 0; s < C::kSlots; ++s) {
        const Job job = jobs[s];
        const char* left = a + job.a * rows * kRowBytes;
        const char* right = b + job.b * kColumnTileBytes;
#pragma unroll 1
        for (int k = 0; k < job.depth; ++k) {
            C::Policy::template multiply<C::kRowTiles, N>(acc[s], left, right, p.weight_slots * kColumnTileBytes);
            left += job.a_step * rows * kRowBytes;
            right += job.b_step * kColumnTileBytes;
        }
    }
}

// One step of the inner index for all slots of a warp. A: [slot][row] rows, B: [column tile][b slot] tiles.
template <class C>
DEVICE void multiply(const Common& p, const Job* jobs, const char* a, const char* b, int rows, Accumulators<C>& acc) {
    if constexpr (C::kColumnTiles >= 4) {
        if (p.column_tiles == 4) return multiply_columns<C, 4>(p, jobs, a, b, rows, acc);
    }
    if constexpr (C::kColumnTiles >= 2) {
        if (p.column_tiles == 2) return multiply_columns<C, 2>(p, jobs, a, b, rows, acc);
    }
    multiply_columns<C, 1>(p, jobs, a, b, rows, acc);
}

DEVICE void copy_table(char* target, const void* source, int bytes) {
    for (int i = thread_index() * 4; i < bytes; i += thread_count() * 4)
        *reinterpret_cast<int*>(target + i) = *reinterpret_cast<const int*>(static_cast<const char*>(source) + i);
}

// Shared memory: A | B | jobs | offsets | pixel offsets | tile.
template <class Policy>
struct Shared {
    char* a;
    char* b;
    const Job* jobs;
    const int* offsets;
    int64_t* pixel_offsets;
    typename Policy::Storage* tile;
};

template <class C>
DEVICE Shared<typename C::Policy> set_up_shared(const Common& p, int64_t job_table) {
    char* base = shared_memory();
    const int job_bytes = p.warps * C::kSlots * static_cast<int>(sizeof(Job)), offsets = (job_bytes + 15) / 16 * 16;
    Shared<typename C::Policy> shared;
    shared.a = base;
    shared.b = base + p.shared_b;
    shared.jobs = reinterpret_cast<const Job*>(base + p.shared_jobs);
    shared.pixel_offsets = reinterpret_cast<int64_t*>(base + p.shared_pixels);
    shared.tile = reinterpret_cast<typename C::Policy::Storage*>(base + p.shared_tile);
    copy_table(base + p.shared_jobs, p.tables + job_table, job_bytes);
    shared.offsets = static_cast<const int*>(p.offsets);
    if (p.offsets_in_shared) {
        char* copy = base + p.shared_jobs + offsets;
        copy_table(copy, p.offsets, p.orbits * p.length * 4);
        shared.offsets = reinterpret_cast<const int*>(copy);
    }
    return shared;
}

// ---- the convolution
// ---------------------------------------------------------------------------------------------------------------------------

// A step of the inner index: operands `first` ... of the (tap orbit, field) pairs of a chunk of fields, field fastest.
struct Step {
    int chunk, first, first_field, fields;
    uint64_t reciprocal;  // of `fields`

    DEVICE int orbit_of(int pair) const { return static_cast<int>(pair * reciprocal >> 32); }
};

DEVICE Step step_at(const Convolution& p, int step, int operands) {
    Step s;
    s.chunk = step / p.steps_of_chunk;
    s.first = (step - s.chunk * p.steps_of_chunk) * operands;
    s.first_field = s.chunk * p.chunk;
    s.fields = p.in_fields - s.first_field < p.chunk ? p.in_fields - s.first_field : p.chunk;
    s.reciprocal = s.fields == p.chunk ? p.reciprocal : p.last_reciprocal;
    return s;
}

template <class C>
DEVICE void transform_step(const Convolution& p, const Section& section, const Origin& origin, int group, const Step& step,
                           const Shared<typename C::Policy>& shared, char* a) {
    using Policy = typename C::Policy;
    using Word = typename Policy::Word;
    constexpr int kWords = 32 / sizeof(Word);
    const int rows = p.geometry.tile_positions;
    // A warp takes 8 positions and 4 words of each: it writes all banks once, and reads runs of pixels.
    for (int i = thread_index(); i < rows * kWords; i += thread_count()) {
        const int outer = i / 32;
        const int word = i % 4 + outer % (kWords / 4) * 4, row = i / 4 % 8 + outer / (kWords / 4) * 8;
        const int pair = step.first + word * Policy::kPerWord;
        const auto exists = [&](int half) { return pair + half < p.orbits * step.fields; };
        const auto orbit = [&](int half) { return step.orbit_of(pair + half); };
        const auto item = [&](int half) {
            const int t = orbit(half);
            const int field = group * p.in_fields + step.first_field + (pair + half - t * step.fields);
            return make_reader<Policy>(p, origin, row, t, field, group * p.in_fields + step.first_field, shared.tile, shared.offsets);
        };
        const auto store = [&](int slot, Word value) {
            *reinterpret_cast<Word*>(a + (slot * rows + row) * kRowBytes + word * sizeof(Word)) = value;
        };
        if constexpr (C::Program::order > 0)
            transform_word<Policy, typename C::Program>(p, exists, item, store);
        else
            transform_word_generic<Policy>(p, section, exists, item, orbit, store);
    }
}

DEVICE void fetch_weights(const Convolution& p, int group, int step, int column_block, char* b) {
    const int64_t tile_bytes = static_cast<int64_t>(p.weight_slots) * kColumnTileBytes;
    const int64_t first = (static_cast<int64_t>(group) * p.steps + step) * p.column_blocks + column_block;
    const char* source = p.weights + first * p.column_tiles * tile_bytes;
    for (int i = thread_index() * 16; i < p.column_tiles * tile_bytes; i += thread_count() * 16) copy_async<16>(b + i, source + i);
}

// Writes one tile of 8 fields of the result: from accumulators through shared memory to the inverse transform, one (position, field) to a
// thread.
template <class C>
DEVICE void finish_columns(const Convolution& p, const Section& section, const Origin& origin, int group, int first_field,
                           const char* staged) {
    using Policy = typename C::Policy;
    using Accumulator = typename Policy::Accumulator;
    using Storage = typename Policy::Storage;
    const int rows = p.geometry.tile_positions, pitch = rows + 4;
    const Accumulator* blocks = reinterpret_cast<const Accumulator*>(staged);
    for (int i = thread_index(); i < rows * kColumnTile; i += thread_count()) {
        const int row = i % rows, column = i / rows, field = first_field + column;
        if (field >= p.out_fields || !position_exists(p.geometry, origin, row)) continue;
        const int o = group * p.out_fields + field;
        Storage* to = static_cast<Storage*>(p.out.data) + origin.batch * p.out.batch + o * p.out.field;
#pragma unroll
        for (int axis = 0; axis < 3; ++axis) to += (origin.position[axis] + position_in_tile(p.geometry, row, axis)) * p.out.axis[axis];
        const Accumulator bias = p.bias ? widen(static_cast<const Storage*>(p.bias)[o]) : Accumulator(0);
        const Accumulator* from = blocks + column * pitch + row;
        if constexpr (C::Program::order > 0) {
            Accumulator values[C::Program::order];
#pragma unroll
            for (int s = 0; s < C::Program::order; ++s) values[s] = from[s * kColumnTile * pitch];
            C::Program::template synthesis<Accumulator, Accumulator>(values);
#pragma unroll
            for (int h = 0; h < C::Program::order; ++h) to[h * p.out.source] = Policy::narrow(values[h] + bias);
        } else {
            constexpr int kBlock = 4;
            const Accumulator* synthesis = matrix<Accumulator>(p.tables, section.synthesis);
            for (int first = 0; first < p.outputs; first += kBlock) {
                Accumulator sums[kBlock] = {};
                for (int s = 0; s < p.slots; ++s)
#pragma unroll
                    for (int h = 0; h < kBlock; ++h)
                        if (first + h < p.outputs) sums[h] += synthesis[s * p.outputs + first + h] * from[s * kColumnTile * pitch];
#pragma unroll
                for (int h = 0; h < kBlock; ++h)
                    if (first + h < p.outputs) to[(first + h) * p.out.source] = Policy::narrow(sums[h] + bias);
            }
        }
    }
}

template <class C>
__global__ void __launch_bounds__(C::kMaxThreads, C::kMinBlocks) convolve(const Convolution p) {
    using Policy = typename C::Policy;
    const Section& section = section_of(p.tables, p.section);
    const Shared<Policy> shared = set_up_shared<C>(p, section.jobs[p.job_list]);

    // Blocks that read the same tile of positions run next to each other.
    const unsigned block = block_index();
    const int column_block = static_cast<int>(block % p.column_blocks);
    const int group = static_cast<int>(block / p.column_blocks % p.groups);
    const Origin origin = tile_origin(p.geometry, block / p.column_blocks / p.groups);
    const int rows = p.geometry.tile_positions;
    const int a_bytes = p.slots * rows * kRowBytes, b_bytes = p.column_tiles * p.weight_slots * kColumnTileBytes;
    const int warp = thread_index() / 32;
    const Job* jobs = shared.jobs + warp % p.warps * C::kSlots;
    const int first_row = warp / p.warps * C::kRowTiles * 16;

    if (p.geometry.staged) fill_pixel_offsets(p.geometry, p.in, origin, shared.pixel_offsets);
    __syncthreads();

    const auto transform = [&](int step) {
        const Step s = step_at(p, step, Policy::kStep);
        if (p.geometry.staged && s.first == 0) {  // every thread is past the transforms of the previous chunk
            stage_tile(p, origin, group * p.in_fields + s.first_field, s.fields, shared.pixel_offsets, shared.tile);
            wait_for_copies();
            __syncthreads();
        }
        transform_step<C>(p, section, origin, group, s, shared, shared.a + (p.buffers == 2 ? step % 2 : 0) * a_bytes);
    };

    Accumulators<C> acc;
    clear<C>(acc);
    if (p.steps > 0) {
        fetch_weights(p, group, 0, column_block, shared.b);
        transform(0);
        wait_for_copies();
        __syncthreads();
    }
    for (int step = 0; step < p.steps; ++step) {
        const bool more = step + 1 < p.steps;
        if (more) fetch_weights(p, group, step + 1, column_block, shared.b + (step + 1) % 2 * b_bytes);
        if (more && p.buffers == 2) transform(step + 1);
        multiply<C>(p, jobs, shared.a + (p.buffers == 2 ? step % 2 : 0) * a_bytes + first_row * kRowBytes, shared.b + step % 2 * b_bytes,
                    rows, acc);
        wait_for_copies();
        __syncthreads();
        if (more && p.buffers == 1) {
            transform(step + 1);
            __syncthreads();
        }
    }

    using Accumulator = typename Policy::Accumulator;
    const int pitch = rows + 4;
    Accumulator* blocks = reinterpret_cast<Accumulator*>(shared.a);
#pragma unroll
    for (int n = 0; n < C::kColumnTiles; ++n) {
        if (n >= p.column_tiles) break;
#pragma unroll
        for (int s = 0; s < C::kSlots; ++s) {
            const int slot = jobs[s].slot;
            if (slot < 0) continue;
#pragma unroll
            for (int m = 0; m < C::kRowTiles; ++m)
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    blocks[(slot * kColumnTile + fragment_column(i)) * pitch + first_row + m * 16 + fragment_row(i)] = acc[s][m][n][i];
        }
        __syncthreads();
        finish_columns<C>(p, section, origin, group, (column_block * p.column_tiles + n) * kColumnTile, shared.a);
        __syncthreads();
    }
}

// ---- the weight gradient
// -----------------------------------------------------------------------------------------------------------------------

// Operand A: rows are (field, tap orbit) pairs, orbit fastest; the inner index runs over the positions of a tile.
template <class C>
DEVICE void transform_taps(const WeightGradient& p, const Section& section, const Origin& origin, int group, int first_row, int first_field,
                           int first_position, const Shared<typename C::Policy>& shared, char* a) {
    using Policy = typename C::Policy;
    using Word = typename Policy::Word;
    constexpr int kWords = 32 / sizeof(Word);
    const int rows = p.row_warps * C::kRowTiles * 16;
    for (int i = thread_index(); i < rows * kWords; i += thread_count()) {
        const int outer = i / 32;
        const int word = i % 4 + outer % (kWords / 4) * 4, row = i / 4 % 8 + outer / (kWords / 4) * 8;
        const int pair = first_row + row, field = pair / p.orbits, t = pair - field * p.orbits;
        const auto exists = [&](int half) {
            return field < p.in_fields && position_exists(p.geometry, origin, first_position + word * Policy::kPerWord + half);
        };
        const auto orbit = [&](int) { return t; };
        const auto item = [&](int half) {
            return make_reader<Policy>(p, origin, first_position + word * Policy::kPerWord + half, t, group * p.in_fields + field,
                                       group * p.in_fields + first_field, shared.tile, shared.offsets);
        };
        const auto store = [&](int slot, Word value) {
            *reinterpret_cast<Word*>(a + (slot * rows + row) * kRowBytes + word * sizeof(Word)) = value;
        };
        if constexpr (C::Program::order > 0)
            transform_word<Policy, typename C::Program>(p, exists, item, store);
        else
            transform_word_generic<Policy>(p, section, exists, item, orbit, store);
    }
}

// Operand B: the gradient of the result in the Fourier domain, columns are its fields.
template <class C>
DEVICE void transform_gradient(const WeightGradient& p, const Section& section, const Origin& origin, int group, int first_column,
                               int first_position, char* b) {
    using Policy = typename C::Policy;
    using Accumulator = typename Policy::Accumulator;
    using Storage = typename Policy::Storage;
    using Word = typename Policy::Word;
    constexpr bool kGeneric = C::Program::order == 0;
    constexpr int kWords = 32 / sizeof(Word), kSlotBlock = kGeneric ? 4 : C::Program::order;
    const Accumulator* synthesis = matrix<Accumulator>(p.tables, section.synthesis);
    for (int i = thread_index(); i < p.column_tiles * kColumnTile * kWords; i += thread_count()) {
        const int word = i % kWords, column = i / kWords, field = first_column + column;
        char* tiles = b + column / kColumnTile * p.weight_slots * kColumnTileBytes;
        const int index = Policy::b_index(word * Policy::kPerWord, column % kColumnTile) / Policy::kPerWord;
        for (int first = 0; first < p.slots; first += kSlotBlock) {
            const auto values = [&](int half, Accumulator(&v)[kSlotBlock]) {
                const int position = first_position + word * Policy::kPerWord + half;
#pragma unroll
                for (int s = 0; s < kSlotBlock; ++s) v[s] = 0;
                if (field >= p.out_fields || !position_exists(p.geometry, origin, position)) return;
                const Storage* from = static_cast<const Storage*>(p.gradient.data) + origin.batch * p.gradient.batch +
                                      (group * p.out_fields + field) * p.gradient.field;
#pragma unroll
                for (int axis = 0; axis < 3; ++axis)
                    from += (origin.position[axis] + position_in_tile(p.geometry, position, axis)) * p.gradient.axis[axis];
                if constexpr (kGeneric) {
                    for (int h = 0; h < p.outputs; ++h) {
                        const Accumulator value = widen(from[h * p.gradient.source]);
#pragma unroll
                        for (int s = 0; s < kSlotBlock; ++s)
                            if (first + s < p.slots) v[s] += synthesis[(first + s) * p.outputs + h] * value;
                    }
                } else {
#pragma unroll
                    for (int h = 0; h < kSlotBlock; ++h) v[h] = widen(from[h * p.gradient.source]);
                    C::Program::template analysis<Accumulator, Accumulator>(v);
                }
            };
            pack_slots<Policy, kSlotBlock>(values, [&](int s, Word word_of_slot) {
                if (!kGeneric || first + s < p.slots) reinterpret_cast<Word*>(tiles + (first + s) * kColumnTileBytes)[index] = word_of_slot;
            });
        }
    }
}

template <class C>
__global__ void __launch_bounds__(C::kMaxThreads, C::kMinBlocks) weight_gradient(const WeightGradient p) {
    using Policy = typename C::Policy;
    using Accumulator = typename Policy::Accumulator;
    const Section& section = section_of(p.tables, p.section);
    const Shared<Policy> shared = set_up_shared<C>(p, section.weight_jobs[p.job_list]);

    unsigned block = block_index();
    const int column_block = static_cast<int>(block % p.column_blocks);
    block /= p.column_blocks;
    const int row_block = static_cast<int>(block % p.row_blocks);
    block /= p.row_blocks;
    const int group = static_cast<int>(block % p.groups), split = static_cast<int>(block / p.groups);

    const int rows = p.row_warps * C::kRowTiles * 16;
    const int first_row = row_block * rows, first_column = column_block * p.column_tiles * kColumnTile;
    const int first_field = first_row / p.orbits;
    const int fields = p.in_fields - first_field < p.tile_fields ? p.in_fields - first_field : p.tile_fields;
    const int a_bytes = p.slots * rows * kRowBytes, b_bytes = p.column_tiles * p.weight_slots * kColumnTileBytes;
    const int warp = thread_index() / 32;
    const Job* jobs = shared.jobs + warp % p.warps * C::kSlots;
    const int warp_row = warp / p.warps * C::kRowTiles * 16;

    // Each split takes a run of tiles, each tile in steps of positions.
    const int64_t tiles = static_cast<int64_t>(p.batch) * p.geometry.tiles[0] * p.geometry.tiles[1] * p.geometry.tiles[2];
    const int64_t first_tile = tiles * split / p.splits, last_tile = tiles * (split + 1) / p.splits;
    const int steps_of_tile = p.geometry.tile_positions / Policy::kStep;
    const int64_t steps = (last_tile - first_tile) * steps_of_tile;
    Origin origin{};

    const auto transform = [&](int64_t step) {
        const int within = static_cast<int>(step % steps_of_tile), buffer = p.buffers == 2 ? static_cast<int>(step % 2) : 0;
        if (within == 0) {
            origin = tile_origin(p.geometry, static_cast<unsigned>(first_tile + step / steps_of_tile));
            if (p.geometry.staged) {  // every thread is past the transforms of the previous tile
                fill_pixel_offsets(p.geometry, p.in, origin, shared.pixel_offsets);
                __syncthreads();
                stage_tile(p, origin, group * p.in_fields + first_field, fields, shared.pixel_offsets, shared.tile);
                wait_for_copies();
                __syncthreads();
            }
        }
        transform_taps<C>(p, section, origin, group, first_row, first_field, within * Policy::kStep, shared, shared.a + buffer * a_bytes);
        transform_gradient<C>(p, section, origin, group, first_column, within * Policy::kStep, shared.b + buffer * b_bytes);
    };

    Accumulators<C> acc;
    clear<C>(acc);
    __syncthreads();
    if (steps > 0) {
        transform(0);
        __syncthreads();
    }
    for (int64_t step = 0; step < steps; ++step) {
        const bool more = step + 1 < steps;
        const int buffer = p.buffers == 2 ? static_cast<int>(step % 2) : 0;
        if (more && p.buffers == 2) transform(step + 1);
        multiply<C>(p, jobs, shared.a + buffer * a_bytes + warp_row * kRowBytes, shared.b + buffer * b_bytes, rows, acc);
        __syncthreads();
        if (more && p.buffers == 1) {
            transform(step + 1);
            __syncthreads();
        }
    }

    Accumulator* partial =
        static_cast<Accumulator*>(p.partial) + (static_cast<int64_t>(split) * p.groups + group) * p.weight_slots * p.rows * p.columns;
#pragma unroll
    for (int s = 0; s < C::kSlots; ++s) {
        const int slot = jobs[s].slot;
        if (slot < 0) continue;
#pragma unroll
        for (int n = 0; n < C::kColumnTiles; ++n) {
            if (n >= p.column_tiles) break;
#pragma unroll
            for (int m = 0; m < C::kRowTiles; ++m)
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const int64_t row = static_cast<int64_t>(slot) * p.rows + first_row + warp_row + m * 16 + fragment_row(i);
                    partial[row * p.columns + first_column + n * kColumnTile + fragment_column(i)] = acc[s][m][n][i];
                }
        }
    }
}

// ---- psi to blocks and back
// --------------------------------------------------------------------------------------------------------------------

DEVICE int64_t global_index() {
    return static_cast<int64_t>(block_index()) * thread_count() + thread_index();
}

// Blocks of the weight as operand B, rounded: (group, step, column tile, weight slot) tiles of 256 bytes, zeros where a step or a tile is
// padded. The first threads also write where the taps of an orbit lie from a position.
template <class Policy>
__global__ void pack_weights(const Packing p) {
    using Accumulator = typename Policy::Accumulator;
    using Storage = typename Policy::Storage;
    const Section& section = section_of(p.tables, p.section);
    const int64_t index = global_index();
    if (index < section.orbits * section.length) {
        const Geometry& g = p.geometry;
        const int* tap = table<int>(p.tables, section.taps) + 4 * index;
        int at[3];
        for (int i = 0; i < 3; ++i) at[i] = g.tap_scale[i] * tap[i] + g.tap_shift[i];
        if (g.staged) {
            p.offsets[index] = tap[3] * g.pixels + (at[0] * g.extent[1] + at[1]) * g.extent[2] + at[2];
        } else {
            for (int i = 0; i < 3; ++i) p.offsets[4 * index + i] = at[i];
            p.offsets[4 * index + 3] = tap[3];
        }
    }
    if (index >= p.total) return;
    constexpr int kElements = Policy::kStep * kColumnTile;
    const int n = static_cast<int>(index % kColumnTile), k = static_cast<int>(index / kColumnTile % Policy::kStep);
    int64_t tile = index / kElements;
    const int slot = static_cast<int>(tile % section.weight_slots);
    tile /= section.weight_slots;
    const int column = static_cast<int>(tile % p.column_tiles) * kColumnTile + n;
    tile /= p.column_tiles;
    const int step = static_cast<int>(tile % p.steps), group = static_cast<int>(tile / p.steps);
    const int chunk = step / p.steps_of_chunk, pair = (step - chunk * p.steps_of_chunk) * Policy::kStep + k;
    const int fields = p.in_fields - chunk * p.chunk < p.chunk ? p.in_fields - chunk * p.chunk : p.chunk;
    const int t = pair / fields, field = chunk * p.chunk + pair % fields;
    Accumulator sum = 0;
    if (t < section.orbits && column < p.out_fields) {
        const Storage* psi =
            static_cast<const Storage*>(p.psi) + group * p.group_stride + column * p.column_stride + field * p.inner_stride;
        const int* weight_index = table<int>(p.tables, section.weight_index) + t * section.weight_length;
        const Accumulator* row =
            matrix<Accumulator>(p.tables, section.weight_matrix) +
            (static_cast<int64_t>(table<int>(p.tables, section.weight_matrix_index)[t]) * section.weight_slots + slot) *
                section.weight_length;
        for (int u = 0; u < section.weight_length; ++u)
            if (weight_index[u] >= 0) sum += row[u] * widen(psi[weight_index[u]]);
    }
    using Word = typename Policy::Word;
    using Element = std::conditional_t<Policy::kPerWord == 2, Storage, Word>;
    Element* target = reinterpret_cast<Element*>(p.weights + index / kElements * kColumnTileBytes) + Policy::b_index(k, n);
    if constexpr (Policy::kPerWord == 2)
        *target = Policy::narrow(sum);
    else
        *target = Policy::pack(&sum);
}

// Sums the splits in their order.
template <class Policy>
__global__ void sum_splits(const Unpacking p) {
    using Accumulator = typename Policy::Accumulator;
    const int64_t index = global_index();
    if (index >= p.total) return;
    const Accumulator* partial = static_cast<const Accumulator*>(p.partial);
    Accumulator sum = 0;
    for (int split = 0; split < p.splits; ++split) sum += partial[split * p.total + index];
    static_cast<Accumulator*>(p.blocks)[index] = sum;
}

// The adjoint of psi -> blocks, one element of psi to a thread.
template <class Policy>
__global__ void unpack_weights(const Unpacking p) {
    using Accumulator = typename Policy::Accumulator;
    const Section& section = section_of(p.tables, 0);
    const int64_t index = global_index();
    if (index >= p.total) return;
    const int element = static_cast<int>(index % section.weight_size);
    const int64_t pair = index / section.weight_size;
    const int field = static_cast<int>(pair % p.in_fields);
    const int64_t o = pair / p.in_fields;
    const int group = static_cast<int>(o / p.out_fields), column = static_cast<int>(o % p.out_fields);
    const Accumulator* blocks =
        static_cast<const Accumulator*>(p.blocks) + static_cast<int64_t>(group) * p.weight_slots * p.rows * p.columns + column;
    const Accumulator* matrices = matrix<Accumulator>(p.tables, section.weight_matrix);
    const int* matrix_index = table<int>(p.tables, section.weight_matrix_index);
    const int* begin = table<int>(p.tables, section.use_begin);
    const int* use = table<int>(p.tables, section.use);
    Accumulator sum = 0;
    for (int i = begin[element]; i < begin[element + 1]; ++i) {
        const int t = use[2 * i], u = use[2 * i + 1];
        const Accumulator* weights = matrices + static_cast<int64_t>(matrix_index[t]) * section.weight_slots * section.weight_length + u;
        for (int slot = 0; slot < section.weight_slots; ++slot)
            sum += weights[slot * section.weight_length] *
                   blocks[(static_cast<int64_t>(slot) * p.rows + field * section.orbits + t) * p.columns];
    }
    static_cast<typename Policy::Storage*>(p.psi)[index] = Policy::narrow(sum);
}

}  // namespace cuda
}  // namespace isotypic
