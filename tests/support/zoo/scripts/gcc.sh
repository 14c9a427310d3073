cat >threads.cpp <<'END'
#include <cstdio>
#include <future>
#include <vector>
int main() {
    std::vector<std::future<int>> parts;
    for (int i = 1; i <= 8; i++) parts.push_back(std::async(std::launch::async, [i] { return i * i; }));
    int sum = 0;
    for (auto& part : parts) sum += part.get();
    std::printf("squares: %d\n", sum);
}
END
g++ -O2 -Wall -flto=2 -pthread threads.cpp -o threads
./threads
