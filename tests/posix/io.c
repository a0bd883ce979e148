// Reading, writing, seeking, copying.
#include "posix.h"

static void reading(void)
{
    char buffer[256];
    int file = need("open", open("data", O_CREAT | O_RDWR, 0600));
    result("write", write(file, "0123456789", 10));
    result("pread", pread(file, buffer, 4, 3));
    result("pread_short", pread(file, buffer, 100, 7));
    result("pread_at_end", pread(file, buffer, 1, 10));
    result("pread_beyond", pread(file, buffer, 1, 1000));
    result("pread_nothing", pread(file, buffer, 0, 0));
    result("pread_negative", pread(file, buffer, 1, -1));
    result("pread_huge", pread(file, buffer, 1, INT64_MAX));
    result("pwrite_negative", pwrite(file, "x", 1, -1));
    result("pwrite_huge", pwrite(file, "x", 1, INT64_MAX));
    result("pwrite_nothing", pwrite(file, "x", 0, 100));
    state("pwrite_nothing_state", "data");
    result("pwrite_gap", pwrite(file, "end", 3, 20));
    content("pwrite_gap_content", "data");
    struct iovec out[] = {{"ab", 2}, {"", 0}, {"cde", 3}};
    result("pwritev", pwritev(file, out, 3, 1));
    struct iovec in[] = {{buffer, 3}, {buffer + 3, 0}, {buffer + 3, 7}};
    result("preadv", preadv(file, in, 3, 0));
    say("preadv_content", "%.10s", buffer);
    result("writev_none", writev(file, out, 0));
    result("readv_too_many", syscall(SYS_readv, file, in, 2000));
    result("read_bad_address", syscall(SYS_read, file, 8, 10) >= 0 ? 0 : -1);
    result("write_bad_address", syscall(SYS_pwrite64, file, 8, 10, 0) >= 0 ? 0 : -1);
    result("seek_set", lseek(file, 5, SEEK_SET));
    result("seek_cur", lseek(file, 3, SEEK_CUR));
    result("seek_end", lseek(file, -2, SEEK_END));
    result("seek_beyond", lseek(file, 1000, SEEK_END));
    result("seek_beyond_read", read(file, buffer, 1));
    result("seek_negative", lseek(file, -1, SEEK_SET));
    result("seek_negative_cur", lseek(file, -100000, SEEK_CUR));
    result("seek_bad_whence", lseek(file, 0, 77));
    result("seek_kept", lseek(file, 0, SEEK_CUR));
    result("seek_huge", lseek(file, INT64_MAX, SEEK_SET) < 0 ? -1 : 0);
    content("content", "data");

    static char block[300000];
    for (size_t i = 0; i < sizeof block; i++)
        block[i] = "abcdefghij"[i / 7 % 10] + (char)(i % 13);
    int large = need("open", open("large", O_CREAT | O_RDWR, 0600));
    result("large_write", write(large, block, sizeof block));
    result("large_odd_offset", pwrite(large, block, 100001, 4095));
    static char back[400000];
    result("large_read", pread(large, back, sizeof back, 0));
    say("large_compare", "%s", memcmp(back + 4095, block, 100001) || memcmp(back, block, 4095) ||
        memcmp(back + 104096, block + 104096, sizeof block - 104096) ? "differs" : "same");
    int again = open("large", O_RDONLY);
    result("large_second_descriptor", pread(again, back, sizeof back, 4095) );
    say("large_second_compare", "%s", memcmp(back, block, 100001) ? "differs" : "same");
    result("fsync", fsync(large));
    result("fdatasync", fdatasync(large));
    result("syncfs", syncfs(large));
    result("sync_file_range", sync_file_range(large, 0, 100000, SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER));
    result("sync_file_range_bad", sync_file_range(large, -1, 1, 0));
    result("fadvise_dontneed", posix_fadvise(large, 0, 0, POSIX_FADV_DONTNEED));
    result("fadvise_willneed", posix_fadvise(large, 0, 0, POSIX_FADV_WILLNEED));
    result("fadvise_bad", posix_fadvise(large, 0, 0, 99));
    result("readahead", readahead(large, 0, 100000));
    result("large_read_again", pread(large, back, sizeof back, 4095));
    say("large_compare_again", "%s", memcmp(back, block, 100001) ? "differs" : "same");
    result("poll", ({ struct pollfd one = {large, POLLIN | POLLOUT, 0}; poll(&one, 1, 0) == 1 ? one.revents : -1; }));
    result("fionread", ({ int n = -1; lseek(large, 299990, SEEK_SET); ioctl(large, FIONREAD, &n) < 0 ? -1 : n; }));
    result("ioctl_tty", ioctl(large, 0x5401, buffer));
    result("ioctl_unknown", ioctl(large, 0x12345678, buffer));
    result("ioctl_blocksize", ({ int n = -1; ioctl(large, 2, &n) < 0 ? -1 : n; }));
    APART {
        // Not while printing: the output may be a file, too.
        struct rlimit limit, unlimited;
        getrlimit(RLIMIT_FSIZE, &unlimited);
        limit = unlimited;
        limit.rlim_cur = 4096;
        signal(SIGXFSZ, SIG_IGN);
        int small = open("limited", O_CREAT | O_RDWR, 0600);
        setrlimit(RLIMIT_FSIZE, &limit);
        long first = write(small, block, 10000), second = write(small, block, 1), error = errno;
        long third = ftruncate(small, 10000), error_of_third = errno;
        setrlimit(RLIMIT_FSIZE, &unlimited);
        result("limit_write", first);
        say("limit_write_again", "%s", second < 0 ? error_name(error) : "ok");
        say("limit_truncate", "%s", third < 0 ? error_name(error_of_third) : "ok");
        fstate("limit_state", small);
    }
}

