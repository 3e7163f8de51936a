// What the modules of emulated kernels share. Each source beside this file makes the CUDA kernels of an operator a Python module that runs
// them on the host; tests/emulate.py compiles it with
//     g++ -std=c++17 -O1 -DISOTYPIC_EMULATE -shared -fPIC ... csrc/cuda/emulation/<operator>.cpp
#pragma once

#if !defined(ISOTYPIC_EMULATE)
#error "compile with -DISOTYPIC_EMULATE"
#endif

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <stdexcept>
#include <tuple>
#include <utility>
#include <vector>

#include "core/view.hpp"
#include "cuda/emulation/machine.hpp"

namespace py = pybind11;

namespace isotypic::emulation {

// A tensor as (address, dtype, sizes, strides), or None.
using Tensor = std::optional<std::tuple<uintptr_t, int, std::vector<int64_t>, std::vector<int64_t>>>;

inline View to_view(const Tensor& tensor) {
    View view;
    if (!tensor) return view;
    const auto& [address, dtype, sizes, strides] = *tensor;
    view.data = reinterpret_cast<void*>(address);
    view.dtype = static_cast<DType>(dtype);
    view.ndim = static_cast<int>(sizes.size());
    std::copy(sizes.begin(), sizes.end(), view.sizes);
    std::copy(strides.begin(), strides.end(), view.strides);
    if (machine().observer && view.numel() > 0) {
        int64_t last = 0;
        for (size_t i = 0; i < sizes.size(); ++i) last += (sizes[i] - 1) * strides[i];
        view.data = machine().observer->tensor(view.data, (last + 1) * itemsize(view.dtype), itemsize(view.dtype));
    }
    return view;
}

// Scratch of NaN patterns, exactly as long as an operator asks for: a read of what no kernel wrote shows in the result, a write past it in
// check().
class Workspace {
  public:
    explicit Workspace(int64_t bytes) : bytes_(bytes), storage_(bytes + 256 + kGuard, char(0xff)) {
        data = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(storage_.data()) + 255) & ~uintptr_t{255});
        if (machine().observer) data = machine().observer->scratch(bytes);
    }
    void check() const {
        if (machine().observer) return;
        for (int64_t i = bytes_; i < bytes_ + kGuard; ++i)
            if (data[i] != char(0xff)) throw std::runtime_error("emulation: a kernel wrote past its workspace");
    }
    char* data;

  private:
    static constexpr int64_t kGuard = 4096;
    int64_t bytes_;
    std::vector<char> storage_;
};

#if defined(ISOTYPIC_CHECK)
void define_checker(py::module_& m);  // checker.cpp
#endif

// configure(reverse, shared_limit): the order of the threads, and bytes of shared memory of a block. launches(): how many kernels were
// launched since it was last called.
inline void define_configure(py::module_& m) {
    const auto configure = [](bool reverse, size_t shared_limit) {
        machine().reverse = reverse;
        machine().shared_limit = shared_limit;
    };
    m.def("configure", configure, py::arg("reverse"), py::arg("shared_limit") = Machine{}.shared_limit);
    m.def("launches", [] { return std::exchange(machine().launches, 0); });
#if defined(ISOTYPIC_CHECK)
    define_checker(m);
#endif
}

}  // namespace isotypic::emulation
