# Warnings (-Wrestrict misfires on std::string in GCC 12), sanitizers, ccache, and the helper that makes a library.
find_program(RETORT_CCACHE ccache)
if(RETORT_CCACHE AND NOT RETORT_PRECOMPILE)  # it cannot keep what was compiled with precompiled headers
  set(CMAKE_CXX_COMPILER_LAUNCHER ${RETORT_CCACHE})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${RETORT_CCACHE})
endif()

add_library(retort_options INTERFACE)
target_compile_features(retort_options INTERFACE cxx_std_20)
target_include_directories(retort_options INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>)
target_compile_options(retort_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow -Wno-psabi -Wno-restrict>)
if(RETORT_NATIVE)
  target_compile_options(retort_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-march=native>)
endif()
if(RETORT_ASAN)
  target_compile_options(retort_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=address,undefined -fno-omit-frame-pointer -g>)
  target_link_options(retort_options INTERFACE -fsanitize=address,undefined)
endif()

# What most sources include and what takes a compiler longest to read.
set(RETORT_COMMON_HEADERS <algorithm> <cmath> <filesystem> <fstream> <functional> <map> <memory> <string> <vector>
                          <fmt/format.h> <fmt/ranges.h>)

# retort_library(engine SOURCES... DEPENDS...): static library retort_engine, alias retort::engine.
function(retort_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;PUBLIC;PRIVATE" ${ARGN})
  add_library(retort_${name} STATIC ${ARG_SOURCES})
  add_library(retort::${name} ALIAS retort_${name})
  set_target_properties(retort_${name} PROPERTIES EXPORT_NAME ${name})
  target_link_libraries(retort_${name} PUBLIC ${ARG_PUBLIC} PRIVATE $<BUILD_INTERFACE:retort_options> ${ARG_PRIVATE})
  target_compile_features(retort_${name} PUBLIC cxx_std_20)
  target_include_directories(retort_${name} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  if(RETORT_PRECOMPILE)  # GCC 12 takes what it finds in precompiled headers for ours, and misfires there
    target_precompile_headers(retort_${name} PRIVATE ${RETORT_COMMON_HEADERS})
    target_compile_options(retort_${name} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:-Wno-array-bounds;-Wno-stringop-overflow>")
  endif()
endfunction()
