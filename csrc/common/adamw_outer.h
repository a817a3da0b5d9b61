// Arguments and arithmetic of adamw_outer, shared by the bindings, the launchers and the kernels of host and device.
#pragma once

#include <cstddef>
#include <cstdint>

#include "host_device.h"
#include "isa.h"

namespace spectrafuse {

struct AdamwOptions {
    double lr, beta1, beta2, eps, weight_decay;
};

// What one step multiplies with.
template <class T>
struct AdamwConstants {
    T decay;                  // 1 - lr * weight_decay
    T keep_first, add_first;  // beta1, 1 - beta1
    T keep_second, add_second;
    T step_size;     // lr / (1 - beta1^step)
    T inverse_root;  // 1 / sqrt(1 - beta2^step)
    T eps;
};

template <class T>
SPECTRAFUSE_SHARED AdamwConstants<T> adamw_constants(const AdamwOptions& o, double beta1_power,
                                                     double root_of_correction) {
    return {static_cast<T>(1 - o.lr * o.weight_decay),
            static_cast<T>(o.beta1),
            static_cast<T>(1 - o.beta1),
            static_cast<T>(o.beta2),
            static_cast<T>(1 - o.beta2),
            static_cast<T>(o.lr / (1 - beta1_power)),
            static_cast<T>(1 / root_of_correction),
            static_cast<T>(o.eps)};
}

// Moments and then weight of one parameter, or of one vector of them; `root` is the second moment's square root.
template <class V, class T>
SPECTRAFUSE_SHARED void adamw_moments(const AdamwConstants<T>& c, V gradient, V& first, V& second) {
    first = c.keep_first * first + c.add_first * gradient;
    second = c.keep_second * second + c.add_second * (gradient * gradient);
}

template <class V, class T>
SPECTRAFUSE_SHARED V adamw_weight(const AdamwConstants<T>& c, V weight, V first, V root) {
    return c.decay * weight - c.step_size * (first / (root * c.inverse_root + c.eps));
}

struct AdamwOuter {
    std::int64_t batch, rows, columns;
    const void* x;       // (B, I)
    const void* grad_y;  // (B, O)
    void* weight;        // (O, I), as are the moments
    void* exp_avg;
    void* exp_avg_sq;
};

// Tiles of kAdamwTileRows x kAdamwTileColumns elements of the weight are numbered down its columns and independent of
// each other; they are taken from the last to the first if `backwards`. `scratch` is the number of bytes that `run`
// needs, aligned to 64.
constexpr std::int64_t kAdamwTileRows = 32, kAdamwTileColumns = 2048;

struct AdamwOuterKernels {
    std::size_t (*scratch)(const AdamwOuter&);
    void (*run)(const AdamwOuter&, const AdamwConstants<double>&, std::int64_t tile_begin, std::int64_t tile_end,
                bool backwards, void* scratch);
};

SPECTRAFUSE_DECLARE(AdamwOuterKernels adamw_outer_kernels[2])

// One step, number `step`, of `count` parameters.
void adamw_outer(const AdamwOuter* parameters, std::int64_t count, const AdamwOptions& options, std::int64_t step,
                 int dtype, int threads);

}  // namespace spectrafuse
