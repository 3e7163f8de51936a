// distance_attention on the CPU: blocks of 64 queries against blocks of 64 keys, one key to a lane.
//
// For each query and vector of keys: F multiply-adds of inner products (8 C + S in G(3,0,1)), 11 instructions for the distance of each
// channel, about 20 for the softmax, 16 Cv + Sv multiply-adds of values. With 4 channels and 32 scalars to a head these are 64 + 44 + 20 +
// 96 = 224; torch's attention on features that multiply out the distance takes 84 + 20 + 96. A gradient computes the scores again, and
// has four products more: of values 2 x 96, of what the logit is made of 2 x 96. The distance is a product there, of five numbers for each
// channel (p v, v^2, |p|^2 with p = (x - centre w) n and v = w n): a gradient is linear in the weights of pairs, and errs by eps R / r of
// itself for points R from the centre and r from each other, as it does when positions are rounded to float32; a logit would err by
// eps R^2, and is computed from differences. 20 multiply-adds, in 32, take the place of 29 instructions for each of four channels. 64 + 44 +
// 20 + 4 x 96 = 512.
//
// 512 items, 8 heads, AVX-512 at 5.4 G instructions a second (two of 16 lanes in a cycle): 131 k vectors of keys, at least 5.4 ms forward and
// 12.4 ms back. Reached: 6.7 and 15.3 ms, 81 % of that; with rows of keys 2 kB apart, which fall on the same sets of L1, sums lane by lane,
// distances differentiated pair by pair and no rows asked for ahead, 7.7 and 20. Keys and values are packed once for each head that has its
// own, block by block: 21 kB and 24 kB, beside 16 kB of scores.
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

// Places of a multivector: the trivectors of a point, x1 to x3 and w.
constexpr int kPoint = 11, kWeight = 14;

// A point as the products of a gradient see it: p = (x - centre w) n and v = w n.
template <class T>
struct Centred {
    T p[3], v;
};
template <class T>
ISOTYPIC_INLINE Centred<T> centred(const T* x, const T* centre, T epsilon) {
    const T w = x[kWeight], n = normalizer(w, epsilon);
    return {{(x[kPoint] - centre[0] * w) * n, (x[kPoint + 1] - centre[1] * w) * n, (x[kPoint + 2] - centre[2] * w) * n}, w * n};
}
// p v, v^2 and |p|^2, times a factor.
template <class T>
ISOTYPIC_INLINE void products_of_point(const Centred<T>& at, T factor, T* to) {
    for (int i = 0; i < 3; ++i) to[i] = at.p[i] * at.v * factor;
    to[3] = at.v * at.v * factor;
    to[4] = (at.p[0] * at.p[0] + at.p[1] * at.p[1] + at.p[2] * at.p[2]) * factor;
}
// The derivatives in p and v of one item from the sums over the others of dlogit times their products:
//     -sum dlogit |p v_o - p_o v|^2 = -|p|^2 sums_3 + 2 v p sums_012 - v^2 sums_4.
template <class T>
ISOTYPIC_INLINE Centred<T> slopes_of_point(const Centred<T>& at, const T* sums) {
    Centred<T> slope;
    slope.v = -2 * at.v * sums[4];
    for (int i = 0; i < 3; ++i) {
        slope.p[i] = 2 * (at.v * sums[i] - at.p[i] * sums[3]);
        slope.v += 2 * at.p[i] * sums[i];
    }
    return slope;
}
// Adds the derivatives in x and w. With d = x - centre w, p = d n and dn / dw = (epsilon - w^2) / (w^2 + epsilon)^2.
template <class T>
ISOTYPIC_INLINE void add_slopes(const T* x, const T* centre, T epsilon, const Centred<T>& slope, T* to) {
    const T w = x[kWeight], n = normalizer(w, epsilon), square = w * w + epsilon, of_n = (epsilon - w * w) / (square * square);
    T along = w * slope.v, of_centre = T{};
    for (int i = 0; i < 3; ++i) {
        along += (x[kPoint + i] - centre[i] * w) * slope.p[i];
        of_centre += centre[i] * slope.p[i];
        to[kPoint + i] += n * slope.p[i];
    }
    to[kWeight] += n * (slope.v - of_centre) + of_n * along;
}

