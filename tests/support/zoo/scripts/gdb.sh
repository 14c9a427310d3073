cat >crash.c <<'END'
#include <stdlib.h>
void deep(int level) {
    if (level == 0) abort();
    deep(level - 1);
}
int main(void) { deep(3); }
END
gcc -g -O0 crash.c -o crash
gdb -q -batch -ex run -ex 'bt -frame-arguments all' ./crash
