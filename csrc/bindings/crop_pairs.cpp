#include "../common/crop_pairs.h"

#include "bindings.h"

namespace spectrafuse {

namespace {

void bound_extract(int dtype, const std::array<std::int64_t, 6>& sizes, const std::array<std::int64_t, 4>& stride,
                   const std::array<std::int64_t, 5>& out_stride, Address cubes, Address geometry, Address out,
                   int threads) {
    const CropPairs arguments{sizes[0],
                              sizes[1],
                              sizes[2],
                              sizes[3],
                              sizes[4],
                              sizes[5],
                              pointer(cubes),
                              {stride[0], stride[1], stride[2], stride[3]},
                              pointer<const double>(geometry),
                              pointer(out),
                              {out_stride[0], out_stride[1], out_stride[2], out_stride[3], out_stride[4]}};
    const py::gil_scoped_release release;
    extract_crop_pairs(arguments, dtype, threads);
}

}  // namespace

void bind_crop_pairs(py::module_& m) { m.def("extract_crop_pairs", &bound_extract); }

}  // namespace spectrafuse
