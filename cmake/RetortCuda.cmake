# Decides whether CUDA is built: sets RETORT_WITH_CUDA and says in one line what was found or what is missing.
# RETORT_CUDA: OFF, AUTO (where toolkit and cuDNN are found), ON (an error where they are not), or STANDIN: the CUDA
# backend compiled by the C++ compiler and linked with tests/device, which executes it on the CPU (docs/testing.md).
# STANDIN needs the headers of toolkit and cuDNN, neither nvcc nor a library, and sets RETORT_STANDIN too.
# CMAKE_CUDA_ARCHITECTURES defaults to 80;90 (A100, H100/H200); newer devices run it through PTX.
set(RETORT_WITH_CUDA OFF)
set(RETORT_STANDIN OFF)
if(RETORT_CUDA STREQUAL "OFF")
  message(STATUS "Retort: built without CUDA (RETORT_CUDA=OFF)")
  return()
endif()

if(RETORT_CUDA STREQUAL "STANDIN")
  find_path(RETORT_CUDART_INCLUDE_DIR cuda_runtime_api.h HINTS ENV CUDA_HOME ENV CUDA_PATH PATH_SUFFIXES include PATHS /usr/local/cuda)
  find_path(CUDNN_INCLUDE_DIR cudnn_version.h HINTS ${RETORT_CUDART_INCLUDE_DIR})
  mark_as_advanced(RETORT_CUDART_INCLUDE_DIR)
  if(NOT RETORT_CUDART_INCLUDE_DIR OR NOT EXISTS ${RETORT_CUDART_INCLUDE_DIR}/cublasLt.h OR NOT CUDNN_INCLUDE_DIR)
    message(FATAL_ERROR "Retort: RETORT_CUDA=STANDIN needs cuda_runtime_api.h, cublasLt.h and cudnn.h: install the toolkit's "
      "headers (cuda-cudart-dev, libcublas-dev) and cuDNN's (libcudnn9-dev), or set RETORT_CUDART_INCLUDE_DIR and CUDNN_INCLUDE_DIR")
  endif()
  set(RETORT_WITH_CUDA ON)
  set(RETORT_STANDIN ON)
  # Of what sees the backend's headers or CUDA's.
  add_library(retort_standin INTERFACE)
  target_compile_definitions(retort_standin INTERFACE RETORT_SIMT RETORT_STANDIN)
  target_include_directories(retort_standin SYSTEM INTERFACE ${RETORT_CUDART_INCLUDE_DIR} ${CUDNN_INCLUDE_DIR})
  message(STATUS "Retort: the CUDA backend on a stand-in device (headers from ${RETORT_CUDART_INCLUDE_DIR} and ${CUDNN_INCLUDE_DIR})")
  return()
endif()

