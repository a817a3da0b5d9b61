// A linear layer for few rows: every weight is read once and meets all samples, which lie side by side in vectors.
//
// Forward: eight outputs by up to two vectors of samples are summed in registers while the weights stream by in their
// own order. Reads the weights once (4 bytes a parameter in float32) and x from the second-level cache; 2 B operations
// a parameter: bound by memory up to about 16 rows on two cores, by arithmetic beyond.
#include "../common/skinny_linear.h"

#include "../common/vector.h"

namespace spectrafuse::SPECTRAFUSE_ISA {
namespace {

// Vectors of samples and outputs at a time: as many sums as there are registers for.
constexpr int kSampleVectors = 2, kOutputs = SPECTRAFUSE_VECTOR_BYTES == 64 ? 8 : 4;
// Inputs summed before they are added to the total, which keeps rounding errors of long sums small.
constexpr std::int64_t kInputBlock = 512;

template <class T>
std::int64_t padded_batch(const SkinnyLinear& a) {
    return (a.batch + lanes<T> - 1) / lanes<T> * lanes<T>;
}

template <class T>
std::size_t packed_size(const SkinnyLinear& a) {
    return sizeof(T) * static_cast<std::size_t>(a.inputs * padded_batch<T>(a));
}

template <class T>
void pack(const SkinnyLinear& a, std::int64_t begin, std::int64_t end, void* packed) {
    const std::int64_t width = padded_batch<T>(a);
    const T* x = static_cast<const T*>(a.x);
    T* to = static_cast<T*>(packed) + begin * width;
    for (std::int64_t i = begin; i < end; ++i, to += width)
        for (std::int64_t b = 0; b < width; ++b) to[b] = b < a.batch ? x[b * a.inputs + i] : T{0};
}

template <class T>
inline Vector<T> activated(Vector<T> y, Activation activation) {
    using V = Vector<T>;
    const V magnitude = y < 0 ? -y : y;
    if (activation == Activation::relu) return y < 0 ? V{} : y;  // keeps NaN
    if (activation == Activation::abs) return magnitude;
    if (activation == Activation::none) return y;
    const V e = exp_nonpositive(-2 * magnitude);
    const V large = (1 - e) / (1 + e);
    return magnitude < static_cast<T>(kSmallTanh) ? small_tanh(y, T{}) : y < 0 ? -large : large;
}

// Outputs [output, output + Outputs) of the samples in `Vectors` vectors from the sample `first` on.
template <class T, int Outputs, int Vectors>
void outputs_of(const SkinnyLinear& a, std::int64_t output, std::int64_t first, const T* packed) {
    using V = Vector<T>;
    constexpr int L = lanes<T>;
    const std::int64_t width = padded_batch<T>(a);
    const T* weight = static_cast<const T*>(a.weight) + output * a.inputs;
    V total[Outputs][Vectors];
    for (int r = 0; r < Outputs; ++r)
        for (int v = 0; v < Vectors; ++v)
            total[r][v] = broadcast<T>(a.bias == nullptr ? T{0} : static_cast<const T*>(a.bias)[output + r]);
    for (std::int64_t begin = 0; begin < a.inputs; begin += kInputBlock) {
        const std::int64_t end = begin + kInputBlock < a.inputs ? begin + kInputBlock : a.inputs;
        V sum[Outputs][Vectors] = {};
        const T* x = packed + begin * width + first;
        for (std::int64_t i = begin; i < end; ++i, x += width)
            for (int v = 0; v < Vectors; ++v) {
                const V samples = load(x + v * L);
                for (int r = 0; r < Outputs; ++r) sum[r][v] += weight[r * a.inputs + i] * samples;
            }
        for (int r = 0; r < Outputs; ++r)
            for (int v = 0; v < Vectors; ++v) total[r][v] += sum[r][v];
    }
    for (int v = 0; v < Vectors; ++v)
        for (int r = 0; r < Outputs; ++r) {
            const V result = activated<T>(total[r][v], a.activation);
            const std::int64_t sample = first + v * L;
            for (std::int64_t b = sample; b < sample + L && b < a.batch; ++b) {
                static_cast<T*>(a.y)[b * a.outputs + output + r] = result[b - sample];
                if (a.before != nullptr)
                    static_cast<T*>(a.before)[b * a.outputs + output + r] = total[r][v][b - sample];
            }
        }
}

template <class T, int Outputs>
void outputs_of_all(const SkinnyLinear& a, std::int64_t output, const T* packed) {
    constexpr int L = lanes<T>;
    std::int64_t first = 0;
    for (; first + L < a.batch; first += kSampleVectors * L)
        outputs_of<T, Outputs, kSampleVectors>(a, output, first, packed);
    if (first < a.batch) outputs_of<T, Outputs, 1>(a, output, first, packed);
}

template <class T>
void forward(const SkinnyLinear& a, std::int64_t group_begin, std::int64_t group_end, const void* packed) {
    const T* x = static_cast<const T*>(packed);
    std::int64_t output = group_begin * kLinearGroup;
    const std::int64_t end = group_end * kLinearGroup < a.outputs ? group_end * kLinearGroup : a.outputs;
    for (; output + kOutputs <= end; output += kOutputs) outputs_of_all<T, kOutputs>(a, output, x);
    for (; output < end; ++output) outputs_of_all<T, 1>(a, output, x);
}

}  // namespace

extern const SkinnyLinearForwardKernels skinny_linear_forward_kernels[2] = {
    {packed_size<float>, pack<float>, forward<float>},
    {packed_size<double>, pack<double>, forward<double>},
};

}  // namespace spectrafuse::SPECTRAFUSE_ISA
