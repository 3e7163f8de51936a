// Between positions and the Fourier domain, one tile of positions at a time.
//
//   analyse_channels     the values of each (channel, tap orbit) around the tile's positions -> rows of the x panel
//   scatter_channels     the reverse: rows of the x panel, transformed back, added to where the values came from
//   analyse_fields       values of y at the tile's positions -> rows of the y panel
//   synthesise_fields    the reverse: rows of the y panel -> values of y
//
// A group with a straight-line program (ops/group_conv_fourier.hpp) is transformed in registers. Every other transform (generated groups, and the
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
    Segment segment[2][kLanes<T> + 1];  // room for an empty second one
    int64_t base;                       // of the first vector, where the whole tile is one run
    enum { run, pairs, any } shape;  // the whole tile is one run; each vector has one or two segments (a second one may be empty); anything
};

template <class T>
constexpr uint32_t kAllLanes = static_cast<uint32_t>((1ull << kLanes<T>)-1);

// Addresses, in elements, that hold for a whole call.
template <class T>
struct Tables {
    int64_t* offset;  // (orbit, length): a value's address relative to the output position's own
    int64_t* x_row;   // (orbit, analysis row): row of the x panel, channel 0
    int64_t* x_step;  // (orbit, analysis row): from one channel to the next
    int64_t* x_next;  // (rows): from one (channel, tap) to the next, in a regular field, where the rows of all taps follow each other
    int64_t* y_row;   // (rows): row of the y panel, field 0
    int64_t* y_step;  // (rows): from one field to the next
    Vec<T>* values;   // (longest orbit or order): scratch of the sparse transforms
};

// Values of y at a tile: those of (field, h) at data + field * field_step + h * element_step, `kTile` of them.
template <class T>
struct TileValues {
    T* data;
    int64_t field_step, element_step;
};

// How one value of a vector is loaded, one kind for each shape of tile. A transform asks for its values when it needs them, so that loads,
// additions and stores of one transform run beside each other.
template <class T>
struct GatherRun {
    const int64_t base;
    explicit GatherRun(const TileMap<T>& map) : base(map.base) {}
    ISOTYPIC_INLINE Vec<T> operator()(const T* src, int64_t offset, int v) const { return load(src + base + v * kLanes<T> + offset); }
};

template <class T>
struct GatherPairs {
    Segment segment[2][2];
    explicit GatherPairs(const TileMap<T>& map) {
        for (int v = 0; v < 2; ++v) segment[v][0] = map.segment[v][0], segment[v][1] = map.segment[v][1];
    }
    ISOTYPIC_INLINE Vec<T> operator()(const T* src, int64_t offset, int v) const {
        const Segment &first = segment[v][0], &second = segment[v][1];
        return merge_load(merge_load(zero<T>(), first.bits, src + first.offset + offset), second.bits, src + second.offset + offset);
    }
};

template <class T>
struct GatherAny {
    const TileMap<T>& map;
    explicit GatherAny(const TileMap<T>& tile) : map(tile) {}
    ISOTYPIC_INLINE Vec<T> operator()(const T* src, int64_t offset, int v) const {
        Vec<T> value = zero<T>();
        for (int s = 0; s < map.count[v]; ++s) value = merge_load(value, map.segment[v][s].bits, src + map.segment[v][s].offset + offset);
        return value;
    }
};

// dst[0 .. lanes) of every segment += value
template <class T>
ISOTYPIC_INLINE void scatter_add(T* dst, const TileMap<T>& map, int v, Vec<T> value) {
    for (int s = 0; s < map.count[v]; ++s) {
        T* p = dst + map.segment[v][s].offset;
        const uint32_t bits = map.segment[v][s].bits;
        if (bits == kAllLanes<T>)
            store(p, load(p) + value);
        else
            mask_store(p, bits, merge_load(zero<T>(), bits, p) + value);
    }
}

// ---- straight-line programs: regular fields, every orbit has length |G| ----

// The rows of the panels as a program sees them: F itself.
template <class Program>
struct Orthogonal {
    static constexpr int order = Program::order, rows = Program::order;
    // x side and y side: values -> rows
    template <class V, class S, class In, class Out>
    static ISOTYPIC_INLINE void analyse_x(const In& in, const Out& out) {
        Program::template analysis<V, S>(in, out);
    }
    template <class V, class S, class In, class Out>
    static ISOTYPIC_INLINE void analyse_y(const In& in, const Out& out) {
        Program::template analysis<V, S>(in, out);
    }
    // and their adjoints: rows -> values
    template <class V, class S, class In, class Out>
    static ISOTYPIC_INLINE void synthesise_x(const In& in, const Out& out) {
        Program::template synthesis<V, S>(in, out);
    }
    template <class V, class S, class In, class Out>
    static ISOTYPIC_INLINE void synthesise_y(const In& in, const Out& out) {
        Program::template synthesis<V, S>(in, out);
    }
};

