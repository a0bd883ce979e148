// ring FILE send|receive COUNT: passes messages through a file that both sides have mapped, and says at the end how many were good.
//
//   0      uint64: how many were sent; 64: how many were received; 128: how many may be sent, which somebody else says
//   4096   2048 messages of 64 bytes, eight words that follow from the number of the message
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SLOTS = 2048, WORDS = 8, FIRST = 4096, BYTES = FIRST + SLOTS * WORDS * 8 };

static void wait_for(_Atomic uint64_t *position, uint64_t until) {
    while ((int64_t)(atomic_load_explicit(position, memory_order_acquire) - until) < 0) {
        sched_yield();
    }
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: ring FILE send|receive COUNT\n");
        return 2;
    }
    int file = open(argv[1], O_RDWR);
    char *memory = file < 0 ? MAP_FAILED : mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (memory == MAP_FAILED) {
        perror(argv[1]);
        return 1;
    }
    int sends = strcmp(argv[2], "send") == 0;
    uint64_t count = strtoull(argv[3], NULL, 10), good = 0;
    _Atomic uint64_t *sent = (_Atomic uint64_t *)memory, *received = (_Atomic uint64_t *)(memory + 64);
    _Atomic uint64_t *allowed = (_Atomic uint64_t *)(memory + 128);
    for (uint64_t number = 0; number < count; number++) {
        volatile uint64_t *message = (volatile uint64_t *)(memory + FIRST + number % SLOTS * WORDS * 8);
        uint64_t first = number * 0x9E3779B97F4A7C15u;
        if (sends) {
            wait_for(allowed, number + 1);
            wait_for(received, number - SLOTS + 1);
            for (int i = 0; i < WORDS; i++) {
                message[i] = first + i;
            }
            atomic_store_explicit(sent, number + 1, memory_order_release);
            good++;
        } else {
            wait_for(sent, number + 1);
            int right = 1;
            for (int i = 0; i < WORDS; i++) {
                right &= message[i] == first + i;
            }
            good += right;
            atomic_store_explicit(received, number + 1, memory_order_release);
        }
    }
    printf("%llu\n", (unsigned long long)good);
    return 0;
}
