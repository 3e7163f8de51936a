// pair_attention on a device: a block takes a query and goes over the keys, 32 at a time, with the MLP of these pairs in shared memory.
//
// 18,700 multiply-adds a pair at W = 128 and 8 heads. A thread computes four hidden values of one pair at a time: one number of shared memory
// and four weights, which are the same for a warp and come from L1, for four multiply-adds in float32. Hidden values have a row for each of
// W numbers with a stride of 33, so that lanes meet different banks along pairs and along hidden values alike: 38 kB at W = 128 in float32.
// The softmax is rescaled as the keys go by. The gradient makes the values again; a block takes a run of queries and adds what queries share
// to sums of its own in the workspace, which a second kernel adds in their order: deterministic, without atomics.
#include "ops/pair_attention.hpp"

#include <cmath>
#include <string>

#include "cuda/launch.cuh"

namespace isotypic {
namespace cuda {
namespace {

constexpr int kPairs = 32, kStride = 33, kThreads = 256, kWarps = kThreads / 32, kOutputs = 4;
constexpr int kMostChunks = 128;

struct Sizes {
    int heads, width, dim, inputs, hidden1, hidden2, places;
    int64_t queries, keys, mask_rows;
    bool mix, softmax, vector;
};

template <class T>
struct Operands {
    const T *q, *k, *v, *x_q, *x_k, *w1, *b1, *w2, *b2, *w3, *b3;
    const uint8_t* mask;
};

DEVICE float exponential(float x) {
    return expf(x);
}
DEVICE double exponential(double x) {
    return exp(x);
}

// The shared memory of a block: a row of kStride for each number of a pair, then numbers of the query.
template <class T>
struct Block {
    T *in, *first, *second, *mixed, *weights, *keep, *query, *place, *head, *sums;

