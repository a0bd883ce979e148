// Time stamps: setting them to the nanosecond, and which call changes which.
#include "posix.h"

static void show(const char *name, const char *path)
{
    struct stat found;
    if (lstat(path, &found) < 0)
        say(name, "%s", error_name(errno));
    else
        say(name, "atime %lld.%09ld mtime %lld.%09ld", (long long)found.st_atim.tv_sec, found.st_atim.tv_nsec,
            (long long)found.st_mtim.tv_sec, found.st_mtim.tv_nsec);
}

static void set(const char *name, long long seconds, long nanoseconds)
{
    struct timespec both[] = {{seconds, nanoseconds}, {seconds + 1, nanoseconds}};
    char text[64];
    say(name, "%s", word(utimensat(AT_FDCWD, "file", both, 0)));
    snprintf(text, sizeof text, "%s_seen", name);
    show(text, "file");
}

static void setting(void)
{
    make("file", "x", 0644);
    make_directory("directory", 0755);
    need("symlink", symlink("file", "link"));
    set("set", 1234567890, 123456789);
    set("set_max_ns", 1234567890, 999999999);
    set("set_zero", 0, 0);
    set("set_before_1970", -1, 500000000);
    set("set_1901", -2147483648LL, 0);
    set("set_2038", 2147483648LL, 7);
    set("set_2106", 4294967296LL, 9);
    set("set_2400", 13569465600LL, 1);
    set("set_bad_ns", 5, 1000000000);
    set("set_negative_ns", 5, -1);
    struct timespec omit[] = {{0, UTIME_OMIT}, {77, 88}};
    result("omit_atime", utimensat(AT_FDCWD, "file", omit, 0));
    show("omit_atime_seen", "file");
    struct timespec omit2[] = {{66, 55}, {0, UTIME_OMIT}};
    result("omit_mtime", utimensat(AT_FDCWD, "file", omit2, 0));
    show("omit_mtime_seen", "file");
    struct timespec nothing[] = {{0, UTIME_OMIT}, {0, UTIME_OMIT}};
    result("omit_both", utimensat(AT_FDCWD, "file", nothing, 0));
    show("omit_both_seen", "file");
    result("omit_both_missing", utimensat(AT_FDCWD, "missing", nothing, 0));
    struct timespec now[] = {{0, UTIME_NOW}, {5, 6}};
    result("now_atime", utimensat(AT_FDCWD, "file", now, 0));
    struct stat found;
    stat("file", &found);
    struct timespec clock;
    clock_gettime(CLOCK_REALTIME, &clock);
    say("now_is_recent", "%s", llabs((long long)found.st_atim.tv_sec - clock.tv_sec) < 60 ? "yes" : "no");
    say("now_kept_mtime", "%lld.%09ld", (long long)found.st_mtim.tv_sec, found.st_mtim.tv_nsec);
    struct timespec link[] = {{111, 222}, {333, 444}};
    result("link_nofollow", utimensat(AT_FDCWD, "link", link, AT_SYMLINK_NOFOLLOW));
    show("link_nofollow_seen", "link");
    set("link_target_untouched", 999, 1);
    struct timespec followed[] = {{11, 22}, {33, 44}};
    result("link_follow", utimensat(AT_FDCWD, "link", followed, 0));
    show("link_follow_seen", "file");
    result("directory", utimensat(AT_FDCWD, "directory", link, 0));
    show("directory_seen", "directory");
    int file = open("file", O_RDONLY);
    result("descriptor", futimens(file, link));
    show("descriptor_seen", "file");
    result("path_descriptor", utimensat(open("file", O_PATH), "", followed, AT_EMPTY_PATH));
    show("path_descriptor_seen", "file");
    result("bad_flag", utimensat(AT_FDCWD, "file", link, 1));
    need("mkfifo", mkfifo("fifo", 0600));
    result("fifo", utimensat(AT_FDCWD, "fifo", link, 0));
    show("fifo_seen", "fifo");
    chmod("file", 0666);
    AS(1000, 1000) {
        result("writer_now", utimensat(AT_FDCWD, "file", NULL, 0));
        result("writer_explicit", utimensat(AT_FDCWD, "file", link, 0));
        struct timespec half[] = {{0, UTIME_NOW}, {0, UTIME_OMIT}};
        result("writer_now_and_omit", utimensat(AT_FDCWD, "file", half, 0));
        struct timespec both_now[] = {{0, UTIME_NOW}, {0, UTIME_NOW}};
        result("writer_both_now", utimensat(AT_FDCWD, "file", both_now, 0));
    }
    chmod("file", 0644);
    AS(1000, 1000) {
        result("stranger_now", utimensat(AT_FDCWD, "file", NULL, 0));
        result("stranger_explicit", utimensat(AT_FDCWD, "file", link, 0));
    }
    chown("file", 1000, 1000);
    chmod("file", 0400);
    AS(1000, 1000) {
        result("owner_explicit", utimensat(AT_FDCWD, "file", link, 0));
        result("owner_now_read_only", utimensat(AT_FDCWD, "file", NULL, 0));
    }
}

