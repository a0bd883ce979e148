// POSIX access control lists, through their extended attributes: entries are tag, permissions and id, little-endian.
#include "posix.h"

enum { USER_OBJ = 1, USER = 2, GROUP_OBJ = 4, GROUP = 8, MASK = 16, OTHER = 32 };
struct entry {
    uint16_t tag, permissions;
    uint32_t id;
};

static long set(const char *path, const char *name, const struct entry *entries, size_t count)
{
    char value[4 + 32 * sizeof(struct entry)];
    uint32_t version = 2;
    memcpy(value, &version, 4);
    memcpy(value + 4, entries, count * sizeof *entries);
    return setxattr(path, name, value, 4 + count * sizeof *entries, 0);
}
#define SET(path, name, ...) set(path, name, (struct entry[]){__VA_ARGS__}, sizeof((struct entry[]){__VA_ARGS__}) / sizeof(struct entry))
#define ACCESS "system.posix_acl_access"
#define DEFAULT "system.posix_acl_default"

static void show(const char *name, const char *path, const char *kind)
{
    char value[1000], text[1000] = "";
    ssize_t length = getxattr(path, kind, value, sizeof value);
    if (length < 0) {
        say(name, "%s", error_name(errno));
        return;
    }
    for (ssize_t at = 4; at + 8 <= length; at += 8) {
        struct entry one;
        memcpy(&one, value + at, sizeof one);
        char word[40];
        snprintf(word, sizeof word, " %s:%d:%o",
                 one.tag == USER_OBJ || one.tag == USER ? "user" : one.tag == MASK ? "mask" : one.tag == OTHER ? "other" : "group",
                 one.tag == USER || one.tag == GROUP ? (int)one.id : -1, one.permissions);
        strcat(text, word);
    }
    say(name, "%zd bytes:%s", length, text);
}

void lists(void)
{
    make("file", "x", 0640);
    make_directory("directory", 0750);
    char buffer[200];
    result("get_none", getxattr("file", ACCESS, buffer, sizeof buffer));
    result("get_default_none", getxattr("directory", DEFAULT, buffer, sizeof buffer));
    long first = SET("file", ACCESS, {USER_OBJ, 6, -1}, {USER, 6, 1000}, {GROUP_OBJ, 4, -1}, {MASK, 6, -1}, {OTHER, 0, -1});
    result("set", first);
    show("get", "file", ACCESS);
    state("mode_shows_mask", "file");
    AS(1000, 1000) {
        opened("named_user_writes", open("file", O_RDWR));
        result("named_user_access", access("file", W_OK));
    }
    AS(1001, 1001) opened("stranger", open("file", O_RDONLY));
    result("chmod", chmod("file", 0600));
    show("chmod_changes_mask", "file", ACCESS);
    AS(1000, 1000) opened("masked_user", open("file", O_RDONLY));
    result("chmod_back", chmod("file", 0660));
    AS(1000, 1000) opened("unmasked_user", open("file", O_RDWR));
    result("group_entry", SET("file", ACCESS, {USER_OBJ, 6, -1}, {GROUP_OBJ, 0, -1}, {GROUP, 6, 2000}, {GROUP, 4, 2001}, {MASK, 7, -1},
                              {OTHER, 0, -1}));
    show("group_entry_get", "file", ACCESS);
    AS(1000, 1000, 2000) opened("named_group_writes", open("file", O_RDWR));
    AS(1000, 1000, 2001) opened("named_group_reads", open("file", O_RDONLY));
    AS(1000, 1000, 2001) opened("named_group_does_not_write", open("file", O_RDWR));
    result("bad_version", setxattr("file", ACCESS, "\1\0\0\0", 4, 0));
    result("bad_order", SET("file", ACCESS, {OTHER, 0, -1}, {USER_OBJ, 6, -1}, {GROUP_OBJ, 4, -1}));
    result("missing_mask", SET("file", ACCESS, {USER_OBJ, 6, -1}, {USER, 6, 1000}, {GROUP_OBJ, 4, -1}, {OTHER, 0, -1}));
    result("bad_permissions", SET("file", ACCESS, {USER_OBJ, 9, -1}, {GROUP_OBJ, 4, -1}, {OTHER, 0, -1}));
    result("short_value", setxattr("file", ACCESS, "\2\0\0\0abc", 7, 0));
    result("default_on_file", SET("file", DEFAULT, {USER_OBJ, 6, -1}, {GROUP_OBJ, 4, -1}, {OTHER, 0, -1}));
    result("minimal", SET("file", ACCESS, {USER_OBJ, 6, -1}, {GROUP_OBJ, 4, -1}, {OTHER, 4, -1}));
    state("minimal_sets_mode", "file");
    result("minimal_is_not_stored", getxattr("file", ACCESS, buffer, sizeof buffer));
    AS(1000, 1000) {
        result("set_by_other", SET("file", ACCESS, {USER_OBJ, 7, -1}, {GROUP_OBJ, 7, -1}, {OTHER, 7, -1}));
        result("remove_by_other", removexattr("file", ACCESS));
    }
    result("default", SET("directory", DEFAULT, {USER_OBJ, 7, -1}, {USER, 7, 1000}, {GROUP_OBJ, 5, -1}, {MASK, 7, -1}, {OTHER, 0, -1}));
    show("default_get", "directory", DEFAULT);
    state("default_keeps_mode", "directory");
    umask(077);
    close(open("directory/file", O_CREAT | O_RDWR, 0666));
    state("inherited_file", "directory/file");
    show("inherited_file_acl", "directory/file", ACCESS);
    mkdir("directory/sub", 0777);
    state("inherited_directory", "directory/sub");
    show("inherited_directory_acl", "directory/sub", ACCESS);
    show("inherited_default", "directory/sub", DEFAULT);
    mkfifo("directory/fifo", 0666);
    state("inherited_fifo", "directory/fifo");
    symlink("x", "directory/link");
    state("inherited_symlink", "directory/link");
    close(open("directory/sub/deep", O_CREAT | O_RDWR, 0640));
    state("inherited_deep", "directory/sub/deep");
    show("inherited_deep_acl", "directory/sub/deep", ACCESS);
    close(open("umasked", O_CREAT | O_RDWR, 0666));
    state("umask_without_default", "umasked");
    umask(0);
    int temporary = open("directory", O_TMPFILE | O_RDWR, 0666);
    if (temporary >= 0)
        fstate("inherited_tmpfile", temporary);
    else
        say("inherited_tmpfile", "%s", error_name(errno));
    result("default_remove", removexattr("directory", DEFAULT));
    result("default_remove_again", removexattr("directory", DEFAULT));
    close(open("directory/after", O_CREAT | O_RDWR, 0666));
    state("after_removal", "directory/after");
    // A set-group-id bit of a file whose group is not ours goes with a change of its list.
    make("setgid", "x", 0600);
    chown("setgid", 1000, 3000);
    chmod("setgid", 02775);
    AS(1000, 1000) {
        result("setgid_set", SET("setgid", ACCESS, {USER_OBJ, 7, -1}, {GROUP_OBJ, 7, -1}, {OTHER, 5, -1}));
        state("setgid_cleared", "setgid");
    }
}
