// distance_attention on the CPU: blocks of 32 queries against blocks of 64 keys, one key to a lane.
//
// For each query and vector of keys: F multiply-adds of inner products (8 C + S in G(3,0,1)), 11 instructions for the distance of each
// channel, about 20 for the softmax, 16 Cv + Sv multiply-adds of values. With 4 channels and 32 scalars to a head these are 64 + 44 + 20 +
// 96 = 224; torch's attention on features that multiply out the distance takes 84 + 20 + 96. 512 items, 8 heads, AVX-512 at 2.6 GHz: 131 k
// vectors, 5.6 ms at two instructions a cycle. Keys are packed once for each head that has its own, features along the first axis; values
// stay rows. The block of scores, 8 kB, and a block of keys, 30 kB, stay in L1 and L2. A gradient recomputes the scores and adds four
// products of the same size: 64 + 44 + 20 + 4 x 90 + 4 x 35 instructions.
#include "cpu/distance_attention_kernel.hpp"

#include "cpu/distance_attention_tiles.hpp"

namespace isotypic::cpu::ISOTYPIC_ISA {
namespace {

constexpr int64_t kPitch = kKeyBlock;  // of the scores

template <class T>
ISOTYPIC_INLINE T normalizer(T w, T epsilon) {
    return w / (w * w + epsilon);
}

template <class T>
void clear(T* p, int64_t count) {
    for (int64_t i = 0; i < count; ++i) p[i] = T{};
}

// A weight of zero times NaN is NaN. So where some pairs do not attend, items that are not finite are packed as zeros, and NaN is added to
// their scores before those of such pairs become minus infinity: what padding or another sequence holds reaches nobody.
template <class T>
bool some_do_not_attend(const AttentionData<T>& data) {
    return data.mask || data.ranges;
}
template <class T>
ISOTYPIC_INLINE T not_a_number() {
    return static_cast<T>(__builtin_nan(""));
}
template <class T>
bool all_finite(const T* p, int64_t count) {
    bool all = true;
    for (int64_t i = 0; i < count; ++i) all &= p[i] - p[i] == T{};
    return all;
}

// The features of a row: products, times `factor`, and geometry.
template <class T>
ISOTYPIC_INLINE void features(const AttentionHead& head, const T* mv, const T* s, bool query, const T* weight, T* products, T* geometry) {
    const T scale = query ? static_cast<T>(head.scale) : T{1};
    for (int c = 0; c < head.C; ++c) {
        const T* x = mv + c * 16;
        for (int i = 0; i < head.inner; ++i)
            products[c * head.inner + i] = query ? x[head.index[i]] * scale * static_cast<T>(head.sign[i]) : x[head.index[i]];
        if (!head.distance) continue;
        const T n = normalizer(x[14], static_cast<T>(head.epsilon));
        T* g = geometry + c * kGeometry;
        for (int i = 0; i < 4; ++i) g[i] = x[11 + i];
        g[4] = n * n * scale * (weight ? weight[c] : T{1});
    }
    for (int i = 0; i < head.S; ++i) products[head.C * head.inner + i] = s[i] * scale;
}

// Numbers of one thread: queries, scores, and what a direction needs besides.
template <class T>
struct Workspace {
    T *queries, *geometry, *scores, *second, *output, *largest, *total, *correction, *spoiled, *gradients;

