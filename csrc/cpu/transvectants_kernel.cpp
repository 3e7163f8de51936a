// transvectants on the CPU: two vectors of samples (a tile) along the lanes.
//
// Floor, for 50 channels in and out, irreps 0, 2, .., 10 and a constant, 63 paths: 433 products a channel, so 433 * 50 * 50 = 1.08 M
// multiply-adds of the mix a sample, beside some 1,400 * 50 + 700 * 50 = 0.11 M of the transvectants: the mix is what takes the time, and
// it runs at the peak of the machine (16 float32 multiply-adds a cycle with AVX-512 on Zen 4: 68,000 cycles a sample). The gradient in f is
// one mix of that size, the gradient in the weight another.
//
// forward, for each block of channels:
//   1. The channels' forms are transposed to tiles. The outer product of a pair of slots, (m+1)(n+1) tiles, is made once in L1, and each
//   coefficient
//      of each of its transvectants is a sum over an antidiagonal of it. They go to a panel [output coefficient][channel][path][tile] in
//      L2.
//   2. For each output coefficient and block of output channels: a register-blocked product of the panel's rows with the weight's rows,
//   which lie in
//      memory as they are read. Sums [output channel][output coefficient][tile] stay in L2.
// The products never reach memory as a tensor.
#include "cpu/transvectants_kernel.hpp"

#include "cpu/products.hpp"
#include "cpu/tile_copy.hpp"
#include "cpu/vec.hpp"

