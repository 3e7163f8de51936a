// distance_attention on a device: tiles of 16 queries against tiles of 32 keys in shared memory, in the manner of the CPU kernel.
//
// Tokens come in tens to thousands and features of a head in hundreds, so that a block has all features of its tiles in shared memory: for
// 4 channels and 32 scalars 36 kB in float32. Scores, weights and their derivatives never leave it. Keys that all heads share are summed
// over heads by one block in their order: no atomics. Gradients are two passes, one over queries and one over keys, which compute the
// scores again.
#include "ops/distance_attention.hpp"

#include <cmath>

#include "cuda/launch.cuh"

namespace isotypic {
namespace cuda {
namespace {

constexpr int kBlock = 128, kQueries = kAttentionQueries, kKeys = 32, kGeometry = 5;

struct Sizes {
    int heads, key_heads, C, S, Cv, Sv, inner, index[16], distance;
    int features, width, values;  // width: features and geometry
    int64_t queries, keys;
    double sign[16], scale;
};

template <class T>
struct Operands {
    const T *q_mv, *k_mv, *v_mv, *q_s, *k_s, *v_s, *weight;
    const uint8_t* mask;
    const int32_t* ranges;
    T *mv, *s, *lse;
};

template <class T>
struct Gradients {
    const T *g_mv, *g_s;
    T *q_mv, *k_mv, *v_mv, *q_s, *k_s, *v_s, *weights;  // weights: (blocks, C)
};

DEVICE float exponential(float x) {
    return expf(x);
}
DEVICE double exponential(double x) {
    return exp(x);
}
DEVICE float logarithm(float x) {
    return logf(x);
}
DEVICE double logarithm(double x) {
    return log(x);
}

template <class T>
DEVICE T normalizer(T w) {
    return w / (w * w + static_cast<T>(kAttentionEpsilon));
}
template <class T>
DEVICE T normalizer_slope(T w) {  // d(n^2) / dw
    const T square = w * w + static_cast<T>(kAttentionEpsilon);
    return 2 * w * (static_cast<T>(kAttentionEpsilon) - w * w) / (square * square * square);
}

// weight x, and nothing of an x that does not count, be it NaN: what padding or another sequence holds reaches nobody.
template <class T>
DEVICE T weighted(T weight, T x) {
    return weight == T{} ? T{} : weight * x;
}

// The features of `count` items of one head, of `heads` in the tensor; those of queries have scale, signs and weight in them.
template <class T>
DEVICE void read_features(const Sizes& a, const T* mv, const T* s, int64_t item, int count, int heads, int head, bool query,
                          const T* weight, T* to) {
    const T scale = query ? static_cast<T>(a.scale) : T{1};
    for (int e = thread_index(); e < count * a.width; e += kBlock) {
        const int row = e / a.width, f = e % a.width;
        const int64_t at = (item + row) * heads + head;
        if (f < a.C * a.inner) {
            const int i = f % a.inner;
            to[e] = mv[(at * a.C + f / a.inner) * 16 + a.index[i]] * scale * (query ? static_cast<T>(a.sign[i]) : T{1});
        } else if (f < a.features) {
            to[e] = s[at * a.S + f - a.C * a.inner] * scale;
        } else {
            const int c = (f - a.features) / kGeometry, i = (f - a.features) % kGeometry;
            const T* x = mv + (at * a.C + c) * 16;
            const T n = normalizer(x[14]);
            to[e] = i < 4 ? x[11 + i] : n * n * scale * (weight ? weight[head * a.C + c] : T{1});
        }
    }
}

template <class T>
DEVICE void read_values(const Sizes& a, const T* mv, const T* s, int64_t item, int count, int heads, int head, T* to) {
    for (int e = thread_index(); e < count * a.values; e += kBlock) {
        const int row = e / a.values, d = e % a.values;
        const int64_t at = (item + row) * heads + head;
        to[e] = d < 16 * a.Cv ? mv[at * a.Cv * 16 + d] : s[at * a.Sv + d - 16 * a.Cv];
    }
}

template <class T>
DEVICE T logit(const Sizes& a, const T* q, const T* k) {
    T sum = T{};
    for (int f = 0; f < a.features; ++f) sum += q[f] * k[f];
    for (int f = a.features; f < a.width; f += kGeometry) {
        T square = T{};
        for (int i = 0; i < 3; ++i) {
            const T r = q[f + i] * k[f + 3] - k[f + i] * q[f + 3];
            square += r * r;
        }
        sum -= q[f + 4] * (k[f + 4] * square);
    }
    return sum;
}

template <class T>
DEVICE bool attends(const Sizes& a, const Operands<T>& x, int64_t sample, int64_t query, int64_t key) {
    const int64_t row = sample * a.queries + query;
    if (x.ranges && (key < x.ranges[2 * row] || key >= x.ranges[2 * row + 1])) return false;
    return !x.mask || x.mask[row * a.keys + key];
}

// A block: one tile of one head of one sample.
struct Place {
    int64_t sample, first;
    int head, count;
};
DEVICE Place place_of(int heads, int64_t items, int tile) {
    const int64_t tiles = (items + tile - 1) / tile, block = block_index();
    Place p;
    p.first = block % tiles * tile;
    p.head = static_cast<int>(block / tiles % heads);
    p.sample = block / tiles / heads;
    p.count = static_cast<int>(items - p.first < tile ? items - p.first : tile);
    return p;
}

template <class T>
__global__ void __launch_bounds__(kBlock) attend(Sizes a, Operands<T> x) {
    T* q = reinterpret_cast<T*>(shared_memory());
    T *k = q + kQueries * a.width, *v = k + kKeys * a.width, *o = v + kKeys * a.values, *p = o + kQueries * a.values;
    T *largest = p + kQueries * kKeys, *total = largest + kQueries, *correction = total + kQueries;
    const Place at = place_of(a.heads, a.queries, kQueries);
    const int key_head = a.key_heads == 1 ? 0 : at.head;
    const T lowest = -static_cast<T>(sizeof(T) == 4 ? 1e38 : 1e300), nothing = -static_cast<T>(INFINITY);
    read_features(a, x.q_mv, x.q_s, at.sample * a.queries + at.first, at.count, a.heads, at.head, true, x.weight, q);
    for (int e = thread_index(); e < kQueries * a.values; e += kBlock) o[e] = T{};
    if (thread_index() < kQueries) largest[thread_index()] = lowest, total[thread_index()] = T{};
    for (int64_t key = 0; key < a.keys; key += kKeys) {
        const int keys = static_cast<int>(a.keys - key < kKeys ? a.keys - key : kKeys);
        __syncthreads();
        read_features(a, x.k_mv, x.k_s, at.sample * a.keys + key, keys, a.key_heads, key_head, false, static_cast<const T*>(nullptr), k);
        read_values(a, x.v_mv, x.v_s, at.sample * a.keys + key, keys, a.key_heads, key_head, v);
        __syncthreads();
        for (int e = thread_index(); e < at.count * kKeys; e += kBlock) {
            const int i = e / kKeys, j = e % kKeys;
            const bool there = j < keys && attends(a, x, at.sample, at.first + i, key + j);
            p[e] = there ? logit(a, q + i * a.width, k + j * a.width) : nothing;
        }
        __syncthreads();
        if (thread_index() < at.count) {
            const int i = thread_index();
            T now = largest[i], sum = T{};
            for (int j = 0; j < kKeys; ++j) now = p[i * kKeys + j] > now ? p[i * kKeys + j] : now;
            for (int j = 0; j < kKeys; ++j) sum += p[i * kKeys + j] = exponential(p[i * kKeys + j] - now);
            correction[i] = exponential(largest[i] - now);
            total[i] = total[i] * correction[i] + sum;
            largest[i] = now;
        }
        __syncthreads();
        for (int e = thread_index(); e < at.count * a.values; e += kBlock) {
            const int i = e / a.values, d = e % a.values;
            T sum = o[e] * correction[i];
            for (int j = 0; j < keys; ++j) sum += weighted(p[i * kKeys + j], v[j * a.values + d]);
            o[e] = sum;
        }
    }
    __syncthreads();
    for (int e = thread_index(); e < at.count * a.values; e += kBlock) {
        const int i = e / a.values, d = e % a.values;
        const int64_t row = (at.sample * a.queries + at.first + i) * a.heads + at.head;
        const T value = total[i] == T{} ? T{} : o[e] / total[i];
        if (d < 16 * a.Cv)
            x.mv[row * a.Cv * 16 + d] = value;
        else
            x.s[row * a.Sv + d - 16 * a.Cv] = value;
    }
    if (thread_index() < at.count) {
        const int i = thread_index();
        const T lse = total[i] == T{} ? static_cast<T>(INFINITY) : largest[i] + logarithm(total[i]);
        x.lse[(at.sample * a.heads + at.head) * a.queries + at.first + i] = lse;
    }
}

// The sums of g and the result, one for each query of a tile.
template <class T>
DEVICE void read_means(const Sizes& a, const Operands<T>& x, const T* g, int64_t item, int count, int head, T* to) {
    if (thread_index() >= count) return;
    const int64_t row = (item + thread_index()) * a.heads + head;
    const T* mine = g + thread_index() * a.values;
    T sum = T{};
    for (int d = 0; d < 16 * a.Cv; ++d) sum += mine[d] * x.mv[row * a.Cv * 16 + d];
    for (int d = 0; d < a.Sv; ++d) sum += mine[16 * a.Cv + d] * x.s[row * a.Sv + d];
    to[thread_index()] = sum;
}

// weights P and their derivatives dS of a tile of pairs; P only where it is not null.
template <class T>
DEVICE void slopes(const Sizes& a, const Operands<T>& x, int64_t sample, int head, int64_t query, int queries, int64_t key, int keys,
                   const T* q, const T* k, const T* g, const T* v, const T* mean, T* weights, T* slope) {
    for (int e = thread_index(); e < queries * kKeys; e += kBlock) {
        const int i = e / kKeys, j = e % kKeys;
        T weight = T{}, derivative = T{};
        if (j < keys && attends(a, x, sample, query + i, key + j)) {
            weight = exponential(logit(a, q + i * a.width, k + j * a.width) - x.lse[(sample * a.heads + head) * a.queries + query + i]);
            T inner = T{};
            for (int d = 0; d < a.values; ++d) inner += g[i * a.values + d] * v[j * a.values + d];
            derivative = weight * (inner - mean[i]);
            if (mean[i] != mean[i]) {  // a result that is NaN: where nothing is asked of it, its query gives nothing to the keys
                bool asked = false;
                for (int d = 0; d < a.values; ++d) asked = asked || g[i * a.values + d] != T{};
                if (!asked) weight = derivative = T{};
            }
        }
        if (weights) weights[e] = weight;
        slope[e] = derivative;
    }
}

template <class T>
__global__ void __launch_bounds__(kBlock) query_gradients(Sizes a, Operands<T> x, Gradients<T> y) {
    T* q = reinterpret_cast<T*>(shared_memory());
    T *k = q + kQueries * a.width, *v = k + kKeys * a.width, *g = v + kKeys * a.values, *slope = g + kQueries * a.values;
    T *mean = slope + kQueries * kKeys, *sums = mean + kQueries;
    const Place at = place_of(a.heads, a.queries, kQueries);
    const int key_head = a.key_heads == 1 ? 0 : at.head;
    const int64_t item = at.sample * a.queries + at.first;
    read_features(a, x.q_mv, x.q_s, item, at.count, a.heads, at.head, true, x.weight, q);
    read_values(a, y.g_mv, y.g_s, item, at.count, a.heads, at.head, g);
    for (int e = thread_index(); e < kQueries * a.width; e += kBlock) sums[e] = T{};
    __syncthreads();
    read_means(a, x, g, item, at.count, at.head, mean);
    for (int64_t key = 0; key < a.keys; key += kKeys) {
        const int keys = static_cast<int>(a.keys - key < kKeys ? a.keys - key : kKeys);
        __syncthreads();
        read_features(a, x.k_mv, x.k_s, at.sample * a.keys + key, keys, a.key_heads, key_head, false, static_cast<const T*>(nullptr), k);
        read_values(a, x.v_mv, x.v_s, at.sample * a.keys + key, keys, a.key_heads, key_head, v);
        __syncthreads();
        slopes<T>(a, x, at.sample, at.head, at.first, at.count, key, keys, q, k, g, v, mean, nullptr, slope);
        __syncthreads();
        for (int e = thread_index(); e < at.count * a.features; e += kBlock) {
            const int i = e / a.features, f = e % a.features;
            T sum = T{};
            for (int j = 0; j < keys; ++j) sum += weighted(slope[i * kKeys + j], k[j * a.width + f]);
            sums[i * a.width + f] += sum;
        }
        const int channels = a.distance ? a.C : 0;
        for (int e = thread_index(); e < at.count * channels; e += kBlock) {
            const int i = e / channels, f = a.features + e % channels * kGeometry;
            const T* own = q + i * a.width + f;
            T* sum = sums + i * a.width + f;
            for (int j = 0; j < keys; ++j) {
                const T *other = k + j * a.width + f, s = slope[i * kKeys + j], u = -2 * s * own[4] * other[4];
                if (s == T{}) continue;
                T square = T{};
                for (int d = 0; d < 3; ++d) {
                    const T r = own[d] * other[3] - other[d] * own[3];
                    square += r * r;
                    sum[d] += u * r * other[3];
                    sum[3] -= u * r * other[d];
                }
                sum[4] -= s * other[4] * square;
            }
        }
    }
    __syncthreads();
    const T scale = static_cast<T>(a.scale);
    for (int e = thread_index(); e < at.count * a.C * 16; e += kBlock) {
        const int i = e / (a.C * 16), c = e / 16 % a.C, component = e % 16;
        const int64_t place = (((item + i) * a.heads + at.head) * a.C + c) * 16 + component;
        const T* sum = sums + i * a.width;
        T value = T{};
        for (int d = 0; d < a.inner; ++d)
            if (a.index[d] == component) value = sum[c * a.inner + d] * scale * static_cast<T>(a.sign[d]);
        if (a.distance && component >= 11 && component < 15) value += sum[a.features + c * kGeometry + component - 11];
        if (a.distance && component == 14)
            value += weighted(sum[a.features + c * kGeometry + 4],
                              scale * (x.weight ? x.weight[at.head * a.C + c] : T{1}) * normalizer_slope(x.q_mv[place]));
        y.q_mv[place] = value;
    }
    for (int e = thread_index(); e < at.count * a.S; e += kBlock)
        y.q_s[((item + e / a.S) * a.heads + at.head) * a.S + e % a.S] = sums[e / a.S * a.width + a.C * a.inner + e % a.S] * scale;
    for (int c = thread_index(); c < a.C; c += kBlock) {
        T sum = T{};
        for (int i = 0; i < at.count && a.distance; ++i) {
            const T n = normalizer(x.q_mv[(((item + i) * a.heads + at.head) * a.C + c) * 16 + 14]);
            sum += weighted(sums[i * a.width + a.features + c * kGeometry + 4], scale * n * n);
        }
        y.weights[static_cast<int64_t>(block_index()) * a.C + c] = sum;
    }
}

template <class T>
__global__ void __launch_bounds__(kBlock) key_gradients(Sizes a, Operands<T> x, Gradients<T> y) {
    T* q = reinterpret_cast<T*>(shared_memory());
    T *k = q + kQueries * a.width, *v = k + kKeys * a.width, *g = v + kKeys * a.values, *slope = g + kQueries * a.values;
    T *weights = slope + kQueries * kKeys, *mean = weights + kQueries * kKeys, *sums = mean + kQueries, *totals = sums + kKeys * a.width;
    const Place at = place_of(a.key_heads, a.keys, kKeys);
    const int64_t item = at.sample * a.keys + at.first;
    read_features(a, x.k_mv, x.k_s, item, at.count, a.key_heads, at.head, false, static_cast<const T*>(nullptr), k);
    read_values(a, x.v_mv, x.v_s, item, at.count, a.key_heads, at.head, v);
    for (int e = thread_index(); e < kKeys * a.width; e += kBlock) sums[e] = T{};
    for (int e = thread_index(); e < kKeys * a.values; e += kBlock) totals[e] = T{};
    const int shared = a.heads / a.key_heads;
    for (int other_head = 0; other_head < shared; ++other_head) {
        const int head = a.key_heads == 1 ? other_head : at.head;
        for (int64_t query = 0; query < a.queries; query += kQueries) {
            const int queries = static_cast<int>(a.queries - query < kQueries ? a.queries - query : kQueries);
            __syncthreads();
            read_features(a, x.q_mv, x.q_s, at.sample * a.queries + query, queries, a.heads, head, true, x.weight, q);
            read_values(a, y.g_mv, y.g_s, at.sample * a.queries + query, queries, a.heads, head, g);
            __syncthreads();
            read_means(a, x, g, at.sample * a.queries + query, queries, head, mean);
            __syncthreads();
            slopes(a, x, at.sample, head, query, queries, at.first, at.count, q, k, g, v, mean, weights, slope);
            __syncthreads();
            for (int e = thread_index(); e < at.count * a.values; e += kBlock) {
                const int j = e / a.values, d = e % a.values;
                T sum = T{};
                for (int i = 0; i < queries; ++i) sum += weighted(weights[i * kKeys + j], g[i * a.values + d]);
                totals[e] += sum;
            }
            for (int e = thread_index(); e < at.count * a.features; e += kBlock) {
                const int j = e / a.features, f = e % a.features;
                T sum = T{};
                for (int i = 0; i < queries; ++i) sum += weighted(slope[i * kKeys + j], q[i * a.width + f]);
                sums[j * a.width + f] += sum;
            }
            const int channels = a.distance ? a.C : 0;
            for (int e = thread_index(); e < at.count * channels; e += kBlock) {
                const int j = e / channels, f = a.features + e % channels * kGeometry;
                const T* own = k + j * a.width + f;
                T* sum = sums + j * a.width + f;
                for (int i = 0; i < queries; ++i) {
                    const T *other = q + i * a.width + f, s = slope[i * kKeys + j], u = -2 * s * own[4] * other[4];
                    if (s == T{}) continue;
                    T square = T{};
                    for (int d = 0; d < 3; ++d) {
                        const T r = other[d] * own[3] - own[d] * other[3];
                        square += r * r;
                        sum[d] -= u * r * other[3];
                        sum[3] += u * r * other[d];
                    }
                    sum[4] -= s * other[4] * square;
                }
            }
        }
    }
    __syncthreads();
    for (int e = thread_index(); e < at.count * a.C * 16; e += kBlock) {
        const int j = e / (a.C * 16), c = e / 16 % a.C, component = e % 16;
        const int64_t place = (((item + j) * a.key_heads + at.head) * a.C + c) * 16 + component;
        const T* sum = sums + j * a.width;
        T value = T{};
        for (int d = 0; d < a.inner; ++d)
            if (a.index[d] == component) value = sum[c * a.inner + d];
        if (a.distance && component >= 11 && component < 15) value += sum[a.features + c * kGeometry + component - 11];
        if (a.distance && component == 14) value += weighted(sum[a.features + c * kGeometry + 4], normalizer_slope(x.k_mv[place]));
        y.k_mv[place] = value;
    }
    for (int e = thread_index(); e < at.count * a.S; e += kBlock)
        y.k_s[((item + e / a.S) * a.key_heads + at.head) * a.S + e % a.S] = sums[e / a.S * a.width + a.C * a.inner + e % a.S];
    for (int e = thread_index(); e < at.count * a.values; e += kBlock) {
        const int d = e % a.values;
        const int64_t row = (item + e / a.values) * a.key_heads + at.head;
        if (d < 16 * a.Cv)
            y.v_mv[row * a.Cv * 16 + d] = totals[e];
        else
            y.v_s[row * a.Sv + d - 16 * a.Cv] = totals[e];
    }
}

// weight (heads, C) from the parts of all samples and tiles, in their order.
template <class T>
__global__ void __launch_bounds__(kBlock) weight_gradient(const T* parts, T* weight, int64_t samples, int heads, int64_t tiles, int C) {
    const int e = static_cast<int>(block_index()) * kBlock + thread_index();
    if (e >= heads * C) return;
    T sum = T{};
    for (int64_t sample = 0; sample < samples; ++sample)
        for (int64_t tile = 0; tile < tiles; ++tile) sum += parts[((sample * heads + e / C) * tiles + tile) * C + e % C];
    weight[e] = sum;
}

Sizes sizes_of(const AttentionCall& a) {
    Sizes sizes{};
    const AttentionSettings& settings = a.settings;
    sizes.heads = settings.heads;
    sizes.key_heads = settings.key_heads;
    sizes.C = static_cast<int>(a.q_mv.sizes[2] / settings.heads);
    sizes.S = static_cast<int>(a.q_s.sizes[2] / settings.heads);
    sizes.Cv = static_cast<int>(a.v_mv.sizes[2] / settings.key_heads);
    sizes.Sv = static_cast<int>(a.v_s.sizes[2] / settings.key_heads);
    sizes.inner = settings.inner;
    for (int i = 0; i < 16; ++i) sizes.index[i] = settings.index[i], sizes.sign[i] = settings.sign[i];
    sizes.distance = settings.distance;
    sizes.scale = settings.scale;
    sizes.features = sizes.C * sizes.inner + sizes.S;
    sizes.width = sizes.features + (settings.distance ? kGeometry * sizes.C : 0);
    sizes.values = 16 * sizes.Cv + sizes.Sv;
    sizes.queries = a.q_mv.sizes[1];
    sizes.keys = a.k_mv.sizes[1];
    return sizes;
}

template <class T>
Operands<T> operands_of(const AttentionCall& a) {
    const auto of = [](const View& v) { return static_cast<T*>(v.data); };
    return {of(a.q_mv),   of(a.k_mv), of(a.v_mv), of(a.q_s), of(a.k_s), of(a.v_s),
            of(a.weight), a.mask,     a.ranges,   of(a.mv),  of(a.s),   of(a.lse)};
}

template <class T>
size_t checked_bytes(const Sizes& a, int64_t numbers) {
    const size_t bytes = static_cast<size_t>(numbers) * sizeof(T);
    if (a.width > kMaxHead || a.values > kMaxHead || bytes > shared_memory_limit("distance_attention"))
        throw std::runtime_error("distance_attention: a head of " + std::to_string(a.width) + " features and " + std::to_string(a.values) +
                                 " values does not fit into the shared memory of this device; use more heads");
    return bytes;
}

int64_t tiles(int64_t items, int tile) {
    return (items + tile - 1) / tile;
}

template <class T>
void run(const AttentionCall& a, void* stream) {
    const Sizes sizes = sizes_of(a);
    const int64_t numbers = (kQueries + kKeys) * (sizes.width + sizes.values) + kQueries * (kKeys + 3);
    launch("distance_attention", attend<T>, a.q_mv.sizes[0] * sizes.heads * tiles(sizes.queries, kQueries), kBlock,
           checked_bytes<T>(sizes, numbers), stream, sizes, operands_of<T>(a));
}

template <class T>
void run_backward(const AttentionCall& a, const AttentionGradients& g, const View& workspace, void* stream) {
    const Sizes sizes = sizes_of(a);
    const auto of = [](const View& v) { return static_cast<T*>(v.data); };
    const Gradients<T> gradients{of(g.g_mv), of(g.g_s), of(g.q_mv), of(g.k_mv), of(g.v_mv), of(g.q_s), of(g.k_s), of(g.v_s), of(workspace)};
    const int64_t batch = a.q_mv.sizes[0], common = (kQueries + kKeys) * (sizes.width + sizes.values) + kQueries;
    const int64_t for_queries = common + kQueries * (kKeys + sizes.width);
    const int64_t for_keys = common + 2 * kQueries * kKeys + kKeys * (sizes.width + sizes.values);
    launch("distance_attention", query_gradients<T>, batch * sizes.heads * tiles(sizes.queries, kQueries), kBlock,
           checked_bytes<T>(sizes, for_queries), stream, sizes, operands_of<T>(a), gradients);
    launch("distance_attention", key_gradients<T>, batch * sizes.key_heads * tiles(sizes.keys, kKeys), kBlock,
           checked_bytes<T>(sizes, for_keys), stream, sizes, operands_of<T>(a), gradients);
    launch("distance_attention", weight_gradient<T>, tiles(sizes.heads * sizes.C, kBlock), kBlock, 0, stream,
           static_cast<const T*>(workspace.data), of(g.weight), batch, sizes.heads, tiles(sizes.queries, kQueries), sizes.C);
}

}  // namespace

void distance_attention(const AttentionCall& a, void* stream) {
    a.q_mv.dtype == DType::float64 ? run<double>(a, stream) : run<float>(a, stream);
}

void distance_attention_backward(const AttentionCall& a, const AttentionGradients& g, const View& workspace, void* stream) {
    a.q_mv.dtype == DType::float64 ? run_backward<double>(a, g, workspace, stream) : run_backward<float>(a, g, workspace, stream);
}

}  // namespace cuda
}  // namespace isotypic