    Workspace(const AttentionHead& head, T* p) {
        const auto take = [&p](int64_t count) {
            T* taken = p;
            p += (count + 15) / 16 * 16;
            return taken;
        };
        queries = take(kQueryBlock * head.features_padded);
        geometry = take(kQueryBlock * head.geometry);
        scores = take(kQueryBlock * kPitch);
        second = take(kQueryBlock * kPitch);
        output = take(kQueryBlock * head.values_padded);
        largest = take(kQueryBlock);
        total = take(kQueryBlock);
        correction = take(kQueryBlock);
        spoiled = take(kQueryBlock);
        gradients = take(kQueryBlock * (head.features_padded + head.geometry * kLanes<T>));
        end = p;
    }
    T* end;
};

template <class T>
int64_t workspace(const AttentionHead& head) {
    return Workspace<T>(head, nullptr).end - static_cast<T*>(nullptr) + 16;
}

// Whether the numbers of an item that take part are finite.
template <class T>
bool finite_item(const AttentionHead& head, const T* mv, const T* s) {
    bool all = all_finite(s, head.S);
    for (int c = 0; c < head.C; ++c) {
        for (int i = 0; i < head.inner; ++i) all &= all_finite(mv + c * 16 + head.index[i], 1);
        if (head.distance) all &= all_finite(mv + c * 16 + 11, 4);
    }
    return all;
}
template <class T>
bool finite_key(const AttentionHead& head, const AttentionData<T>& data, int64_t k) {
    return finite_item(head, data.k_mv.data + k * data.k_mv.stride, data.k_s.data + k * data.k_s.stride) &&
           all_finite(data.v_mv.data + k * data.v_mv.stride, 16 * head.Cv) && all_finite(data.v_s.data + k * data.v_s.stride, head.Sv);
}

template <class T>
void pack(const AttentionHead& head, const AttentionData<T>& data, const AttentionPacked<T>& packed) {
    const int64_t rows = head.features + head.geometry;
    const bool guarded = some_do_not_attend(data);
    for (int64_t first = 0; first < head.keys_padded; first += kKeyBlock) {
        for (int64_t k = first; k < first + kKeyBlock; ++k) {
            T* values = packed.value_rows + k * head.values_padded;
            packed.spoiled[k] = guarded && k < head.keys && !finite_key(head, data, k) ? not_a_number<T>() : T{};
            if (k >= head.keys || packed.spoiled[k] != T{}) {
                for (int64_t f = 0; f < rows; ++f) packed.key_panel[f * head.keys_padded + k] = T{};
                clear(values, head.values_padded);
                if (packed.key_rows) clear(packed.key_rows + k * head.features_padded, head.features_padded);
                continue;
            }
            const T *mv = data.k_mv.data + k * data.k_mv.stride, *s = data.k_s.data + k * data.k_s.stride;
            // Into the rows of the panel directly: feature by feature, one key after the other in a cache line.
            T* column = packed.key_panel + k;
            const int64_t pitch = head.keys_padded;
            for (int c = 0; c < head.C; ++c) {
                const T* x = mv + c * 16;
                for (int i = 0; i < head.inner; ++i) column[(c * head.inner + i) * pitch] = x[head.index[i]];
                if (!head.distance) continue;
                const T n = normalizer(x[14], static_cast<T>(head.epsilon));
                T* geometry = column + (head.features + c * kGeometry) * pitch;
                for (int i = 0; i < 4; ++i) geometry[i * pitch] = x[11 + i];
                geometry[4 * pitch] = n * n;
            }
            for (int i = 0; i < head.S; ++i) column[(head.C * head.inner + i) * pitch] = s[i];
            if (packed.key_rows) {
                T* row = packed.key_rows + k * head.features_padded;
                for (int64_t f = 0; f < head.features; ++f) row[f] = column[f * pitch];
                clear(row + head.features, head.features_padded - head.features);
            }
            const T *v_mv = data.v_mv.data + k * data.v_mv.stride, *v_s = data.v_s.data + k * data.v_s.stride;
            for (int64_t i = 0; i < 16 * head.Cv; ++i) values[i] = v_mv[i];
            for (int64_t i = 0; i < head.Sv; ++i) values[16 * head.Cv + i] = v_s[i];
            clear(values + head.values, head.values_padded - head.values);
        }
        if (packed.value_panel)
            for (int64_t d = 0; d < head.values; ++d)
                for (int64_t k = first; k < first + kKeyBlock; ++k)
                    packed.value_panel[d * head.keys_padded + k] = packed.value_rows[k * head.values_padded + d];
    }
}

template <class T>
void spoil(const AttentionHead& head, const Workspace<T>& w, int64_t q) {
    w.spoiled[q] = not_a_number<T>();
    clear(w.queries + q * head.features_padded, head.features_padded);
    clear(w.geometry + q * head.geometry, head.geometry);
}

template <class T>
void pack_queries(const AttentionHead& head, const AttentionData<T>& data, int64_t first, int64_t count, const Workspace<T>& w) {
    for (int64_t q = 0; q < count; ++q) {
        T* row = w.queries + q * head.features_padded;
        const T *mv = data.q_mv.data + (first + q) * data.q_mv.stride, *s = data.q_s.data + (first + q) * data.q_s.stride;
        features(head, mv, s, true, data.weight, row, w.geometry + q * head.geometry);
        clear(row + head.features, head.features_padded - head.features);
        w.spoiled[q] = T{};
        if (some_do_not_attend(data) && !finite_item(head, mv, s)) spoil(head, w, q);
    }
}

// scores -= m_q m_k |x_q w_k - x_k w_q|^2, for a block of keys.
template <class T>
void distances(const AttentionHead& head, int64_t count, const T* queries, const T* panel, T* scores) {
    constexpr int L = kLanes<T>;
    const int64_t pitch = head.keys_padded;
    for (int c = 0; c < head.C; ++c) {
        const T* g = panel + c * kGeometry * pitch;
        for (int64_t k = 0; k < kKeyBlock; k += L) {
            const Vec<T> x = load(g + k), y = load(g + pitch + k), z = load(g + 2 * pitch + k), w = load(g + 3 * pitch + k);
            const Vec<T> m = load(g + 4 * pitch + k);
#pragma GCC unroll 4
            for (int64_t q = 0; q < count; ++q) {
                const T* p = queries + q * head.geometry + c * kGeometry;
                const Vec<T> own = broadcast<T>(p[3]);
                const Vec<T> a = broadcast<T>(p[0]) * w - x * own, b = broadcast<T>(p[1]) * w - y * own;
                const Vec<T> d = broadcast<T>(p[2]) * w - z * own, square = a * a + b * b + d * d;
                T* s = scores + q * kPitch + k;
                store(s, load(s) - broadcast<T>(p[4]) * (m * square));
            }
        }
    }
}

// Whether a query attends to a key goes into the scores, as minus infinity.
template <class T>
void exclude(const AttentionHead& head, const AttentionData<T>& data, const AttentionPacked<T>& packed, const Workspace<T>& w,
             int64_t first, int64_t count, int64_t key) {
    const T nothing = -static_cast<T>(__builtin_inf());
    const int64_t here = smaller(kKeyBlock, head.keys - key);
    for (int64_t q = 0; q < count; ++q) {
        T* s = w.scores + q * kPitch;
        if (some_do_not_attend(data))
            for (int64_t k = 0; k < kKeyBlock; ++k) s[k] += packed.spoiled[key + k] + w.spoiled[q];
        int64_t begin = 0, end = here;
        if (data.ranges) {
            begin = larger(0, data.ranges[2 * (first + q)] - key);
            end = smaller(here, data.ranges[2 * (first + q) + 1] - key);
        }
        for (int64_t k = 0; k < smaller(begin, kKeyBlock); ++k) s[k] = nothing;
        for (int64_t k = larger(end, 0); k < kKeyBlock; ++k) s[k] = nothing;
        if (!data.mask) continue;
        const uint8_t* attends = data.mask + (first + q) * head.keys + key;
        for (int64_t k = begin; k < end; ++k)
            if (!attends[k]) s[k] = nothing;
    }
}

// The blocks of keys that any of the queries attends to.
template <class T>
void key_blocks(const AttentionHead& head, const AttentionData<T>& data, int64_t first, int64_t count, int64_t* begin, int64_t* end) {
    *begin = 0;
    *end = head.keys;
    if (!data.ranges) return;
    int64_t low = head.keys, high = 0;
    for (int64_t q = first; q < first + count; ++q) {
        if (data.ranges[2 * q] >= data.ranges[2 * q + 1]) continue;
        low = smaller(low, data.ranges[2 * q]);
        high = larger(high, data.ranges[2 * q + 1]);
    }
    *begin = larger(low, 0) / kKeyBlock * kKeyBlock;
    *end = smaller(high, head.keys);
}

template <class T>
void block_scores(const AttentionHead& head, const AttentionData<T>& data, const AttentionPacked<T>& packed, const Workspace<T>& w,
                  int64_t first, int64_t count, int64_t key) {
    scores(count, head.features, w.queries, head.features_padded, packed.key_panel + key, head.keys_padded, w.scores, kPitch);
    if (head.distance) distances(head, count, w.geometry, packed.key_panel + head.features * head.keys_padded + key, w.scores);
    if (some_do_not_attend(data) || key + kKeyBlock > head.keys) exclude(head, data, packed, w, first, count, key);
}

template <class T>
void forward(const AttentionHead& head, const AttentionData<T>& data, const AttentionPacked<T>& packed, int64_t first, int64_t count,
             T* memory) {
    constexpr int L = kLanes<T>;
    const Workspace<T> w(head, memory);
    const T lowest = -static_cast<T>(sizeof(T) == 4 ? 1e38 : 1e300);
    pack_queries(head, data, first, count, w);
    clear(w.output, kQueryBlock * head.values_padded);
    for (int64_t q = 0; q < count; ++q) w.largest[q] = lowest, w.total[q] = T{};
    int64_t begin, end;
    key_blocks(head, data, first, count, &begin, &end);
    for (int64_t key = begin; key < end; key += kKeyBlock) {
        block_scores(head, data, packed, w, first, count, key);
        for (int64_t q = 0; q < count; ++q) {
            T* s = w.scores + q * kPitch;
            Vec<T> top = load(s);
            for (int64_t k = L; k < kKeyBlock; k += L) top = maximum(top, load(s + k));
            const T before = w.largest[q], now = largest_lane<T>(top) > before ? largest_lane<T>(top) : before;
            Vec<T> sum = zero<T>();
            for (int64_t k = 0; k < kKeyBlock; k += L) {
                const Vec<T> p = exp_nonpositive(load(s + k) - broadcast<T>(now));
                store(s + k, p);
                sum += p;
            }
            const T correction = lane<T>(exp_nonpositive(broadcast<T>(before - now)), 0);
            w.correction[q] = correction;
            w.total[q] = w.total[q] * correction + sum_lanes<T>(sum);
            w.largest[q] = now;
        }
        gather(count, head.values_padded, kKeyBlock, w.scores, kPitch, int64_t{1}, packed.value_rows + key * head.values_padded,
               head.values_padded, w.correction, w.output, head.values_padded);
    }
    for (int64_t q = 0; q < count; ++q) {
        const T total = w.total[q], inverse = total > 0 ? 1 / total : (total == 0 ? T{} : total);  // NaN stays
        const T* row = w.output + q * head.values_padded;
        T *mv = data.mv.data + (first + q) * data.mv.stride, *s = data.s.data + (first + q) * data.s.stride;
        for (int64_t i = 0; i < 16 * head.Cv; ++i) mv[i] = row[i] * inverse;
        for (int64_t i = 0; i < head.Sv; ++i) s[i] = row[16 * head.Cv + i] * inverse;
        data.lse[first + q] = total == 0 ? static_cast<T>(__builtin_inf()) : w.largest[q] + static_cast<T>(__builtin_log(total));
    }
}

// The derivatives of the distances: those of the queries summed along the lanes into gradients (query, geometry, lanes), those of the keys
// into panel (geometry, keys). With u = -2 dS m_q m_k and r = x_q w_k - x_k w_q, the logit's derivatives are
//     x_q: u r w_k,   w_q: -u r x_k,   m_q: -dS m_k r^2;     x_k: -u r w_q,   w_k: u r x_q,   m_k: -dS m_q r^2.
template <class T>
void distance_gradients(const AttentionHead& head, int64_t count, const T* queries, const T* panel, const T* scores, T* gradients,
                        T* key_gradients) {
    constexpr int L = kLanes<T>;
    const int64_t pitch = head.keys_padded;
    for (int c = 0; c < head.C; ++c) {
        const T* g = panel + c * kGeometry * pitch;
        T* out = key_gradients + c * kGeometry * pitch;
        for (int64_t k = 0; k < kKeyBlock; k += L) {
            const Vec<T> x = load(g + k), y = load(g + pitch + k), z = load(g + 2 * pitch + k), w = load(g + 3 * pitch + k);
            const Vec<T> m = load(g + 4 * pitch + k);
            Vec<T> dx = load(out + k), dy = load(out + pitch + k), dz = load(out + 2 * pitch + k), dw = load(out + 3 * pitch + k);
            Vec<T> dm = load(out + 4 * pitch + k);
            for (int64_t q = 0; q < count; ++q) {
                const T* p = queries + q * head.geometry + c * kGeometry;
                T* own = gradients + (q * head.geometry + c * kGeometry) * L;
                const Vec<T> px = broadcast<T>(p[0]), py = broadcast<T>(p[1]), pz = broadcast<T>(p[2]), pw = broadcast<T>(p[3]);
                const Vec<T> a = px * w - x * pw, b = py * w - y * pw, d = pz * w - z * pw, square = a * a + b * b + d * d;
                const Vec<T> slope = load(scores + q * kPitch + k), by_key = slope * m;
                const Vec<T> u = by_key * broadcast<T>(T{-2} * p[4]), ua = u * a, ub = u * b, ud = u * d;
                // One multiply-add after the other: a sum of three products in brackets would be an addition more.
                Vec<T> of_w = load(own + 3 * L);
                of_w -= ua * x;
                of_w -= ub * y;
                of_w -= ud * z;
                store(own, load(own) + ua * w);
                store(own + L, load(own + L) + ub * w);
                store(own + 2 * L, load(own + 2 * L) + ud * w);
                store(own + 3 * L, of_w);
                store(own + 4 * L, load(own + 4 * L) - by_key * square);
                dx -= ua * pw;
                dy -= ub * pw;
                dz -= ud * pw;
                dw += ua * px;
                dw += ub * py;
                dw += ud * pz;
                dm -= slope * broadcast<T>(p[4]) * square;
            }
            store(out + k, dx);
            store(out + pitch + k, dy);
            store(out + 2 * pitch + k, dz);
            store(out + 3 * pitch + k, dw);
            store(out + 4 * pitch + k, dm);
        }
    }
}

// d(n^2) / dw
template <class T>
ISOTYPIC_INLINE T normalizer_slope(T w, T epsilon) {
    const T square = w * w + epsilon;
    return 2 * w * (epsilon - w * w) / (square * square * square);
}

template <class T>
void backward(const AttentionHead& head, const AttentionData<T>& data, const AttentionPacked<T>& packed, Rows<const T> g_mv,
              Rows<const T> g_s, Rows<T> q_mv, Rows<T> q_s, T* weight, T* key_rows, T* geometry, T* value_rows, T* memory) {
    constexpr int L = kLanes<T>;
    const Workspace<T> w(head, memory);
    const T scale = static_cast<T>(head.scale), epsilon = static_cast<T>(head.epsilon), nothing = -static_cast<T>(__builtin_inf());
    for (int c = 0; c < head.C; ++c) weight[c] = T{};
    for (int64_t first = 0; first < head.queries; first += kQueryBlock) {
        const int64_t count = smaller(kQueryBlock, head.queries - first);
        pack_queries(head, data, first, count, w);
        T *products = w.gradients, *points = w.gradients + kQueryBlock * head.features_padded;
        clear(products, kQueryBlock * head.features_padded);
        clear(points, kQueryBlock * head.geometry * L);
        // The incoming gradients as rows, and their products with the result.
        for (int64_t q = 0; q < count; ++q) {
            T* row = w.output + q * head.values_padded;
            const T *mv = g_mv.data + (first + q) * g_mv.stride, *s = g_s.data + (first + q) * g_s.stride;
            const T *of_mv = data.mv.data + (first + q) * data.mv.stride, *of_s = data.s.data + (first + q) * data.s.stride;
            T sum = T{};
            for (int64_t i = 0; i < 16 * head.Cv; ++i) row[i] = mv[i], sum += mv[i] * of_mv[i];
            for (int64_t i = 0; i < head.Sv; ++i) row[16 * head.Cv + i] = s[i], sum += s[i] * of_s[i];
            clear(row + head.values, head.values_padded - head.values);
            w.total[q] = sum;
            const T lse = data.lse[first + q];
            if (some_do_not_attend(data) && (!all_finite(row, head.values) || !all_finite(&sum, 1) || lse != lse)) {
                // NaN is what it gives to the keys that it attends to, but where nothing is asked of it: nothing.
                bool asked = false;
                for (int64_t i = 0; i < head.values; ++i) asked |= row[i] != T{};
                w.largest[q] = asked ? not_a_number<T>() : T{};
                spoil(head, w, q);
                clear(row, head.values);
            }
        }
        int64_t begin, end;
        key_blocks(head, data, first, count, &begin, &end);
        for (int64_t key = begin; key < end; key += kKeyBlock) {
            block_scores(head, data, packed, w, first, count, key);
            scores(count, head.values, w.output, head.values_padded, packed.value_panel + key, head.keys_padded, w.second, kPitch);
            for (int64_t q = 0; q < count; ++q) {
                T *s = w.scores + q * kPitch, *t = w.second + q * kPitch;
                const Vec<T> lse = broadcast<T>(data.lse[first + q]), mean = broadcast<T>(w.total[q]);
                if (w.spoiled[q] != T{}) {
                    for (int64_t k = 0; k < kKeyBlock; ++k) s[k] = t[k] = s[k] == nothing ? T{} : w.largest[q];
                    continue;
                }
                for (int64_t k = 0; k < kKeyBlock; k += L) {
                    const Vec<T> p = exp_nonpositive(load(s + k) - lse);
                    store(s + k, p);
                    store(t + k, p * (load(t + k) - mean));
                }
            }
            gather(kKeyBlock, head.values_padded, count, w.scores, int64_t{1}, kPitch, w.output, head.values_padded,
                   static_cast<const T*>(nullptr), value_rows + key * head.values_padded, head.values_padded);
            gather(count, head.features_padded, kKeyBlock, w.second, kPitch, int64_t{1}, packed.key_rows + key * head.features_padded,
                   head.features_padded, static_cast<const T*>(nullptr), products, head.features_padded);
            gather(kKeyBlock, head.features_padded, count, w.second, int64_t{1}, kPitch, w.queries, head.features_padded,
                   static_cast<const T*>(nullptr), key_rows + key * head.features_padded, head.features_padded);
            if (head.distance)
                distance_gradients(head, count, w.geometry, packed.key_panel + head.features * head.keys_padded + key, w.second, points,
                                   geometry + key);
        }
        for (int64_t q = 0; q < count; ++q) {
            T *mv = q_mv.data + (first + q) * q_mv.stride, *s = q_s.data + (first + q) * q_s.stride;
            const T *row = products + q * head.features_padded, *of = data.q_mv.data + (first + q) * data.q_mv.stride;
            clear(mv, 16 * head.C);
            for (int c = 0; c < head.C; ++c) {
                for (int i = 0; i < head.inner; ++i)
                    mv[c * 16 + head.index[i]] = row[c * head.inner + i] * scale * static_cast<T>(head.sign[i]);
                if (!head.distance) continue;
                T sums[kGeometry];
                for (int i = 0; i < kGeometry; ++i) sums[i] = sum_lanes<T>(load(points + (q * head.geometry + c * kGeometry + i) * L));
                const T at = of[c * 16 + 14], n = normalizer(at, epsilon);
                for (int i = 0; i < 4; ++i) mv[c * 16 + 11 + i] += sums[i];
                if (sums[4] == T{}) continue;  // of a query that attends to nothing, whose n may be NaN
                mv[c * 16 + 14] += sums[4] * scale * (data.weight ? data.weight[c] : T{1}) * normalizer_slope(at, epsilon);
                weight[c] += sums[4] * scale * n * n;
            }
            for (int i = 0; i < head.S; ++i) s[i] = row[head.C * head.inner + i] * scale;
        }
    }
}

template <class T>
void unpack(const AttentionHead& head, const AttentionData<T>& data, const T* key_rows, const T* geometry, const T* value_rows,
            Rows<T> k_mv, Rows<T> k_s, Rows<T> v_mv, Rows<T> v_s) {
    for (int64_t k = 0; k < head.keys; ++k) {
        const T *row = key_rows + k * head.features_padded, *of = data.k_mv.data + k * data.k_mv.stride;
        T *mv = k_mv.data + k * k_mv.stride, *s = k_s.data + k * k_s.stride;
        clear(mv, 16 * head.C);
        for (int c = 0; c < head.C; ++c) {
            for (int i = 0; i < head.inner; ++i) mv[c * 16 + head.index[i]] = row[c * head.inner + i];
            if (!head.distance) continue;
            const T* g = geometry + c * kGeometry * head.keys_padded + k;
            for (int i = 0; i < 4; ++i) mv[c * 16 + 11 + i] += g[i * head.keys_padded];
            const T slope = g[4 * head.keys_padded];
            if (slope != T{}) mv[c * 16 + 14] += slope * normalizer_slope(of[c * 16 + 14], static_cast<T>(head.epsilon));
        }
        for (int i = 0; i < head.S; ++i) s[i] = row[head.C * head.inner + i];
        const T* values = value_rows + k * head.values_padded;
        T *out = v_mv.data + k * v_mv.stride, *out_s = v_s.data + k * v_s.stride;
        for (int64_t i = 0; i < 16 * head.Cv; ++i) out[i] = values[i];
        for (int64_t i = 0; i < head.Sv; ++i) out_s[i] = values[16 * head.Cv + i];
    }
}

template <class T>
constexpr AttentionKernel<T> kernel() {
    return {kLanes<T>, &workspace<T>, &pack<T>, &forward<T>, &backward<T>, &unpack<T>};
}

const AttentionKernels kKernels = {kernel<float>(), kernel<double>()};

}  // namespace

const AttentionKernels& distance_attention_kernels() {
    return kKernels;
}

}  // namespace isotypic::cpu::ISOTYPIC_ISA
