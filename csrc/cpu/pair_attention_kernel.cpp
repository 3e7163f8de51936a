// pair_attention on the CPU: a query and a tile of keys at a time, pairs along the lanes, the MLP in L1 and L2.
//
// Work: a pair takes inputs W + W^2 + W H multiply-adds, 18,700 at W = 128 with 8 heads and 2 coordinates, of which W^2 is 88 %: bound by
// the multiply-adds of one core. A layer is a product (outputs x inputs) (inputs x pairs) in register blocks of 8 outputs by 3 vectors of
// pairs: 11 loads for 24 multiply-adds. Hidden values of a tile, 24 kB each in float32, stay near; the packed weights, 64 kB, stream from
// L2 at 3 bytes a cycle. Nothing of the size of all pairs is written: a query keeps its scores, (H, N_k), until they are normalised. The
// gradient makes the hidden values again, and takes three products of the size W^2 a pair where the forward pass takes one; sums over
// pairs, which lie along lanes, are products with a transposed tile.
#include "cpu/pair_attention_kernel.hpp"

#include "ops/pair_attention.hpp"

#include "cpu/vec.hpp"
#include "cpu/vec_exp.hpp"

namespace isotypic::cpu::ISOTYPIC_ISA {
namespace {

#if defined(ISOTYPIC_ISA_AVX512) || defined(ISOTYPIC_ISA_NEON)
constexpr int kBlock = 8, kVectors = 3, kOuter = 4;
#elif defined(ISOTYPIC_ISA_AVX2)
constexpr int kBlock = 4, kVectors = 2, kOuter = 2;
#else
constexpr int kBlock = 4, kVectors = 4, kOuter = 2;
#endif
constexpr int kRows = 4;

template <class T>
constexpr int kPairs = kVectors * kLanes<T>;

enum class Then { nothing, relu, gate };

// NaN passes, here and in exp_below: an input that is none shall be seen in the result.
template <class T>
ISOTYPIC_INLINE Vec<T> relu(Vec<T> x) {
    return x < zero<T>() ? zero<T>() : x;
}
template <class T>
ISOTYPIC_INLINE Vec<T> where_positive(Vec<T> test, Vec<T> value) {
    return test > zero<T>() ? value : zero<T>();
}

// out (outputs, pairs) = W a + b, then relu, or zero where `gate` is not positive. A null bias is zero.
template <class T, Then then>
void layer(const T* weight, const T* bias, int64_t depth, int64_t outputs, const T* a, const T* gate, T* out) {
    constexpr int L = kLanes<T>, P = kPairs<T>;
    for (int64_t first = 0; first < outputs; first += kBlock, weight += depth * kBlock) {
        Vec<T> sum[kBlock][kVectors];
#pragma GCC unroll 8
        for (int n = 0; n < kBlock; ++n)
#pragma GCC unroll 4
            for (int v = 0; v < kVectors; ++v) sum[n][v] = bias ? broadcast<T>(bias[first + n]) : zero<T>();
        const T *w = weight, *in = a;
        for (int64_t k = 0; k < depth; ++k, w += kBlock, in += P) {
            Vec<T> column[kVectors];
#pragma GCC unroll 4
            for (int v = 0; v < kVectors; ++v) column[v] = load(in + v * L);
#pragma GCC unroll 8
            for (int n = 0; n < kBlock; ++n) {
                const Vec<T> factor = broadcast<T>(w[n]);
#pragma GCC unroll 4
                for (int v = 0; v < kVectors; ++v) sum[n][v] += column[v] * factor;
            }
        }
#pragma GCC unroll 8
        for (int n = 0; n < kBlock; ++n)
#pragma GCC unroll 4
            for (int v = 0; v < kVectors; ++v) {
                const int64_t at = (first + n) * P + v * L;
                if constexpr (then == Then::relu) sum[n][v] = relu<T>(sum[n][v]);
                if constexpr (then == Then::gate) sum[n][v] = where_positive<T>(load(gate + at), sum[n][v]);
                store(out + at, sum[n][v]);
            }
    }
}

// sums (rows, stride) += rows (rows, pairs) times columns (pairs, stride), for `Vectors` vectors of columns.
template <class T, int Vectors>
ISOTYPIC_INLINE void outer_block(const T* rows, const T* columns, int64_t stride, T* sums) {
    constexpr int L = kLanes<T>, P = kPairs<T>;
    Vec<T> sum[kRows][Vectors];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < Vectors; ++v) sum[r][v] = load(sums + r * stride + v * L);
    for (int p = 0; p < P; ++p) {
        Vec<T> right[Vectors];
#pragma GCC unroll 4
        for (int v = 0; v < Vectors; ++v) right[v] = load(columns + p * stride + v * L);
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) {
            const Vec<T> left = broadcast<T>(rows[r * P + p]);
#pragma GCC unroll 4
            for (int v = 0; v < Vectors; ++v) sum[r][v] += left * right[v];
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < Vectors; ++v) store(sums + r * stride + v * L, sum[r][v]);
}

template <class T>
void outer(const T* rows, int64_t count, const T* columns, int64_t stride, T* sums) {
    constexpr int L = kLanes<T>, P = kPairs<T>;
    for (int64_t k = 0; k < stride;) {
        const bool wide = k + kOuter * L <= stride;
        for (int64_t r = 0; r < count; r += kRows) {
            if (wide)
                outer_block<T, kOuter>(rows + r * P, columns + k, stride, sums + r * stride + k);
            else
                outer_block<T, 1>(rows + r * P, columns + k, stride, sums + r * stride + k);
        }
        k += wide ? kOuter * L : L;
    }
}

// sums (rows, lanes) += the sum over the vectors of pairs of each row.
template <class T>
void add_rows(const T* rows, int64_t count, T* sums) {
    constexpr int L = kLanes<T>, P = kPairs<T>;
    for (int64_t r = 0; r < count; ++r) {
        Vec<T> sum = load(sums + r * L);
        for (int v = 0; v < kVectors; ++v) sum += load(rows + r * P + v * L);
        store(sums + r * L, sum);
    }
}

// (rows, pairs) -> (pairs, stride); rows up to the stride are read.
template <class T>
void transpose_tile(const T* rows, int64_t stride, T* columns) {
    constexpr int L = kLanes<T>, P = kPairs<T>;
    for (int64_t r = 0; r < stride; r += L)
        for (int p = 0; p < P; p += L) transpose(rows + r * P + p, P, columns + p * stride + r, stride);
}

// Values of a tile to each pair, in the workspace.
template <class T>
struct Tile {
    int64_t inputs, hidden1, hidden2, heads;  // padded
    T *scores, *in, *first, *second, *mixed;
    T *in_columns, *first_columns, *second_columns, *by_mixed, *by_second, *by_first, *by_in, *weights, *lanes;

