// max_pool.
#include "cuda/emulation/module.hpp"

#include "cuda/max_pool.cu"

namespace isotypic {
using namespace emulation;
namespace {

MaxPoolSizes sizes_of(const View& x, const View& y, const std::vector<int64_t>& window, const std::vector<int64_t>& stride,
                      const std::vector<int64_t>& padding) {
    MaxPoolSizes sizes;
    sizes.outer = x.sizes[0], sizes.inner = x.sizes[4];
    for (int axis = 0; axis < 3; ++axis) {
        const size_t i = static_cast<size_t>(axis);
        sizes.in[axis] = x.sizes[1 + axis], sizes.out[axis] = y.sizes[1 + axis];
        sizes.window[axis] = window[i], sizes.stride[axis] = stride[i], sizes.padding[axis] = padding[i];
    }
    return sizes;
}

}  // namespace

PYBIND11_MODULE(emulated_max_pool, m) {
    using Axes = std::vector<int64_t>;
    m.def("max_pool", [](const Tensor& x, const Axes& window, const Axes& stride, const Axes& padding, const Tensor& y, uintptr_t index) {
        const View in = to_view(x), out = to_view(y);
        cuda::max_pool(sizes_of(in, out, window, stride, padding), in, out, reinterpret_cast<int32_t*>(index), nullptr);
    });
    m.def("max_pool_scatter", [](const Tensor& g, uintptr_t index, const Axes& window, const Axes& stride, const Axes& padding,
                                 const Tensor& x) {
        const View from = to_view(g), to = to_view(x);
        cuda::max_pool_scatter(sizes_of(to, from, window, stride, padding), from, reinterpret_cast<const int32_t*>(index), to, nullptr);
    });
    m.def("max_pool_select", [](const Tensor& x, uintptr_t index, const Tensor& y) {
        const View from = to_view(x), to = to_view(y);
        const Axes none(3, 1);
        cuda::max_pool_select(sizes_of(from, to, none, none, none), from, reinterpret_cast<const int32_t*>(index), to, nullptr);
    });
    define_configure(m);
}

}  // namespace isotypic
