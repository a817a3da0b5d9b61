// Coordinate descent on a gated mixture, in float64.
//
// Nearly all concentrations are zero, and stay so: for given products a spectrum's gradient is kept up to date, so that
// looking at a closed gate takes one comparison, and a change adds a multiple of one row of the overlap. Products with
// concentrations skip their zeros. Spectra are independent of each other given the components, and channels given the
// concentrations, so that threads share either without a change of bits. Bound by cache bandwidth.
#include "../common/gated_descent.h"

#include "../common/vector.h"

namespace spectrafuse::SPECTRAFUSE_ISA {
namespace {

constexpr int kLanes = lanes<double>;

double dot(const double* a, const double* b, std::int64_t n) {
    DoubleVector sums[4] = {};
    std::int64_t i = 0;
    for (; i + 4 * kLanes <= n; i += 4 * kLanes)
        for (int u = 0; u < 4; ++u) sums[u] += load(a + i + u * kLanes) * load(b + i + u * kLanes);
    for (; i + kLanes <= n; i += kLanes) sums[0] += load(a + i) * load(b + i);
    double total = sum_lanes<double>((sums[0] + sums[1]) + (sums[2] + sums[3]));
    for (; i < n; ++i) total += a[i] * b[i];
    return total;
}

// y += factor x.
void add_multiple(double* y, double factor, const double* x, std::int64_t n) {
    std::int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) store<double>(y + i, load(y + i) + factor * load(x + i));
    for (; i < n; ++i) y[i] += factor * x[i];
}

void concentrations(const ConcentrationDescent& a, std::int64_t begin, std::int64_t end, double* gradient) {
    const std::int64_t k = a.components;
    for (std::int64_t i = begin; i < end; ++i) {
        double* found = a.concentrations + i * k;
        if (k > 0) __builtin_memcpy(gradient, a.along + i * k, static_cast<std::size_t>(k) * sizeof(double));
        for (std::int64_t j = 0; j < k; ++j)
            if (found[j] != 0) add_multiple(gradient, -found[j], a.overlap + j * k, k);
        bool changed = true;
        for (std::int64_t sweep = 0; sweep < a.sweeps && changed; ++sweep) {
            changed = false;
            for (std::int64_t j = 0; j < k; ++j) {
                const double power = a.overlap[j * k + j];
                if (found[j] == 0 && !(gradient[j] > 0 && gradient[j] >= a.smallest[j] * power)) continue;
                if (!(power > 0)) continue;
                double best = found[j] + gradient[j] / power;
                if (best < a.smallest[j]) best = 0;
                const double change = best - found[j];
                if (change == 0) continue;
                found[j] = best;
                add_multiple(gradient, -change, a.overlap + j * k, k);
                changed = changed || change > a.tolerance || -change > a.tolerance;
            }
        }
    }
}

// What the mixture leaves of spectrum i.
void leave(const Mixture& a, std::int64_t i, double* out) {
    if (a.channels > 0)
        __builtin_memcpy(out, a.spectra + i * a.channels, static_cast<std::size_t>(a.channels) * sizeof(double));
    const double* amounts = a.concentrations + i * a.components;
    for (std::int64_t j = 0; j < a.components; ++j)
        if (amounts[j] != 0) add_multiple(out, -amounts[j], a.shapes + j * a.channels, a.channels);
}

void open(const OpenDescent& a, std::int64_t begin, std::int64_t end, double* scratch, std::int64_t* places) {
    const std::int64_t d = a.mixture.channels, k = a.mixture.components;
    for (std::int64_t i = begin; i < end; ++i) {
        double* found = a.concentrations + i * k;
        leave(a.mixture, i, scratch);
        std::int64_t count = 0;
        for (std::int64_t j = 0; j < k; ++j)
            if (found[j] != 0 && a.strength[j] > 0) places[count++] = j;
        for (std::int64_t sweep = 0; sweep < a.sweeps; ++sweep)
            for (std::int64_t place = 0; place < count; ++place) {
                const std::int64_t j = places[place];
                if (found[j] == 0) continue;
                const double* shape = a.mixture.shapes + j * d;
                double best = found[j] + dot(scratch, shape, d) / a.strength[j];
                if (best < a.smallest[j]) best = 0;
                add_multiple(scratch, found[j] - best, shape, d);
                found[j] = best;
            }
    }
}

void components(const ComponentDescent& a, std::int64_t first, std::int64_t count) {
    const std::int64_t d = a.mixture.channels, k = a.mixture.components;
    const double* spectra = a.mixture.spectra + first;
    double* shapes = a.shapes + first;
    double step[kChannelBlock];
    for (std::int64_t j = 0; j < k; ++j) {
        const double* overlap = a.overlap + j * k;
        const double power = overlap[j];
        if (a.held[j] || !(power > 0)) continue;
        for (std::int64_t c = 0; c < count; ++c) step[c] = 0;
        for (std::int64_t entry = a.start[j]; entry < a.start[j + 1]; ++entry)
            add_multiple(step, a.value[entry], spectra + a.row[entry] * d, count);
        for (std::int64_t other = 0; other < k; ++other)
            if (overlap[other] != 0) add_multiple(step, -overlap[other], shapes + other * d, count);
        double* shape = shapes + j * d;
        for (std::int64_t c = 0; c < count; ++c) {
            double best = shape[c] + step[c] / power;
            if (a.non_negative && best < 0) best = 0;
            if (best * best * power < a.price) best = 0;
            shape[c] = best;
        }
    }
}

void residual(const Mixture& a, double* residual, double* power, std::int64_t begin, std::int64_t end,
              double* scratch) {
    for (std::int64_t i = begin; i < end; ++i) {
        double* left = residual == nullptr ? scratch : residual + i * a.channels;
        leave(a, i, left);
        if (power != nullptr) power[i] = dot(left, left, a.channels);
    }
}

}  // namespace

extern const GatedDescentKernels gated_descent_kernels = {concentrations, open, components, residual};

}  // namespace spectrafuse::SPECTRAFUSE_ISA