// CHANGES(name, path, action): what of path's times the action changes.
#define CHANGES(name, path, action)                                                                                               \
    do {                                                                                                                          \
        before(path);                                                                                                             \
        if ((action) < 0)                                                                                                         \
            say("failed", "%s: %s", name, error_name(errno));                                                                     \
        after(name, path);                                                                                                        \
    } while (0)

static void changing(void)
{
    char buffer[64];
    make("f", "some content", 0644);
    make_directory("d", 0755);
    make("d/existing", "", 0644);
    need("symlink", symlink("f", "l"));
    int file = open("f", O_RDWR);

    CHANGES("write", "f", write(file, "x", 1));
    CHANGES("write_nothing", "f", write(file, "x", 0));
    CHANGES("pwrite", "f", pwrite(file, "x", 1, 3));
    CHANGES("truncate_same", "f", truncate("f", 12));
    CHANGES("ftruncate_same", "f", ftruncate(file, 12));
    CHANGES("truncate_shorter", "f", truncate("f", 5));
    CHANGES("ftruncate_longer", "f", ftruncate(file, 100));
    CHANGES("open_truncate", "f", open("f", O_WRONLY | O_TRUNC));
    CHANGES("open_truncate_empty", "f", open("f", O_WRONLY | O_TRUNC));
    write(file, "content", 7);
    CHANGES("open_read", "f", open("f", O_RDONLY));
    CHANGES("open_write", "f", open("f", O_WRONLY));
    CHANGES("stat", "f", access("f", F_OK));
    CHANGES("chmod", "f", chmod("f", 0600));
    CHANGES("chmod_same", "f", chmod("f", 0600));
    CHANGES("chown", "f", chown("f", 1, 1));
    CHANGES("chown_nothing", "f", chown("f", -1, -1));
    CHANGES("link", "f", link("f", "f2"));
    CHANGES("unlink_other_name", "f", unlink("f2"));
    CHANGES("rename", "f", rename("f", "f3") + rename("f3", "f"));
    CHANGES("setxattr", "f", setxattr("f", "user.x", "y", 1, 0));
    CHANGES("getxattr", "f", getxattr("f", "user.x", buffer, sizeof buffer));
    CHANGES("removexattr", "f", removexattr("f", "user.x"));
    CHANGES("fallocate", "f", fallocate(file, 0, 0, 10000));
    CHANGES("fallocate_keep", "f", fallocate(file, FALLOC_FL_KEEP_SIZE, 0, 20000));
    CHANGES("punch", "f", fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096));
    CHANGES("fsync", "f", fsync(file));
    make("fresh", "fresh content", 0644);
    int fresh = open("fresh", O_RDONLY);
    CHANGES("read", "fresh", pread(fresh, buffer, 5, 0));
    CHANGES("read_noatime", "fresh", pread(open("fresh", O_RDONLY | O_NOATIME), buffer, 5, 0));
    CHANGES("read_end", "fresh", pread(fresh, buffer, 5, 100));
    int copied = open("copied", O_CREAT | O_RDWR, 0600);
    CHANGES("copy_file_range_target", "copied", copy_file_range(fresh, &(off_t){0}, copied, &(off_t){0}, 5, 0));

    CHANGES("directory_create", "d", open("d/new", O_CREAT | O_RDWR, 0600));
    CHANGES("directory_create_existing", "d", open("d/existing", O_CREAT | O_RDWR, 0600));
    CHANGES("directory_mkdir", "d", mkdir("d/sub", 0700));
    CHANGES("directory_rmdir", "d", rmdir("d/sub"));
    CHANGES("directory_symlink", "d", symlink("x", "d/l"));
    CHANGES("directory_mkfifo", "d", mkfifo("d/p", 0600));
    CHANGES("directory_link", "d", link("f", "d/f"));
    CHANGES("directory_unlink", "d", unlink("d/f"));
    CHANGES("directory_rename_within", "d", rename("d/l", "d/m"));
    CHANGES("directory_rename_out", "d", rename("d/m", "m"));
    CHANGES("directory_rename_in", "d", rename("m", "d/m"));
    CHANGES("directory_chmod_inside", "d", chmod("d/new", 0640));
    CHANGES("directory_write_inside", "d", truncate("d/new", 7));
    CHANGES("directory_failed_mkdir", "d", mkdir("d/new", 0700) ? 0 : -1);
    CHANGES("directory_chdir", "d", chdir("d"));
    need("chdir", chdir(".."));
    make_directory("target", 0755);
    CHANGES("directory_moved", "d", rename("d", "target/d") + rename("target/d", "d"));
    CHANGES("symlink_lchown", "l", lchown("l", 3, 3));
    CHANGES("symlink_followed_write", "l", truncate("l", 3));
    close(open("e", O_CREAT | O_RDWR, 0600));
    CHANGES("mkdir_of_parent", ".", mkdir("g", 0700));
    CHANGES("mmap_write", "f", ({
                char *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
                if (map != MAP_FAILED) {
                    ftruncate(file, 4096);
                    before("f");
                    map[10] = 'm';
                    msync(map, 4096, MS_SYNC);
                }
                map == MAP_FAILED ? -1 : 0;
            }));
    // A new object's times are those of now, and equal.
    struct stat made;
    tick();
    close(open("newborn", O_CREAT | O_EXCL | O_RDWR, 0600));
    stat("newborn", &made);
    say("new_file", "atime %s ctime, mtime %s ctime", same_time(made.st_atim, made.st_ctim), same_time(made.st_mtim, made.st_ctim));
    mkdir("newdir", 0700);
    stat("newdir", &made);
    say("new_directory", "atime %s ctime, mtime %s ctime", same_time(made.st_atim, made.st_ctim), same_time(made.st_mtim, made.st_ctim));

    // What was set stays set, after the data have gone out.
    struct timespec kept[] = {{555, 666}, {777, 888}};
    int late = open("late", O_CREAT | O_RDWR, 0600);
    write(late, "late", 4);
    need("futimens", futimens(late, kept));
    show("set_after_write", "late");
    fsync(late);
    close(late);
    show("set_after_write_closed", "late");
}

