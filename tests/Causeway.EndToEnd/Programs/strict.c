// strict compare HOST MOUNT ROUNDS SEED PAUSE: changes the tree HOST in one way after the other, and after each change and as many
//                milliseconds compares all of it with what MOUNT shows, twice. Both have to be empty.
// strict order HOST MOUNT ROUNDS: one process changes two files in turn, in four ways, another looks at MOUNT: who has seen a change of
//                the second has to see the one of the first before it.
// strict still MOUNT TIMES: looks at everything in MOUNT so many times.
//
// MOUNT shares HOST. Ends with status 1, and the first difference, when MOUNT shows anything older than HOST was.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static const char *host, *mount;
static char last[256] = "nothing";
static unsigned long looks, kept_open, pause_ms;

static const char *const names[] = {
    "a", "b", "a/x", "a/y", "a/z", "b/x", "b/y", "b/z", "a/d", "b/d", "a/d/f", "b/d/f", "a/d/g", "b/d/g", "a/l", "b/l", "f", "g", "no",
};
enum { NAMES = sizeof names / sizeof *names };

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf(", after %s\n", last);
    exit(1);
}

static const char *in(const char *root, const char *name) {
    static char buffers[4][512];
    static int next;
    char *buffer = buffers[next++ & 3];
    snprintf(buffer, sizeof *buffers, "%s/%s", root, name);
    return buffer;
}

static uint64_t mix(uint64_t sum, const void *bytes, size_t length) {
    for (size_t i = 0; i < length; i++)
        sum = (sum ^ ((const unsigned char *)bytes)[i]) * 0x100000001b3;
    return sum;
}

// Names in no order, as listings have them.
static uint64_t listing(const char *path) {
    DIR *directory = opendir(path);
    if (!directory)
        return errno;
    uint64_t sum = 0;
    for (struct dirent *entry; (entry = readdir(directory));)
        sum += mix(0xcbf29ce484222325, entry->d_name, strlen(entry->d_name));
    closedir(directory);
    return sum;
}

static uint64_t data(const char *path) {
    char buffer[4096];
    int file = open(path, O_RDONLY);
    if (file < 0)
        return errno;
    ssize_t length = read(file, buffer, sizeof buffer);
    close(file);
    return length < 0 ? (uint64_t)errno : mix(length, buffer, length);
}

// What is kept of a name, as text; times of access and numbers of blocks are nobody's promise.
static void describe(const char *root, const char *name, char *text, size_t size) {
    const char *path = in(root, name);
    struct stat status;
    if (lstat(path, &status)) {
        snprintf(text, size, "errno %d", errno);
        return;
    }
    char target[256] = "", value[64] = "";
    uint64_t content = 0;
    if (S_ISLNK(status.st_mode)) {
        ssize_t length = readlink(path, target, sizeof target - 1);
        target[length < 0 ? 0 : length] = 0;
    } else if (S_ISDIR(status.st_mode)) {
        content = listing(path);
    } else {
        content = data(path);
    }
    ssize_t length = S_ISLNK(status.st_mode) ? 0 : getxattr(path, "user.test", value, sizeof value - 1);
    value[length < 0 ? 0 : length] = 0;
    snprintf(text, size, "mode %o links %u owner %u size %lld mtime %lld.%09ld ctime %lld.%09ld content %llx target '%s' xattr %zd '%s'",
        status.st_mode, (unsigned)status.st_nlink, status.st_uid, S_ISDIR(status.st_mode) ? 0 : (long long)status.st_size,
        (long long)status.st_mtim.tv_sec, status.st_mtim.tv_nsec, (long long)status.st_ctim.tv_sec, status.st_ctim.tv_nsec,
        (unsigned long long)content, target, length, value);
}

// What is open is seen whatever has become of its name. Devices differ, and so may the numbers of names that are gone.
static void describe_open(int file, char *text, size_t size) {
    struct stat status;
    if (fstat(file, &status)) {
        snprintf(text, size, "errno %d", errno);
        return;
    }
    snprintf(text, size, "mode %o links %u owner %u size %lld mtime %lld.%09ld ctime %lld.%09ld", status.st_mode,
        (unsigned)status.st_nlink, status.st_uid, S_ISDIR(status.st_mode) ? 0 : (long long)status.st_size,
        (long long)status.st_mtim.tv_sec, status.st_mtim.tv_nsec, (long long)status.st_ctim.tv_sec, status.st_ctim.tv_nsec);
}

