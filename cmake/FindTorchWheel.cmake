# libtorch out of the PyPI wheel, as the imported target Torch::Torch.
# torch's own TorchConfig.cmake is not used: it enables CUDA by itself, ignores CMAKE_CUDA_ARCHITECTURES
# and fails without a GPU. The wheel's folder is asked of Python; set Python or TORCH_WHEEL_DIR to choose another.
if(NOT TORCH_WHEEL_DIR)
  find_program(RTLYNX_PYTHON NAMES python3 HINTS "${PROJECT_SOURCE_DIR}/.venv/bin" NO_DEFAULT_PATH)
  find_program(RTLYNX_PYTHON NAMES python3)
  execute_process(
    COMMAND "${RTLYNX_PYTHON}" -c
      "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
    OUTPUT_VARIABLE TORCH_WHEEL_DIR OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  set(TORCH_WHEEL_DIR "${TORCH_WHEEL_DIR}" CACHE PATH "torch's folder in site-packages")
endif()

include(FindPackageHandleStandardArgs)
find_path(TORCH_INCLUDE_DIR ATen/ATen.h HINTS "${TORCH_WHEEL_DIR}/include" NO_DEFAULT_PATH)
find_library(TORCH_CPU_LIBRARY torch_cpu HINTS "${TORCH_WHEEL_DIR}/lib" NO_DEFAULT_PATH)
find_package_handle_standard_args(TorchWheel
  REQUIRED_VARS TORCH_CPU_LIBRARY TORCH_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "install the pinned wheel: pip install -r requirements.txt, in .venv")

if(TorchWheel_FOUND AND NOT TARGET Torch::Torch)
  set(TORCH_LIB_DIR "${TORCH_WHEEL_DIR}/lib")
  # The wheel's CUDA libraries come as sibling wheels; libtorch names them by rpath relative to itself.
  add_library(Torch::Torch INTERFACE IMPORTED)
  target_include_directories(Torch::Torch SYSTEM INTERFACE
    "${TORCH_INCLUDE_DIR}" "${TORCH_INCLUDE_DIR}/torch/csrc/api/include")
  # The wheel brings fmt's headers, a newer version than Debian's library, and its folder is searched first:
  # header-only, they need no library, and both versions keep to namespaces of their own.
  target_compile_definitions(Torch::Torch INTERFACE _GLIBCXX_USE_CXX11_ABI=1 FMT_HEADER_ONLY=1)
  set(_torch_libs "${TORCH_LIB_DIR}/libtorch_cpu.so" "${TORCH_LIB_DIR}/libc10.so")
  if(EXISTS "${TORCH_LIB_DIR}/libtorch_cuda.so")
    # torch_cuda registers its kernels when it is loaded; nothing refers to it by name, hence no-as-needed.
    list(APPEND _torch_libs "${TORCH_LIB_DIR}/libtorch_cuda.so" "${TORCH_LIB_DIR}/libc10_cuda.so")
  endif()
  target_link_options(Torch::Torch INTERFACE
    "LINKER:--no-as-needed" "LINKER:-rpath,${TORCH_LIB_DIR}" "LINKER:--allow-shlib-undefined")
  target_link_libraries(Torch::Torch INTERFACE ${_torch_libs})
endif()
