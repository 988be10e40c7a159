# One interface target carries the flags that every target of ours is built with.
add_library(rtlynx_warnings INTERFACE)
target_compile_options(rtlynx_warnings INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow -Wnon-virtual-dtor -Wconversion -Wno-sign-conversion -Werror>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # A false alarm on "x" + std::string, GCC's bug 105651.
  target_compile_options(rtlynx_warnings INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict>)
endif()
if(RTLYNX_SANITIZE)
  target_compile_options(rtlynx_warnings INTERFACE
    -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -D_GLIBCXX_ASSERTIONS)
  target_link_options(rtlynx_warnings INTERFACE -fsanitize=address,undefined)
endif()
