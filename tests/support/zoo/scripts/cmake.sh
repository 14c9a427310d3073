cat >CMakeLists.txt <<'END'
cmake_minimum_required(VERSION 3.20)
project(zoo C)
enable_testing()
add_library(answer STATIC answer.c)
add_executable(check check.c)
target_link_libraries(check answer)
add_test(NAME check COMMAND check)
END
echo 'int answer(void) { return 42; }' >answer.c
echo 'int answer(void); int main(void) { return answer() != 42; }' >check.c
cmake -G Ninja -S . -B out >configured
cmake --build out -j 2
ctest --test-dir out --output-on-failure
