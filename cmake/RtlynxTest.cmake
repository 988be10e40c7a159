include(GoogleTest)

# rtlynx_add_test(name SOURCES a.cpp ... LIBS rtlynx::kernels ... [LABELS ...])
# One GoogleTest executable; every TEST becomes a ctest entry. A test that needs a GPU skips itself with a reason.
function(rtlynx_add_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;LIBS;LABELS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_LIBS} rtlynx_warnings GTest::gtest GTest::gtest_main)
  target_include_directories(${name} PRIVATE "${PROJECT_SOURCE_DIR}/src" "${PROJECT_SOURCE_DIR}")
  target_compile_definitions(${name} PRIVATE RTLYNX_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST
    PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}" ENVIRONMENT "OMP_WAIT_POLICY=passive")
endfunction()

# rtlynx_add_pytest(name file.py [LABELS ...]): one pytest file as one ctest entry.
# The executables under test are found through RTLYNX_BIN_DIR. OpenMP waits without spinning: on a busy machine a run of
# models/mini-flux with 2 threads took 13 s with spinning and 3 s without.
function(rtlynx_add_pytest name file)
  cmake_parse_arguments(ARG "" "TIMEOUT" "LABELS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 900)
  endif()
  add_test(NAME ${name}
    COMMAND "${RTLYNX_PYTHON}" -m pytest -q -p no:cacheprovider "${CMAKE_CURRENT_SOURCE_DIR}/${file}"
    WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}")
  set_tests_properties(${name} PROPERTIES
    TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}"
    ENVIRONMENT "RTLYNX_BIN_DIR=${CMAKE_RUNTIME_OUTPUT_DIRECTORY};OMP_WAIT_POLICY=passive")
endfunction()
