#include "ops/max_pool.hpp"

#include <pybind11/stl.h>

#include <array>

#include "bind/call.hpp"

namespace isotypic {
namespace {

using Axes = std::array<int64_t, 3>;

void copy_axes(const Call& call, const Axes& from, int64_t least, const char* message, int64_t (&to)[3]) {
    for (int axis = 0; axis < 3; ++axis) {
        call.require(from[static_cast<size_t>(axis)] >= least && from[static_cast<size_t>(axis)] < INT32_MAX, message);
        to[axis] = from[static_cast<size_t>(axis)];
    }
}

// Of a call whose tensors have said what O, I and the sizes of both grids are.
MaxPoolSizes sizes_of(const Call& call) {
    MaxPoolSizes sizes;
    sizes.outer = call.size('O'), sizes.inner = call.size('I');
    const char in[3] = {'D', 'H', 'W'}, out[3] = {'d', 'h', 'w'};
    int64_t positions = 1;
    for (int axis = 0; axis < 3; ++axis) {
        sizes.in[axis] = call.size(in[axis]), sizes.out[axis] = call.size(out[axis]);
        call.require(sizes.in[axis] > 0 && sizes.in[axis] <= INT32_MAX / positions, "x must have from 1 to 2^31 - 1 positions");
        positions *= sizes.in[axis];
    }
    return sizes;
}

void set_windows(const Call& call, const Axes& window, const Axes& stride, const Axes& padding, MaxPoolSizes& sizes) {
    copy_axes(call, window, 1, "window must be three sizes", sizes.window);
    copy_axes(call, stride, 1, "stride must be three steps", sizes.stride);
    copy_axes(call, padding, 0, "padding must be three sizes", sizes.padding);
    for (int axis = 0; axis < 3; ++axis) {
        call.require(2 * sizes.padding[axis] <= sizes.window[axis], "padding must be at most half of the window");
        const int64_t room = sizes.in[axis] + 2 * sizes.padding[axis] - sizes.window[axis];
        call.require(room >= 0 && sizes.out[axis] == room / sizes.stride[axis] + 1, "y must have a position for each window");
    }
}

void max_pool(py::handle x, const Axes& window, const Axes& stride, const Axes& padding, py::handle y, py::handle index) {
    Call call("max_pool", Floats::all);
    const View in = call.tensor(x, "x", {'O', 'D', 'H', 'W', 'I'}), out = call.tensor(y, "y", {'O', 'd', 'h', 'w', 'I'});
    int32_t* at = call.results<int32_t>(index, "index", {'O', 'd', 'h', 'w', 'I'});
    MaxPoolSizes sizes = sizes_of(call);
    set_windows(call, window, stride, padding, sizes);
    call.run([&] { cpu::max_pool(sizes, in, out, at); }, [&](void* stream) { cuda::max_pool(sizes, in, out, at, stream); });
}

void max_pool_scatter(py::handle g, py::handle index, const Axes& window, const Axes& stride, const Axes& padding, py::handle x) {
    Call call("max_pool_scatter", Floats::all);
    const View from = call.tensor(g, "g", {'O', 'd', 'h', 'w', 'I'}), to = call.tensor(x, "x", {'O', 'D', 'H', 'W', 'I'});
    const int32_t* at = call.values<int32_t>(index, "index", {'O', 'd', 'h', 'w', 'I'});
    MaxPoolSizes sizes = sizes_of(call);
    set_windows(call, window, stride, padding, sizes);
    bool inside = true;
    call.run([&] { inside = cpu::max_pool_scatter(sizes, from, at, to); },
             [&](void* stream) { cuda::max_pool_scatter(sizes, from, at, to, stream); });
    call.require(inside, "index must be a place in the plane");
}

void max_pool_select(py::handle x, py::handle index, py::handle y) {
    Call call("max_pool_select", Floats::all);
    const View from = call.tensor(x, "x", {'O', 'D', 'H', 'W', 'I'}), to = call.tensor(y, "y", {'O', 'd', 'h', 'w', 'I'});
    const int32_t* at = call.values<int32_t>(index, "index", {'O', 'd', 'h', 'w', 'I'});
    const MaxPoolSizes sizes = sizes_of(call);
    bool inside = true;
    call.run([&] { inside = cpu::max_pool_select(sizes, from, at, to); },
             [&](void* stream) { cuda::max_pool_select(sizes, from, at, to, stream); });
    call.require(inside, "index must be a place in the plane");
}

}  // namespace

void bind_max_pool(py::module_& m) {
    using py::arg;
    m.def("max_pool", &max_pool, arg("x"), arg("window"), arg("stride"), arg("padding"), arg("y"), arg("index"),
          "the largest value of each window, and its place");
    m.def("max_pool_scatter", &max_pool_scatter, arg("g"), arg("index"), arg("window"), arg("stride"), arg("padding"), arg("x"),
          "values added up at the places where the maxima were");
    m.def("max_pool_select", &max_pool_select, arg("x"), arg("index"), arg("y"), "values at the places where the maxima were");
}

}  // namespace isotypic
