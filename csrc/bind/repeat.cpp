// Repeat: what is known of the calls of one function of isotypic, so that a repeated call is one call of a kernel.
//
// isotypic/_repeat.py has the idea and learns; here is the part that every short call goes through, about a microsecond and a half:
// the state of torch that a call must not be in (a mode, a transform, a subclass), a key of shapes, dtypes and settings, a look-up, a new
// result by torch.empty_like, the call. No code of Python but torch's runs in between: settings are compared by type and value where they
// are None, bool, int, float, str, tuple or list; a call with others is not learnt.
#include <pybind11/stl.h>

#include <cstring>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "bind/tensor.hpp"

namespace isotypic {
namespace {

// torch, as far as a call must ask it. Missing names mean that no call is ever repeated here.
struct Torch {
    py::object parameter, empty_like, is_grad_enabled, forward_ad, cpu;
    py::tuple device = py::make_tuple("device");  // the name of an argument
    std::vector<py::object> modes;                // none of these may be true
    py::str is_neg{"is_neg"}, requires_grad{"requires_grad"}, current_level{"_current_level"};
    PyTypeObject* tensor_type;

    Torch() {
        const py::module_ torch = py::module_::import("torch"), c = py::module_::import("torch._C");
        tensor_type = reinterpret_cast<PyTypeObject*>(torch.attr("Tensor").ptr());
        parameter = torch.attr("nn").attr("Parameter");
        empty_like = torch.attr("empty_like"), is_grad_enabled = torch.attr("is_grad_enabled");
        forward_ad = py::module_::import("torch.autograd.forward_ad");
        cpu = torch.attr("device")("cpu");
        for (const char* name : {"_are_functorch_transforms_active", "_len_torch_dispatch_stack", "_len_torch_function_stack",
                                 "_is_any_autocast_enabled", "_is_tracing"})
            modes.push_back(c.attr(name));
    }
    bool is_tensor(PyObject* object) const {
        return Py_TYPE(object) == tensor_type || reinterpret_cast<PyObject*>(Py_TYPE(object)) == parameter.ptr();
    }
    static bool truth(PyObject* owned) {
        if (!owned) throw py::error_already_set();
        const int found = PyObject_IsTrue(owned);
        Py_DECREF(owned);
        if (found < 0) throw py::error_already_set();
        return found;
    }
    bool plain() const {
        for (const py::object& mode : modes)
            if (truth(PyObject_CallNoArgs(mode.ptr()))) return false;
        return py::reinterpret_steal<py::object>(PyObject_GetAttr(forward_ad.ptr(), current_level.ptr())).cast<long>() < 0;
    }
};

const Torch& torch_api() {
    static const Torch* torch = new Torch;  // never destroyed: the interpreter may be gone
    return *torch;
}

// The key of a call: bytes for shapes, dtypes, the kinds of the settings and small numbers, and the settings that are strings or objects.
struct Key {
    std::string bytes;
    std::vector<PyObject*> objects;  // borrowed, until an entry keeps them

    void number(int64_t value) { bytes.append(reinterpret_cast<const char*>(&value), sizeof value); }
    void tag(char kind) { bytes.push_back(kind); }

    size_t hash() const {
        size_t seed = std::hash<std::string>{}(bytes);
        for (PyObject* object : objects) {
            const size_t each =
                PyUnicode_CheckExact(object) ? static_cast<size_t>(PyObject_Hash(object)) : reinterpret_cast<size_t>(object);
            seed ^= each + 0x9e3779b97f4a7c15 + (seed << 6) + (seed >> 2);
        }
        return seed;
    }
    bool operator==(const Key& other) const {
        if (bytes != other.bytes || objects.size() != other.objects.size()) return false;
        for (size_t i = 0; i < objects.size(); ++i) {
            PyObject *a = objects[i], *b = other.objects[i];
            if (a == b) continue;
            if (!PyUnicode_CheckExact(a) || !PyUnicode_CheckExact(b) || PyUnicode_Compare(a, b) != 0) return false;
        }
        return true;
    }
};
struct KeyHash {
    size_t operator()(const Key& key) const { return key.hash(); }
};

// A step that a call comes down to. Without one, the call is known to be more than one.
struct Step {
    std::vector<py::object> kept;  // what the key refers to
    py::object run, result_like;   // result_like: one number seen as a whole result, or a meta tensor; null where the step returns its own
    bool of_meta = false;          // where the axes of the result are in another order in memory
    std::vector<int> pick;         // places among the values and then the constants; -1 is the result
    std::vector<py::object> constants;
};

// The arguments of a call, borrowed from it. They live on the stack: torch's functions let go of the interpreter's lock.
struct Values {
    static constexpr size_t kMost = 24;
    PyObject* at[kMost];
    size_t count = 0;
};

class Repeat {
  public:
    Repeat(py::object handle, size_t limit) : handle_(std::move(handle)), limit_(limit) { all().push_back(this); }

