// Counts what is allocated, in place of the C library's allocator, for the kernels and for the C++ library. glibc only.
#pragma once

#include <malloc.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

// glibc's own, under names that stay when the usual ones are taken over.
extern "C" void* __libc_malloc(std::size_t);
extern "C" void* __libc_memalign(std::size_t, std::size_t);
extern "C" void __libc_free(void*);

static std::int64_t bytes_held = 0, bytes_most = 0;

static void* held(void* memory) {
    bytes_held += static_cast<std::int64_t>(malloc_usable_size(memory));
    bytes_most = std::max(bytes_most, bytes_held);
    return memory;
}

extern "C" void* malloc(std::size_t bytes) { return held(__libc_malloc(bytes)); }
extern "C" void* aligned_alloc(std::size_t alignment, std::size_t bytes) {
    return held(__libc_memalign(alignment, bytes));
}
extern "C" void free(void* memory) {
    bytes_held -= static_cast<std::int64_t>(malloc_usable_size(memory));
    __libc_free(memory);
}
