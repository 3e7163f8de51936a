// Repeat: what is known of the calls of one function of isotypic, so that a repeated call is the calls of its kernels.
//
// isotypic/_repeat.py has the idea and learns; here is the part that every short call goes through, about a microsecond and a half:
// the state of torch that a call must not be in (a mode, a transform, a subclass), a key of shapes, dtypes and settings, a look-up, a new
// result by torch.empty_like, the call. No code of Python but torch's runs in between: settings are compared by type and value where they
// are None, bool, int, float, str, tuple or list; a call with others is not learnt.
#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
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

// One step of a call: a kernel, which writes new results that are among its arguments, or a function that returns its own.
struct Step {
    py::object run;
    std::vector<int> pick;          // places of its arguments: of a value, behind the values of a constant; -1 - i is the i-th thing made
    std::vector<py::object> fresh;  // results to be made before it, each like one number seen as a whole result, or like a meta tensor
    std::vector<bool> of_meta;      // where the axes of a result are in another order in memory
    bool returns = false;
};

// What a call comes down to. Without steps, the call is known to be more than steps.
struct Known {
    std::vector<py::object> kept;  // what the key refers to
    std::vector<Step> steps;
    std::vector<py::object> constants;
    std::vector<int> results;  // places of what is returned; kNone is None
    bool several = false;      // a tuple, or the one result
};
constexpr int kNone = std::numeric_limits<int>::max();

// The arguments of a call, borrowed from it. They live on the stack: torch's functions let go of the interpreter's lock.
struct Values {
    static constexpr size_t kMost = 32;
    PyObject* at[kMost];
    size_t count = 0;
};

class Repeat {
  public:
    Repeat(py::object handle, size_t limit) : handle_(std::move(handle)), limit_(limit) { all().push_back(this); }

    // The result, None for a call that is not known, NotImplemented for one that is not to be repeated.
    py::object run(PyObject* args, PyObject* kwargs) const {
        Values values;
        std::shared_ptr<const Known> known;
        try {
            Key key;
            const Torch& torch = torch_api();
            const int way = torch.plain() ? read(torch, args, kwargs, values, key) : -1;
            if (way < 0) return not_implemented();
            const auto found = ways_[way].find(key);
            if (found == ways_[way].end()) return py::none();
            known = found->second;
        } catch (const std::exception&) {  // no strided tensor, one without memory
            return not_implemented();
        }
        return known->steps.empty() ? not_implemented() : call(*known, values);
    }

    // The call becomes known: as steps (run, pick, fresh, returns), or without any as more than that. False where it cannot be.
    bool learn(const py::tuple& args, const py::dict& kwargs,
               const std::vector<std::tuple<py::object, std::vector<int>, py::list, bool>>& steps, const std::vector<py::object>& constants,
               const std::vector<std::optional<int>>& results, bool several) {
        Values values;
        Key key;
        const int way = read(torch_api(), args.ptr(), kwargs.ptr(), values, key);
        if (way < 0) return false;
        auto known = std::make_shared<Known>();
        for (PyObject* object : key.objects) {
            if (!PyUnicode_CheckExact(object) && object != handle_.ptr()) return false;
            known->kept.push_back(py::reinterpret_borrow<py::object>(object));
        }
        size_t made = 0;
        for (const auto& [run, pick, fresh, returns] : steps) {
            Step step{run, pick, {}, {}, returns};
            for (const py::handle like : fresh) {
                step.fresh.push_back(py::reinterpret_borrow<py::object>(like));
                step.of_meta.push_back(like.attr("is_meta").cast<bool>());
            }
            made += step.fresh.size() + (returns ? 1 : 0);
            if (pick.size() > Values::kMost || made > kMostMade) return false;
            known->steps.push_back(std::move(step));
        }
        known->constants = constants, known->several = several;
        for (const std::optional<int>& place : results) known->results.push_back(place.value_or(kNone));
        if (ways_[way].size() >= limit_) ways_[way].clear();
        ways_[way].erase(key);  // another thread may have learnt it: an entry's key borrows from what the entry keeps
        ways_[way].emplace(std::move(key), std::move(known));
        return true;
    }

    // What is known of a call, to be run with other tensors of the same key and no look at it; None for nothing.
    py::object prepared(PyObject* args, bool looks) const;

