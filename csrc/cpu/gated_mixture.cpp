// (c s^2) S for 1 to 64 rows: every component is read from memory once, 32 rows at a time.
//
// Forward: a group of rows is copied to the second-level cache as |V| while its lengths are summed; then tiles of the
// mixture (samples by two vectors of bands) are summed in registers. Backward: the same copy meets the mixture's
// gradient twice, for the weights (sums along bands) and for the components (sums along samples).
// Reads 4 N d bytes, backward writes as many; 2 B operations a value forward, 4 B backward: bound by arithmetic above
// about 8 rows.
#include "mixture_rows.h"

namespace spectrafuse::SPECTRAFUSE_ISA {
namespace {

// Rows, and for each of them a weight for every sample.
template <class T>
std::size_t scratch_size(const MixturePool& a) {
    return sizeof(T) * static_cast<std::size_t>(kMixtureRows * (2 * padded_bands<T>(a) + 2 * padded_batch(a)));
}

// Rows [begin, end) and their weights (rows, padded B), zero for samples that do not exist.
template <class T>
void load_rows(const MixturePool& a, std::int64_t begin, std::int64_t end, T* rows, T* weights, T* lengths) {
    const std::int64_t pitch = padded_bands<T>(a), samples = padded_batch(a);
    for (std::int64_t n = begin; n < end; ++n) {
        lengths[n - begin] = load_row(a, n, rows + (n - begin) * pitch);
        for (std::int64_t b = 0; b < samples; ++b)
            weights[(n - begin) * samples + b] = b < a.batch ? weight_of(a, b, n, lengths[n - begin]) : T(0);
    }
}

// Adds `count` rows, weighted, to kSamples samples.
template <class T>
void add_rows(const T* rows, const T* weights, std::int64_t count, std::int64_t pitch, std::int64_t samples,
              T* mixture) {
    using V = Vector<T>;
    constexpr int L = lanes<T>;
    for (std::int64_t j = 0; j < pitch; j += kColumns<T>) {
        V sum[kSamples][kColumnVectors];
        for (int b = 0; b < kSamples; ++b)
            for (int v = 0; v < kColumnVectors; ++v) sum[b][v] = load(mixture + b * pitch + j + v * L);
        for (std::int64_t n = 0; n < count; ++n) {
            const V first = load(rows + n * pitch + j), second = load(rows + n * pitch + j + L);
            for (int b = 0; b < kSamples; ++b) {
                sum[b][0] += weights[n * samples + b] * first;
                sum[b][1] += weights[n * samples + b] * second;
            }
        }
        for (int b = 0; b < kSamples; ++b)
            for (int v = 0; v < kColumnVectors; ++v) store<T>(mixture + b * pitch + j + v * L, sum[b][v]);
    }
}

template <class T>
void run(const GatedMixture& a, std::int64_t begin, std::int64_t end, void* partial, void* scratch) {
    const std::int64_t pitch = padded_bands<T>(a.pool), samples = padded_batch(a.pool);
    T *rows = static_cast<T*>(scratch), *weights = rows + kMixtureRows * pitch, *mixture = static_cast<T*>(partial);
    T lengths[kMixtureRows];
    __builtin_memset(mixture, 0, partial_size<T>(a.pool));
    for (std::int64_t n = begin; n < end; n += kMixtureRows) {
        const std::int64_t last = n + kMixtureRows < end ? n + kMixtureRows : end;
        load_rows(a.pool, n, last, rows, weights, lengths);
        for (std::int64_t b = 0; b < samples; b += kSamples)
            add_rows(rows, weights + b, last - n, pitch, samples, mixture + b * pitch);
    }
}

template <class T>
void add(const MixturePool& a, const void* partials, std::int64_t blocks, std::int64_t begin, std::int64_t end,
         void* mixture) {
    const std::int64_t pitch = padded_bands<T>(a), step = padded_batch(a) * pitch;
    for (std::int64_t b = begin; b < end; ++b)
        for (std::int64_t j = 0; j < a.bands; j += lanes<T>) {
            Vector<T> sum = {};
            for (std::int64_t i = 0; i < blocks; ++i)
                sum += load(static_cast<const T*>(partials) + i * step + b * pitch + j);
            store_first(static_cast<T*>(mixture) + b * a.bands + j, sum, a.bands - j);
        }
}

// The mixture's gradient (padded B, padded d), zero where there is none.
template <class T>
void pack(const MixturePool& a, const void* grad, void* packed) {
    const std::int64_t pitch = padded_bands<T>(a);
    T* to = static_cast<T*>(packed);
    __builtin_memset(to, 0, partial_size<T>(a));
    for (std::int64_t b = 0; b < a.batch; ++b)
        __builtin_memcpy(to + b * pitch, static_cast<const T*>(grad) + b * a.bands,
                         sizeof(T) * static_cast<std::size_t>(a.bands));
}

constexpr int kRowsOfProducts = 4, kRowsOfSums = SPECTRAFUSE_VECTOR_BYTES == 64 ? 8 : 4;

// Products (rows, samples) along bands of kRowsOfProducts rows and kSamples / 2 samples.
template <class T>
void row_products(const T* rows, const T* grad, std::int64_t pitch, std::int64_t samples, T* products) {
    using V = Vector<T>;
    constexpr int S = 4;
    V sum[kRowsOfProducts][S] = {};
    for (std::int64_t j = 0; j < pitch; j += lanes<T>) {
        V row[kRowsOfProducts];
        for (int r = 0; r < kRowsOfProducts; ++r) row[r] = load(rows + r * pitch + j);
        for (int b = 0; b < S; ++b) {
            const V g = load(grad + b * pitch + j);
            for (int r = 0; r < kRowsOfProducts; ++r) sum[r][b] += row[r] * g;
        }
    }
    for (int r = 0; r < kRowsOfProducts; ++r)
        for (int b = 0; b < S; ++b) products[r * samples + b] = folded<T>(sum[r][b]);
}

// Spectra's gradients: sums over samples of weight times the mixture's gradient, kRowsOfSums rows at a time.
template <class T>
void row_sums(const T* weights, const T* grad, std::int64_t pitch, std::int64_t samples, T* out) {
    using V = Vector<T>;
    constexpr int L = lanes<T>;
    for (std::int64_t j = 0; j < pitch; j += kColumns<T>) {
        V sum[kRowsOfSums][kColumnVectors] = {};
        for (std::int64_t b = 0; b < samples; ++b) {
            const V first = load(grad + b * pitch + j), second = load(grad + b * pitch + j + L);
            for (int r = 0; r < kRowsOfSums; ++r) {
                sum[r][0] += weights[r * samples + b] * first;
                sum[r][1] += weights[r * samples + b] * second;
            }
        }
        for (int r = 0; r < kRowsOfSums; ++r)
            for (int v = 0; v < kColumnVectors; ++v) store<T>(out + r * pitch + j + v * L, sum[r][v]);
    }
}

template <class T>
void backward(const GatedMixtureBackward& a, std::int64_t begin, std::int64_t end, const void* packed, void* scratch) {
    const MixturePool& p = a.pool;
    const std::int64_t pitch = padded_bands<T>(p), samples = padded_batch(p);
    const T* grad = static_cast<const T*>(packed);
    T *rows = static_cast<T*>(scratch), *sums = rows + kMixtureRows * pitch, *weights = sums + kMixtureRows * pitch;
    T *products = weights + kMixtureRows * samples, lengths[kMixtureRows];
    __builtin_memset(scratch, 0, scratch_size<T>(p));
    for (std::int64_t n = begin; n < end; n += kMixtureRows) {
        const std::int64_t last = n + kMixtureRows < end ? n + kMixtureRows : end;
        load_rows(p, n, last, rows, weights, lengths);
        // Rows behind the last one are whatever an earlier group left there: computed, not stored.
        for (std::int64_t r = 0; r < last - n; r += kRowsOfProducts)
            for (std::int64_t b = 0; b < samples; b += 4)
                row_products(rows + r * pitch, grad + b * pitch, pitch, samples, products + r * samples + b);
        for (std::int64_t r = 0; r < last - n; r += kRowsOfSums)
            row_sums(weights + r * samples, grad, pitch, samples, sums + r * pitch);
        for (std::int64_t r = 0; r < last - n; ++r) {
            T along_length = 0;
            for (std::int64_t b = 0; b < p.batch; ++b) {
                const T product = products[r * samples + b];
                along_length = less_product(along_length, weights[r * samples + b], product);
                store_weight_gradients(p, b, n + r, product, lengths[r], a.grad_concentration, a.grad_select_prob);
            }
            store_raw_gradient(p, n + r, sums + r * pitch, along_length / lengths[r], lengths[r], a.grad_raw);
        }
    }
}

}  // namespace

extern const GatedMixtureKernels gated_mixture_kernels[2] = {
    {partial_size<float>, scratch_size<float>, run<float>, add<float>, pack<float>, backward<float>},
    {partial_size<double>, scratch_size<double>, run<double>, add<double>, pack<double>, backward<double>},
};

}  // namespace spectrafuse::SPECTRAFUSE_ISA
