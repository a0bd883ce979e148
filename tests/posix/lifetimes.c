// What lives on without a name: unlinked files, removed directories.
#include "posix.h"

void lifetimes(void)
{
    char proc[64], buffer[64];
    int file = need("open", open("file", O_CREAT | O_RDWR, 0640));
    write(file, "content", 7);
    result("unlink", unlink("file"));
    fstate("state", file);
    fcontent("content", file);
    result("write", pwrite(file, "more", 4, 7));
    result("truncate", ftruncate(file, 9));
    result("fchmod", fchmod(file, 0600));
    result("fchown", fchown(file, 5, 6));
    result("futimens", futimens(file, (struct timespec[]){{1, 2}, {3, 4}}));
    result("fsync", fsync(file));
    result("fallocate", fallocate(file, 0, 0, 100));
    fstate("state_after", file);
    struct stat found;
    fstat(file, &found);
    say("time", "%lld.%ld", (long long)found.st_atim.tv_sec, found.st_atim.tv_nsec);
    snprintf(proc, sizeof proc, "/proc/self/fd/%d", file);
    int again = open(proc, O_RDWR);
    opened("reopen", again);
    if (again >= 0)
        fcontent("reopen_content", again);
    opened("reopen_truncate", open(proc, O_RDWR | O_TRUNC));
    fstate("reopen_truncate_state", file);
    result("stat_by_proc", stat(proc, &found));
    result("link_back", linkat(AT_FDCWD, proc, AT_FDCWD, "back", AT_SYMLINK_FOLLOW));
    result("chmod_by_proc", chmod(proc, 0644));
    result("readlink_by_proc", readlink(proc, buffer, sizeof buffer) > 0 ? 0 : -1);
    int same = open("file", O_CREAT | O_EXCL | O_RDWR, 0600);
    opened("name_is_free", same);
    write(same, "second", 6);
    struct stat second;
    fstat(same, &second);
    fstat(file, &found);
    say("new_inode", "%s", second.st_ino == found.st_ino ? "same" : "differs");
    content("new_content", "file");
    fstate("old_state", file);

    make("source", "replacement", 0600);
    int old = open("file", O_RDWR);
    rename("source", "file");
    fcontent("replaced_content", old);
    fstate("replaced_state", old);
    result("replaced_write", pwrite(old, "S", 1, 0));
    content("replacing_content", "file");

    // A directory without a name.
    make_directory("directory", 0755);
    make("directory/inside", "x", 0600);
    int directory = open("directory", O_RDONLY | O_DIRECTORY);
    need("chdir", chdir("directory"));
    unlink("inside");
    result("rmdir_cwd", rmdir("../directory"));
    say("getcwd", "%s", getcwd(buffer, sizeof buffer) ? "path" : error_name(errno));
    result("stat_dot", stat(".", &found));
    state("dot_state", ".");
    opened("open_dot", open(".", O_RDONLY));
    opened("create", open("new", O_CREAT | O_RDWR, 0600));
    result("mkdir", mkdir("new", 0700));
    result("symlink", symlink("x", "new"));
    result("mkfifo", mkfifo("new", 0600));
    result("link", link("../file", "new"));
    result("rename_into", rename("../file", "new"));
    opened("lookup", open("inside", O_RDONLY));
    opened("tmpfile", open(".", O_TMPFILE | O_RDWR, 0600));
    result("fchmod_directory", fchmod(directory, 0700));
    result("fsync_directory", fsync(directory));
    DIR *list = opendir(".");
    errno = 0;
    say("readdir", "%s", list == NULL ? error_name(errno) : readdir(list) ? "entry" : error_name(errno));
    result("stat_dotdot", stat("..", &found));
    result("chdir_dotdot", chdir(".."));
    opened("openat_removed", openat(directory, "x", O_CREAT | O_RDWR, 0600));
    fstate("directory_state", directory);
    result("mkdir_again", mkdir("directory", 0755));
    fstate("directory_state_again", directory);
    opened("openat_removed_again", openat(directory, ".", O_RDONLY));
    result("rmdir_again", rmdir("directory"));

    // Held only by a path, by a mapping, or by another process.
    make("held", "held", 0600);
    int path = open("held", O_PATH);
    unlink("held");
    fstate("path_state", path);
    snprintf(proc, sizeof proc, "/proc/self/fd/%d", path);
    opened("path_reopen", open(proc, O_RDONLY));
    content("path_content", proc);
    make("child", "of a child", 0600);
    int go[2];
    need("pipe", pipe(go));
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        int mine = open("child", O_RDWR);
        write(go[1], "r", 1);
        close(go[1]);
        char byte;
        while (access("child", F_OK) == 0)
            usleep(1000);
        fcontent("child_content", mine);
        fstate("child_state", mine);
        (void)byte;
        leave_child();
    }
    read(go[0], buffer, 1);
    unlink("child");
    int status;
    waitpid(pid, &status, 0);

    // Many of them at once.
    int held[100], right = 0;
    for (int i = 0; i < 100; i++) {
        snprintf(buffer, sizeof buffer, "t%d", i);
        held[i] = open(buffer, O_CREAT | O_RDWR, 0600);
        write(held[i], &i, sizeof i);
        unlink(buffer);
    }
    for (int i = 0; i < 100; i++) {
        int value = -1;
        pread(held[i], &value, sizeof value, 0);
        right += value == i;
        close(held[i]);
    }
    say("hundred", "%d right", right);
    need("symlink", symlink("target", "symbolic"));
    int link = open("symbolic", O_PATH | O_NOFOLLOW);
    unlink("symbolic");
    result("symlink_readlink", readlinkat(link, "", buffer, sizeof buffer));
    fstate("symlink_state", link);
}
