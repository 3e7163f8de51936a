// Set convolutions.
#include "cuda/set_conv.cu"
#include "cuda/emulation/module.hpp"

namespace isotypic {
using namespace emulation;
namespace {

SetConvAxes axes_of(const View& grid, const std::vector<int>& powers) {
    SetConvAxes axes;
    axes.dim = grid.ndim - 2;
    for (int k = 0; k < axes.dim; ++k)
        axes.nodes[3 - axes.dim + k] = grid.sizes[2 + k], axes.powers[3 - axes.dim + k] = powers[static_cast<size_t>(k)];
    return axes;
}

}  // namespace

PYBIND11_MODULE(emulated_set_conv, m) {
    m.def("set_conv", [](const Tensor& y, const Tensor& t, const Tensor& s, const std::vector<int>& powers, const Tensor& grid) {
        cuda::set_conv(to_view(y), to_view(t), to_view(s), axes_of(to_view(grid), powers), to_view(grid), nullptr);
    });
    m.def("set_conv_decode", [](const Tensor& grid, const Tensor& t, const Tensor& s, const std::vector<int>& powers, const Tensor& y) {
        cuda::set_conv_decode(to_view(grid), to_view(t), to_view(s), axes_of(to_view(grid), powers), to_view(y), nullptr);
    });
    m.def("set_conv_moments", [](const Tensor& y, const Tensor& grid, const Tensor& t, const Tensor& s, bool first, const Tensor& moments) {
        const View field = to_view(grid);
        cuda::set_conv_moments(to_view(y), field, to_view(t), to_view(s), axes_of(field, {0, 0, 0}), first, to_view(moments), nullptr);
    });
    define_configure(m);
}

}  // namespace isotypic
