// open(2) and its flags, openat2, O_PATH, O_TMPFILE, descriptors.
#include "posix.h"
#include <linux/openat2.h>

static int openat2_(const char *path, uint64_t flags, uint64_t resolve)
{
    struct open_how how = {.flags = flags, .resolve = resolve};
    int file;

    /* Somebody, anywhere, has renamed something meanwhile: openat2(2) says to try again. */
    do
        file = syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
    while (file < 0 && errno == EAGAIN);
    return file;
}

static void flags(void)
{
    make("file", "content", 0644);
    make_directory("directory", 0755);
    need("symlink", symlink("file", "link"));
    need("symlink", symlink("nowhere", "dangling"));
    need("symlink", symlink("directory", "dirlink"));
    need("symlink", symlink("loop", "loop"));

    opened("missing", open("missing", O_RDONLY));
    opened("create_exclusive_existing", open("file", O_CREAT | O_EXCL | O_RDWR, 0600));
    opened("create_exclusive_link", open("link", O_CREAT | O_EXCL | O_RDWR, 0600));
    opened("create_exclusive_dangling", open("dangling", O_CREAT | O_EXCL | O_RDWR, 0600));
    opened("create_exclusive_directory", open("directory", O_CREAT | O_EXCL | O_RDWR, 0600));
    opened("create_existing", open("file", O_CREAT | O_RDWR, 0600));
    state("create_existing_keeps_mode", "file");
    content("create_existing_keeps_content", "file");
    opened("create_directory_read", open("directory", O_CREAT | O_RDONLY, 0600));
    opened("create_directory_write", open("directory", O_CREAT | O_RDWR, 0600));
    opened("create_slash", open("new/", O_CREAT | O_RDWR, 0600));
    opened("create_through_dangling", open("dangling", O_CREAT | O_RDWR, 0640));
    state("create_through_dangling_makes_target", "nowhere");
    opened("create_in_missing", open("missing/new", O_CREAT | O_RDWR, 0600));
    opened("create_below_file", open("file/new", O_CREAT | O_RDWR, 0600));
    opened("create_new", open("new", O_CREAT | O_EXCL | O_RDWR, 0641));
    state("create_new_mode", "new");
    opened("create_mode_bits", open("bits", O_CREAT | O_EXCL | O_RDWR, 07777));
    state("create_mode_bits_state", "bits");
    int none = open("nomode", O_CREAT | O_EXCL | O_RDWR, 0);
    opened("create_without_mode", none);
    result("create_without_mode_writes", write(none, "x", 1));
    state("create_without_mode_state", "nomode");
    int read_only = open("readonly", O_CREAT | O_EXCL | O_RDWR, 0400);
    result("create_read_only_writes", write(read_only, "x", 1));
    opened("create_tmp_and_creat", open("t", O_CREAT | O_TMPFILE | O_RDWR, 0600));

    opened("directory_on_file", open("file", O_DIRECTORY | O_RDONLY));
    opened("directory_on_link", open("link", O_DIRECTORY | O_RDONLY));
    opened("directory_on_dirlink", open("dirlink", O_DIRECTORY | O_RDONLY));
    opened("directory_create", open("fresh", O_DIRECTORY | O_CREAT | O_RDONLY, 0700));
    opened("directory_write", open("directory", O_WRONLY));
    opened("directory_truncate", open("directory", O_RDONLY | O_TRUNC));
    opened("directory_append", open("directory", O_RDONLY | O_APPEND));
    opened("nofollow_link", open("link", O_NOFOLLOW | O_RDONLY));
    opened("nofollow_dirlink", open("dirlink", O_NOFOLLOW | O_DIRECTORY | O_RDONLY));
    opened("nofollow_dirlink_slash", open("dirlink/", O_NOFOLLOW | O_DIRECTORY | O_RDONLY));
    opened("nofollow_create_link", open("link", O_NOFOLLOW | O_CREAT | O_RDWR, 0600));
    opened("loop", open("loop", O_RDONLY));
    opened("file_slash", open("file/", O_RDONLY));
    opened("link_slash", open("link/", O_RDONLY));
    opened("empty", open("", O_RDONLY));
    opened("directory_dot", open("directory/.", O_RDONLY));
    opened("file_dotdot", open("file/..", O_RDONLY));
    opened("missing_dotdot", open("missing/..", O_RDONLY));

    make("cut", "content", 0644);
    opened("truncate_read_only", open("cut", O_RDONLY | O_TRUNC));
    content("truncate_read_only_content", "cut");
    make("cut", "content", 0644);
    opened("truncate_write", open("cut", O_WRONLY | O_TRUNC));
    state("truncate_write_state", "cut");
    make("cut", "content", 0644);
    opened("truncate_create", open("cut", O_RDWR | O_TRUNC | O_CREAT, 0777));
    state("truncate_create_state", "cut");

    char byte;
    int file = open("file", O_WRONLY);
    result("write_only_reads", read(file, &byte, 1));
    file = open("file", O_RDONLY);
    result("read_only_writes", write(file, "x", 1));
    result("read_only_truncates", ftruncate(file, 1));
    result("read_only_fsync", fsync(file));
    result("read_only_fchmod", fchmod(file, 0600));
    int directory = open("directory", O_RDONLY);
    result("directory_reads", read(directory, &byte, 1));
    result("directory_writes", write(directory, &byte, 1));
    result("directory_truncates", ftruncate(directory, 0));
    result("directory_fsync", fsync(directory));
    result("directory_fchmod", fchmod(directory, 0700));
    result("directory_seek_end_is_allowed", lseek(directory, 0, SEEK_CUR));

    file = open("sync", O_CREAT | O_SYNC | O_RDWR, 0600);
    opened("sync", file);
    result("sync_writes", write(file, "synchronous", 11));
    file = open("sync", O_DSYNC | O_RDWR);
    opened("dsync", file);
    result("dsync_writes", write(file, "S", 1));
    content("sync_content", "sync");
    opened("noatime_owner", open("file", O_RDONLY | O_NOATIME));
    opened("nonblock", open("file", O_RDONLY | O_NONBLOCK));
    opened("noctty", open("file", O_RDONLY | O_NOCTTY));
    opened("async", open("file", O_RDONLY | O_ASYNC));
    opened("cloexec", open("file", O_RDONLY | O_CLOEXEC));
    opened("unknown_flag_ignored", open("file", O_RDONLY | (1 << 29)));
    need("mkfifo", mkfifo("fifo", 0600));
    opened("fifo_write_nonblock", open("fifo", O_WRONLY | O_NONBLOCK));
    int fifo = open("fifo", O_RDONLY | O_NONBLOCK);
    opened("fifo_read_nonblock", fifo);
    int writer = open("fifo", O_WRONLY | O_NONBLOCK);
    opened("fifo_write_with_reader", writer);
    result("fifo_writes", write(writer, "through", 7));
    char text[8] = "";
    result("fifo_reads", read(fifo, text, 7));
    say("fifo_content", "%s", text);
    result("fifo_seek", lseek(fifo, 0, SEEK_SET));
    fstate("fifo_state", fifo);
}

