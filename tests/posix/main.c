// posix-checks DIRECTORY [FAMILY...]: runs the checks in new directories below DIRECTORY, as root, and removes them again.
#include "posix.h"

static const struct family {
    const char *name;
    void (*run)(void);
} families[] = {
    {"open", files},        {"name", names},      {"permission", permissions}, {"rename", renames},    {"time", times},
    {"io", input_output},   {"mmap", mappings},   {"xattr", attributes},       {"acl", lists},         {"directory", directories},
    {"lock", locks},        {"unlinked", lifetimes}, {"inotify", watches},     {"node", special_files}, {"space", spaces},
    {"exec", programs},
};

const char *self_path;
static const char *family;

void say(const char *name, const char *format, ...)
{
    char text[4096];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    printf("%s.%s: %s\n", family, name, text);
    fflush(stdout);
}

const char *error_name(int error)
{
    const char *name = strerrorname_np(error);
    return name ? name : "unknown";
}

const char *word(long returned)
{
    static char texts[8][24];
    static int next;
    int error = errno;
    char *text = texts[next++ % 8];
    if (returned == -1)
        return error_name(error);
    snprintf(text, sizeof texts[0], "%ld", returned);
    return text;
}

long result(const char *name, long returned)
{
    int error = errno;
    say(name, "%s", returned == -1 ? error_name(error) : word(returned));
    errno = error;
    return returned;
}

int opened(const char *name, int descriptor)
{
    int error = errno;
    say(name, "%s", descriptor < 0 ? error_name(error) : "ok");
    errno = error;
    return descriptor;
}

static void describe(const char *name, int returned, const struct stat *found)
{
    if (returned < 0) {
        say(name, "%s", error_name(errno));
        return;
    }
    static const char types[] = "?pc?d?b?-?l?s???";
    char type = types[(found->st_mode & S_IFMT) >> 12];
    if (type == 'd')
        say(name, "d %04o links %u owner %u:%u", found->st_mode & 07777, (unsigned)found->st_nlink, found->st_uid, found->st_gid);
    else
        say(name, "%c %04o links %u owner %u:%u size %lld", type, found->st_mode & 07777, (unsigned)found->st_nlink,
            found->st_uid, found->st_gid, (long long)found->st_size);
}

void state(const char *name, const char *path)
{
    struct stat found;
    describe(name, lstat(path, &found), &found);
}

void fstate(const char *name, int descriptor)
{
    struct stat found;
    describe(name, fstat(descriptor, &found), &found);
}

int need(const char *what, int descriptor)
{
    if (descriptor >= 0)
        return descriptor;
    say("broken", "%s: %s", what, error_name(errno));
    _exit(3);
}

void make(const char *path, const char *text, mode_t mode)
{
    int file = need(path, open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600));
    if (write(file, text, strlen(text)) != (ssize_t)strlen(text))
        need("write", -1);
    need("fchmod", fchmod(file, mode));
    close(file);
}

void make_directory(const char *path, mode_t mode)
{
    need(path, mkdir(path, 0700));
    need("chmod", chmod(path, mode));
}

static int discard_one(const char *path, const struct stat *found, int type, struct FTW *place)
{
    (void)found;
    (void)place;
    return type == FTW_DP ? rmdir(path) : unlink(path);
}

void discard(const char *path)
{
    if (access(path, F_OK) == 0)
        need(path, nftw(path, discard_one, 20, FTW_DEPTH | FTW_PHYS));
}

void fcontent(const char *name, int descriptor)
{
    static unsigned char bytes[1 << 16];
    char text[2048];
    size_t length = 0, used = 0;
    ssize_t got;
    while (used < sizeof bytes && (got = pread(descriptor, bytes + used, sizeof bytes - used, used)) > 0)
        used += got;
    if (got < 0) {
        say(name, "%s", error_name(errno));
        return;
    }
    for (size_t at = 0; at < used && length < sizeof text - 32;) {
        size_t end = at;
        while (end < used && bytes[end] == bytes[at])
            end++;
        bool plain = bytes[at] > ' ' && bytes[at] < 127;
        length += snprintf(text + length, sizeof text - length, plain ? "%c" : "\\%02x", bytes[at]);
        if (end - at > 2)
            length += snprintf(text + length, sizeof text - length, "{%zu}", end - at);
        else
            end = at + 1;
        at = end;
    }
    text[length] = 0;
    say(name, "%zu bytes \"%s\"", used, text);
}