    DEVICE explicit Block(const Sizes& s) {
        T* at = reinterpret_cast<T*>(shared_memory());
        in = at, at += s.inputs * kStride;
        first = at, at += s.hidden1 * kStride;
        second = at, at += s.hidden2 * kStride;
        mixed = at, at += s.heads * kStride;
        weights = at, at += s.heads * kStride;
        keep = at, at += kPairs;
        query = at, at += s.heads * s.width;
        place = at, at += s.dim;
        head = at, at += 3 * s.heads;  // largest score, sum of weights, factor
        sums = at;                     // heads * width
    }
};

inline int64_t shared_numbers(const Sizes& s) {
    return int64_t{s.inputs + s.hidden1 + s.hidden2 + 2 * s.heads} * kStride + kPairs + 2 * s.heads * s.width + s.dim + 3 * s.heads;
}

enum class Then { nothing, relu, gate };

// out (outputs, pairs) = W in + b, W[n, k] at weight[n row + k column]; gate: zero where out was not positive. Ends at a barrier.
template <class T, Then then>
DEVICE void layer(const T* weight, int row, int column, const T* bias, int depth, int outputs, const T* in, T* out) {
    const int pair = thread_index() % 32, warp = thread_index() / 32;
    for (int n0 = warp * kOutputs; n0 < outputs; n0 += kWarps * kOutputs) {
        T sum[kOutputs] = {};
        const int here = outputs - n0 < kOutputs ? outputs - n0 : kOutputs;
        for (int k = 0; k < depth; ++k) {
            const T value = in[k * kStride + pair];
            for (int n = 0; n < kOutputs; ++n)
                if (n < here) sum[n] += weight[(n0 + n) * row + k * column] * value;
        }
        for (int n = 0; n < kOutputs; ++n)
            if (n < here) {
                T* target = out + (n0 + n) * kStride + pair;
                T value = sum[n] + (bias ? bias[n0 + n] : T{0});
                if (then == Then::relu) value = value < 0 ? T{0} : value;  // NaN passes
                if (then == Then::gate) value = *target > 0 ? value : T{0};
                *target = value;
            }
    }
    __syncthreads();
}

// sums[n row + k] += sum over the pairs of rows[n] columns[k]; no barrier.
template <class T>
DEVICE void outer(const T* rows, int count, const T* columns, int width, T* sums) {
    for (int i = thread_index(); i < count * width; i += kThreads) {
        const T *a = rows + i / width * kStride, *b = columns + i % width * kStride;
        T sum = 0;
        for (int p = 0; p < kPairs; ++p) sum += a[p] * b[p];
        sums[i] += sum;
    }
}

template <class T>
DEVICE void add_rows(const T* rows, int count, T* sums) {
    for (int i = thread_index(); i < count; i += kThreads) {
        T sum = 0;
        for (int p = 0; p < kPairs; ++p) sum += rows[i * kStride + p];
        sums[i] += sum;
    }
}

template <class T>
DEVICE void load_query(const Operands<T>& o, const Sizes& s, int64_t b, int64_t i, const Block<T>& block) {
    for (int n = thread_index(); n < s.heads * s.width; n += kThreads)
        block.query[n] = o.q[((b * s.heads + n / s.width) * s.queries + i) * s.width + n % s.width];
    for (int c = thread_index(); c < s.dim; c += kThreads) block.place[c] = o.x_q[(b * s.queries + i) * s.dim + c];
    __syncthreads();
}

// The scores of a query with the keys [first, first + 32) in block.mixed, the hidden values beside them; false where none is kept.
template <class T>
DEVICE bool score_tile(const Operands<T>& o, const Sizes& s, int64_t b, int64_t i, int64_t first, const Block<T>& block) {
    const T scale = 1 / static_cast<T>(sqrt(static_cast<double>(s.width > 0 ? s.width : 1)));
    const uint8_t* mask = o.mask ? o.mask + (b * s.mask_rows + (s.mask_rows > 1 ? i : 0)) * s.keys : nullptr;
    if (thread_index() < kPairs) {
        const int64_t j = first + thread_index();
        block.keep[thread_index()] = j < s.keys && (!mask || mask[j]) ? T{1} : T{0};
    }
    for (int n = thread_index(); n < (s.heads + s.places) * kPairs; n += kThreads) {
        const int row = n / kPairs - s.places, pair = n % kPairs;
        const int64_t j = first + pair;
        T value = 0;
        if (j < s.keys && row >= 0) {
            const T* key = o.k + ((b * s.heads + row) * s.keys + j) * s.width;
            for (int d = 0; d < s.width; ++d) value += block.query[row * s.width + d] * key[d];
            value *= scale;
        } else if (j < s.keys) {
            const T* at = o.x_k + (b * s.keys + j) * s.dim;
            if (s.vector)
                value = block.place[row + s.places] - at[row + s.places];
            else
                for (int c = 0; c < s.dim; ++c) value += (block.place[c] - at[c]) * (block.place[c] - at[c]);
        }
        if (row < 0)
            block.in[(row + s.places) * kStride + pair] = value;
        else if (s.mix)
            block.in[(row + s.places) * kStride + pair] = value;
        else
            block.weights[row * kStride + pair] = value;
    }
    __syncthreads();
    T any = 0;
    for (int p = 0; p < kPairs; ++p) any += block.keep[p];
    if (any == 0) return false;
    layer<T, Then::relu>(o.w1, s.inputs, 1, o.b1, s.inputs, s.hidden1, block.in, block.first);
    layer<T, Then::relu>(o.w2, s.hidden1, 1, o.b2, s.hidden1, s.hidden2, block.first, block.second);
    layer<T, Then::nothing>(o.w3, s.hidden2, 1, o.b3, s.hidden2, s.heads, block.second, block.mixed);
    if (!s.mix) {
        for (int n = thread_index(); n < s.heads * kPairs; n += kThreads) {
            const int at = n / kPairs * kStride + n % kPairs;
            block.mixed[at] += block.weights[at];
        }
        __syncthreads();
    }
    return true;
}

template <class T>
__global__ void __launch_bounds__(kThreads) forward(Operands<T> o, Sizes s, T* out) {
    const Block<T> block(s);
    const int64_t b = block_index() / s.queries, i = block_index() % s.queries;
    const int values = s.heads * s.width, out_width = s.width + (s.softmax ? 1 : 0);
    T *largest = block.head, *total = block.head + s.heads, *factor = block.head + 2 * s.heads;
    for (int n = thread_index(); n < values; n += kThreads) block.sums[n] = 0;
    for (int h = thread_index(); h < s.heads; h += kThreads) largest[h] = static_cast<T>(-3e38f), total[h] = 0;
    load_query(o, s, b, i, block);
    for (int64_t first = 0; first < s.keys; first += kPairs) {
        const bool some = score_tile(o, s, b, i, first, block);
        if (some) {
            for (int h = thread_index(); h < s.heads; h += kThreads) {
                T most = largest[h], sum = 0;
                T* a = block.mixed + h * kStride;
                if (s.softmax) {
                    for (int p = 0; p < kPairs; ++p)
                        if (block.keep[p] > 0 && a[p] > most) most = a[p];
                    for (int p = 0; p < kPairs; ++p) {
                        const T weight = block.keep[p] > 0 ? exponential(a[p] - most) : T{0};
                        block.weights[h * kStride + p] = weight;
                        sum += weight;
                    }
                    factor[h] = exponential(largest[h] - most);
                    total[h] = total[h] * factor[h] + sum, largest[h] = most;
                } else {
                    for (int p = 0; p < kPairs; ++p) block.weights[h * kStride + p] = block.keep[p] > 0 ? a[p] : T{0};
                    factor[h] = 1, total[h] = 1;
                }
            }
            __syncthreads();
            for (int n = thread_index(); n < values; n += kThreads) {
                const int h = n / s.width;
                T sum = block.sums[n] * factor[h];
                for (int p = 0; p < kPairs && first + p < s.keys; ++p)
                    sum += block.weights[h * kStride + p] * o.v[((b * s.heads + h) * s.keys + first + p) * s.width + n % s.width];
                block.sums[n] = sum;
            }
        }
        __syncthreads();
    }
    for (int n = thread_index(); n < values; n += kThreads) {
        const int h = n / s.width;
        out[((b * s.heads + h) * s.queries + i) * out_width + n % s.width] =
            total[h] == 0 ? T{0} : block.sums[n] / (s.softmax ? total[h] : T{1});
    }
    if (s.softmax)
        for (int h = thread_index(); h < s.heads; h += kThreads)
            out[((b * s.heads + h) * s.queries + i) * out_width + s.width] =
                total[h] == 0 ? T{0} : largest[h] + static_cast<T>(log(static_cast<double>(total[h])));
}

// Sums of a chunk of queries: k and v (H, N_k, D), x_k (N_k, d), then the layers.
struct Sums {
    int64_t heads, places, layers;
    int64_t total() const { return 2 * heads + places + layers; }
};

template <class T>
__global__ void __launch_bounds__(kThreads)
    gradient(Operands<T> o, Sizes s, Sums sizes, int64_t chunks, const T* out, const T* grad, T* by_q, T* by_xq, T* workspace) {
    const Block<T> block(s);
    const int64_t b = block_index() / chunks, chunk = block_index() % chunks, total = 2 * sizes.heads + sizes.places + sizes.layers;
    const int values = s.heads * s.width, out_width = s.width + (s.softmax ? 1 : 0);
    const T scale = 1 / static_cast<T>(sqrt(static_cast<double>(s.width > 0 ? s.width : 1)));
    T* by_k = workspace + block_index() * total;
    T *by_v = by_k + sizes.heads, *by_xk = by_v + sizes.heads, *by_w1 = by_xk + sizes.places, *by_b1 = by_w1 + s.hidden1 * s.inputs;
    T *by_w2 = by_b1 + s.hidden1, *by_b2 = by_w2 + s.hidden2 * s.hidden1, *by_w3 = by_b2 + s.hidden2, *by_b3 = by_w3 + s.heads * s.hidden2;
    for (int64_t n = thread_index(); n < total; n += kThreads) by_k[n] = 0;
    T *delta = block.head, *normaliser = block.head + s.heads;
    const int64_t begin = s.queries * chunk / chunks, end = s.queries * (chunk + 1) / chunks;
    for (int64_t i = begin; i < end; ++i) {
        load_query(o, s, b, i, block);
        for (int h = thread_index(); h < s.heads; h += kThreads) {
            const int64_t at = ((b * s.heads + h) * s.queries + i) * out_width;
            T sum = 0;
            if (s.softmax) {
                for (int d = 0; d < s.width; ++d) sum += grad[at + d] * out[at + d];
                sum -= grad[at + s.width];
            }
            delta[h] = sum, normaliser[h] = s.softmax ? out[at + s.width] : T{0};
        }
        for (int n = thread_index(); n < values; n += kThreads) block.sums[n] = 0;
        T by_x = 0;  // of the coordinate of this thread
        __syncthreads();
        for (int64_t first = 0; first < s.keys; first += kPairs) {
            const bool some = score_tile(o, s, b, i, first, block);
            if (some) {
                for (int n = thread_index(); n < s.heads * kPairs; n += kThreads) {
                    const int h = n / kPairs, p = n % kPairs, at = h * kStride + p;
                    const int64_t j = first + p;
                    T weight = 0, by_score = 0;
                    if (block.keep[p] > 0) {
                        const T* g = grad + ((b * s.heads + h) * s.queries + i) * out_width;
                        const int64_t key = ((b * s.heads + h) * s.keys + j) * s.width, own = (h * s.keys + j) * s.width;
                        weight = s.softmax ? exponential(block.mixed[at] - normaliser[h]) : block.mixed[at];
                        T by_weight = 0;
                        for (int d = 0; d < s.width; ++d) {
                            by_weight += g[d] * o.v[key + d];
                            by_v[own + d] += g[d] * weight;
                        }
                        by_score = s.softmax ? weight * (by_weight - delta[h]) : by_weight;
                    }
                    block.mixed[at] = by_score;
                }
                __syncthreads();
                outer(block.mixed, s.heads, block.second, s.hidden2, by_w3);
                add_rows(block.mixed, s.heads, by_b3);
                __syncthreads();
                layer<T, Then::gate>(o.w3, 1, s.hidden2, static_cast<const T*>(nullptr), s.heads, s.hidden2, block.mixed, block.second);
                outer(block.second, s.hidden2, block.first, s.hidden1, by_w2);
                add_rows(block.second, s.hidden2, by_b2);
                __syncthreads();
                layer<T, Then::gate>(o.w2, 1, s.hidden1, static_cast<const T*>(nullptr), s.hidden2, s.hidden1, block.second, block.first);
                outer(block.first, s.hidden1, block.in, s.inputs, by_w1);
                add_rows(block.first, s.hidden1, by_b1);
                __syncthreads();
                layer<T, Then::nothing>(o.w1, 1, s.inputs, static_cast<const T*>(nullptr), s.hidden1, s.inputs, block.first, block.in);
                const T* by_scores = s.mix ? block.in + s.places * kStride : block.mixed;
                for (int n = thread_index(); n < values; n += kThreads) {
                    const int h = n / s.width, d = n % s.width;
                    T sum = 0;
                    for (int p = 0; p < kPairs && first + p < s.keys; ++p) {
                        const T by_score = block.keep[p] > 0 ? by_scores[h * kStride + p] * scale : T{0};
                        sum += by_score * o.k[((b * s.heads + h) * s.keys + first + p) * s.width + d];
                        by_k[(h * s.keys + first + p) * s.width + d] += by_score * block.query[n];
                    }
                    block.sums[n] += sum;
                }
                if (thread_index() < s.dim && s.places > 0) {
                    const int c = thread_index();
                    for (int p = 0; p < kPairs && first + p < s.keys; ++p) {
                        if (!(block.keep[p] > 0)) continue;
                        const int64_t j = first + p;
                        T by_difference = block.in[(s.vector ? c : 0) * kStride + p];
                        if (!s.vector) by_difference *= 2 * (block.place[c] - o.x_k[(b * s.keys + j) * s.dim + c]);
                        by_x += by_difference;
                        by_xk[j * s.dim + c] -= by_difference;
                    }
                }
            }
            __syncthreads();
        }
        for (int n = thread_index(); n < values; n += kThreads)
            by_q[((b * s.heads + n / s.width) * s.queries + i) * s.width + n % s.width] = block.sums[n];
        if (thread_index() < s.dim) by_xq[(b * s.queries + i) * s.dim + thread_index()] = by_x;
        __syncthreads();
    }
}

// The sums of the chunks in their order: k, v and x_k of each sample (b, n), and the layers of all.
template <class T>
__global__ void __launch_bounds__(kThreads)
    add_chunks(const T* workspace, int64_t batch, int64_t chunks, int64_t stride, int64_t offset, int64_t size, bool all, T* result) {
    const int64_t n = static_cast<int64_t>(block_index()) * kThreads + thread_index();
    if (n >= (all ? size : batch * size)) return;
    const int64_t first = all ? 0 : n / size * chunks, count = all ? batch * chunks : chunks;
    const T* from = workspace + first * stride + offset + n % size;
    T sum = 0;
    for (int64_t chunk = 0; chunk < count; ++chunk) sum += from[chunk * stride];
    result[n] = sum;
}

Sizes sizes_of(const PairAttentionCall& call) {
    Sizes s{};
    s.heads = static_cast<int>(call.q.sizes[1]), s.width = static_cast<int>(call.q.sizes[3]);
    s.dim = call.difference == PairDifference::none ? 0 : static_cast<int>(call.x_q.sizes[2]);
    s.inputs = static_cast<int>(call.w1.sizes[1]), s.hidden1 = static_cast<int>(call.w1.sizes[0]);
    s.hidden2 = static_cast<int>(call.w2.sizes[0]);
    s.vector = call.difference == PairDifference::vector;
    s.places = s.vector ? s.dim : call.difference == PairDifference::distance2 ? 1 : 0;
    s.queries = call.q.sizes[2], s.keys = call.k.sizes[2], s.mask_rows = call.mask_rows;
    s.mix = call.mix, s.softmax = call.softmax;
    return s;
}

template <class T>
Operands<T> operands_of(const PairAttentionCall& c) {
    const auto at = [](const View& view) { return static_cast<const T*>(view.data); };
    return {at(c.q), at(c.k), at(c.v), at(c.x_q), at(c.x_k), at(c.w1), at(c.b1), at(c.w2), at(c.b2), at(c.w3), at(c.b3), c.mask};
}

size_t shared_bytes(const Sizes& s, size_t size) {
    const size_t bytes = static_cast<size_t>(shared_numbers(s)) * size;
    const size_t limit = shared_memory_limit("pair_attention");
    if (bytes > limit || s.dim > kThreads)
        throw std::runtime_error("pair_attention: the MLP needs " + std::to_string(bytes) +
                                 " bytes of shared memory for 32 pairs, a block has " + std::to_string(limit) +
                                 "; take narrower hidden layers");
    return bytes;
}

int64_t chunks_of(const PairAttentionCall& call) {
    const int64_t batch = call.q.sizes[0] > 0 ? call.q.sizes[0] : 1;
    int64_t chunks = kMostChunks / batch;
    if (chunks > call.q.sizes[2]) chunks = call.q.sizes[2];
    return chunks > 1 ? chunks : 1;
}

Sums sums_of(const PairAttentionCall& call) {
    int64_t layers = 0;
    const View* views[] = {&call.w1, &call.b1, &call.w2, &call.b2, &call.w3, &call.b3};
    for (const View* view : views) layers += view->numel();
    const int64_t dim = call.difference == PairDifference::none ? 0 : call.x_q.sizes[2];
    return {call.q.sizes[1] * call.k.sizes[2] * call.q.sizes[3], call.k.sizes[2] * dim, layers};
}

template <class T>
void run_gradient(const PairAttentionCall& call, const View& out, const View& grad, const View& result, void* workspace, void* stream) {
    const Sizes s = sizes_of(call);
    const Sums sums = sums_of(call);
    const int64_t batch = call.q.sizes[0], chunks = chunks_of(call);
    T *by_q = static_cast<T*>(result.data), *by_k = by_q + call.q.numel(), *by_xq = by_k + 2 * call.k.numel();
    T *by_xk = by_xq + (s.dim ? call.x_q.numel() : 0), *by_layers = by_xk + (s.dim ? call.x_k.numel() : 0);
    T* partial = static_cast<T*>(workspace);
    launch("pair_attention_gradient", gradient<T>, batch * chunks, kThreads, shared_bytes(s, sizeof(T)), stream, operands_of<T>(call), s,
           sums, chunks, static_cast<const T*>(out.data), static_cast<const T*>(grad.data), by_q, by_xq, partial);
    const auto add = [&](int64_t offset, int64_t size, bool all, T* target) {
        const int64_t numbers = all ? size : batch * size;
        launch("pair_attention_gradient", add_chunks<T>, (numbers + kThreads - 1) / kThreads, kThreads, 0, stream, partial, batch, chunks,
               sums.total(), offset, size, all, target);
    };
    add(0, sums.heads, false, by_k);
    add(sums.heads, sums.heads, false, by_k + call.k.numel());
    add(2 * sums.heads, sums.places, false, by_xk);
    add(2 * sums.heads + sums.places, sums.layers, true, by_layers);
}

template <class T>
void run_forward(const PairAttentionCall& call, const View& out, void* stream) {
    const Sizes s = sizes_of(call);
    launch("pair_attention", forward<T>, call.q.sizes[0] * s.queries, kThreads, shared_bytes(s, sizeof(T)), stream, operands_of<T>(call), s,
           static_cast<T*>(out.data));
}

}  // namespace

int64_t pair_attention_workspace(const PairAttentionCall& call) {
    return call.q.sizes[0] * chunks_of(call) * sums_of(call).total() * itemsize(call.q.dtype);
}

void pair_attention(const PairAttentionCall& call, const View& out, void* stream) {
    call.q.dtype == DType::float64 ? run_forward<double>(call, out, stream) : run_forward<float>(call, out, stream);
}

void pair_attention_gradient(const PairAttentionCall& call, const View& out, const View& grad, const View& result, void* workspace,
                             void* stream) {
    call.q.dtype == DType::float64 ? run_gradient<double>(call, out, grad, result, workspace, stream)
                                   : run_gradient<float>(call, out, grad, result, workspace, stream);
}

}  // namespace cuda
}  // namespace isotypic