static void paths(void)
{
    char byte, text[16] = "";
    int file = open("file", O_PATH);
    opened("path", file);
    result("path_reads", read(file, &byte, 1));
    result("path_writes", write(file, "x", 1));
    result("path_fchmod", fchmod(file, 0600));
    result("path_fchown", fchown(file, 0, 0));
    result("path_ftruncate", ftruncate(file, 0));
    result("path_fsync", fsync(file));
    result("path_lseek", lseek(file, 0, SEEK_SET));
    result("path_fgetxattr", fgetxattr(file, "user.x", text, sizeof text));
    result("path_mmap", mmap(NULL, 1, PROT_READ, MAP_PRIVATE, file, 0) == MAP_FAILED ? -1 : 0);
    result("path_flags", fcntl(file, F_GETFL) & (O_PATH | O_ACCMODE));
    fstate("path_fstat", file);
    result("path_faccessat", faccessat(file, "", R_OK, AT_EMPTY_PATH));
    result("path_fchownat", fchownat(file, "", 0, 0, AT_EMPTY_PATH));
    result("path_linkat", linkat(file, "", AT_FDCWD, "fromempty", AT_EMPTY_PATH));
    state("path_linkat_state", "fromempty");
    unlink("fromempty");
    snprintf(text, sizeof text, "/dev/fd/%d", file);
    char proc[32];
    snprintf(proc, sizeof proc, "/proc/self/fd/%d", file);
    opened("path_reopen", open(proc, O_RDWR));
    result("path_chmod_proc", chmod(proc, 0644));
    int link = open("link", O_PATH | O_NOFOLLOW);
    opened("path_link", link);
    fstate("path_link_fstat", link);
    char target[16] = "";
    result("path_link_readlinkat", readlinkat(link, "", target, sizeof target));
    snprintf(proc, sizeof proc, "/proc/self/fd/%d", link);
    opened("path_link_reopen", open(proc, O_RDONLY));
    int directory = open("directory", O_PATH);
    opened("path_directory", directory);
    opened("path_directory_openat", openat(directory, ".", O_RDONLY));
    opened("path_directory_create", openat(directory, "below", O_CREAT | O_RDWR, 0600));
    result("path_directory_unlinkat", unlinkat(directory, "below", 0));
    result("path_directory_fchdir", fchdir(directory));
    result("path_directory_fchdir_back", chdir(".."));
    result("openat_file", openat(file, "x", O_RDONLY));
    result("openat_bad", openat(99, "x", O_RDONLY));
    result("openat_empty", openat(directory, "", O_RDONLY));
    struct stat found;
    result("fstatat_empty", fstatat(directory, "", &found, AT_EMPTY_PATH));
    result("fstatat_empty_without_flag", fstatat(directory, "", &found, 0));
    result("fstatat_bad_flag", fstatat(directory, "", &found, 0x4000000));

    opened("openat2_beneath", openat2_("directory", O_RDONLY, RESOLVE_BENEATH));
    opened("openat2_beneath_escapes", openat2_("directory/../..", O_RDONLY, RESOLVE_BENEATH));
    opened("openat2_no_symlinks", openat2_("link", O_RDONLY, RESOLVE_NO_SYMLINKS));
    opened("openat2_in_root", openat2_("/file", O_RDONLY, RESOLVE_IN_ROOT));
    opened("openat2_no_xdev", openat2_("directory/../file", O_RDONLY, RESOLVE_NO_XDEV));
    opened("openat2_bad_flags", openat2_("file", 1ull << 40, 0));
}

