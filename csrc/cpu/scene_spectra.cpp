// Spectra of a scene with their bands side by side, normalised, from numbers of any layout.
//
// Pixels are taken 256 at a time along the axis on which they follow each other, 16 bands at a time turned by blocks of
// 4 x 4 (or copied, where bands already lie side by side), then normalised while they are in the second-level cache.
// Reads one stored number and writes one float per output value. Bound by bytes.
#include <algorithm>
#include <cstdlib>

#include "../bindings/bindings.h"
#include "../common/isa.h"
#include "../common/vector.h"
#include "parallel.h"
#include "transpose.h"

#if defined(SPECTRAFUSE_COUNT)
#include "counted.h"
#endif

namespace spectrafuse {

enum class SpectrumMethod { none, unit, snv };

struct SceneSpectra {
    std::int64_t bands, rows, columns;
    const char* cube;             // (C, H, W), numbers of the type it is stored in
    std::int64_t stride[3];       // of cube, in bytes
    float* out;                   // (H, W, C'): the bands of a pixel side by side
    std::int64_t out_stride[2];   // of the pixels of out, in elements
    std::int64_t filled;          // C', a multiple of 16; the bands from C on become zero
    SpectrumMethod method;        // what is done to single spectra
    const float *offset, *scale;  // (C',), of bands: subtracted, then divided by; null: neither

