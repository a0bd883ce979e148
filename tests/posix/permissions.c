// Who may do what: modes, owners, groups, sticky and set-id bits, umask, access(2).
#include "posix.h"

static void attempt(const char *class, int mode)
{
    char name[32], path[16];
    snprintf(path, sizeof path, "m%03o", mode);
    snprintf(name, sizeof name, "open_%s_%03o", class, mode);
    int r = open(path, O_RDONLY), re = errno, w = open(path, O_WRONLY), we = errno, b = open(path, O_RDWR), be = errno;
    const char *access_r = access(path, R_OK) ? "no" : "yes", *access_w = access(path, W_OK) ? "no" : "yes",
               *access_x = access(path, X_OK) ? "no" : "yes";
    say(name, "read %s write %s both %s access %s %s %s", r < 0 ? error_name(re) : "ok", w < 0 ? error_name(we) : "ok",
        b < 0 ? error_name(be) : "ok", access_r, access_w, access_x);
}

static const int modes[] = {0, 0100, 0200, 0400, 0600, 0700, 0010, 0020, 0040, 0060, 0070, 0001, 0002, 0004, 0006, 0007,
                            0077, 0707, 0770, 0644, 0755, 0444};

static void attempt_all(const char *class)
{
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++)
        attempt(class, modes[i]);
}

static void matrix(void)
{
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        char path[16];
        snprintf(path, sizeof path, "m%03o", modes[i]);
        make(path, "x", modes[i]);
        need("chown", chown(path, 1000, 500));
        need("chmod", chmod(path, modes[i]));
    }
    AS(1000, 1000) attempt_all("owner");
    AS(1001, 500) attempt_all("group");
    AS(1001, 1001, 499, 500, 501) attempt_all("supplementary");
    AS(1001, 1001) attempt_all("other");
    attempt_all("root");
}

static void directory_modes(void)
{
    static const int directory_bits[] = {0, 1, 2, 3, 4, 5, 6, 7};
    for (size_t i = 0; i < sizeof directory_bits / sizeof directory_bits[0]; i++) {
        int bits = directory_bits[i];
        char path[16], name[48], inside[32], other[32];
        snprintf(path, sizeof path, "d%d", bits);
        snprintf(inside, sizeof inside, "%s/inside", path);
        snprintf(other, sizeof other, "%s/other", path);
        make_directory(path, 0777);
        make(inside, "x", 0666);
        need("chmod", chmod(path, bits));
        AS(1001, 1001) {
            struct stat found;
            DIR *list = opendir(path);
            snprintf(name, sizeof name, "directory_%d_list", bits);
            say(name, "%s", list ? "ok" : error_name(errno));
            snprintf(name, sizeof name, "directory_%d_search", bits);
            result(name, stat(inside, &found));
            snprintf(name, sizeof name, "directory_%d_search_missing", bits);
            result(name, stat(other, &found));
            snprintf(name, sizeof name, "directory_%d_create", bits);
            opened(name, open(other, O_CREAT | O_RDWR, 0600));
            snprintf(name, sizeof name, "directory_%d_mkdir", bits);
            result(name, mkdir(strcat(other, "d"), 0700));
            snprintf(name, sizeof name, "directory_%d_unlink", bits);
            result(name, unlink(inside));
            snprintf(name, sizeof name, "directory_%d_chdir", bits);
            result(name, chdir(path));
        }
    }
}