static void descriptors(void)
{
    int file = need("open", open("appended", O_CREAT | O_RDWR | O_APPEND, 0600));
    result("append_flags", fcntl(file, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK));
    result("append_write", write(file, "one", 3));
    result("append_seek", lseek(file, 0, SEEK_SET));
    result("append_write_after_seek", write(file, "two", 3));
    result("append_offset", lseek(file, 0, SEEK_CUR));
    // Linux appends here, whatever POSIX says.
    result("append_pwrite", pwrite(file, "three", 5, 0));
    content("append_content", "appended");
    result("append_off", fcntl(file, F_SETFL, 0));
    result("append_off_pwrite", pwrite(file, "O", 1, 0));
    content("append_off_content", "appended");
    result("append_on", fcntl(file, F_SETFL, O_APPEND));
    lseek(file, 0, SEEK_SET);
    result("append_on_write", write(file, "four", 4));
    content("append_on_content", "appended");
    struct iovec piece = {"five", 4};
    fcntl(file, F_SETFL, 0);
    result("append_rwf", pwritev2(file, &piece, 1, 0, RWF_APPEND));
    content("append_rwf_content", "appended");
    int second = open("appended", O_WRONLY | O_APPEND);
    write(second, "A", 1);
    int third = open("appended", O_WRONLY | O_APPEND);
    write(third, "B", 1);
    write(second, "C", 1);
    content("append_two_descriptors", "appended");
    result("setfl_noatime", fcntl(file, F_SETFL, O_NOATIME));
    result("setfl_nonblock", fcntl(file, F_SETFL, O_NONBLOCK));
    result("dup_offset_shared", lseek(dup(file), 7, SEEK_SET));
    result("dup_offset_seen", lseek(file, 0, SEEK_CUR));
    int copy = fcntl(file, F_DUPFD_CLOEXEC, 100);
    result("dupfd_cloexec", fcntl(copy, F_GETFD));
    result("close", close(file));
    result("close_again", close(file));
    struct stat found;
    result("fstat_closed", fstat(file, &found));
}

