// The products of weight_linear.cu, whose header says what a block owns and what the floors are.
#pragma once

#include "cuda/weight_linear_pool.cuh"
#include "cuda/weight_linear_product.cuh"

namespace isotypic {
namespace cuda {
namespace {

constexpr int kTileRows = 128;  // of a tile of multiply_nodes and affine_tiles
constexpr int kPositions = 64;  // at a time in outer_tiles
constexpr int kOuterBlocks =
    512;  // of a matrix in outer_tiles, runs times tiles: a fixed number, so that results do not depend on the device
constexpr int kLeastPositions = 128;  // of a run

template <class A>
constexpr size_t tile_bytes() {
    return sizeof(A) * kSide * (pitch_of<A>(kTileRows) + pitch_of<A>(kSide));
}
template <class A>
constexpr size_t outer_bytes() {
    return sizeof(A) * 2 * kPositions * pitch_of<A>(kSide) + sizeof(int64_t) * kPositions;
}

// A tile of 128 x 32 outputs: those of a thread are rows row() .. + 3 and columns column() .. + 3, so that a warp reads 4 vectors of the
// left operand and 8 of the right one.
template <class A>
struct Tile {
    A* left;
    A* right;
    A sum[4][4];

    DEVICE Tile() : left(reinterpret_cast<A*>(shared_memory())), right(left + kSide * pitch_of<A>(kTileRows)), sum{} {}
    static DEVICE int row() { return thread_index() / (kSide / 4) * 4; }
    static DEVICE int column() { return thread_index() % (kSide / 4) * 4; }
    DEVICE void multiply(int depth) {
        multiply_tile(sum, left + row(), pitch_of<A>(kTileRows), right + column(), pitch_of<A>(kSide), depth < kSide ? depth : kSide);
    }
};

// terms (B, rows, N) = pooled (B, rows, C) times the matrices of the labels and the global one, plus the bias. Block: (label, 128 rows (b,
// r), 32 columns (t, n)). Transposed, the weight's matrices and its pairs of slots are.
struct NodeTiles {
    int64_t first[kMaxWeightLayers + 3];  // of a label; the global vector is the last
};

template <class T>
__global__ void __launch_bounds__(kThreads, sizeof(Compute<T>) == 4 ? 3 : 2)
    multiply_nodes(WeightPlan plan, NodeTiles tiles, const Compute<T>* pooled, const T* weight, const T* bias, bool transposed,
                   Compute<T>* terms, int64_t batch, int C, int N) {
    using A = Compute<T>;
    Tile<A> tile;
    int64_t* offsets = reinterpret_cast<int64_t*>(tile.right + kSide * pitch_of<A>(kSide));  // rows of the pooled tensor
    const int64_t block = block_index();
    int label = 0;
    while (block >= tiles.first[label + 1]) ++label;
    const bool global = label == plan.node_count;
    const int slots = global ? plan.global_slots : plan.nodes[label].slots, width = global ? 1 : plan.nodes[label].width;
    const int offset = global ? plan.global_offset : plan.nodes[label].offset;
    const int64_t parameter = global ? plan.global_parameter : plan.nodes[label].parameter;
    const unsigned column_tiles = (slots * N + kSide - 1) / kSide, local = static_cast<unsigned>(block - tiles.first[label]);
    const int64_t first_row = static_cast<int64_t>(local / column_tiles) * kTileRows;
    const int first_column = static_cast<int>(local % column_tiles) * kSide, columns = slots * N, depth = slots * C;
    if (thread_index() < kTileRows) {
        const int64_t row = first_row + thread_index(), network = row / width;
        offsets[thread_index()] = network < batch ? network * plan.rows + offset + (row - network * width) * slots : -1;
    }
    // Column (t, n) and inner index (s, c): weight[(s, t)][c, n], or weight[(t, s)][n, c].
    const unsigned c_count = C, n_count = N;
    const auto entry = [&](unsigned k, unsigned column) {
        const unsigned s = k / c_count, c = k - s * c_count, t = column / n_count, n = column - t * n_count;
        if (transposed) return widen(weight[((parameter + static_cast<int64_t>(t) * slots + s) * N + n) * C + c]);
        return widen(weight[((parameter + static_cast<int64_t>(s) * slots + t) * C + c) * N + n]);
    };
    for (int k0 = 0; k0 < depth; k0 += kSide) {
        __syncthreads();
        stage_rows<kTileRows>(tile.left, pitch_of<A>(kTileRows), line_log2(depth), [&](int row, int k) {
            const int64_t at = offsets[row];
            return at >= 0 && k0 + k < depth ? pooled[at * C + k0 + k] : A(0);
        });
        if (transposed) {
            stage_rows<kSide>(tile.right, pitch_of<A>(kSide), line_log2(kSide), [&](int column, int k) {
                return k0 + k < depth && first_column + column < columns ? entry(k0 + k, first_column + column) : A(0);
            });
        } else {
            ColumnsOnTheWay<kSide, A> right;
            right.load([&](int k, int column) {
                return k0 + k < depth && first_column + column < columns ? entry(k0 + k, first_column + column) : A(0);
            });
            right.store(tile.right, pitch_of<A>(kSide));
        }
        __syncthreads();
        tile.multiply(depth - k0);
    }
    if (depth == 0) __syncthreads();
    const int column = first_column + tile.column();
    if (column >= columns) return;
    A start[4] = {};
    if (global && bias) load_four(start, bias + column, columns - column, false);
    const bool fours = in_fours(terms, N);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const int64_t at = offsets[tile.row() + i];
        if (at < 0) continue;
#pragma unroll
        for (int j = 0; j < 4; ++j) tile.sum[i][j] += start[j];
        store_four(terms + at * N + column, tile.sum[i], columns - column, fours);
    }
}

// y (B, P, N): x mixed plus terms. Block: (network, 128 entries of one layer, its weight's and then its bias's, 32 channels).
struct EntryTiles {
    int first[kMaxWeightLayers + 1];  // of a layer
};

template <class T, class Terms>
__global__ void __launch_bounds__(kThreads, sizeof(Compute<T>) == 4 ? 3 : 2)
    affine_tiles(WeightPlan plan, EntryTiles tiles, const T* __restrict__ x, const T* __restrict__ mix, const Terms* __restrict__ terms,
                 const T* __restrict__ basis, const int64_t* sizes, bool mean, bool transposed, T* __restrict__ y, int C, int N) {
    using A = Compute<T>;
    Tile<A> tile;
    const unsigned column_tiles = (N + kSide - 1) / kSide, entry_tiles = tiles.first[plan.layers];
    const int place = static_cast<int>(block_index() / column_tiles % entry_tiles),
              first_column = static_cast<int>(block_index() % column_tiles) * kSide;
    const int64_t network = block_index() / column_tiles / entry_tiles;
    const int64_t* widths = sizes_of(plan, sizes, network);
    int index = 0;
    while (place >= tiles.first[index + 1]) ++index;
    const WeightLayer& layer = plan.layer[index];
    const int begin = layer.weight + (place - tiles.first[index]) * kTileRows, end = layer.bias + layer.rows;
    if (x && layer.mixed >= 0 && begin < layer.bias) {
        const T* values = x + (network * plan.entries + begin) * C;
        const T* matrix = mix + static_cast<int64_t>(layer.mixed) * C * N;
        const int here = layer.bias - begin;
        for (int k0 = 0; k0 < C; k0 += kSide) {
            __syncthreads();
            stage_rows<kTileRows>(tile.left, pitch_of<A>(kTileRows), line_log2(C), [&](int row, int k) {
                return row < here && k0 + k < C ? A(widen(values[static_cast<int64_t>(row) * C + k0 + k])) : A(0);
            });
            if (transposed) {
                stage_rows<kSide>(tile.right, pitch_of<A>(kSide), line_log2(kSide), [&](int column, int k) {
                    const int n = first_column + column;
                    return k0 + k < C && n < N ? A(widen(matrix[static_cast<int64_t>(n) * C + k0 + k])) : A(0);
                });
            } else {
                ColumnsOnTheWay<kSide, A> right;
                right.load([&](int k, int column) {
                    const int n = first_column + column;
                    return k0 + k < C && n < N ? A(widen(matrix[static_cast<int64_t>(k0 + k) * N + n])) : A(0);
                });
                right.store(tile.right, pitch_of<A>(kSide));
            }
            __syncthreads();
            tile.multiply(C - k0);
        }
    }

    // What is the same for all entries of the layer, then those of this thread one after the other.
    const int n = first_column + tile.column(), left = N - n;
    if (left <= 0) return;
    const int alive_rows = width_of(plan, widths, index + 1), alive_columns = width_of(plan, widths, index);
    const A by_row = mean && plan.nodes_of[index + 1] >= 0 ? A(1) / static_cast<A>(alive_rows) : A(1);
    const A by_column = mean && plan.nodes_of[index] >= 0 ? A(1) / static_cast<A>(alive_columns) : A(1);
    const bool with_basis = index == 0 && plan.rank > 0, terms_in_fours = in_fours(terms, N), y_in_fours = in_fours(y, N);
    const Terms* added = terms + network * plan.rows * N + n;
    T* to = y + network * plan.entries * N + n;
    const int first = begin + tile.row();
    int r = (first - layer.weight) / layer.columns, s = first - layer.weight - r * layer.columns;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const int entry = first + i;
        if (entry >= end) break;
        const bool bias = entry >= layer.bias;
        const int row = bias ? entry - layer.bias : r, column = bias ? -1 : s;
        const bool alive = row < alive_rows && column < alive_columns;
        A value[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) value[j] = alive ? tile.sum[i][j] : A(0);
        if (terms && alive) {
            const auto add = [&](int at, A scale) {
                A term[4];
                load_four(term, added + static_cast<int64_t>(at) * N, left, terms_in_fours);
#pragma unroll
                for (int j = 0; j < 4; ++j) value[j] += scale * term[j];
            };
            const EntryRows rows = entry_rows(plan, index, row, column);
            if (with_basis && !bias) {
                for (int j = 0; j < plan.rank; ++j) {
                    const A factor = widen(basis[static_cast<int64_t>(j) * layer.columns + column]);
                    add(rows.row + j, factor * by_column);
                    add(rows.total + j, factor * (by_column * by_row));
                }
            } else {
                if (rows.row >= 0) add(rows.row, bias ? A(1) : by_column);
                if (rows.column >= 0) add(rows.column, by_row);
                add(rows.total, bias ? by_row : by_column * by_row);
            }
        }
        store_four(to + static_cast<int64_t>(entry) * N, value, left, y_in_fours);
        if (++s == layer.columns) s = 0, ++r;
    }
}

// The gradient of a matrix of parameters: a^T g over all positions of all networks, entries of x and y in a mixed layer, neurons of what
// was pooled of x and y for a label and for the global vector. There the matrix has one row more, of ones in a: the gradient of the bias.
struct OuterMatrix {
    int layer, slots, offset, positions;
    int64_t parameter;
    int height, width, column_tiles, tiles;
    bool mixed, global;
};
HOST_DEVICE inline OuterMatrix outer_matrix(const WeightPlan& plan, int part, int C, int N) {
    OuterMatrix m{};
    m.mixed = part < plan.mixed, m.slots = m.positions = 1;
    const int label = part - plan.mixed;
    m.global = label == plan.node_count;
    if (m.mixed) {
        while (plan.layer[m.layer].mixed != part) ++m.layer;
        m.offset = plan.layer[m.layer].weight, m.parameter = part;
        m.positions = plan.layer[m.layer].rows * plan.layer[m.layer].columns;
    } else if (m.global) {
        m.slots = plan.global_slots, m.offset = plan.global_offset, m.parameter = plan.global_parameter;
    } else {
        m.slots = plan.nodes[label].slots, m.offset = plan.nodes[label].offset, m.parameter = plan.nodes[label].parameter;
        m.positions = plan.nodes[label].width;
    }
    m.height = m.slots * C + m.global, m.width = m.slots * N;
    m.column_tiles = parts_of(m.width, kSide), m.tiles = m.column_tiles * parts_of(m.height, kSide);
    return m;
}
struct OuterTiles {
    int parts;                            // mixed layers, labels, the global vector
    int first[2 * kMaxWeightLayers + 4];  // block of each: `tiles` for every run over positions
};

// partial[block][32][32]. Block: (matrix, run of positions, tile). Four groups of 64 threads share the positions, a thread has 4 x 4
// outputs.
template <class T>
__global__ void __launch_bounds__(kThreads, sizeof(Compute<T>) == 4 ? 3 : 2)
    outer_tiles(WeightPlan plan, OuterTiles tiles, const T* __restrict__ x, const T* __restrict__ y, const Compute<T>* __restrict__ pooled,
                const Compute<T>* __restrict__ summed, const int64_t* sizes, Compute<T>* __restrict__ partial, int64_t batch, int C,
                int N) {
    using A = Compute<T>;
    constexpr int kPitch = pitch_of<A>(kSide), kGroups = 4, kOfGroup = kPositions / kGroups;
    A *left = reinterpret_cast<A*>(shared_memory()), *right = left + kPositions * kPitch;
    int64_t* lines = reinterpret_cast<int64_t*>(right + kPositions * kPitch);  // of x and y, or of what was pooled; -1 where there is none
    int part = 0;
    while (static_cast<int>(block_index()) >= tiles.first[part + 1]) ++part;
    const OuterMatrix m = outer_matrix(plan, part, C, N);
    const int runs = (tiles.first[part + 1] - tiles.first[part]) / m.tiles, local = static_cast<int>(block_index()) - tiles.first[part];
    const int run = local / m.tiles, tile = local % m.tiles;
    const int first_row = tile / m.column_tiles * kSide, first_column = tile % m.column_tiles * kSide;
    const int64_t total = batch * m.positions, begin = total * run / runs, end = total * (run + 1) / runs;
    const auto find_lines = [&](int64_t p0) {
        const int64_t p = p0 + thread_index();
        if (thread_index() >= kPositions) return;
        int64_t line = -1;
        if (p < end) {
            const int64_t network = p / m.positions;
            const int position = static_cast<int>(p - network * m.positions);
            bool alive = true;
            if (m.mixed && sizes) {
                const int64_t* widths = sizes_of(plan, sizes, network);
                const int columns = plan.layer[m.layer].columns;
                alive = position / columns < width_of(plan, widths, m.layer + 1) && position % columns < width_of(plan, widths, m.layer);
            }
            if (alive) line = network * (m.mixed ? plan.entries : plan.rows) + m.offset + static_cast<int64_t>(position) * m.slots;
        }
        lines[thread_index()] = line;
    };

    const int group = thread_index() / (kThreads / kGroups), within = thread_index() % (kThreads / kGroups);
    const int row = within / (kSide / 4) * 4, column = within % (kSide / 4) * 4;
    A sum[4][4] = {};
    find_lines(begin);
    for (int64_t p0 = begin; p0 < end; p0 += kPositions) {
        __syncthreads();
        ColumnsOnTheWay<kPositions, A> a, g;
        a.load([&](int k, int i) {
            const int64_t line = lines[k];
            const int at = first_row + i;
            if (line < 0 || at >= m.height) return A(0);
            if (m.mixed) return A(widen(x[line * C + at]));
            return at < m.slots * C ? pooled[line * C + at] : A(1);
        });
        g.load([&](int k, int i) {
            const int64_t line = lines[k];
            const int at = first_column + i;
            if (line < 0 || at >= m.width) return A(0);
            return m.mixed ? A(widen(y[line * N + at])) : summed[line * N + at];
        });
        a.store(left, kPitch), g.store(right, kPitch);
        __syncthreads();
        find_lines(p0 + kPositions);
        multiply_tile(sum, left + group * kOfGroup * kPitch + row, kPitch, right + group * kOfGroup * kPitch + column, kPitch, kOfGroup);
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) left[(group * kSide + row + i) * kSide + column + j] = sum[i][j];
    __syncthreads();
    A* to = partial + static_cast<int64_t>(block_index()) * kSide * kSide;
    for (int i = thread_index(); i < kSide * kSide; i += kThreads) {
        A value = 0;
#pragma unroll
        for (int k = 0; k < kGroups; ++k) value += left[k * kSide * kSide + i];
        to[i] = value;
    }
}

// The sums of the partial sums: out is (parameters C, N), then the bias's slots of g. Block: 32 columns of one row of a tile; its eight
// warps share the runs, and are added in their order.
template <class T>
__global__ void __launch_bounds__(kThreads)
    sum_partials(WeightPlan plan, OuterTiles tiles, const Compute<T>* partial, int C, int N, T* out) {
    using A = Compute<T>;
    A* shared = reinterpret_cast<A*>(shared_memory());
    const int lane = thread_index() % kSide, warp = thread_index() / kSide, line = static_cast<int>(block_index() % kSide);
    int tile = static_cast<int>(block_index() / kSide), part = 0;
    OuterMatrix m = outer_matrix(plan, 0, C, N);
    while (tile >= m.tiles) tile -= m.tiles, m = outer_matrix(plan, ++part, C, N);
    const int row = tile / m.column_tiles * kSide + line, column = tile % m.column_tiles * kSide + lane;
    if (row >= m.height) return;
    const int runs = (tiles.first[part + 1] - tiles.first[part]) / m.tiles;
    const A* from = partial + (static_cast<int64_t>(tiles.first[part] + tile) * kSide + line) * kSide + lane;
    A sum = 0;
#pragma unroll 8
    for (int run = warp; run < runs; run += kThreads / kSide) sum += from[static_cast<int64_t>(run) * m.tiles * kSide * kSide];
    shared[thread_index()] = sum;
    __syncthreads();
    if (warp > 0 || column >= m.width) return;
    for (int w = 1; w < kThreads / kSide; ++w) sum += shared[w * kSide + lane];
    if (row == m.slots * C) {
        out[plan.parameters() * C * N + column] = narrow<T>(sum);
    } else {
        const int64_t matrix = m.parameter + static_cast<int64_t>(row / C) * m.slots + column / N;
        out[(matrix * C + row % C) * N + column % N] = narrow<T>(sum);
    }
}

}  // namespace
}  // namespace cuda
}  // namespace isotypic
