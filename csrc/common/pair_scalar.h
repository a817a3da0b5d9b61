// The similarity kernels for one number: what a CUDA thread computes with.
#pragma once

#include "gate_math.h"
#include "pair_kernels.h"

namespace spectrafuse {

template <class T_>
struct PairScalar {
    using T = T_;
    using V = T_;
    SPECTRAFUSE_SHARED V exp_nonpositive(V x) { return exponential<Scalar<T>>(x); }
    SPECTRAFUSE_SHARED V root(V x) { return Scalar<T>::root(x); }
    SPECTRAFUSE_SHARED V where_positive(V condition, V x) { return condition > 0 ? x : V(0); }
};

}  // namespace spectrafuse
