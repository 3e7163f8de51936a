// What every CUDA kernel starts with: the launch, the error check, shared memory. With -DISOTYPIC_EMULATE the same sources run on the host.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "core/host_device.hpp"

#if defined(ISOTYPIC_EMULATE)
#include "cuda/emulation/machine.hpp"
#else
#include <cuda_runtime.h>

#include "cuda/device.hpp"
#endif

#define DEVICE __device__ __forceinline__

namespace isotypic {
namespace cuda {

// A grid as the runtime takes it.
inline unsigned checked_grid(const char* name, int64_t grid) {
    if (grid > INT32_MAX)
        throw std::runtime_error(std::string(name) + ": " + std::to_string(grid) +
                                 " blocks are more than the 2^31 - 1 of one CUDA launch; divide the call");
    return static_cast<unsigned>(grid);
}

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

inline void sync_warp() {
    emulation::sync_warp();
}

template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), int64_t grid, int block, size_t smem, void*, Arguments... arguments) {
    if (grid > 0) emulation::run(kernel, checked_grid(name, grid), block, smem, arguments...);
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

// Lanes that have diverged come together again: instructions of a whole warp need it.
DEVICE void sync_warp() {
    __syncwarp();
}

// The runtime keeps the last error of a thread: it is taken away here, so that no later call is blamed for it.
inline void check(cudaError_t error, const char* name) {
    if (error == cudaSuccess) return;
    cudaGetLastError();
    throw std::runtime_error(std::string(name) + ": " + error_text(error));
}

// The most dynamic shared memory a block may ask for on the current device, in bytes.
inline size_t shared_memory_limit(const char* name) {
    int device = 0, bytes = 0;
    check(cudaGetDevice(&device), name);
    check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), name);
    return static_cast<size_t>(bytes);
}

// Does nothing where the grid is empty. The limit of shared memory belongs to the kernel and not to the launch: every launch sets it to the
// same value, that of the device, because a smaller one could come between another thread's call and its launch.
template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), int64_t grid, int block, size_t smem, void* stream, Arguments... arguments) {
    if (grid <= 0) return;
    const unsigned blocks = checked_grid(name, grid);
    if (smem > 48 * 1024)
        check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_memory_limit(name))), name);
    // clang-format off
    kernel<<<blocks, block, smem, static_cast<cudaStream_t>(stream)>>>(arguments...);
    // clang-format on
    check(cudaGetLastError(), name);
}

#endif

}  // namespace cuda
}  // namespace isotypic