static void copying(void)
{
    int from = need("open", open("source", O_CREAT | O_RDWR, 0600)), to = need("open", open("sink", O_CREAT | O_RDWR, 0600));
    pwrite(from, "copied range of bytes", 21, 0);
    off_t in = 7, out = 2;
    result("copy", copy_file_range(from, &in, to, &out, 5, 0));
    say("copy_offsets", "%lld %lld", (long long)in, (long long)out);
    fcontent("copy_content", to);
    in = 15;
    out = 0;
    result("copy_short", copy_file_range(from, &in, to, &out, 100, 0));
    in = 100;
    result("copy_beyond", copy_file_range(from, &in, to, &out, 5, 0));
    in = 0;
    result("copy_nothing", copy_file_range(from, &in, to, &out, 0, 0));
    result("copy_flags", copy_file_range(from, &in, to, &out, 1, 1));
    in = 0;
    out = 3;
    result("copy_overlap", copy_file_range(from, &in, from, &out, 10, 0));
    in = 0;
    out = 30;
    result("copy_within", copy_file_range(from, &in, from, &out, 10, 0));
    fcontent("copy_within_content", from);
    lseek(from, 0, SEEK_SET);
    lseek(to, 0, SEEK_END);
    result("copy_positions", copy_file_range(from, NULL, to, NULL, 6, 0));
    say("copy_positions_now", "%s %s", word(lseek(from, 0, SEEK_CUR)), word(lseek(to, 0, SEEK_CUR)));
    fcontent("copy_positions_content", to);
    int read_only = open("sink", O_RDONLY), write_only = open("source", O_WRONLY), append = open("sink", O_WRONLY | O_APPEND);
    in = 0;
    result("copy_to_read_only", copy_file_range(from, &in, read_only, NULL, 1, 0));
    result("copy_from_write_only", copy_file_range(write_only, &in, to, NULL, 1, 0));
    result("copy_to_append", copy_file_range(from, &in, append, NULL, 1, 0));
    mkdir("cd", 0700);
    result("copy_from_directory", copy_file_range(open("cd", O_RDONLY), &in, to, NULL, 1, 0));
    result("sendfile", ({ off_t at = 7; sendfile(to, from, &at, 5); }));
    int pipes[2];
    need("pipe", pipe(pipes));
    loff_t at = 0;
    result("splice_out", splice(from, &at, pipes[1], NULL, 6, 0));
    at = 40;
    result("splice_in", splice(pipes[0], NULL, to, &at, 6, 0));
    fcontent("splice_content", to);
    result("clone", ioctl(to, 0x40049409, from) < 0 && (errno == EOPNOTSUPP || errno == ENOTTY) ? 0 : 1);
    int name_handle_mount;
    struct { struct file_handle handle; char bytes[128]; } handle = {.handle.handle_bytes = 128};
    long named = name_to_handle_at(AT_FDCWD, "source", &handle.handle, &name_handle_mount, 0);
    result("handle", named);
    int reopened = named < 0 ? -1 : open_by_handle_at(open(".", O_RDONLY), &handle.handle, O_RDONLY);
    opened("handle_open", reopened);
    if (reopened >= 0)
        fcontent("handle_content", reopened);
}

void input_output(void)
{
    reading();
    copying();
}