    // The result, None for a call that is not known, NotImplemented for one that is not to be repeated.
    py::object run(PyObject* args, PyObject* kwargs) const {
        Values values;
        std::shared_ptr<const Step> step;
        try {
            Key key;
            const Torch& torch = torch_api();
            const int way = torch.plain() ? read(torch, args, kwargs, values, key) : -1;
            if (way < 0) return not_implemented();
            const auto found = ways_[way].find(key);
            if (found == ways_[way].end()) return py::none();
            step = found->second;
        } catch (const std::exception&) {  // no strided tensor, one without memory
            return not_implemented();
        }
        return step->run ? call(*step, values) : not_implemented();
    }

    // The call becomes known: as a step, or without one as more than one. False where it cannot be.
    bool learn(const py::tuple& args, const py::dict& kwargs, const py::object& run, const std::vector<int>& pick,
               const std::vector<py::object>& constants, const py::object& result_like) {
        Values values;
        Key key;
        const int way = read(torch_api(), args.ptr(), kwargs.ptr(), values, key);
        if (way < 0) return false;
        auto step = std::make_shared<Step>();
        for (PyObject* object : key.objects) {
            if (!PyUnicode_CheckExact(object) && object != handle_.ptr()) return false;
            step->kept.push_back(py::reinterpret_borrow<py::object>(object));
        }
        if (!run.is_none()) {
            if (pick.size() > Values::kMost) return false;
            step->run = run, step->pick = pick, step->constants = constants;
            if (!result_like.is_none()) step->result_like = result_like, step->of_meta = result_like.attr("is_meta").cast<bool>();
        }
        if (ways_[way].size() >= limit_) ways_[way].clear();
        ways_[way].erase(key);  // another thread may have learnt it: an entry's key borrows from its own step
        ways_[way].emplace(std::move(key), std::move(step));
        return true;
    }

    size_t size() const { return ways_[0].size() + ways_[1].size(); }
    void forget() { ways_[0].clear(), ways_[1].clear(); }
    static std::vector<Repeat*>& all() {
        static auto* found = new std::vector<Repeat*>;
        return *found;
    }
    // Called with the function, its arguments and its result, if not among them, of every step while somebody watches.
    static PyObject*& watcher() {
        static PyObject* found = nullptr;
        return found;
    }

  private:
    static py::object not_implemented() { return py::reinterpret_borrow<py::object>(Py_NotImplemented); }

    // 1 where autograd must record the call, 0 where not, -1 where it is none of ordinary tensors on the CPU.
    int read(const Torch& torch, PyObject* args, PyObject* kwargs, Values& values, Key& key) const {
        bool wanted = false, plain = true;
        key.bytes.reserve(256);
        const auto add = [&](PyObject* value) {
            if (!(plain = plain && values.count < Values::kMost)) return;
            values.at[values.count++] = value;
            if (!torch.is_tensor(value)) return setting(value, key);
            const DLTensor dl = borrow(value);
            plain = dl.device.device_type == kDLCPU && !torch.truth(PyObject_CallMethodNoArgs(value, torch.is_neg.ptr()));
            wanted = wanted || torch.truth(PyObject_GetAttr(value, torch.requires_grad.ptr()));
            for (const int each : {static_cast<int>('T'), static_cast<int>(dl.dtype.code), static_cast<int>(dl.dtype.bits), dl.ndim})
                key.tag(static_cast<char>(each));
            key.bytes.append(reinterpret_cast<const char*>(dl.shape), sizeof(int64_t) * dl.ndim);
        };
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(args); ++i) add(PyTuple_GET_ITEM(args, i));
        PyObject *name = nullptr, *value = nullptr;
        for (Py_ssize_t at = 0; PyDict_Next(kwargs, &at, &name, &value);) {
            key.tag('='), key.objects.push_back(name);
            add(value);
        }
        if (!plain) return -1;
        return wanted && torch.truth(PyObject_CallNoArgs(torch.is_grad_enabled.ptr()));
    }

    void setting(PyObject* value, Key& key) const {
        if (value == Py_None) return key.tag('N');
        if (PyBool_Check(value)) return key.tag(value == Py_True ? '+' : '-');
        if (PyLong_CheckExact(value)) {
            int overflow = 0;
            const long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
            if (!overflow) {
                key.tag('I'), key.number(number);
                return;
            }
        } else if (PyFloat_CheckExact(value)) {
            const double number = PyFloat_AS_DOUBLE(value);
            int64_t bits;
            std::memcpy(&bits, &number, sizeof bits);
            key.tag('F'), key.number(bits);
            return;
        } else if (PyTuple_Check(value) || PyList_CheckExact(value)) {
            const Py_ssize_t size = PySequence_Fast_GET_SIZE(value);
            key.tag('('), key.number(size);
            for (Py_ssize_t i = 0; i < size; ++i) setting(PySequence_Fast_GET_ITEM(value, i), key);
            return;
        }
        // A string, compared by its value; a handle stands for its kind; anything else is not learnt.
        key.tag('O');
        const bool is_handle = reinterpret_cast<PyObject*>(Py_TYPE(value)) == handle_.ptr();
        key.objects.push_back(is_handle ? handle_.ptr() : value);
    }

