// Reading directories.
#include "posix.h"

static int by_text(const void *one, const void *other)
{
    return strcmp(*(char *const *)one, *(char *const *)other);
}

struct listing {
    int count, duplicates, wrong_type, wrong_inode;
    bool dot, dotdot;
    unsigned hash;
};

static struct listing read_all(DIR *directory)
{
    struct listing all = {0};
    static char *names[5000];
    struct dirent *entry;
    errno = 0;
    while ((entry = readdir(directory)) != NULL && all.count < 5000) {
        struct stat found;
        all.dot |= strcmp(entry->d_name, ".") == 0;
        all.dotdot |= strcmp(entry->d_name, "..") == 0;
        if (fstatat(dirfd(directory), entry->d_name, &found, AT_SYMLINK_NOFOLLOW) == 0) {
            all.wrong_type += entry->d_type != IFTODT(found.st_mode);
            all.wrong_inode += entry->d_ino != found.st_ino;
        }
        names[all.count++] = strdup(entry->d_name);
    }
    qsort(names, all.count, sizeof names[0], by_text);
    for (int i = 0; i < all.count; i++) {
        all.duplicates += i > 0 && strcmp(names[i], names[i - 1]) == 0;
        for (const char *at = names[i]; *at; at++)
            all.hash = all.hash * 31 + (unsigned char)*at;
    }
    for (int i = 0; i < all.count; i++)
        free(names[i]);
    return all;
}

static void report(const char *name, DIR *directory)
{
    struct listing all = read_all(directory);
    say(name, "%d names, hash %08x, %d twice, %d wrong types, %d wrong inodes,%s%s", all.count, all.hash, all.duplicates, all.wrong_type,
        all.wrong_inode, all.dot ? " ." : "", all.dotdot ? " .." : "");
}

static void fill(const char *directory, int from, int to)
{
    for (int i = from; i < to; i++) {
        char path[64];
        snprintf(path, sizeof path, "%s/entry-%04d-%.*s", directory, i, i % 40, "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrst");
        int file = need(path, open(path, O_CREAT | O_EXCL | O_RDWR, 0600));
        close(file);
    }
}

