// contend KIND SLOT PAUSE: takes an exclusive lock again and again, in the current directory, until there is a file called stop. It
// runs in guests and on the host, on the same files, and any of them may be killed at any moment.
//
//   lock-KIND      what is locked: KIND is fcntl or flock
//   state-KIND     how many times the lock was taken, by whom, and who holds it (struct state); changed under the lock only, and as a
//                  whole: a request is carried out or not, also when its guest is killed
//   alone-KIND     made with O_EXCL under the lock every few times, and removed
//   doomed/SLOT    says that the holder SLOT may have been killed while it held the lock
//   done/KIND-SLOT made at the end
//   violations     one line for each time that two were inside; it is never made if all is well
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum { SLOTS = 62, SELDOM = 8 };

struct state {
    uint64_t count;
    uint64_t holder; // zero: nobody
    uint64_t taken[SLOTS];
};

static char kind[8];
static unsigned self;

static void fail(const char *format, ...) {
    char text[512];
    int length = snprintf(text, sizeof text, "%s %u: ", kind, self);
    va_list arguments;
    va_start(arguments, format);
    length += vsnprintf(text + length, sizeof text - length - 1, format, arguments);
    va_end(arguments);
    text[length++] = '\n';
    int file = open("violations", O_WRONLY | O_CREAT | O_APPEND, 0666);
    if (file < 0 || write(file, text, length) != length)
        perror("violations");
    fputs(text, stderr);
    exit(1);
}

static int must(int result, const char *what) {
    if (result < 0)
        fail("%s: %s", what, strerror(errno));
    return result;
}

static const char *path(const char *what, const char *name) {
    static char buffer[128];
    snprintf(buffer, sizeof buffer, "%s%s", what, name);
    return buffer;
}

static void lock(int file, int on) {
    int result;
    do {
        struct flock whole = {.l_type = on ? F_WRLCK : F_UNLCK, .l_whence = SEEK_SET, .l_len = 1};
        result = kind[1] == 'c' ? fcntl(file, F_SETLKW, &whole) : flock(file, on ? LOCK_EX : LOCK_UN);
    } while (result < 0 && errno == EINTR);
    must(result, on ? "lock" : "unlock");
}

static void get(int file, struct state *state) {
    if (pread(file, state, sizeof *state, 0) != sizeof *state)
        fail("short state");
}

static void put(int file, const struct state *state) {
    if (pwrite(file, state, sizeof *state, 0) != sizeof *state)
        fail("state not written: %s", strerror(errno));
}

static void expect(int file, const struct state *expected) {
    struct state found;
    get(file, &found);
    if (memcmp(&found, expected, sizeof found) != 0)
        fail("%llu came in between", (unsigned long long)found.holder);
}

static void in_lock(int file, uint64_t round) {
    struct state state;
    get(file, &state);
    if (state.holder != 0) {
        char name[32];
        snprintf(name, sizeof name, "doomed/%llu", (unsigned long long)state.holder);
        if (access(name, F_OK) != 0)
            fail("%llu holds the lock, too", (unsigned long long)state.holder);
        unlink(path("alone-", kind));
    }
    uint64_t sum = 0;
    for (int i = 0; i < SLOTS; i++)
        sum += state.taken[i];
    if (sum != state.count)
        fail("taken %llu times, by all together %llu times", (unsigned long long)state.count, (unsigned long long)sum);

    state.holder = self;
    state.count++;
    state.taken[self]++;
    put(file, &state);
    if (round % SELDOM == 0) {
        int made = open(path("alone-", kind), O_WRONLY | O_CREAT | O_EXCL, 0666);
        if (made < 0)
            fail("not alone: %s", strerror(errno));
        close(made);
        // As programs read: what a guest caches is checked when a file is opened, here under the lock.
        int cached = must(open(path("state-", kind), O_RDONLY), "open state");
        expect(cached, &state);
        close(cached);
        must(unlink(path("alone-", kind)), "unlink");
    }
    expect(file, &state);
    state.holder = 0;
    put(file, &state);
}

int main(int count, char **words) {
    if (count != 4)
        return 2;
    strncpy(kind, words[1], sizeof kind - 1);
    self = atoi(words[2]);
    int file = must(open(path("lock-", kind), O_RDWR), "open lock");
    // In a guest each access is a request then, without an open before it; the host has no cache of its own that could be stale.
    int is_guest = atoi(words[3]) == 0;
    int state = must(open(path("state-", kind), O_RDWR | (is_guest ? O_DIRECT : 0)), "open state");
    for (uint64_t round = 1; round % SELDOM != 0 || access("stop", F_OK) != 0; round++) {
        lock(file, 1);
        in_lock(state, round);
        lock(file, 0);
        usleep(atoi(words[3]));
    }
    char name[80];
    snprintf(name, sizeof name, "done/%s-%u", kind, self);
    close(must(open(name, O_WRONLY | O_CREAT, 0666), "open done"));
    return 0;
}
