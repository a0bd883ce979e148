// mmap(2): shared and private, beyond the end, together with read and write.
#include "posix.h"
#include <setjmp.h>

static sigjmp_buf escape;
static void caught(int number)
{
    siglongjmp(escape, number);
}

static const char *touch(volatile char *at, bool store)
{
    int number = sigsetjmp(escape, 1);
    if (number)
        return number == SIGBUS ? "SIGBUS" : "SIGSEGV";
    if (store)
        *at = 't';
    else
        (void)*at;
    return "ok";
}

void mappings(void)
{
    signal(SIGBUS, caught);
    signal(SIGSEGV, caught);
    int file = need("open", open("file", O_CREAT | O_RDWR, 0600));
    need("ftruncate", ftruncate(file, 10000));
    pwrite(file, "mapped", 6, 0);

    char *private = mmap(NULL, 12288, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    result("private", private == MAP_FAILED ? -1 : 0);
    if (private != MAP_FAILED) {
        say("private_content", "%.6s", private);
        private[0] = 'X';
        char byte = 0;
        pread(file, &byte, 1, 0);
        say("private_store_stays_private", "%c", byte);
        say("private_tail_is_zero", "%d", private[10001]);
        munmap(private, 12288);
    }
    char *shared = mmap(NULL, 16384, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    result("shared", shared == MAP_FAILED ? -1 : 0);
    if (shared != MAP_FAILED) {
        shared[1] = 'A';
        char bytes[8] = "";
        pread(file, bytes, 6, 0);
        say("store_seen_by_read", "%s", bytes);
        pwrite(file, "B", 1, 2);
        say("write_seen_by_map", "%.6s", shared);
        int second = open("file", O_RDWR);
        pwrite(second, "C", 1, 3);
        say("other_descriptor_seen_by_map", "%.6s", shared);
        pread(second, bytes, 6, 0);
        say("store_seen_by_other_descriptor", "%s", bytes);
        say("tail_is_zero", "%d", shared[10001]);
        shared[10001] = 'z';
        result("msync", msync(shared, 16384, MS_SYNC));
        result("msync_async", msync(shared, 16384, MS_ASYNC));
        fstate("tail_does_not_grow", file);
        say("page_beyond_end", "%s", touch(shared + 12288, false));
        say("page_beyond_end_store", "%s", touch(shared + 12288, true));
        need("ftruncate", ftruncate(file, 4096));
        say("after_truncate", "%s", touch(shared + 8192, false));
        need("ftruncate", ftruncate(file, 16384));
        say("after_growth", "%s %d", touch(shared + 8192, false), shared[8192]);
        say("tail_was_cleared", "%d", shared[10001]);
        say("store_after_growth", "%s", touch(shared + 8192, true));
        result("msync_growth", msync(shared, 16384, MS_SYNC));
        char byte = 0;
        pread(file, &byte, 1, 8192);
        say("store_after_growth_read", "%c", byte);
        shared[20] = 'q';
        munmap(shared, 16384);
        pread(second, &byte, 1, 20);
        say("store_seen_after_unmap", "%c", byte);
        close(second);
        result("mapping_outlives_descriptor", ({
                   int third = open("file", O_RDWR);
                   char *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, third, 0);
                   close(third);
                   unlink("file");
                   map == MAP_FAILED ? -1 : (map[30] = 'u', map[1]);
               }));
        pread(file, &byte, 1, 30);
        say("store_into_unlinked", "%c", byte);
        APART {
            char *mine = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
            mine[40] = 'p';
        }
        pread(file, &byte, 1, 40);
        say("store_of_another_process", "%c", byte);
        result("mapped_msync_error", msync((void *)(1ul << 40), 4096, MS_SYNC));
    }
    make("second", "second file", 0644);
    int read_only = open("second", O_RDONLY), write_only = open("second", O_WRONLY), directory = open(".", O_RDONLY);
    result("read_only_shared_write", mmap(NULL, 1, PROT_READ | PROT_WRITE, MAP_SHARED, read_only, 0) == MAP_FAILED ? -1 : 0);
    result("read_only_private_write", mmap(NULL, 1, PROT_READ | PROT_WRITE, MAP_PRIVATE, read_only, 0) == MAP_FAILED ? -1 : 0);
    result("read_only_shared_read", mmap(NULL, 1, PROT_READ, MAP_SHARED, read_only, 0) == MAP_FAILED ? -1 : 0);
    result("write_only", mmap(NULL, 1, PROT_READ, MAP_PRIVATE, write_only, 0) == MAP_FAILED ? -1 : 0);
    result("directory", mmap(NULL, 1, PROT_READ, MAP_PRIVATE, directory, 0) == MAP_FAILED ? -1 : 0);
    result("nothing", mmap(NULL, 0, PROT_READ, MAP_PRIVATE, read_only, 0) == MAP_FAILED ? -1 : 0);
    result("odd_offset", mmap(NULL, 1, PROT_READ, MAP_PRIVATE, read_only, 1) == MAP_FAILED ? -1 : 0);
    char *beyond = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, read_only, 1 << 20);
    say("offset_beyond_end", "%s", beyond == MAP_FAILED ? error_name(errno) : touch(beyond, false));
    char *protected = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, read_only, 0);
    if (protected != MAP_FAILED) {
        say("store_protected", "%s", touch(protected, true));
        say("private_second", "%.11s", protected);
    }
}
