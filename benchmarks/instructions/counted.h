// How the one file of an operation brings its own case into the driver, and what a case is.
//
//     SPECTRAFUSE_COUNTED(operation, forward) { ...made inputs...; return [=] { operation(...); }; }
#pragma once

#include <functional>
#include <map>
#include <string>

#include "../../csrc/common/address.h"
#include "inputs.h"

namespace spectrafuse {

using Run = std::function<void()>;
inline Address address(const void* memory) { return {reinterpret_cast<std::uintptr_t>(memory)}; }

using Cases = std::map<std::string, Run (*)()>;

inline Cases& cases_of_files() {
    static Cases all;
    return all;
}

struct CaseOfFile {
    CaseOfFile(const char* name, Run (*make)()) { cases_of_files()[name] = make; }
};

#define SPECTRAFUSE_COUNTED(operation, direction)                                                               \
    static Run operation##_##direction();                                                                       \
    static const CaseOfFile operation##_##direction##_case{#operation " " #direction, operation##_##direction}; \
    static Run operation##_##direction()

}  // namespace spectrafuse
