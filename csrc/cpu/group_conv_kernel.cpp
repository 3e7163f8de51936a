// CPU kernels of group_conv, compiled once per instruction set. See ops/group_conv.hpp for the formula.
//
// Work goes by tiles of two vectors of output positions (32 in float32 on AVX-512). For a tile and a block of input channels,
//   1. analyse    the |G| shifted values of each (channel, tap) are loaded, transformed to irreps in registers, and written to the x panel
//                 [irrep][row][channel, tap, column][tile], which stays in L2;
//   2. multiply   one product per (irrep, row) with the packed weight into the y panel [irrep][row][out field, column][tile];
// and after the last block of channels
//   3. synthesise the y panel is transformed back in registers and stored, bias added.
// Nothing of size taps x input ever exists: the backward passes build the same panels again.
//
// Cost of one tile, in vector operations (p4m, 3x3, C fields in, O out, two vectors):
//   multiply    2 * 9 * 12 C O     multiply-adds (dense: 2 * 9 * 64 C O)
//   analyse     2 * 9 C (8 loads, 20 additions, 8 stores)
//   synthesise  2 O (8 loads, 20 additions, 8 stores)
// At one multiply-add, one addition and half a store a cycle the analysis costs 20 cycles against 12 O for its share of the products: the
// bound is 5.33x dense for large O, 4.8x at O = 16. On Zen 4 a store takes the place of 1.7 multiply-adds and the panel lies in L2, so that
// a transform takes about 38 cycles; what was tried stands in docs/kernels.md. Products read two vectors and `width` broadcasts for 2
// * width multiply-adds, so they are bound by arithmetic.
#include "cpu/group_conv_kernel.hpp"

#include "cpu/convert.hpp"
#include "cpu/group_conv_tiles.hpp"
#include "cpu/products.hpp"
#include "cpu/vec.hpp"

