// The extension module isotypic._C: an index of the library.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <sstream>
#include <string>
#include <vector>

#include "bind/bind.hpp"
#include "cpu/isa.hpp"

namespace py = pybind11;

namespace {

std::vector<std::string> cuda_targets() {
    std::vector<std::string> targets;
    std::istringstream list(ISOTYPIC_CUDA_TARGETS);
    for (std::string target; list >> target;) targets.push_back(target);
    return targets;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
    m.doc() = "Kernels of isotypic. Use isotypic.ops.";
    m.def("cpu_isas", &isotypic::cpu::available_isas, "Instruction-set variants that this machine can run, slowest first.");
    m.def("cpu_isa", &isotypic::cpu::isa_name, "The variant in use.");
    m.def("set_cpu_isa", &isotypic::cpu::set_isa, py::arg("name"), "Use this variant.");
    m.def("cuda_targets", &cuda_targets, "Architectures that the CUDA kernels were compiled for; empty without CUDA.");

    isotypic::bind_batch_norm(m);
    isotypic::bind_form_action(m);
    isotypic::bind_group_conv(m);
    isotypic::bind_weight_linear(m);
    isotypic::bind_max_det(m);
    isotypic::bind_permute(m);
    isotypic::bind_rotate_mean(m);
    isotypic::bind_small_matrix(m);
    isotypic::bind_sort_sinkhorn(m);
    isotypic::bind_transvectants(m);
}
