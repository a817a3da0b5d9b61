# The CUDA kernels on a CPU, for tests: csrc/cuda as C++ with every CUDA thread a fiber (tests/emulated_cuda), as a
# module of its own in build/emulated_cuda that no wheel holds.
set(emulation ${CMAKE_SOURCE_DIR}/tests/emulated_cuda)
set(translated ${CMAKE_BINARY_DIR}/emulated_cuda)
file(MAKE_DIRECTORY ${translated})
foreach(folder bindings common)
  file(CREATE_LINK ${csrc}/${folder} ${translated}/${folder} SYMBOLIC)
endforeach()
file(GLOB originals CONFIGURE_DEPENDS ${csrc}/cuda/*)
file(GLOB emulated_names RELATIVE ${csrc} CONFIGURE_DEPENDS ${csrc}/cuda/*)
list(TRANSFORM emulated_names PREPEND ${translated}/)
add_custom_command(OUTPUT ${emulated_names} DEPENDS ${originals} ${emulation}/translate.py
                   COMMAND ${Python_EXECUTABLE} ${emulation}/translate.py ${csrc}/cuda ${translated}/cuda)
set(emulated_kernels ${emulated_names})
list(FILTER emulated_kernels INCLUDE REGEX "[.]cu$")
# All that is not a kernel is included in one.
set_source_files_properties(${emulated_kernels} PROPERTIES LANGUAGE CXX OBJECT_DEPENDS "${emulated_names}"
                            COMPILE_OPTIONS "-xc++;-include;cuda_runtime.h;-D__CUDACC__;-Wno-unknown-pragmas")
list(TRANSFORM emulated_kernels REPLACE ".*/cuda/(.*)[.]cu$" "${csrc}/bindings/\\1.cpp" OUTPUT_VARIABLE emulated_bindings)
pybind11_add_module(_emulated_cuda MODULE ${csrc}/bindings/module.cpp ${emulated_bindings} ${emulated_kernels}
                    ${emulation}/emulator.cpp ${emulation}/bindings.cpp)
target_include_directories(_emulated_cuda PRIVATE ${emulation} ${csrc})
target_compile_definitions(_emulated_cuda PRIVATE SPECTRAFUSE_PYTHON SPECTRAFUSE_FOR_CUDA SPECTRAFUSE_MODULE=_emulated_cuda
                                                  SPECTRAFUSE_CUDA_ARCHITECTURES="emulated")
compile_bindings_together(_emulated_cuda)
# Compiled in seconds, and fast enough.
target_compile_options(_emulated_cuda PRIVATE ${warnings} -O1)
set_target_properties(_emulated_cuda PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_SOURCE_DIR}/build/emulated_cuda)
