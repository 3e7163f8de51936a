// Between positions and the Fourier domain, one tile of positions at a time.
//
//   analyse_channels     the values of each (channel, tap orbit) around the tile's positions -> rows of the x panel
//   scatter_channels     the reverse: rows of the x panel, transformed back, added to where the values came from
//   analyse_fields       values of y at the tile's positions -> rows of the y panel
//   synthesise_fields    the reverse: rows of the y panel -> values of y
//
// A group with a straight-line program (core/fourier.hpp) is transformed in registers. Every other transform (generated groups, and the
// shorter orbits of the lifting convolution) multiplies by its sparse matrix.
#pragma once

#include "cpu/group_conv_kernel.hpp"
#include "cpu/vec.hpp"

namespace isotypic::cpu::ISOTYPIC_ISA {
namespace {

// Where the positions of one vector lie in a padded plane: lanes `bits` at address `offset` + lane.
struct Segment {
    int64_t offset;
    uint32_t bits;
};

template <class T>
struct TileMap {
    int count[2];
    Segment segment[2][kLanes<T>];
    int64_t base;  // of the first vector, where the whole tile is one run
    enum { run, pairs, any } shape;  // the whole tile is one run; each vector has one or two segments (a second one may be empty); anything
};

template <class T>
constexpr uint32_t kAllLanes = static_cast<uint32_t>((1ull << kLanes<T>) - 1);

// Addresses, in elements, that hold for a whole call.
template <class T>
struct Tables {
    int64_t* offset;  // (orbit, length): a value's address relative to the output position's own
    int64_t* x_row;   // (orbit, analysis row): row of the x panel, channel 0
    int64_t* x_step;  // (orbit, analysis row): from one channel to the next
    int64_t* y_row;   // (order): row of the y panel, field 0
    int64_t* y_step;  // (order): from one field to the next
    Vec<T>* values;   // (longest orbit or order): scratch of the sparse transforms
};

// Values of y at a tile: those of (field, h) at data + field * field_step + h * element_step, `kTile` of them.
template <class T>
struct TileValues {
    T* data;
    int64_t field_step, element_step;
};

// How the values of a vector are loaded, one kind for each shape of tile, so that the transforms see plain registers.
template <class T>
struct GatherRun {
    const int64_t base;
    explicit GatherRun(const TileMap<T>& map) : base(map.base) {}
    template <int Count>
    ISOTYPIC_INLINE void operator()(const T* src, const int64_t* offset, int v, Vec<T>* values) const {
        src += base + v * kLanes<T>;
#pragma GCC unroll 64
        for (int h = 0; h < Count; ++h) values[h] = load(src + offset[h]);
    }
};

template <class T>
struct GatherPairs {
    const TileMap<T>& map;
    explicit GatherPairs(const TileMap<T>& tile) : map(tile) {}
    template <int Count>
    ISOTYPIC_INLINE void operator()(const T* src, const int64_t* offset, int v, Vec<T>* values) const {
        const T *first = src + map.segment[v][0].offset, *second = src + map.segment[v][1].offset;
        const uint32_t first_bits = map.segment[v][0].bits, second_bits = map.segment[v][1].bits;
#pragma GCC unroll 64
        for (int h = 0; h < Count; ++h)
            values[h] = merge_load(merge_load(zero<T>(), first_bits, first + offset[h]), second_bits, second + offset[h]);
    }
};

template <class T>
struct GatherAny {
    const TileMap<T>& map;
    explicit GatherAny(const TileMap<T>& tile) : map(tile) {}
    template <int Count>
    ISOTYPIC_INLINE void operator()(const T* src, const int64_t* offset, int v, Vec<T>* values) const {
        load_all(src, offset, Count, v, values);
    }
    ISOTYPIC_INLINE void load_all(const T* src, const int64_t* offset, int count, int v, Vec<T>* values) const {
        for (int h = 0; h < count; ++h) values[h] = zero<T>();
        for (int s = 0; s < map.count[v]; ++s) {
            const T* p = src + map.segment[v][s].offset;
            const uint32_t bits = map.segment[v][s].bits;
            for (int h = 0; h < count; ++h) values[h] = merge_load(values[h], bits, p + offset[h]);
        }
    }
};

template <class T>
ISOTYPIC_INLINE void scatter_add(T* dst, const int64_t* offset, int count, const TileMap<T>& map, int v, const Vec<T>* values) {
    for (int s = 0; s < map.count[v]; ++s) {
        T* p = dst + map.segment[v][s].offset;
        const uint32_t bits = map.segment[v][s].bits;
        if (bits == kAllLanes<T>)
            for (int h = 0; h < count; ++h) store(p + offset[h], load(p + offset[h]) + values[h]);
        else
            for (int h = 0; h < count; ++h) mask_store(p + offset[h], bits, merge_load(zero<T>(), bits, p + offset[h]) + values[h]);
    }
}

// ---- straight-line programs: regular fields, every orbit has length |G| ----

// Calls body(v) for the two vectors of a tile: unrolled while the values of both fit the registers, so that one's loads run under the other's
// additions.
template <int Order, class Body>
ISOTYPIC_INLINE void for_both_vectors(const Body& body) {
    if constexpr (Order <= 8) {
        body(0);
        body(1);
    } else {
#pragma GCC unroll 1
        for (int v = 0; v < 2; ++v) body(v);
    }
}

template <class T, class Program, class Gather>
void analyse_gathered(const Problem& p, const Tables<T>& tables, const Gather gather, const T* planes, int64_t channels, T* panel) {
    constexpr int n = Program::order;
    const int orbits = p.orbit_count;
    const int64_t plane = p.padded.plane;
    int64_t shift[n] = {};  // of the channel within each row
    for (int64_t c = 0; c < channels; ++c, planes += n * plane) {
        const int64_t *offset = tables.offset, *row = tables.x_row;
        for (int t = 0; t < orbits; ++t, offset += n, row += n) {
            for_both_vectors<n>([&](int v) ISOTYPIC_LAMBDA {
                Vec<T> values[n];
                gather.template operator()<n>(planes, offset, v, values);
                Program::template analysis<Vec<T>, T>(values);
#pragma GCC unroll 64
                for (int i = 0; i < n; ++i) store(panel + row[i] + shift[i] + v * kLanes<T>, values[i]);
            });
        }
        for (int i = 0; i < n; ++i) shift[i] += tables.x_step[i];
    }
}

template <class T, class Program>
void analyse_channels(const Problem& p, const Tables<T>& tables, const TileMap<T>& map, const T* planes, int64_t channels, T* panel) {
    switch (map.shape) {
        case TileMap<T>::run: return analyse_gathered<T, Program>(p, tables, GatherRun<T>(map), planes, channels, panel);
        case TileMap<T>::pairs: return analyse_gathered<T, Program>(p, tables, GatherPairs<T>(map), planes, channels, panel);
        default: return analyse_gathered<T, Program>(p, tables, GatherAny<T>(map), planes, channels, panel);
    }
}

template <class T, class Program>
void scatter_channels(const Problem& p, const Tables<T>& tables, const TileMap<T>& map, const T* panel, int64_t channels, T* planes) {
    constexpr int n = Program::order;
    const int orbits = p.orbit_count;
    const int64_t plane = p.padded.plane;
    int64_t shift[n] = {};
    for (int64_t c = 0; c < channels; ++c, planes += n * plane) {
        const int64_t *offset = tables.offset, *row = tables.x_row;
        for (int t = 0; t < orbits; ++t, offset += n, row += n) {
            for_both_vectors<n>([&](int v) ISOTYPIC_LAMBDA {
                Vec<T> values[n];
#pragma GCC unroll 64
                for (int i = 0; i < n; ++i) values[i] = load(panel + row[i] + shift[i] + v * kLanes<T>);
                Program::template synthesis<Vec<T>, T>(values);
                scatter_add<T>(planes, offset, n, map, v, values);
            });
        }
        for (int i = 0; i < n; ++i) shift[i] += tables.x_step[i];
    }
}

template <class T, class Program>
void analyse_fields(const Problem& p, const Tables<T>& tables, const TileValues<T>& y, T* panel) {
    constexpr int n = Program::order;
    const int64_t fields = p.out_fields, field_step = y.field_step, element_step = y.element_step;
    const int64_t* const row = tables.y_row;
    int64_t shift[n] = {};
    const T* src = y.data;
    for (int64_t o = 0; o < fields; ++o, src += field_step) {
        for_both_vectors<n>([&](int v) ISOTYPIC_LAMBDA {
            Vec<T> values[n];
#pragma GCC unroll 64
            for (int h = 0; h < n; ++h) values[h] = load(src + h * element_step + v * kLanes<T>);
            Program::template analysis<Vec<T>, T>(values);
#pragma GCC unroll 64
            for (int i = 0; i < n; ++i) store(panel + row[i] + shift[i] + v * kLanes<T>, values[i]);
        });
        for (int i = 0; i < n; ++i) shift[i] += tables.y_step[i];
    }
}

// The bias joins the trivial irrep, whose row comes first and reaches every element with coefficient 1.
template <class T, class Program>
void synthesise_fields(const Problem& p, const Tables<T>& tables, const T* panel, const T* bias, const TileValues<T>& y) {
    constexpr int n = Program::order;
    const int64_t fields = p.out_fields, field_step = y.field_step, element_step = y.element_step;
    const int64_t* const row = tables.y_row;
    int64_t shift[n] = {};
    T* dst = y.data;
    for (int64_t o = 0; o < fields; ++o, dst += field_step) {
        const Vec<T> offset = broadcast<T>(bias[o]);
        for_both_vectors<n>([&](int v) ISOTYPIC_LAMBDA {
            Vec<T> values[n];
#pragma GCC unroll 64
            for (int i = 0; i < n; ++i) values[i] = load(panel + row[i] + shift[i] + v * kLanes<T>);
            values[0] += offset;
            Program::template synthesis<Vec<T>, T>(values);
#pragma GCC unroll 64
            for (int h = 0; h < n; ++h) store(dst + h * element_step + v * kLanes<T>, values[h]);
        });
        for (int i = 0; i < n; ++i) shift[i] += tables.y_step[i];
    }
}

// ---- sparse matrices: any group, any orbit ----

// sum_e matrix[row, e] value(e)
template <class T, class Value>
ISOTYPIC_INLINE Vec<T> sparse_row(const SparseMatrix& matrix, int row, const Value& value) {
    Vec<T> sum = zero<T>();
    for (int e = matrix.row_begin[row]; e < matrix.row_begin[row + 1]; ++e) sum += broadcast<T>(static_cast<T>(matrix.value[e])) * value(matrix.column[e]);
    return sum;
}

template <class T>
void analyse_channels_sparse(const Problem& p, const Tables<T>& tables, const TileMap<T>& map, const T* planes, int64_t channels, T* panel) {
    for (int64_t c = 0; c < channels; ++c, planes += p.sources * p.padded.plane) {
        const int64_t *offset = tables.offset, *row = tables.x_row, *step = tables.x_step;
        for (int t = 0; t < p.orbit_count; ++t) {
            const KernelOrbit& orbit = p.orbits[t];
            for (int v = 0; v < 2; ++v) {
                GatherAny<T>(map).load_all(planes, offset, orbit.length, v, tables.values);
                for (int i = 0; i < orbit.analysis_rows; ++i)
                    store(panel + row[i] + c * step[i] + v * kLanes<T>, sparse_row<T>(orbit.analysis, i, [&](int h) { return tables.values[h]; }));
            }
            offset += orbit.length, row += orbit.analysis_rows, step += orbit.analysis_rows;
        }
    }
}

template <class T>
void scatter_channels_sparse(const Problem& p, const Tables<T>& tables, const TileMap<T>& map, const T* panel, int64_t channels, T* planes) {
    for (int64_t c = 0; c < channels; ++c, planes += p.sources * p.padded.plane) {
        const int64_t *offset = tables.offset, *row = tables.x_row, *step = tables.x_step;
        for (int t = 0; t < p.orbit_count; ++t) {
            const KernelOrbit& orbit = p.orbits[t];
            for (int v = 0; v < 2; ++v) {
                for (int h = 0; h < orbit.length; ++h)
                    tables.values[h] = sparse_row<T>(orbit.adjoint, h, [&](int i) { return load(panel + row[i] + c * step[i] + v * kLanes<T>); });
                scatter_add<T>(planes, offset, orbit.length, map, v, tables.values);
            }
            offset += orbit.length, row += orbit.analysis_rows, step += orbit.analysis_rows;
        }
    }
}

template <class T>
void analyse_fields_sparse(const Problem& p, const Tables<T>& tables, const TileValues<T>& y, T* panel) {
    for (int64_t o = 0; o < p.out_fields; ++o)
        for (int i = 0; i < p.order; ++i)
            for (int v = 0; v < 2; ++v)
                store(panel + tables.y_row[i] + o * tables.y_step[i] + v * kLanes<T>,
                      sparse_row<T>(p.synthesis_adjoint, i, [&](int h) { return load(y.data + o * y.field_step + h * y.element_step + v * kLanes<T>); }));
}

template <class T>
void synthesise_fields_sparse(const Problem& p, const Tables<T>& tables, const T* panel, const T* bias, const TileValues<T>& y) {
    for (int64_t o = 0; o < p.out_fields; ++o)
        for (int h = 0; h < p.order; ++h)
            for (int v = 0; v < 2; ++v)
                store(y.data + o * y.field_step + h * y.element_step + v * kLanes<T>,
                      broadcast<T>(bias[o]) +
                          sparse_row<T>(p.synthesis, h, [&](int i) { return load(panel + tables.y_row[i] + o * tables.y_step[i] + v * kLanes<T>); }));
}

template <class T>
struct TileTransforms {
    void (*analyse_channels)(const Problem&, const Tables<T>&, const TileMap<T>&, const T* planes, int64_t channels, T* panel);
    void (*scatter_channels)(const Problem&, const Tables<T>&, const TileMap<T>&, const T* panel, int64_t channels, T* planes);
    void (*analyse_fields)(const Problem&, const Tables<T>&, const TileValues<T>&, T* panel);
    void (*synthesise_fields)(const Problem&, const Tables<T>&, const T* panel, const T* bias, const TileValues<T>&);
};

template <class T>
ISOTYPIC_INLINE TileTransforms<T> tile_transforms(const Problem& p) {
    TileTransforms<T> chosen{analyse_channels_sparse<T>, scatter_channels_sparse<T>, analyse_fields_sparse<T>, synthesise_fields_sparse<T>};
    const bool regular = p.sources == p.order;
    switch (p.fourier) {
#define ISOTYPIC_CASE(Program)                                                                                 \
    case kFourier##Program:                                                                                    \
        chosen.analyse_fields = analyse_fields<T, fourier::Program>;                                           \
        chosen.synthesise_fields = synthesise_fields<T, fourier::Program>;                                     \
        if (regular) chosen.analyse_channels = analyse_channels<T, fourier::Program>;                          \
        if (regular) chosen.scatter_channels = scatter_channels<T, fourier::Program>;                          \
        break;
        ISOTYPIC_FOR_EACH_FOURIER(ISOTYPIC_CASE)
#undef ISOTYPIC_CASE
        default: break;
    }
    return chosen;
}

}  // namespace
}  // namespace isotypic::cpu::ISOTYPIC_ISA