namespace isotypic::cpu::ISOTYPIC_ISA {
namespace {

ISOTYPIC_INLINE int64_t round_up(int64_t n, int64_t m) {
    return (n + m - 1) / m * m;
}

// Hands out pieces of the workspace, each on its own cache lines.
template <class T>
struct Arena {
    T* next;
    int64_t used = 0;
    template <class U>
    U* take(int64_t count) {
        const int64_t elements = round_up(static_cast<int64_t>(count * sizeof(U) + sizeof(T) - 1) / sizeof(T), 64 / sizeof(T));
        U* p = reinterpret_cast<U*>(next + used);
        used += elements;
        return p;
    }
};

template <class T>
Tables<T> make_tables(const GroupConvCall& p, Arena<T>& arena, bool fill) {
    int64_t reads = 0, rows = 0, longest = p.order;
    for (int t = 0; t < p.orbit_count; ++t) {
        reads += p.orbits[t].length, rows += p.orbits[t].analysis_rows;
        longest = larger(longest, p.orbits[t].length);
    }
    Tables<T> tables;
    tables.offset = arena.template take<int64_t>(reads);
    tables.x_row = arena.template take<int64_t>(rows);
    tables.x_step = arena.template take<int64_t>(rows);
    tables.x_next = arena.template take<int64_t>(p.rows);
    tables.y_row = arena.template take<int64_t>(p.rows);
    tables.y_step = arena.template take<int64_t>(p.rows);
    tables.values = arena.template take<Vec<T>>(longest);
    if (!fill) return tables;
    int64_t *offset = tables.offset, *x_row = tables.x_row, *x_step = tables.x_step;
    for (int t = 0; t < p.orbit_count; ++t) {
        const KernelOrbit& orbit = p.orbits[t];
        for (int h = 0; h < orbit.length; ++h) {
            const int* tap = orbit.tap + 3 * h;
            const int64_t last = p.dilation[2] * tap[2];
            *offset++ = orbit.source[h] * p.padded.plane + p.dilation[0] * tap[0] * p.padded.pitch0 +
                        p.dilation[1] * tap[1] * p.padded.pitch1 + last % p.stride[2] * p.padded.phase_pitch + last / p.stride[2];
        }
        for (int i = 0; i < orbit.analysis_rows; ++i) {
            const int rho = orbit.row_irrep[i], inner = p.irreps[rho].inner;
            *x_row++ = p.x_panel.base[rho] + (orbit.row_r[i] * p.channel_block * inner + orbit.row_k[i]) * kTile<T>;
            *x_step++ = inner * kTile<T>;
        }
    }
    for (int i = 0; i < p.rows; ++i) {
        const int rho = p.synthesis_irrep[i], dim = p.irreps[rho].dim;
        tables.y_row[i] = p.y_panel.base[rho] + (p.synthesis_r[i] * p.out_fields * dim + p.synthesis_j[i]) * kTile<T>;
        tables.x_next[i] = tables.y_step[i] = dim * kTile<T>;
    }
    return tables;
}

// ---- between tensors and padded planes ----

// Rows [first, first + rows) of axis 0 of the output are covered; coordinates outside the input read zero.
template <class T>
void pad_channels(const GroupConvCall& p, int64_t sample, int64_t channel, int64_t channels, int64_t first, int64_t rows, T* dst) {
    const PaddedLayout& layout = p.padded;
    const int64_t rows0 = (rows - 1) * p.stride[0] + p.dilation[0] * (p.kernel[0] - 1) + 1;
    const int64_t rows1 = layout.pitch0 / layout.pitch1;
    const int64_t* strides = p.x.strides;
    const bool plain_rows = p.x.dtype == kDType<T> && p.stride[2] == 1 && strides[5] == 1;
    for (int64_t c = 0; c < channels * p.sources; ++c) {
        const int64_t source = sample * strides[0] + (channel + c / p.sources) * strides[1] + c % p.sources * strides[2];
        if (p.column) {
            read_row(p.x.data, p.x.dtype, source + first * strides[3], strides[3], rows, dst + c * layout.plane);
            continue;
        }
        for (int64_t i = 0; i < rows0; ++i) {
            const int64_t i0 = first * p.stride[0] + i - p.padding[0];
            for (int64_t j = 0; j < rows1; ++j) {
                const int64_t i1 = j - p.padding[1];
                T* row = dst + c * layout.plane + i * layout.pitch0 + j * layout.pitch1;
                if (i0 < 0 || i0 >= p.in_size[0] || i1 < 0 || i1 >= p.in_size[1]) {
                    fill_zero(row, layout.pitch1);
                    continue;
                }
                const int64_t base = source + i0 * strides[3] + i1 * strides[4];
                if (plain_rows) {
                    copy_shifted(static_cast<const T*>(p.x.data) + base, p.in_size[2], p.padding[2], row, layout.pitch1);
                    continue;
                }
                for (int64_t phase = 0; phase < p.stride[2]; ++phase) {
                    // element k holds coordinate k * stride + phase - padding
                    const int64_t shift = phase - p.padding[2];
                    const int64_t begin = smaller(shift >= 0 ? 0 : (-shift + p.stride[2] - 1) / p.stride[2], layout.phase_pitch);
                    const int64_t end = larger(begin, smaller(layout.phase_pitch, (p.in_size[2] - shift + p.stride[2] - 1) / p.stride[2]));
                    T* out = row + phase * layout.phase_pitch;
                    fill_zero(out, begin);
                    if (end > begin)
                        read_row(p.x.data, p.x.dtype, base + (begin * p.stride[2] + shift) * strides[5], p.stride[2] * strides[5],
                                 end - begin, out + begin);
                    fill_zero(out + end, layout.phase_pitch - end);
                }
            }
        }
    }
}

// The reverse: the padded gradient's inside, to a contiguous x. Coordinates that no output reads are zero.
template <class T>
void unpad_channels(const GroupConvCall& p, int64_t sample, int64_t channel, int64_t channels, const T* src, T* row_buffer) {
    const PaddedLayout& layout = p.padded;
    const int64_t rows0 = layout.plane / layout.pitch0, rows1 = layout.pitch0 / layout.pitch1;
    const int64_t total = p.in_fields * p.groups * p.sources;
    for (int64_t c = 0; c < channels * p.sources; ++c)
        for (int64_t i0 = 0; i0 < p.in_size[0]; ++i0)
            for (int64_t i1 = 0; i1 < p.in_size[1]; ++i1) {
                const int64_t i = i0 + p.padding[0], j = i1 + p.padding[1];
                for (int64_t k = 0; k < p.in_size[2]; ++k) row_buffer[k] = 0;
                if (i >= 0 && i < rows0 && j >= 0 && j < rows1) {
                    const T* row = src + c * layout.plane + i * layout.pitch0 + j * layout.pitch1;
                    const int64_t width = layout.phase_pitch * p.stride[2];
                    for (int64_t k = larger(0, -p.padding[2]); k < smaller(p.in_size[2], width - p.padding[2]); ++k) {
                        const int64_t at = k + p.padding[2];
                        row_buffer[k] = row[at % p.stride[2] * layout.phase_pitch + at / p.stride[2]];
                    }
                }
                const int64_t plane = sample * total + channel * p.sources + c;
                write_row(p.x.data, p.x.dtype, ((plane * p.in_size[0] + i0) * p.in_size[1] + i1) * p.in_size[2], p.in_size[2], row_buffer);
            }
}

// Values of y at a tile of positions: in place where the tile is full and of the compute type, else in `staging` (out field, h, tile).
template <class T>
ISOTYPIC_INLINE TileValues<T> tile_values(const GroupConvCall& p, int64_t sample, int64_t group, int64_t position, int64_t count,
                                          T* staging) {
    const bool same_type = p.y.dtype == kDType<T>;
    if (count < kTile<T> || !same_type) return {staging, p.order * kTile<T>, kTile<T>};
    const int64_t first = (sample * p.groups + group) * p.out_fields * p.order;
    return {static_cast<T*>(p.y.data) + first * p.positions + position, p.order * p.positions, p.positions};
}

// y to staging, zero behind the last position.
template <class T>
void read_staged(const GroupConvCall& p, int64_t sample, int64_t group, int64_t position, int64_t count, T* staging) {
    const int64_t planes = p.out_fields * p.order, first = (sample * p.groups + group) * planes;
    for (int64_t row = 0; row < planes; ++row) {
        T* out = staging + row * kTile<T>;
        read_row(p.y.data, p.y.dtype, (first + row) * p.positions + position, 1, count, out);
        for (int64_t k = count; k < kTile<T>; ++k) out[k] = 0;
    }
}

template <class T>
void write_staged(const GroupConvCall& p, int64_t sample, int64_t group, int64_t position, int64_t count, const T* staging) {
    const int64_t planes = p.out_fields * p.order, first = (sample * p.groups + group) * planes;
    for (int64_t row = 0; row < planes; ++row)
        write_row(p.y.data, p.y.dtype, (first + row) * p.positions + position, count, staging + row * kTile<T>);
}

// ---- tiles ----

// Output positions [position, position + count) of a band that starts at row `first` of axis 0.
template <class T>
TileMap<T> map_tile(const GroupConvCall& p, int64_t position, int64_t count, int64_t first) {
    TileMap<T> map;
    for (int v = 0; v < 2; ++v) {
        int n = 0;
        for (int64_t lane = 0; lane < kLanes<T> && v * kLanes<T> + lane < count;) {
            const int64_t at = position + v * kLanes<T> + lane;
            const int64_t x2 = at % p.out_size[2], x1 = at / p.out_size[2] % p.out_size[1], x0 = at / p.out_size[2] / p.out_size[1] - first;
            const int64_t row = p.column ? count : p.out_size[2] - x2;  // positions from here on that lie together
            const int64_t run = smaller(smaller(row, kLanes<T> - lane), count - v * kLanes<T> - lane);
            map.segment[v][n].offset = x0 * p.stride[0] * p.padded.pitch0 + x1 * p.stride[1] * p.padded.pitch1 + x2 - lane;
            map.segment[v][n].bits = static_cast<uint32_t>(((1ull << run) - 1) << lane);
            ++n;
            lane += run;
        }
        map.count[v] = n;
    }
    map.base = map.segment[0][0].offset;
    const bool full =
        map.count[0] == 1 && map.count[1] == 1 && map.segment[0][0].bits == kAllLanes<T> && map.segment[1][0].bits == kAllLanes<T>;
    map.shape = full && map.segment[1][0].offset == map.base + kLanes<T> ? TileMap<T>::run
                : map.count[0] <= 2 && map.count[1] <= 2                 ? TileMap<T>::pairs
                                                                         : TileMap<T>::any;
    for (int v = 0; v < 2; ++v)  // pairs read a second segment, an empty one if need be
        for (int n = map.count[v]; n < 2; ++n) map.segment[v][n] = {map.base, 0};
    return map;
}

// Asks for the cache lines that a tile of y will be written to, some at a time, while the products keep the machine busy otherwise. The
// planes of y lie pages apart, which no hardware prefetcher follows.
template <class T>
struct Claim {
    T* next;
    int64_t step, left, share;  // from plane to plane; planes not asked for yet; planes at a time

