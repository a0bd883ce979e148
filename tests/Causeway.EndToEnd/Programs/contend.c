// contend KIND ID PAUSE: takes an exclusive lock again and again, in the current directory, until there is a file called stop. It
// runs in guests and on the host, on the same files, and any of them may be killed at any moment.
//
//   lock-KIND      what is locked: KIND is fcntl or flock
//   counter-KIND   how many times the lock was taken, and who holds it; changed under the lock only
//   alone-KIND     made with O_EXCL under the lock every few times, and removed
//   tally/KIND-ID  how many times by this process; written after the counter, so a process that is killed in between leaves the
//                  counter ahead by one
//   doomed/ID      says that the holder ID may have been killed while it held the lock
//   done/KIND-ID   made at the end
//   violations     one line for each time that two were inside; it is never made if all is well
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

struct state {
    uint64_t count;
    char holder[56];
};

static char self[56], kind[8];

static void fail(const char *format, ...) {
    char text[512];
    int length = snprintf(text, sizeof text, "%s %s: ", kind, self);
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
    static char buffers[4][128];
    static int next;
    char *buffer = buffers[next++ % 4];
    snprintf(buffer, sizeof buffers[0], "%s%s", what, name);
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

static void in_lock(uint64_t round) {
    // Opened under the lock: what a guest caches is checked when a file is opened.
    int file = must(open(path("counter-", kind), O_RDWR), "open counter");
    struct state state;
    if (pread(file, &state, sizeof state, 0) != sizeof state)
        fail("short counter");
    if (state.holder[0]) {
        state.holder[sizeof state.holder - 1] = 0;
        if (access(path("doomed/", state.holder), F_OK) != 0)
            fail("%s holds the lock, too", state.holder);
        unlink(path("alone-", kind));
    }
    memcpy(state.holder, self, sizeof self);
    must(pwrite(file, state.holder, sizeof state.holder, 8) - 1, "write holder");

    int alone = round % 8 == 0;
    if (alone) {
        int made = open(path("alone-", kind), O_WRONLY | O_CREAT | O_EXCL, 0666);
        if (made < 0)
            fail("not alone: %s", strerror(errno));
        close(made);
    }
    state.count++;
    must(pwrite(file, &state.count, 8, 0) - 1, "write count");
    char name[80];
    snprintf(name, sizeof name, "tally/%s-%s", kind, self);
    static int tally = -1;
    if (tally < 0)
        tally = must(open(name, O_WRONLY | O_CREAT, 0666), "open tally");
    must(pwrite(tally, &round, 8, 0) - 1, "write tally");
    if (alone)
        must(unlink(path("alone-", kind)), "unlink");

    struct state after;
    if (pread(file, &after, sizeof after, 0) != sizeof after || memcmp(&after, &state, sizeof state) != 0)
        fail("%s came in between", after.holder);
    memset(state.holder, 0, sizeof state.holder);
    must(pwrite(file, state.holder, sizeof state.holder, 8) - 1, "clear holder");
    close(file);
}

int main(int count, char **words) {
    if (count != 4)
        return 2;
    strncpy(kind, words[1], sizeof kind - 1);
    strncpy(self, words[2], sizeof self - 1);
    int file = must(open(path("lock-", kind), O_RDWR), "open lock");
    for (uint64_t round = 1; access("stop", F_OK) != 0; round++) {
        lock(file, 1);
        in_lock(round);
        lock(file, 0);
        usleep(atoi(words[3]));
    }
    char name[80];
    snprintf(name, sizeof name, "done/%s-%s", kind, self);
    close(must(open(name, O_WRONLY | O_CREAT, 0666), "open done"));
    return 0;
}