// The same for a plan whose complex irreps, `Pairs` of them from row `First` on, are three real products (GroupConvPlan::three_products):
// the x rows (a, b) become (a, b, a + b); the y rows are (m1 + m2, m3 - m1 + m2).
template <class Program, int First, int Pairs>
struct ThreeProducts {
    static constexpr int order = Program::order, rows = Program::order + Pairs;

    template <class V, class S, class In, class Out>
    static ISOTYPIC_INLINE void analyse_x(const In& in, const Out& out) {
        V f[order];
        Program::template analysis<V, S>(in, fourier::InPlace<V>{f});
        for (int i = 0; i < First; ++i) out(i, f[i]);
#pragma GCC unroll 4
        for (int pair = 0; pair < Pairs; ++pair) {
            const V a = f[First + 2 * pair], b = f[First + 2 * pair + 1];
            out(First + 3 * pair, a);
            out(First + 3 * pair + 1, b);
            out(First + 3 * pair + 2, a + b);
        }
    }
    template <class V, class S, class In, class Out>
    static ISOTYPIC_INLINE void synthesise_x(const In& in, const Out& out) {
        V f[order];
        for (int i = 0; i < First; ++i) f[i] = in(i);
#pragma GCC unroll 4
        for (int pair = 0; pair < Pairs; ++pair) {
            const V sum = in(First + 3 * pair + 2);
            f[First + 2 * pair] = in(First + 3 * pair) + sum;
            f[First + 2 * pair + 1] = in(First + 3 * pair + 1) + sum;
        }
        Program::template synthesis<V, S>(fourier::InPlace<V>{f}, out);
    }
    template <class V, class S, class In, class Out>
    static ISOTYPIC_INLINE void synthesise_y(const In& in, const Out& out) {
        V f[order];
        for (int i = 0; i < First; ++i) f[i] = in(i);
#pragma GCC unroll 4
        for (int pair = 0; pair < Pairs; ++pair) {
            const V m1 = in(First + 3 * pair), m2 = in(First + 3 * pair + 1), m3 = in(First + 3 * pair + 2);
            f[First + 2 * pair] = m1 + m2;
            f[First + 2 * pair + 1] = m3 - m1 + m2;
        }
        Program::template synthesis<V, S>(fourier::InPlace<V>{f}, out);
    }
    template <class V, class S, class In, class Out>
    static ISOTYPIC_INLINE void analyse_y(const In& in, const Out& out) {
        V f[order];
        Program::template analysis<V, S>(in, fourier::InPlace<V>{f});
        for (int i = 0; i < First; ++i) out(i, f[i]);
#pragma GCC unroll 4
        for (int pair = 0; pair < Pairs; ++pair) {
            const V g0 = f[First + 2 * pair], g1 = f[First + 2 * pair + 1];
            out(First + 3 * pair, g0 - g1);
            out(First + 3 * pair + 1, g0 + g1);
            out(First + 3 * pair + 2, g1);
        }
    }
};

// Calls body(v) for the two vectors of a tile.
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

template <class T, class Rows, class Gather>
void analyse_gathered(const GroupConvCall& p, const Tables<T>& tables, const Gather gather, const T* planes, int64_t channels, T* panel) {
    constexpr int n = Rows::rows;
    const int orbits = p.orbit_count;
    const int64_t plane = p.padded.plane;
    int64_t shift[n] = {};  // of the channel within each row
    for (int64_t c = 0; c < channels; ++c, planes += Rows::order * plane) {
        const int64_t *offset = tables.offset, *row = tables.x_row;
        for (int t = 0; t < orbits; ++t, offset += Rows::order, row += n) {
            for_both_vectors<n>([&](int v) ISOTYPIC_LAMBDA {
                Vec<T> values[n];
#pragma GCC unroll 64
                for (int h = 0; h < Rows::order; ++h) values[h] = gather(planes, offset[h], v);
                Rows::template analyse_x<Vec<T>, T>(fourier::InPlace<Vec<T>>{values}, [&](int i, Vec<T> value) ISOTYPIC_LAMBDA {
                    store(panel + row[i] + shift[i] + v * kLanes<T>, value);
                });
            });
        }
        for (int i = 0; i < n; ++i) shift[i] += tables.x_step[i];
    }
}

template <class T, class Rows>
void analyse_channels(const GroupConvCall& p, const Tables<T>& tables, const TileMap<T>& map, const T* planes, int64_t channels, T* panel) {
    switch (map.shape) {
        case TileMap<T>::run:
            return analyse_gathered<T, Rows>(p, tables, GatherRun<T>(map), planes, channels, panel);
        case TileMap<T>::pairs:
            return analyse_gathered<T, Rows>(p, tables, GatherPairs<T>(map), planes, channels, panel);
        default:
            return analyse_gathered<T, Rows>(p, tables, GatherAny<T>(map), planes, channels, panel);
    }
}

