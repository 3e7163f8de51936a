// Driver of the CPU kernels of the weight-space operators: packs parameters, allocates scratch, and hands networks to the threads.
#include "ops/weight_linear.hpp"

#include <algorithm>
#include <cstring>
#include <memory>

#include "core/large_pages.hpp"
#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "cpu/isa.hpp"
#include "cpu/weight_linear_kernel.hpp"

namespace isotypic::cpu {
namespace {

constexpr int64_t kGroupBytes = 1024 << 10;  // of networks worked on together: x is in L2 or L3 when it is read again
constexpr int64_t kAheadEntries = 32;        // of a large network: as far ahead x is asked for
constexpr int64_t kMaxGroup = 8;             // more rows than this make the global product no faster
constexpr int64_t kMaxPartials = 16;         // partial sums over runs of networks, the same for every number of threads
constexpr int64_t kRowBlock = 12;            // rows of a parameter's gradient in one item of work

const WeightKernelSet& kernel_set() {
    return ISOTYPIC_SELECT_ISA(weight_linear_kernels);
}

// The kernels and sizes of one call.
struct Call {
    Call(const WeightPlan& plan_, DType dtype_, const int64_t* sizes_)
        : plan(plan_),
          dtype(dtype_),
          sizes(sizes_),
          size(dtype == DType::float64 ? 8 : 4),
          kernels(dtype == DType::float64 ? kernel_set().wide : kernel_set().single),
          converts(dtype == DType::bfloat16 || dtype == DType::float16) {}

    const int64_t* sizes_of(int64_t network) const { return sizes ? sizes + network * (plan.layers + 1) : nullptr; }
    int64_t padded(int64_t n) const { return (n + kernels.panel - 1) / kernels.panel * kernels.panel; }

    // `count` elements from `offset` in the compute type: the memory itself, or a copy in `scratch`.
    const char* read(const View& view, int64_t offset, int64_t count, char* scratch) const {
        if (!converts) return static_cast<const char*>(view.data) + offset * size;
        kernels.read(view.data, dtype, offset, count, scratch);
        return scratch;
    }
    // How far behind a network of `elements` the next one lies, to ask for it ahead of its time; 0 where that makes no sense.
    int64_t ahead(int64_t network, int64_t batch, int64_t elements) const {
        return converts || network + 1 == batch || elements * size > kGroupBytes ? 0 : elements;
    }
    // Where to write such elements, and what to do when they are written.
    char* target(const View& view, int64_t offset, char* scratch) const {
        return converts ? scratch : static_cast<char*>(view.data) + offset * size;
    }
    void written(const View& view, int64_t offset, int64_t count, const char* from) const {
        if (converts) kernels.write(view.data, dtype, offset, count, from);
    }

    const WeightPlan& plan;
    DType dtype;
    const int64_t* sizes;
    int64_t size;
    const WeightKernels& kernels;
    bool converts;
};

// A whole tensor in the compute type.
class Whole {
  public:
    Whole(const Call& call, const View& view) : copy_(call.converts ? view.numel() * call.size : 0) {
        data = view.defined() ? call.read(view, 0, view.numel(), copy_.part(0)) : nullptr;
    }
    const char* data;

  private:
    Scratch copy_;
};

// The matrices of a layer's weight, packed for products: [mixed][C, N], then those of the labels, then the global one. Transposed, N and C
// change places and so do the slots.
struct Parameters {
    Parameters(const Call& call, const View& weight, bool transposed)
        : C(weight.sizes[transposed ? 2 : 1]), N(weight.sizes[transposed ? 1 : 2]), memory_(bytes(call)) {
        const WeightPlan& plan = call.plan;
        const Whole source(call, weight);
        char* out = memory_.part(0);
        mix = out;
        for (int i = 0; i < plan.mixed; ++i, out += C * call.padded(N) * call.size) {
            call.kernels.pack(source.data + i * C * N * call.size, 1, C, N, transposed, out);
        }
        for (int l = 0; l <= plan.node_count; ++l) {
            const int64_t slots = l < plan.node_count ? plan.nodes[l].slots : plan.global_slots;
            matrices[l] = out;
            call.kernels.pack(source.data + parameter(plan, l) * C * N * call.size, slots, C, N, transposed, out);
            out += slots * C * call.padded(slots * N) * call.size;
        }
    }

