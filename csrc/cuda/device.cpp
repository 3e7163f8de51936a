#include "cuda/device.hpp"

#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

namespace isotypic {
namespace cuda {

namespace {

void check(cudaError_t error) {
    if (error == cudaSuccess) return;
    cudaGetLastError();
    throw std::runtime_error(std::string("isotypic: CUDA error: ") + cudaGetErrorString(error));
}

}  // namespace

DeviceGuard::DeviceGuard(int device) {
    int current = 0;
    check(cudaGetDevice(&current));
    if (current == device) return;
    check(cudaSetDevice(device));
    before_ = current;
}

DeviceGuard::~DeviceGuard() {
    if (before_ >= 0) cudaSetDevice(before_);
}

}  // namespace cuda
}  // namespace isotypic
