// The assignment of the other view that a pixel's assignment is compared with.
#pragma once

#include "../common/clustering_objective.h"
#include "mean_shift_rows.h"

namespace spectrafuse::SPECTRAFUSE_ISA {
namespace {

constexpr double kProbEpsilon = 1e-6;
// What a read may take from pixels that are not valid and still count: far above the rounding of a coordinate, so that
// reads at whole pixels do not depend on it, and far below what matters.
constexpr double kReadTolerance = 1e-4;

// From a pixel of one view to its place in the other view, in normalised coordinates: -1 to 1 spans a window and a
// view.
class Alignment {
   public:
    Alignment(const double* own, const double* other, const MeanShiftShape& s)
        : own_(own + 2),
          other_(other + 2),
          height_(static_cast<double>(s.height)),
          width_(static_cast<double>(s.width)) {
        offset_x_ = 2 * (own[1] - other[1]) / width_;
        offset_y_ = 2 * (own[0] - other[0]) / height_;
        determinant_ = other_[0] * other_[4] - other_[1] * other_[3];
    }

    // Column and row in the other view, clamped to its pixel centers; false where the place lies outside either window
    // or outside the other view, or the other view's warp has no inverse.
    bool place(std::int64_t x, std::int64_t y, double* column, double* row) const {
        const double own_x = (2 * x + 1) / width_ - 1, own_y = (2 * y + 1) / height_ - 1;
        const double in_x = own_[0] * own_x + own_[1] * own_y + own_[2];
        const double in_y = own_[3] * own_x + own_[4] * own_y + own_[5];
        const double there_x = in_x + offset_x_, there_y = in_y + offset_y_;
        const double from_x = there_x - other_[2], from_y = there_y - other_[5];
        const double view_x = (other_[4] * from_x - other_[1] * from_y) / determinant_;
        const double view_y = (other_[0] * from_y - other_[3] * from_x) / determinant_;
        if (!(inside(in_x) && inside(in_y) && inside(there_x) && inside(there_y) && inside(view_x) && inside(view_y)))
            return false;
        *column = clamp(((view_x + 1) * width_ - 1) / 2, width_ - 1);
        *row = clamp(((view_y + 1) * height_ - 1) / 2, height_ - 1);
        return true;
    }

   private:
    static bool inside(double coordinate) { return coordinate >= -1 && coordinate <= 1; }
    static double clamp(double at, double last) { return at < 0 ? 0 : at > last ? last : at; }

    const double *own_, *other_;
    double height_, width_, offset_x_, offset_y_, determinant_;
};

// Reads what the `count` pixels at (row, x), whose assignments are own (K, tile), are compared with to read (K, tile):
// a copy of `own` where there is no pair, so that neither value nor gradient arises. Returns the number of pairs.
template <class T>
std::int64_t read_pairs(const ClusteringInputs& in, const T* probs, std::int64_t row, std::int64_t x,
                        std::int64_t count, const T* own, T* read) {
    constexpr std::int64_t P = kTilePixels<T>;
    const MeanShiftShape& s = in.shape;
    const std::int64_t samples = s.batch / 2, view = row / s.height, y = row % s.height, plane = s.height * s.width;
    const std::int64_t second = view >= samples, sample = view - second * samples;
    const std::int64_t other = (1 - second) * samples + sample;
    __builtin_memcpy(read, own, sizeof(T) * static_cast<std::size_t>(s.clusters * P));
    const double* geometry = in.geometry == nullptr ? nullptr : in.geometry + sample * 18;
    std::int64_t pairs = 0;
    if (geometry == nullptr) {
        for (std::int64_t i = 0; i < count; ++i) {
            const std::int64_t here = row * s.width + x + i, there = other * plane + y * s.width + x + i;
            if (in.valid != nullptr && !(in.valid[here] && in.valid[there])) continue;
            ++pairs;
            for (std::int64_t k = 0; k < s.clusters; ++k) read[k * P + i] = probs[there * s.clusters + k];
        }
        return pairs;
    }
    const Alignment alignment(geometry + second * 9, geometry + (1 - second) * 9, s);
    for (std::int64_t i = 0; i < count; ++i) {
        if (in.valid != nullptr && !in.valid[row * s.width + x + i]) continue;
        double column, line;
        if (!alignment.place(x + i, y, &column, &line)) continue;
        const std::int64_t left = static_cast<std::int64_t>(column), top = static_cast<std::int64_t>(line);
        const std::int64_t right = left + 1 < s.width ? left + 1 : left, bottom = top + 1 < s.height ? top + 1 : top;
        const double u = column - static_cast<double>(left), v = line - static_cast<double>(top);
        const double share[4] = {(1 - v) * (1 - u), (1 - v) * u, v * (1 - u), v * u};
        const std::int64_t base = other * plane;
        const std::int64_t corner[4] = {base + top * s.width + left, base + top * s.width + right,
                                        base + bottom * s.width + left, base + bottom * s.width + right};
        if (in.valid != nullptr) {
            double missing = 0;
            for (int c = 0; c < 4; ++c) missing += in.valid[corner[c]] ? 0 : share[c];
            if (missing > kReadTolerance) continue;
        }
        ++pairs;
        const T weight[4] = {static_cast<T>(share[0]), static_cast<T>(share[1]), static_cast<T>(share[2]),
                             static_cast<T>(share[3])};
        for (std::int64_t k = 0; k < s.clusters; ++k) {
            T sum = 0;
            for (int c = 0; c < 4; ++c) sum += weight[c] * probs[corner[c] * s.clusters + k];
            read[k * P + i] = sum;
        }
    }
    return pairs;
}

}  // namespace
}  // namespace spectrafuse::SPECTRAFUSE_ISA
