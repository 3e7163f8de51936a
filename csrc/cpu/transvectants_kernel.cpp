// transvectants on the CPU: two vectors of samples (a tile) along the lanes; samples that fill no tile one by one
// (transvectants_sample.hpp).
//
// Floor, for 50 channels in and out, irreps 0, 2, .., 10 and a constant, 63 paths: 417 products a channel, so 417 * 50 * 50 = 1.04 M
// multiply-adds of the mix a sample, beside 700 products and 1,400 multiply-adds a channel, 0.1 M, of the transvectants. The mix is the
// product of two matrices with no structure that is left: for each degree the transvectants are linearly independent functions of f and
// the weights are free, so that fewer multiply-adds would take a method like Strassen's, whose additions of panels cost more stores than
// the eighth that it saves. At the 57 G float32 multiply-adds a second that one Zen 4 core was measured to do, 32 samples take 0.58 ms for
// the mix and 0.06 for the transvectants. Measured there 0.76 forward, 0.83 for the gradient in f and 0.83 for that in the weight, when
// each channel still went through the 300 antidiagonals by itself: the mix ran at the peak. On one Zen 1 core with AVX2, where torch's
// largest products do 17 G multiply-adds a second: floor 1.95 and 0.2 ms; measured 2.56 forward, 2.85 before, of which the transvectants
// take 0.6: their panel is written to L2 and read again.
//
// forward, for each block of channels:
//   1. The channels' forms are transposed to tiles; their transvectants (transvectants_products.hpp) go to a panel
//      [output coefficient][channel][path][tile] in L2.
//   2. For each output coefficient and block of output channels: a register-blocked product of the panel's rows with the weight's rows,
//      which lie in memory as they are read. Sums [output channel][output coefficient][tile] stay in L2.
// weight: output channels along the lanes, and the few behind the last whole vector with the samples along the lanes.
// The products never reach memory as a tensor.
#include "cpu/transvectants_kernel.hpp"

#include "cpu/products.hpp"
#include "cpu/tile_copy.hpp"
#include "cpu/transvectants_products.hpp"
#include "cpu/transvectants_sample.hpp"
#include "cpu/vec.hpp"

