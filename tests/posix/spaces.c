// Sizes, holes, allocation.
#include "posix.h"

static void map_of_holes(const char *name, int file)
{
    char text[500] = "";
    off_t at = 0;
    for (int i = 0; i < 20; i++) {
        off_t data = lseek(file, at, SEEK_DATA);
        if (data < 0) {
            snprintf(text + strlen(text), sizeof text - strlen(text), " %s", error_name(errno));
            break;
        }
        off_t hole = lseek(file, data, SEEK_HOLE);
        snprintf(text + strlen(text), sizeof text - strlen(text), " %lld-%lld", (long long)data, (long long)hole);
        at = hole;
    }
    say(name, "%s", text + 1);
}

void spaces(void)
{
    int file = need("open", open("file", O_CREAT | O_RDWR, 0644));
    write(file, "0123456789", 10);
    result("truncate_shorter", ftruncate(file, 4));
    content("truncate_shorter_content", "file");
    result("truncate_longer", ftruncate(file, 10));
    content("truncate_longer_content", "file");
    result("truncate_path", truncate("file", 6));
    fcontent("truncate_path_content", file);
    result("truncate_negative", ftruncate(file, -1));
    result("truncate_path_negative", truncate("file", -1));
    result("truncate_huge", ftruncate(file, INT64_MAX));
    mkdir("directory", 0755);
    result("truncate_directory", truncate("directory", 0));
    result("truncate_missing", truncate("missing", 0));
    mkfifo("fifo", 0600);
    result("truncate_fifo", truncate("fifo", 0));
    symlink("file", "link");
    result("truncate_link", truncate("link", 3));
    state("truncate_link_state", "file");
    chmod("file", 0444);
    AS(1000, 1000) result("truncate_read_only", truncate("file", 0));
    int read_only = open("file", O_RDONLY);
    result("truncate_read_only_descriptor", ftruncate(read_only, 0));
    chmod("file", 0200);
    result("truncate_kept_open", ftruncate(file, 5));
    chmod("file", 0644);

    int sparse = need("open", open("sparse", O_CREAT | O_RDWR, 0644));
    need("ftruncate", ftruncate(sparse, 1 << 20));
    fsync(sparse);
    map_of_holes("holes_empty", sparse);
    pwrite(sparse, "data", 4, 65536);
    pwrite(sparse, "data", 4, 655360);
    fsync(sparse);
    map_of_holes("holes_two", sparse);
    result("seek_data_end", lseek(sparse, 1 << 20, SEEK_DATA));
    result("seek_hole_end", lseek(sparse, 1 << 20, SEEK_HOLE));
    result("seek_data_beyond", lseek(sparse, 2 << 20, SEEK_DATA));
    result("seek_data_negative", lseek(sparse, -1, SEEK_DATA));
    result("seek_hole_last", lseek(sparse, (1 << 20) - 1, SEEK_HOLE));
    struct stat found;
    fstat(sparse, &found);
    say("sparse_blocks", "%lld", (long long)found.st_blocks);
    result("punch", fallocate(sparse, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 65536, 4096));
    fsync(sparse);
    map_of_holes("holes_punched", sparse);
    result("punch_partial", fallocate(sparse, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 655361, 2));
    char bytes[5] = "";
    pread(sparse, bytes, 4, 655360);
    say("punch_partial_content", "%d %d %d %d", bytes[0], bytes[1], bytes[2], bytes[3]);
    result("punch_beyond", fallocate(sparse, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4 << 20, 4096));
    result("punch_without_keep", fallocate(sparse, FALLOC_FL_PUNCH_HOLE, 0, 4096));
    fstate("punch_state", sparse);

    int allocated = need("open", open("allocated", O_CREAT | O_RDWR, 0644));
    result("allocate", fallocate(allocated, 0, 0, 8192));
    fstate("allocate_state", allocated);
    result("allocate_more", fallocate(allocated, 0, 4096, 8192));
    fstate("allocate_more_state", allocated);
    result("allocate_keep", fallocate(allocated, FALLOC_FL_KEEP_SIZE, 0, 65536));
    fstate("allocate_keep_state", allocated);
    pwrite(allocated, "zero me", 7, 0);
    result("zero_range", fallocate(allocated, FALLOC_FL_ZERO_RANGE, 2, 4));
    fcontent("zero_range_content", allocated);
    result("zero_range_grows", fallocate(allocated, FALLOC_FL_ZERO_RANGE, 12288, 4096));
    fstate("zero_range_grows_state", allocated);
    result("zero_range_keep", fallocate(allocated, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 16384, 4096));
    fstate("zero_range_keep_state", allocated);
    result("collapse", fallocate(allocated, FALLOC_FL_COLLAPSE_RANGE, 0, 4096));
    result("insert", fallocate(allocated, FALLOC_FL_INSERT_RANGE, 0, 4096));
    fstate("insert_state", allocated);
    result("allocate_nothing", fallocate(allocated, 0, 0, 0));
    result("allocate_negative", fallocate(allocated, 0, -1, 10));
    result("allocate_negative_length", fallocate(allocated, 0, 0, -10));
    result("allocate_overflow", fallocate(allocated, 0, INT64_MAX, 10));
    result("allocate_bad_mode", fallocate(allocated, 0x1000, 0, 10));
    result("allocate_read_only", fallocate(read_only, 0, 0, 10));
    result("allocate_directory", fallocate(open("directory", O_RDONLY), 0, 0, 10));
    result("posix_fallocate", posix_fallocate(allocated, 0, 100000));
    fstate("posix_fallocate_state", allocated);
    fsync(allocated);
    fstat(allocated, &found);
    say("allocated_enough", "%s", found.st_blocks * 512 >= 100000 ? "yes" : "no");

    // Over four gigabytes, which would be lost in 32 bits.
    int large = need("open", open("large", O_CREAT | O_RDWR, 0644));
    result("large_write", pwrite(large, "far", 3, 5000000000));
    fstate("large_state", large);
    memset(bytes, 0, sizeof bytes);
    result("large_read", pread(large, bytes, 4, 5000000000));
    say("large_content", "%s", bytes);
    result("large_seek_end", lseek(large, 0, SEEK_END));
    result("large_truncate", ftruncate(large, 4294967296));
    fstate("large_truncate_state", large);
    result("large_pread_hole", pread(large, bytes, 4, 4294967292));
    // A write behind the end after the file was cut: zeros in between.
    pwrite(file, "abcdefgh", 8, 0);
    ftruncate(file, 2);
    pwrite(file, "z", 1, 6);
    fcontent("cut_and_gap", file);
    struct statvfs fs;
    result("statvfs", statvfs(".", &fs));
    say("statvfs_block", "%lu %lu", fs.f_bsize, fs.f_frsize);
    say("statvfs_space", "%s", fs.f_bavail > 0 && fs.f_bavail <= fs.f_blocks ? "some" : "none");
}
