# Run by cmake --install: the libraries' headers go below <prefix>/include/retort, and what they include of one another
# is called as it is found there, <retort/engine/tensor.h> and not "engine/tensor.h": a project of its own may have a
# folder of that name. Expects SOURCE, DESTINATION (both whole paths) and LIBRARIES.
foreach(library IN LISTS LIBRARIES)
  file(GLOB_RECURSE headers RELATIVE ${SOURCE} ${SOURCE}/${library}/*.h)
  list(FILTER headers EXCLUDE REGEX "^kernels/(cpu|cuda|no_cuda)/")
  foreach(header IN LISTS headers)
    file(READ ${SOURCE}/${header} text)
    foreach(other IN LISTS LIBRARIES)
      string(REPLACE "#include \"${other}/" "#include \"retort/${other}/" text "${text}")
    endforeach()
    file(WRITE ${DESTINATION}/retort/${header} "${text}")
    list(APPEND CMAKE_INSTALL_MANIFEST_FILES ${DESTINATION}/retort/${header})
  endforeach()
endforeach()
