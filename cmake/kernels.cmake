# The CPU kernels, for the extension and for the driver that counts instructions: `warnings`, `optimisation` (a caller's
# stands), and in `kernel_sources` all there is to link.
set(csrc ${CMAKE_CURRENT_LIST_DIR}/../csrc)
set(CMAKE_CXX_STANDARD 17)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

set(warnings -Wall -Wextra)
if(SPECTRAFUSE_WERROR)
  list(APPEND warnings -Werror)
endif()
if(NOT DEFINED optimisation)
  set(optimisation -O3)
endif()
option(SPECTRAFUSE_REPEAT_WORK "Let kernels repeat a share of their work, set at run time: does a benchmark notice?" OFF)
if(SPECTRAFUSE_REPEAT_WORK)
  add_compile_definitions(SPECTRAFUSE_REPEAT_WORK)
endif()

find_package(OpenMP REQUIRED COMPONENTS CXX)

# Compiled once per instruction set; csrc/cpu/isa.cpp picks one at run time. The rest of an operation is in its
# <operation>_launch.cpp, or in the same file for the first of the compilations.
file(GLOB kernels CONFIGURE_DEPENDS ${csrc}/cpu/*.cpp)
# Random numbers are the same bits everywhere: what is to be rounded once is written so, and nothing else is.
file(GLOB exact CONFIGURE_DEPENDS ${csrc}/cpu/random_*.cpp ${csrc}/cpu/sparse_gated_mixture*.cpp)
set_source_files_properties(${exact} PROPERTIES COMPILE_OPTIONS -ffp-contract=off)
file(GLOB launchers CONFIGURE_DEPENDS ${csrc}/cpu/*_launch.cpp)
list(REMOVE_ITEM kernels ${launchers} ${csrc}/cpu/isa.cpp)
set(kernel_objects)
function(add_kernels isa)
  add_library(kernels_${isa} OBJECT ${kernels})
  # Without -fno-math-errno a square root is a call; the vector types' calling convention never leaves a file.
  target_compile_options(kernels_${isa} PRIVATE ${warnings} ${optimisation} -fno-math-errno -fno-trapping-math
                                                -fno-stack-protector -Wno-psabi ${ARGN})
endfunction()
add_kernels(baseline)
# The launcher of an operation whose launcher is in the file of its kernels: without instructions a machine may lack.
target_compile_definitions(kernels_baseline PRIVATE SPECTRAFUSE_LAUNCHER)
list(APPEND kernel_objects $<TARGET_OBJECTS:kernels_baseline>)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  add_kernels(avx2 -mavx2 -mfma)
  add_kernels(avx512 -mavx512f -mavx512dq -mavx512bw -mavx512vl -mfma -mprefer-vector-width=512)
  list(APPEND kernel_objects $<TARGET_OBJECTS:kernels_avx2> $<TARGET_OBJECTS:kernels_avx512>)
  add_compile_definitions(SPECTRAFUSE_X86_KERNELS)
endif()
set(kernel_sources ${csrc}/cpu/isa.cpp ${launchers} ${kernel_objects})