    Claim(const TileValues<T>& y, int64_t planes, int64_t times)
        : next(y.data), step(y.element_step), left(planes), share((planes + times - 1) / larger(times, 1)) {}
    void advance() {
        for (int64_t end = larger(0, left - share); left > end; --left, next += step) {
            __builtin_prefetch(next, 1);
            __builtin_prefetch(next + kLanes<T>, 1);
        }
    }
};

// y panel (+)= x panel times blocks, for the input channels [channel, channel + channels); beside it, what will be written is claimed.
template <class T>
void multiply_forward(const GroupConvCall& p, const T* blocks, const T* x_panel, int64_t channel, int64_t channels, T* y_panel,
                      const TileValues<T>& y) {
    int64_t products = 0;
    for (int rho = 0; rho < p.irrep_count; ++rho)
        products += p.irreps[rho].rows * ((p.blocks[rho].columns + p.blocks[rho].width - 1) / p.blocks[rho].width);
    Claim<T> claim(y, channel + channels < p.in_fields ? 0 : p.out_fields * p.order, products);
    for (int rho = 0; rho < p.irrep_count; ++rho) {
        const KernelIrrep& irrep = p.irreps[rho];
        const PackedMatrix& matrix = p.blocks[rho];
        const int64_t depth = channels * irrep.inner, first = channel * irrep.inner;
        for (int r = 0; r < irrep.rows; ++r) {
            const T* a = x_panel + p.x_panel.base[rho] + r * p.channel_block * irrep.inner * kTile<T>;
            T* c = y_panel + p.y_panel.base[rho] + r * matrix.columns * kTile<T>;
            for (int64_t n = 0; n < matrix.columns; n += matrix.width) {
                const int64_t width = smaller(matrix.width, matrix.columns - n);
                claim.advance();
                multiply_width<T, kMaxWidth>(static_cast<int>(width), a, blocks + matrix.base + n * matrix.rows + first * width, depth,
                                             c + n * kTile<T>, channel > 0);
            }
        }
    }
}

// x panel = y panel times transposed blocks, for the input channels [channel, channel + channels).
template <class T>
void multiply_transposed(const GroupConvCall& p, const T* blocks, const T* y_panel, int64_t channel, int64_t channels, T* x_panel) {
    for (int rho = 0; rho < p.irrep_count; ++rho) {
        const KernelIrrep& irrep = p.irreps[rho];
        const PackedMatrix& matrix = p.blocks[rho];  // (out field, j) x (channel, k), column blocks within a channel block
        const int64_t begin = channel * irrep.inner, end = begin + channels * irrep.inner;
        for (int r = 0; r < irrep.rows; ++r) {
            const T* a = y_panel + p.y_panel.base[rho] + r * matrix.rows * kTile<T>;
            T* c = x_panel + p.x_panel.base[rho] + r * p.channel_block * irrep.inner * kTile<T>;
            for (int64_t n = begin; n < end; n += matrix.width) {
                const int64_t width = smaller(matrix.width, end - n);
                multiply_width<T, kMaxWidth>(static_cast<int>(width), a, blocks + matrix.base + n * matrix.rows, matrix.rows,
                                             c + (n - begin) * kTile<T>, false);
            }
        }
    }
}

// ---- weights ----

// Where element (row (channel, k), column (out field, j)) of an irrep's block lies. Transposed blocks restart their column blocks at every
// channel block, so that a channel block is a run of whole column blocks.
struct BlockIndex {
    const GroupConvCall& p;
    bool transposed;

