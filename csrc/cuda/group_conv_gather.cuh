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

// The pixel of a staged tile that position p reads from: offsets of taps count from there.
DEVICE int pixel_of_position(const Geometry& g, int p) {
    int pixel = 0;
#pragma unroll
    for (int i = 0; i < 3; ++i) pixel = pixel * g.extent[i] + position_in_tile(g, p, i) * g.stride[i];
    return pixel;
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

// Offsets of the pixels of a tile, or of its runs, the same for every channel.
DEVICE void fill_pixel_offsets(const Geometry& geometry, const Field& field, const Origin& origin, int64_t* offsets) {
    const int width = geometry.runs ? kRun : 1;
    for (int i = thread_index(); i * width < geometry.pixels; i += thread_count()) {
        const unsigned e2 = geometry.extent[2], e1 = geometry.extent[1], row = static_cast<unsigned>(i * width) / e2, slice = row / e1;
        const int within[3] = {static_cast<int>(slice), static_cast<int>(row - slice * e1), static_cast<int>(i * width - row * e2)};
        int coordinate[3];
#pragma unroll
        for (int axis = 0; axis < 3; ++axis)
            coordinate[axis] = origin.position[axis] * geometry.stride[axis] + geometry.low[axis] + within[axis];
        offsets[i] = element_offset(geometry, field, coordinate);
    }
}

// A pixel of a staged tile: the values of `Together` fields.
template <class T, int Together>
struct alignas(sizeof(T) * Together) Pixel {
    T value[Together];
};

// Copies `fields` fields with their halo to [field / Together][source][pixel][Together], zeros outside and for fields that do not exist; a
// warp takes a channel, and its lanes the same pixels of all its channels, whose addresses stay in registers. Asynchronous for 4 and 8 byte
// elements; of those of 2 bytes many are read before the first is written, because what is written may alias what is read.
template <class T, int Together>
DEVICE void stage_pixels(const Common& p, const Origin& origin, int first_field, int fields, const int64_t* pixel_offsets,
                         Pixel<T, Together>* tile) {
    constexpr int kPixels = 4;
    const T* source = static_cast<const T*>(p.in.data) + origin.batch * p.in.batch + first_field * p.in.field;
    const int warp = thread_index() / 32, lane = thread_index() % 32, warps = thread_count() / 32, pixels = p.geometry.pixels;
    const int first_channel = warp / p.sources, first_source = warp % p.sources;
    const int next_channel = warps / p.sources, next_source = warps % p.sources;
    for (int first = lane; first < pixels; first += kPixels * 32) {
        const T* at[kPixels];  // in the first channel of all, or null
#pragma unroll
        for (int i = 0; i < kPixels; ++i) {
            const int64_t offset = first + 32 * i < pixels ? pixel_offsets[first + 32 * i] : kOutside;
            at[i] = offset == kOutside ? nullptr : source + offset;
        }
        int channel = first_channel, group_channel = first_source;
        while (channel * Together < fields) {
            int64_t from = channel * Together * p.in.field + group_channel * p.in.source;
            Pixel<T, Together>* to = tile + channel * p.geometry.channel_pitch + group_channel * pixels + first;
            if constexpr (sizeof(T) >= 4) {
                static_assert(Together == 1);
#pragma unroll
                for (int i = 0; i < kPixels; ++i)
                    if (first + 32 * i < pixels) copy_async<sizeof(T)>(to + 32 * i, at[i] ? at[i] + from : source, at[i] != nullptr);
            } else {
                Pixel<T, Together> values[kPixels];
#pragma unroll
                for (int j = 0; j < Together; ++j) {
                    const bool exists = channel * Together + j < fields;
#pragma unroll
                    for (int i = 0; i < kPixels; ++i) values[i].value[j] = exists && at[i] ? at[i][from] : T{};
                    from += p.in.field;
                }
#pragma unroll
                for (int i = 0; i < kPixels; ++i)
                    if (first + 32 * i < pixels) to[32 * i] = values[i];
            }
            channel += next_channel, group_channel += next_source;
            if (group_channel >= p.sources) group_channel -= p.sources, ++channel;
        }
    }
}

// The same by runs of kRun neighbours: a thread takes one run of one group channel in every so many channels. Of fields that lie side by side
// kBatch runs are read before the first is written.
template <class T, int Together>
DEVICE void stage_runs(const Common& p, const Origin& origin, int first_field, int fields, const int64_t* run_offsets,
                       Pixel<T, Together>* tile) {
    const Geometry& g = p.geometry;
    const unsigned runs = static_cast<unsigned>(g.pixels / kRun), items = runs * p.sources, threads = thread_count();
    const unsigned start = thread_index() * g.item_reciprocal >> 20;
    if (start >= g.channels_together) return;
    const T* source = static_cast<const T*>(p.in.data) + origin.batch * p.in.batch + first_field * p.in.field;
    const int64_t step = static_cast<int64_t>(g.channels_together) * Together * p.in.field;
    const int tile_step = static_cast<int>(g.channels_together) * g.channel_pitch, channel_step = static_cast<int>(g.channels_together);
    for (unsigned item = thread_index() - start * items; item < items; item += threads) {
        const unsigned group_channel = item / runs, run = item - group_channel * runs;
        const int64_t offset = run_offsets[run];
        const bool inside = offset != kOutside;
        const T* from = source + (inside ? offset + group_channel * p.in.source + start * Together * p.in.field : 0);
        Pixel<T, Together>* to = tile + start * g.channel_pitch + group_channel * g.pixels + kRun * run;
        int channel = static_cast<int>(start);
        if constexpr (Together == 1) {
            for (; channel < fields; channel += channel_step, from += step, to += tile_step) copy_async<kRun * sizeof(T)>(to, from, inside);
        } else {
            static_assert(Together == 2 && sizeof(T) == 2);
            struct alignas(8) Run {
                uint32_t word[kRun / 2];
            };
            struct alignas(16) Pixels {
                uint32_t word[kRun];
            };
            constexpr int kBatch = 4;
            const int channels = (fields + 1) / 2;
            if (!inside) {
                for (; channel < channels; channel += channel_step, to += tile_step) *reinterpret_cast<Pixels*>(to) = Pixels{};
                continue;
            }
            while (channel < channels) {
                Run values[kBatch][Together];
#pragma unroll
                for (int i = 0; i < kBatch; ++i) {
                    const int at = channel + i * channel_step;
                    if (at < channels) {
                        values[i][0] = *reinterpret_cast<const Run*>(from);
                        values[i][1] = 2 * at + 1 < fields ? *reinterpret_cast<const Run*>(from + p.in.field) : Run{};
                    }
                    from += step;
                }
#pragma unroll
                for (int i = 0; i < kBatch; ++i) {
                    if (channel < channels) {
                        const Run &a = values[i][0], &b = values[i][1];
                        Pixels pixels;
#pragma unroll
                        for (int w = 0; w < kRun / 2; ++w) interleave(a.word[w], b.word[w], pixels.word[2 * w], pixels.word[2 * w + 1]);
                        *reinterpret_cast<Pixels*>(to) = pixels;
                    }
                    channel += channel_step, to += tile_step;
                }
            }
        }
    }
}

// The tile of a chunk of fields, complete after wait_for_copies() and a barrier.
template <class T, int Together>
DEVICE void stage_tile(const Common& p, const Origin& origin, int first_field, int fields, const int64_t* offsets,
                       Pixel<T, Together>* tile) {
    if constexpr (sizeof(T) <= 4)
        if (p.geometry.runs) return stage_runs(p, origin, first_field, fields, offsets, tile);
    stage_pixels(p, origin, first_field, fields, offsets, tile);
}

// The values one position reads at the taps of one orbit, for one field: tap by tap, in a staged tile or in device memory.
template <class Policy>
struct Reader {
    using Storage = typename Policy::Storage;
    using Accumulator = typename Policy::Accumulator;
    const Common& p;
    const Pixel<Storage, 1>* tile;  // staged: at the position's pixel, in the field's channel
    const int* tile_offsets;        // staged: of the orbit
    const Storage* field;           // otherwise: the field in device memory
    int coordinate[3];
    const int* tap_coordinates;

    DEVICE Accumulator value(int h) const {
        if (p.geometry.staged) return widen(tile[tile_offsets[h]].value[0]);
        const int* tap = tap_coordinates + 4 * h;
        const int at[3] = {coordinate[0] + tap[0], coordinate[1] + tap[1], coordinate[2] + tap[2]};
        const int64_t offset = element_offset(p.geometry, p.in, at);
        return offset == kOutside ? Accumulator(0) : widen(field[tap[3] * p.in.source + offset]);
    }
};

template <class Policy>
DEVICE Reader<Policy> make_reader(const Common& p, const Origin& origin, int position, int orbit, int field, int first_field,
                                  const Pixel<typename Policy::Storage, 1>* tile, const int* offsets) {
    const Geometry& g = p.geometry;
    Reader<Policy> reader{p, nullptr, nullptr, nullptr, {0, 0, 0}, nullptr};
    if (g.staged) {
        reader.tile = tile + (field - first_field) * g.channel_pitch + pixel_of_position(g, position);
        reader.tile_offsets = offsets + orbit * p.length;
    } else {
        reader.field = static_cast<const typename Policy::Storage*>(p.in.data) + origin.batch * p.in.batch + field * p.in.field;
#pragma unroll
        for (int i = 0; i < 3; ++i) reader.coordinate[i] = (origin.position[i] + position_in_tile(g, position, i)) * g.stride[i] + g.low[i];
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

// How straight-line transforms find the values they read, all of it in shared memory and in bytes.
template <class C, int Together>
struct Taps {
    using Policy = typename C::Policy;
    using Program = typename C::Program;
    using Accumulator = typename Policy::Accumulator;
    using Values = Accumulator[Program::order];
    const char* tile;
    const int* positions;  // of a tile of positions: its pixel
    const Pair* pairs;
    const char* offsets;  // int (orbits, Program::order)

    // v[j] for each of the fields that lie together: the transform of what a position reads at the taps of a pair.
    DEVICE void transform(const Section& section, const Pair& pair, int pixel, Values* v) const {
        static_assert(Program::order % 4 == 0);  // offsets are read four at a time
        struct alignas(16) Four {
            int offset[4];
        };
        const char* from = tile + pair.channel + pixel;
        const Four* list = reinterpret_cast<const Four*>(offsets + pair.list);
#pragma unroll
        for (int h = 0; h < Program::order; h += 4) {
            const Four four = list[h / 4];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const auto values = *reinterpret_cast<const Pixel<typename Policy::Storage, Together>*>(from + four.offset[i]);
#pragma unroll
                for (int j = 0; j < Together; ++j) v[j][h + i] = widen(values.value[j]);
            }
        }
#pragma unroll
        for (int j = 0; j < Together; ++j) {
            into_range<Policy>(v[j], section.analysis_scale);
            Program::template analysis<Accumulator, Accumulator>(v[j]);
        }
    }
};

// Gathers and transforms the operands of one word by the matrices of their orbits, four slots at a time: the word of slot s goes to store(s,
// word). `item(half)` gives the reader of each operand of the word, `exists(half)` whether there is one; a missing operand is zero.
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
                const Accumulator value = reader.value(h);
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
