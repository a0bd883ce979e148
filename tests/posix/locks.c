// Locks within one guest: fcntl of processes, of open files, flock.
#include "posix.h"

#ifndef F_OFD_GETLK
#define F_OFD_GETLK 36
#define F_OFD_SETLK 37
#endif

static long lock(int file, int command, int type, off_t start, off_t length)
{
    struct flock wanted = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
    return fcntl(file, command, &wanted);
}

static void get(const char *name, int file, int command, int type, off_t start, off_t length, pid_t owner)
{
    struct flock found = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
    if (fcntl(file, command, &found) < 0)
        say(name, "%s", error_name(errno));
    else if (found.l_type == F_UNLCK)
        say(name, "free");
    else
        say(name, "%s %lld+%lld %s", found.l_type == F_RDLCK ? "read" : "write", (long long)found.l_start, (long long)found.l_len,
            found.l_pid == owner ? "owner" : found.l_pid == -1 ? "-1" : "another");
}

static void records(void)
{
    int file = need("open", open("records", O_CREAT | O_RDWR, 0600));
    pid_t me = getpid();
    result("write", lock(file, F_SETLK, F_WRLCK, 10, 10));
    APART {
        int mine = open("records", O_RDWR);
        get("seen", mine, F_GETLK, F_WRLCK, 0, 100, me);
        get("seen_beside", mine, F_GETLK, F_WRLCK, 0, 10, me);
        result("conflict", lock(mine, F_SETLK, F_RDLCK, 15, 1));
        result("no_conflict", lock(mine, F_SETLK, F_WRLCK, 20, 10));
        result("inherited_descriptor_has_no_lock", lock(file, F_SETLK, F_WRLCK, 10, 1));
    }
    get("gone_with_process", file, F_GETLK, F_WRLCK, 20, 10, me);
    result("own_upgrade", lock(file, F_SETLK, F_RDLCK, 10, 10));
    APART {
        int mine = open("records", O_RDWR);
        result("shared_read", lock(mine, F_SETLK, F_RDLCK, 12, 2));
        result("shared_write", lock(mine, F_SETLK, F_WRLCK, 12, 2));
    }
    result("split", lock(file, F_SETLK, F_UNLCK, 13, 2));
    APART {
        int mine = open("records", O_RDWR);
        get("split_first", mine, F_GETLK, F_WRLCK, 0, 0, me);
        get("split_hole", mine, F_GETLK, F_WRLCK, 13, 2, me);
        get("split_second", mine, F_GETLK, F_WRLCK, 14, 100, me);
    }
    result("to_end", lock(file, F_SETLK, F_WRLCK, 1000, 0));
    APART {
        int mine = open("records", O_RDWR);
        get("to_end_seen", mine, F_GETLK, F_WRLCK, 1 << 30, 1, me);
    }
    // Closing any descriptor of the file gives all locks up: POSIX.
    close(open("records", O_RDWR));
    APART {
        int mine = open("records", O_RDWR);
        get("closed_any", mine, F_GETLK, F_WRLCK, 0, 0, me);
    }
    result("read_on_write_only", lock(open("records", O_WRONLY), F_SETLK, F_RDLCK, 0, 1));
    result("write_on_read_only", lock(open("records", O_RDONLY), F_SETLK, F_WRLCK, 0, 1));
    result("bad_type", lock(file, F_SETLK, 77, 0, 1));
    result("negative_start", lock(file, F_SETLK, F_WRLCK, -1, 1));
    result("negative_length", lock(file, F_SETLK, F_WRLCK, 10, -5));
    result("overflow", lock(file, F_SETLK, F_WRLCK, INT64_MAX, 2));
    lock(file, F_SETLK, F_UNLCK, 0, 0);
    struct flock end = {.l_type = F_WRLCK, .l_whence = SEEK_END, .l_start = -5, .l_len = 5};
    pwrite(file, "0123456789", 10, 0);
    result("from_end", fcntl(file, F_SETLK, &end));
    APART {
        int mine = open("records", O_RDWR);
        get("from_end_seen", mine, F_GETLK, F_WRLCK, 0, 0, me);
    }
    lock(file, F_SETLK, F_UNLCK, 0, 0);
}

static void nothing(int number)
{
    (void)number;
}