static void temporaries(void)
{
    int file = open(".", O_TMPFILE | O_RDWR, 0640);
    opened("tmpfile", file);
    if (file < 0)
        return;
    fstate("tmpfile_state", file);
    result("tmpfile_write", write(file, "temporary", 9));
    char proc[32];
    snprintf(proc, sizeof proc, "/proc/self/fd/%d", file);
    result("tmpfile_link", linkat(AT_FDCWD, proc, AT_FDCWD, "linked", AT_SYMLINK_FOLLOW));
    state("tmpfile_linked_state", "linked");
    content("tmpfile_linked_content", "linked");
    result("tmpfile_link_existing", linkat(AT_FDCWD, proc, AT_FDCWD, "linked", AT_SYMLINK_FOLLOW));
    result("tmpfile_link_second", linkat(file, "", AT_FDCWD, "second", AT_EMPTY_PATH));
    fstate("tmpfile_two_links", file);
    unlink("linked");
    unlink("second");
    fstate("tmpfile_no_links", file);
    result("tmpfile_link_dead", linkat(file, "", AT_FDCWD, "third", AT_EMPTY_PATH));
    file = open(".", O_TMPFILE | O_EXCL | O_RDWR, 0600);
    opened("tmpfile_exclusive", file);
    result("tmpfile_exclusive_link", linkat(file, "", AT_FDCWD, "fourth", AT_EMPTY_PATH));
    opened("tmpfile_read_only", open(".", O_TMPFILE | O_RDONLY, 0600));
    opened("tmpfile_write_only", open(".", O_TMPFILE | O_WRONLY, 0600));
    opened("tmpfile_on_file", open("file", O_TMPFILE | O_RDWR, 0600));
    opened("tmpfile_missing", open("missing", O_TMPFILE | O_RDWR, 0600));
    umask(027);
    file = open(".", O_TMPFILE | O_RDWR, 0666);
    fstate("tmpfile_umask", file);
    umask(0);
    make_directory("shared", 02777);
    need("chown", chown("shared", 0, 500));
    AS(1000, 1000) {
        int mine = open("shared", O_TMPFILE | O_RDWR, 0600);
        opened("tmpfile_user", mine);
        fstate("tmpfile_user_state", mine);
        char own[32];
        snprintf(own, sizeof own, "/proc/self/fd/%d", mine);
        result("tmpfile_user_link", linkat(AT_FDCWD, own, AT_FDCWD, "shared/mine", AT_SYMLINK_FOLLOW));
        state("tmpfile_user_linked", "shared/mine");
        opened("tmpfile_user_refused", open("directory", O_TMPFILE | O_RDWR, 0600));
    }
}

void files(void)
{
    flags();
    paths();
    descriptors();
    temporaries();
}