    int64_t operator()(int rho, int64_t channel, int k, int64_t field, int j) const {
        const KernelIrrep& irrep = p.irreps[rho];
        const PackedMatrix& m = p.blocks[rho];
        const int64_t in = channel * irrep.inner + k, out = field * irrep.dim + j;
        if (!transposed) {
            const int64_t n = out / m.width * m.width;
            return m.base + n * m.rows + in * smaller(m.width, m.columns - n) + out - n;
        }
        const int64_t begin = channel / p.channel_block * p.channel_block * irrep.inner;
        const int64_t end = smaller(begin + p.channel_block * irrep.inner, m.columns);
        const int64_t n = begin + (in - begin) / m.width * m.width;
        return m.base + n * m.rows + out * smaller(m.width, end - n) + in - n;
    }
};

constexpr int kWeightRows = 64;  // rows of a weight transform handled together

// Rows [first, first + rows) of an orbit's weight transform as lines through the blocks: element start + i * step belongs to inner index i,
// the channel (or the out field in transposed blocks, where the channel is the outer index).
struct BlockLines {
    int64_t start[kWeightRows], step[kWeightRows];

    BlockLines(const GroupConvCall& p, const KernelOrbit& orbit, int first, int rows, int64_t outer, bool transposed) {
        const BlockIndex index{p, transposed};
        for (int i = 0; i < rows; ++i) {
            const int rho = orbit.weight_irrep[first + i], k = orbit.weight_k[first + i], j = orbit.weight_j[first + i];
            start[i] = transposed ? index(rho, outer, k, 0, j) : index(rho, 0, k, outer, j);
            step[i] = (transposed ? index(rho, outer, k, 1, j) : index(rho, 1, k, outer, j)) - start[i];
        }
    }
};

// Weights to blocks, for one out field (or one channel, for transposed blocks). A vector runs along the rows of the transform.
template <class T>
void pack(const GroupConvCall& p, int64_t group, int64_t outer, bool transposed) {
    constexpr int L = kLanes<T>;
    T* blocks = static_cast<T*>(p.packed) + group * p.blocks_size;
    const int64_t psi = group * p.weight_group_stride + outer * (transposed ? p.weight_channel_stride : p.weight_field_stride);
    const int64_t psi_step = transposed ? p.weight_field_stride : p.weight_channel_stride;
    const int64_t count = transposed ? p.out_fields : p.in_fields;
    const bool same_type = p.weight.dtype == kDType<T>;
    for (int t = 0; t < p.orbit_count; ++t) {
        const KernelOrbit& orbit = p.orbits[t];
        for (int first = 0; first < orbit.weight_rows; first += kWeightRows) {
            const int rows = static_cast<int>(smaller(kWeightRows, orbit.weight_rows - first));
            const BlockLines line(p, orbit, first, rows, outer, transposed);
            const T* columns = static_cast<const T*>(orbit.weight_columns) + first;
            for (int64_t inner = 0; inner < count; ++inner) {
                const int64_t origin = psi + inner * psi_step;
                for (int v = 0; v < rows; v += L) {
                    Vec<T> sum = zero<T>();
                    for (int u = 0; u < orbit.weight_length; ++u) {
                        const int64_t at = origin + orbit.weight_index[u];
                        const T value = same_type ? static_cast<const T*>(p.weight.data)[at] : read_value<T>(p.weight, at);
                        sum += broadcast<T>(value) * load(columns + static_cast<int64_t>(u) * orbit.weight_rows + v);
                    }
                    T row[L];
                    store(row, sum);
                    const int used = static_cast<int>(smaller(L, rows - v));
                    for (int i = 0; i < used; ++i) blocks[line.start[v + i] + inner * line.step[v + i]] = row[i];
                }
            }
        }
    }
}

// Its adjoint: the weight gradient of one out field from the blocks' gradient. Taps outside the invariant support are left alone (zero). A
// vector runs along the taps and group elements of an orbit.
template <class T>
void unpack(const GroupConvCall& p, int64_t group, int64_t field) {
    constexpr int L = kLanes<T>;
    const T* blocks = static_cast<const T*>(p.packed) + group * p.blocks_size;
    const int64_t psi = group * p.weight_group_stride + field * p.weight_field_stride;
    for (int t = 0; t < p.orbit_count; ++t) {
        const KernelOrbit& orbit = p.orbits[t];
        for (int first = 0; first < orbit.weight_rows; first += kWeightRows) {
            const int rows = static_cast<int>(smaller(kWeightRows, orbit.weight_rows - first));
            const BlockLines line(p, orbit, first, rows, field, false);
            const T* matrix = static_cast<const T*>(orbit.weight_matrix) + static_cast<int64_t>(first) * orbit.weight_length;
            for (int64_t c = 0; c < p.in_fields; ++c) {
                T* out = static_cast<T*>(p.weight_sums) + psi + c * p.weight_channel_stride;
                for (int u = 0; u < orbit.weight_length; u += L) {
                    Vec<T> sum = zero<T>();
                    for (int i = 0; i < rows; ++i)
                        sum += broadcast<T>(blocks[line.start[i] + c * line.step[i]]) *
                               load(matrix + static_cast<int64_t>(i) * orbit.weight_length + u);
                    T column[L];
                    store(column, sum);
                    const int used = static_cast<int>(smaller(L, orbit.weight_length - u));
                    for (int i = 0; i < used; ++i) out[orbit.weight_index[u + i]] += column[i];
                }
            }
        }
    }
    if (p.weight.data != p.weight_sums)
        write_row(p.weight.data, p.weight.dtype, psi, p.in_fields * p.weight_channel_stride, static_cast<const T*>(p.weight_sums) + psi);
}

// ---- forward ----

template <class T>
struct ForwardSpace {
    Tables<T> tables;
    T *padded, *x_panel, *y_panel, *staging, *bias;
    int64_t size;