    // Pixels are taken along the axis on which they follow each other in memory.
    bool along_rows;
    std::int64_t lines() const { return along_rows ? columns : rows; }
    std::int64_t length() const { return along_rows ? rows : columns; }
};

// Pixels that are turned and normalised together: their spectra fit the second-level cache.
constexpr std::int64_t kSpectraTile = 256;

// Writes `count` pixels of a line from `first` on.
using SceneSpectraKernel = void (*)(const SceneSpectra&, std::int64_t line, std::int64_t first, std::int64_t count);

// By the type of the cube: float32, float64, int16, uint16, uint8.
constexpr int kSpectraTypes = 5;
SPECTRAFUSE_DECLARE(SceneSpectraKernel scene_spectra_kernels[kSpectraTypes])

namespace SPECTRAFUSE_ISA {
namespace {

constexpr int kLanes = lanes<float>;
// Sums of squares between these lost nothing to the range of float32.
constexpr float kLeastSquares = 1e-20f, kMostSquares = 1e30f;
// Squares of what varies in a spectrum, far less than its largest magnitude at times, lose nothing between these.
constexpr float kLeastPeak = 1e-12f, kMostPeak = 1e16f;

template <class Stored>
void gather(const SceneSpectra& a, const char* from, std::int64_t step, std::int64_t count, float* out,
            std::int64_t out_step) {
    const std::int64_t band = a.stride[0], size = sizeof(Stored);
    if (band != size && step == size) {
        transpose<Stored>(from, band, a.bands, count, out, out_step);
        return;
    }
    for (std::int64_t i = 0; i < count; ++i, from += step, out += out_step)
        if (band == size) {
            for (std::int64_t b = 0; b < a.bands; ++b) {
                Stored value;
                __builtin_memcpy(&value, from + b * size, sizeof value);
                out[b] = static_cast<float>(value);
            }
        } else {
            for (std::int64_t b = 0; b < a.bands; ++b) {
                Stored value;
                __builtin_memcpy(&value, from + b * band, sizeof value);
                out[b] = static_cast<float>(value);
            }
        }
}

float sum(const float* x, std::int64_t n) {
    FloatVector total{};
    for (std::int64_t b = 0; b < n; b += kLanes) total += load(x + b);
    return sum_lanes<float>(total);
}

float sum_squares(const float* x, std::int64_t n) {
    FloatVector total{};
    for (std::int64_t b = 0; b < n; b += kLanes) total += load(x + b) * load(x + b);
    return sum_lanes<float>(total);
}

float largest_magnitude(const float* x, std::int64_t n) {
    FloatVector most{};
    for (std::int64_t b = 0; b < n; b += kLanes) most = larger<float>(most, larger<float>(load(x + b), -load(x + b)));
    float result = 0;
    for (int i = 0; i < kLanes; ++i) result = most[i] > result ? most[i] : result;
    return result;
}

void divide(float* x, std::int64_t n, float by) {
    for (std::int64_t b = 0; b < n; b += kLanes) store<float>(x + b, load(x + b) / by);
}

void to_unit(const SceneSpectra& a, float* x) {
    float squares = sum_squares(x, a.filled);
    if (!(squares > kLeastSquares && squares < kMostSquares)) {
        const float peak = largest_magnitude(x, a.filled);
        if (peak == 0) return;
        divide(x, a.filled, peak);
        squares = sum_squares(x, a.filled);
    }
    divide(x, a.filled, __builtin_sqrtf(squares));
}

void to_normal_variate(const SceneSpectra& a, float* x) {
    float peak = largest_magnitude(x, a.filled);
    if (peak > 0 && !(peak > kLeastPeak && peak < kMostPeak)) {
        divide(x, a.filled, peak);
        peak = 1;
    }
    // A constant spectrum has no shape: what is left after subtracting its mean is rounding, not signal.
    const float rounding = 8 * 1.1920929e-7f * peak;
    const float mean = sum(x, a.filled) / a.bands;
    for (std::int64_t b = 0; b < a.bands; ++b) x[b] -= mean;
    const float deviation = __builtin_sqrtf(sum_squares(x, a.filled) / (a.bands > 1 ? a.bands - 1 : 1));
    if (deviation <= rounding)
        __builtin_memset(x, 0, static_cast<std::size_t>(a.filled) * sizeof(float));
    else
        divide(x, a.filled, deviation);
}

void normalise(const SceneSpectra& a, float* x) {
    for (std::int64_t b = a.bands; b < a.filled; ++b) x[b] = 0;
    if (a.method == SpectrumMethod::unit) to_unit(a, x);
    if (a.method == SpectrumMethod::snv) to_normal_variate(a, x);
    if (a.offset == nullptr) return;
    for (std::int64_t b = 0; b < a.filled; b += kLanes)
        store<float>(x + b, (load(x + b) - load(a.offset + b)) / load(a.scale + b));
}

template <class Stored>
void run(const SceneSpectra& a, std::int64_t line, std::int64_t first, std::int64_t count) {
    const int along = a.along_rows ? 0 : 1, across = 1 - along;
    const std::int64_t step = a.stride[1 + along], out_step = a.out_stride[along];
    float* out = a.out + line * a.out_stride[across] + first * out_step;
    gather<Stored>(a, a.cube + line * a.stride[1 + across] + first * step, step, count, out, out_step);
    if (a.filled > 0)
        for (std::int64_t i = 0; i < count; ++i) normalise(a, out + i * out_step);
}

}  // namespace

extern const SceneSpectraKernel scene_spectra_kernels[kSpectraTypes] = {
    run<float>, run<double>, run<std::int16_t>, run<std::uint16_t>, run<std::uint8_t>,
};

}  // namespace SPECTRAFUSE_ISA

#if defined(SPECTRAFUSE_LAUNCHER)

void scene_spectra(int type, const Sizes<3>& sizes, const Sizes<3>& stride, const Sizes<2>& out_stride,
                   std::int64_t filled, int method, Address cube, Address offset, Address scale, Address out,
                   int threads) {
    const bool along_rows = std::llabs(stride[1]) < std::llabs(stride[2]);
    const SceneSpectra a{sizes[0],
                         sizes[1],
                         sizes[2],
                         cube,
                         {stride[0], stride[1], stride[2]},
                         out,
                         {out_stride[0], out_stride[1]},
                         filled,
                         static_cast<SpectrumMethod>(method),
                         offset,
                         scale,
                         along_rows};
    const SceneSpectraKernel kernel = SPECTRAFUSE_SELECT(scene_spectra_kernels[type]);
    const std::int64_t tiles = (a.length() + kSpectraTile - 1) / kSpectraTile;
    parallel_shares(a.lines() * tiles, threads, [&](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t tile = begin; tile < end; ++tile) {
            const std::int64_t first = tile % tiles * kSpectraTile;
            kernel(a, tile / tiles, first, std::min(kSpectraTile, a.length() - first));
        }
    });
}

SPECTRAFUSE_BIND(scene_spectra) { m.def("scene_spectra", &scene_spectra); }

#if defined(SPECTRAFUSE_COUNT)
// 16 x 16 pixels of 40 bands, one band after the other, to unit length and scaled.
SPECTRAFUSE_COUNTED(scene_spectra, forward) {
    constexpr int unit = 1;
    constexpr std::int64_t bands = 40, side = 16, area = side * side, size = sizeof(float),
                           filled = (bands + 15) / 16 * 16;
    const Address cube = address(floats(bands * area)), out = address(floats(area * filled));
    const Address offset = address(floats(filled)), scale = address(floats(filled, 1, 2));
    return [=] {
        scene_spectra(0, {bands, side, side}, {area * size, side * size, size}, {side * filled, filled}, filled, unit,
                      cube, offset, scale, out, 1);
    };
}
#endif

#endif

}  // namespace spectrafuse
