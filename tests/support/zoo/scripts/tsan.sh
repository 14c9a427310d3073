cat >race.c <<'END'
#include <pthread.h>
#include <stdio.h>
int count;
void *add(void *unused) {
    count++;
    return unused;
}
int main(void) {
    pthread_t one, two;
    pthread_create(&one, NULL, add, NULL);
    pthread_create(&two, NULL, add, NULL);
    pthread_join(one, NULL);
    pthread_join(two, NULL);
    printf("count: %d\n", count);
}
END
gcc -g -fsanitize=thread race.c -o race
./race 2>report || true
grep -o -m1 'ThreadSanitizer: data race' report || { cat report; exit 1; }
