// The POSIX checks: what they share. Each check prints one line "FAMILY.NAME: RESULT" that is the same on every run, so that the
// output on two file systems can be compared line by line. Nothing here judges: the host's own file system is the truth.
#ifndef POSIX_H
#define POSIX_H

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/fsuid.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#ifndef RENAME_WHITEOUT
#define RENAME_WHITEOUT 4
#endif

// The path of this program, for checks that execute something.
extern const char *self_path;

// Prints a check's result as given.
void say(const char *name, const char *format, ...) __attribute__((format(printf, 2, 3)));

// Prints a call's result, the number or the name of errno; returns it. To be called with errno still set.
long result(const char *name, long returned);

// The same for a call that makes a descriptor, whose number means nothing.
int opened(const char *name, int descriptor);

// The name of an error number.
const char *error_name(int error);

// The result of a call in words, for lines that hold several. Valid for the next eight calls.
const char *word(long returned);

// Prints type, mode, links, owner and size of a path, or the error. Directories have no size: it belongs to the file system.
void state(const char *name, const char *path);
void fstate(const char *name, int descriptor);

// Makes a file with this content and mode, whatever the umask; ends the family if that fails.
void make(const char *path, const char *content, mode_t mode);
void make_directory(const char *path, mode_t mode);
// Removes a tree, if it is there.
void discard(const char *path);
int need(const char *what, int descriptor);

// Reads a file and prints what it holds, other bytes than letters escaped, repeated ones counted.
void content(const char *name, const char *path);
void fcontent(const char *name, int descriptor);

// The body that follows runs in a process of its own with this user, group and supplementary groups, and no capabilities.
#define AS(user, group, ...)                                                                                                      \
    for (int in_child = as(user, group, sizeof((gid_t[]){__VA_ARGS__}) / sizeof(gid_t), (gid_t[]){__VA_ARGS__}); in_child;       \
         leave_child())
// The same with the identity that we have.
#define APART for (int in_child = apart(); in_child; leave_child())
int as(uid_t user, gid_t group, size_t count, const gid_t *groups);
int apart(void);
void leave_child(void) __attribute__((noreturn));

// Waits until the file system's clock has moved on, so that a change of time can be seen.
void tick(void);

// What a call did to the times of a path: "mtime ctime", "" and so on. Set before(), act, print after().
void before(const char *path);
void after(const char *name, const char *path);

// "same as" or "differs from": one time beside another.
const char *same_time(struct timespec one, struct timespec other);

void files(void);
void names(void);
void permissions(void);
void renames(void);
void times(void);
void input_output(void);
void mappings(void);
void attributes(void);
void lists(void);
void directories(void);
void locks(void);
void lifetimes(void);
void watches(void);
void special_files(void);
void spaces(void);
void programs(void);

#endif
