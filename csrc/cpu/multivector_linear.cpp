// Driver of the CPU kernels of multivector_linear: packs the coefficients, hands blocks of items to the threads.
#include "ops/multivector_linear.hpp"

#include <algorithm>
#include <cstring>

#include "core/large_pages.hpp"
#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "cpu/isa.hpp"
#include "cpu/multivector_linear_kernel.hpp"

namespace isotypic {

int linear_maps_index(const char* name) {
    int place = 0;
    for (const algebra::LinearMaps& maps : algebra::kLinearMaps) {
        if (!std::strcmp(name, maps.name)) return place;
        ++place;
    }
    return -1;
}

namespace cpu {
namespace {

constexpr int64_t kBlock = 32;       // items of a block, whose turned copy is in L1 or L2
constexpr int64_t kMostParts = 16;   // of the sum over items of a gradient; fixed, so that threads do not change the result
constexpr int64_t kLeastPart = 256;  // items

template <class T>
const MultivectorLinearKernel<T>& kernel_of();
template <>
const MultivectorLinearKernel<float>& kernel_of<float>() {
    return ISOTYPIC_SELECT_ISA(multivector_linear_kernels).float32;
}
template <>
const MultivectorLinearKernel<double>& kernel_of<double>() {
    return ISOTYPIC_SELECT_ISA(multivector_linear_kernels).float64;
}

// y (N, O, 16) from x (N, C, 16); the weight is (rows, columns, K), its rows the outputs or, transposed, the inputs.
template <class T>
void map(const algebra::LinearMaps& maps, const View& x_, const View& weight, const View& shift, bool transposed, const View& y_) {
    const MultivectorLinearKernel<T>& kernel = kernel_of<T>();
    const int64_t N = x_.sizes[0], C = x_.sizes[1], O = y_.sizes[1];
    const T* x = static_cast<const T*>(x_.data);
    T* y = static_cast<T*>(y_.data);
    const int64_t panels = (O + kernel.outputs - 1) / kernel.outputs;
    const Scratch packed(panels * C * kernel.outputs * 32 * static_cast<int64_t>(sizeof(T)));
    T* coefficients = reinterpret_cast<T*>(packed.get());
    kernel.pack(maps, static_cast<int>(weight.sizes[2]), weight.sizes[0], weight.sizes[1], static_cast<const T*>(weight.data), transposed,
                coefficients);
    const int64_t items = (N + kBlock - 1) / kBlock;
    const int threads = static_cast<int>(std::min<int64_t>(max_threads(), std::max<int64_t>(items, 1)));
    const Scratch turned(kBlock * C * 16 * static_cast<int64_t>(sizeof(T)), threads);
    const int64_t scalars = shift.defined() ? shift.sizes[2] : 0;
    parallel_for(items, threads, [&](int64_t item, int thread) {
        const int64_t first = item * kBlock, count = std::min(kBlock, N - first);
        T* copy = reinterpret_cast<T*>(turned.part(thread));
        kernel.turn(transposed ? maps.target : maps.source, count * C, x + first * C * 16, copy);
        kernel.apply(count, C, O, x + first * C * 16, copy, coefficients, y + first * O * 16);
        const T* added = scalars ? static_cast<const T*>(shift.data) + first * O * scalars : nullptr;
        for (int64_t k = 0; k < scalars; ++k)
            for (int64_t i = 0; i < count * O; ++i) y[(first * O + i) * 16 + 15 * k] += added[i * scalars + k];
    });
}

template <class T>
void weight_gradient(const algebra::LinearMaps& maps, const View& x_, const View& y_, const View& weight_) {
    const MultivectorLinearKernel<T>& kernel = kernel_of<T>();
    const int64_t N = x_.sizes[0], C = x_.sizes[1], O = y_.sizes[1], K = weight_.sizes[2];
    const T *x = static_cast<const T*>(x_.data), *y = static_cast<const T*>(y_.data);
    T* weight = static_cast<T*>(weight_.data);
    const int64_t parts = std::max<int64_t>(1, std::min(kMostParts, N / kLeastPart)), size = (N + parts - 1) / parts;
    const int threads = static_cast<int>(std::min<int64_t>(max_threads(), parts));
    const Scratch sums(O * C * 32 * static_cast<int64_t>(sizeof(T)), parts);
    const Scratch turned(kBlock * C * 16 * static_cast<int64_t>(sizeof(T)), threads);
    parallel_for(parts, threads, [&](int64_t part, int thread) {
        T *total = reinterpret_cast<T*>(sums.part(part)), *copy = reinterpret_cast<T*>(turned.part(thread));
        std::fill(total, total + O * C * 32, T{});
        const int64_t end = std::min(N, (part + 1) * size);
        for (int64_t first = part * size; first < end; first += kBlock) {
            const int64_t count = std::min(kBlock, end - first);
            kernel.turn(maps.source, count * C, x + first * C * 16, copy);
            kernel.gradient(count, C, O, x + first * C * 16, copy, y + first * O * 16, total);
        }
    });
    T* total = reinterpret_cast<T*>(sums.part(0));
    for (int64_t part = 1; part < parts; ++part) {
        const T* more = reinterpret_cast<const T*>(sums.part(part));
        for (int64_t i = 0; i < O * C * 32; ++i) total[i] += more[i];
    }
    for (int64_t pair = 0; pair < O * C; ++pair) {
        T* w = weight + pair * K;
        const T* sum = total + pair * 32;
        for (int64_t k = 0; k < K; ++k) w[k] = T{};
        for (int i = 0; i < 16; ++i) {
            w[maps.direct_map[i]] += static_cast<T>(maps.direct[i]) * sum[i];
            if (maps.turned_map[i] < K) w[maps.turned_map[i]] += static_cast<T>(maps.turned[i]) * sum[16 + i];
        }
    }
}

}  // namespace

void multivector_linear(int maps, const View& x, const View& weight, const View& shift, const View& y) {
    ask_for_large_pages(y);
    const algebra::LinearMaps& table = algebra::kLinearMaps[maps];
    x.dtype == DType::float64 ? map<double>(table, x, weight, shift, false, y) : map<float>(table, x, weight, shift, false, y);
}

void multivector_linear_transpose(int maps, const View& y, const View& weight, const View& shift, const View& x) {
    ask_for_large_pages(x);
    const algebra::LinearMaps& table = algebra::kLinearMaps[maps];
    y.dtype == DType::float64 ? map<double>(table, y, weight, shift, true, x) : map<float>(table, y, weight, shift, true, x);
}

void multivector_linear_weight(int maps, const View& x, const View& y, const View& weight) {
    const algebra::LinearMaps& table = algebra::kLinearMaps[maps];
    x.dtype == DType::float64 ? weight_gradient<double>(table, x, y, weight) : weight_gradient<float>(table, x, y, weight);
}

}  // namespace cpu
}  // namespace isotypic