static void look_at_open(int again) {
    static int here[NAMES], there[NAMES];
    for (int i = 0; i < NAMES; i++) {
        if (again) {
            if (here[i] > 0)
                close(here[i]), close(there[i]);
            here[i] = open(in(host, names[i]), O_RDONLY | O_NOFOLLOW);
            there[i] = here[i] > 0 ? open(in(mount, names[i]), O_RDONLY | O_NOFOLLOW) : -1;
            if (here[i] > 0 && there[i] < 0)
                fail("'%s' cannot be opened: %s", names[i], strerror(errno));
        }
        if (here[i] > 0) {
            char shown[512], true[512];
            describe_open(there[i], shown, sizeof shown);
            describe_open(here[i], true, sizeof true);
            if (strcmp(shown, true))
                fail("what '%s' was is shown as\n  %s\nand is\n  %s\n", names[i], shown, true);
            looks++;
        }
    }
}

static void look(void) {
    usleep(pause_ms * 1000);
    look_at_open(0);
    for (int i = 0; i < NAMES; i++) {
        char shown[1024], true[1024];
        describe(mount, names[i], shown, sizeof shown);
        describe(host, names[i], true, sizeof true);
        if (strcmp(shown, true))
            fail("'%s' is shown as\n  %s\nand is\n  %s\n", names[i], shown, true);
        looks++;
    }
}

static const char *pick(void) {
    return names[rand() % (NAMES - 1)];
}

static void touch(const char *path, const char *text, int flags) {
    int file = open(path, O_WRONLY | O_CREAT | flags, 0644);
    if (file >= 0) {
        if (write(file, text, strlen(text)) < 0)
            perror(path);
        close(file);
    }
}

static void change(int round) {
    static int writer = -1;
    static char *mapped;
    const char *one = pick(), *two = pick();
    struct stat found;
    if (lstat(in(host, one), &found)) // More often something that is there.
        one = pick();
    int what = rand() % 20, result = 0;
    if ((what == 9 || what == 10) && (rand() & 1)) // Of symbolic links there are few.
        one = rand() & 1 ? "a/l" : "b/l";
    const char *path = in(host, one);
    struct timespec times[2] = {{1, 1}, {1000000 + round, round}};
    char text[32];
    snprintf(text, sizeof text, "round %d", round);
    switch (what) {
    case 0: touch(path, text, O_TRUNC); break;
    case 1: touch(path, text, O_APPEND); break;
    case 2: result = unlink(path); break;
    case 3: // Mostly files, so that there is something to be open.
        result = strchr("abd", one[strlen(one) - 1]) ? mkdir(path, 0755) : (touch(path, text, 0), 0);
        break;
    case 4: result = rmdir(path); break;
    case 5:
    case 6: result = rename(path, in(host, two)); break;
    case 7: result = renameat2(AT_FDCWD, path, AT_FDCWD, in(host, two), RENAME_EXCHANGE); break;
    case 8: result = chmod(path, 0600 + (rand() & 077)); break;
    case 9: result = lchown(path, rand() & 3, 0); break;
    case 10: result = utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW); break;
    case 11: result = truncate(path, rand() & 63); break;
    case 12: result = setxattr(path, "user.test", text, strlen(text), 0); break;
    case 13: result = removexattr(path, "user.test"); break;
    case 14: result = link(path, in(host, two)); break;
    case 15: result = symlink(text, in(host, rand() & 1 ? "a/l" : "b/l")); break;
    case 16:
    case 17: // Of a file that stays open for a while.
        if (mapped)
            munmap(mapped, 4096), mapped = NULL;
        if (writer >= 0)
            close(writer);
        writer = open(path, O_RDWR);
        kept_open += writer >= 0;
        break;
    default:
        if (mapped) {
            munmap(mapped, 4096);
            mapped = NULL;
        }
        struct stat status;
        if (writer >= 0 && !fstat(writer, &status) && S_ISREG(status.st_mode) && status.st_size > 0) {
            void *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, writer, 0);
            mapped = at == MAP_FAILED ? NULL : at;
        }
    }
    // What is open is written as well, by whichever of its ways.
    if (writer >= 0 && (round & 1))
        result |= pwrite(writer, text, strlen(text), 0) < 0;
    if (mapped && !(round & 1)) {
        struct stat status;
        if (!fstat(writer, &status) && status.st_size > 0)
            mapped[0] = 'A' + round % 26;
        msync(mapped, 4096, MS_SYNC);
    }
    snprintf(last, sizeof last, "change %d (kind %d of '%s', '%s'): %s", round, what, one, two, result ? strerror(errno) : "done");
}

