// Random numbers on a GPU, the bits that the CPU makes: a thread takes an item, which is a number, or two normal ones.
//
// Writes 4 bytes a number; 10 rounds of Philox (2 products of 32 by 32 bits) and a logarithm for each: bound by
// arithmetic. A thread uses one word of the four it makes: what costs time here is the launch.
#include "launch.h"
#include "random_fill.h"

namespace spectrafuse {

namespace {

constexpr int kThreads = 256;

template <class T>
__global__ void random_fill_kernel(RandomFill a) {
    const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (i < items_of(a)) fill_item<T>(a, philox_keys(a.seed), i);
}

}  // namespace

void random_fill_cuda(const RandomFill& a, int dtype, void* stream) {
    const auto kernel = dtype == 0 ? random_fill_kernel<float> : random_fill_kernel<double>;
    launch("random numbers", kernel, blocks_of(items_of(a), kThreads), kThreads, stream, a);
}

}  // namespace spectrafuse