    ForwardSpace(const GroupConvCall& p, void* workspace) {
        Arena<T> arena{static_cast<T*>(workspace)};
        tables = make_tables<T>(p, arena, workspace != nullptr);
        padded = arena.template take<T>(p.in_fields * p.sources * p.padded.plane + kLanes<T>);  // a row is written in whole vectors
        x_panel = arena.template take<T>(p.x_panel.size);
        y_panel = arena.template take<T>(p.y_panel.size);
        staging = arena.template take<T>(p.out_fields * p.order * kTile<T>);
        bias = arena.template take<T>(p.out_fields);
        size = arena.used;
    }
};

template <class T>
int64_t forward_workspace(const GroupConvCall& p) {
    return ForwardSpace<T>(p, nullptr).size;
}

template <class T>
void forward(const GroupConvCall& p, int64_t sample, int64_t group, int64_t band, void* workspace) {
    const ForwardSpace<T> space(p, workspace);
    const TileTransforms<T> transforms = tile_transforms<T>(p);
    const T* blocks = static_cast<const T*>(p.packed) + group * p.blocks_size;
    const int64_t first = band * p.band_rows, rows = smaller(p.band_rows, p.out_size[0] - first);
    const int64_t slice = p.out_size[1] * p.out_size[2], end = (first + rows) * slice;
    for (int64_t o = 0; o < p.out_fields; ++o) space.bias[o] = p.bias.defined() ? read_value<T>(p.bias, group * p.out_fields + o) : T(0);
    if (p.in_fields == 0) fill_zero(space.y_panel, p.y_panel.size);
    pad_channels(p, sample, group * p.in_fields, p.in_fields, first, rows, space.padded);
    for (int64_t position = first * slice; position < end; position += kTile<T>) {
        const int64_t count = smaller(kTile<T>, end - position);
        const TileMap<T> map = map_tile<T>(p, position, count, first);
        const TileValues<T> values = tile_values(p, sample, group, position, count, space.staging);
        for (int64_t c = 0; c < p.in_fields; c += p.channel_block) {
            const int64_t channels = smaller(p.channel_block, p.in_fields - c);
            transforms.analyse_channels(p, space.tables, map, space.padded + c * p.sources * p.padded.plane, channels, space.x_panel);
            multiply_forward(p, blocks, space.x_panel, c, channels, space.y_panel, values);
        }
        transforms.synthesise_fields(p, space.tables, space.y_panel, space.bias, values);
        if (values.data == space.staging) write_staged(p, sample, group, position, count, space.staging);
    }
}

// ---- adjoint in x ----

template <class T>
struct TransposeSpace {
    Tables<T> tables;
    T *padded, *x_panel, *y_panel, *staging, *row;
    int64_t size;