    static int64_t parameter(const WeightPlan& plan, int l) {
        return l < plan.node_count ? plan.nodes[l].parameter : plan.global_parameter;
    }

    int64_t C, N;
    const char* mix;
    const char* matrices[kMaxWeightLayers + 2];

  private:
    int64_t bytes(const Call& call) {
        const WeightPlan& plan = call.plan;
        int64_t elements = plan.mixed * C * call.padded(N);
        for (int l = 0; l <= plan.node_count; ++l) {
            const int64_t slots = l < plan.node_count ? plan.nodes[l].slots : plan.global_slots;
            elements += slots * C * call.padded(slots * N);
        }
        return elements * call.size;
    }

    Scratch memory_;
};

}  // namespace

struct PackedWeight {
    PackedWeight(const Call& call, const View& given)
        : plan(call.plan),
          dtype(given.dtype),
          kernels(&call.kernels),
          bytes(given.numel() * itemsize(dtype)),
          weight(bytes),
          matrices(call, given, false) {
        std::memcpy(weight.get(), given.data, static_cast<size_t>(bytes));
    }
    bool fits(const Call& call, const View& given) const {
        return std::memcmp(&plan, &call.plan, sizeof plan) == 0 && dtype == given.dtype && kernels == &call.kernels &&
               matrices.C == given.sizes[1] && matrices.N == given.sizes[2] &&
               std::memcmp(weight.get(), given.data, static_cast<size_t>(bytes)) == 0;
    }

