// What crosses from Python in place of a tensor: its address, its sizes and its strides.
#pragma once

#include <array>
#include <cstdint>

namespace spectrafuse {

// Of a tensor or of none; becomes the pointer that is asked for.
struct Address {
    std::uintptr_t number;
    template <class T>
    operator T*() const {
        return reinterpret_cast<T*>(number);
    }
};

template <std::size_t count>
using Addresses = std::array<Address, count>;
template <std::size_t count>
using Sizes = std::array<std::int64_t, count>;

}  // namespace spectrafuse
