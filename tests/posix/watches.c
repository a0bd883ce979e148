// inotify within one system.
#include "posix.h"

static void events(const char *name, int watch)
{
    char buffer[8192], text[2000] = "";
    ssize_t length;
    uint32_t cookie = 0;
    while ((length = read(watch, buffer, sizeof buffer)) > 0)
        for (char *at = buffer; at < buffer + length;) {
            struct inotify_event *event = (struct inotify_event *)at;
            static const struct { uint32_t bit; const char *name; } names[] = {
                {IN_ACCESS, "access"}, {IN_MODIFY, "modify"}, {IN_ATTRIB, "attrib"}, {IN_CLOSE_WRITE, "close-write"},
                {IN_CLOSE_NOWRITE, "close"}, {IN_OPEN, "open"}, {IN_MOVED_FROM, "from"}, {IN_MOVED_TO, "to"}, {IN_CREATE, "create"},
                {IN_DELETE, "delete"}, {IN_DELETE_SELF, "delete-self"}, {IN_MOVE_SELF, "move-self"}, {IN_IGNORED, "ignored"},
                {IN_UNMOUNT, "unmount"}, {IN_ISDIR, "(directory)"}};
            for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
                if (event->mask & names[i].bit)
                    strcat(strcat(text, " "), names[i].name);
            if (event->len)
                strcat(strcat(text, ":"), event->name);
            if (event->cookie) {
                strcat(text, event->cookie == cookie ? "=" : "");
                cookie = event->cookie;
            }
            at += sizeof *event + event->len;
        }
    say(name, "%s", text[0] ? text + 1 : "nothing");
}

void watches(void)
{
    make_directory("d", 0755);
    make("d/file", "x", 0644);
    int watch = need("inotify", inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
    result("add", inotify_add_watch(watch, "d", IN_ALL_EVENTS) > 0 ? 0 : -1);
    result("add_missing", inotify_add_watch(watch, "missing", IN_ALL_EVENTS));
    result("add_onlydir", inotify_add_watch(watch, "d/file", IN_ALL_EVENTS | IN_ONLYDIR));
    int file = open("d/new", O_CREAT | O_RDWR, 0600);
    events("create", watch);
    write(file, "x", 1);
    events("write", watch);
    pread(file, &(char){0}, 1, 0);
    events("read", watch);
    close(file);
    events("close", watch);
    chmod("d/new", 0640);
    events("chmod", watch);
    chown("d/new", 1, 1);
    events("chown", watch);
    utimensat(AT_FDCWD, "d/new", NULL, 0);
    events("utime", watch);
    truncate("d/new", 10);
    events("truncate", watch);
    setxattr("d/new", "user.x", "x", 1, 0);
    events("setxattr", watch);
    link("d/new", "d/hard");
    events("link", watch);
    rename("d/new", "d/renamed");
    events("rename", watch);
    rename("d/renamed", "out");
    events("rename_out", watch);
    rename("out", "d/in");
    events("rename_in", watch);
    rename("d/in", "d/file");
    events("rename_over", watch);
    mkdir("d/sub", 0700);
    events("mkdir", watch);
    rmdir("d/sub");
    events("rmdir", watch);
    symlink("x", "d/link");
    events("symlink", watch);
    unlink("d/hard");
    events("unlink", watch);
    int self = inotify_add_watch(watch, "d/file", IN_ALL_EVENTS);
    (void)self;
    int keep = open("d/file", O_RDONLY);
    events("self_open", watch);
    rename("d/file", "d/moved");
    events("self_moved", watch);
    unlink("d/moved");
    events("self_unlinked_open", watch);
    close(keep);
    events("self_gone", watch);
    unlink("d/link");
    rmdir("d");
    events("directory_gone", watch);
}