template <class T, class Rows>
void scatter_channels(const GroupConvCall& p, const Tables<T>& tables, const TileMap<T>& map, const T* panel, int64_t channels, T* planes) {
    constexpr int n = Rows::rows;
    const int orbits = p.orbit_count;
    const int64_t plane = p.padded.plane;
    int64_t row[n], next[n];
    for (int i = 0; i < n; ++i) row[i] = tables.x_row[i], next[i] = tables.x_next[i];
    for (int64_t c = 0; c < channels; ++c, planes += Rows::order * plane) {
        const int64_t* offset = tables.offset;
        for (int t = 0; t < orbits; ++t, offset += Rows::order) {
            for (int v = 0; v < 2; ++v)
                Rows::template synthesise_x<Vec<T>, T>([&](int i) ISOTYPIC_LAMBDA { return load(panel + row[i] + v * kLanes<T>); },
                                                       [&](int h, Vec<T> value) { scatter_add<T>(planes + offset[h], map, v, value); });
            for (int i = 0; i < n; ++i) row[i] += next[i];
        }
    }
}

template <class T, class Rows>
void analyse_fields(const GroupConvCall& p, const Tables<T>& tables, const TileValues<T>& y, T* panel) {
    constexpr int n = Rows::rows;
    const int64_t fields = p.out_fields, field_step = y.field_step, element_step = y.element_step;
    int64_t row[n], next[n];
    for (int i = 0; i < n; ++i) row[i] = tables.y_row[i], next[i] = tables.y_step[i];
    const T* src = y.data;
    for (int64_t o = 0; o < fields; ++o, src += field_step) {
        for_both_vectors<n>([&](int v) ISOTYPIC_LAMBDA {
            Rows::template analyse_y<Vec<T>, T>([&](int h) ISOTYPIC_LAMBDA { return load(src + h * element_step + v * kLanes<T>); },
                                                [&](int i, Vec<T> value) ISOTYPIC_LAMBDA { store(panel + row[i] + v * kLanes<T>, value); });
        });
        for (int i = 0; i < n; ++i) row[i] += next[i];
    }
}

// The bias joins the trivial irrep, whose row comes first and reaches every element with coefficient 1.
template <class T, class Rows>
void synthesise_fields(const GroupConvCall& p, const Tables<T>& tables, const T* panel, const T* bias, const TileValues<T>& y) {
    constexpr int n = Rows::rows;
    const int64_t fields = p.out_fields, field_step = y.field_step, element_step = y.element_step;
    int64_t row[n], next[n];
    for (int i = 0; i < n; ++i) row[i] = tables.y_row[i], next[i] = tables.y_step[i];
    T* dst = y.data;
    for (int64_t o = 0; o < fields; ++o, dst += field_step) {
        const Vec<T> shift = broadcast<T>(bias[o]);
        for_both_vectors<n>([&](int v) ISOTYPIC_LAMBDA {
            Rows::template synthesise_y<Vec<T>, T>(
                [&](int i) ISOTYPIC_LAMBDA {
                    const Vec<T> value = load(panel + row[i] + v * kLanes<T>);
                    return i == 0 ? value + shift : value;
                },
                [&](int h, Vec<T> value) ISOTYPIC_LAMBDA { store(dst + h * element_step + v * kLanes<T>, value); });
        });
        for (int i = 0; i < n; ++i) row[i] += next[i];
    }
}

// ---- sparse matrices: any group, any orbit ----

// sum_e matrix[row, e] value(e)
template <class T, class Value>
ISOTYPIC_INLINE Vec<T> sparse_row(const SparseMatrix& matrix, int row, const Value& value) {
    Vec<T> sum = zero<T>();
    for (int e = matrix.row_begin[row]; e < matrix.row_begin[row + 1]; ++e)
        sum += broadcast<T>(static_cast<T>(matrix.value[e])) * value(matrix.column[e]);
    return sum;
}

template <class T>
void analyse_channels_sparse(const GroupConvCall& p, const Tables<T>& tables, const TileMap<T>& map, const T* planes, int64_t channels,
                             T* panel) {
    for (int64_t c = 0; c < channels; ++c, planes += p.sources * p.padded.plane) {
        const int64_t *offset = tables.offset, *row = tables.x_row, *step = tables.x_step;
        for (int t = 0; t < p.orbit_count; ++t) {
            const KernelOrbit& orbit = p.orbits[t];
            for (int v = 0; v < 2; ++v) {
                for (int h = 0; h < orbit.length; ++h) tables.values[h] = GatherAny<T>(map)(planes, offset[h], v);
                for (int i = 0; i < orbit.analysis_rows; ++i)
                    store(panel + row[i] + c * step[i] + v * kLanes<T>,
                          sparse_row<T>(orbit.analysis, i, [&](int h) { return tables.values[h]; }));
            }
            offset += orbit.length, row += orbit.analysis_rows, step += orbit.analysis_rows;
        }
    }
}