static void waiting(void)
{
    int file = need("open", open("waiting", O_CREAT | O_RDWR, 0600));
    int turn[2];
    need("pipe", pipe(turn));
    lock(file, F_SETLK, F_WRLCK, 0, 1);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        int mine = open("waiting", O_RDWR);
        write(turn[1], "r", 1);
        // Waits until the parent lets go.
        result("wait", lock(mine, F_SETLKW, F_WRLCK, 0, 1));
        leave_child();
    }
    char byte;
    read(turn[0], &byte, 1);
    lock(file, F_SETLK, F_UNLCK, 0, 1);
    int status;
    waitpid(child, &status, 0);

    // Held by another process, which lets go after some seconds: not every kernel ends a wait for a signal.
    int end[2];
    need("pipe", pipe(end));
    fflush(stdout);
    child = fork();
    if (child == 0) {
        int mine = open("waiting", O_RDWR);
        lock(mine, F_SETLK, F_WRLCK, 0, 1);
        write(turn[1], "r", 1);
        close(end[1]);
        poll(&(struct pollfd){end[0], POLLIN, 0}, 1, 6000);
        leave_child();
    }
    read(turn[0], &byte, 1);
    APART {
        struct sigaction action = {.sa_handler = nothing};
        sigaction(SIGALRM, &action, NULL);
        int mine = open("waiting", O_RDWR);
        // Again and again, so that a signal comes during the wait, however slow the machine is.
        struct itimerval often = {{0, 100000}, {0, 100000}}, never = {{0, 0}, {0, 0}};
        setitimer(ITIMER_REAL, &often, NULL);
        result("wait_interrupted", lock(mine, F_SETLKW, F_WRLCK, 0, 1));
        setitimer(ITIMER_REAL, &never, NULL);
        result("after_interruption", lock(mine, F_SETLK, F_WRLCK, 0, 1));
    }
    close(end[0]);
    close(end[1]);
    waitpid(child, &status, 0);
    // A process that is killed gives up what it held.
    fflush(stdout);
    child = fork();
    if (child == 0) {
        int mine = open("waiting", O_RDWR);
        lock(mine, F_SETLK, F_WRLCK, 0, 0);
        write(turn[1], "r", 1);
        pause();
    }
    read(turn[0], &byte, 1);
    result("held_by_other", lock(file, F_SETLK, F_WRLCK, 0, 1));
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    result("held_by_killed", lock(file, F_SETLKW, F_WRLCK, 0, 1));
    close(file);

    // Mutual exclusion of read, add, write.
    int counter = need("open", open("counter", O_CREAT | O_RDWR, 0600));
    int value = 0;
    pwrite(counter, &value, sizeof value, 0);
    fflush(stdout);
    for (int worker = 0; worker < 3; worker++)
        if (fork() == 0) {
            int mine = open("counter", O_RDWR), number;
            for (int i = 0; i < 40; i++) {
                lock(mine, F_SETLKW, F_WRLCK, 0, 0);
                pread(mine, &number, sizeof number, 0);
                number++;
                pwrite(mine, &number, sizeof number, 0);
                lock(mine, F_SETLK, F_UNLCK, 0, 0);
            }
            _exit(0);
        }
    while (wait(&status) > 0) {
    }
    pread(counter, &value, sizeof value, 0);
    say("counted", "%d", value);
}

static void open_files(void)
{
    int one = need("open", open("ofd", O_CREAT | O_RDWR, 0600)), other = open("ofd", O_RDWR);
    result("ofd_write", lock(one, F_OFD_SETLK, F_WRLCK, 0, 10));
    result("ofd_conflict_same_process", lock(other, F_OFD_SETLK, F_WRLCK, 5, 1));
    get("ofd_seen", other, F_OFD_GETLK, F_WRLCK, 0, 0, -1);
    result("ofd_against_process", lock(other, F_SETLK, F_WRLCK, 5, 1));
    int twin = dup(one);
    result("ofd_dup_shares", lock(twin, F_OFD_SETLK, F_RDLCK, 0, 10));
    result("ofd_shared", lock(other, F_OFD_SETLK, F_RDLCK, 0, 10));
    close(one);
    result("ofd_survives_close_of_dup", lock(other, F_OFD_SETLK, F_WRLCK, 0, 10));
    close(twin);

    /* With FUSE, close(2) does not wait until the file system has let go of the file. */
    int gone;
    for (int i = 0; (gone = lock(other, F_OFD_SETLK, F_WRLCK, 0, 10)) < 0 && errno == EAGAIN && i < 200; i++)
        usleep(10000);
    result("ofd_gone_with_last", gone);
    struct flock wrong = {.l_type = F_WRLCK, .l_pid = 5};
    result("ofd_pid_must_be_zero", fcntl(other, F_OFD_SETLK, &wrong));
    APART {
        // A descriptor that was inherited is the same open file.
        result("ofd_inherited", lock(other, F_OFD_SETLK, F_WRLCK, 0, 20));
    }
    int third = open("ofd", O_RDWR);
    result("ofd_taken_by_child", lock(third, F_OFD_SETLK, F_WRLCK, 15, 1));
}

static void whole_files(void)
{
    int one = need("open", open("whole", O_CREAT | O_RDWR, 0600)), other = open("whole", O_RDONLY);
    result("flock_shared", flock(one, LOCK_SH));
    result("flock_shared_twice", flock(other, LOCK_SH | LOCK_NB));
    result("flock_exclusive_refused", flock(one, LOCK_EX | LOCK_NB));
    result("flock_unlock", flock(other, LOCK_UN));
    result("flock_upgrade", flock(one, LOCK_EX | LOCK_NB));
    result("flock_exclusive", flock(other, LOCK_SH | LOCK_NB));
    result("flock_downgrade", flock(one, LOCK_SH | LOCK_NB));
    result("flock_after_downgrade", flock(other, LOCK_SH | LOCK_NB));
    flock(other, LOCK_UN);
    flock(one, LOCK_EX);
    int twin = dup(one);
    close(one);
    result("flock_dup_holds", flock(other, LOCK_EX | LOCK_NB));
    APART {
        // The child's unlock is the parent's: one open file.
        result("flock_child_unlocks", flock(twin, LOCK_UN));
    }
    result("flock_unlocked_by_child", flock(other, LOCK_EX | LOCK_NB));
    result("flock_bad", flock(twin, 0));
    result("flock_path", flock(open("whole", O_PATH), LOCK_SH));
    int directory = open(".", O_RDONLY), again = open(".", O_RDONLY);
    result("flock_directory", flock(directory, LOCK_EX | LOCK_NB));
    result("flock_directory_conflict", flock(again, LOCK_EX | LOCK_NB));
    close(other);
    result("flock_released_by_close", flock(twin, LOCK_EX | LOCK_NB));
    result("flock_and_records_are_apart", lock(open("whole", O_RDWR), F_SETLK, F_WRLCK, 0, 0));
}

void locks(void)
{
    records();
    waiting();
    open_files();
    whole_files();
}