static void sticky(void)
{
    make_directory("sticky", 01777);
    need("chown", chown("sticky", 1000, 1000));
    for (int i = 0; i < 6; i++) {
        char path[32];
        snprintf(path, sizeof path, "sticky/f%d", i);
        make(path, "x", 0666);
        need("chown", chown(path, i < 3 ? 1001 : 1002, 1001));
        snprintf(path, sizeof path, "sticky/d%d", i);
        make_directory(path, 0777);
        need("chown", chown(path, i < 3 ? 1001 : 1002, 1001));
    }
    AS(1003, 1001) {
        result("sticky_other_unlink", unlink("sticky/f0"));
        result("sticky_other_rmdir", rmdir("sticky/d0"));
        result("sticky_other_rename", rename("sticky/f0", "sticky/g"));
        result("sticky_other_rename_over", rename("sticky/f0", "sticky/f1"));
        opened("sticky_other_create", open("sticky/new", O_CREAT | O_RDWR, 0666));
        result("sticky_other_rename_onto", rename("sticky/new", "sticky/f1"));
        result("sticky_other_exchange", syscall(SYS_renameat2, AT_FDCWD, "sticky/new", AT_FDCWD, "sticky/f1", RENAME_EXCHANGE));
        result("sticky_other_write", open("sticky/f0", O_WRONLY) < 0 ? -1 : 0);
    }
    AS(1001, 1001) {
        result("sticky_owner_unlink", unlink("sticky/f0"));
        result("sticky_owner_rmdir", rmdir("sticky/d0"));
        result("sticky_owner_rename", rename("sticky/f1", "sticky/g1"));
        result("sticky_owner_rename_over_other", rename("sticky/g1", "sticky/f3"));
    }
    AS(1000, 1000) {
        result("sticky_directory_owner_unlink", unlink("sticky/f2"));
        result("sticky_directory_owner_rmdir", rmdir("sticky/d2"));
        result("sticky_directory_owner_rename", rename("sticky/f4", "sticky/g4"));
    }
    result("sticky_root_unlink", unlink("sticky/f5"));
}

static void changes(void)
{
    make("file", "x", 0644);
    need("chown", chown("file", 1000, 1000));
    AS(1001, 1001) {
        result("chmod_other", chmod("file", 0600));
        result("chown_other", chown("file", 1001, -1));
        result("chown_nothing_other", chown("file", -1, -1));
        result("truncate_other", truncate("file", 0));
        result("utime_other", utimensat(AT_FDCWD, "file", NULL, 0));
    }
    AS(1000, 1000, 2000) {
        result("chmod_owner", chmod("file", 0664));
        result("chown_away", chown("file", 1001, -1));
        result("chown_same", chown("file", 1000, -1));
        result("chgrp_own", chown("file", -1, 1000));
        result("chgrp_supplementary", chown("file", -1, 2000));
        result("chgrp_foreign", chown("file", -1, 3000));
        state("chgrp_state", "file");
    }
    AS(1001, 2000) {
        result("group_truncate", truncate("file", 0));
        result("group_chmod", chmod("file", 0666));
    }
    result("chmod_missing", chmod("missing", 0600));
    result("chown_missing", chown("missing", 0, 0));
    result("fchmodat_bad_fd", fchmodat(99, "file", 0600, 0));
    result("fchownat_bad_flag", fchownat(AT_FDCWD, "file", 0, 0, 1));
    result("chown_large_ids", chown("file", 4000000000u, 4000000001u));
    state("chown_large_ids_state", "file");

    // set-id bits through changes of owner and mode
    make("source", "content", 0644);
    static const int bits[] = {04755, 02755, 06777, 02644, 04644, 01755, 06611};
    for (size_t i = 0; i < sizeof bits / sizeof bits[0]; i++) {
        char name[48];
        make("s", "x", 0600);
        need("chown", chown("s", 1000, 1000));
        need("chmod", chmod("s", bits[i]));
        chown("s", 1001, -1);
        snprintf(name, sizeof name, "root_chown_%04o", bits[i]);
        state(name, "s");
        need("chmod", chmod("s", bits[i]));
        chown("s", -1, -1);
        snprintf(name, sizeof name, "root_chown_nothing_%04o", bits[i]);
        state(name, "s");
        need("chown", chown("s", 1000, 1000));
        need("chmod", chmod("s", bits[i]));
        AS(1000, 1000, 2000) {
            chown("s", -1, 2000);
            snprintf(name, sizeof name, "owner_chgrp_%04o", bits[i]);
            state(name, "s");
        }
        need("chown", chown("s", 1000, 1000));
        need("chmod", chmod("s", bits[i] | 0666));
        AS(1001, 1001) {
            int file = open("s", O_WRONLY);
            write(file, "y", 1);
            snprintf(name, sizeof name, "other_write_%04o", bits[i] | 0666);
            fstate(name, file);
        }
        need("chmod", chmod("s", bits[i] | 0666));
        AS(1001, 1001) {
            truncate("s", 0);
            snprintf(name, sizeof name, "other_truncate_%04o", bits[i] | 0666);
            state(name, "s");
        }
        need("chmod", chmod("s", bits[i] | 0666));
        AS(1001, 1001) {
            close(open("s", O_WRONLY | O_TRUNC));
            snprintf(name, sizeof name, "other_open_truncate_%04o", bits[i] | 0666);
            state(name, "s");
        }
        need("chmod", chmod("s", bits[i] | 0666));
        AS(1000, 1000) {
            int file = open("s", O_WRONLY);
            write(file, "y", 1);
            snprintf(name, sizeof name, "owner_write_%04o", bits[i] | 0666);
            fstate(name, file);
        }
        need("chmod", chmod("s", bits[i] | 0666));
        int file = open("s", O_WRONLY);
        write(file, "y", 1);
        close(file);
        snprintf(name, sizeof name, "root_write_%04o", bits[i] | 0666);
        state(name, "s");
        need("chmod", chmod("s", bits[i] | 0666));
        AS(1001, 1001) {
            int one = open("s", O_RDWR);
            fallocate(one, 0, 0, 100);
            snprintf(name, sizeof name, "other_fallocate_%04o", bits[i] | 0666);
            fstate(name, one);
        }
        need("chmod", chmod("s", bits[i] | 0666));
        AS(1001, 1001) {
            int one = open("s", O_WRONLY | O_APPEND);
            write(one, "y", 1);
            snprintf(name, sizeof name, "other_append_%04o", bits[i] | 0666);
            fstate(name, one);
        }
        need("chmod", chmod("s", bits[i] | 0666));
        AS(1001, 1001) {
            int one = open("s", O_RDWR);
            ftruncate(one, 50);
            snprintf(name, sizeof name, "other_ftruncate_%04o", bits[i] | 0666);
            fstate(name, one);
        }
        need("chmod", chmod("s", bits[i] | 0666));
        AS(1001, 1001) {
            int from = open("source", O_RDONLY), to = open("s", O_WRONLY);
            copy_file_range(from, NULL, to, NULL, 4, 0);
            snprintf(name, sizeof name, "other_copy_range_%04o", bits[i] | 0666);
            fstate(name, to);
        }
        need("chmod", chmod("s", bits[i] | 0666));
        AS(1001, 1001, 1000) {
            int one = open("s", O_WRONLY);
            write(one, "y", 1);
            snprintf(name, sizeof name, "member_write_%04o", bits[i] | 0666);
            fstate(name, one);
        }
        unlink("s");
    }
    make_directory("sd", 0700);
    need("chown", chown("sd", 1000, 1000));
    need("chmod", chmod("sd", 06755));
    chown("sd", 1001, 1001);
    state("directory_chown_keeps_bits", "sd");
    AS(1001, 1001) {
        result("directory_owner_chmod_setgid", chmod("sd", 02755));
        state("directory_owner_chmod_setgid_state", "sd");
    }
    make("foreign", "x", 0600);
    need("chown", chown("foreign", 1000, 3000));
    AS(1000, 1000) {
        result("chmod_setgid_foreign_group", chmod("foreign", 02755));
        state("chmod_setgid_foreign_group_state", "foreign");
        result("chmod_setuid", chmod("foreign", 04755));
        state("chmod_setuid_state", "foreign");
        result("chmod_sticky_file", chmod("foreign", 01644));
        state("chmod_sticky_file_state", "foreign");
    }
}