void content(const char *name, const char *path)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        say(name, "%s", error_name(errno));
        return;
    }
    fcontent(name, file);
    close(file);
}

// Returns 1 in the new process, and 0 in this one after the other has ended.
int apart(void)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        alarm(20);
        return 1;
    }
    int status;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFSIGNALED(status))
        say("broken", "a process died of signal %d", WTERMSIG(status));
    return 0;
}

int as(uid_t user, gid_t group, size_t count, const gid_t *groups)
{
    if (!apart())
        return 0;
    need("setgroups", setgroups(count, groups));
    need("setresgid", setresgid(group, group, group));
    need("setresuid", setresuid(user, user, user));
    return 1;
}

void leave_child(void)
{
    fflush(stdout);
    _exit(0);
}

// File times come from a clock that moves with the timer interrupt; two of its steps are enough for any of them.
void tick(void)
{
    struct timespec start, now;
    clock_gettime(CLOCK_REALTIME_COARSE, &start);
    for (int step = 0; step < 2; step++) {
        do {
            nanosleep(&(struct timespec){0, 2000000}, NULL);
            clock_gettime(CLOCK_REALTIME_COARSE, &now);
        } while (now.tv_sec == start.tv_sec && now.tv_nsec == start.tv_nsec);
        start = now;
    }
}

static struct stat noted;

void before(const char *path)
{
    struct timespec old[] = {{1000000000, 1}, {1100000000, 2}};
    need("utimensat", utimensat(AT_FDCWD, path, old, AT_SYMLINK_NOFOLLOW));
    need("lstat", lstat(path, &noted));
    tick();
}

static bool same(struct timespec one, struct timespec other)
{
    return one.tv_sec == other.tv_sec && one.tv_nsec == other.tv_nsec;
}

const char *same_time(struct timespec one, struct timespec other)
{
    return same(one, other) ? "same as" : "differs from";
}

void after(const char *name, const char *path)
{
    struct stat now;
    if (lstat(path, &now) < 0) {
        say(name, "%s", error_name(errno));
        return;
    }
    say(name, "changed:%s%s%s", same(now.st_atim, noted.st_atim) ? "" : " atime", same(now.st_mtim, noted.st_mtim) ? "" : " mtime",
        same(now.st_ctim, noted.st_ctim) ? "" : " ctime");
}

static void run(const struct family *one, const char *directory)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", directory, one->name);
    family = one->name;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        alarm(120);
        umask(0);
        need("mkdir", mkdir(path, 0777));
        need("chdir", chdir(path));
        one->run();
        fflush(stdout);
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    // A family that died says so: its missing lines alone would be noticed only in a comparison.
    if (WIFSIGNALED(status))
        say("broken", "died of signal %d", WTERMSIG(status));
    discard(path);
}

int main(int count, char **arguments)
{
    static char self[4096];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    self_path = length > 0 ? self : arguments[0];
    if (count == 3 && strcmp(arguments[1], "--who") == 0) {
        // The program that the checks of execution execute.
        printf("exec.%s: user %u %u group %u %u\n", arguments[2], getuid(), geteuid(), getgid(), getegid());
        return 0;
    }
    if (count == 2 && strcmp(arguments[1], "--wait") == 0) {
        char byte;
        return read(0, &byte, 1) == 0 ? 0 : 1;
    }
    if (count < 2 || getuid() != 0) {
        fprintf(stderr, "usage, as root: %s DIRECTORY [FAMILY...]\n", arguments[0]);
        return 2;
    }
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        bool wanted = count == 2;
        for (int argument = 2; argument < count; argument++)
            wanted |= strcmp(arguments[argument], families[i].name) == 0;
        if (wanted)
            run(&families[i], arguments[1]);
    }
    return 0;
}
