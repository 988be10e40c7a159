# CUDA for RTLYNX_CUDA: one architecture, sm_90a, because wgmma and setmaxnreg exist nowhere else.
# No PTX is embedded: another GPU is refused by name at run time instead of running code it cannot execute.
set(CMAKE_CUDA_ARCHITECTURES 90a-real)
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  find_program(RTLYNX_NVCC nvcc HINTS /usr/local/cuda/bin)
  set(CMAKE_CUDA_COMPILER "${RTLYNX_NVCC}")
endif()
enable_language(CUDA)
# CMake 3.25 does not know that nvcc 13 accepts C++20.
set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_EXTENSIONS OFF)
find_package(CUDAToolkit REQUIRED)
