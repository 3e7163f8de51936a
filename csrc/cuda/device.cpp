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
    throw std::runtime_error("isotypic: " + error_text(error));
}

std::string version_text(int version) {
    return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

}  // namespace

Versions versions() {
    Versions found;
    cudaRuntimeGetVersion(&found.runtime);
    cudaDriverGetVersion(&found.driver);
    cudaGetLastError();
    return found;
}

std::string error_text(int error) {
    std::string text = std::string("CUDA error: ") + cudaGetErrorString(static_cast<cudaError_t>(error));
    if (error != cudaErrorInsufficientDriver) return text;
    const Versions found = versions();
    text += "; this build of isotypic holds the CUDA runtime " + version_text(found.runtime) + ", which needs a driver for CUDA " +
            std::to_string(found.runtime / 1000) + ".0 or later, and ";
    return text + (found.driver ? "the driver here serves CUDA " + version_text(found.driver) : "there is no driver here");
}

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
