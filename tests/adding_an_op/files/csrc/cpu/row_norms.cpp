// Lengths of rows: every number is read once, bound by bytes.
#include <cmath>

#include "../bindings/bindings.h"
#include "../common/isa.h"
#include "parallel.h"
#if defined(SPECTRAFUSE_COUNT)
#include "counted.h"
#endif

namespace spectrafuse {

using RowNorms = void (*)(const void* x, std::int64_t columns, std::int64_t begin, std::int64_t end, void* norms);
SPECTRAFUSE_DECLARE(RowNorms row_norms_kernels[2])

namespace SPECTRAFUSE_ISA {
namespace {

template <class T>
void run(const void* x, std::int64_t columns, std::int64_t begin, std::int64_t end, void* norms) {
    for (std::int64_t i = begin; i < end; ++i) {
        const T* row = static_cast<const T*>(x) + i * columns;
        T sum = 0;
        for (std::int64_t j = 0; j < columns; ++j) sum += row[j] * row[j];
        static_cast<T*>(norms)[i] = __builtin_sqrt(sum);
    }
}

}  // namespace

extern const RowNorms row_norms_kernels[2] = {run<float>, run<double>};

}  // namespace SPECTRAFUSE_ISA

#if defined(SPECTRAFUSE_LAUNCHER)

void row_norms(int dtype, const Sizes<2>& sizes, Address x, Address norms, int threads) {
    const RowNorms kernel = SPECTRAFUSE_SELECT(row_norms_kernels[dtype]);
    parallel_shares(sizes[0], threads,
                    [&](std::int64_t begin, std::int64_t end, int) { kernel(x, sizes[1], begin, end, norms); });
}

SPECTRAFUSE_BIND(row_norms) { m.def("row_norms", &row_norms); }

#if defined(SPECTRAFUSE_COUNT)
SPECTRAFUSE_COUNTED(row_norms, forward) {
    const Address x = address(floats(64 * 200)), norms = address(floats(64));
    return [=] { row_norms(0, {64, 200}, x, norms, 1); };
}
#endif

#endif

}  // namespace spectrafuse