    TransposeSpace(const GroupConvCall& p, void* workspace) {
        Arena<T> arena{static_cast<T*>(workspace)};
        tables = make_tables<T>(p, arena, workspace != nullptr);
        padded = arena.template take<T>(p.channel_block * p.sources * p.padded.plane);
        x_panel = arena.template take<T>(p.x_panel.size);
        y_panel = arena.template take<T>(p.y_panel.size);
        staging = arena.template take<T>(p.out_fields * p.order * kTile<T>);
        row = arena.template take<T>(p.in_size[2]);
        size = arena.used;
    }
};

template <class T>
int64_t transpose_workspace(const GroupConvCall& p) {
    return TransposeSpace<T>(p, nullptr).size;
}

template <class T>
void transpose_block(const GroupConvCall& p, int64_t sample, int64_t group, int64_t block, void* workspace) {
    const TransposeSpace<T> space(p, workspace);
    const TileTransforms<T> transforms = tile_transforms<T>(p);
    const T* blocks = static_cast<const T*>(p.packed) + group * p.blocks_size;
    const int64_t channel = block * p.channel_block, channels = smaller(p.channel_block, p.in_fields - channel);
    for (int64_t k = 0; k < channels * p.sources * p.padded.plane; ++k) space.padded[k] = 0;
    for (int64_t position = 0; position < p.positions; position += kTile<T>) {
        const int64_t count = smaller(kTile<T>, p.positions - position);
        const TileMap<T> map = map_tile<T>(p, position, count, 0);
        const TileValues<T> values = tile_values(p, sample, group, position, count, space.staging);
        if (values.data == space.staging) read_staged(p, sample, group, position, count, space.staging);
        transforms.analyse_fields(p, space.tables, values, space.y_panel);
        multiply_transposed(p, blocks, space.y_panel, channel, channels, space.x_panel);
        transforms.scatter_channels(p, space.tables, map, space.x_panel, channels, space.padded);
    }
    unpad_channels(p, sample, group * p.in_fields + channel, channels, space.padded, space.row);
}

// ---- adjoint in the weight ----

template <class T>
struct WeightSpace {
    Tables<T> tables;
    T *padded, *x_panel, *y_panel, *staging, *columns;
    int64_t columns_tile;  // elements of `columns` per tile: [irrep][row][position][padded (out field, j)]
    int64_t size;