# Sets retort_cuda_problem to one clause with its remedy, or leaves it empty and CUDA enabled. A macro, because
# enable_language must not be called in a function.
macro(retort_find_cuda)
  set(retort_cuda_problem "")
  find_program(RETORT_NVCC nvcc HINTS ENV CUDACXX ENV CUDA_HOME ENV CUDA_PATH PATH_SUFFIXES bin PATHS /usr/local/cuda)
  mark_as_advanced(RETORT_NVCC)
  if(NOT CMAKE_CUDA_COMPILER AND NOT RETORT_NVCC)
    set(retort_cuda_problem "nvcc was not found: install the CUDA toolkit 12.0 or newer, or set CMAKE_CUDA_COMPILER to its nvcc")
  else()
    if(NOT CMAKE_CUDA_COMPILER)
      set(CMAKE_CUDA_COMPILER ${RETORT_NVCC} CACHE FILEPATH "CUDA compiler")
    endif()
    # Asked before CMake's own checks, which fail with pages of output on a compiler they cannot use.
    execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --version OUTPUT_VARIABLE retort_nvcc_says ERROR_QUIET)
    string(REGEX MATCH "release ([0-9]+\\.[0-9]+)" _ "${retort_nvcc_says}")
    if(NOT CMAKE_MATCH_1)
      set(retort_cuda_problem "${CMAKE_CUDA_COMPILER} does not tell its version: set CMAKE_CUDA_COMPILER to the nvcc of CUDA 12.0 or newer")
    elseif(CMAKE_MATCH_1 VERSION_LESS 12.0)
      set(retort_cuda_problem "CUDA ${CMAKE_MATCH_1} is too old: install CUDA 12.0 or newer, or set CMAKE_CUDA_COMPILER to its nvcc")
    endif()
  endif()
  if(NOT retort_cuda_problem)
    if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
      set(CMAKE_CUDA_ARCHITECTURES "80;90" CACHE STRING "CUDA architectures to compile for")
    endif()
    find_package(CUDAToolkit QUIET)
    find_path(CUDNN_INCLUDE_DIR cudnn_version.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
    find_library(CUDNN_LIBRARY NAMES cudnn libcudnn.so.9
                 HINTS ${CUDAToolkit_LIBRARY_DIR} ${CUDAToolkit_LIBRARY_ROOT}/lib ${CUDAToolkit_LIBRARY_ROOT}/lib64)
    if(CUDNN_INCLUDE_DIR)
      # cudnn_version.h may only include cudnn_version_v9.h.
      set(retort_cudnn_version "")
      file(GLOB retort_cudnn_headers ${CUDNN_INCLUDE_DIR}/cudnn_version*.h)
      foreach(header ${retort_cudnn_headers})
        file(READ ${header} retort_cudnn_header)
        if(retort_cudnn_header MATCHES "#define CUDNN_MAJOR +([0-9]+)[^#]*#define CUDNN_MINOR +([0-9]+)")
          set(retort_cudnn_version ${CMAKE_MATCH_1}.${CMAKE_MATCH_2})
        endif()
      endforeach()
    endif()
    if(NOT CUDAToolkit_FOUND OR NOT TARGET CUDA::cublasLt)
      set(retort_cuda_problem "cuBLAS was not found beside ${CMAKE_CUDA_COMPILER}: install the toolkit's cuBLAS package (libcublas-dev)")
    elseif(NOT CUDNN_INCLUDE_DIR OR NOT CUDNN_LIBRARY)
      set(retort_cuda_problem "cuDNN was not found: install cuDNN 9.8 or newer (libcudnn9-dev-cuda-${CUDAToolkit_VERSION_MAJOR}), or set CUDNN_INCLUDE_DIR and CUDNN_LIBRARY")
    elseif(retort_cudnn_version VERSION_LESS 9.8)
      set(retort_cuda_problem "cuDNN ${retort_cudnn_version} in ${CUDNN_INCLUDE_DIR} is too old: install cuDNN 9.8 or newer, or set CUDNN_INCLUDE_DIR and CUDNN_LIBRARY")
    endif()
  endif()
endmacro()

retort_find_cuda()
if(retort_cuda_problem)
  if(RETORT_CUDA STREQUAL "ON")
    message(FATAL_ERROR "Retort: RETORT_CUDA=ON, but ${retort_cuda_problem}")
  endif()
  message(STATUS "Retort: built without CUDA (${retort_cuda_problem})")
  return()
endif()

enable_language(CUDA)
set(RETORT_WITH_CUDA ON)
set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)  # as cuDNN and cuBLAS have it: one runtime in a process, not two
# CMake 3.25.1 (Debian 12) does not know that nvcc 12 and newer take C++20.
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
endif()
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_EXTENSIONS OFF)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
# fmt takes nvcc for a compiler without constexpr, and then its own headers do not compile as C++20.
target_compile_options(retort_options INTERFACE
  $<$<COMPILE_LANGUAGE:CUDA>:-DFMT_USE_CONSTEXPR=1 -Xcompiler=-Wall,-Wextra,-Wshadow>)
message(STATUS "Retort: CUDA ${CMAKE_CUDA_COMPILER_VERSION} for architectures ${CMAKE_CUDA_ARCHITECTURES}, cuDNN ${retort_cudnn_version} (${CUDNN_LIBRARY})")
