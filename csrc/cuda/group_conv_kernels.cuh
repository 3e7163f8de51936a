// The two large kernels of group_conv: one that serves the forward convolution and its adjoint in x, one for the weight gradient. See
// group_conv.cu for how all fit together.
#pragma once

#include "cuda/group_conv_gather.cuh"
#include "ops/group_conv_fourier.hpp"

namespace isotypic {
namespace cuda {

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
DEVICE void multiply_columns(const Common& p, const Job* jobs, const char* a, const char* b, Accumulators<C>& acc) {
#pragma unroll
    for (int s = 0; s < C::kSlots; ++s) {
        const Job job = jobs[s];
        const char* left = a + job.a;
        const char* right = b + job.b;
#pragma unroll 1
        for (int k = 0; k < job.depth; ++k) {
            C::Policy::template multiply<C::kRowTiles, N>(acc[s], left, right, p.weight_slots * kColumnTileBytes);
            left += job.a_step;
            right += job.b_step;
        }
    }
}

// One step of the inner index for all slots of a warp. A: [slot][row] rows, B: [column tile][b slot] tiles, from where a lane begins to read
// (Policy::first_a, first_b). The lanes may come from the branches of a transform: ldmatrix and mma ask for all of them at once.
template <class C>
DEVICE void multiply(const Common& p, const Job* jobs, const char* a, const char* b, Accumulators<C>& acc) {
    sync_warp();
    if constexpr (C::kColumnTiles >= 4) {
        if (p.column_tiles == 4) return multiply_columns<C, 4>(p, jobs, a, b, acc);
    }
    if constexpr (C::kColumnTiles >= 2) {
        if (p.column_tiles == 2) return multiply_columns<C, 2>(p, jobs, a, b, acc);
    }
    multiply_columns<C, 1>(p, jobs, a, b, acc);
}

DEVICE void copy_table(char* target, const void* source, int bytes) {
    for (int i = thread_index() * 4; i < bytes; i += thread_count() * 4)
        *reinterpret_cast<int*>(target + i) = *reinterpret_cast<const int*>(static_cast<const char*>(source) + i);
}

// Shared memory: A | B | jobs | offsets | positions, pairs (of straight-line transforms) | pixel offsets | tile.
template <class C, int Together>
struct Shared {
    using Storage = typename C::Policy::Storage;
    char* a;
    char* b;
    Job* jobs;
    const int* offsets;
    int* positions;
    Pair* pairs;
    int64_t* pixel_offsets;
    Pixel<Storage, Together>* tile;

    DEVICE Taps<C, Together> taps() const {
        return {reinterpret_cast<const char*>(tile), positions, pairs, reinterpret_cast<const char*>(offsets)};
    }
};

// Jobs with a, a_step, b and b_step in bytes.
DEVICE void copy_jobs(Job* target, const Job* source, int count, int slot_bytes) {
    for (int i = thread_index(); i < count; i += thread_count()) {
        const Job job = source[i];
        target[i] = {
            job.slot, job.depth, job.a * slot_bytes, job.a_step * slot_bytes, job.b * kColumnTileBytes, job.b_step * kColumnTileBytes};
    }
}

template <class C, int Together>
DEVICE Shared<C, Together> set_up_shared(const Common& p, int64_t job_table, int slot_bytes) {
    char* base = shared_memory();
    Shared<C, Together> shared;
    shared.a = base;
    shared.b = base + p.shared_b;
    shared.jobs = reinterpret_cast<Job*>(base + p.shared_jobs);
    shared.offsets = reinterpret_cast<const int*>(base + p.shared_offsets);
    shared.positions = reinterpret_cast<int*>(base + p.shared_positions);
    shared.pairs = reinterpret_cast<Pair*>(base + p.shared_pairs);
    shared.pixel_offsets = reinterpret_cast<int64_t*>(base + p.shared_pixels);
    shared.tile = reinterpret_cast<Pixel<typename C::Policy::Storage, Together>*>(base + p.shared_tile);
    copy_jobs(shared.jobs, table<Job>(p.tables, job_table), p.warps * C::kSlots, slot_bytes);
    if constexpr (!C::kStraightLine) {
        if (p.offsets_in_shared)
            copy_table(base + p.shared_offsets, p.offsets, p.orbits * p.length * 4);
        else
            shared.offsets = static_cast<const int*>(p.offsets);
    } else {
        constexpr int kPixelBytes = sizeof(Pixel<typename C::Policy::Storage, Together>);
        for (int i = thread_index(); i < p.orbits * p.length; i += thread_count())
            reinterpret_cast<int*>(base + p.shared_offsets)[i] = static_cast<const int*>(p.offsets)[i] * kPixelBytes;
        for (int i = thread_index(); i < p.geometry.tile_positions; i += thread_count())
            shared.positions[i] = pixel_of_position(p.geometry, i) * kPixelBytes;
    }
    return shared;
}

// ---- the convolution
// ---------------------------------------------------------------------------------------------------------------------------

// A step of the inner index: the `step`th of a chunk of fields that begins at `first_field`. Its operands are (tap orbit, field) pairs, field
// fastest.
struct Step {
    int step, first_field;

