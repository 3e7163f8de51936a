// The extension module isotypic._C: an index of the library.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "cpu/isa.hpp"
#include "cuda/device.hpp"

namespace py = pybind11;

// The operators, from the list in CMakeLists.txt: one line OPERATOR(name) each, whose bind_name is in bind/name.cpp.
namespace isotypic {
#define OPERATOR(name) void bind_##name(py::module_& m);
#include "bind/operators.inc"
#undef OPERATOR
void bind_repeat(py::module_& m);
}  // namespace isotypic

namespace {

std::vector<std::string> cuda_targets() {
    std::vector<std::string> targets;
    std::istringstream list(ISOTYPIC_CUDA_TARGETS);
    for (std::string target; list >> target;) targets.push_back(target);
    return targets;
}

std::pair<int, int> cuda_versions() {
#if defined(ISOTYPIC_WITH_CUDA)
    const isotypic::cuda::Versions found = isotypic::cuda::versions();
    return {found.runtime, found.driver};
#else
    return {0, 0};
#endif
}

}  // namespace

PYBIND11_MODULE(_C, m) {
    m.doc() = "Kernels of isotypic. Use isotypic.ops.";
    m.def("cpu_isas", &isotypic::cpu::available_isas, "Instruction-set variants that this machine can run, slowest first.");
    m.def("cpu_isa", &isotypic::cpu::isa_name, "The variant in use.");
    m.def("set_cpu_isa", &isotypic::cpu::set_isa, py::arg("name"), "Use this variant.");
    m.def("cuda_targets", &cuda_targets, "Architectures that the CUDA kernels were compiled for; empty without CUDA.");
    m.def(
        "cuda_versions", &cuda_versions,
        "Of the CUDA runtime in this build and of the newest one that the driver serves, as 1000 major + 10 minor; 0 where there is none.");

    isotypic::bind_repeat(m);
#define OPERATOR(name) isotypic::bind_##name(m);
#include "bind/operators.inc"
#undef OPERATOR
}
