// Driver of the CPU kernels of multivector_product: hands runs of multivectors to the threads.
#include "ops/multivector_product.hpp"

#include <algorithm>
#include <cstring>

#include "core/algebra.hpp"
#include "core/large_pages.hpp"
#include "core/parallel.hpp"
#include "cpu/isa.hpp"
#include "cpu/multivector_product_kernel.hpp"

namespace isotypic {

int product_index(const char* name) {
    constexpr const char* names[] = {
#define NAME(text, Product) text,
        ISOTYPIC_ALGEBRA_PRODUCTS(NAME)
#undef NAME
    };
    static_assert(sizeof(names) / sizeof(*names) <= cpu::kMaxProducts);
    for (int i = 0; i < static_cast<int>(sizeof(names) / sizeof(*names)); ++i)
        if (!std::strcmp(name, names[i])) return i;
    return -1;
}

namespace cpu {
namespace {

constexpr int64_t kRun = 256;  // multivectors to an item of work, about

// The rows of an operand lie as close as its channels: one run of multivectors, `stride` apart.
bool is_run(const View& v) {
    return !v.defined() || v.sizes[0] <= 1 || v.strides[0] == v.sizes[1] * v.strides[1];
}

const char* at(const View& v, int64_t row, int64_t channel) {
    return static_cast<const char*>(v.data) + (row * v.strides[0] + channel * v.strides[1]) * itemsize(v.dtype);
}

}  // namespace

void multivector_product(int product, const View& a, const View& b, const View& scale, const View& z) {
    ask_for_large_pages(z);
    const auto kernel = ISOTYPIC_SELECT_ISA(multivector_product_kernels).of[static_cast<int>(a.dtype)][product];
    const bool runs = is_run(a) && is_run(b) && is_run(scale) && is_run(z);
    const int64_t channels = runs ? a.sizes[0] * a.sizes[1] : a.sizes[1], rows = runs ? 1 : a.sizes[0];
    // An item is some rows, or where there is one row some channels.
    const int64_t step = rows > 1 ? channels : kRun, per_row = rows > 1 ? 1 : (channels + step - 1) / step;
    const int64_t rows_of_item = rows > 1 ? std::max<int64_t>(1, kRun / std::max<int64_t>(channels, 1)) : 1;
    const int64_t items = rows > 1 ? (rows + rows_of_item - 1) / rows_of_item : per_row;
    const int threads = static_cast<int>(std::min<int64_t>(max_threads(), std::max<int64_t>(items, 1)));
    parallel_for(items, threads, [&](int64_t item, int) {
        const int64_t begin = rows > 1 ? item * rows_of_item : 0, end = rows > 1 ? std::min(rows, begin + rows_of_item) : 1;
        for (int64_t row = begin; row < end; ++row) {
            const int64_t first = rows > 1 ? 0 : item * step, count = rows > 1 ? channels : std::min(step, channels - first);
            kernel(count, at(a, row, first), a.strides[1], at(b, row, first), b.strides[1],
                   scale.defined() ? at(scale, row, first) : nullptr, scale.strides[1], const_cast<char*>(at(z, row, first)), z.strides[1]);
        }
    });
}

}  // namespace cpu
}  // namespace isotypic