template <class T>
void scatter_channels_sparse(const GroupConvCall& p, const Tables<T>& tables, const TileMap<T>& map, const T* panel, int64_t channels,
                             T* planes) {
    for (int64_t c = 0; c < channels; ++c, planes += p.sources * p.padded.plane) {
        const int64_t *offset = tables.offset, *row = tables.x_row, *step = tables.x_step;
        for (int t = 0; t < p.orbit_count; ++t) {
            const KernelOrbit& orbit = p.orbits[t];
            for (int v = 0; v < 2; ++v) {
                for (int h = 0; h < orbit.length; ++h)
                    scatter_add<T>(planes + offset[h], map, v, sparse_row<T>(orbit.adjoint, h, [&](int i) {
                                       return load(panel + row[i] + c * step[i] + v * kLanes<T>);
                                   }));
            }
            offset += orbit.length, row += orbit.analysis_rows, step += orbit.analysis_rows;
        }
    }
}

template <class T>
void analyse_fields_sparse(const GroupConvCall& p, const Tables<T>& tables, const TileValues<T>& y, T* panel) {
    for (int64_t o = 0; o < p.out_fields; ++o)
        for (int i = 0; i < p.rows; ++i)
            for (int v = 0; v < 2; ++v)
                store(panel + tables.y_row[i] + o * tables.y_step[i] + v * kLanes<T>, sparse_row<T>(p.synthesis_adjoint, i, [&](int h) {
                          return load(y.data + o * y.field_step + h * y.element_step + v * kLanes<T>);
                      }));
}

template <class T>
void synthesise_fields_sparse(const GroupConvCall& p, const Tables<T>& tables, const T* panel, const T* bias, const TileValues<T>& y) {
    for (int64_t o = 0; o < p.out_fields; ++o)
        for (int h = 0; h < p.order; ++h)
            for (int v = 0; v < 2; ++v)
                store(y.data + o * y.field_step + h * y.element_step + v * kLanes<T>,
                      broadcast<T>(bias[o]) + sparse_row<T>(p.synthesis, h, [&](int i) {
                          return load(panel + tables.y_row[i] + o * tables.y_step[i] + v * kLanes<T>);
                      }));
}

template <class T>
struct TileTransforms {
    void (*analyse_channels)(const GroupConvCall&, const Tables<T>&, const TileMap<T>&, const T* planes, int64_t channels, T* panel);
    void (*scatter_channels)(const GroupConvCall&, const Tables<T>&, const TileMap<T>&, const T* panel, int64_t channels, T* planes);
    void (*analyse_fields)(const GroupConvCall&, const Tables<T>&, const TileValues<T>&, T* panel);
    void (*synthesise_fields)(const GroupConvCall&, const Tables<T>&, const T* panel, const T* bias, const TileValues<T>&);
};

template <class T, class Rows>
ISOTYPIC_INLINE void use_program(const GroupConvCall& p, TileTransforms<T>* chosen) {
    chosen->analyse_fields = analyse_fields<T, Rows>;
    chosen->synthesise_fields = synthesise_fields<T, Rows>;
    if (p.sources != p.order) return;  // the orbits of a lift have their own transforms
    chosen->analyse_channels = analyse_channels<T, Rows>;
    chosen->scatter_channels = scatter_channels<T, Rows>;
}

template <class T>
ISOTYPIC_INLINE TileTransforms<T> tile_transforms(const GroupConvCall& p) {
    TileTransforms<T> chosen{analyse_channels_sparse<T>, scatter_channels_sparse<T>, analyse_fields_sparse<T>, synthesise_fields_sparse<T>};
    if (p.rows != p.order) {
        switch (p.fourier) {
            case kFourierP3:
                use_program<T, ThreeProducts<fourier::P3, 1, 1>>(p, &chosen);
                break;
            case kFourierP4:
                use_program<T, ThreeProducts<fourier::P4, 2, 1>>(p, &chosen);
                break;
            case kFourierP6:
                use_program<T, ThreeProducts<fourier::P6, 2, 2>>(p, &chosen);
                break;
            default:
                break;
        }
        return chosen;
    }
    switch (p.fourier) {
#define ISOTYPIC_CASE(Program)                                    \
    case kFourier##Program:                                       \
        use_program<T, Orthogonal<fourier::Program>>(p, &chosen); \
        break;
        ISOTYPIC_FOR_EACH_FOURIER(ISOTYPIC_CASE)
#undef ISOTYPIC_CASE
        default:
            break;
    }
    return chosen;
}

}  // namespace
}  // namespace isotypic::cpu::ISOTYPIC_ISA