namespace isotypic::cpu::ISOTYPIC_ISA {
namespace {

constexpr int kDotRows = kGradientRows;

// As few blocks of at most kMaxWidth columns as possible, of nearly equal width.
ISOTYPIC_INLINE int64_t even_width(int64_t columns) {
    const int64_t count = (columns + kMaxWidth - 1) / kMaxWidth;
    return (columns + count - 1) / count;
}

// Samples of a tile: rows in the first and in the second vector.
template <class T>
struct Samples {
    int64_t first, count;
    int64_t half(int v) const {
        const int64_t left = count - v * kLanes<T>;
        return left < 0 ? 0 : smaller(left, kLanes<T>);
    }
};

// Columns [column, column + width) of the samples' rows of a (batch, stride) array, to [column][tile].
template <class T>
void load_samples(const T* source, int64_t stride, int64_t column, int64_t width, const Samples<T>& samples, T* target) {
    for (int v = 0; v < 2; ++v)
        load_tile(source + (samples.first + v * kLanes<T>)*stride + column, stride, samples.half(v), width, target + v * kLanes<T>,
                  kTile<T>);
}

template <class T>
void store_samples(const T* source, T* target, int64_t stride, int64_t column, int64_t width, const Samples<T>& samples) {
    for (int v = 0; v < 2; ++v)
        store_tile(source + v * kLanes<T>, kTile<T>, samples.half(v), width, target + (samples.first + v * kLanes<T>)*stride + column,
                   stride);
}

// Rows of the panel lie as [output coefficient][channel][path].
template <class T>
struct PanelPlace {
    const TransvectantsCall& p;
    int64_t channels;
    T* panel;
    PanelRow<T> operator()(const TransvectantRow& row) const {
        const int64_t before = p.rows_before[row.out], paths = p.rows_before[row.out + 1] - before;
        return {panel + (before * channels + row.path) * kTile<T>, paths * kTile<T>};
    }
};

// The products of a block of channels [c0, c0 + channels), from memory to the panel; x and h are scratch.
template <class T>
void fill_panel(const TransvectantsCall& p, const Samples<T>& samples, int64_t c0, int64_t channels, T* x, T* h, T* panel) {
    const int64_t stride = p.in_channels * p.in_size;
    load_samples(static_cast<const T*>(p.f), stride, c0 * p.in_size, channels * p.in_size, samples, x);
    if (p.h) load_samples(static_cast<const T*>(p.h), stride, c0 * p.in_size, channels * p.in_size, samples, h);
    products<T>(p, x, p.h ? h : nullptr, channels, PanelPlace<T>{p, channels, panel});
}

// sums[n] (+)= sum over channels c and paths q of panel[c][q] weight[c * channel_stride + q * path_stride + n] for n < Width; sums are
// `pitch` apart.
template <class T, int Width>
void mix(const T* panel, const T* weight, int64_t channels, int64_t paths, int64_t channel_stride, int64_t path_stride, T* sums,
         int64_t pitch, bool accumulate) {
    constexpr int L = kLanes<T>;
    Vec<T> sum[Width][2];
#pragma GCC unroll 16
    for (int n = 0; n < Width; ++n) {
        sum[n][0] = accumulate ? load(sums + n * pitch) : zero<T>();
        sum[n][1] = accumulate ? load(sums + n * pitch + L) : zero<T>();
    }
    for (int64_t c = 0; c < channels; ++c) {
        const T* row = weight + c * channel_stride;
        for (int64_t q = 0; q < paths; ++q) {
            const Vec<T> a0 = load(panel), a1 = load(panel + L);
#pragma GCC unroll 16
            for (int n = 0; n < Width; ++n) {
                const Vec<T> w = broadcast<T>(row[n]);
                sum[n][0] += a0 * w;
                sum[n][1] += a1 * w;
            }
            panel += 2 * L;
            row += path_stride;
        }
    }
#pragma GCC unroll 16
    for (int n = 0; n < Width; ++n) store(sums + n * pitch, sum[n][0]), store(sums + n * pitch + L, sum[n][1]);
}

template <class T, int Width>
ISOTYPIC_INLINE void mix_width(int64_t width, const T* panel, const T* weight, int64_t channels, int64_t paths, int64_t channel_stride,
                               int64_t path_stride, T* sums, int64_t pitch, bool accumulate) {
    if (width == Width) return mix<T, Width>(panel, weight, channels, paths, channel_stride, path_stride, sums, pitch, accumulate);
    if constexpr (Width > 1)
        mix_width<T, Width - 1>(width, panel, weight, channels, paths, channel_stride, path_stride, sums, pitch, accumulate);
}

// target[n] = sum over o of source[o * pitch] weight[n * path_stride + o] for n < Width: the adjoint of the mix, one channel.
template <class T, int Width>
void unmix(const T* source, int64_t pitch, const T* weight, int64_t path_stride, int64_t out_channels, T* target) {
    constexpr int L = kLanes<T>;
    Vec<T> sum[Width][2];
#pragma GCC unroll 16
    for (int n = 0; n < Width; ++n) sum[n][0] = zero<T>(), sum[n][1] = zero<T>();
    for (int64_t o = 0; o < out_channels; ++o) {
        const Vec<T> a0 = load(source), a1 = load(source + L);
#pragma GCC unroll 16
        for (int n = 0; n < Width; ++n) {
            const Vec<T> w = broadcast<T>(weight[n * path_stride + o]);
            sum[n][0] += a0 * w;
            sum[n][1] += a1 * w;
        }
        source += pitch;
    }
#pragma GCC unroll 16
    for (int n = 0; n < Width; ++n) store(target + n * 2 * L, sum[n][0]), store(target + n * 2 * L + L, sum[n][1]);
}

template <class T, int Width>
ISOTYPIC_INLINE void unmix_width(int64_t width, const T* source, int64_t pitch, const T* weight, int64_t path_stride, int64_t out_channels,
                                 T* target) {
    if (width == Width) return unmix<T, Width>(source, pitch, weight, path_stride, out_channels, target);
    if constexpr (Width > 1) unmix_width<T, Width - 1>(width, source, pitch, weight, path_stride, out_channels, target);
}

template <class T>
struct Workspace {
    T *x, *h, *panel, *rest;  // rest: sums or cotangents [output channel][output coefficient][tile], or [coefficient][tile][channel]
    Workspace(const TransvectantsCall& p, void* memory) {
        x = static_cast<T*>(memory);
        h = x + block(p);
        panel = h + block(p);
        rest = panel + p.row_count * p.channel_block * kTile<T>;
    }
    static int64_t block(const TransvectantsCall& p) { return p.channel_block * p.in_size * kTile<T>; }
};

template <class T>
int64_t workspace(const TransvectantsCall& p) {
    const int64_t tiles = 2 * Workspace<T>::block(p) + (p.row_count * p.channel_block + 2 * p.out_channels * p.out_size) * kTile<T>;
    return larger(tiles, SampleWorkspace<T>::size(p));
}

template <class T>
void forward(const TransvectantsCall& p, int64_t first, int64_t count, void* memory) {
    constexpr int N = kTile<T>;
    const Samples<T> samples{first, count};
    const Workspace<T> w(p, memory);
    T* sums = w.rest;  // (O, G, tile)
    const T* weight = static_cast<const T*>(p.weight);
    const int64_t width = even_width(p.out_channels), path_stride = p.out_channels, channel_stride = p.paths * p.out_channels;
    for (int64_t c0 = 0; c0 < p.in_channels; c0 += p.channel_block) {
        const int64_t channels = smaller(p.channel_block, p.in_channels - c0);
        fill_panel<T>(p, samples, c0, channels, w.x, w.h, w.panel);
        for (int l = 0; l < p.out_size; ++l) {
            const int64_t before = p.rows_before[l], paths = p.rows_before[l + 1] - before;
            const T* rows = weight + c0 * channel_stride + p.path_begin[p.slot[l]] * path_stride;
            for (int64_t o = 0; o < p.out_channels; o += width)
                mix_width<T, kMaxWidth>(smaller(width, p.out_channels - o), w.panel + before * channels * N, rows + o, channels, paths,
                                        channel_stride, path_stride, sums + (o * p.out_size + l) * N, static_cast<int64_t>(p.out_size) * N,
                                        c0 > 0);
        }
    }
    const int64_t size = p.out_channels * p.out_size;
    store_samples(sums, static_cast<T*>(p.result), size, 0, size, samples);
}

template <class T>
void input(const TransvectantsCall& p, int64_t first, int64_t count, void* memory) {
    constexpr int N = kTile<T>;
    const Samples<T> samples{first, count};
    const Workspace<T> w(p, memory);
    T *z = w.rest, *gradient = w.h;
    const T* weight = static_cast<const T*>(p.weight);
    const int64_t out = p.out_channels * p.out_size, in = p.in_channels * p.in_size;
    load_samples(static_cast<const T*>(p.z), out, 0, out, samples, z);
    for (int64_t c0 = 0; c0 < p.in_channels; c0 += p.channel_block) {
        const int64_t channels = smaller(p.channel_block, p.in_channels - c0);
        load_samples(static_cast<const T*>(p.f), in, c0 * p.in_size, channels * p.in_size, samples, w.x);
        for (int64_t c = 0; c < channels; ++c) {
            // The gradient of this channel's transvectants, [output coefficient][path][tile].
            T* panel = w.panel + c * p.row_count * N;
            for (int l = 0; l < p.out_size; ++l) {
                const int64_t before = p.rows_before[l], paths = p.rows_before[l + 1] - before;
                if (!paths) continue;
                const int64_t width = even_width(paths);
                const T* rows = weight + ((c0 + c) * p.paths + p.path_begin[p.slot[l]]) * p.out_channels;
                for (int64_t q = 0; q < paths; q += width)
                    unmix_width<T, kMaxWidth>(smaller(width, paths - q), z + static_cast<int64_t>(l) * N,
                                              static_cast<int64_t>(p.out_size) * N, rows + q * p.out_channels, p.out_channels,
                                              p.out_channels, panel + (before + q) * N);
            }
        }
        products_adjoint<T>(p, w.x, w.panel, gradient, channels);
        store_samples(gradient, static_cast<T*>(p.result), in, c0 * p.in_size, channels * p.in_size, samples);
    }
}

// sums[row][o] (+)= sum_{l, m} panel[l][row][m] z[o][l][m] for the output channels o behind the last whole vector, which are few: the lanes
// are samples, and are added up at the end.
template <class T, int Rows>
void accumulate_dot(const T* panel, const T* z, int64_t z_step, int steps, int64_t panel_step, T* sums, int64_t pitch, bool add) {
    constexpr int L = kLanes<T>;
    Vec<T> sum[Rows];
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) sum[r] = zero<T>();
    for (int l = 0; l < steps; ++l) {
        for (int m = 0; m < 2 * L; m += L) {
            const Vec<T> right = load(z + m);
#pragma GCC unroll 16
            for (int r = 0; r < Rows; ++r) sum[r] += load(panel + r * 2 * L + m) * right;
        }
        panel += panel_step;
        z += z_step;
    }
    for (int r = 0; r < Rows; ++r) {
        T lanes[L], total = add ? sums[r * pitch] : 0;
        store(lanes, sum[r]);
        for (int half = L / 2; half > 0; half /= 2)
            for (int l = 0; l < half; ++l) lanes[l] += lanes[l + half];
        sums[r * pitch] = total + lanes[0];
    }
}

// Sums lie in [slot][channel][path][output channel].
template <class T>
void weight(const TransvectantsCall& p, int64_t first, int64_t count, bool add, void* all_sums, void* memory) {
    constexpr int L = kLanes<T>, N = kTile<T>;
    const Samples<T> samples{first, count};
    const Workspace<T> w(p, memory);
    const int64_t out = p.out_channels, size = out * p.out_size, tail = out % L && out % L <= L / 4 ? out % L : 0, whole = out - tail;
    T *z = w.rest, *lanes = z + size * N;  // z (G, tile, O), zero behind the samples; (O, G, tile)
    for (int64_t m = 0; m < samples.count; ++m) {
        const T* from = static_cast<const T*>(p.z) + (samples.first + m) * size;
        const int64_t rows = out, columns = p.out_size;
        if (rows >= 4 && columns >= 4) {
            for (int64_t o = 0; o < rows; o += 4)
                for (int64_t l = 0; l < columns; l += 4) {
                    const int64_t at = o + 4 <= rows ? o : rows - 4, column = l + 4 <= columns ? l : columns - 4;
                    transpose_block(from + at * columns + column, columns, z + (column * N + m) * out + at, N * out);
                }
        } else {
            for (int64_t o = 0; o < rows; ++o)
                for (int64_t l = 0; l < columns; ++l) z[(l * N + m) * out + o] = from[o * columns + l];
        }
    }
    for (int64_t l = 0; l < p.out_size; ++l)
        for (int64_t i = samples.count * out; i < N * out; ++i) z[l * N * out + i] = 0;
    if (tail) load_samples(static_cast<const T*>(p.z), size, whole * p.out_size, tail * p.out_size, samples, lanes);
    for (int64_t c0 = 0; c0 < p.in_channels; c0 += p.channel_block) {
        const int64_t channels = smaller(p.channel_block, p.in_channels - c0);
        fill_panel<T>(p, samples, c0, channels, w.x, w.h, w.panel);
        for (int s = 0; s < p.out_slots; ++s) {
            const int64_t paths = p.path_begin[s + 1] - p.path_begin[s], l = p.out_begin[s], rows = channels * paths;
            const int steps = p.out_begin[s + 1] - p.out_begin[s];
            const T* panel = w.panel + p.rows_before[l] * channels * N;
            T* sums = static_cast<T*>(all_sums) + (p.path_begin[s] * p.in_channels + c0 * paths) * out;
            multiply_rows<T, N>({panel, rows * N, 1, z + l * N * out, N * out, out, steps, N, sums, out, add}, rows, whole);
            for (int64_t o = 0; o < tail; ++o) {
                const T* right = lanes + (o * p.out_size + l) * N;
                T* target = sums + whole + o;
                int64_t row = 0;
                for (; row + kDotRows <= rows; row += kDotRows)
                    accumulate_dot<T, kDotRows>(panel + row * N, right, N, steps, rows * N, target + row * out, out, add);
                for (; row < rows; ++row) accumulate_dot<T, 1>(panel + row * N, right, N, steps, rows * N, target + row * out, out, add);
            }
        }
    }
}

template <class T>
void finish_weight(const TransvectantsCall& p, const void* all_sums, int64_t count, int64_t stride) {
    T* to = static_cast<T*>(p.result);
    for (int64_t c = 0; c < p.in_channels; ++c)
        for (int s = 0; s < p.out_slots; ++s) {
            const int64_t paths = p.path_begin[s + 1] - p.path_begin[s], size = paths * p.out_channels;
            const T* from = static_cast<const T*>(all_sums) + (p.path_begin[s] * p.in_channels + c * paths) * p.out_channels;
            for (int64_t i = 0; i < size; ++i) to[i] = from[i];
            for (int64_t k = 1; k < count; ++k)
                for (int64_t i = 0; i < size; ++i) to[i] += from[i + k * stride];
            to += size;
        }
}

template <class T>
constexpr TransvectantsKernel kernel() {
    return {kTile<T>,           &workspace<T>,    &forward<T>,       &input<T>,        &weight<T>,
            &forward_sample<T>, &input_sample<T>, &weight_sample<T>, &finish_weight<T>};
}

const TransvectantsKernels kKernels = {kernel<float>(), kernel<double>()};

}  // namespace

const TransvectantsKernels& transvectants_kernels() {
    return kKernels;
}

}  // namespace isotypic::cpu::ISOTYPIC_ISA
