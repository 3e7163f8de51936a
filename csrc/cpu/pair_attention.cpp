// Driver of the CPU kernels of pair_attention: packs weights and keys, hands runs of queries to the threads, and adds up what they share.
#include "ops/pair_attention.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "cpu/isa.hpp"
#include "cpu/pair_attention_kernel.hpp"

namespace isotypic::cpu {
namespace {

constexpr int64_t kRun = 8;     // queries to an item of work
constexpr int64_t kChunks = 8;  // sums over queries that are made apart, at least, whatever the threads
constexpr int64_t kLeast = 16;  // queries to such a sum

const PairAttentionKernels& kernel_set() {
    return ISOTYPIC_SELECT_ISA(pair_attention_kernels);
}

template <class T>
const PairAttentionKernel<T>& kernel_of();
template <>
const PairAttentionKernel<float>& kernel_of<float>() {
    return kernel_set().float32;
}
template <>
const PairAttentionKernel<double>& kernel_of<double>() {
    return kernel_set().float64;
}

template <class T>
const T* data(const View& view) {
    return static_cast<const T*>(view.data);
}

// The three layers, packed in blocks.
template <class T>
class Layers {
  public:
    Layers(const PairAttentionCall& call, int block) {
        const View* weights[3] = {&call.w1, &call.w2, &call.w3};
        const View* biases[3] = {&call.b1, &call.b2, &call.b3};
        for (int i = 0; i < 3; ++i) {
            const int64_t outputs = weights[i]->sizes[0], inputs = weights[i]->sizes[1];
            const T* w = data<T>(*weights[i]);
            std::vector<T>&weight = storage_[3 * i], &bias = storage_[3 * i + 1], &transposed = storage_[3 * i + 2];
            weight.assign(rounded_up(outputs, block) * inputs, 0);
            transposed.assign(rounded_up(inputs, block) * outputs, 0);
            bias.assign(rounded_up(outputs, block), 0);
            std::copy_n(data<T>(*biases[i]), outputs, bias.begin());
            for (int64_t n = 0; n < outputs; ++n)
                for (int64_t k = 0; k < inputs; ++k) {
                    weight[(n / block * inputs + k) * block + n % block] = w[n * inputs + k];
                    transposed[(k / block * outputs + n) * block + k % block] = w[n * inputs + k];
                }
            layers[i] = {weight.data(), bias.data(), transposed.data(), inputs, outputs};
        }
    }
    PackedLayer<T> layers[3];

  private:
    std::vector<T> storage_[9];
};

template <class T>
struct Sizes {
    PairSizes pair;
    int64_t batch, queries, pairs, inputs, hidden1, hidden2, tile_row;  // padded widths; numbers of a tile of keys
    int64_t workspace;

