#include "../common/philox.h"

#include "bindings.h"

namespace spectrafuse {

namespace {

// Words of the stream (seed, step) as int64 values, the type torch computes with.
void bound_words(std::uint64_t seed, std::uint64_t step, std::int64_t count, Address out) {
    std::int64_t* words = pointer<std::int64_t>(out);
    const py::gil_scoped_release release;
    for (std::int64_t i = 0; i < count; i += 4) {
        const PhiloxBlock block = stream_block(seed, step, static_cast<std::uint64_t>(i / 4));
        for (std::int64_t j = i; j < i + 4 && j < count; ++j) words[j] = block.word[j - i];
    }
}

}  // namespace

void bind_philox(py::module_& m) { m.def("philox_words", &bound_words); }

}  // namespace spectrafuse
