// How a function is marked that host and device share.
//
// Such functions are always inlined: a kernel file is compiled once per instruction set, and the linker would keep one
// copy for all of them.
#pragma once

#if defined(__CUDACC__)
#define SPECTRAFUSE_HOST_DEVICE __host__ __device__
#define SPECTRAFUSE_SHARED __host__ __device__ static __forceinline__
#else
#define SPECTRAFUSE_HOST_DEVICE
#define SPECTRAFUSE_SHARED static inline __attribute__((always_inline))
#endif