    DEVICE int fields(const Convolution& p) const { return p.in_fields - first_field < p.chunk ? p.in_fields - first_field : p.chunk; }

    DEVICE void advance(const Convolution& p) {
        if (++step < p.steps_of_chunk) return;
        step = 0;
        first_field += p.chunk;
    }
};

// The (tap orbit, fields of a word) pairs of a chunk of `fields` fields, field fastest, up to a whole step.
template <class C>
DEVICE void list_pairs(const Convolution& p, int fields, Pair* pairs) {
    constexpr int kWords = C::Policy::kStep / C::kTogether;
    const int channels = (fields + C::kTogether - 1) / C::kTogether, words = p.orbits * channels;
    const int channel_bytes = p.geometry.channel_pitch * static_cast<int>(sizeof(Pixel<typename C::Policy::Storage, C::kTogether>));
    for (int i = thread_index(); i < (words + kWords - 1) / kWords * kWords; i += thread_count()) {
        const int orbit = i / channels;
        pairs[i] = {i < words ? (i - orbit * channels) * channel_bytes : -1, orbit * p.length * 4};
    }
}

// Where a thread transforms, in bytes of shared memory. Of the warps the even ones take the first half of the words: a warp has 8 positions
// and 4 words of each, writes all banks once and reads runs of pixels.
struct Transformer {
    int pair, row, a, position;  // of step 0 and the first row

