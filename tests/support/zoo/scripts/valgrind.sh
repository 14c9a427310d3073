cat >leak.c <<'END'
#include <stdlib.h>
int main(void) {
    void *volatile lost = malloc(42);
    lost = NULL;
    return lost != NULL;
}
END
gcc -g leak.c -o leak
valgrind --leak-check=full ./leak 2>&1 | tee report