static void inheritance(void)
{
    make_directory("group", 02777);
    need("chown", chown("group", 0, 3000));
    need("chmod", chmod("group", 02777));
    AS(1000, 1000) {
        close(open("group/file", O_CREAT | O_RDWR, 0644));
        state("setgid_file", "group/file");
        mkdir("group/directory", 0755);
        state("setgid_directory", "group/directory");
        mkdir("group/directory/deeper", 0700);
        state("setgid_deeper", "group/directory/deeper");
        symlink("x", "group/link");
        state("setgid_symlink", "group/link");
        mkfifo("group/fifo", 0644);
        state("setgid_fifo", "group/fifo");
        close(open("group/strange", O_CREAT | O_RDWR, 02755));
        state("setgid_file_with_bit", "group/strange");
        close(open("group/noexec", O_CREAT | O_RDWR, 02644));
        state("setgid_file_with_bit_not_executable", "group/noexec");
        close(open("group/setuid", O_CREAT | O_RDWR, 04755));
        state("setgid_file_setuid", "group/setuid");
        rename("group/file", "moved");
        mkdir("group/x", 01777);
        state("setgid_directory_sticky", "group/x");
    }
    AS(1000, 1000, 3000) {
        close(open("group/member", O_CREAT | O_RDWR, 02755));
        state("setgid_file_with_bit_by_member", "group/member");
    }
    close(open("group/byroot", O_CREAT | O_RDWR, 02755));
    state("setgid_file_with_bit_by_root", "group/byroot");
    AS(1234, 4321, 1, 2) {
        make_directory("group/own", 0700);
        close(open("group/own/file", O_CREAT | O_RDWR, 0640));
        state("created_owner", "group/own/file");
    }
    make_directory("plain", 0777);
    AS(1234, 4321, 1, 2) {
        close(open("plain/file", O_CREAT | O_RDWR, 0640));
        state("created_plain", "plain/file");
        mkdir("plain/dir", 0777);
        state("created_plain_directory", "plain/dir");
        symlink("x", "plain/link");
        state("created_plain_symlink", "plain/link");
        mkfifo("plain/fifo", 0777);
        state("created_plain_fifo", "plain/fifo");
        link("plain/file", "plain/hard");
        state("created_plain_link", "plain/hard");
    }
    make_directory("bygroup", 0770);
    need("chown", chown("bygroup", 0, 700));
    AS(1000, 1000, 700) {
        opened("create_by_supplementary", open("bygroup/file", O_CREAT | O_RDWR, 0600));
        state("create_by_supplementary_state", "bygroup/file");
        result("mkdir_by_supplementary", mkdir("bygroup/d", 0700));
        result("symlink_by_supplementary", symlink("x", "bygroup/l"));
        result("mkfifo_by_supplementary", mkfifo("bygroup/p", 0600));
        result("link_by_supplementary", link("bygroup/file", "bygroup/hard"));
        result("rename_by_supplementary", rename("bygroup/file", "bygroup/renamed"));
        result("unlink_by_supplementary", unlink("bygroup/renamed"));
        result("rmdir_by_supplementary", rmdir("bygroup/d"));
    }
    AS(1000, 1000) {
        opened("create_by_stranger", open("bygroup/file2", O_CREAT | O_RDWR, 0600));
        result("unlink_by_stranger", unlink("bygroup/hard"));
    }
    // Many groups: the kernel passes only one of them along.
    AS(1000, 1000, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38,
       39, 700) {
        opened("create_with_many_groups", open("bygroup/file3", O_CREAT | O_RDWR, 0600));
    }
}

