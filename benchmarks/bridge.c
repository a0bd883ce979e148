// Measures two directories against each other: slices of one operation, in turn on one and on the other, so that whatever else
// the machine does hits both alike. Prints for each operation and number of threads the median of the ratios of neighbours,
// and the quartiles.
//
// usage: bridge DIR REFERENCE [SLICE-MILLISECONDS [PAIRS]]
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MOST_THREADS = 4, MOST_PAIRS = 101, FILE_BYTES = 4 << 20, BLOCK = 4096 };

typedef struct {
    const char *directory;
    void (*operation)(int file, const char *name, unsigned *state);
    int number;
    long count;
} Worker;

static atomic_int go;
static atomic_int stop;

static void fail(const char *what)
{
    fprintf(stderr, "bridge: %s: %s\n", what, strerror(errno));
    exit(1);
}

static unsigned next(unsigned *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static void read_block(int file, const char *name, unsigned *state)
{
    char block[BLOCK];
    (void)name;
    off_t offset = (off_t)(next(state) % (FILE_BYTES / BLOCK)) * BLOCK;
    if (pread(file, block, BLOCK, offset) != BLOCK || *(off_t *)block != offset) {
        fail("read, or what was read is wrong");
    }
}

static void stat_file(int file, const char *name, unsigned *state)
{
    struct stat status;
    (void)file, (void)name, (void)state;
    if (fstatat(AT_FDCWD, name, &status, 0) != 0 || status.st_size != FILE_BYTES) {
        fail("stat, or the size is wrong");
    }
}

static void create_file(int file, const char *name, unsigned *state)
{
    char path[4096];
    (void)file;
    snprintf(path, sizeof path, "%s.%u", name, next(state) % 100);
    int made = open(path, O_CREAT | O_WRONLY, 0644);
    if (made < 0 || close(made) != 0 || unlink(path) != 0) {
        fail("create, close, unlink");
    }
}

static void *work(void *argument)
{
    Worker *worker = argument;
    char name[4096];
    snprintf(name, sizeof name, "%s/file%d", worker->directory, worker->number);
    int file = open(name, O_RDONLY);
    if (file < 0) {
        fail(name);
    }

    unsigned state = (unsigned)worker->number * 7919u + 1u;
    while (!atomic_load(&go)) {
        usleep(100);
    }

    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        worker->operation(file, name, &state);
        worker->count++;
    }

    close(file);
    return NULL;
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

// Operations in a second.
static double slice(const char *directory, void (*operation)(int, const char *, unsigned *), int threads, int milliseconds)
{
    Worker workers[MOST_THREADS];
    pthread_t ids[MOST_THREADS];
    atomic_store(&go, 0);
    atomic_store(&stop, 0);
    for (int i = 0; i < threads; i++) {
        workers[i] = (Worker){directory, operation, i, 0};
        pthread_create(&ids[i], NULL, work, &workers[i]);
    }

    usleep(2000);
    double start = seconds();
    atomic_store(&go, 1);
    usleep((useconds_t)milliseconds * 1000u);
    atomic_store(&stop, 1);
    long count = 0;
    for (int i = 0; i < threads; i++) {
        pthread_join(ids[i], NULL);
        count += workers[i].count;
    }

    return (double)count / (seconds() - start);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double at(double *values, int count, double part)
{
    return values[(int)((count - 1) * part + 0.5)];
}

static void prepare(const char *directory)
{
    for (int i = 0; i < MOST_THREADS; i++) {
        char name[4096];
        snprintf(name, sizeof name, "%s/file%d", directory, i);
        int file = open(name, O_CREAT | O_TRUNC | O_WRONLY, 0644);
        for (off_t offset = 0; file >= 0 && offset < FILE_BYTES; offset += BLOCK) {
            char block[BLOCK] = {0};
            *(off_t *)block = offset;
            if (write(file, block, BLOCK) != BLOCK) {
                fail(name);
            }
        }

        if (file < 0 || close(file) != 0) {
            fail(name);
        }
    }
}

int main(int count, char **arguments)
{
    if (count < 3) {
        fprintf(stderr, "usage: bridge DIR REFERENCE [SLICE-MILLISECONDS [PAIRS]]\n");
        return 2;
    }

    int milliseconds = count > 3 ? atoi(arguments[3]) : 300;
    int pairs = count > 4 ? atoi(arguments[4]) : 9;
    pairs = pairs < 1 ? 1 : pairs > MOST_PAIRS ? MOST_PAIRS : pairs;
    struct {
        const char *name;
        void (*operation)(int, const char *, unsigned *);
    } operations[] = {
        {"read 4 KiB, cached on the host", read_block}, {"stat", stat_file}, {"create, close, unlink", create_file}};

    prepare(arguments[1]);
    prepare(arguments[2]);
    printf("%-32s %7s %12s %12s %7s %15s\n", "operation", "threads", "ours/s", "reference/s", "ratio", "quartiles");
    for (int threads = 1; threads <= MOST_THREADS; threads *= 4) {
        for (size_t i = 0; i < sizeof operations / sizeof *operations; i++) {
            double ours[MOST_PAIRS], theirs[MOST_PAIRS], ratios[MOST_PAIRS];
            for (int pair = 0; pair < pairs; pair++) {
                // Who goes first changes, so that neither always follows the other.
                for (int half = 0; half < 2; half++) {
                    int is_ours = (half + pair) % 2 == 0;
                    double rate = slice(arguments[is_ours ? 1 : 2], operations[i].operation, threads, milliseconds);
                    *(is_ours ? &ours[pair] : &theirs[pair]) = rate;
                }

                ratios[pair] = ours[pair] / theirs[pair];
            }

            qsort(ours, (size_t)pairs, sizeof *ours, ascending);
            qsort(theirs, (size_t)pairs, sizeof *theirs, ascending);
            qsort(ratios, (size_t)pairs, sizeof *ratios, ascending);
            printf("%-32s %7d %12.0f %12.0f %7.2f %7.2f-%-7.2f\n", operations[i].name, threads, at(ours, pairs, 0.5),
                at(theirs, pairs, 0.5), at(ratios, pairs, 0.5), at(ratios, pairs, 0.25), at(ratios, pairs, 0.75));
            fflush(stdout);
        }
    }

    return 0;
}
