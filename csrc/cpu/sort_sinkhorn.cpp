// Driver of the CPU kernels of sort_sinkhorn: hands vectors of samples to the threads. Sorting is here: it is done sample by sample.
#include "ops/sort_sinkhorn.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "cpu/isa.hpp"
#include "cpu/sort_sinkhorn_kernel.hpp"

namespace isotypic::cpu {
namespace {

template <class T>
const SinkhornKernel<T>& kernel_of();
template <>
const SinkhornKernel<float>& kernel_of<float>() {
    return ISOTYPIC_SELECT_ISA(sort_sinkhorn_kernels).float32;
}
template <>
const SinkhornKernel<double>& kernel_of<double>() {
    return ISOTYPIC_SELECT_ISA(sort_sinkhorn_kernels).float64;
}

template <class T>
const T* data_of(const View& view, int64_t offset) {
    return view.defined() ? static_cast<const T*>(view.data) + offset : nullptr;
}

template <class T>
void run(const View& t, const View& x, const View& y, const View& w, const SinkhornSettings& settings, const View& out, bool gradient) {
    const SinkhornKernel<T>& kernel = kernel_of<T>();
    const int64_t batch = t.sizes[0], n = t.sizes[1], channels = x.defined() ? x.sizes[2] : 0;
    const int64_t items = (batch + kernel.lanes - 1) / kernel.lanes;
    const int threads = static_cast<int>(std::min<int64_t>(max_threads(), std::max<int64_t>(items, 1)));
    const Scratch scratch(kernel.workspace(n, settings.iterations, gradient), threads);
    parallel_for(items, threads, [&](int64_t item, int thread) {
        const int64_t first = item * kernel.lanes;
        SinkhornCall<T> call{};
        call.rows = std::min<int64_t>(kernel.lanes, batch - first), call.n = n, call.channels = channels;
        call.t = data_of<T>(t, first * n), call.w = data_of<T>(w, first);
        call.x = data_of<T>(x, first * n * channels), call.y = data_of<T>(y, first * n * channels);
        call.lengths = settings.lengths ? settings.lengths + first : nullptr;
        call.tau = static_cast<T>(settings.tau), call.iterations = settings.iterations;
        call.out = static_cast<T*>(out.data) + first * (gradient ? n : 1);
        call.workspace = scratch.part(thread);
        gradient ? kernel.gradient(call) : kernel.entropy(call);
    });
}

// Bits of a number as an integer that is ordered like the numbers, with -0 equal to 0.
inline uint32_t ordered(float value) {
    uint32_t bits;
    value += 0.f;
    std::memcpy(&bits, &value, 4);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
inline uint64_t ordered(double value) {
    uint64_t bits;
    value += 0.;
    std::memcpy(&bits, &value, 8);
    return bits >> 63 ? ~bits : bits | 1ull << 63;
}

// Keys are different, as each has its node in its last bits: any sort is stable.
void sort_row(const float* scores, int64_t n, std::vector<uint64_t>& keys, int64_t* order) {
    keys.resize(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i)
        keys[static_cast<size_t>(i)] = static_cast<uint64_t>(ordered(scores[i])) << 32 | static_cast<uint32_t>(i);
    std::sort(keys.begin(), keys.end());
    for (int64_t r = 0; r < n; ++r) order[r] = static_cast<uint32_t>(keys[static_cast<size_t>(r)]);
}

struct WideKey {
    uint64_t key;
    int64_t node;
    bool operator<(const WideKey& other) const { return key != other.key ? key < other.key : node < other.node; }
};
void sort_row(const double* scores, int64_t n, std::vector<WideKey>& keys, int64_t* order) {
    keys.resize(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) keys[static_cast<size_t>(i)] = {ordered(scores[i]), i};
    std::sort(keys.begin(), keys.end());
    for (int64_t r = 0; r < n; ++r) order[r] = keys[static_cast<size_t>(r)].node;
}

template <class T, class Key>
bool sort_rows(const View& scores, const int64_t* lengths, int64_t* order) {
    const int64_t batch = scores.sizes[0], n = scores.sizes[1];
    std::atomic<bool> finite{true};
    const int threads = static_cast<int>(std::min<int64_t>(max_threads(), std::max<int64_t>(batch, 1)));
    std::vector<std::vector<Key>> keys(static_cast<size_t>(threads));
    parallel_for(batch, threads, [&](int64_t b, int thread) {
        const T* row = static_cast<const T*>(scores.data) + b * n;
        const int64_t length = lengths ? std::clamp<int64_t>(lengths[b], 0, n) : n;
        T sum = 0;
        for (int64_t i = 0; i < length; ++i) sum += row[i] * T(0);  // 0, or NaN where a score is not finite
        if (!(sum == 0)) finite = false;
        sort_row(row, length, keys[static_cast<size_t>(thread)], order + b * n);
        for (int64_t i = length; i < n; ++i) order[b * n + i] = i;
    });
    return finite;
}

}  // namespace

bool sort_order(const View& scores, const int64_t* lengths, int64_t* order) {
    return scores.dtype == DType::float64 ? sort_rows<double, WideKey>(scores, lengths, order)
                                          : sort_rows<float, uint64_t>(scores, lengths, order);
}

void sort_sinkhorn_entropy(const View& t, const SinkhornSettings& settings, const View& entropy) {
    t.dtype == DType::float64 ? run<double>(t, View{}, View{}, View{}, settings, entropy, false)
                              : run<float>(t, View{}, View{}, View{}, settings, entropy, false);
}

void sort_sinkhorn_gradient(const View& t, const View& x, const View& y, const View& w, const SinkhornSettings& settings,
                            const View& gradient) {
    t.dtype == DType::float64 ? run<double>(t, x, y, w, settings, gradient, true) : run<float>(t, x, y, w, settings, gradient, true);
}

}  // namespace isotypic::cpu