static void accesses(void)
{
    make("a", "x", 0640);
    need("chown", chown("a", 1000, 1000));
    struct { const char *name; int mode; } wanted[] = {{"f", F_OK}, {"r", R_OK}, {"w", W_OK}, {"x", X_OK}, {"rw", R_OK | W_OK}};
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        char name[32];
        snprintf(name, sizeof name, "access_root_%s", wanted[i].name);
        result(name, access("a", wanted[i].mode));
        AS(1000, 1000) {
            snprintf(name, sizeof name, "access_owner_%s", wanted[i].name);
            result(name, access("a", wanted[i].mode));
        }
        AS(1001, 1001) {
            snprintf(name, sizeof name, "access_other_%s", wanted[i].name);
            result(name, access("a", wanted[i].mode));
        }
    }
    result("access_bad_mode", access("a", 8));
    result("access_missing", access("missing", F_OK));
    result("faccessat2_bad_flag", syscall(SYS_faccessat2, AT_FDCWD, "a", R_OK, 0x8000000));
    APART {
        // Real and effective user differ: access asks for the real one.
        need("setegid", setresgid(1001, 1001, 0));
        need("seteuid", setresuid(0, 1001, 0));
        result("access_real", syscall(SYS_faccessat2, AT_FDCWD, "a", R_OK, 0));
        result("access_effective", syscall(SYS_faccessat2, AT_FDCWD, "a", R_OK, AT_EACCESS));
    }
    need("symlink", symlink("missing", "dangling"));
    result("access_dangling", access("dangling", F_OK));
    result("access_nofollow", faccessat(AT_FDCWD, "dangling", F_OK, AT_SYMLINK_NOFOLLOW));
    APART {
        // Only the file system's user changes, as file servers do.
        setfsgid(1001);
        setfsuid(1001);
        opened("fsuid_read", open("a", O_RDONLY));
        opened("fsuid_create", open("plain/byfsuid", O_CREAT | O_RDWR, 0600));
        state("fsuid_create_state", "plain/byfsuid");
    }
}

void permissions(void)
{
    matrix();
    directory_modes();
    sticky();
    changes();
    inheritance();
    accesses();
}