    // Whether no mode is active, no gradient is wanted, and the first values are ordinary tensors or None.
    static bool ordinary(const Values& values, size_t count) {
        const Torch& torch = torch_api();
        if (!torch.plain() || torch.truth(PyObject_CallNoArgs(torch.is_grad_enabled.ptr()))) return false;
        for (size_t i = 0; i < count; ++i)
            if (values.at[i] != Py_None &&
                (!torch.is_tensor(values.at[i]) || torch.truth(PyObject_CallMethodNoArgs(values.at[i], torch.is_neg.ptr()))))
                return false;
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

    static py::object call(const Known& known, const Values& values);
    static py::object not_implemented() { return py::reinterpret_borrow<py::object>(Py_NotImplemented); }

  private:
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
            // Of several steps, those that autograd records are others where other tensors want a gradient.
            const bool wants = torch.truth(PyObject_GetAttr(value, torch.requires_grad.ptr()));
            wanted = wanted || wants;
            for (const int each :
                 {static_cast<int>(wants ? 'G' : 'T'), static_cast<int>(dl.dtype.code), static_cast<int>(dl.dtype.bits), dl.ndim})
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

    static py::object new_result(const py::object& like, bool of_meta) {
        const Torch& torch = torch_api();
        PyObject* arguments[] = {like.ptr(), torch.cpu.ptr()};
        PyObject* result = PyObject_Vectorcall(torch.empty_like.ptr(), arguments, 1, of_meta ? torch.device.ptr() : nullptr);
        if (!result) throw py::error_already_set();
        return py::reinterpret_steal<py::object>(result);
    }

    static constexpr size_t kMostMade = 16;
    py::object handle_;
    size_t limit_;
    std::unordered_map<Key, std::shared_ptr<const Known>, KeyHash> ways_[2];
};

py::object Repeat::call(const Known& known, const Values& values) {
    py::object made[kMostMade];
    size_t count = 0;
    const auto at = [&](int place) {
        const size_t index = static_cast<size_t>(place);
        return place < 0 ? made[-1 - place].ptr() : index < values.count ? values.at[index] : known.constants[index - values.count].ptr();
    };
    for (const Step& step : known.steps) {
        for (size_t i = 0; i < step.fresh.size(); ++i) made[count++] = new_result(step.fresh[i], step.of_meta[i]);
        PyObject* chosen[Values::kMost];
        const size_t arguments = step.pick.size();
        for (size_t i = 0; i < arguments; ++i) chosen[i] = at(step.pick[i]);
        auto returned = py::reinterpret_steal<py::object>(PyObject_Vectorcall(step.run.ptr(), chosen, arguments, nullptr));
        if (!returned) {
            // What a kernel refuses is either wrong, and refused in words on the long way, or such as the operator copies first.
            for (PyObject* kind : {PyExc_TypeError, PyExc_ValueError, PyExc_RuntimeError})
                if (PyErr_ExceptionMatches(kind)) {
                    PyErr_Clear();
                    return not_implemented();
                }
            throw py::error_already_set();
        }
        if (watcher()) {
            py::tuple seen(arguments);
            for (size_t i = 0; i < arguments; ++i) seen[i] = py::reinterpret_borrow<py::object>(chosen[i]);
            const py::object own = step.returns ? returned : py::object(py::none());
            py::reinterpret_borrow<py::object>(watcher())(step.run, seen, own);
        }
        if (step.returns) made[count++] = std::move(returned);
    }
    const auto result = [&](int place) { return place == kNone ? py::object(py::none()) : py::reinterpret_borrow<py::object>(at(place)); };
    if (!known.several) return result(known.results[0]);
    py::tuple results(known.results.size());
    for (size_t i = 0; i < known.results.size(); ++i) results[i] = result(known.results[i]);
    return results;
}

// Of a call whose key is known to be that of the call it was made for.
struct Prepared {
    std::shared_ptr<const Known> known;
    size_t values;  // the tensors, and behind them settings, which nothing looks at
    bool looks;     // whether the caller does not know that the state of torch and the kind of the tensors are such as in that call
};

PyObject* run_prepared(PyObject* self, PyObject* const* arguments, Py_ssize_t count) {
    const auto* prepared = static_cast<const Prepared*>(PyCapsule_GetPointer(self, nullptr));
    if (!prepared) return nullptr;
    if (static_cast<size_t>(count) > prepared->values) {
        PyErr_SetString(PyExc_TypeError, "a prepared call: too many arguments");
        return nullptr;
    }
    Values values;
    std::copy_n(arguments, count, values.at);
    values.count = prepared->values;
    try {
        if (prepared->looks && !Repeat::ordinary(values, static_cast<size_t>(count))) return Py_NewRef(Py_NotImplemented);
        return Repeat::call(*prepared->known, values).release().ptr();
    } catch (py::error_already_set& error) {
        error.restore();
    } catch (const std::exception& error) {
        PyErr_SetString(PyExc_RuntimeError, error.what());
    }
    return nullptr;
}

py::object Repeat::prepared(PyObject* args, bool looks) const {
    static PyMethodDef definition = {"prepared", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&run_prepared)), METH_FASTCALL,
                                     nullptr};
    Values values;
    Key key;
    const py::dict no_names;
    int way = -1;
    try {
        way = read(torch_api(), args, no_names.ptr(), values, key);
    } catch (const std::exception&) {  // as in run
    }
    if (way < 0) return py::none();
    const auto found = ways_[way].find(key);
    if (found == ways_[way].end() || found->second->steps.empty()) return py::none();
    const py::capsule self(new Prepared{found->second, values.count, looks}, [](void* held) { delete static_cast<Prepared*>(held); });
    return py::reinterpret_steal<py::object>(PyCFunction_New(&definition, self.ptr()));
}

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
        .def(
            "prepared", [](const Repeat& repeat, const py::tuple& args, bool looks) { return repeat.prepared(args.ptr(), looks); },
            py::arg("args"), py::arg("looks"))
        .def("learn", &Repeat::learn, py::arg("args"), py::arg("kwargs"), py::arg("steps"), py::arg("constants"), py::arg("results"),
             py::arg("several"));
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