namespace isotypic::cpu::ISOTYPIC_ISA {
namespace {

using Problem = TransvectantsProblem;

template <class T>
constexpr int kOut = kGradientVectors * kLanes<T>;  // output channels side by side in the weight gradient

ISOTYPIC_INLINE int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

// As few blocks of at most kMaxWidth columns as possible, of nearly equal width.
ISOTYPIC_INLINE int64_t even_width(int64_t columns) {
    const int64_t count = (columns + kMaxWidth - 1) / kMaxWidth;
    return (columns + count - 1) / count;
}

// Samples of a tile: rows in the first and in the second vector.
template <class T>
struct Samples {
    int64_t first, count;
    Samples(const Problem& p, int64_t tile) : first(tile * kTile<T>), count(least(kTile<T>, p.batch - tile * kTile<T>)) {}
    int64_t half(int v) const {
        const int64_t left = count - v * kLanes<T>;
        return left < 0 ? 0 : least(left, kLanes<T>);
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

// All transvectants of one channel: x (and h) [coefficient][tile] to the panel, whose rows of an output coefficient are channels * paths.
template <class T>
void products(const Problem& p, const T* x, const T* h, int64_t channel, int64_t channels, T* outer, T* panel) {
    constexpr int L = kLanes<T>, N = kTile<T>;
    const T* coefficients = static_cast<const T*>(p.coefficients);
    for (int q = 0; q < p.pair_count; ++q) {
        const TransvectantPair& pair = p.pairs[q];
        const T *first = x + pair.first * N, *second = x + pair.second * N;
        for (int i = 0; i <= pair.m; ++i) {
            const Vec<T> a0 = load(first + i * N), a1 = load(first + i * N + L);
            T* row = outer + i * (pair.n + 1) * N;
            if (h) {
                const T *other = h + pair.second * N, *left = h + pair.first * N + i * N;
                const Vec<T> b0 = load(left), b1 = load(left + L);
                for (int j = pair.same ? i : 0; j <= pair.n; ++j) {
                    store(row + j * N, a0 * load(other + j * N) + b0 * load(second + j * N));
                    store(row + j * N + L, a1 * load(other + j * N + L) + b1 * load(second + j * N + L));
                }
            } else {
                for (int j = pair.same ? i : 0; j <= pair.n; ++j) {
                    store(row + j * N, a0 * load(second + j * N));
                    store(row + j * N + L, a1 * load(second + j * N + L));
                }
            }
        }
        const int64_t step = static_cast<int64_t>(pair.n) * N;
        for (int r = pair.row_begin; r < pair.row_end; ++r) {
            const TransvectantRow& row = p.rows[r];
            const T *c = coefficients + row.coefficient, *from = outer + static_cast<int64_t>(row.start) * N;
            Vec<T> s0 = broadcast<T>(c[0]) * load(from), s1 = broadcast<T>(c[0]) * load(from + L);
            for (int t = 1; t < row.count; ++t) {
                from += step;
                s0 += broadcast<T>(c[t]) * load(from);
                s1 += broadcast<T>(c[t]) * load(from + L);
            }
            const int64_t before = p.rows_before[row.out], paths = p.rows_before[row.out + 1] - before;
            T* to = panel + (before * channels + channel * paths + row.path) * N;
            store(to, s0);
            store(to + L, s1);
        }
    }
}

// The products of a block of channels [c0, c0 + channels), from memory to the panel; x, h and outer are scratch.
template <class T>
void fill_panel(const Problem& p, const Samples<T>& samples, int64_t c0, int64_t channels, T* x, T* h, T* outer, T* panel) {
    const int64_t stride = p.in_channels * p.in_size;
    load_samples(static_cast<const T*>(p.f), stride, c0 * p.in_size, channels * p.in_size, samples, x);
    if (p.h) load_samples(static_cast<const T*>(p.h), stride, c0 * p.in_size, channels * p.in_size, samples, h);
    for (int64_t c = 0; c < channels; ++c) {
        const int64_t at = c * p.in_size * kTile<T>;
        products<T>(p, x + at, p.h ? h + at : nullptr, c, channels, outer, panel);
    }
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
    T *x, *h, *outer, *panel, *rest;
    Workspace(const Problem& p, void* memory) {
        x = static_cast<T*>(memory);
        h = x + block(p);
        outer = h + block(p);
        panel = outer + static_cast<int64_t>(p.outer_size) * kTile<T>;
        rest = panel + p.row_count * p.channel_block * kTile<T>;
    }
    static int64_t block(const Problem& p) { return p.channel_block * p.in_size * kTile<T>; }
    static int64_t size(const Problem& p) { return 2 * block(p) + (p.outer_size + p.row_count * p.channel_block) * kTile<T>; }
};

template <class T>
int64_t forward_workspace(const Problem& p) {
    return Workspace<T>::size(p) + p.out_channels * p.out_size * kTile<T>;
}

template <class T>
void forward(const Problem& p, int64_t tile, void* memory) {
    constexpr int N = kTile<T>;
    const Samples<T> samples(p, tile);
    const Workspace<T> w(p, memory);
    T* sums = w.rest;  // (O, G, tile)
    const T* weight = static_cast<const T*>(p.weight);
    const int64_t width = even_width(p.out_channels), path_stride = p.out_channels, channel_stride = p.paths * p.out_channels;
    for (int64_t c0 = 0; c0 < p.in_channels; c0 += p.channel_block) {
        const int64_t channels = least(p.channel_block, p.in_channels - c0);
        fill_panel<T>(p, samples, c0, channels, w.x, w.h, w.outer, w.panel);
        for (int l = 0; l < p.out_size; ++l) {
            const int64_t before = p.rows_before[l], paths = p.rows_before[l + 1] - before;
            const T* rows = weight + c0 * channel_stride + p.path_begin[p.slot[l]] * path_stride;
            for (int64_t o = 0; o < p.out_channels; o += width)
                mix_width<T, kMaxWidth>(least(width, p.out_channels - o), w.panel + before * channels * N, rows + o, channels, paths,
                                        channel_stride, path_stride, sums + (o * p.out_size + l) * N, static_cast<int64_t>(p.out_size) * N,
                                        c0 > 0);
        }
    }
    const int64_t size = p.out_channels * p.out_size;
    store_samples(sums, static_cast<T*>(p.result), size, 0, size, samples);
}

template <class T>
int64_t input_workspace(const Problem& p) {
    return Workspace<T>::size(p) + p.out_channels * p.out_size * kTile<T>;
}

template <class T>
void input(const Problem& p, int64_t tile, void* memory) {
    constexpr int L = kLanes<T>, N = kTile<T>;
    const Samples<T> samples(p, tile);
    const Workspace<T> w(p, memory);
    T *z = w.rest, *gradient = w.h;
    const T *weight = static_cast<const T*>(p.weight), *coefficients = static_cast<const T*>(p.coefficients);
    const int64_t out = p.out_channels * p.out_size, in = p.in_channels * p.in_size;
    load_samples(static_cast<const T*>(p.z), out, 0, out, samples, z);
    for (int64_t c0 = 0; c0 < p.in_channels; c0 += p.channel_block) {
        const int64_t channels = least(p.channel_block, p.in_channels - c0);
        load_samples(static_cast<const T*>(p.f), in, c0 * p.in_size, channels * p.in_size, samples, w.x);
        for (int64_t c = 0; c < channels; ++c) {
            // The gradient of this channel's products, [output coefficient][path][tile].
            for (int l = 0; l < p.out_size; ++l) {
                const int64_t before = p.rows_before[l], paths = p.rows_before[l + 1] - before;
                if (!paths) continue;
                const int64_t width = even_width(paths);
                const T* rows = weight + ((c0 + c) * p.paths + p.path_begin[p.slot[l]]) * p.out_channels;
                for (int64_t q = 0; q < paths; q += width)
                    unmix_width<T, kMaxWidth>(least(width, paths - q), z + static_cast<int64_t>(l) * N,
                                              static_cast<int64_t>(p.out_size) * N, rows + q * p.out_channels, p.out_channels,
                                              p.out_channels, w.panel + (before + q) * N);
            }
            const T* x = w.x + c * p.in_size * N;
            T* g = gradient + c * p.in_size * N;
            for (int i = 0; i < 2 * p.in_size; ++i) store(g + i * L, zero<T>());
            for (int q = 0; q < p.pair_count; ++q) {
                const TransvectantPair& pair = p.pairs[q];
                const int* begin = p.term_begin + pair.entry;
                for (int i = 0; i <= pair.m; ++i) {
                    T* gi = g + (pair.first + i) * N;
                    const T* xi = x + (pair.first + i) * N;
                    Vec<T> s0 = zero<T>(), s1 = zero<T>();
                    for (int j = pair.same ? i : 0; j <= pair.n; ++j) {
                        const int entry = i * (pair.n + 1) + j;
                        Vec<T> v0 = zero<T>(), v1 = zero<T>();
                        for (int t = begin[entry]; t < begin[entry + 1]; ++t) {
                            const Vec<T> c = broadcast<T>(coefficients[p.terms[t].coefficient]);
                            const T* from = w.panel + static_cast<int64_t>(p.terms[t].place) * N;
                            v0 += c * load(from);
                            v1 += c * load(from + L);
                        }
                        const T* xj = x + (pair.second + j) * N;
                        T* gj = g + (pair.second + j) * N;
                        s0 += v0 * load(xj);
                        s1 += v1 * load(xj + L);
                        store(gj, load(gj) + v0 * load(xi));
                        store(gj + L, load(gj + L) + v1 * load(xi + L));
                    }
                    store(gi, load(gi) + s0);
                    store(gi + L, load(gi + L) + s1);
                }
            }
        }
        store_samples(gradient, static_cast<T*>(p.result), in, c0 * p.in_size, channels * p.in_size, samples);
    }
}

template <class T>
int64_t padded_out(const Problem& p) {
    return (p.out_channels + kOut<T> - 1) / kOut<T> * kOut<T>;
}

template <class T>
int64_t weight_workspace(const Problem& p) {
    return Workspace<T>::size(p) + p.out_size * kTile<T> * padded_out<T>(p);
}

// Sums of the weight gradient lie in [slot][block of output channels][channel][path][kOut].
template <class T>
int64_t weight_sums(const Problem& p) {
    return p.in_channels * p.paths * padded_out<T>(p);
}

template <class T>
void weight(const Problem& p, int64_t tile, void* all_sums, void* memory) {
    constexpr int N = kTile<T>;
    const Samples<T> samples(p, tile);
    const Workspace<T> w(p, memory);
    T *z = w.rest, *sums = static_cast<T*>(all_sums);  // z (G, tile, O), zero behind the samples and behind the channels
    const int64_t out = padded_out<T>(p), size = p.out_channels * p.out_size;
    for (int64_t i = 0; i < p.out_size * N * out; ++i) z[i] = 0;
    for (int64_t m = 0; m < samples.count; ++m) {
        const T* from = static_cast<const T*>(p.z) + (samples.first + m) * size;
        const int64_t rows = p.out_channels, columns = p.out_size;
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
    for (int64_t c0 = 0; c0 < p.in_channels; c0 += p.channel_block) {
        const int64_t channels = least(p.channel_block, p.in_channels - c0);
        fill_panel<T>(p, samples, c0, channels, w.x, w.h, w.outer, w.panel);
        for (int s = 0; s < p.out_slots; ++s) {
            const int64_t paths = p.path_begin[s + 1] - p.path_begin[s], l = p.out_begin[s];
            T* block = sums + p.path_begin[s] * p.in_channels * out;
            for (int64_t o = 0; o < out; o += kOut<T>)
                accumulate_rows<T, kGradientVectors>(w.panel + p.rows_before[l] * channels * N, z + l * N * out + o, out,
                                                     p.out_begin[s + 1] - p.out_begin[s], paths * channels * N, N * out,
                                                     block + (o * p.in_channels + c0 * kOut<T>)*paths, channels * paths);
        }
    }
}

template <class T>
void finish_weight(const Problem& p, const void* sums, int64_t count, int64_t stride) {
    const int64_t out = padded_out<T>(p);
    T* result = static_cast<T*>(p.result);
    for (int s = 0; s < p.out_slots; ++s) {
        const int64_t paths = p.path_begin[s + 1] - p.path_begin[s];
        const T* block = static_cast<const T*>(sums) + p.path_begin[s] * p.in_channels * out;
        for (int64_t first = 0; first < p.out_channels; first += kOut<T>) {
            const int64_t width = least(kOut<T>, p.out_channels - first);
            for (int64_t row = 0; row < p.in_channels * paths; ++row) {  // (channel, path)
                const T* from = block + (first * p.in_channels * paths + row * kOut<T>);
                T* to = result + (row / paths * p.paths + p.path_begin[s] + row % paths) * p.out_channels + first;
                for (int64_t o = 0; o < width; ++o) to[o] = from[o];
                for (int64_t i = 1; i < count; ++i)
                    for (int64_t o = 0; o < width; ++o) to[o] += from[o + i * stride];
            }
        }
    }
}

template <class T>
constexpr TransvectantsKernel kernel() {
    return {kTile<T>,   &forward_workspace<T>, &forward<T>, &input_workspace<T>, &input<T>, &weight_workspace<T>, &weight_sums<T>,
            &weight<T>, &finish_weight<T>};
}

const TransvectantsKernels kKernels = {kernel<float>(), kernel<double>()};

}  // namespace

const TransvectantsKernels& transvectants_kernels() {
    return kKernels;
}

}  // namespace isotypic::cpu::ISOTYPIC_ISA