    WeightPlan plan;
    DType dtype;
    const WeightKernels* kernels;
    int64_t bytes;
    Scratch weight;
    Parameters matrices;
};

namespace {

// y = L x, or its adjoint: pool, the products, and the affine map, for a few networks at a time.
void run_linear(const Call& call, const View& x, const Parameters& parameters, const View& bias, const View& project, const View& expand,
                bool pool_mean, bool affine_mean, const View& y) {
    ask_for_large_pages(y);
    const WeightPlan& plan = call.plan;
    const int64_t batch = x.sizes[0], P = plan.entries, rows = plan.rows;
    const int64_t C = parameters.C, N = parameters.N, G = plan.global_slots, threads = max_threads();
    Scratch bias_row(call.padded(G * N) * call.size);
    if (bias.defined()) {
        std::memset(bias_row.part(0), 0, static_cast<size_t>(call.padded(G * N) * call.size));
        const Whole values(call, bias);
        std::memcpy(bias_row.part(0), values.data, static_cast<size_t>(G * N * call.size));
    }
    const Whole reads(call, project), writes(call, expand);
    int64_t group = std::clamp<int64_t>(kGroupBytes / std::max<int64_t>(P * std::max(C, N) * call.size, 1), 1, kMaxGroup);
    group = std::min(group, std::max<int64_t>((batch + threads - 1) / threads, 1));
    const int64_t items = (batch + group - 1) / group, workers = std::min(threads, items);
    const int64_t scratch = std::max(call.kernels.pool_scratch(plan, C), call.kernels.affine_scratch(plan, N));
    const int64_t values = call.converts ? group * P * C : 0, result = call.converts ? P * N : 0;
    const int64_t ahead_of = P * C * call.size > kGroupBytes ? kAheadEntries * C : group * P * C;
    const Scratch memory((group * rows * (C + N) + scratch + values + result) * call.size, workers);
    parallel_for(items, static_cast<int>(workers), [&](int64_t item, int thread) {
        char* pooled = memory.part(thread);
        char* terms = pooled + group * rows * C * call.size;
        char* space = terms + group * rows * N * call.size;
        char* copy = space + scratch * call.size;
        char* out = copy + values * call.size;
        const int64_t first = item * group, count = std::min(group, batch - first);
        const char* networks[kMaxGroup];
        for (int64_t k = 0; k < count; ++k) {
            networks[k] = call.read(x, (first + k) * P * C, P * C, copy + k * P * C * call.size);
            call.kernels.pool(plan, call.sizes_of(first + k), networks[k], C, reads.data, pool_mean, pooled + k * rows * C * call.size,
                              space);
            for (int l = 0; l < plan.node_count; ++l) {
                const WeightNodes& nodes = plan.nodes[l];
                const int64_t width = width_of(plan, call.sizes_of(first + k), nodes.label), at = k * rows + nodes.offset;
                call.kernels.multiply(width, nodes.slots * N, pooled + at * C * call.size, nodes.slots * C, parameters.matrices[l],
                                      nodes.slots * C, nullptr, terms + at * N * call.size, nodes.slots * N);
            }
        }
        call.kernels.multiply(count, G * N, pooled + plan.global_offset * C * call.size, rows * C, parameters.matrices[plan.node_count],
                              G * C, bias.defined() ? bias_row.part(0) : nullptr, terms + plan.global_offset * N * call.size, rows * N);
        for (int64_t k = 0; k < count; ++k) {
            char* target = call.target(y, (first + k) * P * N, out);
            const int64_t ahead = !call.converts && first + k + group < batch ? ahead_of : 0;
            call.kernels.affine(plan, call.sizes_of(first + k), networks[k], C, ahead, plan.mixed ? parameters.mix : nullptr,
                                terms + k * rows * N * call.size, N, writes.data, affine_mean, target, space);
            call.written(y, (first + k) * P * N, P * N, target);
        }
    });
}

// Sums over networks in fixed runs: work(network, partial sum, thread), then the partial sums in order.
template <class Work>
void sum_over_networks(const Call& call, int64_t batch, int64_t elements, char* total, const Work& work) {
    const int64_t partials = std::min(batch, kMaxPartials);
    const Scratch memory(elements * call.size, partials);
    parallel_for(partials, max_threads(), [&](int64_t run, int thread) {
        std::memset(memory.part(run), 0, static_cast<size_t>(elements * call.size));
        for (int64_t network = batch * run / partials; network < batch * (run + 1) / partials; ++network)
            work(network, memory.part(run), thread);
    });
    auto reduce = [&](auto* sum) {
        for (int64_t run = 0; run < partials; ++run) {
            const auto* partial = reinterpret_cast<decltype(sum)>(memory.part(run));
            for (int64_t i = 0; i < elements; ++i) sum[i] += partial[i];
        }
    };
    std::memset(total, 0, static_cast<size_t>(elements * call.size));
    call.size == 8 ? reduce(reinterpret_cast<double*>(total)) : reduce(reinterpret_cast<float*>(total));
}

}  // namespace

void weight_pool(const WeightPlan& plan, const View& x, const View& basis, const int64_t* sizes, bool mean, const View& pooled) {
    const Call call(plan, x.dtype, sizes);
    const int64_t batch = x.sizes[0], C = x.sizes[2], P = plan.entries * C, R = plan.rows * C, scratch = call.kernels.pool_scratch(plan, C);
    const Whole features(call, basis);
    const int64_t threads = std::min<int64_t>(max_threads(), std::max<int64_t>(batch, 1));
    const Scratch memory((scratch + (call.converts ? P + R : 0)) * call.size, threads);
    parallel_for(batch, static_cast<int>(threads), [&](int64_t network, int thread) {
        char *space = memory.part(thread), *copy = space + scratch * call.size;
        const char* values = call.read(x, network * P, P, copy);
        char* target = call.target(pooled, network * R, copy + P * call.size);
        call.kernels.pool(plan, call.sizes_of(network), values, C, features.data, mean, target, space);
        call.written(pooled, network * R, R, target);
    });
}

void weight_affine(const WeightPlan& plan, const View& x, const View& mix, const View& terms, const View& basis, const int64_t* sizes,
                   bool mean, const View& y) {
    ask_for_large_pages(y);
    const Call call(plan, y.dtype, sizes);
    const int64_t batch = y.sizes[0], N = y.sizes[2], C = x.defined() ? x.sizes[2] : 0, P = plan.entries, R = plan.rows * N;
    const int64_t scratch = call.kernels.affine_scratch(plan, N), matrix = C * call.padded(N) * call.size;
    const Whole features(call, basis);
    const Scratch packed(matrix, plan.mixed);
    if (x.defined()) {
        const Whole matrices(call, mix);
        for (int i = 0; i < plan.mixed; ++i)
            call.kernels.pack(matrices.data + i * C * N * call.size, 1, C, N, false, packed.part(0) + i * matrix);
    }
    const int64_t threads = std::min<int64_t>(max_threads(), std::max<int64_t>(batch, 1));
    const Scratch memory((scratch + (call.converts ? P * C + P * N + R : 0)) * call.size, threads);
    parallel_for(batch, static_cast<int>(threads), [&](int64_t network, int thread) {
        char *space = memory.part(thread), *copy = space + scratch * call.size, *out = copy + P * C * call.size;
        const int64_t ahead = call.converts ? 0 : std::min((batch - 1 - network) * P, kAheadEntries) * C;
        const char* values = x.defined() ? call.read(x, network * P * C, P * C, copy) : nullptr;
        const char* added = terms.defined() ? call.read(terms, network * R, R, out + P * N * call.size) : nullptr;
        char* target = call.target(y, network * P * N, out);
        call.kernels.affine(plan, call.sizes_of(network), values, C, ahead, x.defined() ? packed.part(0) : nullptr, added, N, features.data,
                            mean, target, space);
        call.written(y, network * P * N, P * N, target);
    });
}

void weight_linear(const WeightPlan& plan, const View& x, const View& weight, const View& bias, const View& project, const View& expand,
                   const int64_t* sizes, bool mean, const View& y, WeightMatrices* kept) {
    const Call call(plan, x.dtype, sizes);
    if (!kept) return run_linear(call, x, Parameters(call, weight, false), bias, project, expand, mean, false, y);
    std::shared_ptr<const PackedWeight> packed = kept->get();
    if (!packed || !packed->fits(call, weight)) {
        packed = std::make_shared<const PackedWeight>(call, weight);
        kept->set(packed);
    }
    run_linear(call, x, packed->matrices, bias, project, expand, mean, false, y);
}

void weight_linear_transpose(const WeightPlan& plan, const View& y, const View& weight, const int64_t* sizes, bool mean, const View& x) {
    const Call call(plan, y.dtype, sizes);
    run_linear(call, y, Parameters(call, weight, true), View{}, View{}, View{}, false, mean, x);
}

void weight_linear_gradient(const WeightPlan& plan, const View& x, const View& y, const int64_t* sizes, bool mean, const View& gradient) {
    const Call call(plan, x.dtype, sizes);
    const int64_t batch = x.sizes[0], C = x.sizes[2], N = y.sizes[2], P = plan.entries, R = plan.rows, G = plan.global_slots;
    const int64_t scratch = std::max(call.kernels.pool_scratch(plan, C), call.kernels.pool_scratch(plan, N));
    const int64_t values = call.converts ? P * (C + N) : 0, mixed = plan.mixed * C * N, elements = plan.parameters() * C * N;
    const Scratch pooled(batch * R * C * call.size), summed(batch * R * N * call.size),
        result(call.converts ? gradient.numel() * call.size : 0);
    char* target = call.target(gradient, 0, result.part(0));
    // One reading of x and y: their pooled rows, which are few, are kept for all networks, and the mixed layers are summed at once.
    {
        const Scratch memory((scratch + values) * call.size, max_threads());
        sum_over_networks(call, batch, mixed, target, [&](int64_t network, char* sum, int thread) {
            char *space = memory.part(thread), *copy = space + scratch * call.size;
            const char* in = call.read(x, network * P * C, P * C, copy);
            const char* out = call.read(y, network * P * N, P * N, copy + P * C * call.size);
            const int64_t* widths = call.sizes_of(network);
            call.kernels.pool(plan, widths, in, C, nullptr, mean, pooled.part(0) + network * R * C * call.size, space);
            call.kernels.pool(plan, widths, out, N, nullptr, false, summed.part(0) + network * R * N * call.size, space);
            call.kernels.mix_gradient(plan, widths, in, C, call.ahead(network, batch, P * C), out, N, call.ahead(network, batch, P * N),
                                      sum);
        });
    }
    // An item is a block of rows (s, c) of one label's matrix or of the global one, summed over all networks in order.
    int64_t first_item[kMaxWeightLayers + 3] = {0}, widest = G;
    for (int l = 0; l <= plan.node_count; ++l) {
        const int64_t slots = l < plan.node_count ? plan.nodes[l].slots : G;
        first_item[l + 1] = first_item[l] + (slots * C + kRowBlock - 1) / kRowBlock;
        widest = std::max(widest, slots);
    }
    const Scratch blocks(kRowBlock * widest * N * call.size, max_threads());
    parallel_for(first_item[plan.node_count + 1], max_threads(), [&](int64_t item, int thread) {
        int l = 0;
        while (item >= first_item[l + 1]) ++l;
        const int64_t slots = l < plan.node_count ? plan.nodes[l].slots : G,
                      offset = l < plan.node_count ? plan.nodes[l].offset : plan.global_offset;
        const int64_t row = (item - first_item[l]) * kRowBlock, count = std::min(kRowBlock, slots * C - row);
        char* block = blocks.part(thread);
        std::memset(block, 0, static_cast<size_t>(count * slots * N * call.size));
        const char* left = pooled.part(0) + (offset * C + row) * call.size;
        const char* right = summed.part(0) + offset * N * call.size;
        if (l == plan.node_count) {
            call.kernels.outer(left, R * C, count, right, R * N, slots * N, batch, block, slots * N);
        } else {
            for (int64_t network = 0; network < batch; ++network)
                call.kernels.outer(left + network * R * C * call.size, slots * C, count, right + network * R * N * call.size, slots * N,
                                   slots * N, width_of(plan, call.sizes_of(network), plan.nodes[l].label), block, slots * N);
        }
        for (int64_t k = 0; k < count; ++k)
            for (int64_t t = 0, s = (row + k) / C, c = (row + k) % C; t < slots; ++t)
                std::memcpy(target + ((Parameters::parameter(plan, l) + s * slots + t) * C + c) * N * call.size,
                            block + (k * slots + t) * N * call.size, static_cast<size_t>(N * call.size));
    });
    auto sum_bias = [&](auto* bias, const auto* sums) {
        std::memset(bias, 0, static_cast<size_t>(G * N * call.size));
        for (int64_t network = 0; network < batch; ++network)
            for (int64_t k = 0; k < G * N; ++k) bias[k] += sums[(network * R + plan.global_offset) * N + k];
    };
    char* bias = target + elements * call.size;
    call.size == 8 ? sum_bias(reinterpret_cast<double*>(bias), reinterpret_cast<const double*>(summed.part(0)))
                   : sum_bias(reinterpret_cast<float*>(bias), reinterpret_cast<const float*>(summed.part(0)));
    call.written(gradient, 0, gradient.numel(), target);
}

void weight_mix_gradient(const WeightPlan& plan, const View& x, const View& y, const int64_t* sizes, const View& mix) {
    const Call call(plan, x.dtype, sizes);
    const int64_t C = x.sizes[2], N = y.sizes[2], P = plan.entries;
    const Scratch memory(call.converts ? P * (C + N) * call.size : 0, max_threads()), result(call.converts ? mix.numel() * call.size : 0);
    char* target = call.target(mix, 0, result.part(0));
    sum_over_networks(call, x.sizes[0], mix.numel(), target, [&](int64_t network, char* sum, int thread) {
        const char* in = call.read(x, network * P * C, P * C, memory.part(thread));
        const char* out = call.read(y, network * P * N, P * N, memory.part(thread) + P * C * call.size);
        call.kernels.mix_gradient(plan, call.sizes_of(network), in, C, call.ahead(network, x.sizes[0], P * C), out, N,
                                  call.ahead(network, x.sizes[0], P * N), sum);
    });
    call.written(mix, 0, mix.numel(), target);
}

void weight_basis_gradient(const WeightPlan& plan, const View& x, const View& terms, const int64_t* sizes, bool mean, const View& basis) {
    const Call call(plan, x.dtype, sizes);
    const int64_t C = x.sizes[2], P = plan.entries * C, R = plan.rows * C, columns = plan.layer[0].columns, rank = plan.rank,
                  padded = call.padded(rank);
    const int64_t scratch = call.kernels.basis_scratch(plan, C);
    const Scratch memory((scratch + (call.converts ? P + R : 0)) * call.size, max_threads()), sums(columns * padded * call.size);
    const Scratch result(call.converts ? basis.numel() * call.size : 0);
    sum_over_networks(call, x.sizes[0], columns * padded, sums.part(0), [&](int64_t network, char* sum, int thread) {
        char *space = memory.part(thread), *copy = space + scratch * call.size;
        const char* values = call.read(x, network * P, P, copy);
        const char* added = call.read(terms, network * R, R, copy + P * call.size);
        call.kernels.basis_gradient(plan, call.sizes_of(network), values, C, added, mean, sum, space);
    });
    char* target = call.target(basis, 0, result.part(0));
    for (int64_t j = 0; j < rank; ++j)
        for (int64_t s = 0; s < columns; ++s)
            std::memcpy(target + (j * columns + s) * call.size, sums.part(0) + (s * padded + j) * call.size,
                        static_cast<size_t>(call.size));
    call.written(basis, 0, basis.numel(), target);
}

void weight_select(const WeightPlan& plan, const View& values, const View& x, const int64_t* sizes, const View& pooled) {
    const Call call(plan, x.dtype, sizes);
    const int64_t C = x.sizes[2], P = plan.entries * C, R = plan.rows * C, scratch = 2 * C * 8;
    const Scratch memory(scratch + (call.converts ? 2 * P + R : 0) * call.size, max_threads());
    parallel_for(x.sizes[0], max_threads(), [&](int64_t network, int thread) {
        char *space = memory.part(thread), *copy = space + scratch;
        const char* keys = call.read(x, network * P, P, copy);
        const char* in = call.read(values, network * P, P, copy + P * call.size);
        char* target = call.target(pooled, network * R, copy + 2 * P * call.size);
        call.kernels.select(plan, call.sizes_of(network), in, keys, C, target, space);
        call.written(pooled, network * R, R, target);
    });
}

void weight_scatter(const WeightPlan& plan, const View& pooled, const View& x, const int64_t* sizes, const View& values) {
    ask_for_large_pages(values);
    const Call call(plan, x.dtype, sizes);
    const int64_t C = x.sizes[2], P = plan.entries * C, R = plan.rows * C, scratch = 2 * C * 8;
    const Scratch memory(scratch + (call.converts ? 2 * P + R : 0) * call.size, max_threads());
    parallel_for(x.sizes[0], max_threads(), [&](int64_t network, int thread) {
        char *space = memory.part(thread), *copy = space + scratch;
        const char* keys = call.read(x, network * P, P, copy);
        const char* in = call.read(pooled, network * R, R, copy + P * call.size);
        char* target = call.target(values, network * P, copy + (P + R) * call.size);
        call.kernels.scatter(plan, call.sizes_of(network), in, keys, C, target, space);
        call.written(values, network * P, P, target);
    });
}

}  // namespace isotypic::cpu
