#include "ops/sort_sinkhorn.hpp"

#include <string>

#include "bind/call.hpp"

namespace isotypic {
namespace {

// Lengths (B), checked on the CPU against n; null for None. On a device the kernel keeps them in bounds.
const int64_t* to_lengths(Call& call, py::handle lengths) {
    const int64_t* values = call.values<int64_t>(lengths, "lengths", {'B'});
    if (values && !call.on_cuda())
        for (int64_t b = 0; b < call.size('B'); ++b)
            if (values[b] < 0 || values[b] > call.size('n'))
                throw py::value_error("sort_sinkhorn: lengths must be between 0 and n=" + std::to_string(call.size('n')) + ", got " +
                                      std::to_string(values[b]));
    return values;
}

SinkhornSettings to_settings(Call& call, py::handle lengths, double tau, int iterations) {
    call.require(tau > 0 && iterations >= 1, "tau must be above 0 and iterations at least 1");
    SinkhornSettings settings;
    settings.lengths = to_lengths(call, lengths), settings.tau = tau, settings.iterations = iterations;
    return settings;
}

bool sort_order(py::handle scores, py::handle lengths, py::handle order) {
    Call call("sort_order");
    const View in = call.tensor(scores, "scores", {'B', 'n'});
    int64_t* out = call.results<int64_t>(order, "order", {'B', 'n'});
    const int64_t* given = to_lengths(call, lengths);
    bool finite = false;
    call.run([&] { finite = cpu::sort_order(in, given, out); });
    return finite;
}

void sort_sinkhorn_entropy(py::handle t, py::handle lengths, double tau, int iterations, py::handle entropy, py::handle workspace) {
    Call call("sort_sinkhorn_entropy");
    const View in = call.tensor(t, "t", {'B', 'n'}), out = call.tensor(entropy, "entropy", {'B'});
    const SinkhornSettings settings = to_settings(call, lengths, tau, iterations);
    const Buffer space = call.buffer(workspace, "workspace");
    call.run([&] { cpu::sort_sinkhorn_entropy(in, settings, out); },
             [&](void* stream) {
                 call.require(space.bytes >= cuda::sort_sinkhorn_workspace(in, iterations, false), "workspace is too small");
                 cuda::sort_sinkhorn_entropy(in, settings, out, space.data, stream);
             });
}

void sort_sinkhorn_gradient(py::handle t, py::handle x, py::handle y, py::handle w, py::handle lengths, double tau, int iterations,
                            py::handle gradient, py::handle workspace) {
    Call call("sort_sinkhorn_gradient");
    const View in = call.tensor(t, "t", {'B', 'n'}), first = call.optional(x, "x", {'B', 'n', 'C'});
    const View second = call.optional(y, "y", {'B', 'n', 'C'}), weight = call.optional(w, "w", {'B'});
    const View out = call.tensor(gradient, "gradient", {'B', 'n'});
    call.require(first.defined() == second.defined(), "x and y must be given together");
    const SinkhornSettings settings = to_settings(call, lengths, tau, iterations);
    const Buffer space = call.buffer(workspace, "workspace");
    call.run([&] { cpu::sort_sinkhorn_gradient(in, first, second, weight, settings, out); },
             [&](void* stream) {
                 call.require(space.bytes >= cuda::sort_sinkhorn_workspace(in, iterations, true), "workspace is too small");
                 cuda::sort_sinkhorn_gradient(in, first, second, weight, settings, out, space.data, stream);
             });
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
}

}  // namespace isotypic
