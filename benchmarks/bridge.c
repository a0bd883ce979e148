// Measures two directories against each other: slices of one operation, in turn on one and on the other, so that whatever else
// the machine does hits both alike. Prints for each operation and number of threads the median of the ratios of neighbours,
// the quartiles, and the time on a processor that an operation takes of the processes that serve the directories.
//
// usage: bridge DIR REFERENCE [SLICE-MILLISECONDS [PAIRS [HOGS]]]
// OURS and THEIRS hold the numbers of those processes, separated by commas. HOGS threads have other work all the time; how much
// of it they get done beside the one, compared with beside the other, is printed as well.
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
    const char *servers;
    double operations, processor_seconds, hog_turns, seconds;
} Side;

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

static atomic_long turns;

static void *hog(void *argument)
{
    volatile unsigned state = 1;
    (void)argument;
    for (;;) {
        for (int i = 0; i < 10000; i++) {
            state = state * 1664525u + 1013904223u;
        }

        atomic_fetch_add_explicit(&turns, 1, memory_order_relaxed);
    }

    return NULL;
}

// What processes have used of processors, in seconds.
static double used_by(const char *processes)
{
    double sum = 0;
    for (const char *next = processes; next != NULL && *next != 0; next = strchr(next, ',') ? strchr(next, ',') + 1 : NULL) {
        char path[64];
        unsigned long user = 0, system = 0;
        snprintf(path, sizeof path, "/proc/%d/stat", atoi(next));
        FILE *file = fopen(path, "r");
        if (file == NULL || fscanf(file, "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2) {
            fail(path);
        }

        fclose(file);
        sum += (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
    }

    return sum;
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

// Operations in a second.
static double slice(Side *side, void (*operation)(int, const char *, unsigned *), int threads, int milliseconds)
{
    Worker workers[MOST_THREADS];
    pthread_t ids[MOST_THREADS];
    atomic_store(&go, 0);
    atomic_store(&stop, 0);
    for (int i = 0; i < threads; i++) {
        workers[i] = (Worker){side->directory, operation, i, 0};
        pthread_create(&ids[i], NULL, work, &workers[i]);
    }

    usleep(2000);
    double used = used_by(side->servers);
    long turned = atomic_load(&turns);
    double start = seconds();
    atomic_store(&go, 1);
    usleep((useconds_t)milliseconds * 1000u);
    atomic_store(&stop, 1);
    long count = 0;
    for (int i = 0; i < threads; i++) {
        pthread_join(ids[i], NULL);
        count += workers[i].count;
    }

    double took = seconds() - start;
    side->operations += (double)count;
    side->processor_seconds += used_by(side->servers) - used;
    side->hog_turns += (double)(atomic_load(&turns) - turned);
    side->seconds += took;
    return (double)count / took;
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
        fprintf(stderr, "usage: bridge DIR REFERENCE [SLICE-MILLISECONDS [PAIRS [HOGS]]]\n");
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

    int hogs = count > 5 ? atoi(arguments[5]) : 0;
    for (int i = 0; i < hogs; i++) {
        pthread_t id;
        pthread_create(&id, NULL, hog, NULL);
    }

    prepare(arguments[1]);
    prepare(arguments[2]);
    printf("%-31s %7s %9s %11s %6s %12s %10s %9s%s\n", "operation", "threads", "ours/s", "reference/s", "ratio", "quartiles",
        "ours us", "ref. us", hogs > 0 ? "    others" : "");
    for (int threads = 1; threads <= MOST_THREADS; threads *= 4) {
        for (size_t i = 0; i < sizeof operations / sizeof *operations; i++) {
            double ours[MOST_PAIRS], theirs[MOST_PAIRS], ratios[MOST_PAIRS];
            Side sides[] = {
                {.directory = arguments[1], .servers = getenv("OURS")}, {.directory = arguments[2], .servers = getenv("THEIRS")}};
            for (int pair = 0; pair < pairs; pair++) {
                // Who goes first changes, so that neither always follows the other.
                for (int half = 0; half < 2; half++) {
                    int is_ours = (half + pair) % 2 == 0;
                    double rate = slice(&sides[is_ours ? 0 : 1], operations[i].operation, threads, milliseconds);
                    *(is_ours ? &ours[pair] : &theirs[pair]) = rate;
                }

                ratios[pair] = ours[pair] / theirs[pair];
            }

            qsort(ours, (size_t)pairs, sizeof *ours, ascending);
            qsort(theirs, (size_t)pairs, sizeof *theirs, ascending);
            qsort(ratios, (size_t)pairs, sizeof *ratios, ascending);
            printf("%-31s %7d %9.0f %11.0f %6.2f %7.2f-%-4.2f %10.1f %9.1f", operations[i].name, threads, at(ours, pairs, 0.5),
                at(theirs, pairs, 0.5), at(ratios, pairs, 0.5), at(ratios, pairs, 0.25), at(ratios, pairs, 0.75),
                1e6 * sides[0].processor_seconds / sides[0].operations, 1e6 * sides[1].processor_seconds / sides[1].operations);
            if (hogs > 0) {
                printf(" %9.2f", sides[0].hog_turns / sides[0].seconds / (sides[1].hog_turns / sides[1].seconds));
            }

            printf("\n");
            fflush(stdout);
        }
    }

    return 0;
}