template <class T>
bool all_zero(const T* p, int64_t count) {
    bool all = true;
    for (int64_t i = 0; i < count; ++i) all &= p[i] == T{};
    return all;
}

// The features of an item, and where there is a distance its geometry; of a query times the factors of the logit.
template <class T>
ISOTYPIC_INLINE void features(const AttentionHead& head, const T* mv, const T* s, const T* weight, T* products, T* geometry) {
    const T scale = static_cast<T>(head.scale);
    for (int c = 0; c < head.C; ++c) {
        const T* x = mv + c * 16;
        for (int i = 0; i < head.inner; ++i) products[c * head.inner + i] = x[head.index[i]] * scale * static_cast<T>(head.sign[i]);
        if (!head.distance) continue;
        const T n = normalizer(x[kWeight], static_cast<T>(head.epsilon));
        T* g = geometry + c * kGeometry;
        for (int i = 0; i < 4; ++i) g[i] = x[kPoint + i];
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
        queries = take(kQueryBlock * head.row_padded);
        geometry = take(kQueryBlock * head.geometry);
        scores = take(kQueryBlock * kPitch);
        second = take(kQueryBlock * kPitch);
        output = take(kQueryBlock * head.values_padded);
        largest = take(kQueryBlock);
        total = take(kQueryBlock);
        correction = take(kQueryBlock);
        spoiled = take(kQueryBlock);
        gradients = take(kQueryBlock * head.row_padded);
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

// Where the points of a channel are: the median of each coordinate over some of the queries. What is computed does not depend on it, and is
// the more exact the nearer the points are to it.
template <class T>
void find_centre(const AttentionHead& head, const AttentionData<T>& data, int c, T* centre) {
    constexpr int64_t kMost = 64;
    T sorted[3][kMost];
    int64_t count = 0;
    const int64_t all = head.queries * head.shared, step = (all + kMost - 1) / kMost;
    for (int64_t item = 0; item < all; item += step) {
        const int64_t h = item / head.queries, q = item % head.queries;
        const T* x = data.q_mv.data + q * data.q_mv.stride + (h * head.C + c) * 16 + kPoint;
        if (!(x[3] * x[3] > static_cast<T>(head.epsilon))) continue;  // as good as a direction, and far away as a point
        const T inverse = 1 / x[3];
        const T at[3] = {x[0] * inverse, x[1] * inverse, x[2] * inverse};
        if (!all_finite(at, 3) || data.lse[item] == static_cast<T>(__builtin_inf())) continue;
        for (int i = 0; i < 3; ++i) {
            int64_t place = count;
            for (; place > 0 && sorted[i][place - 1] > at[i]; --place) sorted[i][place] = sorted[i][place - 1];
            sorted[i][place] = at[i];
        }
        ++count;
    }
    for (int i = 0; i < 3; ++i) centre[i] = count ? sorted[i][count / 2] : T{};
}

template <class T>
void pack(const AttentionHead& head, const AttentionData<T>& data, const AttentionPacked<T>& packed) {
    const bool guarded = some_do_not_attend(data);
    const T epsilon = static_cast<T>(head.epsilon);
    if (packed.centre && head.distance)
        for (int c = 0; c < head.C; ++c) find_centre(head, data, c, packed.centre + c * 3);
    for (int64_t first = 0; first < head.keys_padded; first += kKeyBlock) {
        T* panel = packed.key_panel + first * head.row;
        for (int64_t k = first; k < first + kKeyBlock; ++k) {
            T *values = packed.value_rows + k * head.values_padded, *column = panel + (k - first);
            packed.spoiled[k] = guarded && k < head.keys && !finite_key(head, data, k) ? not_a_number<T>() : T{};
            if (k >= head.keys || packed.spoiled[k] != T{}) {
                for (int64_t f = 0; f < head.row; ++f) column[f * kKeyBlock] = T{};
                clear(values, head.values_padded);
                if (packed.key_rows) clear(packed.key_rows + k * head.row_padded, head.row_padded);
                continue;
            }
            const T *mv = data.k_mv.data + k * data.k_mv.stride, *s = data.k_s.data + k * data.k_s.stride;
            for (int c = 0; c < head.C; ++c) {
                const T* x = mv + c * 16;
                for (int i = 0; i < head.inner; ++i) column[(c * head.inner + i) * kKeyBlock] = x[head.index[i]];
                if (!head.distance) continue;
                const T n = normalizer(x[kWeight], epsilon);
                T* geometry = column + (head.features + c * kGeometry) * kKeyBlock;
                for (int i = 0; i < 4; ++i) geometry[i * kKeyBlock] = x[kPoint + i];
                geometry[4 * kKeyBlock] = n * n;
            }
            for (int i = 0; i < head.S; ++i) column[(head.C * head.inner + i) * kKeyBlock] = s[i];
            if (packed.key_rows) {
                T* row = packed.key_rows + k * head.row_padded;
                for (int64_t f = 0; f < head.features; ++f) row[f] = column[f * kKeyBlock];
                for (int c = 0; head.distance && c < head.C; ++c)
                    products_of_point(centred(mv + c * 16, packed.centre + c * 3, epsilon), T{1}, row + head.features + c * kGeometry);
                clear(row + head.row, head.row_padded - head.row);
            }
            const T *v_mv = data.v_mv.data + k * data.v_mv.stride, *v_s = data.v_s.data + k * data.v_s.stride;
            for (int64_t i = 0; i < 16 * head.Cv; ++i) values[i] = v_mv[i];
            for (int64_t i = 0; i < head.Sv; ++i) values[16 * head.Cv + i] = v_s[i];
            clear(values + head.values, head.values_padded - head.values);
        }
        if (packed.value_panel)
            for (int64_t d = 0; d < head.values; ++d)
                for (int64_t k = 0; k < kKeyBlock; ++k)
                    packed.value_panel[first * head.values + d * kKeyBlock + k] = packed.value_rows[(first + k) * head.values_padded + d];
    }
}

// Rows of a head lie an item apart, where the hardware does not look ahead: those of the next block are asked for while one is worked on.
template <class T>
void prefetch(const Rows<T>& rows, int64_t first, int64_t count, int64_t width) {
    for (int64_t q = first; q < first + count; ++q) {
        const char* p = reinterpret_cast<const char*>(rows.data + q * rows.stride);
        for (int64_t at = 0; at < width * static_cast<int64_t>(sizeof(T)); at += 64) __builtin_prefetch(p + at, 0, 2);
    }
}

template <class T>
T product(const T* a, const T* b, int64_t count) {
    constexpr int L = kLanes<T>;
    Vec<T> sums = zero<T>();
    int64_t i = 0;
    for (; i + L <= count; i += L) sums += load(a + i) * load(b + i);
    T sum = sum_lanes<T>(sums);
    for (; i < count; ++i) sum += a[i] * b[i];
    return sum;
}

template <class T>
void spoil(const AttentionHead& head, const Workspace<T>& w, int64_t q) {
    w.spoiled[q] = not_a_number<T>();
    clear(w.queries + q * head.row_padded, head.row_padded);
    clear(w.geometry + q * head.geometry, head.geometry);
}

template <class T>
void pack_queries(const AttentionHead& head, const AttentionData<T>& data, const T* centre, int64_t first, int64_t count,
                  const Workspace<T>& w) {
    const T epsilon = static_cast<T>(head.epsilon), scale = static_cast<T>(head.scale);
    for (int64_t q = 0; q < count; ++q) {
        T* row = w.queries + q * head.row_padded;
        const T *mv = data.q_mv.data + (first + q) * data.q_mv.stride, *s = data.q_s.data + (first + q) * data.q_s.stride;
        features(head, mv, s, data.weight, row, w.geometry + q * head.geometry);
        clear(row + head.features, head.row_padded - head.features);
        for (int c = 0; centre && head.distance && c < head.C; ++c)
            products_of_point(centred(mv + c * 16, centre + c * 3, epsilon), scale * (data.weight ? data.weight[c] : T{1}),
                              row + head.features + c * kGeometry);
        w.spoiled[q] = T{};
        if (some_do_not_attend(data) && !finite_item(head, mv, s)) spoil(head, w, q);
    }
}

// scores -= m_q m_k |x_q w_k - x_k w_q|^2, for a block of keys.
template <class T>
void distances(const AttentionHead& head, int64_t count, const T* queries, const T* panel, T* scores) {
    constexpr int L = kLanes<T>;
    for (int c = 0; c < head.C; ++c) {
        const T* g = panel + c * kGeometry * kKeyBlock;
        for (int64_t k = 0; k < kKeyBlock; k += L) {
            const Vec<T> x = load(g + k), y = load(g + kKeyBlock + k), z = load(g + 2 * kKeyBlock + k), w = load(g + 3 * kKeyBlock + k);
            const Vec<T> m = load(g + 4 * kKeyBlock + k);
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
    const T* panel = packed.key_panel + key * head.row;
    scores(count, head.features, w.queries, head.row_padded, panel, w.scores, kPitch);
    if (head.distance) distances(head, count, w.geometry, panel + head.features * kKeyBlock, w.scores);
    if (some_do_not_attend(data) || key + kKeyBlock > head.keys) exclude(head, data, packed, w, first, count, key);
}

template <class T>
void forward(const AttentionHead& head, const AttentionData<T>& data, const AttentionPacked<T>& packed, int64_t first, int64_t count,
             T* memory) {
    constexpr int L = kLanes<T>;
    const Workspace<T> w(head, memory);
    const T lowest = -static_cast<T>(sizeof(T) == 4 ? 1e38 : 1e300);
    pack_queries(head, data, static_cast<const T*>(nullptr), first, count, w);
    const int64_t next = first + count, ahead = smaller(kQueryBlock, head.queries - next);
    prefetch(data.q_mv, next, ahead, 16 * head.C);
    prefetch(data.q_s, next, ahead, head.S);
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

template <class T>
void backward(const AttentionHead& head, const AttentionData<T>& data, const AttentionPacked<T>& packed, Rows<const T> g_mv,
              Rows<const T> g_s, Rows<T> q_mv, Rows<T> q_s, T* weight, T* key_rows, T* value_rows, T* memory) {
    constexpr int L = kLanes<T>;
    const Workspace<T> w(head, memory);
    const T scale = static_cast<T>(head.scale), epsilon = static_cast<T>(head.epsilon), nothing = -static_cast<T>(__builtin_inf());
    for (int c = 0; c < head.C; ++c) weight[c] = T{};
    for (int64_t first = 0; first < head.queries; first += kQueryBlock) {
        const int64_t count = smaller(kQueryBlock, head.queries - first);
        pack_queries(head, data, packed.centre, first, count, w);
        const int64_t next = first + count, ahead = smaller(kQueryBlock, head.queries - next);
        prefetch(data.q_mv, next, ahead, 16 * head.C);
        prefetch(data.q_s, next, ahead, head.S);
        prefetch(g_mv, next, ahead, 16 * head.Cv);
        prefetch(g_s, next, ahead, head.Sv);
        prefetch(data.mv, next, ahead, 16 * head.Cv);
        prefetch(data.s, next, ahead, head.Sv);
        clear(w.gradients, kQueryBlock * head.row_padded);
        // The incoming gradients as rows, and their products with the result.
        for (int64_t q = 0; q < count; ++q) {
            T* row = w.output + q * head.values_padded;
            const T *mv = g_mv.data + (first + q) * g_mv.stride, *s = g_s.data + (first + q) * g_s.stride;
            const T *of_mv = data.mv.data + (first + q) * data.mv.stride, *of_s = data.s.data + (first + q) * data.s.stride;
            for (int64_t i = 0; i < 16 * head.Cv; ++i) row[i] = mv[i];
            for (int64_t i = 0; i < head.Sv; ++i) row[16 * head.Cv + i] = s[i];
            const T sum = product(mv, of_mv, 16 * head.Cv) + product(s, of_s, head.Sv);
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
            scores(count, head.values, w.output, head.values_padded, packed.value_panel + key * head.values, w.second, kPitch);
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
            gather(count, head.row_padded, kKeyBlock, w.second, kPitch, int64_t{1}, packed.key_rows + key * head.row_padded,
                   head.row_padded, static_cast<const T*>(nullptr), w.gradients, head.row_padded);
            gather(kKeyBlock, head.row_padded, count, w.second, int64_t{1}, kPitch, w.queries, head.row_padded,
                   static_cast<const T*>(nullptr), key_rows + key * head.row_padded, head.row_padded);
        }
        for (int64_t q = 0; q < count; ++q) {
            T *mv = q_mv.data + (first + q) * q_mv.stride, *s = q_s.data + (first + q) * q_s.stride;
            const T *row = w.gradients + q * head.row_padded, *of = data.q_mv.data + (first + q) * data.q_mv.stride;
            clear(mv, 16 * head.C);
            for (int c = 0; c < head.C; ++c) {
                for (int i = 0; i < head.inner; ++i)
                    mv[c * 16 + head.index[i]] = row[c * head.inner + i] * scale * static_cast<T>(head.sign[i]);
                const T* sums = row + head.features + c * kGeometry;
                if (!head.distance || all_zero(sums, kGeometry)) continue;  // of a query that attends to nothing the point may be NaN
                const T* centre = packed.centre + c * 3;
                const Centred<T> at = centred(of + c * 16, centre, epsilon);
                Centred<T> slope = slopes_of_point(at, sums);
                // The distance is a square in (p, v): twice its value is what its derivative has along them.
                weight[c] += scale / 2 * (at.p[0] * slope.p[0] + at.p[1] * slope.p[1] + at.p[2] * slope.p[2] + at.v * slope.v);
                const T factor = scale * (data.weight ? data.weight[c] : T{1});
                for (T& p : slope.p) p *= factor;
                slope.v *= factor;
                add_slopes(of + c * 16, centre, epsilon, slope, mv + c * 16);
            }
            for (int i = 0; i < head.S; ++i) s[i] = row[head.C * head.inner + i] * scale;
        }
    }
}

template <class T>
void unpack(const AttentionHead& head, const AttentionData<T>& data, const AttentionPacked<T>& packed, const T* key_rows,
            const T* value_rows, Rows<T> k_mv, Rows<T> k_s, Rows<T> v_mv, Rows<T> v_s) {
    const T epsilon = static_cast<T>(head.epsilon);
    for (int64_t k = 0; k < head.keys; ++k) {
        const T *row = key_rows + k * head.row_padded, *of = data.k_mv.data + k * data.k_mv.stride;
        T *mv = k_mv.data + k * k_mv.stride, *s = k_s.data + k * k_s.stride;
        clear(mv, 16 * head.C);
        for (int c = 0; c < head.C; ++c) {
            for (int i = 0; i < head.inner; ++i) mv[c * 16 + head.index[i]] = row[c * head.inner + i];
            const T* sums = row + head.features + c * kGeometry;
            if (!head.distance || all_zero(sums, kGeometry)) continue;
            const T* centre = packed.centre + c * 3;
            add_slopes(of + c * 16, centre, epsilon, slopes_of_point(centred(of + c * 16, centre, epsilon), sums), mv + c * 16);
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