    Tile(const PairSizes& sizes, const PackedLayer<T>* layers, T* workspace) {
        constexpr int P = kPairs<T>;
        const auto pad = [](int64_t n) { return padded(n, kLanes<T>, kBlock); };
        inputs = pad(layers[0].inputs), hidden1 = pad(layers[0].outputs), hidden2 = pad(layers[1].outputs), heads = pad(sizes.heads);
        T* at = workspace;
        const auto take = [&](int64_t rows) {
            T* here = at;
            at += rows * P;
            return here;
        };
        scores = take(heads), in = take(inputs), first = take(hidden1), second = take(hidden2), mixed = take(heads);
        in_columns = take(inputs), first_columns = take(hidden1), second_columns = take(hidden2);
        by_mixed = take(heads), by_second = take(hidden2), by_first = take(hidden1), by_in = take(inputs), weights = take(heads);
        lanes = take(sizes.heads * sizes.width + sizes.dim);
    }
};

// The scores and the MLP of one query and one tile of keys.
template <class T>
void score_tile(const PairSizes& sizes, const PackedLayer<T>* layers, const T* q, int64_t q_stride, const T* x, const T* keys,
                const T* positions, const Tile<T>& tile) {
    constexpr int L = kLanes<T>, P = kPairs<T>;
    const bool vector = sizes.difference == static_cast<int>(PairDifference::vector);
    const int64_t places = vector ? sizes.dim : sizes.difference == static_cast<int>(PairDifference::distance2) ? 1 : 0;
    T* scores = sizes.mix ? tile.in + places * P : tile.scores;
    const T scale = 1 / static_cast<T>(__builtin_sqrt(static_cast<double>(sizes.width > 0 ? sizes.width : 1)));
    for (int64_t h = 0; h < sizes.heads; ++h) {
        Vec<T> sum[kVectors];
        for (int v = 0; v < kVectors; ++v) sum[v] = zero<T>();
        for (int64_t d = 0; d < sizes.width; ++d) {
            const Vec<T> factor = broadcast<T>(q[h * q_stride + d] * scale);
#pragma GCC unroll 4
            for (int v = 0; v < kVectors; ++v) sum[v] += factor * load(keys + (h * sizes.width + d) * P + v * L);
        }
        for (int v = 0; v < kVectors; ++v) store(scores + h * P + v * L, sum[v]);
    }
    for (int v = 0; v < kVectors && places > 0; ++v) {
        Vec<T> total = zero<T>();
        for (int64_t c = 0; c < sizes.dim; ++c) {
            const Vec<T> difference = broadcast<T>(x[c]) - load(positions + c * P + v * L);
            if (vector) store(tile.in + c * P + v * L, difference);
            total += difference * difference;
        }
        if (!vector) store(tile.in + v * L, total);
    }
    layer<T, Then::relu>(layers[0].weight, layers[0].bias, layers[0].inputs, layers[0].outputs, tile.in, nullptr, tile.first);
    layer<T, Then::relu>(layers[1].weight, layers[1].bias, layers[1].inputs, layers[1].outputs, tile.first, nullptr, tile.second);
    layer<T, Then::nothing>(layers[2].weight, layers[2].bias, layers[2].inputs, layers[2].outputs, tile.second, nullptr, tile.mixed);
    if (!sizes.mix)
        for (int64_t i = 0; i < sizes.heads * P; i += L) store(tile.mixed + i, load(tile.mixed + i) + load(scores + i));
}

template <class T>
ISOTYPIC_INLINE bool any_kept(const T* keep) {
    Vec<T> sum = zero<T>();
    for (int v = 0; v < kVectors; ++v) sum += load(keep + v * kLanes<T>);
    return sum_lanes<T>(sum) > 0;
}

template <class T>
ISOTYPIC_INLINE Vec<T> exp_below(Vec<T> x) {
    const Vec<T> lowest = broadcast<T>(sizeof(T) == 8 ? static_cast<T>(-700) : static_cast<T>(-87));
    return exp_negative(x < lowest ? lowest : x);
}

template <class T>
void forward(const PairSizes& sizes, const PackedLayer<T>* layers, const T* q, int64_t q_stride, const T* x, const T* keys,
             const T* positions, const T* values, const T* keep, T* scores, T* workspace, T* out, int64_t out_stride) {
    constexpr int L = kLanes<T>, P = kPairs<T>;
    const Tile<T> tile(sizes, layers, workspace);
    const int64_t row = sizes.tiles * P;
    bool any = false;
    for (int64_t t = 0; t < sizes.tiles; ++t) {
        if (!any_kept(keep + t * P)) {
            for (int64_t h = 0; h < sizes.heads; ++h)
                for (int v = 0; v < kVectors; ++v) store(scores + h * row + t * P + v * L, zero<T>());
            continue;
        }
        any = true;
        score_tile(sizes, layers, q, q_stride, x, keys + t * sizes.heads * sizes.width * P, positions + t * sizes.dim * P, tile);
        for (int64_t h = 0; h < sizes.heads; ++h)
            for (int v = 0; v < kVectors; ++v) store(scores + h * row + t * P + v * L, load(tile.mixed + h * P + v * L));
    }
    for (int64_t h = 0; h < sizes.heads; ++h) {
        T *a = scores + h * row, *result = out + h * out_stride;
        T normaliser = 1;
        if (sizes.softmax) {
            const T low = sizeof(T) == 8 ? static_cast<T>(-1e300) : static_cast<T>(-3e38f);
            Vec<T> most = broadcast<T>(low);
            for (int64_t i = 0; i < row; i += L) {
                const Vec<T> here = load(keep + i) > zero<T>() ? load(a + i) : broadcast<T>(low);
                most = here > most ? here : most;
            }
            T lanes[L], largest = low;
            store(lanes, most);
            for (int l = 0; l < L; ++l) largest = lanes[l] > largest ? lanes[l] : largest;
            Vec<T> sum = zero<T>();
            for (int64_t i = 0; i < row; i += L) {
                const Vec<T> here = load(keep + i) > zero<T>() ? exp_below<T>(load(a + i) - broadcast<T>(largest)) : zero<T>();
                store(a + i, here);
                sum += here;
            }
            const T total = sum_lanes<T>(sum);
            normaliser = any ? 1 / total : 0;
            result[sizes.width] = any ? largest + static_cast<T>(__builtin_log(static_cast<double>(total))) : 0;
        } else {
            for (int64_t i = 0; i < row; i += L) store(a + i, load(keep + i) > zero<T>() ? load(a + i) : zero<T>());
        }
        const T* v = values + h * sizes.keys * sizes.width;
        int64_t d = 0;
        for (; d < sizes.width; d += L) {
            const uint32_t bits = sizes.width - d >= L ? 0 : (1u << (sizes.width - d)) - 1;
            Vec<T> sum[4] = {zero<T>(), zero<T>(), zero<T>(), zero<T>()};
            const auto value = [&](int64_t j) ISOTYPIC_LAMBDA {
                return bits ? merge_load(zero<T>(), bits, v + j * sizes.width + d) : load(v + j * sizes.width + d);
            };
            int64_t j = 0;
            for (; j + 4 <= sizes.keys; j += 4)
#pragma GCC unroll 4
                for (int k = 0; k < 4; ++k) sum[k] += broadcast<T>(a[j + k]) * value(j + k);
            for (; j < sizes.keys; ++j) sum[0] += broadcast<T>(a[j]) * value(j);
            const Vec<T> total = ((sum[0] + sum[1]) + (sum[2] + sum[3])) * broadcast<T>(normaliser);
            if (bits)
                mask_store(result + d, bits, total);
            else
                store(result + d, total);
        }
    }
}

template <class T>
void gradient(const PairSizes& sizes, const PackedLayer<T>* layers, const T* q, int64_t q_stride, const T* x, const T* keys,
              const T* positions, const T* packed_values, const T* keep, const T* out, const T* grad, int64_t out_stride, T* workspace,
              const PairGradients<T>& gradients) {
    constexpr int L = kLanes<T>, P = kPairs<T>;
    const Tile<T> tile(sizes, layers, workspace);
    const int64_t heads = sizes.heads, width = sizes.width, dim = sizes.dim;
    const bool vector = sizes.difference == static_cast<int>(PairDifference::vector);
    const int64_t places = vector ? dim : sizes.difference == static_cast<int>(PairDifference::distance2) ? 1 : 0;
    const T scale = 1 / static_cast<T>(__builtin_sqrt(static_cast<double>(width > 0 ? width : 1)));
    T *by_q = tile.lanes, *by_x = by_q + heads * width * L;  // sums over the tiles, still in lanes
    for (int64_t i = 0; i < (heads * width + dim) * L; ++i) by_q[i] = 0;
    for (int64_t t = 0; t < sizes.tiles; ++t) {
        const T* kept = keep + t * P;
        if (!any_kept(kept)) continue;
        const T *tile_keys = keys + t * heads * width * P, *tile_values = packed_values + t * heads * width * P;
        T *tile_k = gradients.k + t * heads * width * P, *tile_v = gradients.v + t * heads * width * P;
        score_tile(sizes, layers, q, q_stride, x, tile_keys, positions + t * dim * P, tile);
        for (int64_t h = 0; h < heads; ++h) {
            const T *g = grad + h * out_stride, *o = out + h * out_stride;
            T delta = 0, normaliser = 0;
            if (sizes.softmax) {
                for (int64_t d = 0; d < width; ++d) delta += g[d] * o[d];
                delta -= g[width], normaliser = o[width];
            }
            for (int v = 0; v < kVectors; ++v) {
                const int64_t at = h * P + v * L;
                const Vec<T> here = load(kept + v * L), a = load(tile.mixed + at);
                Vec<T> by_weight = zero<T>(), weight = here * a;
                if (sizes.softmax) weight = here > zero<T>() ? exp_below<T>(a - broadcast<T>(normaliser)) : zero<T>();
                for (int64_t d = 0; d < width; ++d) {
                    const int64_t place = (h * width + d) * P + v * L;
                    const Vec<T> factor = broadcast<T>(g[d]);
                    by_weight += factor * load(tile_values + place);
                    store(tile_v + place, load(tile_v + place) + factor * weight);
                }
                store(tile.by_mixed + at, sizes.softmax ? weight * (by_weight - broadcast<T>(delta)) : here * by_weight);
            }
        }
        // Back through the MLP.
        transpose_tile(tile.second, tile.hidden2, tile.second_columns);
        transpose_tile(tile.first, tile.hidden1, tile.first_columns);
        transpose_tile(tile.in, tile.inputs, tile.in_columns);
        outer(tile.by_mixed, rounded_up(heads, kRows), tile.second_columns, tile.hidden2, gradients.w3);
        add_rows(tile.by_mixed, heads, gradients.b3);
        layer<T, Then::gate>(layers[2].transposed, nullptr, heads, layers[2].inputs, tile.by_mixed, tile.second, tile.by_second);
        outer(tile.by_second, rounded_up(layers[1].outputs, kRows), tile.first_columns, tile.hidden1, gradients.w2);
        add_rows(tile.by_second, layers[1].outputs, gradients.b2);
        layer<T, Then::gate>(layers[1].transposed, nullptr, layers[1].outputs, layers[1].inputs, tile.by_second, tile.first, tile.by_first);
        outer(tile.by_first, rounded_up(layers[0].outputs, kRows), tile.in_columns, tile.inputs, gradients.w1);
        add_rows(tile.by_first, layers[0].outputs, gradients.b1);
        layer<T, Then::nothing>(layers[0].transposed, nullptr, layers[0].outputs, layers[0].inputs, tile.by_first, nullptr, tile.by_in);
        const T* by_scores = sizes.mix ? tile.by_in + places * P : tile.by_mixed;
        for (int64_t h = 0; h < heads; ++h)
            for (int64_t d = 0; d < width; ++d) {
                const int64_t place = h * width + d;
                const Vec<T> factor = broadcast<T>(q[h * q_stride + d] * scale);
                Vec<T> sum = load(by_q + place * L);
#pragma GCC unroll 4
                for (int v = 0; v < kVectors; ++v) {
                    const Vec<T> by_score = load(by_scores + h * P + v * L);
                    sum += by_score * load(tile_keys + place * P + v * L);
                    T* at = tile_k + place * P + v * L;
                    store(at, load(at) + factor * by_score);
                }
                store(by_q + place * L, sum);
            }
        for (int64_t c = 0; c < dim && places > 0; ++c) {
            Vec<T> sum = load(by_x + c * L);
            for (int v = 0; v < kVectors; ++v) {
                Vec<T> by_difference = load(tile.by_in + (vector ? c : 0) * P + v * L);
                if (!vector) by_difference *= broadcast<T>(2) * (broadcast<T>(x[c]) - load(positions + (t * dim + c) * P + v * L));
                by_difference = load(kept + v * L) > zero<T>() ? by_difference : zero<T>();
                sum += by_difference;
                T* at = gradients.x + (t * dim + c) * P + v * L;
                store(at, load(at) - by_difference);
            }
            store(by_x + c * L, sum);
        }
    }
    for (int64_t i = 0; i < heads * width; ++i) gradients.q[i] = scale * sum_lanes<T>(load(by_q + i * L));
    for (int64_t c = 0; c < dim; ++c) gradients.x_q[c] = sum_lanes<T>(load(by_x + c * L));
}

template <class T>
constexpr PairAttentionKernel<T> kernel() {
    return {kLanes<T>, kPairs<T>, kBlock, &forward<T>, &gradient<T>};
}

const PairAttentionKernels kKernels = {kernel<float>(), kernel<double>()};

}  // namespace

const PairAttentionKernels& pair_attention_kernels() {
    return kKernels;
}

}  // namespace isotypic::cpu::ISOTYPIC_ISA
