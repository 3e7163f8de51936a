#include "ops/sort_sinkhorn.hpp"

#include "bind/bind.hpp"
#include "bind/indices.hpp"
#include "bind/tensor.hpp"

namespace isotypic {
namespace {

constexpr const char* kScores =
    "sort_sinkhorn kernel: scores and what has their shape must be (B, n), contiguous, float32 or float64, on one device";

bool is_like(const Tensor& tensor, const Tensor& first) {
    return tensor.view.dtype == first.view.dtype && is_contiguous(tensor.view) && tensor.on_cuda == first.on_cuda &&
           tensor.device == first.device;
}

bool is_scores(const Tensor& tensor) {
    return tensor.view.ndim == 2 && itemsize(tensor.view.dtype) >= 4 && is_contiguous(tensor.view);
}

Indices to_lengths(py::handle lengths, const Tensor& scores) {
    const Indices indices = to_indices(lengths, "lengths");
    if (indices.data && (indices.size != scores.view.sizes[0] || indices.on_cuda != scores.on_cuda || indices.device != scores.device))
        throw py::value_error("sort_sinkhorn kernel: lengths must be (B), on the device of the scores");
    if (indices.data && !indices.on_cuda)
        for (int64_t b = 0; b < indices.size; ++b)
            if (indices.data[b] < 0 || indices.data[b] > scores.view.sizes[1])
                throw py::value_error("sort_sinkhorn: lengths must be between 0 and n=" + std::to_string(scores.view.sizes[1]) + ", got " +
                                      std::to_string(indices.data[b]));
    return indices;
}

bool sort_order(py::handle scores, py::handle lengths, py::handle order) {
    const Tensor in = to_tensor(scores);
    const Indices out = to_indices(order, "order");
    if (!is_scores(in) || in.on_cuda || out.on_cuda || out.size != in.view.numel()) throw py::value_error(kScores);
    const Indices given = to_lengths(lengths, in);
    join_torch_threads();
    const py::gil_scoped_release release;
    return cpu::sort_order(in.view, given.data, const_cast<int64_t*>(out.data));
}

SinkhornSettings to_settings(const Indices& lengths, double tau, int iterations) {
    if (!(tau > 0) || iterations < 1) throw py::value_error("sort_sinkhorn kernel: tau must be above 0 and iterations at least 1");
    SinkhornSettings settings;
    settings.lengths = lengths.data, settings.tau = tau, settings.iterations = iterations;
    return settings;
}

void* to_workspace(py::handle workspace, const Tensor& t, int iterations, bool gradient) {
    if constexpr (kWithCuda) {
        const Buffer buffer = to_buffer(workspace, t.device, "workspace");
        if (buffer.bytes < cuda::sort_sinkhorn_workspace(t.view, iterations, gradient))
            throw py::value_error("sort_sinkhorn kernel: workspace is too small");
        return buffer.data;
    } else {
        throw std::runtime_error("sort_sinkhorn: this build of isotypic has no CUDA kernels; it is built with them where nvcc is found");
    }
}

void sort_sinkhorn_entropy(py::handle t, py::handle lengths, double tau, int iterations, py::handle entropy, py::handle workspace) {
    const Tensor in = to_tensor(t), out = to_tensor(entropy);
    if (!is_scores(in) || !is_like(out, in) || out.view.ndim != 1 || out.view.sizes[0] != in.view.sizes[0]) throw py::value_error(kScores);
    const SinkhornSettings settings = to_settings(to_lengths(lengths, in), tau, iterations);
    if (in.on_cuda) {
        void* const space = to_workspace(workspace, in, iterations, false);
        void* const stream = current_stream(t, in.device);
        const py::gil_scoped_release release;
        if constexpr (kWithCuda) cuda::sort_sinkhorn_entropy(in.view, settings, out.view, space, stream);
        return;
    }
    join_torch_threads();
    const py::gil_scoped_release release;
    cpu::sort_sinkhorn_entropy(in.view, settings, out.view);
}

void sort_sinkhorn_gradient(py::handle t, py::handle x, py::handle y, py::handle w, py::handle lengths, double tau, int iterations,
                            py::handle gradient, py::handle workspace) {
    const Tensor in = to_tensor(t), out = to_tensor(gradient);
    bool right = is_scores(in) && is_like(out, in) && out.view.ndim == 2 && out.view.sizes[0] == in.view.sizes[0] &&
                 out.view.sizes[1] == in.view.sizes[1] && x.is_none() == y.is_none();
    View views[3];
    const py::handle handles[3] = {x, y, w};
    for (int i = 0; right && i < 3; ++i) {
        if (handles[i].is_none()) continue;
        const Tensor tensor = to_tensor(handles[i]);
        views[i] = tensor.view;
        right = is_like(tensor, in) && tensor.view.ndim == (i == 2 ? 1 : 3) && tensor.view.sizes[0] == in.view.sizes[0] &&
                (i == 2 || tensor.view.sizes[1] == in.view.sizes[1]);
    }
    if (!right || (views[0].defined() && views[0].sizes[2] != views[1].sizes[2])) throw py::value_error(kScores);
    const SinkhornSettings settings = to_settings(to_lengths(lengths, in), tau, iterations);
    if (in.on_cuda) {
        void* const space = to_workspace(workspace, in, iterations, true);
        void* const stream = current_stream(t, in.device);
        const py::gil_scoped_release release;
        if constexpr (kWithCuda) cuda::sort_sinkhorn_gradient(in.view, views[0], views[1], views[2], settings, out.view, space, stream);
        return;
    }
    join_torch_threads();
    const py::gil_scoped_release release;
    cpu::sort_sinkhorn_gradient(in.view, views[0], views[1], views[2], settings, out.view);
}

int64_t sort_sinkhorn_workspace(py::handle t, int iterations, bool gradient) {
    if constexpr (kWithCuda) return cuda::sort_sinkhorn_workspace(to_tensor(t).view, iterations, gradient);
    return 0;
}

}  // namespace

void bind_sort_sinkhorn(py::module_& m) {
    using py::arg;
    m.def("sort_order", &sort_order, arg("scores"), arg("lengths"), arg("order"),
          "the nodes by ascending score, stable; whether all scores are finite");
    m.def("sort_sinkhorn_entropy", &sort_sinkhorn_entropy, arg("t"), arg("lengths"), arg("tau"), arg("iterations"), arg("entropy"),
          arg("workspace"), "the entropy of the soft permutation of sorted scores");
    m.def("sort_sinkhorn_gradient", &sort_sinkhorn_gradient, arg("t"), arg("x"), arg("y"), arg("w"), arg("lengths"), arg("tau"),
          arg("iterations"), arg("gradient"), arg("workspace"), "the gradient in t of sum_c x_c^T P y_c + w entropy");
    m.def("sort_sinkhorn_workspace", &sort_sinkhorn_workspace, arg("t"), arg("iterations"), arg("gradient"),
          "bytes of the workspace on a device");
}

}  // namespace isotypic
