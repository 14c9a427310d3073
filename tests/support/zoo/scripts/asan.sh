cat >right.c <<'END'
#include <stdio.h>
#include <stdlib.h>
int main(int argc, char **argv) {
    int *all = malloc(8 * sizeof *all);
    for (int i = 0; i < 8; i++) all[i] = i * argc;
    printf("last: %d\n", all[7]);
    free(all);
}
END
cat >wrong.c <<'END'
#include <stdlib.h>
int main(int argc, char **argv) {
    char *all = malloc(8);
    return all[7 + argc];
}
END
gcc -g -fsanitize=address,undefined right.c -o right
gcc -g -fsanitize=address wrong.c -o wrong
# Leaks are looked for at the end of a program that is right.
./right
./wrong 2>report || true
grep -o 'AddressSanitizer: heap-buffer-overflow' report
