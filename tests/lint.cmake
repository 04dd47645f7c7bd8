# Rules that a compiler does not check, over the sources: cmake -DROOT=<source root> -P tests/lint.cmake
#  - .cu files start kernels through launch() and take shared memory through launch.h's accessors, so that they also
#    run under tests/simt;
#  - includes point one way: tools -> distill -> models, data -> engine -> kernels;
#  - only kernels/cuda knows CUDA's headers.
set(problems "")

function(complain file pattern reason)
  file(STRINGS ${ROOT}/${file} lines REGEX "${pattern}")
  foreach(line IN LISTS lines)
    string(STRIP "${line}" line)
    if(NOT line MATCHES "^//")
      string(APPEND problems "${file}: ${reason}: ${line}\n")
    endif()
  endforeach()
  set(problems "${problems}" PARENT_SCOPE)
endfunction()

function(sources_of folder result)
  file(GLOB_RECURSE files RELATIVE ${ROOT} ${ROOT}/${folder}/*.h ${ROOT}/${folder}/*.cpp ${ROOT}/${folder}/*.cu)
  set(${result} ${files} PARENT_SCOPE)
endfunction()

sources_of(kernels/cuda files)
foreach(file ${files})
  complain(${file} "<<<" "starts a kernel without launch()")
  if(NOT file STREQUAL "kernels/cuda/launch.h")
    complain(${file} "extern +__shared__" "takes shared memory without dynamic_shared()")
  endif()
  if(file MATCHES "\\.cu$")
    complain(${file} "(^|[ \t])__shared__" "takes shared memory without RETORT_SHARED")
    complain(${file} "asm *(volatile)? *\\(" "has inline PTX, which does not run under tests/simt")
  endif()
endforeach()

# What each folder may not include.
set(rules
  "kernels:engine|models|data|distill|tools|tests"
  "engine:models|data|distill|tools|tests"
  "models:data|distill|tools|tests"
  "data:models|distill|tools|tests"
  "distill:tools|tests"
  "tools:tests")
foreach(rule ${rules})
  string(REGEX MATCH "^([a-z]+):(.*)$" _ ${rule})
  set(folder ${CMAKE_MATCH_1})
  set(forbidden ${CMAKE_MATCH_2})
  sources_of(${folder} files)
  foreach(file ${files})
    if(NOT file STREQUAL "kernels/cuda/launch.h")  # under RETORT_SIMT it is the harness that stands in for CUDA
      complain(${file} "#include +[\"<](${forbidden})/" "includes point the wrong way")
    endif()
    if(NOT file MATCHES "^kernels/cuda/")
      complain(${file} "#include +[\"<](cuda|cudnn|cublas)[a-zA-Z0-9_]*\\.h" "CUDA belongs into kernels/cuda")
    endif()
    if(NOT folder STREQUAL "kernels")
      complain(${file} "#include +[\"<]kernels/(cuda|cpu)/" "includes what belongs to one backend")
    endif()
  endforeach()
endforeach()

if(problems)
  message("${problems}")
  message(FATAL_ERROR "lint: see above")
endif()
