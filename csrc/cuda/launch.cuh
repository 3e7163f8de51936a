// What every CUDA kernel starts with: the launch, the error check, shared memory. With -DISOTYPIC_EMULATE the same sources run on the host.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "core/host_device.hpp"

#if defined(ISOTYPIC_EMULATE)
#include "core/emulation.hpp"
#else
#include <cuda_runtime.h>
#endif

#define DEVICE __device__ __forceinline__

namespace isotypic {
namespace cuda {

#if defined(ISOTYPIC_EMULATE)

inline int thread_index() {
    return emulation::machine().thread;
}
inline int thread_count() {
    return emulation::machine().threads;
}
inline unsigned block_index() {
    return emulation::machine().block;
}
inline unsigned block_count() {
    return emulation::machine().grid;
}
inline char* shared_memory() {
    return emulation::machine().shared;
}
inline size_t shared_memory_limit(const char*) {
    return emulation::machine().shared_limit;
}

template <class... Parameters, class... Arguments>
void launch(const char*, void (*kernel)(Parameters...), unsigned grid, int block, size_t smem, void*, Arguments... arguments) {
    emulation::run(kernel, grid, block, smem, arguments...);
}

#else

DEVICE int thread_index() {
    return static_cast<int>(threadIdx.x);
}
DEVICE int thread_count() {
    return static_cast<int>(blockDim.x);
}
DEVICE unsigned block_index() {
    return blockIdx.x;
}
DEVICE unsigned block_count() {
    return gridDim.x;
}
DEVICE char* shared_memory() {
    extern __shared__ __align__(128) char bytes[];
    return bytes;
}

inline void check(cudaError_t error, const char* name) {
    if (error != cudaSuccess) throw std::runtime_error(std::string(name) + ": CUDA error: " + cudaGetErrorString(error));
}

// The most dynamic shared memory a block may ask for on the current device, in bytes.
inline size_t shared_memory_limit(const char* name) {
    int device = 0, bytes = 0;
    check(cudaGetDevice(&device), name);
    check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), name);
    return static_cast<size_t>(bytes);
}

template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), unsigned grid, int block, size_t smem, void* stream, Arguments... arguments) {
    if (smem > 48 * 1024) check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(smem)), name);
    // clang-format off
    kernel<<<grid, block, smem, static_cast<cudaStream_t>(stream)>>>(arguments...);
    // clang-format on
    check(cudaGetLastError(), name);
}

#endif

}  // namespace cuda
}  // namespace isotypic