    WeightSpace(const GroupConvCall& p, void* workspace) {
        Arena<T> arena{static_cast<T*>(workspace)};
        columns_tile = 0;
        for (int rho = 0; rho < p.irrep_count; ++rho) columns_tile += p.irreps[rho].rows * kTile<T> * p.blocks[rho].columns;
        tables = make_tables<T>(p, arena, workspace != nullptr);
        padded = arena.template take<T>(p.in_fields * p.sources * p.padded.plane + kLanes<T>);  // a row is written in whole vectors
        x_panel = arena.template take<T>(p.strip_tiles * p.x_panel.size);
        y_panel = arena.template take<T>(p.y_panel.size + kLanes<T> * kTile<T>);  // the last transposition reads past the last column
        staging = arena.template take<T>(p.out_fields * p.order * kTile<T>);
        columns = arena.template take<T>(p.strip_tiles * columns_tile);
        size = arena.used;
    }
};

template <class T>
int64_t weight_workspace(const GroupConvCall& p) {
    return WeightSpace<T>(p, nullptr).size;
}

// y panel [irrep][row][column][position] to [irrep][row][position][column], columns padded to whole vectors (what is in the padding is
// multiplied into columns that nobody reads, so it only has to be finite or not: it never meets a column in use).
template <class T>
void turn_columns(const GroupConvCall& p, const T* y_panel, T* columns) {
    for (int rho = 0; rho < p.irrep_count; ++rho) {
        const int64_t used = p.out_fields * p.irreps[rho].dim, padded = p.blocks[rho].columns;
        for (int r = 0; r < p.irreps[rho].rows; ++r) {
            const T* src = y_panel + p.y_panel.base[rho] + r * used * kTile<T>;
            for (int64_t n = 0; n < padded; n += kLanes<T>)
                for (int v = 0; v < 2; ++v)
                    transpose(src + n * kTile<T> + v * kLanes<T>, kTile<T>, columns + v * kLanes<T> * padded + n, padded);
            columns += kTile<T> * padded;
        }
    }
}

// Blocks' gradient [column block][channel, k][width] of one band, added to `sums`.
template <class T>
void weight_band(const GroupConvCall& p, int64_t sample, int64_t group, int64_t band, void* sums_pointer, void* workspace) {
    const WeightSpace<T> space(p, workspace);
    const TileTransforms<T> transforms = tile_transforms<T>(p);
    T* sums = static_cast<T*>(sums_pointer) + group * p.blocks_size;
    const int64_t first = band * p.band_rows, rows = smaller(p.band_rows, p.out_size[0] - first);
    const int64_t slice = p.out_size[1] * p.out_size[2], end = (first + rows) * slice;
    pad_channels(p, sample, group * p.in_fields, p.in_fields, first, rows, space.padded);
    for (int64_t strip = first * slice; strip < end; strip += p.strip_tiles * kTile<T>) {
        int tiles = 0;
        for (int64_t position = strip; position < end && tiles < p.strip_tiles; position += kTile<T>, ++tiles) {
            const int64_t count = smaller(kTile<T>, end - position);
            const TileValues<T> values = tile_values(p, sample, group, position, count, space.staging);
            if (values.data == space.staging) read_staged(p, sample, group, position, count, space.staging);
            transforms.analyse_fields(p, space.tables, values, space.y_panel);
            turn_columns(p, space.y_panel, space.columns + tiles * space.columns_tile);
        }
        for (int64_t c = 0; c < p.in_fields; c += p.channel_block) {
            const int64_t channels = smaller(p.channel_block, p.in_fields - c);
            for (int s = 0; s < tiles; ++s) {
                const int64_t position = strip + s * kTile<T>;
                const TileMap<T> map = map_tile<T>(p, position, smaller(kTile<T>, end - position), first);
                transforms.analyse_channels(p, space.tables, map, space.padded + c * p.sources * p.padded.plane, channels,
                                            space.x_panel + s * p.x_panel.size);
            }
            const T* columns = space.columns;
            for (int rho = 0; rho < p.irrep_count; ++rho) {
                const KernelIrrep& irrep = p.irreps[rho];
                const PackedMatrix& matrix = p.blocks[rho];
                const int64_t depth = channels * irrep.inner;
                for (int r = 0; r < irrep.rows; ++r) {
                    const T* a = space.x_panel + p.x_panel.base[rho] + r * p.channel_block * irrep.inner * kTile<T>;
                    for (int64_t n = 0; n < matrix.columns; n += matrix.width) {
                        const int64_t width = smaller(matrix.width, matrix.columns - n);
                        T* sum = sums + matrix.base + n * matrix.rows + c * irrep.inner * width;
                        if (width == 2 * kLanes<T>)
                            accumulate_rows<T, 2>(a, columns + n, matrix.columns, tiles, p.x_panel.size, space.columns_tile, sum, depth);
                        else
                            accumulate_rows<T, 1>(a, columns + n, matrix.columns, tiles, p.x_panel.size, space.columns_tile, sum, depth);
                    }
                    columns += kTile<T> * matrix.columns;
                }
            }
        }
    }
}

template <class T>
Kernels make_kernels() {
    return {kLanes<T>,
            kTile<T>,
            kMaxWidth,
            kGradientVectors * kLanes<T>,
            pack<T>,
            forward_workspace<T>,
            forward<T>,
            transpose_workspace<T>,
            transpose_block<T>,
            weight_workspace<T>,
            weight_band<T>,
            unpack<T>};
}

}  // namespace

const KernelSet& group_conv_kernels() {
    static const KernelSet set = {make_kernels<float>(), make_kernels<double>()};
    return set;
}

}  // namespace isotypic::cpu::ISOTYPIC_ISA