void directories(void)
{
    make_directory("empty", 0755);
    DIR *list = opendir("empty");
    report("empty", list);
    closedir(list);

    make_directory("kinds", 0755);
    make("kinds/file", "", 0644);
    mkdir("kinds/directory", 0755);
    symlink("file", "kinds/link");
    mkfifo("kinds/fifo", 0600);
    mknod("kinds/device", S_IFCHR | 0600, makedev(1, 3));
    mknod("kinds/socket", S_IFSOCK | 0600, 0);
    list = opendir("kinds");
    report("kinds", list);
    closedir(list);

    make_directory("many", 0755);
    fill("many", 0, 700);
    list = opendir("many");
    report("many", list);
    rewinddir(list);
    report("rewound", list);
    report("after_the_end", list);
    fill("many", 700, 720);
    rewinddir(list);
    report("rewound_after_creating", list);

    // Positions: what came after one comes after it again.
    rewinddir(list);
    long positions[101];
    char names[101][64];
    for (int i = 0; i < 100; i++) {
        positions[i] = telldir(list);
        struct dirent *entry = readdir(list);
        snprintf(names[i], sizeof names[i], "%.63s", entry ? entry->d_name : "?");
    }
    int wrong = 0;
    static const int order[] = {99, 0, 50, 1, 98, 37, 2, 77};
    for (size_t i = 0; i < sizeof order / sizeof order[0]; i++) {
        seekdir(list, positions[order[i]]);
        struct dirent *entry = readdir(list);
        wrong += entry == NULL || strncmp(entry->d_name, names[order[i]], 63) != 0;
    }
    say("seekdir", "%d wrong", wrong);
    seekdir(list, positions[40]);
    DIR *other = opendir("many");
    report("second_stream", other);
    struct dirent *entry = readdir(list);
    say("streams_do_not_disturb", "%s", entry && strncmp(entry->d_name, names[40], 63) == 0 ? "right" : "wrong");
    closedir(other);
    closedir(list);

    // Removing everything while reading, as rm -r does.
    list = opendir("many");
    int removed = 0, failed = 0;
    while ((entry = readdir(list)) != NULL)
        if (entry->d_name[0] != '.') {
            if (unlinkat(dirfd(list), entry->d_name, 0) == 0)
                removed++;
            else
                failed++;
        }
    say("removed_while_reading", "%d removed, %d failed", removed, failed);
    rewinddir(list);
    report("removed_rewound", list);
    result("removed_rmdir", rmdir("many"));
    errno = 0;
    rewinddir(list);
    entry = readdir(list);
    say("read_removed", "%s", entry ? entry->d_name : error_name(errno));
    closedir(list);

    // Entries made and removed while another stream is in the middle: nothing twice, nothing lost that was there all the time.
    make_directory("busy", 0755);
    fill("busy", 0, 300);
    list = opendir("busy");
    int seen = 0;
    for (int i = 0; i < 20 && readdir(list); i++) {
    }
    for (int i = 0; i < 50; i++) {
        char path[64];
        snprintf(path, sizeof path, "busy/new-%d", i);
        close(open(path, O_CREAT | O_RDWR, 0600));
    }
    rewinddir(list);
    while ((entry = readdir(list)) != NULL)
        seen += strncmp(entry->d_name, "entry", 5) == 0;
    say("changed_while_reading", "%d of 300", seen);
    closedir(list);

    int raw = open("busy", O_RDONLY | O_DIRECTORY);
    char buffer[4096];
    result("getdents_tiny", syscall(SYS_getdents64, raw, buffer, 10));
    result("getdents_one", syscall(SYS_getdents64, raw, buffer, 24) > 0 ? 1 : -1);
    result("getdents_file", syscall(SYS_getdents64, open("kinds/file", O_RDONLY), buffer, sizeof buffer));
    result("getdents_bad", syscall(SYS_getdents64, 99, buffer, sizeof buffer));
    result("seek_start", lseek(raw, 0, SEEK_SET));
    long total = 0, got;
    while ((got = syscall(SYS_getdents64, raw, buffer, 500)) > 0)
        for (long at = 0; at < got; at += *(unsigned short *)(buffer + at + 16))
            total++;
    say("getdents_small_buffers", "%ld entries, end %s", total, word(got));
    int twin = dup(raw);
    lseek(raw, 0, SEEK_SET);
    syscall(SYS_getdents64, raw, buffer, 500);
    long rest = 0;
    while ((got = syscall(SYS_getdents64, twin, buffer, sizeof buffer)) > 0)
        for (long at = 0; at < got; at += *(unsigned short *)(buffer + at + 16))
            rest++;
    say("dup_shares_position", "%s", rest < total && rest > 0 ? "yes" : "no");

    mkdir("dotted", 0755);
    struct stat here, parent;
    stat("dotted", &here);
    stat(".", &parent);
    list = opendir("dotted");
    while ((entry = readdir(list)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0)
            say("dot_inode", "%s", entry->d_ino == here.st_ino ? "right" : "wrong");
        if (strcmp(entry->d_name, "..") == 0)
            say("dotdot_inode", "%s", entry->d_ino == parent.st_ino ? "right" : "wrong");
    }
    closedir(list);
    chmod("dotted", 0311);
    AS(1000, 1000) {
        result("unreadable", open("dotted", O_RDONLY));
        opened("unreadable_path", open("dotted", O_PATH));
    }
    list = opendir("kinds");
    rename("kinds", "moved");
    report("renamed_while_open", list);
    closedir(list);
    char name[256];
    memset(name, 'y', 255);
    name[255] = 0;
    char path[300];
    mkdir("longest", 0755);
    for (int i = 0; i < 30; i++) {
        name[0] = 'a' + i % 26;
        name[1] = 'a' + i / 26;
        snprintf(path, sizeof path, "longest/%s", name);
        close(need("longest", open(path, O_CREAT | O_RDWR, 0600)));
    }
    list = opendir("longest");
    report("longest_names", list);
    closedir(list);
}
