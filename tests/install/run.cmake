# cmake -DBUILD=<build of Retort> -DGENERATOR=<its generator> -DIMAGES=<folder of pictures> -DWORK=<scratch> -P run.cmake
# Installs; trains two steps with the installed program and a config that it finds by name; builds the installed example
# as a project of its own, which classifies a picture with the network.
file(REMOVE_RECURSE ${WORK})
file(MAKE_DIRECTORY ${WORK})
set(prefix ${WORK}/prefix)
function(run expected)
  execute_process(COMMAND ${ARGN} WORKING_DIRECTORY ${WORK} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT result EQUAL 0 OR NOT output MATCHES "${expected}")
    message(FATAL_ERROR "${ARGN}: ${result}, expected \"${expected}\" in:\n${output}")
  endif()
endfunction()
run("" ${CMAKE_COMMAND} --install ${BUILD} --prefix ${prefix})
run("test, last checkpoint" ${prefix}/bin/train quickstart_teacher.cfg --set data.dataset=shapes --set data.validation=0
  --set data.fraction=0.01 --set model.arch=resnet8 --set train.max_steps=2 --set device=cpu)
run("" ${CMAKE_COMMAND} -G ${GENERATOR} -S ${prefix}/share/retort/examples/classify -B ${WORK}/build
  -DCMAKE_PREFIX_PATH=${prefix} -DCMAKE_BUILD_TYPE=Release)
run("" ${CMAKE_COMMAND} --build ${WORK}/build)
run("420.jpg: [a-z_]+, [0-9.]+ %" ${WORK}/build/classify runs/quickstart-teacher ${IMAGES}/420.jpg)

# No header may reach for another project's folders: all that they include of one another is below retort/.
file(GLOB_RECURSE headers ${prefix}/include/retort/*.h)
foreach(header IN LISTS headers)
  file(STRINGS ${header} bare REGEX "#include \"(kernels|engine|models|data|distill)/")
  if(bare)
    message(FATAL_ERROR "${header}: ${bare}")
  endif()
endforeach()
