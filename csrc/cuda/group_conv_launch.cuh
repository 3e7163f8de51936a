// From a plan and sizes to launches: which configuration, which tile of positions, what goes where in shared memory and in the workspace.
// Tiles and chunks follow from the shared memory of a block, and with them the order of sums: devices with equal limits have equal results,
// others differ by rounding.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <limits>

#include "cuda/group_conv_kernels.cuh"
#include "cuda/group_conv_weights.cuh"

namespace isotypic {
namespace cuda {

constexpr int kBlocksInFlight = 528;        // of the weight gradient
constexpr int kOffsetsInShared = 8 * 1024;  // bytes; longer lists of taps are read through the cache
constexpr int kAlignment = 256;

inline int64_t divide_up(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}
inline int64_t round_up(int64_t a, int64_t b) {
    return divide_up(a, b) * b;
}
inline int floor_power_of_two(int a) {
    int power = 1;
    while (power * 2 <= a) power *= 2;
    return power;
}

// Calls visit(Configuration{}) with the kernels for `slots` blocks of accumulators until one finds room and returns true: those of the
// plan's straight-line transform, where there is one, then the generic ones, which need not stage their tile. The accumulators of a thread
// are SlotsPerWarp x RowTiles x ColumnTiles x 4.
template <class Policy, class Visit>
void with_configuration(const GroupConvPlan& plan, int slots, const char* name, const Visit& visit) {
    if constexpr (sizeof(typename Policy::Accumulator) == 4) {
        const std::string program = regular(plan) ? plan.fourier : "";
        if (program == fourier::P4::name && visit(Configuration<Policy, fourier::P4, 2, 2, 4, 256, 2>{})) return;
        if (program == fourier::P4m::name && visit(Configuration<Policy, fourier::P4m, 2, 2, 4, 256, 2>{})) return;
        if (program == fourier::P6m::name && visit(Configuration<Policy, fourier::P6m, 3, 2, 2, 256, 2>{})) return;
        if (program == fourier::O::name && visit(Configuration<Policy, fourier::O, 3, 2, 2, 256, 2>{})) return;
        if (program == fourier::Oh::name && visit(Configuration<Policy, fourier::Oh, 6, 2, 2, 256, 1>{})) return;
    }
    if (slots > 8 * 16)
        throw std::runtime_error(std::string(name) +
                                 ": the CUDA kernels serve groups whose blocks have at most 128 entries, this one has " +
                                 std::to_string(slots) + "; use the CPU");
    const bool found = slots <= 3 * 8 ? visit(Configuration<Policy, Generic, 3, 2, 2, 256, 1>{})
                                      : visit(Configuration<Policy, Generic, 8, 1, 1, 512, 1>{});
    if (!found)
        throw std::runtime_error(std::string(name) + ": a group of order " + std::to_string(plan.order) +
                                 " needs more shared memory than this device has; use the CPU");
}

template <class C>
constexpr int job_list() {
    for (int i = 0; i < 4; ++i)
        if (kSlotsPerWarp[i] == C::kSlots) return i;
    return -1;
}

// A field (B, C, sources, s0, s1, s2).
inline Field field_of(const View& view) {
    Field field{};
    field.data = view.data;
    field.batch = view.strides[0], field.field = view.strides[1], field.source = view.strides[2];
    for (int i = 0; i < 3; ++i) field.axis[i] = view.strides[3 + i], field.size[i] = static_cast<int>(view.sizes[3 + i]);
    return field;
}

// Where the taps of position p lie: x at stride p - padding + dilation tap; for the adjoint, y at (p + padding - dilation (k - 1) +
// dilation tap) / stride, or with the taps mirrored, (p + padding - dilation tap) / stride.
inline Geometry geometry_of(const GroupConvSizes& sizes, bool adjoint, bool mirrored, bool runs, const char* name) {
    Geometry g{};
    for (int i = 0; i < 3; ++i) {
        const int64_t reach = sizes.dilation[i] * (sizes.kernel[i] - 1);
        const int64_t size = adjoint ? sizes.in_size[i] : sizes.out_size[i];
        if (std::max({size, reach, sizes.in_size[i], sizes.out_size[i], (sizes.out_size[i] + 1) * sizes.stride[i] + sizes.padding[i]}) >
            INT32_MAX / 4)
            throw std::runtime_error(std::string(name) + ": a spatial size is too large for the CUDA kernels");
        g.positions[i] = static_cast<int>(size);
        g.stride[i] = adjoint ? 1 : static_cast<int>(sizes.stride[i]);
        g.up[i] = adjoint ? static_cast<int>(sizes.stride[i]) : 1;
        g.low[i] = static_cast<int>(adjoint ? sizes.padding[i] - reach : -sizes.padding[i]);
        g.tap_scale[i] = static_cast<int>(mirrored ? -sizes.dilation[i] : sizes.dilation[i]);
        g.tap_shift[i] = static_cast<int>(mirrored ? reach : 0);
        g.extent[i] = static_cast<int>(reach);  // of one position, less one; choose_tile adds the others
    }
    // Rows of a tile begin at a whole run: taps lie behind by what the first position does.
    const int64_t row = adjoint ? sizes.out_size[2] : sizes.in_size[2];
    g.whole_runs = runs && g.up[2] == 1 && row % kRun == 0;
    if (g.whole_runs) {
        const int lead = (g.low[2] % kRun + kRun) % kRun;
        g.low[2] -= lead, g.tap_shift[2] += lead, g.extent[2] += lead;
    }
    return g;
}

constexpr double kMostPixels = 1 << 20;  // more than any shared memory holds: such tiles are read where they lie, whatever is counted here

// The tile of `positions` positions that reads the fewest pixels in all, with long rows for coalesced access.
inline void choose_tile(Geometry& g, int positions, int orbits) {
    const Geometry base = g;
    double best = std::numeric_limits<double>::infinity();
    for (int t0 = 1; t0 <= positions; t0 *= 2)
        for (int t1 = 1; t0 * t1 <= positions; t1 *= 2) {
            const int tile[3] = {t0, t1, positions / t0 / t1};
            if (base.whole_runs && base.stride[2] * tile[2] % kRun != 0) continue;
            double pixels = 1, tiles = 1;
            int64_t extent[3];
            for (int i = 0; i < 3; ++i) {
                extent[i] = int64_t{base.stride[i]} * (tile[i] - 1) + base.extent[i] + 1;
                if (i == 2 && base.whole_runs) extent[i] = round_up(extent[i], kRun);
                pixels *= static_cast<double>(extent[i]);
                tiles *= static_cast<double>(divide_up(base.positions[i], tile[i]));
            }
            const int row = std::min(tile[2], base.positions[2]);
            const double cost = tiles * (pixels + static_cast<double>(positions) * orbits) * (row < 8 ? 1.25 : row < 16 ? 1.05 : 1);
            if (cost >= best) continue;
            best = cost;
            g.pixels = static_cast<int>(std::min(pixels, kMostPixels));
            for (int i = 0; i < 3; ++i) {
                g.tile_log2[i] = 0;
                while (1 << g.tile_log2[i] < tile[i]) ++g.tile_log2[i];
                g.tiles[i] = static_cast<int>(divide_up(base.positions[i], tile[i]));
                g.extent[i] = static_cast<int>(extent[i]);
            }
        }
    g.tile_positions = positions;
}

// How `threads` threads copy the runs of a tile, where they can.
inline void divide_runs(Geometry& g, const Field& in, int sources, int threads, int64_t itemsize) {
    const auto whole = [](int64_t stride) { return stride % kRun == 0; };
    g.runs = g.whole_runs && g.staged && in.axis[2] == 1 && whole(in.axis[0]) && whole(in.axis[1]) && whole(in.source) && whole(in.field) &&
             whole(in.batch) && reinterpret_cast<uintptr_t>(in.data) % (kRun * itemsize) == 0;
    const int items = std::max(1, g.pixels / kRun * sources);
    g.item_reciprocal = static_cast<unsigned>(divide_up(1 << 20, items));
    g.channels_together = static_cast<unsigned>(std::max(1, threads / items));
}

// A channel of a staged tile ends where the next one's banks follow those of 8 pixels.
inline int channel_pitch(int elements, int itemsize) {
    const int64_t step = itemsize == 2 ? 4 : 8;
    return static_cast<int>(round_up(std::max<int64_t>(elements - step, 0), 32) + step);
}

// Places the parts of shared memory after A and B, which together hold at least `least` bytes; returns the bytes in all.
template <class C>
size_t place_shared(Common& p, int64_t a_bytes, int64_t b_bytes, int64_t least, int64_t pairs, int64_t tile_bytes) {
    const int64_t offset_bytes = static_cast<int64_t>(p.orbits) * p.length * 4;
    p.offsets_in_shared = p.geometry.staged && (C::kStraightLine || offset_bytes <= kOffsetsInShared);
    int64_t end = std::max(a_bytes + b_bytes, least);
    const auto place = [&](int& where, int64_t bytes) {
        where = static_cast<int>(std::min<int64_t>(end, INT32_MAX));
        end = round_up(end + bytes, 16);
    };
    p.shared_b = static_cast<int>(a_bytes);
    place(p.shared_jobs, p.warps * C::kSlots * static_cast<int64_t>(sizeof(Job)));
    place(p.shared_offsets, p.offsets_in_shared ? offset_bytes : 0);
    place(p.shared_positions, C::kStraightLine ? int64_t{4} * p.geometry.tile_positions : 0);
    place(p.shared_pairs, C::kStraightLine ? pairs * static_cast<int64_t>(sizeof(Pair)) : 0);
    place(p.shared_pixels, p.geometry.staged ? int64_t{8} * p.geometry.pixels : 0);
    place(p.shared_tile, p.geometry.staged ? tile_bytes : 0);
    return static_cast<size_t>(std::min<int64_t>(end, INT32_MAX));
}

template <class C>
void set_common(Common& p, const GroupConvPlan& plan, const GroupConvSizes& sizes, bool adjoint) {
    const SectionSizes section = section_sizes(plan, adjoint);
    p.section = adjoint;
    p.job_list = job_list<C>();
    p.slots = section.slots, p.weight_slots = section.weight_slots, p.orbits = section.orbits, p.length = section.length,
    p.outputs = section.outputs;
    p.sources = adjoint ? plan.order : plan.sources;
    p.groups = static_cast<int>(sizes.groups);
    p.in_fields = static_cast<int>((adjoint ? sizes.out_fields : sizes.in_fields) / sizes.groups);
    p.out_fields = static_cast<int>((adjoint ? sizes.in_fields : sizes.out_fields) / sizes.groups);
    p.batch = static_cast<int>(sizes.batch);
    p.column_tiles = 1;
    while (p.column_tiles < C::kColumnTiles && p.column_tiles * kColumnTile < p.out_fields) p.column_tiles *= 2;
}

struct Launch {
    int64_t grid = 0;
    int block = 0;
    size_t shared = 0;
    int64_t workspace = 0;
};

// Counted as a double, because a product of sizes may exceed an int64; kernels divide a grid as an unsigned.
inline int64_t grid_size(double blocks, const char* name) {
    if (blocks > INT32_MAX) throw std::runtime_error(std::string(name) + ": the call is too large for one CUDA launch");
    return static_cast<int64_t>(blocks);
}

// A call without blocks would leave its result as it was.
inline void check_grid(const Launch& launch, const View& result, const char* name) {
    if (launch.grid == 0 && result.numel() > 0) throw std::runtime_error(std::string(name) + ": no tile of positions serves this call");
}

inline void check_workspace(const Launch& launch, const Context& context, const char* name) {
    if (context.workspace_bytes < launch.workspace)
        throw std::runtime_error(std::string(name) + ": the workspace must have " + std::to_string(launch.workspace) + " bytes, got " +
                                 std::to_string(context.workspace_bytes));
}

// Whether two neighbours of the last axis, from an even one on, exist both and lie in one aligned word.
inline bool in_pairs(const Field& out, const Geometry& g, int64_t itemsize) {
    const auto even = [](int64_t stride) { return stride % 2 == 0; };
    return g.tile_log2[2] > 0 && out.size[2] % 2 == 0 && out.axis[2] == 1 && even(out.axis[0]) && even(out.axis[1]) && even(out.source) &&
           even(out.field) && even(out.batch) && reinterpret_cast<uintptr_t>(out.data) % (2 * itemsize) == 0;
}

// ---- the convolution and its adjoint in x
// ------------------------------------------------------------------------------------------------------

// Chunks of fields: the inner index is cut into steps within each, so a chunk whose taps fill whole steps wastes nothing. The last chunk is
// filled up to a multiple of the fields that lie together.
template <class C>
void set_chunk(Convolution& p, int chunk) {
    constexpr int kStep = C::Policy::kStep;
    p.chunk = chunk;
    p.chunks = static_cast<int>(divide_up(p.in_fields, chunk));
    p.steps_of_chunk = static_cast<int>(divide_up(static_cast<int64_t>(p.orbits) * chunk, kStep));
    const int last = static_cast<int>(round_up(p.in_fields - (p.chunks - 1) * chunk, C::kTogether));
    p.reciprocal = ((uint64_t{1} << 32) + chunk - 1) / chunk;
    p.last_reciprocal = last > 0 ? ((uint64_t{1} << 32) + last - 1) / last : 0;
    p.steps = (p.chunks - 1) * p.steps_of_chunk + static_cast<int>(divide_up(static_cast<int64_t>(p.orbits) * last, kStep));
}

// False where shared memory has no room.
template <class C>
bool plan_convolution(const GroupConvPlan& plan, const GroupConvSizes& sizes, bool adjoint, const char* name, Convolution& p,
                      Launch& launch) {
    using Policy = typename C::Policy;
    set_common<C>(p, plan, sizes, adjoint);
    // With rows of whole runs, where they can be, and without: those take a little less room.
    Geometry shapes[2];
    for (bool plain : {false, true})
        shapes[plain] = geometry_of(sizes, adjoint, adjoint && !regular(plan), !plain && sizeof(typename Policy::Storage) <= 4, name);
    const int first_shape = shapes[0].whole_runs ? 0 : 1;
    p.warps = static_cast<int>(divide_up(p.slots, C::kSlots));
    p.row_warps = floor_power_of_two(std::max(1, 8 / p.warps));
    double positions = 1;
    for (int i = 0; i < 3; ++i) positions *= shapes[1].positions[i];
    while (p.row_warps > 1 && p.row_warps * C::kRowTiles * 8 >= positions) p.row_warps /= 2;
    const int rows = p.row_warps * C::kRowTiles * 16;
    constexpr int kPixelBytes = sizeof(Pixel<typename Policy::Storage, C::kTogether>);
    for (Geometry& shape : shapes) {
        choose_tile(shape, rows, p.orbits);
        shape.channel_pitch = channel_pitch(p.sources * shape.pixels, kPixelBytes);
    }

    // Two blocks on a multiprocessor come first, then a second buffer for A; a tile that cannot be staged is the last resort.
    const size_t limit = shared_memory_limit(name), half = std::min(limit, (limit + 1024) / 2 - 1024);
    launch.block = 32 * p.warps * p.row_warps;
    const int64_t a_bytes = int64_t{p.slots} * C::slot_bytes(rows);
    const auto fits = [&](bool staged, int buffers, int chunk, size_t budget) {
        p.geometry.staged = staged, p.buffers = buffers;
        set_chunk<C>(p, chunk);
        // The accumulators of 8 fields pass through the space of A and B in the end.
        const int64_t finish_bytes = int64_t{p.slots} * kColumnTile * (rows + 4) * sizeof(typename Policy::Accumulator);
        launch.shared = place_shared<C>(p, buffers * a_bytes, int64_t{2} * p.column_tiles * p.weight_slots * kColumnTileBytes, finish_bytes,
                                        int64_t{p.steps_of_chunk} * Policy::kStep / C::kTogether,
                                        int64_t{chunk} / C::kTogether * p.geometry.channel_pitch * kPixelBytes);
        return launch.shared <= budget;
    };
    // The chunk within the budget that takes the fewest steps, up to a tenth more than the fewest possible.
    const auto find = [&](bool staged, int buffers, size_t budget) {
        int best = 0, fewest = std::numeric_limits<int>::max(), fewest_possible = fewest;
        for (int chunk = C::kTogether; chunk < std::max(1, std::min(p.in_fields, 64)) + C::kTogether; chunk += C::kTogether) {
            const bool fit = fits(staged, buffers, chunk, budget);
            fewest_possible = std::min(fewest_possible, p.steps);
            if (fit && p.steps < fewest) best = chunk, fewest = p.steps;
        }
        return best && fewest <= fewest_possible * 1.1 + 1 && fits(staged, buffers, best, budget);
    };
    const auto search = [&] {
        for (size_t budget : {C::kMinBlocks > 1 ? half : limit, limit})
            for (int shape = first_shape; shape < 2; ++shape)
                for (int buffers : {2, 1}) {
                    p.geometry = shapes[shape];
                    if (find(true, buffers, budget)) return true;
                }
        for (int shape = first_shape; shape < 2; ++shape)
            for (int buffers : {2, 1}) {
                p.geometry = shapes[shape];
                for (int chunk = floor_power_of_two(std::max(C::kTogether, std::min(16, p.in_fields))); chunk >= C::kTogether; chunk /= 2)
                    if (fits(true, buffers, chunk, limit)) return true;
            }
        if (!C::kStraightLine)
            for (int buffers : {2, 1})
                if (find(false, buffers, limit)) return true;
        return false;
    };
    while (!search()) {
        if (p.column_tiles == 1) return false;
        p.column_tiles /= 2;
    }

    p.column_blocks = static_cast<int>(divide_up(p.out_fields, p.column_tiles * kColumnTile));
    p.a_other = p.buffers == 2 ? static_cast<int>(a_bytes) : 0;
    p.b_bytes = p.column_tiles * p.weight_slots * kColumnTileBytes;
    p.weights_step = int64_t{p.column_blocks} * p.b_bytes;
    p.fetch_step = launch.block * 16;
    p.next_row = launch.block / 64 * 8;
    const int64_t weight_bytes = p.groups * p.steps * p.weights_step;
    launch.workspace =
        round_up(weight_bytes, kAlignment) + round_up(int64_t{p.orbits} * p.length * (p.geometry.staged ? 4 : 16), kAlignment);
    double blocks = static_cast<double>(p.batch) * p.column_blocks * p.groups;
    for (int i = 0; i < 3; ++i) blocks *= p.geometry.tiles[i];
    launch.grid = grid_size(blocks, name);
    return true;
}

template <class Policy>
void run_convolution(const GroupConvPlan& plan, const GroupConvSizes& sizes, bool adjoint, const View& in, const View& weight,
                     const View& bias, const View& out, const Context& context, const char* name) {
    with_configuration<Policy>(plan, section_sizes(plan, adjoint).slots, name, [&](auto configuration) {
        using C = decltype(configuration);
        Convolution p{};
        Launch convolution;
        if (!plan_convolution<C>(plan, sizes, adjoint, name, p, convolution)) return false;
        check_grid(convolution, out, name);
        if (convolution.grid == 0) return true;
        check_workspace(convolution, context, name);
        p.tables = static_cast<const char*>(context.tables);
        p.in = field_of(in);
        p.out = field_of(out);
        divide_runs(p.geometry, p.in, p.sources, convolution.block, sizeof(typename Policy::Storage));
        p.out_pairs = in_pairs(p.out, p.geometry, sizeof(typename Policy::Storage));
        p.bias = bias.defined() ? bias.data : nullptr;
        p.weights = static_cast<char*>(context.workspace);
        const int64_t elements =
            int64_t{p.groups} * p.steps * p.column_blocks * p.column_tiles * p.weight_slots * Policy::kStep * kColumnTile;
        p.offsets = p.weights + round_up(elements / (Policy::kStep * kColumnTile) * kColumnTileBytes, kAlignment);

        Packing packing{};
        packing.tables = p.tables, packing.section = p.section, packing.psi = weight.data;
        packing.weights = const_cast<char*>(p.weights), packing.offsets = static_cast<int*>(const_cast<void*>(p.offsets));
        packing.groups = p.groups, packing.in_fields = p.in_fields, packing.out_fields = p.out_fields;
        // psi is (O, C / groups, weight_size): columns of the product are fields o, or c for the adjoint.
        const int64_t o_stride = sizes.in_fields / sizes.groups * plan.weight_size;
        packing.column_stride = adjoint ? plan.weight_size : o_stride;
        packing.inner_stride = adjoint ? o_stride : plan.weight_size;
        packing.group_stride = sizes.out_fields / sizes.groups * o_stride;
        packing.column_tiles = p.column_blocks * p.column_tiles;
        packing.chunk = p.chunk, packing.together = C::kTogether, packing.steps_of_chunk = p.steps_of_chunk, packing.steps = p.steps;
        packing.total = elements;
        packing.geometry = p.geometry;
        const int64_t threads = std::max<int64_t>(elements, int64_t{p.orbits} * p.length);
        launch(name, pack_weights<Policy>, divide_up(threads, 256), 256, 0, context.stream, packing);
        launch(name, convolve<C>, convolution.grid, convolution.block, convolution.shared, context.stream, p);
        return true;
    });
}

// ---- the weight gradient
// -----------------------------------------------------------------------------------------------------------------------

// False where shared memory has no room.
template <class C>
bool plan_weight_gradient(const GroupConvPlan& plan, const GroupConvSizes& sizes, const char* name, WeightGradient& p, Launch& launch) {
    using Policy = typename C::Policy;
    set_common<C>(p, plan, sizes, false);
    const Geometry bases[2] = {geometry_of(sizes, false, false, sizeof(typename Policy::Storage) <= 4, name),
                               geometry_of(sizes, false, false, false, name)};
    const int first_base = bases[0].whole_runs ? 0 : 1;
    p.warps = static_cast<int>(divide_up(p.weight_slots, C::kSlots));
    p.row_warps = floor_power_of_two(std::max(1, 8 / p.warps));
    const int64_t pairs = int64_t{p.in_fields} * p.orbits;
    while (p.row_warps > 1 && p.row_warps * C::kRowTiles * 8 >= pairs) p.row_warps /= 2;
    const int rows = p.row_warps * C::kRowTiles * 16;
    p.tile_fields = static_cast<int>(std::min<int64_t>(p.in_fields, (rows + p.orbits - 2) / p.orbits + 1));

    const size_t limit = shared_memory_limit(name), half = std::min(limit, (limit + 1024) / 2 - 1024);
    launch.block = 32 * p.warps * p.row_warps;
    const auto fits = [&](int base, bool staged, int buffers, int positions, size_t budget) {
        p.geometry = bases[base];
        choose_tile(p.geometry, positions, p.orbits);
        p.geometry.staged = staged, p.buffers = buffers;
        p.geometry.channel_pitch = channel_pitch(p.sources * p.geometry.pixels, sizeof(typename Policy::Storage));
        launch.shared = place_shared<C>(p, int64_t{buffers} * p.slots * rows * kRowBytes,
                                        int64_t{buffers} * p.column_tiles * p.weight_slots * kColumnTileBytes, 0, rows,
                                        int64_t{p.tile_fields} * p.geometry.channel_pitch * sizeof(typename Policy::Storage));
        return launch.shared <= budget;
    };
    const auto search = [&] {
        for (size_t budget : {C::kMinBlocks > 1 ? half : limit, limit})
            for (int positions : {64, 32, 16})
                for (int base = first_base; base < 2; ++base)
                    for (int buffers : {2, 1})
                        if (fits(base, true, buffers, positions, budget)) return true;
        return !C::kStraightLine && (fits(1, false, 2, 64, limit) || fits(1, false, 1, 64, limit));
    };
    while (!search()) {
        if (p.column_tiles == 1) return false;
        p.column_tiles /= 2;
    }

    p.column_blocks = static_cast<int>(divide_up(p.out_fields, p.column_tiles * kColumnTile));
    p.row_blocks = static_cast<int>(divide_up(pairs, rows));
    p.rows = p.row_blocks * rows;
    p.columns = p.column_blocks * p.column_tiles * kColumnTile;
    double tiles = p.batch;
    for (int i = 0; i < 3; ++i) tiles *= p.geometry.tiles[i];
    if (tiles > INT32_MAX) throw std::runtime_error(std::string(name) + ": the call is too large for one CUDA launch");
    const double blocks = static_cast<double>(p.groups) * p.row_blocks * p.column_blocks;
    p.splits = static_cast<int>(std::max(1.0, std::min(tiles, std::max(1.0, kBlocksInFlight / std::max(1.0, blocks)))));
    launch.grid = grid_size(blocks * p.splits, name);
    const int64_t partial = int64_t{p.groups} * p.weight_slots * p.rows * p.columns * sizeof(typename Policy::Accumulator);
    launch.workspace = round_up(partial, kAlignment) * (p.splits > 1 ? 1 : 0) + round_up(partial * p.splits, kAlignment) +
                       round_up(int64_t{p.orbits} * p.length * 16, kAlignment);
    return true;
}

template <class Policy>
void run_weight_gradient(const GroupConvPlan& plan, const GroupConvSizes& sizes, const View& x, const View& y, const View& weight,
                         const Context& context, const char* name) {
    const int slots = std::max(plan.order, section_sizes(plan, false).weight_slots);
    with_configuration<Policy>(plan, slots, name, [&](auto configuration) {
        using C = decltype(configuration);
        WeightGradient p{};
        Launch gradient;
        if (!plan_weight_gradient<C>(plan, sizes, name, p, gradient)) return false;
        check_grid(gradient, weight, name);
        if (gradient.grid == 0) return true;
        check_workspace(gradient, context, name);
        const int64_t values = int64_t{p.groups} * p.weight_slots * p.rows * p.columns;
        const int64_t partial = round_up(values * p.splits * static_cast<int64_t>(sizeof(typename Policy::Accumulator)), kAlignment);
        char* scratch = static_cast<char*>(context.workspace);
        p.tables = static_cast<const char*>(context.tables);
        p.in = field_of(x);
        p.gradient = field_of(y);
        divide_runs(p.geometry, p.in, p.sources, gradient.block, sizeof(typename Policy::Storage));
        p.partial = scratch;
        p.offsets = scratch + partial;

        Packing packing{};  // only where the taps lie
        packing.tables = p.tables, packing.geometry = p.geometry;
        packing.offsets = reinterpret_cast<int*>(scratch + partial);
        const int64_t taps = int64_t{p.orbits} * p.length;
        launch(name, pack_weights<Policy>, divide_up(taps, 256), 256, 0, context.stream, packing);
        launch(name, weight_gradient<C>, gradient.grid, gradient.block, gradient.shared, context.stream, p);

        Unpacking unpacking{};
        unpacking.tables = p.tables, unpacking.partial = p.partial, unpacking.psi = weight.data;
        unpacking.blocks = p.splits > 1 ? scratch + partial + round_up(taps * 16, kAlignment) : p.partial;
        unpacking.splits = p.splits, unpacking.groups = p.groups, unpacking.weight_slots = p.weight_slots;
        unpacking.rows = p.rows, unpacking.columns = p.columns, unpacking.in_fields = p.in_fields, unpacking.out_fields = p.out_fields;
        if (p.splits > 1) {
            unpacking.total = values;
            launch(name, sum_splits<Policy>, divide_up(values, 256), 256, 0, context.stream, unpacking);
        }
        unpacking.total = sizes.out_fields * p.in_fields * plan.weight_size;
        launch(name, unpack_weights<Policy>, divide_up(unpacking.total, 256), 256, 0, context.stream, unpacking);
        return true;
    });
}

template <class Policy>
int64_t workspace_bytes(const GroupConvPlan& plan, const GroupConvSizes& sizes, Pass pass) {
    int64_t bytes = 0;
    const SectionSizes section = section_sizes(plan, pass == Pass::transpose);
    const int slots = pass == Pass::weight ? std::max(section.slots, section.weight_slots) : section.slots;
    const char* name = pass == Pass::forward ? "group_conv" : pass == Pass::transpose ? "group_conv_transpose" : "group_conv_weight";
    with_configuration<Policy>(plan, slots, name, [&](auto configuration) {
        using C = decltype(configuration);
        WeightGradient gradient{};
        Convolution convolution{};
        Launch launch;
        const bool found = pass == Pass::weight ? plan_weight_gradient<C>(plan, sizes, name, gradient, launch)
                                                : plan_convolution<C>(plan, sizes, pass == Pass::transpose, name, convolution, launch);
        bytes = launch.workspace;
        return found;
    });
    return bytes;
}

}  // namespace cuda
}  // namespace isotypic
