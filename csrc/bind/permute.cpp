#include "ops/permute.hpp"

#include "bind/call.hpp"

namespace isotypic {
namespace {

PermuteCall described(const Call& call, const View& x, const int64_t* order, bool inverse, int axes, const View& y) {
    PermuteCall described;
    described.batch = call.size('B'), described.n = call.size('n'), described.bytes = call.size('C') * itemsize(call.dtype());
    described.axes = axes, described.inverse = inverse, described.order = order, described.x = x.data, described.y = y.data;
    return described;
}

// False where the order is no permutation, which on a device is not found out.
bool run(const Call& call, const PermuteCall& described) {
    if (described.batch * described.n * described.bytes == 0) return true;
    bool right = true;
    call.run([&] { right = cpu::permute(described); }, [&](void* stream) { cuda::permute(described, stream); });
    return right;
}

bool permute_nodes(py::handle x, py::handle order, bool inverse, py::handle y) {
    Call call("permute_nodes", Floats::all);
    const View from = call.tensor(x, "x", {'B', 'n', 'C'}), to = call.tensor(y, "y", {'B', 'n', 'C'});
    return run(call, described(call, from, call.values<int64_t>(order, "order", {'B', 'n'}), inverse, 1, to));
}

bool permute_adjacency(py::handle a, py::handle order, bool inverse, py::handle y) {
    Call call("permute_adjacency", Floats::all);
    const View from = call.tensor(a, "a", {'B', 'n', 'n', 'C'}), to = call.tensor(y, "y", {'B', 'n', 'n', 'C'});
    return run(call, described(call, from, call.values<int64_t>(order, "order", {'B', 'n'}), inverse, 2, to));
}

}  // namespace

void bind_permute(py::module_& m) {
    using py::arg;
    m.def("permute_nodes", &permute_nodes, arg("x"), arg("order"), arg("inverse"), arg("y"),
          "rows in another order; whether the order is a permutation");
    m.def("permute_adjacency", &permute_adjacency, arg("a"), arg("order"), arg("inverse"), arg("y"),
          "rows and columns in another order; whether the order is a permutation");
}

}  // namespace isotypic
