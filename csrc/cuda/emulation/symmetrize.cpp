// The operators of symmetrization.
#include "cuda/emulation/module.hpp"
#include "cuda/permute.cu"
#include "cuda/rotate_mean.cu"
#include "cuda/small_matrix.cu"
#include "cuda/sort_sinkhorn.cu"

namespace isotypic {
using namespace emulation;
namespace {

SinkhornSettings to_settings(uintptr_t lengths, double tau, int iterations) {
    SinkhornSettings settings;
    settings.lengths = reinterpret_cast<const int64_t*>(lengths), settings.tau = tau, settings.iterations = iterations;
    return settings;
}

}  // namespace

PYBIND11_MODULE(emulated_symmetrize, m) {
    m.def("small_matrix", [](int operation, const std::vector<Tensor>& in, bool proper, const std::vector<Tensor>& out) {
        std::vector<View> inputs, outputs;
        for (const Tensor& tensor : in) inputs.push_back(to_view(tensor));
        for (const Tensor& tensor : out) outputs.push_back(to_view(tensor));
        cuda::small_matrix(static_cast<small_matrix::Operation>(operation), inputs.data(), proper, outputs.data(), nullptr);
    });
    m.def("sort_sinkhorn_entropy", [](const Tensor& t, uintptr_t lengths, double tau, int iterations, const Tensor& entropy) {
        const View view = to_view(t);
        const Workspace workspace(cuda::sort_sinkhorn_workspace(view, iterations, false));
        cuda::sort_sinkhorn_entropy(view, to_settings(lengths, tau, iterations), to_view(entropy), workspace.data, nullptr);
        workspace.check();
    });
    m.def("sort_sinkhorn_gradient", [](const Tensor& t, const Tensor& x, const Tensor& y, const Tensor& w, uintptr_t lengths, double tau,
                                       int iterations, const Tensor& gradient) {
        const View view = to_view(t);
        const Workspace workspace(cuda::sort_sinkhorn_workspace(view, iterations, true));
        cuda::sort_sinkhorn_gradient(view, to_view(x), to_view(y), to_view(w), to_settings(lengths, tau, iterations), to_view(gradient),
                                     workspace.data, nullptr);
        workspace.check();
    });
    m.def("rotate_sum", [](const Tensor& r, const Tensor& y, double scale, const Tensor& x) {
        cuda::rotate_sum(to_view(r), to_view(y), scale, to_view(x), nullptr);
    });
    m.def("rotate_each", [](const Tensor& r, const Tensor& x, double scale, const Tensor& y) {
        cuda::rotate_each(to_view(r), to_view(x), scale, to_view(y), nullptr);
    });
    m.def("rotate_outer", [](const Tensor& x, const Tensor& y, double scale, const Tensor& r) {
        cuda::rotate_outer(to_view(x), to_view(y), scale, to_view(r), nullptr);
    });
    m.def("rotate_both", [](const Tensor& x, const Tensor& r, const Tensor& y, double scale, const Tensor& to_r, const Tensor& to_y) {
        cuda::rotate_both(to_view(x), to_view(r), to_view(y), scale, to_view(to_r), to_view(to_y), nullptr);
    });
    m.def("permute", [](uintptr_t x, uintptr_t order, bool inverse, int axes, uintptr_t y, int64_t batch, int64_t n, int64_t bytes) {
        PermuteCall call;
        call.batch = batch, call.n = n, call.bytes = bytes, call.axes = axes, call.inverse = inverse;
        call.order = reinterpret_cast<const int64_t*>(order), call.x = reinterpret_cast<const void*>(x),
        call.y = reinterpret_cast<void*>(y);
        cuda::permute(call, nullptr);
    });
    define_configure(m);
}

}  // namespace isotypic