static void extended(void)
{
    struct statx found;
    make("x", "statx", 0640);
    result("statx", syscall(SYS_statx, AT_FDCWD, "x", 0, STATX_BASIC_STATS, &found));
    say("statx_mask", "%s", (found.stx_mask & STATX_BASIC_STATS) == STATX_BASIC_STATS ? "all" : "less");
    say("statx_mode", "%o links %u size %llu", found.stx_mode, found.stx_nlink, (unsigned long long)found.stx_size);
    result("statx_sync", syscall(SYS_statx, AT_FDCWD, "x", AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &found));
    result("statx_dont_sync", syscall(SYS_statx, AT_FDCWD, "x", AT_STATX_DONT_SYNC, STATX_BASIC_STATS, &found));
    result("statx_both_syncs", syscall(SYS_statx, AT_FDCWD, "x", AT_STATX_SYNC_TYPE, STATX_BASIC_STATS, &found));
    result("statx_reserved", syscall(SYS_statx, AT_FDCWD, "x", 0, 0x80000000u, &found));
    result("statx_empty_path", syscall(SYS_statx, open("x", O_RDONLY), "", AT_EMPTY_PATH, STATX_SIZE, &found));
    result("statx_missing", syscall(SYS_statx, AT_FDCWD, "missing", 0, STATX_SIZE, &found));
    memset(&found, 0, sizeof found);
    syscall(SYS_statx, AT_FDCWD, "x", 0, STATX_BTIME, &found);
    struct timespec clock;
    clock_gettime(CLOCK_REALTIME, &clock);
    bool has = found.stx_mask & STATX_BTIME;
    say("statx_birth", "%s", !has ? "none" : llabs(found.stx_btime.tv_sec - (long long)clock.tv_sec) < 600 ? "recent" : "wrong");
    struct statx later;
    chmod("x", 0600);
    utimensat(AT_FDCWD, "x", (struct timespec[]){{1, 1}, {2, 2}}, 0);
    syscall(SYS_statx, AT_FDCWD, "x", 0, STATX_BTIME, &later);
    say("statx_birth_stays", "%s", memcmp(&found.stx_btime, &later.stx_btime, sizeof found.stx_btime) ? "differs" : "same");
    say("statx_blksize", "%u", found.stx_blksize);
}

void times(void)
{
    setting();
    changing();
    extended();
}
