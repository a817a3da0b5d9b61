// Arguments of scene_spectra, shared by the bindings, the launcher and the kernels of every instruction set.
#pragma once

#include <cstdint>

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
namespace baseline {
extern const SceneSpectraKernel scene_spectra_kernels[kSpectraTypes];
}
namespace avx2 {
extern const SceneSpectraKernel scene_spectra_kernels[kSpectraTypes];
}
namespace avx512 {
extern const SceneSpectraKernel scene_spectra_kernels[kSpectraTypes];
}

void scene_spectra(SceneSpectra arguments, int type, int threads);

}  // namespace spectrafuse
