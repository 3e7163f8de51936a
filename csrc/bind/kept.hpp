// The class of what a layer keeps for its kernel (core/kept.hpp): opaque to Python, copied and pickled empty.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>

namespace isotypic {

template <class T>
void bind_kept(pybind11::module_& m, const char* name, const char* doc) {
    namespace py = pybind11;
    py::class_<T>(m, name, doc)
        .def(py::init<>())
        .def(py::pickle([](const T&) { return py::tuple(); }, [](const py::tuple&) { return std::make_unique<T>(); }));
}

}  // namespace isotypic