    static py::object call(const Step& step, const Values& values) {
        PyObject* chosen[Values::kMost];
        const size_t count = step.pick.size();
        py::object result;
        if (step.result_like) {
            const Torch& torch = torch_api();
            PyObject* arguments[] = {step.result_like.ptr(), torch.cpu.ptr()};
            result = py::reinterpret_steal<py::object>(
                PyObject_Vectorcall(torch.empty_like.ptr(), arguments, 1, step.of_meta ? torch.device.ptr() : nullptr));
            if (!result) throw py::error_already_set();
        }
        for (size_t i = 0; i < count; ++i) {
            const size_t place = static_cast<size_t>(step.pick[i]);
            chosen[i] = step.pick[i] < 0       ? result.ptr()
                        : place < values.count ? values.at[place]
                                               : step.constants[place - values.count].ptr();
        }
        auto made = py::reinterpret_steal<py::object>(PyObject_Vectorcall(step.run.ptr(), chosen, count, nullptr));
        if (!made) {
            // What a kernel refuses is either wrong, and refused in words on the long way, or such as the operator copies first.
            for (PyObject* kind : {PyExc_TypeError, PyExc_ValueError, PyExc_RuntimeError})
                if (PyErr_ExceptionMatches(kind)) {
                    PyErr_Clear();
                    return not_implemented();
                }
            throw py::error_already_set();
        }
        if (watcher()) {
            py::tuple arguments(count);
            for (size_t i = 0; i < count; ++i) arguments[i] = py::reinterpret_borrow<py::object>(chosen[i]);
            const py::object whole = step.result_like ? py::object(py::none()) : made;
            py::reinterpret_borrow<py::object>(watcher())(step.run, arguments, whole);
        }
        return step.result_like ? result : made;
    }

    py::object handle_;
    size_t limit_;
    std::unordered_map<Key, std::shared_ptr<const Step>, KeyHash> ways_[2];
};

// The methods of a class of pybind11 take half a microsecond; a plain function of C takes a tenth.
PyObject* run_of(PyObject* self, PyObject* const* arguments, Py_ssize_t count) {
    const auto* repeat = static_cast<const Repeat*>(PyCapsule_GetPointer(self, nullptr));
    if (!repeat) return nullptr;
    if (count != 2 || !PyTuple_CheckExact(arguments[0]) || !PyDict_CheckExact(arguments[1])) {
        PyErr_SetString(PyExc_TypeError, "Repeat.run: expected a tuple and a dict");
        return nullptr;
    }
    try {
        return repeat->run(arguments[0], arguments[1]).release().ptr();
    } catch (py::error_already_set& error) {
        error.restore();
    } catch (const std::exception& error) {
        PyErr_SetString(PyExc_RuntimeError, error.what());
    }
    return nullptr;
}

py::object bound_run(Repeat* repeat) {
    static PyMethodDef definition = {"run", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&run_of)), METH_FASTCALL, nullptr};
    const auto self = py::capsule(static_cast<const void*>(repeat));
    return py::reinterpret_steal<py::object>(PyCFunction_New(&definition, self.ptr()));
}

}  // namespace

void bind_repeat(py::module_& m) {
    py::class_<Repeat, std::unique_ptr<Repeat, py::nodelete>>(m, "Repeat",
                                                              "The known calls of one function; it lasts as long as the process.")
        .def(py::init<py::object, size_t>(), py::arg("handle"), py::arg("limit"))
        .def_property_readonly("run", [](Repeat& repeat) { return bound_run(&repeat); })
        .def("__len__", &Repeat::size)
        .def("learn", &Repeat::learn, py::arg("args"), py::arg("kwargs"), py::arg("run"), py::arg("pick"), py::arg("constants"),
             py::arg("result_like"));
    m.def(
        "forget_calls",
        [] {
            for (Repeat* repeat : Repeat::all()) repeat->forget();
        },
        "No call is known any more.");
    m.def(
        "watch_calls",
        [](py::object watcher) {
            Py_XDECREF(Repeat::watcher());
            Repeat::watcher() = watcher.is_none() ? nullptr : watcher.release().ptr();
        },
        py::arg("watcher"), "Call this with every step of a repeated call; None for nothing.");
}

}  // namespace isotypic
