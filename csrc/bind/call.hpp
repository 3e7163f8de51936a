// One call of a kernel, bound: tensors checked against shapes, a device chosen, torch's threads joined, the interpreter's lock released.
//
//     void field_scale(py::handle x, py::handle scale, py::handle y) {
//         Call call("field_scale");
//         const View in = call.tensor(x, "x", {'B', 'C', 'N'}), factors = call.tensor(scale, "scale", {'C'});
//         const View out = call.tensor(y, "y", {'B', 'C', 'N'});
//         call.run([&] { cpu::field_scale(in, factors, out); }, [&](void* stream) { cuda::field_scale(in, factors, out, stream); });
//     }
//
// It is the last line of defence: the operator in Python has said in words what is wrong, and here a wrong shape would be a wild read. A
// letter in a shape is a size that the first tensor with it decides, a number one that must be met. The first tensor decides dtype and
// device; all are contiguous. Functions of cuda:: may be named in the second function of run in every build: without CUDA it is never called,
// and what is never called is not linked.
#pragma once

#include <initializer_list>
#include <string>
#include <type_traits>

#include "bind/tensor.hpp"
#include "cuda/device.hpp"

namespace isotypic {

// What a build without CUDA kernels says to CUDA tensors.
[[noreturn]] inline void refuse_cuda(const char* name) {
    throw std::runtime_error(std::string(name) + ": this build of isotypic has no CUDA kernels; it is built with them where nvcc is found");
}

// A size of a declared shape: a letter or a number.
class Axis {
  public:
    Axis(char letter) : letter_(letter) {}
    template <class Size, class = std::enable_if_t<std::is_integral_v<Size> && !std::is_same_v<Size, char>>>
    Axis(Size size) : size_(static_cast<int64_t>(size)) {}
    char letter() const { return letter_; }
    int64_t size() const { return size_; }

  private:
    char letter_ = 0;
    int64_t size_ = 0;
};
using Shape = std::initializer_list<Axis>;

// The element types a kernel takes: of 4 and 8 bytes, or those of 16 bits too.
enum class Floats { wide, all };

class Call {
  public:
    explicit Call(const char* name, Floats floats = Floats::wide) : name_(name), floats_(floats) { join_torch_threads(); }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

    // A tensor of the call's dtype and of this shape, contiguous.
    View tensor(py::handle handle, const char* argument, Shape shape) { return checked(handle, argument, shape, false, true); }
    // The same, or an undefined view for None.
    View optional(py::handle handle, const char* argument, Shape shape) {
        return handle.is_none() ? View{} : tensor(handle, argument, shape);
    }
    // float64 where the tensors of the call are, float32 where they are of float32 or 16 bits: sums, statistics.
    View wide(py::handle handle, const char* argument, Shape shape) { return checked(handle, argument, shape, true, true); }
    View optional_wide(py::handle handle, const char* argument, Shape shape) {
        return handle.is_none() ? View{} : wide(handle, argument, shape);
    }
    // With any strides.
    View strided(py::handle handle, const char* argument, Shape shape) { return checked(handle, argument, shape, false, false); }

    // Of the call's dtype and place, with any shape and strides: the binding looks at them itself.
    View unshaped(py::handle handle, const char* argument) { return placed(handle, argument, false); }

    // Contiguous values of another type, such as int64_t indices, or null for None. Not for what decides dtype and device.
    template <class T>
    const T* values(py::handle handle, const char* argument, Shape shape) {
        return static_cast<const T*>(handle.is_none() ? nullptr : raw(handle, argument, shape, code_of<T>(), 8 * sizeof(T)));
    }
    template <class T>
    T* results(py::handle handle, const char* argument, Shape shape) {
        return static_cast<T*>(raw(handle, argument, shape, code_of<T>(), 8 * sizeof(T)));
    }

    // Of a letter that a tensor has decided.
    int64_t size(char letter) const {
        for (int i = 0; i < count_; ++i)
            if (letters_[i] == letter) return sizes_[i];
        throw std::logic_error(std::string(name_) + " kernel: no tensor has said what " + letter + " is");
    }
    void require(bool holds, const char* message) const {
        if (!holds) throw py::value_error(std::string(name_) + " kernel: " + message);
    }

    DType dtype() const { return dtype_; }
    bool on_cuda() const { return on_cuda_; }
    int device() const { return device_; }
    const char* name() const { return name_; }

    // Bytes on the call's device (to_buffer), or nothing on the CPU.
    Buffer buffer(py::handle handle, const char* argument) const {
        return on_cuda_ && !handle.is_none() ? to_buffer(handle, device_, argument) : Buffer{};
    }

