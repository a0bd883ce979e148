// Executing files.
#include "posix.h"

static void run(const char *name, const char *path)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        execl(path, path, "--who", name, NULL);
        say(name, "%s", error_name(errno));
        leave_child();
    }
    int status;
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status))
        say(name, "signal %d", WTERMSIG(status));
}

void programs(void)
{
    int from = need("open", open(self_path, O_RDONLY)), to = need("open", open("program", O_CREAT | O_WRONLY | O_CLOEXEC, 0755));
    static char block[1 << 16];
    ssize_t length;
    while ((length = read(from, block, sizeof block)) > 0)
        write(to, block, length);
    close(from);
    run("busy", "./program");
    close(to);
    run("plain", "./program");
    symlink("program", "symbolic");
    run("through_link", "./symbolic");
    AS(1000, 1000) run("as_user", "./program");
    chmod("program", 0700);
    AS(1000, 1000) run("as_user_refused", "./program");
    chmod("program", 0711);
    AS(1000, 1000) run("as_user_unreadable", "./program");
    chmod("program", 0644);
    run("not_executable", "./program");
    chmod("program", 0755);
    chown("program", 1005, 1006);
    chmod("program", 06755);
    AS(1000, 1000) run("set_id", "./program");
    chown("program", 0, 0);
    chmod("program", 0755);
    make("script", "#!/proc/self/cwd/program\n", 0755);
    make("bad", "#!/proc/self/cwd/missing\n", 0755);
    run("bad_interpreter", "./bad");
    make("text", "no program", 0755);
    run("no_format", "./text");
    make("empty", "", 0755);
    run("empty", "./empty");
    mkdir("directory", 0755);
    run("directory", "./directory");
    run("missing", "./missing");
    run("below_file", "./text/x");

    // A program that runs cannot be written, but removed.
    int hold[2];
    need("pipe", pipe(hold));
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        dup2(hold[0], 0);
        close(hold[1]);
        execl("./program", "./program", "--wait", NULL);
        _exit(1);
    }
    // It has started when the link of its process says so.
    char link[32], path[4096];
    snprintf(link, sizeof link, "/proc/%d/exe", child);
    for (int i = 0; i < 4000; i++) {
        ssize_t got = readlink(link, path, sizeof path - 1);
        path[got > 0 ? got : 0] = 0;
        if (strcmp(path, self_path) != 0 && strstr(path, "/program"))
            break;
        usleep(1000);
    }
    opened("running_write", open("program", O_WRONLY));
    result("running_truncate", truncate("program", 0));
    result("running_rename", rename("program", "renamed"));
    result("running_unlink", unlink("renamed"));
    close(hold[1]);
    close(hold[0]);
    int status;
    waitpid(child, &status, 0);
    say("running_ended", "%d", status);
}
