# cmake --install: the programs, and the libraries with a package config, so that another project can write
#   find_package(retort REQUIRED)
#   target_link_libraries(mine PRIVATE retort::distill)     # or ::engine, ::models, ::data, ::kernels
include(CMakePackageConfigHelpers)
set(retort_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/retort)

install(TARGETS retort_kernels retort_engine retort_models retort_data retort_distill EXPORT retort
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT retort NAMESPACE retort:: FILE retortTargets.cmake DESTINATION ${retort_package_dir})
foreach(library kernels engine models data distill)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/${library} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/retort
    FILES_MATCHING PATTERN "*.h" PATTERN "cpu" EXCLUDE PATTERN "cuda" EXCLUDE PATTERN "no_cuda" EXCLUDE)
endforeach()
install(DIRECTORY ${PROJECT_SOURCE_DIR}/configs/ DESTINATION ${CMAKE_INSTALL_DATADIR}/retort/configs)

configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/retortConfig.cmake.in
  ${PROJECT_BINARY_DIR}/retortConfig.cmake INSTALL_DESTINATION ${retort_package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/retortConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/retortConfig.cmake ${PROJECT_BINARY_DIR}/retortConfigVersion.cmake
  ${CMAKE_CURRENT_LIST_DIR}/FindOnnxProto.cmake DESTINATION ${retort_package_dir})

# bash loads the completion of a command from the file of that name. `export` is a word of bash's own.
foreach(program train distill evaluate predict runs dataset)
  install(FILES ${PROJECT_SOURCE_DIR}/tools/completion/retort.bash RENAME ${program}
    DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
endforeach()