static void compare(int rounds, unsigned seed) {
    srand(seed);
    mkdir(in(host, "a"), 0755);
    mkdir(in(host, "b"), 0755);
    mkdir(in(host, "a/d"), 0755);
    touch(in(host, "a/x"), "first", 0);
    touch(in(host, "a/d/f"), "second", 0);
    touch(in(host, "f"), "third", 0);
    for (int round = 1; round <= rounds; round++) {
        if (round % 4 == 1)
            look_at_open(1);
        look();
        if (round % 4 == 0) // Long enough that what was changed is kept again.
            usleep(10000), look();
        change(round);
        look();
    }
    printf("%lu looks, all true; %lu files were open meanwhile\n", looks, kept_open);
}

// The value that a file has, in four places.
static void set(const char *name, int kind, int value) {
    char text[64], other[64];
    struct timespec times[2] = {{1, 1}, {value, 0}};
    // As long as the one before: a read that overlaps a change may have the size from before it and the data from after it.
    snprintf(text, sizeof text, "%06d", value);
    snprintf(other, sizeof other, "%s.new", name);
    switch (kind) {
    case 0: utimensat(AT_FDCWD, in(host, name), times, 0); break;
    case 1: setxattr(in(host, name), "user.test", text, strlen(text), 0); break;
    case 2: touch(in(host, name), text, O_TRUNC); break;
    default: touch(in(host, other), text, O_TRUNC), rename(in(host, other), in(host, name)); break;
    }
}

static int get(const char *name, int kind) {
    char text[64] = "";
    struct stat status;
    int file;
    ssize_t length = 0;
    switch (kind) {
    case 0: return stat(in(mount, name), &status) ? -1 : (int)status.st_mtim.tv_sec;
    case 1: length = getxattr(in(mount, name), "user.test", text, sizeof text - 1); break;
    default:
        file = open(in(mount, name), O_RDONLY);
        if (file >= 0) {
            length = read(file, text, sizeof text - 1);
            close(file);
        }
    }
    // Empty, or a part, between truncation and writing.
    return length < 6 ? -1 : atoi(text);
}

static void order(int rounds) {
    for (int kind = 0; kind < 4; kind++) {
        touch(in(host, "first"), "000000", O_TRUNC);
        touch(in(host, "second"), "000000", O_TRUNC);
        set("first", kind, 0);
        set("second", kind, 0);
        fflush(stdout);
        pid_t writer = fork();
        if (!writer) {
            for (int i = 1; i <= rounds; i++) {
                set("first", kind, i);
                set("second", kind, i);
                usleep(2000);
            }
            _exit(0);
        }
        int seen = 0, values = 0, before = -1;
        unsigned long turns = 0;
        while (seen < rounds) {
            int second = get("second", kind), first;
            if (second < 0)
                continue;
            while ((first = get("first", kind)) < 0)
                ;
            snprintf(last, sizeof last, "%lu looks of kind %d", turns, kind);
            if (first < second || second < before)
                fail("the first file is at %d, and the second was at %d before, and at %d before that", first, second, before);
            values += second != before;
            before = seen = second;
            turns++;
        }
        int status;
        waitpid(writer, &status, 0);
        printf("kind %d: %lu looks saw %d of %d values, in order\n", kind, turns, values, rounds);
    }
}

static void still(int times) {
    for (int i = 0; i < times; i++)
        for (int j = 0; j < NAMES; j++) {
            struct stat status;
            lstat(in(mount, names[j]), &status);
        }
}

int main(int count, char **words) {
    if (count == 7 && !strcmp(words[1], "compare")) {
        host = words[2], mount = words[3], pause_ms = atoi(words[6]);
        compare(atoi(words[4]), atoi(words[5]));
    } else if (count == 5 && !strcmp(words[1], "order")) {
        host = words[2], mount = words[3];
        order(atoi(words[4]));
    } else if (count == 4 && !strcmp(words[1], "still")) {
        mount = words[2];
        still(atoi(words[3]));
    } else {
        return 2;
    }
    return 0;
}
