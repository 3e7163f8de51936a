// HOST_DEVICE marks maths that runs on the host and on a device; ALWAYS_INLINE keeps straight-line code in registers.
#pragma once

#if defined(__CUDACC__)
#define HOST_DEVICE __host__ __device__
#define ALWAYS_INLINE __forceinline__
#else
#define HOST_DEVICE
#define ALWAYS_INLINE inline __attribute__((always_inline))
#endif
