// From a field to operands: the tile with its halo, the values at the taps of an orbit, their Fourier transform.
#pragma once

#include "cuda/group_conv_arguments.cuh"

namespace isotypic {
namespace cuda {

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
// elements; of those of 2 bytes kLoads are read before the first is written, because what is written may alias what is read.
template <class T>
DEVICE void stage_tile(const Common& p, const Origin& origin, int first_field, int fields, const int64_t* pixel_offsets, T* tile) {
    constexpr int kLoads = 8;
    const T* source = static_cast<const T*>(p.in.data) + origin.batch * p.in.batch + first_field * p.in.field;
    const int warp = thread_index() / 32, lane = thread_index() % 32, warps = thread_count() / 32, pixels = p.geometry.pixels;
    for (int row = warp; row < fields * p.sources; row += warps) {
        const int field = row / p.sources, group_channel = row % p.sources;
        const T* from = source + field * p.in.field + group_channel * p.in.source;
        T* to = tile + field * p.geometry.channel_pitch + group_channel * pixels;
        if constexpr (sizeof(T) >= 4) {
#pragma unroll 4
            for (int pixel = lane; pixel < pixels; pixel += 32) {
                const int64_t offset = pixel_offsets[pixel];
                copy_async<sizeof(T)>(to + pixel, offset == kOutside ? from : from + offset, offset != kOutside);
            }
        } else {
            for (int first = lane; first < pixels; first += kLoads * 32) {
                T values[kLoads];
#pragma unroll
                for (int i = 0; i < kLoads; ++i) {
                    const int64_t offset = first + 32 * i < pixels ? pixel_offsets[first + 32 * i] : kOutside;
                    values[i] = offset == kOutside ? T{} : from[offset];
                }
#pragma unroll
                for (int i = 0; i < kLoads; ++i)
                    if (first + 32 * i < pixels) to[first + 32 * i] = values[i];
            }
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

// Numbers by a power of two, where the range of the operands asks for it (Section::analysis_scale).
template <class Policy, class T, int Count>
DEVICE void into_range(T (&v)[Count], float scale) {
    if constexpr (Policy::kNarrowRange)
#pragma unroll
        for (int i = 0; i < Count; ++i) v[i] *= scale;
}

// The words of all slots from the values of each of their operands: values(half, v) fills v, store(slot, word) takes a word. Of a word with
// two operands the first is kept packed while the second is computed, so that few registers are live.
template <class Policy, int Slots, class Values, class Store>
DEVICE void pack_slots(const Values& values, const Store& store) {
    using Accumulator = typename Policy::Accumulator;
    using Word = typename Policy::Word;
    Accumulator v[Slots];
    if constexpr (Policy::kPerWord == 1) {
        values(0, v);
#pragma unroll
        for (int s = 0; s < Slots; ++s) store(s, Policy::pack(v + s));
    } else {
        static_assert(Slots % 2 == 0);
        Word first[Slots / 2];
        values(0, v);
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
DEVICE void transform_word(const Common& p, const Section& section, const Exists& exists, const Item& item, const Store& store) {
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
        into_range<Policy>(v, section.analysis_scale);
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
            if (first + i < p.slots) {
                into_range<Policy>(sums[i], section.analysis_scale);
                store(first + i, Policy::pack(sums[i]));
            }
    }
}

}  // namespace cuda
}  // namespace isotypic
