// Spectra of a scene with their bands side by side, normalised, from numbers of any layout.
//
// Pixels are taken 256 at a time along the axis on which they follow each other, 16 bands at a time turned by blocks of
// 4 x 4 (or copied, where bands already lie side by side), then normalised while they are in the second-level cache.
// Reads one stored number and writes one float per output value. Bound by bytes.
#include "../common/scene_spectra.h"

#include "turn.h"

namespace spectrafuse::SPECTRAFUSE_ISA {
namespace {

constexpr int kLanes = lanes<float>;
// Sums of squares between these lost nothing to the range of float32.
constexpr float kLeastSquares = 1e-20f, kMostSquares = 1e30f;

template <class Stored>
void gather(const SceneSpectra& a, const char* from, std::int64_t step, std::int64_t count, float* out,
            std::int64_t out_step) {
    const std::int64_t band = a.stride[0], size = sizeof(Stored);
    if (band != size && step == size) {
        turn<Stored>(from, band, a.bands, count, out, out_step);
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
    // A constant spectrum has no shape: what is left after subtracting its mean is rounding, not signal.
    const float rounding = 8 * 1.1920929e-7f * largest_magnitude(x, a.filled);
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

}  // namespace spectrafuse::SPECTRAFUSE_ISA
