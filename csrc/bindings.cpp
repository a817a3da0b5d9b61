// The module spectrafuse._cpu. Tensors cross as addresses, sizes and strides; torch allocates everything.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <stdexcept>

#include "common/crop_pairs.h"
#include "common/mean_shift_assign.h"
#include "common/philox.h"
#include "cpu/isa.h"

namespace py = pybind11;
using spectrafuse::MeanShiftShape;
using Address = std::uintptr_t;

namespace {

template <class T = void>
T* pointer(Address address) {
    return reinterpret_cast<T*>(address);
}

MeanShiftShape shape_of(const std::array<std::int64_t, 5>& sizes, int iterations, int window, double bandwidth,
                        double temperature) {
    if (window < 1 || window > 11 || window % 2 == 0) throw std::invalid_argument("window must be 1, 3, .. 11");
    return {sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], iterations, window, bandwidth, temperature};
}

void mean_shift_forward(int dtype, const std::array<std::int64_t, 5>& sizes, const std::array<std::int64_t, 4>& stride,
                        int iterations, int window, double bandwidth, double temperature, Address embeddings,
                        Address centers, Address shifted, Address probs, Address previous, Address weight_sum,
                        Address labels, int threads) {
    const spectrafuse::MeanShiftForward arguments{
        shape_of(sizes, iterations, window, bandwidth, temperature),
        pointer(embeddings),
        {stride[0], stride[1], stride[2], stride[3]},
        pointer(centers),
        pointer(shifted),
        pointer(probs),
        pointer(previous),
        pointer(weight_sum),
        pointer<std::int64_t>(labels),
    };
    const py::gil_scoped_release release;
    spectrafuse::mean_shift_forward(arguments, dtype, threads);
}

double mean_shift_backward(int dtype, const std::array<std::int64_t, 5>& sizes,
                           const std::array<std::int64_t, 4>& stride, int window, double bandwidth, double temperature,
                           Address embeddings, Address centers, Address shifted, Address probs, Address previous,
                           Address weight_sum, Address grad_shifted, Address grad_probs, Address upstream,
                           Address upstream_dot, Address grad_embeddings, Address grad_centers, int threads) {
    const spectrafuse::MeanShiftBackward arguments{
        shape_of(sizes, 1, window, bandwidth, temperature),
        pointer(embeddings),
        {stride[0], stride[1], stride[2], stride[3]},
        pointer(centers),
        pointer(shifted),
        pointer(probs),
        pointer(previous),
        pointer(weight_sum),
        pointer(grad_shifted),
        pointer(grad_probs),
        pointer(upstream),
        pointer(upstream_dot),
        pointer(grad_embeddings),
    };
    double grad_bandwidth = 0;
    const py::gil_scoped_release release;
    spectrafuse::mean_shift_backward(arguments, dtype, threads, pointer<double>(grad_centers), &grad_bandwidth);
    return grad_bandwidth;
}

void extract_crop_pairs(int dtype, const std::array<std::int64_t, 6>& sizes, const std::array<std::int64_t, 4>& stride,
                        Address cubes, Address geometry, Address out, int threads) {
    const spectrafuse::CropPairs arguments{sizes[0],
                                           sizes[1],
                                           sizes[2],
                                           sizes[3],
                                           sizes[4],
                                           sizes[5],
                                           pointer(cubes),
                                           {stride[0], stride[1], stride[2], stride[3]},
                                           pointer<const double>(geometry),
                                           pointer(out)};
    const py::gil_scoped_release release;
    spectrafuse::extract_crop_pairs(arguments, dtype, threads);
}

// Words of the stream (seed, step) as int64 values, the type torch computes with.
void philox_words(std::uint64_t seed, std::uint64_t step, std::int64_t count, Address out) {
    std::int64_t* words = pointer<std::int64_t>(out);
    const py::gil_scoped_release release;
    for (std::int64_t i = 0; i < count; i += 4) {
        const spectrafuse::PhiloxBlock block = spectrafuse::stream_block(seed, step, static_cast<std::uint64_t>(i / 4));
        for (std::int64_t j = i; j < i + 4 && j < count; ++j) words[j] = block.word[j - i];
    }
}

}  // namespace

PYBIND11_MODULE(_cpu, m) {
    m.doc() = "Kernels for the CPU. Arguments are addresses: call them through spectrafuse.ops only.";
    m.def("isa", [] { return spectrafuse::isa_name(spectrafuse::selected_isa()); });
    m.def("mean_shift_forward", &mean_shift_forward);
    m.def("mean_shift_backward", &mean_shift_backward);
    m.def("extract_crop_pairs", &extract_crop_pairs);
    m.def("philox_words", &philox_words);
#if defined(_OPENMP)
    m.attr("openmp") = true;
#else
    m.attr("openmp") = false;
#endif
}