    // Runs host(), or device(stream) with the device made the current one; without the interpreter's lock.
    template <class Host, class Device>
    void run(const Host& host, const Device& device) const {
        if (!on_cuda_) {
            const py::gil_scoped_release release;
            host();
            return;
        }
#if defined(ISOTYPIC_WITH_CUDA)
        void* stream = current_stream(first_, device_);
        const py::gil_scoped_release release;
        const cuda::DeviceGuard guard(device_);
        device(stream);
#else
        (void)device;
        refuse_cuda(name_);
#endif
    }
    // For a kernel that there is on the CPU alone.
    template <class Host>
    void run(const Host& host) const {
        if (on_cuda_) throw std::runtime_error(std::string(name_) + ": there is no kernel for CUDA tensors");
        const py::gil_scoped_release release;
        host();
    }

  private:
    template <class T>
    static constexpr DLDataTypeCode code_of() {
        return std::is_same_v<T, bool> ? kDLBool : std::is_floating_point_v<T> ? kDLFloat : std::is_signed_v<T> ? kDLInt : kDLUInt;
    }

    View checked(py::handle handle, const char* argument, Shape shape, bool wide, bool contiguous) {
        const View view = placed(handle, argument, wide);
        check_shape(argument, shape, view.ndim, view.sizes);
        if (contiguous && !is_contiguous(view)) refuse(argument, "must be contiguous");
        return view;
    }

    View placed(py::handle handle, const char* argument, bool wide) {
        const Tensor tensor = to_tensor(handle);
        if (!first_) {
            first_ = handle, dtype_ = tensor.view.dtype, on_cuda_ = tensor.on_cuda, device_ = tensor.device;
            if (floats_ == Floats::wide && itemsize(dtype_) < 4) refuse(argument, "must be float32 or float64");
        }
        const DType expected = wide && itemsize(dtype_) < 4 ? DType::float32 : dtype_;
        if (tensor.view.dtype != expected) refuse(argument, "must have the dtype of the others");
        check_place(tensor.on_cuda, tensor.device, argument);
        return tensor.view;
    }

    void* raw(py::handle handle, const char* argument, Shape shape, DLDataTypeCode code, size_t bits) {
        const DLTensor dl = borrow(handle);
        if (!first_) throw std::logic_error(std::string(name_) + " kernel: " + argument + " cannot be the first tensor");
        if (dl.dtype.code != code || dl.dtype.bits != bits || dl.dtype.lanes != 1) refuse(argument, "has another type of elements");
        check_place(dl.device.device_type == kDLCUDA, dl.device.device_id, argument);
        check_shape(argument, shape, dl.ndim, dl.shape);
        int64_t stride = 1;
        bool contiguous = true, empty = false;
        for (int i = dl.ndim - 1; i >= 0; --i) {
            contiguous = contiguous && (!dl.strides || dl.shape[i] == 1 || dl.strides[i] == stride);
            empty = empty || dl.shape[i] == 0;
            stride *= dl.shape[i];
        }
        if (!contiguous && !empty) refuse(argument, "must be contiguous");
        return static_cast<char*>(dl.data) + dl.byte_offset;
    }

    void check_place(bool on_cuda, int device, const char* argument) const {
        if (on_cuda != on_cuda_ || (on_cuda && device != device_)) refuse(argument, "must be on the device of the others");
    }

    void check_shape(const char* argument, Shape shape, int ndim, const int64_t* sizes) {
        bool fits = ndim == static_cast<int>(shape.size());
        for (int i = 0; fits && i < ndim; ++i) {
            const Axis axis = shape.begin()[i];
            fits = axis.letter() ? bind(axis.letter(), sizes[i]) : axis.size() == sizes[i];
        }
        if (!fits) refuse_shape(argument, shape, ndim, sizes);
    }

    // Whether the size is that of the letter, which is decided here if it was not.
    bool bind(char letter, int64_t size) {
        for (int i = 0; i < count_; ++i)
            if (letters_[i] == letter) return sizes_[i] == size;
        if (count_ == kMostLetters) throw std::logic_error(std::string(name_) + " kernel: too many letters");
        letters_[count_] = letter, sizes_[count_++] = size;
        return true;
    }

    [[noreturn]] void refuse(const char* argument, const char* what) const {
        throw py::value_error(std::string(name_) + " kernel: " + argument + " " + what);
    }
    [[noreturn]] void refuse_shape(const char* argument, Shape shape, int ndim, const int64_t* sizes) const {
        std::string expected, got;
        for (const Axis axis : shape) {
            if (!expected.empty()) expected += ", ";
            if (!axis.letter()) {
                expected += std::to_string(axis.size());
                continue;
            }
            expected += axis.letter();
            for (int i = 0; i < count_; ++i)
                if (letters_[i] == axis.letter()) expected += "=" + std::to_string(sizes_[i]);
        }
        for (int i = 0; i < ndim; ++i) got += (i ? ", " : "") + std::to_string(sizes[i]);
        throw py::value_error(std::string(name_) + " kernel: " + argument + " must have shape (" + expected + "), got (" + got + ")");
    }

    static constexpr int kMostLetters = 16;
    const char* name_;
    Floats floats_;
    py::handle first_;
    DType dtype_ = DType::float32;
    bool on_cuda_ = false;
    int device_ = 0, count_ = 0;
    char letters_[kMostLetters];
    int64_t sizes_[kMostLetters];
};

}  // namespace isotypic