    template <class C>
    static DEVICE Transformer of(const Convolution& p) {
        const int warp = thread_index() / 32, lane = thread_index() % 32, word = lane % 4 + warp % 2 * 4, row = lane / 4 + warp / 2 * 8;
        return {keep(p.shared_pairs + word * static_cast<int>(sizeof(Pair))), keep(row), keep(word * 4 + row * kRowBytes),
                keep(p.shared_positions + row * 4)};
    }
};

// A step of A: word w of each position is the step's pair w.
template <class C>
DEVICE void transform_step(const Convolution& p, const Section& section, const Taps<C, C::kTogether>& taps, const Transformer& where,
                           int step, int rows, int a) {
    using Policy = typename C::Policy;
    using Word = typename Policy::Word;
    constexpr int kWords = 32 / sizeof(Word);
    static_assert(kWords == 8);
    char* const base = shared_memory();
    const Pair pair = *reinterpret_cast<const Pair*>(base + where.pair + step * kWords * static_cast<int>(sizeof(Pair)));
    char* to = base + where.a + a;
    const char* position = base + where.position;
    if (pair.channel < 0) {
#pragma unroll 1
        for (int row = where.row; row < rows; row += p.next_row, to += p.next_row * kRowBytes)
#pragma unroll
            for (int s = 0; s < C::Program::order; ++s) *reinterpret_cast<Word*>(to + s * C::slot_bytes(rows)) = 0;
        return;
    }
#pragma unroll 1
    for (int row = where.row; row < rows; row += p.next_row) {
        typename Policy::Accumulator v[C::kTogether][C::Program::order];
        taps.transform(section, pair, *reinterpret_cast<const int*>(position), v);
#pragma unroll
        for (int s = 0; s < C::Program::order; ++s) {
            typename Policy::Accumulator operands[C::kTogether];
#pragma unroll
            for (int j = 0; j < C::kTogether; ++j) operands[j] = v[j][s];
            *reinterpret_cast<Word*>(to + s * C::slot_bytes(rows)) = Policy::pack(operands);
        }
        to += p.next_row * kRowBytes, position += p.next_row * 4;
    }
}

template <class C>
DEVICE void transform_step_generic(const Convolution& p, const Section& section, const Origin& origin, int group, const Step& step,
                                   const Shared<C, 1>& shared, char* a) {
    using Policy = typename C::Policy;
    using Word = typename Policy::Word;
    constexpr int kWords = 32 / sizeof(Word);
    const int rows = p.geometry.tile_positions, fields = step.fields(p);
    const uint64_t reciprocal = fields == p.chunk ? p.reciprocal : p.last_reciprocal;
    // A warp takes 8 positions and 4 words of each: it writes all banks once, and reads runs of pixels.
    for (int i = thread_index(); i < rows * kWords; i += thread_count()) {
        const int outer = i / 32;
        const int word = i % 4 + outer % (kWords / 4) * 4, row = i / 4 % 8 + outer / (kWords / 4) * 8;
        const int pair = step.step * Policy::kStep + word * Policy::kPerWord;
        const auto exists = [&](int half) { return pair + half < p.orbits * fields; };
        const auto orbit = [&](int half) { return static_cast<int>((pair + half) * reciprocal >> 32); };
        const auto item = [&](int half) {
            const int t = orbit(half);
            const int field = group * p.in_fields + step.first_field + (pair + half - t * fields);
            return make_reader<Policy>(p, origin, row, t, field, group * p.in_fields + step.first_field, shared.tile, shared.offsets);
        };
        const auto store = [&](int slot, Word value) {
            *reinterpret_cast<Word*>(a + (slot * rows + row) * kRowBytes + word * sizeof(Word)) = value;
        };
        transform_word_generic<Policy>(p, section, exists, item, orbit, store);
    }
}

// One step of B, asynchronously; `first` is the byte that the thread begins with.
DEVICE void fetch_weights(const Convolution& p, const char* weights, int first, char* b) {
    weights += first, b += first;
    const int step = p.fetch_step;
    for (int left = p.b_bytes; left > 0; left -= 2 * step, weights += 2 * step, b += 2 * step) {
        if (first < left) copy_async<16>(b, weights);
        if (first < left - step) copy_async<16>(b + step, weights + step);
    }
}

// A position that a thread finishes, and where it is written; null outside of the result. Threads are a multiple of the rows of a tile.
template <class Storage>
DEVICE Storage* result_of_row(const Convolution& p, const Origin& origin, int row) {
    if (!position_exists(p.geometry, origin, row)) return nullptr;
    Storage* to = static_cast<Storage*>(p.out.data) + origin.batch * p.out.batch;
#pragma unroll
    for (int axis = 0; axis < 3; ++axis) to += (origin.position[axis] + position_in_tile(p.geometry, row, axis)) * p.out.axis[axis];
    return to;
}

DEVICE int rows_log2(const Geometry& g) {
    return g.tile_log2[0] + g.tile_log2[1] + g.tile_log2[2];
}

// Writes one tile of 8 fields of the result: from accumulators through shared memory to the inverse transform. A thread takes `Positions`
// neighbours of a field, the first at `row`; `position` is null or lies in field 0.
template <class C, int Positions>
DEVICE void finish_columns(const Convolution& p, const Section& section, typename C::Policy::Storage* position, int group, int first_field,
                           const char* staged) {
    using Policy = typename C::Policy;
    using Accumulator = typename Policy::Accumulator;
    using Storage = typename Policy::Storage;
    const int pitch = p.geometry.tile_positions + 4, shift = rows_log2(p.geometry) - (Positions == 2);
    const int row = (thread_index() & ((1 << shift) - 1)) * Positions;
    const Accumulator* blocks = reinterpret_cast<const Accumulator*>(staged);
    if (!position) return;
    for (int column = thread_index() >> shift; column < kColumnTile; column += thread_count() >> shift) {
        const int field = first_field + column;
        if (field >= p.out_fields) return;
        const int o = group * p.out_fields + field;
        Storage* to = position + o * p.out.field;
        const Accumulator bias = p.bias ? widen(static_cast<const Storage*>(p.bias)[o]) : Accumulator(0);
        const Accumulator* from = blocks + column * pitch + row;
        const float scale = 1 / (section.analysis_scale * section.weight_scale);
        if constexpr (C::Program::order > 0) {
            struct alignas(Positions * sizeof(Accumulator)) Sums {
                Accumulator value[Positions];
            };
            struct alignas(Positions * sizeof(Storage)) Results {
                Storage value[Positions];
            };
            Accumulator values[Positions][C::Program::order];
#pragma unroll
            for (int s = 0; s < C::Program::order; ++s) {
                const Sums sums = *reinterpret_cast<const Sums*>(from + s * kColumnTile * pitch);
#pragma unroll
                for (int i = 0; i < Positions; ++i) values[i][s] = sums.value[i];
            }
#pragma unroll
            for (int i = 0; i < Positions; ++i) {
                into_range<Policy>(values[i], scale);
                values[i][0] += bias;  // slot 0 is the trivial irrep, which is 1 everywhere
                C::Program::template synthesis<Accumulator, Accumulator>(values[i]);
            }
#pragma unroll
            for (int h = 0; h < C::Program::order; ++h) {
                Results results;
#pragma unroll
                for (int i = 0; i < Positions; ++i) results.value[i] = narrow<Storage>(values[i][h]);
                *reinterpret_cast<Results*>(to) = results;
                to += p.out.source;
            }
        } else {
            constexpr int kBlock = 4;
            const Accumulator* synthesis = matrix<Accumulator>(p.tables, section.synthesis);
            for (int first = 0; first < p.outputs; first += kBlock) {
                Accumulator sums[kBlock] = {};
                for (int s = 0; s < p.slots; ++s)
#pragma unroll
                    for (int h = 0; h < kBlock; ++h)
                        if (first + h < p.outputs) sums[h] += synthesis[s * p.outputs + first + h] * from[s * kColumnTile * pitch];
                into_range<Policy>(sums, scale);
#pragma unroll
                for (int h = 0; h < kBlock; ++h)
                    if (first + h < p.outputs) to[(first + h) * p.out.source] = narrow<typename Policy::Storage>(sums[h] + bias);
            }
        }
    }
}

template <class C>
__global__ void __launch_bounds__(C::kMaxThreads, C::kMinBlocks) convolve(const Convolution p) {
    using Policy = typename C::Policy;
    const Section& section = section_of(p.tables, p.section);
    const int rows = p.geometry.tile_positions;
    const auto shared = set_up_shared<C, C::kTogether>(p, section.jobs[p.job_list], C::slot_bytes(rows));

    // Blocks that read the same tile of positions run next to each other.
    const unsigned block = block_index();
    const int column_block = static_cast<int>(block % p.column_blocks);
    const int group = static_cast<int>(block / p.column_blocks % p.groups);
    const Origin origin = tile_origin(p.geometry, block / p.column_blocks / p.groups);
    const int warp = thread_index() / 32;
    const auto* jobs =
        reinterpret_cast<const Job*>(shared_memory() + keep(p.shared_jobs + warp % p.warps * C::kSlots * static_cast<int>(sizeof(Job))));
    const int first_row = warp / p.warps * C::kRowTiles * 16;

    if (p.geometry.staged) fill_pixel_offsets(p.geometry, p.in, origin, shared.pixel_offsets);
    __syncthreads();

    const Transformer transformer = Transformer::of<C>(p);
    const auto transform = [&](const Step& step, int a) {
        if (p.geometry.staged && step.step == 0) {  // every thread is past the transforms of the previous chunk
            const int fields = step.fields(p);
            if constexpr (C::kStraightLine)
                if (step.first_field == 0 || fields < p.chunk) list_pairs<C>(p, fields, shared.pairs);
            stage_tile(p, origin, group * p.in_fields + step.first_field, fields, shared.pixel_offsets, shared.tile);
            wait_for_copies();
            __syncthreads();
        }
        if constexpr (C::kStraightLine)
            transform_step<C>(p, section, shared.taps(), transformer, step.step, rows, a);
        else
            transform_step_generic<C>(p, section, origin, group, step, shared, shared.a + a);
    };

    Accumulators<C> acc;
    clear<C>(acc);
    // With two buffers of A the products follow one step behind: they alternate, and so do those of B. What is written next begins at
    // `a` and `b`.
    const bool behind = p.buffers == 2;
    int a = 0, b = 0;
    const char* weights = p.weights + group * p.steps * p.weights_step + static_cast<int64_t>(column_block) * p.b_bytes;
    const int left = keep(first_row * kRowBytes + Policy::first_a()), right = keep(p.shared_b + Policy::first_b());
    const int first_weight = keep(thread_index() * 16);
    Step step{0, 0};
    for (int i = 0; i < p.steps + behind; ++i) {
        if (i < p.steps) {
            fetch_weights(p, weights, first_weight, shared_memory() + p.shared_b + b);
            weights += p.weights_step;
            transform(step, a);
            step.advance(p);
        }
        if (!behind) {
            wait_for_copies();
            __syncthreads();
        }
        if (i >= behind)
            multiply<C>(p, jobs, shared_memory() + left + (p.a_other - a), shared_memory() + right + (behind ? p.b_bytes - b : b), acc);
        a = p.a_other - a, b = p.b_bytes - b;
        wait_for_copies();
        __syncthreads();
    }

    using Accumulator = typename Policy::Accumulator;
    const int pitch = rows + 4;
    Accumulator* blocks = reinterpret_cast<Accumulator*>(shared.a);
    const bool pairs = C::kPairs && p.out_pairs;
    auto* position =
        result_of_row<typename Policy::Storage>(p, origin, pairs ? 2 * thread_index() & (rows - 1) : thread_index() & (rows - 1));
#pragma unroll 1
    for (int n = 0; n < p.column_tiles; ++n) {
#pragma unroll
        for (int s = 0; s < C::kSlots; ++s) {
            const int slot = jobs[s].slot;
            if (slot < 0) continue;
#pragma unroll
            for (int tile = 0; tile < C::kColumnTiles; ++tile) {
                if (tile != n) continue;  // registers have no run-time index
#pragma unroll
                for (int m = 0; m < C::kRowTiles; ++m)
#pragma unroll
                    for (int i = 0; i < 4; ++i)
                        blocks[(slot * kColumnTile + fragment_column(i)) * pitch + first_row + m * 16 + fragment_row(i)] =
                            acc[s][m][tile][i];
            }
        }
        __syncthreads();
        const int first_field = (column_block * p.column_tiles + n) * kColumnTile;
        if constexpr (C::kPairs)
            if (pairs) finish_columns<C, 2>(p, section, position, group, first_field, shared.a);
        if (!pairs) finish_columns<C, 1>(p, section, position, group, first_field, shared.a);
        __syncthreads();
    }
}

// ---- the weight gradient
// -----------------------------------------------------------------------------------------------------------------------

// Operand A: rows are (field, tap orbit) pairs, orbit fastest; the inner index runs over the positions of a tile.
template <class C>
DEVICE void transform_taps(const WeightGradient& p, const Section& section, const Origin& origin, int group, int first_row, int first_field,
                           int first_position, const Shared<C, 1>& shared, char* a) {
    using Policy = typename C::Policy;
    using Word = typename Policy::Word;
    constexpr int kWords = 32 / sizeof(Word);
    const int rows = p.row_warps * C::kRowTiles * 16;
    for (int i = thread_index(); i < rows * kWords; i += thread_count()) {
        const int outer = i / 32;
        const int word = i % 4 + outer % (kWords / 4) * 4, row = i / 4 % 8 + outer / (kWords / 4) * 8;
        const int position = first_position + word * Policy::kPerWord;
        const auto store = [&](int slot, Word value) {
            *reinterpret_cast<Word*>(a + (slot * rows + row) * kRowBytes + word * sizeof(Word)) = value;
        };
        if constexpr (C::kStraightLine) {
            const auto taps = shared.taps();
            const Pair pair = taps.pairs[row];
            const auto values = [&](int half, typename Policy::Accumulator(&v)[C::Program::order]) {
                if (pair.channel >= 0 && position_exists(p.geometry, origin, position + half)) {
                    taps.transform(section, pair, taps.positions[position + half], &v);
                } else {
#pragma unroll
                    for (int h = 0; h < C::Program::order; ++h) v[h] = 0;
                }
            };
            pack_slots<Policy, C::Program::order>(values, store);
        } else {
            const int pair = first_row + row, field = pair / p.orbits, t = pair - field * p.orbits;
            const auto exists = [&](int half) { return field < p.in_fields && position_exists(p.geometry, origin, position + half); };
            const auto orbit = [&](int) { return t; };
            const auto item = [&](int half) {
                return make_reader<Policy>(p, origin, position + half, t, group * p.in_fields + field, group * p.in_fields + first_field,
                                           shared.tile, shared.offsets);
            };
            transform_word_generic<Policy>(p, section, exists, item, orbit, store);
        }
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
                    into_range<Policy>(v, section.synthesis_scale);
                } else {
#pragma unroll
                    for (int h = 0; h < kSlotBlock; ++h) v[h] = widen(from[h * p.gradient.source]);
                    into_range<Policy>(v, section.synthesis_scale);
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
    const int rows = p.row_warps * C::kRowTiles * 16;
    const auto shared = set_up_shared<C, 1>(p, section.weight_jobs[p.job_list], rows * kRowBytes);

    unsigned block = block_index();
    const int column_block = static_cast<int>(block % p.column_blocks);
    block /= p.column_blocks;
    const int row_block = static_cast<int>(block % p.row_blocks);
    block /= p.row_blocks;
    const int group = static_cast<int>(block % p.groups), split = static_cast<int>(block / p.groups);

    const int first_row = row_block * rows, first_column = column_block * p.column_tiles * kColumnTile;
    const int first_field = first_row / p.orbits;
    const int fields = p.in_fields - first_field < p.tile_fields ? p.in_fields - first_field : p.tile_fields;
    const int a_bytes = p.slots * rows * kRowBytes, b_bytes = p.column_tiles * p.weight_slots * kColumnTileBytes;
    const int warp = thread_index() / 32;
    const Job* jobs = shared.jobs + warp % p.warps * C::kSlots;
    const int warp_row = warp / p.warps * C::kRowTiles * 16;

    if constexpr (C::kStraightLine)
        for (int i = thread_index(); i < rows; i += thread_count()) {
            const int field = (first_row + i) / p.orbits, orbit = first_row + i - field * p.orbits;
            const int channel = (field - first_field) * p.geometry.channel_pitch * static_cast<int>(sizeof(typename Policy::Storage));
            shared.pairs[i] = {field < p.in_fields ? channel : -1, orbit * p.length * 4};
        }

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
    const int lag = p.buffers - 1;
    for (int64_t i = 0; i < steps + lag; ++i) {
        if (i < steps) transform(i);
        if (lag == 0) __syncthreads();
        if (i >= lag) {
            const int buffer = lag ? static_cast<int>((i - lag) % 2) : 0;
            multiply<C>(p, jobs, shared.a + buffer * a_bytes + warp_row * kRowBytes + Policy::first_a(),
                        shared.b + buffer * b_bytes + Policy::first_b(), acc);
        }
        __syncthreads();
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

}  // namespace cuda
}  // namespace isotypic
