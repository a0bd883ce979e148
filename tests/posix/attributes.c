// Extended attributes.
#include "posix.h"

// The list, in order of names: the order of the file system's own means nothing.
static int by_name(const void *one, const void *other)
{
    return strcmp(*(char *const *)one, *(char *const *)other);
}

static void list(const char *name, const char *path)
{
    static char buffer[70000], text[4000];
    ssize_t length = llistxattr(path, buffer, sizeof buffer);
    if (length < 0) {
        say(name, "%s", error_name(errno));
        return;
    }
    char *names[500];
    int count = 0;
    for (ssize_t at = 0; at < length && count < 500; at += strlen(buffer + at) + 1)
        names[count++] = buffer + at;
    qsort(names, count, sizeof names[0], by_name);
    text[0] = 0;
    for (int i = 0; i < count && strlen(text) < 3500; i++)
        // What a security module puts there by itself is none of ours.
        if (strcmp(names[i], "security.selinux") != 0)
            strcat(strcat(text, " "), names[i]);
    say(name, "%d:%s", count, text);
}

void attributes(void)
{
    static char large[70000], buffer[70000];
    memset(large, 'v', sizeof large);
    make("file", "x", 0644);
    make_directory("directory", 0755);
    need("symlink", symlink("file", "link"));
    need("mkfifo", mkfifo("fifo", 0644));

    list("list_none", "file");
    result("get_missing", getxattr("file", "user.none", buffer, 10));
    result("set", setxattr("file", "user.one", "value", 5, 0));
    result("get", getxattr("file", "user.one", buffer, sizeof buffer));
    say("get_value", "%.5s", buffer);
    result("get_size", getxattr("file", "user.one", NULL, 0));
    result("get_too_small", getxattr("file", "user.one", buffer, 4));
    result("get_exact", getxattr("file", "user.one", buffer, 5));
    result("create_existing", setxattr("file", "user.one", "x", 1, XATTR_CREATE));
    result("replace_missing", setxattr("file", "user.two", "x", 1, XATTR_REPLACE));
    result("replace", setxattr("file", "user.one", "longer value", 12, XATTR_REPLACE));
    result("create", setxattr("file", "user.two", "", 0, XATTR_CREATE));
    result("get_empty", getxattr("file", "user.two", buffer, sizeof buffer));
    result("bad_flags", setxattr("file", "user.three", "x", 1, 8));
    result("both_flags", setxattr("file", "user.three", "x", 1, XATTR_CREATE | XATTR_REPLACE));
    list("list_two", "file");
    result("list_size", listxattr("file", NULL, 0));
    result("list_too_small", listxattr("file", buffer, 5));
    result("remove", removexattr("file", "user.one"));
    result("remove_again", removexattr("file", "user.one"));
    list("list_after_remove", "file");
    result("name_empty", setxattr("file", "", "x", 1, 0));
    result("name_prefix_only", setxattr("file", "user.", "x", 1, 0));
    result("name_no_prefix", setxattr("file", "plain", "x", 1, 0));
    result("name_unknown_prefix", setxattr("file", "strange.x", "x", 1, 0));
    char long_name[300] = "user.";
    memset(long_name + 5, 'n', 250);
    result("name_255", setxattr("file", long_name, "x", 1, 0));
    result("name_255_get", getxattr("file", long_name, buffer, sizeof buffer));
    long_name[255] = 'n';
    result("name_256", setxattr("file", long_name, "x", 1, 0));
    long_name[255] = 0;
    removexattr("file", long_name);
    result("name_bytes", setxattr("file", "user.\xff\xfe\n", "x", 1, 0));
    result("name_bytes_get", getxattr("file", "user.\xff\xfe\n", buffer, 10));
    result("name_bytes_remove", removexattr("file", "user.\xff\xfe\n"));
    result("value_2000", setxattr("file", "user.big", large, 2000, 0));
    result("value_2000_get", getxattr("file", "user.big", buffer, sizeof buffer));
    say("value_2000_compare", "%s", memcmp(large, buffer, 2000) ? "differs" : "same");
    result("value_65536", setxattr("file", "user.big", large, 65536, 0) < 0 && (errno == ENOSPC || errno == E2BIG) ? 0 : 1);
    result("value_65537", setxattr("file", "user.big", large, 65537, 0));
    result("value_binary", setxattr("file", "user.big", "\0\1\2\xff", 4, 0));
    result("value_binary_get", getxattr("file", "user.big", buffer, 10));
    say("value_binary_compare", "%s", memcmp("\0\1\2\xff", buffer, 4) ? "differs" : "same");
    result("missing_file", getxattr("missing", "user.x", buffer, 1));

    result("directory_set", setxattr("directory", "user.d", "dir", 3, 0));
    list("directory_list", "directory");
    result("link_set_follows", setxattr("link", "user.via", "x", 1, 0));
    result("link_lset_user", lsetxattr("link", "user.own", "x", 1, 0));
    result("link_lget_user", lgetxattr("link", "user.own", buffer, 1));
    result("link_lset_trusted", lsetxattr("link", "trusted.own", "x", 1, 0));
    list("link_list", "link");
    result("fifo_set_user", setxattr("fifo", "user.f", "x", 1, 0));
    result("fifo_set_trusted", setxattr("fifo", "trusted.f", "x", 1, 0));
    int file = open("file", O_RDONLY);
    result("descriptor_set", fsetxattr(file, "user.fd", "x", 1, 0));
    result("descriptor_get", fgetxattr(file, "user.fd", buffer, 10));
    result("descriptor_remove", fremovexattr(file, "user.fd"));

    result("trusted_set", setxattr("file", "trusted.t", "secret", 6, 0));
    list("trusted_list", "file");
    result("security_set", setxattr("file", "security.causeway", "label", 5, 0));
    result("security_get", getxattr("file", "security.causeway", buffer, 10));
    result("system_set", setxattr("file", "system.causeway", "x", 1, 0));
    chmod("file", 0666);
    AS(1000, 1000) {
        result("user_set", setxattr("file", "user.byother", "x", 1, 0));
        result("user_trusted_get", getxattr("file", "trusted.t", buffer, 10));
        result("user_trusted_set", setxattr("file", "trusted.u", "x", 1, 0));
        result("user_security_set", setxattr("file", "security.u", "x", 1, 0));
        result("user_security_get", getxattr("file", "security.causeway", buffer, 10));
        result("user_link_trusted", lgetxattr("link", "trusted.own", buffer, 10));
        list("user_list", "file");
    }
    chmod("file", 0600);
    AS(1000, 1000) {
        result("unreadable_get", getxattr("file", "user.byother", buffer, 10));
        result("unreadable_set", setxattr("file", "user.byother", "x", 1, 0));
        list("unreadable_list", "file");
    }
    chmod("file", 0444);
    AS(1000, 1000) {
        result("read_only_set", setxattr("file", "user.byother", "x", 1, 0));
        result("read_only_get", getxattr("file", "user.byother", buffer, 10));
        result("read_only_remove", removexattr("file", "user.byother"));
    }
    make_directory("sticky", 01777);
    AS(1000, 1000) {
        result("sticky_set_by_other", setxattr("sticky", "user.x", "x", 1, 0));
    }
    // A file capability goes away when somebody writes.
    static const unsigned char capability[20] = {1, 0, 0, 2, 0, 4};
    chmod("file", 0777);
    result("capability_set", setxattr("file", "security.capability", capability, 20, 0));
    result("capability_get", getxattr("file", "security.capability", buffer, sizeof buffer));
    AS(1000, 1000) {
        int mine = open("file", O_WRONLY);
        result("capability_write", write(mine, "y", 1));
    }
    result("capability_after_write", getxattr("file", "security.capability", buffer, sizeof buffer));
    setxattr("file", "security.capability", capability, 20, 0);
    result("capability_chown", chown("file", 5, 5));
    result("capability_after_chown", getxattr("file", "security.capability", buffer, sizeof buffer));
    setxattr("file", "security.capability", capability, 20, 0);
    result("capability_truncate", truncate("file", 0));
    result("capability_after_truncate", getxattr("file", "security.capability", buffer, sizeof buffer));
    AS(1000, 1000) {
        result("capability_set_by_user", setxattr("file", "security.capability", capability, 20, 0));
    }
    // Many attributes, and their way through rename and link.
    make("many", "", 0644);
    for (int i = 0; i < 30; i++) {
        char name[32];
        snprintf(name, sizeof name, "user.number%02d", i);
        need(name, setxattr("many", name, name, strlen(name), 0));
    }
    link("many", "many2");
    list("many_list", "many2");
    rename("many2", "many3");
    result("many_get_renamed", getxattr("many3", "user.number17", buffer, sizeof buffer));
    int open_file = open("many", O_RDWR);
    unlink("many");
    unlink("many3");
    result("unlinked_get", fgetxattr(open_file, "user.number03", buffer, sizeof buffer));
    result("unlinked_set", fsetxattr(open_file, "user.late", "x", 1, 0));
    result("unlinked_remove", fremovexattr(open_file, "user.late"));
}