    Sizes(const PairAttentionCall& call, const PairAttentionKernel<T>& kernel) {
        pairs = kernel.pairs;
        batch = call.q.sizes[0], queries = call.q.sizes[2];
        pair.heads = call.q.sizes[1], pair.width = call.q.sizes[3], pair.keys = call.k.sizes[2];
        pair.dim = call.difference == PairDifference::none ? 0 : call.x_q.sizes[2];
        pair.tiles = (pair.keys + pairs - 1) / pairs;
        pair.difference = static_cast<int>(call.difference), pair.mix = call.mix, pair.softmax = call.softmax;
        const auto pad = [&](int64_t n) { return padded(n, kernel.lanes, kernel.block); };
        inputs = pad(call.w1.sizes[1]), hidden1 = pad(call.w1.sizes[0]), hidden2 = pad(call.w2.sizes[0]);
        tile_row = pair.heads * pair.width * pairs;
        workspace = pairs * (4 * pad(pair.heads) + 3 * (inputs + hidden1 + hidden2) + pair.heads * pair.width + pair.dim) *
                    static_cast<int64_t>(sizeof(T));
    }
};

// (heads, keys, width) -> (tiles, heads, width, pairs), zeros behind the last key.
template <class T>
void pack_heads(const T* from, const PairSizes& pair, int64_t pairs, T* to) {
    for (int64_t t = 0; t < pair.tiles; ++t)
        for (int64_t h = 0; h < pair.heads; ++h)
            for (int64_t d = 0; d < pair.width; ++d, to += pairs)
                for (int64_t p = 0; p < pairs; ++p) {
                    const int64_t j = t * pairs + p;
                    to[p] = j < pair.keys ? from[(h * pair.keys + j) * pair.width + d] : T{0};
                }
}

template <class T>
void unpack_heads(const T* from, const PairSizes& pair, int64_t pairs, T* to) {
    for (int64_t h = 0; h < pair.heads; ++h)
        for (int64_t j = 0; j < pair.keys; ++j)
            for (int64_t d = 0; d < pair.width; ++d)
                to[(h * pair.keys + j) * pair.width + d] = from[((j / pairs * pair.heads + h) * pair.width + d) * pairs + j % pairs];
}

template <class T>
void pack_positions(const T* from, const PairSizes& pair, int64_t pairs, T* to) {
    for (int64_t t = 0; t < pair.tiles; ++t)
        for (int64_t c = 0; c < pair.dim; ++c, to += pairs)
            for (int64_t p = 0; p < pairs; ++p) to[p] = t * pairs + p < pair.keys ? from[(t * pairs + p) * pair.dim + c] : T{0};
}

// (tiles, pairs): 1 for the keys that a query attends to.
template <class T>
void keep_row(const PairAttentionCall& call, const PairSizes& pair, int64_t pairs, int64_t b, int64_t row, T* keep) {
    const uint8_t* mask = call.mask ? call.mask + (b * call.mask_rows + (call.mask_rows > 1 ? row : 0)) * pair.keys : nullptr;
    for (int64_t j = 0; j < pair.tiles * pairs; ++j) keep[j] = j < pair.keys && (!mask || mask[j]) ? T{1} : T{0};
}

template <class T>
void run_forward(const PairAttentionCall& call, const View& out) {
    const PairAttentionKernel<T>& kernel = kernel_of<T>();
    const Sizes<T> sizes(call, kernel);
    const PairSizes& pair = sizes.pair;
    const Layers<T> layers(call, kernel.block);
    const int64_t size = sizeof(T), batch = sizes.batch, queries = sizes.queries, tiles = pair.tiles;
    const Scratch keys(tiles * sizes.tile_row * size, batch), positions(tiles * pair.dim * sizes.pairs * size, batch);
    const int threads = max_threads();
    parallel_for(batch, threads, [&](int64_t b, int) {
        pack_heads(data<T>(call.k) + b * pair.heads * pair.keys * pair.width, pair, sizes.pairs, reinterpret_cast<T*>(keys.part(b)));
        if (pair.dim)
            pack_positions(data<T>(call.x_k) + b * pair.keys * pair.dim, pair, sizes.pairs, reinterpret_cast<T*>(positions.part(b)));
    });
    const int64_t row = tiles * sizes.pairs;
    const Scratch workspace(sizes.workspace, threads), scores(pair.heads * row * size, threads), kept(row * size, threads);
    std::memset(workspace.get(), 0, static_cast<size_t>(workspace.stride() * threads));
    const int64_t runs = (queries + kRun - 1) / kRun, width = call.out_width();
    parallel_for(batch * runs, threads, [&](int64_t item, int thread) {
        const int64_t b = item / runs, first = item % runs * kRun, last = std::min(first + kRun, queries);
        T* keep = reinterpret_cast<T*>(kept.part(thread));
        for (int64_t i = first; i < last; ++i) {
            if (i == first || call.mask_rows > 1) keep_row(call, pair, sizes.pairs, b, i, keep);
            kernel.forward(pair, layers.layers, data<T>(call.q) + (b * pair.heads * queries + i) * pair.width, queries * pair.width,
                           pair.dim ? data<T>(call.x_q) + (b * queries + i) * pair.dim : nullptr, reinterpret_cast<T*>(keys.part(b)),
                           reinterpret_cast<T*>(positions.part(b)), data<T>(call.v) + b * pair.heads * pair.keys * pair.width, keep,
                           reinterpret_cast<T*>(scores.part(thread)), reinterpret_cast<T*>(workspace.part(thread)),
                           static_cast<T*>(out.data) + (b * pair.heads * queries + i) * width, queries * width);
        }
    });
}

template <class T>
void run_gradient(const PairAttentionCall& call, const View& out, const View& grad, const View& result) {
    const PairAttentionKernel<T>& kernel = kernel_of<T>();
    const Sizes<T> sizes(call, kernel);
    const PairSizes& pair = sizes.pair;
    const Layers<T> layers(call, kernel.block);
    const int64_t size = sizeof(T), batch = sizes.batch, queries = sizes.queries, tiles = pair.tiles, lanes = kernel.lanes;
    const Scratch keys(tiles * sizes.tile_row * size, batch), values(tiles * sizes.tile_row * size, batch);
    const Scratch positions(tiles * pair.dim * sizes.pairs * size, batch);
    const int threads = max_threads();
    const int64_t set = pair.heads * pair.keys * pair.width;
    parallel_for(batch, threads, [&](int64_t b, int) {
        pack_heads(data<T>(call.k) + b * set, pair, sizes.pairs, reinterpret_cast<T*>(keys.part(b)));
        pack_heads(data<T>(call.v) + b * set, pair, sizes.pairs, reinterpret_cast<T*>(values.part(b)));
        if (pair.dim)
            pack_positions(data<T>(call.x_k) + b * pair.keys * pair.dim, pair, sizes.pairs, reinterpret_cast<T*>(positions.part(b)));
    });

    // Sums over queries, one for each chunk: k, v, x, then the layers.
    const auto rows = [&](int64_t n) { return padded(n, lanes, kernel.block); };
    const int64_t tile_sums = tiles * (2 * sizes.tile_row + pair.dim * sizes.pairs);
    const int64_t layer_sums[6] = {sizes.hidden1 * sizes.inputs,     sizes.hidden1 * lanes,
                                   sizes.hidden2 * sizes.hidden1,    sizes.hidden2 * lanes,
                                   rows(pair.heads) * sizes.hidden2, rows(pair.heads) * lanes};
    int64_t total = tile_sums;
    for (const int64_t n : layer_sums) total += n;
    const int64_t wanted = (kChunks + batch - 1) / std::max<int64_t>(batch, 1);
    const int64_t chunks = std::max<int64_t>(std::min(wanted, (queries + kLeast - 1) / kLeast), 1);
    const Scratch sums(total * size, batch * chunks);
    const int64_t row = tiles * sizes.pairs, width = call.out_width();
    const Scratch workspace(sizes.workspace, threads), kept(row * size, threads), own((pair.heads * pair.width + pair.dim) * size, threads);
    std::memset(workspace.get(), 0, static_cast<size_t>(workspace.stride() * threads));

    T* flat = static_cast<T*>(result.data);
    T *by_q = flat, *by_k = by_q + call.q.numel(), *by_v = by_k + call.k.numel(), *by_xq = by_v + call.v.numel();
    T *by_xk = by_xq + (pair.dim ? call.x_q.numel() : 0), *by_w = by_xk + (pair.dim ? call.x_k.numel() : 0);

    parallel_for(batch * chunks, threads, [&](int64_t item, int thread) {
        const int64_t b = item / chunks, chunk = item % chunks, first = queries * chunk / chunks, last = queries * (chunk + 1) / chunks;
        T* at = reinterpret_cast<T*>(sums.part(item));
        std::memset(at, 0, static_cast<size_t>(total * size));
        PairGradients<T> gradients{};
        gradients.k = at, at += tiles * sizes.tile_row;
        gradients.v = at, at += tiles * sizes.tile_row;
        gradients.x = at, at += tiles * pair.dim * sizes.pairs;
        T** layer_targets[6] = {&gradients.w1, &gradients.b1, &gradients.w2, &gradients.b2, &gradients.w3, &gradients.b3};
        for (int i = 0; i < 6; ++i) *layer_targets[i] = at, at += layer_sums[i];
        gradients.q = reinterpret_cast<T*>(own.part(thread)), gradients.x_q = gradients.q + pair.heads * pair.width;
        T* keep = reinterpret_cast<T*>(kept.part(thread));
        for (int64_t i = first; i < last; ++i) {
            if (i == first || call.mask_rows > 1) keep_row(call, pair, sizes.pairs, b, i, keep);
            const int64_t start = b * pair.heads * queries + i;
            kernel.gradient(pair, layers.layers, data<T>(call.q) + start * pair.width, queries * pair.width,
                            pair.dim ? data<T>(call.x_q) + (b * queries + i) * pair.dim : nullptr, reinterpret_cast<T*>(keys.part(b)),
                            reinterpret_cast<T*>(positions.part(b)), reinterpret_cast<T*>(values.part(b)), keep,
                            data<T>(out) + start * width, data<T>(grad) + start * width, queries * width,
                            reinterpret_cast<T*>(workspace.part(thread)), gradients);
            for (int64_t h = 0; h < pair.heads; ++h)
                std::copy_n(gradients.q + h * pair.width, pair.width, by_q + (start + h * queries) * pair.width);
            std::copy_n(gradients.x_q, pair.dim, by_xq + (b * queries + i) * pair.dim);
        }
    });

    // Chunk after chunk, so that the order of the sums does not depend on the threads.
    parallel_for(batch, threads, [&](int64_t b, int) {
        T* total_of = reinterpret_cast<T*>(sums.part(b * chunks));
        for (int64_t chunk = 1; chunk < chunks; ++chunk) {
            const T* other = reinterpret_cast<T*>(sums.part(b * chunks + chunk));
            for (int64_t i = 0; i < total; ++i) total_of[i] += other[i];
        }
        unpack_heads(total_of, pair, sizes.pairs, by_k + b * set);
        unpack_heads(total_of + tiles * sizes.tile_row, pair, sizes.pairs, by_v + b * set);
        const T* places = total_of + 2 * tiles * sizes.tile_row;
        for (int64_t j = 0; j < pair.keys; ++j)
            for (int64_t c = 0; c < pair.dim; ++c)
                by_xk[(b * pair.keys + j) * pair.dim + c] = places[(j / sizes.pairs * pair.dim + c) * sizes.pairs + j % sizes.pairs];
    });
    const View* parameters[6] = {&call.w1, &call.b1, &call.w2, &call.b2, &call.w3, &call.b3};
    const int64_t strides[6] = {sizes.inputs, lanes, sizes.hidden1, lanes, sizes.hidden2, lanes};
    int64_t offset = tile_sums;
    for (int i = 0; i < 6; ++i) {
        const bool weight = i % 2 == 0;
        const int64_t outputs = parameters[i]->sizes[0], inputs = weight ? parameters[i]->sizes[1] : 1, read = weight ? inputs : lanes;
        std::fill_n(by_w, outputs * inputs, T{0});
        for (int64_t b = 0; b < batch; ++b) {
            const T* from = reinterpret_cast<T*>(sums.part(b * chunks)) + offset;
            for (int64_t n = 0; n < outputs; ++n)
                for (int64_t k = 0; k < read; ++k) by_w[n * inputs + (weight ? k : 0)] += from[n * strides[i] + k];
        }
        by_w += outputs * inputs;
        offset += layer_sums[i];
    }
}

}  // namespace

void pair_attention(const PairAttentionCall& call, const View& out) {
    call.q.dtype == DType::float64 ? run_forward<double>(call, out) : run_forward<float>(call, out);
}

void pair_attention_gradient(const PairAttentionCall& call, const View& out, const View& grad, const View& result) {
    call.q.dtype == DType::float64 ? run_gradient<double>(call, out, grad, result) : run_gradient<float>(call, out, grad, result);
}

}  // namespace isotypic::cpu
